# emad: one Makefile for everything; `make help` lists the targets.
#
# Every program names the objects it is linked from, and every object the outside libraries it needs: that a module's
# test links without the rest of the program is what proves that the module stands alone. A new source file is one
# word in a list here, a new test one line.
#
#   BUILD=release|debug|asan|tsan|failpoints   what is built, into build/$(BUILD)
#   CC CPPFLAGS CFLAGS LDFLAGS      yours; CFLAGS replaces the optimisation and debugging flags
#   PREFIX DESTDIR sysconfdir       where `make install` puts things
#   PYTHON                          interpreter with PyTorch, instead of one that tests/setup.sh prepares
#   V=1                             shows the commands

VERSION := 0.1.0
SONAME := libemad.so.0

# ---- sources ---------------------------------------------------------------------------------------------------------

proto := $(addprefix proto/, \
	convert dtype generation image json_read layout manifest manifest_pack manifest_tiling merge message name nearest \
	number pack posthoc profile runs safetensors safetensors_write schedule schedule_formula schedule_scale \
	schedule_table schedule_text sp status)

core := $(addprefix daemon/core/, \
	access address adopt apply attributes book call checkpoint config config_text defaults description ending \
	estate event generation_text geometry guards history inflow inquiry intake json_text keep kernel kernel_avx2 \
	kernel_avx512 kernel_portable kernel_scalar loan metrics model network notes owner parking plan profiles push \
	query ranks recover register registration_report relay remote report report_history restore retention seal \
	service service_events service_files service_memory service_models service_settle service_summary service_updates \
	throttle tokens update verdict version_metadata versions web web_page web_path web_range)

edge := $(addprefix daemon/edge/, \
	accounts attach config_file credentials descriptors files files_generation files_list files_pace files_place \
	files_way files_write http http_socket log memory memory_directory memory_group memory_segment runtime scribe systemd thread_room \
	token transport transport_body transport_connection transport_flow transport_listener transport_pending \
	transport_replies waker workers)

# Only a test build can die at a place of its source.
failpoints := daemon/edge/failpoint
daemon := $(proto) $(core) $(edge) $(addprefix daemon/, \
	admission clocks daemon http_server main network_files options outside reload signals sockets threads voice) \
	$(if $(filter failpoints,$(BUILD)),$(failpoints))

library := $(proto) $(addprefix client/, \
	attach blend blend_layout call checkpoint chunks client copy enclosure error export gather identity link merge \
	pages parts posthoc profiles push pusher range recast registration remote remote_view selection served snapshot source \
	stages sum target team threads trainer view wait)

emactl := $(library) $(addprefix client/emactl/, \
	arguments ask cadence checkpoint_watch child command_checkpoint command_daemon command_diff command_doctor command_explain \
	command_export command_get command_import command_merge command_model command_posthoc command_profile \
	command_rollback command_top command_verify command_watch comparison comparison_report complete copying \
	doctor_host doctor_judge doctor_judge_network doctor_network emactl explain_list explain_plots explain_reference explain_scale facts figure \
	following kept_files npy numbers operand output placeholders plot progress scan screen sum_report table \
	top_rows transfer verify_directory verify_file verify_report)

# The outside libraries that an object needs; whatever is linked from it is linked with them.
needs_client/emactl/arguments := m
needs_client/emactl/checkpoint_watch := jansson
needs_client/emactl/command_daemon := jansson
needs_client/emactl/command_doctor := jansson
needs_client/emactl/command_model := jansson
needs_client/emactl/command_posthoc := jansson
needs_client/emactl/command_rollback := jansson
needs_client/emactl/explain_plots := m
needs_client/emactl/explain_reference := m
needs_client/emactl/complete := jansson
needs_client/emactl/doctor_network := jansson
needs_client/emactl/facts := jansson
needs_client/emactl/following := jansson
needs_client/emactl/command_top := jansson m
needs_client/emactl/numbers := m
needs_client/emactl/output := jansson
needs_client/emactl/plot := m
needs_client/emactl/screen := ncursesw
needs_client/emactl/top_rows := jansson
needs_client/link := nng
needs_client/posthoc := m
needs_client/sum := m
needs_daemon/clocks := uv
needs_daemon/core/attributes := jansson
needs_daemon/core/config_text := jansson
needs_daemon/core/generation_text := jansson m
needs_daemon/core/guards := m
needs_daemon/core/history := jansson
needs_daemon/core/json_text := jansson
needs_daemon/core/report := jansson m
needs_daemon/core/report_history := jansson
needs_daemon/core/push := m
needs_daemon/core/update := m
needs_daemon/core/verdict := m
needs_daemon/daemon := uv
needs_daemon/edge/attach := uv
needs_daemon/edge/config_file := inih
needs_daemon/edge/http := microhttpd
needs_daemon/edge/systemd := systemd
needs_daemon/edge/transport_pending := nng
needs_daemon/edge/waker := uv
needs_daemon/signals := uv
needs_daemon/sockets := uv
needs_daemon/threads := uv
needs_proto/layout := xxhash
needs_proto/merge := m
needs_proto/number := m
needs_proto/pack := msgpack
needs_proto/posthoc := m
needs_proto/schedule := m
needs_proto/schedule_formula := m
needs_proto/schedule_scale := m
needs_proto/schedule_text := m

# ---- tests: test_NAME := the objects that it is linked from ----------------------------------------------------------

kernel := $(addprefix daemon/core/, kernel kernel_avx2 kernel_avx512 kernel_portable kernel_scalar)
manifest := $(addprefix proto/, dtype manifest manifest_pack manifest_tiling name pack status)
schedule := $(addprefix proto/, number schedule schedule_formula schedule_scale schedule_table schedule_text status)
model_parts := $(manifest) $(filter-out $(manifest),$(schedule)) $(addprefix daemon/core/, description geometry plan) \
	$(addprefix proto/, image layout nearest profile safetensors_write) \
	$(addprefix tests/unit/, failing_heap random_model)
service := $(core) $(filter-out $(core),$(model_parts)) $(addprefix proto/, convert generation json_read message runs safetensors) \
	tests/unit/fake_host

files := $(addprefix daemon/edge/, files_generation files_list files_pace files_place files_way files_write) \
	daemon/core/retention $(addprefix proto/, generation json_read layout name status)
disk := $(files) $(addprefix tests/unit/, disk_generations disk_model)

apply := daemon/core/apply $(filter-out $(model_parts),$(kernel)) $(model_parts)
test_access := daemon/core/access $(addprefix proto/, message name pack status)
test_accounts := daemon/edge/accounts
test_address := daemon/core/address proto/status
test_apply := $(apply) tests/unit/apply_bench
test_apply_change := $(test_apply)
test_attributes := $(addprefix daemon/core/, attributes json_text) proto/status tests/unit/failing_heap
test_blend := $(schedule) $(addprefix client/, blend blend_layout error merge parts posthoc served source sum target) \
	$(addprefix proto/, convert dtype json_read merge name nearest posthoc safetensors) tests/unit/failing_heap
test_cadence := client/emactl/cadence
config := $(addprefix daemon/core/, access address config defaults guards network) $(schedule) \
	$(addprefix proto/, dtype message name nearest pack profile)
test_config := $(config) $(addprefix daemon/core/, config_text json_text)
test_config_file := $(config) daemon/edge/config_file
test_convert := $(addprefix proto/, convert dtype)
test_copy := client/copy
test_descriptors := daemon/edge/descriptors proto/status
test_doctor := $(addprefix client/emactl/, doctor_host doctor_judge doctor_judge_network figure)
test_dtype := proto/dtype
test_facts := $(addprefix client/emactl/, facts figure table)
test_files := daemon/edge/files $(files)
test_files_generation := $(files)
test_files_write := $(addprefix daemon/edge/, files_pace files_place files_write) $(addprefix proto/, layout status)
test_figure := client/emactl/figure
test_gather := $(manifest) $(addprefix client/, error gather recast served) \
	$(addprefix proto/, convert json_read nearest runs safetensors safetensors_write) tests/unit/failing_heap
test_generation := $(addprefix proto/, generation json_read layout name status)
test_generation_faults := $(disk)
test_generation_text := $(addprefix daemon/core/, attributes generation_text guards json_text) \
	$(manifest) $(filter-out $(manifest),$(schedule)) $(addprefix proto/, generation json_read layout message nearest profile)
test_geometry := $(model_parts)
test_guards := daemon/core/guards $(addprefix proto/, message name nearest pack status)
test_history := $(addprefix daemon/core/, history json_text) proto/status tests/unit/failing_heap
test_image := $(schedule) $(addprefix proto/, dtype image json_read manifest name nearest profile safetensors \
	safetensors_write) tests/unit/failing_heap
test_inflow := daemon/core/inflow proto/status
test_intake := daemon/core/intake daemon/core/seal $(addprefix proto/, layout message name pack status)
test_kept_files := client/emactl/kept_files proto/status
test_kernel := $(kernel) proto/dtype
test_layout := proto/layout proto/status
test_link := $(addprefix client/, link threads wait) $(addprefix proto/, sp status)
test_manifest := $(manifest) tests/unit/failing_heap
test_memory := $(addprefix daemon/edge/, memory memory_directory memory_group memory_segment) proto/status
test_memory_group := daemon/edge/memory_group
test_memory_kept := $(test_memory)
test_merge := proto/merge
test_message := $(addprefix proto/, message name pack status)
test_name := proto/name proto/status
test_nearest := proto/nearest
test_npy := client/emactl/npy
test_numbers := client/emactl/numbers $(addprefix proto/, convert dtype)
test_pack := $(addprefix proto/, name pack status)
test_pages := $(addprefix client/, pages wait)
test_placeholders := client/emactl/placeholders
test_plan := $(model_parts)
test_plot := client/emactl/plot
test_posthoc := $(schedule) $(addprefix proto/, nearest posthoc) tests/unit/failing_heap
test_power_cut := $(disk)
test_profile := $(schedule) $(addprefix proto/, dtype name nearest profile)
test_protocol_doc := $(addprefix proto/, message name pack sp status)
test_recast := client/recast $(addprefix proto/, dtype json_read name safetensors safetensors_write status) \
	tests/unit/failing_heap
test_retention := daemon/core/retention
test_runs := $(manifest) $(addprefix proto/, convert runs)
test_runtime := daemon/edge/runtime proto/status
test_safetensors := $(addprefix proto/, dtype json_read name safetensors status) tests/unit/failing_heap
test_selection := $(schedule) client/selection $(addprefix proto/, dtype json_read name nearest profile safetensors) \
	tests/unit/failing_heap
test_scan := client/emactl/scan proto/dtype
test_schedule := $(schedule) proto/nearest
test_schedule_advance := $(schedule) proto/nearest
test_schedule_formula := $(schedule) proto/nearest
test_schedule_scale := $(schedule) proto/nearest
test_scribe := daemon/edge/scribe
test_served := $(addprefix client/, error served) $(addprefix proto/, dtype nearest status)
test_service := $(service)
test_service_adapt := $(service)
test_service_adopt := $(service)
test_service_changes := $(service) tests/unit/apply_bench
test_service_checkpoint := $(service)
test_service_damage := $(service) tests/unit/memory_left
test_service_ending := $(service)
test_service_events := $(service)
test_service_gaps := $(service)
test_service_guards := $(service)
test_service_heap := $(service)
test_service_keep := $(service)
test_service_kill := $(service) tests/unit/service_walk tests/unit/kill_faults
test_service_profiles := $(service)
test_service_records := $(service) tests/unit/memory_left
test_service_register := $(service)
test_service_remote := $(service)
test_service_restore := $(service) $(filter-out $(service),$(files)) tests/unit/disk_model
test_service_rewind := $(service)
test_service_rollback := $(service)
test_service_seeds := $(service)
test_service_owners := $(service)
test_service_settings := $(service)
test_service_waits := $(service)
test_service_walk := $(service) tests/unit/service_walk
test_snapshot := $(manifest) $(addprefix client/, copy snapshot team wait)
test_sp := proto/sp proto/status
test_stages := $(library)
test_status := proto/status
test_systemd := daemon/edge/systemd daemon/core/event
test_throttle := daemon/core/event daemon/core/throttle
test_tokens := $(addprefix daemon/core/, access network tokens) $(addprefix proto/, message name pack status)
test_top_rows := $(addprefix client/emactl/, facts figure table top_rows)
test_versions := daemon/core/versions proto/layout proto/status tests/unit/failing_heap
test_waker := daemon/edge/waker
test_web := $(service)
test_web_path := daemon/core/web_path proto/status
test_web_range := daemon/core/web_range
test_workers := daemon/edge/workers $(apply)

needs_tests/unit/failing_heap := failing_heap
needs_tests/unit/kill_faults := kill_faults
needs_tests/unit/test_attributes := jansson
needs_tests/unit/test_config := jansson
needs_tests/unit/test_convert := m
needs_tests/unit/test_facts := jansson
needs_tests/unit/test_generation_text := m
needs_tests/unit/test_guards := m
needs_tests/unit/test_history := jansson
needs_tests/unit/test_kernel := m
needs_tests/unit/test_merge := m
needs_tests/unit/test_numbers := m
needs_tests/unit/test_posthoc := jansson m
needs_tests/unit/test_top_rows := jansson
needs_tests/unit/test_schedule := m
needs_tests/unit/test_schedule_advance := m
needs_tests/unit/test_schedule_formula := jansson m
needs_tests/unit/test_schedule_scale := m
needs_tests/unit/test_service := jansson m
needs_tests/unit/test_service_adapt := m
needs_tests/unit/test_service_adopt := jansson m
needs_tests/unit/test_service_changes := m
needs_tests/unit/test_service_checkpoint := m
needs_tests/unit/test_service_damage := m
needs_tests/unit/test_service_ending := m
needs_tests/unit/test_service_events := m
needs_tests/unit/test_service_gaps := m
needs_tests/unit/test_service_guards := m
needs_tests/unit/test_service_heap := jansson m
needs_tests/unit/test_service_keep := jansson m
needs_tests/unit/test_service_kill := m
needs_tests/unit/test_service_profiles := m
needs_tests/unit/test_service_records := m
needs_tests/unit/test_service_register := m
needs_tests/unit/test_service_restore := jansson m
needs_tests/unit/test_service_rewind := m
needs_tests/unit/test_service_rollback := m
needs_tests/unit/test_service_seeds := m
needs_tests/unit/test_service_owners := m
needs_tests/unit/test_service_settings := m
needs_tests/unit/test_service_waits := m
needs_tests/unit/service_walk := m
needs_tests/unit/test_service_walk := m
needs_tests/unit/test_web := m

wire := $(manifest) $(addprefix proto/, layout message) \
	$(addprefix tests/integration/, harness process wire)

roles := $(library) $(addprefix tests/integration/, harness process role wire)
integration_test_choices := $(library) tests/integration/harness
integration_test_client := $(library) tests/integration/harness
integration_test_config := $(roles)
stand := $(library) $(addprefix tests/integration/, crew harness inspector ledger process reference sample stand)
integration_test_crash := $(stand) tests/integration/attend
integration_test_daemon := $(wire)
integration_test_load := $(roles)
integration_test_security := $(roles)
integration_test_segments := $(roles)
integration_test_soak := $(stand)
integration_test_stop := $(roles) $(addprefix tests/integration/, crew inspector ledger reference sample)
integration_test_watchdog := $(addprefix tests/integration/, harness process)
integration_test_wire := $(wire)
needs_tests/integration/harness := check
needs_tests/integration/test_choices := check
needs_tests/integration/test_client := check
needs_tests/integration/test_config := check
needs_tests/integration/test_crash := check m
needs_tests/integration/test_daemon := check
needs_tests/integration/reference := m
needs_tests/integration/role := m
needs_tests/integration/sample := m
needs_tests/integration/stand := check
needs_tests/integration/test_soak := check
needs_tests/integration/test_load := check
needs_tests/integration/test_security := check
needs_tests/integration/test_segments := check
needs_tests/integration/test_stop := check
needs_tests/integration/test_watchdog := check
needs_tests/integration/test_wire := check nng

# Daemons whose memory ends where a test says: see tests/integration/scarce.h.
scarce := $(daemon) $(addprefix tests/integration/, scarce scarce_own)
scarce_all := $(daemon) $(addprefix tests/integration/, scarce scarce_all)
needs_tests/integration/scarce_own := scarce_own

fuzz_config := $(config) $(addprefix daemon/core/, config_text json_text) daemon/edge/config_file
fuzz_manifest := $(manifest)
fuzz_message := $(addprefix proto/, message name pack status)
fuzz_name := proto/name proto/status
fuzz_pack := $(addprefix proto/, name pack status)
fuzz_profile := $(schedule) $(addprefix proto/, dtype name nearest profile)
fuzz_safetensors := $(addprefix proto/, dtype json_read name safetensors status)
fuzz_schedule := $(schedule) proto/nearest
fuzz_sp := proto/sp proto/status
fuzz_web := $(addprefix daemon/core/, address web_path web_range) proto/status

bench_convert := $(addprefix proto/, convert dtype)
bench_kernel := $(kernel) proto/dtype
bench_network := $(library)
bench_requests := $(addprefix proto/, message name pack status)
bench_triad :=
needs_tests/bench/bench_network := nng
needs_tests/bench/bench_requests := nng

# ---- outside libraries: pkg-config name, Debian package --------------------------------------------------------------

module_uv := libuv
debian_uv := libuv1-dev
module_nng := nng
debian_nng := libnng-dev
module_msgpack := msgpack
debian_msgpack := libmsgpack-dev
module_systemd := libsystemd
debian_systemd := libsystemd-dev
module_xxhash := libxxhash
debian_xxhash := libxxhash-dev
module_inih := inih
debian_inih := libinih-dev
module_jansson := jansson
debian_jansson := libjansson-dev
module_microhttpd := libmicrohttpd
debian_microhttpd := libmicrohttpd-dev
module_ncursesw := ncursesw
debian_ncursesw := libncurses-dev
module_check := check
debian_check := check

# ---- where things go -------------------------------------------------------------------------------------------------

BUILD ?= release
B := build/$(BUILD)
PREFIX ?= /usr/local
bindir ?= $(PREFIX)/bin
libdir ?= $(PREFIX)/lib
includedir ?= $(PREFIX)/include
docdir ?= $(PREFIX)/share/doc/emad
unitdir ?= $(PREFIX)/lib/systemd/system
# Where the daemon looks for its settings, whatever PREFIX is.
sysconfdir ?= /etc
presetdir ?= $(PREFIX)/lib/systemd/system-preset
catalogdir ?= $(PREFIX)/lib/systemd/catalog
sysusersdir ?= $(PREFIX)/lib/sysusers.d
tmpfilesdir ?= $(PREFIX)/lib/tmpfiles.d
mandir ?= $(PREFIX)/share/man
bashcompdir ?= $(PREFIX)/share/bash-completion/completions
zshcompdir ?= $(PREFIX)/share/zsh/site-functions
fishcompdir ?= $(PREFIX)/share/fish/vendor_completions.d
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
CRASH_KILLS ?= 500
SOAK_SECONDS ?= 60
FAULTS_ROUNDS ?= 10

# ---- flags -----------------------------------------------------------------------------------------------------------

CFLAGS_release := -O2 -g
CFLAGS_debug := -Og -g3
CFLAGS_asan := -O1 -g
CFLAGS_tsan := -O1 -g
CFLAGS_failpoints := -O2 -g
CFLAGS_fuzz := -O1 -g
SANITIZE_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZE_tsan := -fsanitize=thread
SANITIZE_fuzz := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer
ifndef CFLAGS_$(BUILD)
$(error BUILD=$(BUILD) is not one of release, debug, asan, tsan, failpoints)
endif

CFLAGS ?= $(CFLAGS_$(BUILD))
WARNINGS ?= -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
LANGUAGE := -std=gnu17 -D_GNU_SOURCE -DEMAD_VERSION='"$(VERSION)"' -I. \
	$(if $(filter failpoints,$(BUILD)),-DEMAD_FAILPOINTS)
# Behind the user's flags, because the results of the averages depend on them.
ARITHMETIC := -ffp-contract=off -fno-math-errno
PIC := -fPIC -fno-semantic-interposition

compile = $(CC) $(LANGUAGE) $(libraries_cflags) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) $(SANITIZE_$(BUILD)) $(ARITHMETIC)
link = $(CC) $(CFLAGS) $(SANITIZE_$(BUILD)) -Wl,-z,relro,-z,now $(LDFLAGS)

comma := ,
space := $(subst x,,x x)
Q := $(if $(V),,@)
say = $(if $(V),,@echo '  $(1)	$(2)')

# ---- are the libraries there? ----------------------------------------------------------------------------------------
#
# Asked before anything is built, so that what is missing is one line. The targets that set up the machine first ask
# afterwards, in a make of their own.

PKG_CONFIG ?= pkg-config
setting_up := check check-unit check-integration check-python check-stop check-kill check-faults check-network crash soak \
	check-systemd check-asan check-tsan fuzz bench demo lint
building := $(filter-out $(setting_up) help clean uninstall objects-list,$(or $(MAKECMDGOALS),all))
libraries := uv nng msgpack systemd xxhash inih jansson microhttpd ncursesw
ifneq ($(filter-out all install,$(building)),)
libraries += check
endif

# Debian's NNG has no nng.pc, so NNG alone is looked for by its header.
define find_absent
command -v $(PKG_CONFIG) >/dev/null || echo pkg-config; \
$(foreach l,$(filter-out nng,$(libraries)),$(PKG_CONFIG) --exists $(module_$(l)) 2>/dev/null || echo $(debian_$(l));) \
if ! command -v $(firstword $(CC)) >/dev/null; then echo gcc; \
elif ! echo '#include <nng/nng.h>' | $(CC) $(CPPFLAGS) $(CFLAGS) -E - >/dev/null 2>&1; then echo $(debian_nng); fi
endef

ifneq ($(building),)
absent := $(shell $(find_absent))
ifneq ($(absent),)
$(error Missing Debian package$(if $(word 2,$(absent)),s) $(absent): run 'sudo apt-get install -y $(absent)')
endif
modules := $(foreach l,$(filter-out nng check,$(libraries)),$(module_$(l)))
libraries_cflags := $(shell $(PKG_CONFIG) --cflags $(modules))
$(B)/tests/%.o: CFLAGS_OBJECT := $(if $(filter check,$(libraries)),$(shell $(PKG_CONFIG) --cflags check))
$(foreach l,$(filter-out nng,$(libraries)),$(eval libs_$(l) := $(shell $(PKG_CONFIG) --libs $(module_$(l)))))
libs_nng := $(shell $(PKG_CONFIG) --libs nng 2>/dev/null || echo -lnng)
libs_m := -lm
libs_failing_heap := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup
libs_scarce_own := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc reallocarray strdup strndup open_memstream fopen \
	fdopendir scandir realpath)
libs_kill_faults := -Wl,--wrap=intake_push,--wrap=intake_begin,--wrap=book_note
endif

# ---- programs --------------------------------------------------------------------------------------------------------

names = $(sort $(patsubst $(1)_%,%,$(filter $(1)_%,$(.VARIABLES))))
unit_names := $(call names,test)
ifeq ($(BUILD),tsan)
# The other modules have no threads, and nothing in common with any that have.
unit_names := $(filter attach copy files layout link memory memory_kept pages pusher scribe snapshot trainer transport view waker workers,$(unit_names))
endif
integration_names := $(call names,integration)
fuzz_names := $(call names,fuzz)
bench_names := $(call names,bench)

unit_programs := $(unit_names:%=$(B)/tests/unit/test_%)
integration_programs := $(integration_names:%=$(B)/tests/integration/%)
replay_programs := $(fuzz_names:%=$(B)/tests/fuzz/replay_%)
fuzz_programs := $(fuzz_names:%=$(B)/tests/fuzz/fuzz_%)
scarce_programs := $(addprefix $(B)/tests/integration/, emad_scarce emad_scarce_all)
bench_programs := $(bench_names:%=$(B)/tests/bench/bench_%)

products := $(B)/emad $(B)/emactl $(B)/libemad.so

.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
.DEFAULT_GOAL := all

.PHONY: all
all: $(products) ## builds the daemon, emactl and libemad.so into build/release

$(foreach n,$(unit_names),$(eval needs_tests/unit/test_$(n) += check))

# $(call program,path,objects): how to link one program, with the libraries that its objects need.
define program
objects += $(2)
$(B)/$(1): $(patsubst %,$(B)/%.o,$(2))
$(B)/$(1): LDLIBS_NEEDED := $(foreach l,$(sort $(foreach o,$(2),$(needs_$(o)))),$(libs_$(l)))
endef

define linked
$(call say,LD,$@)
$(Q)mkdir -p $(@D)
$(Q)$(link) -o $@ $(filter %.o,$^) $(LDLIBS) $(LDLIBS_NEEDED)
endef

$(eval $(call program,emad,$(daemon)))
$(eval $(call program,emactl,$(emactl)))
$(eval $(call program,$(SONAME),$(library)))
$(foreach n,$(unit_names),$(eval $(call program,tests/unit/test_$(n),tests/unit/test_$(n) $(test_$(n)))))
$(foreach n,$(integration_names),$(eval $(call program,tests/integration/$(n),\
	tests/integration/$(n) $(integration_$(n)))))
$(eval $(call program,tests/integration/emad_scarce,$(scarce)))
$(eval $(call program,tests/integration/emad_scarce_all,$(scarce_all)))
$(foreach n,$(fuzz_names),$(eval $(call program,tests/fuzz/replay_$(n),\
	tests/fuzz/replay tests/fuzz/fuzz_$(n) $(fuzz_$(n)))))
$(foreach n,$(fuzz_names),$(eval $(call program,tests/fuzz/fuzz_$(n),tests/fuzz/fuzz_$(n) $(fuzz_$(n)))))
$(foreach n,$(bench_names),$(eval $(call program,tests/bench/bench_$(n),tests/bench/bench_$(n) $(bench_$(n)))))

$(B)/emad $(B)/emactl $(unit_programs) $(integration_programs) $(scarce_programs) $(replay_programs) \
		$(bench_programs):
	$(linked)

$(fuzz_programs): private SANITIZE_fuzz += -fsanitize=fuzzer
$(fuzz_programs):
	$(linked)

# The library's file in the tree bears the name that programs ask for; the version map alone says what it exports.
$(B)/$(SONAME): client/libemad.map
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(link) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=client/libemad.map -Wl,-z,defs -o $@ \
		$(filter %.o,$^) $(LDLIBS) $(LDLIBS_NEEDED)

$(B)/libemad.so: $(B)/$(SONAME)
	$(Q)ln -sf $(SONAME) $@

$(B)/%.o: %.c $(B)/flags
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(compile) $(CFLAGS_OBJECT) -MMD -MP -c -o $@ $<

$(library:%=$(B)/%.o): CFLAGS_OBJECT := $(PIC)

# It takes the page into the program.
$(B)/daemon/core/web_page.o: daemon/core/web_page.html

# Everything is compiled anew when the flags change.
flags := $(strip $(compile) | $(link))
differs = $(if $(subst x$(strip $(1)),,x$(strip $(2)))$(subst x$(strip $(2)),,x$(strip $(1))),yes)
$(B)/flags: $(if $(call differs,$(flags),$(shell cat $(B)/flags 2>/dev/null)),FORCE)
	$(Q)mkdir -p $(@D)
	$(Q)printf '%s\n' '$(subst ','\'',$(flags))' >$@

.PHONY: FORCE
FORCE:

# `make clean all` means one after the other.
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

-include $(patsubst %,$(B)/%.d,$(sort $(objects)))

# ---- running tests ---------------------------------------------------------------------------------------------------
#
# The targets that people call set up the machine and then run `tests-run` with the suites they mean.

# The names of all failpoints, as arguments of a job.
failpoint_names = $(shell sed -n 's/.*[^a-zA-Z]FAILPOINT("\([a-z0-9-]*\)").*/:\1/p' daemon/*/*.c daemon/*.c | tr -d '\n')

lints := $(filter-out %/lint.py,$(wildcard tests/lint/*.py))
unit_jobs := $(unit_programs:%=unit:%)
integration_jobs := $(filter-out %/test_soak,$(integration_programs:%=integration:%)) integration:tests/systemd/install.py \
	$(addprefix integration:tests/, failures.py manuals.py)
replay_jobs := $(foreach n,$(fuzz_names),replay:$(B)/tests/fuzz/replay_$(n):tests/fuzz/corpus/$(n))
crash_jobs := crash:$(B)/tests/integration/test_crash \
	crash:$(B)/tests/integration/test_crash:--failpoints:build/failpoints/emad$(failpoint_names)
soak_jobs := crash:$(B)/tests/integration/test_soak
systemd_jobs := $(addprefix systemd:tests/systemd/, service.py survival.py hosts.py)
kill_jobs := python:tests/python/test_kill_sweep.py
kill_needs := $(products)
faults_programs := $(addprefix $(B)/tests/unit/test_, power_cut service_kill service_restore)
faults_jobs := $(faults_programs:%=faults:%) $(addprefix python:tests/python/test_scarce_memory.py:-k:, once ever)
faults_needs := $(products) $(faults_programs) $(scarce_programs)
network_jobs := python:tests/python/test_network_weather.py
network_needs := $(products)
stop_jobs := integration:$(B)/tests/integration/test_stop
# In two halves that take about as long as each other, side by side; tests that compare times run by themselves.
python_files := $(wildcard tests/python/test_*.py)
python_first := $(patsubst %,tests/python/test_%.py,checkpoint emactl http network_hostile network_weather state_directory)
python_timed := $(shell grep -l '^@pytest.mark.alone' $(python_files))
python_jobs := half:$(subst $(space),:,$(python_first)) \
	half:$(subst $(space),:,$(filter-out $(python_first),$(python_files))) alone:$(subst $(space),:,$(python_timed))
lint_jobs := $(lints:%=lint:%)
unit_needs := $(unit_programs)
integration_needs := $(integration_programs) $(products)
replay_needs := $(replay_programs)
crash_needs := $(B)/tests/integration/test_crash $(products)
soak_needs := $(B)/tests/integration/test_soak $(products)
stop_needs := $(B)/tests/integration/test_stop $(products)
systemd_needs := $(addprefix $(B)/tests/integration/, test_crash test_stop) $(products)
python_needs := $(products) $(B)/tests/integration/emad_scarce

# Sanitizers slow programs down, and the thread sanitizer wants addresses where it expects them.
scale_release := 1
scale_debug := 2
scale_asan := 4
scale_tsan := 6
fixed_addresses_tsan := setarch -R
test_environment = BUILD=$(BUILD) EMAD_DAEMON=$(abspath $(B)/emad) EMAD_LIBRARY=$(abspath $(B)/libemad.so) \
	PYTHONPATH=$(abspath client/python) PYTHONDONTWRITEBYTECODE=1 \
	CK_TIMEOUT_MULTIPLIER=$(scale_$(BUILD)) ASAN_OPTIONS=detect_stack_use_after_return=1 \
	REPLAY_VERBOSE=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS="halt_on_error=1 suppressions=$(abspath tests/tsan.supp)"

.PHONY: tests-run
tests-run: $(foreach s,$(SUITES),$($(s)_needs))
	@$(test_environment) $(fixed_addresses_$(BUILD)) $(or $(PYTHON),python3) tests/run.py --jobs $(JOBS) \
		--scale $(scale_$(BUILD)) $(foreach s,$(SUITES),$($(s)_jobs))

inner = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: $(setting_up)
check: ## installs what is missing, builds, and runs every test and lint
	@tests/setup.sh build check lint
	@[ "$$(id -u)" -ne 0 ] || tests/setup.sh web network
	+@python=$$(tests/setup.sh python) && $(inner) tests-run SUITES='unit replay lint integration python' PYTHON="$$python"

check-unit: ## the unit tests
	@tests/setup.sh build check
	+@$(inner) tests-run SUITES=unit

check-integration: ## the tests with real processes
	@tests/setup.sh build check
	+@$(inner) tests-run SUITES=integration

check-python: ## the tests of the Python package
	@tests/setup.sh build check
	@[ "$$(id -u)" -ne 0 ] || tests/setup.sh web network
	+@python=$$(tests/setup.sh python) && $(inner) tests-run SUITES=python PYTHON="$$python"

crash: ## kills the daemon CRASH_KILLS (500) times under load, and at every failpoint, and compares with a reference
	@tests/setup.sh build check
	+@$(inner) BUILD=failpoints all
	+@EMAD_CRASH_KILLS=$(CRASH_KILLS) $(inner) tests-run SUITES=crash

soak: ## a random fault every moment for SOAK_SECONDS (60), each followed by a comparison with a reference
	@tests/setup.sh build check
	+@EMAD_SOAK_SECONDS=$(SOAK_SECONDS) $(inner) tests-run SUITES=soak

check-stop: ## ends the daemon under load a hundred times
	@tests/setup.sh build check
	+@EMAD_STOP_ROUNDS=100 $(inner) tests-run SUITES=stop

check-kill: ## kills the daemon at every system call of a checkpoint and of a recovery
	@tests/setup.sh build check
	+@python=$$(tests/setup.sh python) && EMAD_KILL_ALL=1 $(inner) tests-run SUITES=kill PYTHON="$$python"

check-faults: ## every allocation of a start fails, every bit of a checkpoint turns, and long walks through deaths
	@tests/setup.sh build check
	+@$(inner) BUILD=asan build/asan/tests/integration/emad_scarce
	+@python=$$(tests/setup.sh python) && EMAD_SCARCE_ALL=1 EMAD_DAMAGE_ALL=1 EMAD_POWER_ROUNDS=$(FAULTS_ROUNDS) \
		EMAD_KILL_ROUNDS=$(FAULTS_ROUNDS) EMAD_KILL_SEED=$$(od -An -N8 -tu8 /dev/urandom | tr -d ' ') \
		$(inner) tests-run SUITES=faults PYTHON="$$python"

check-network: ## cuts the network for a second and for half a minute, slows it and loses packets; needs root
	@tests/setup.sh build check
	@[ "$$(id -u)" -ne 0 ] || tests/setup.sh network
	+@python=$$(tests/setup.sh python) && EMAD_CUT_SECONDS='1 30' $(inner) tests-run SUITES=network PYTHON="$$python"

check-systemd: ## the service in a systemd of its own, in namespaces; needs root
	@tests/setup.sh build check
	@[ "$$(id -u)" -ne 0 ] || tests/setup.sh systemd network
	+@python=$$(tests/setup.sh python) && $(inner) tests-run SUITES=systemd PYTHON="$$python"

check-asan: ## everything in C under the address and undefined-behaviour sanitizers
	@tests/setup.sh build check
	+@$(inner) tests-run SUITES='unit replay integration' BUILD=asan

check-tsan: ## everything in C that has threads under the thread sanitizer
	@tests/setup.sh build check
	+@$(inner) tests-run SUITES='unit integration' BUILD=tsan

lint: ## layers, sizes, text, and what pyflakes, shellcheck, cppcheck and systemd-analyze say
	@tests/setup.sh lint
	@python3 tests/run.py --jobs $(JOBS) $(lint_jobs)

fuzz: ## fuzzes every parser for FUZZ_SECONDS (60) each
	@tests/setup.sh build check fuzz
	+@$(inner) fuzz-run BUILD=fuzz CC=clang

.PHONY: fuzz-run
fuzz-run: $(fuzz_programs)
	@set -e; for name in $(fuzz_names); do \
		mkdir -p build/fuzz/corpus/$$name build/fuzz/found; \
		echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
		$(B)/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -timeout=10 \
			-artifact_prefix=build/fuzz/found/$$name- build/fuzz/corpus/$$name tests/fuzz/corpus/$$name \
			>build/fuzz/$$name.log 2>&1 || { tail -n 40 build/fuzz/$$name.log; exit 1; }; \
		grep -E 'number_of_executed_units|new_units_added' build/fuzz/$$name.log; \
	done

demo: ## trains a small model with a daemon beside it
	@tests/setup.sh build
	+@python=$$(tests/setup.sh python) && $(inner) demo-run PYTHON="$$python"

.PHONY: demo-run
demo-run: $(products)
	@$(test_environment) $(PYTHON) client/demo/digits.py

.PHONY: manuals
manuals: $(B)/emad $(B)/emactl ## writes the lists in the manual pages from the programs and headers
	@python3 tests/manuals.py --write

.PHONY: schedules
schedules: $(B)/emactl ## writes proto/SCHEDULES.md from the table of schedules
	@$(B)/emactl explain --reference >build/SCHEDULES.md
	@mv build/SCHEDULES.md proto/SCHEDULES.md

bench: ## measures, into build/bench/; QUICK=1 only tries whether everything runs
	@tests/setup.sh build check
	+@python=$$(tests/setup.sh python) && $(inner) bench-run PYTHON="$$python"

.PHONY: bench-run
bench-run: $(products) $(bench_programs)
	@mkdir -p build/bench
	@$(test_environment) $(PYTHON) tests/bench/bench.py $(if $(QUICK),--quick)
	@echo
	@$(B)/tests/bench/bench_kernel $(if $(QUICK),--rounds 1 --mebi-elements 4,--rounds 2) >build/bench/kernel.txt
	@cat build/bench/kernel.txt

# ---- installing ------------------------------------------------------------------------------------------------------

units := emad.service emad@.service emad-attach.socket emad-http.socket
manuals := daemon/emad.8 daemon/emad.conf.5 client/emactl/emactl.1 client/libemad.3 proto/emad-protocol.7

installed := $(bindir)/emad $(bindir)/emactl $(libdir)/libemad.so.$(VERSION) $(libdir)/$(SONAME) $(libdir)/libemad.so \
	$(includedir)/emad.h $(libdir)/pkgconfig/emad.pc $(docdir)/README.md $(docdir)/LICENSE \
	$(docdir)/emad.rules.yml $(docdir)/grafana.json $(units:%=$(unitdir)/%) \
	$(presetdir)/50-emad.preset $(catalogdir)/emad.catalog $(sysusersdir)/emad.conf $(tmpfilesdir)/emad.conf \
	$(bashcompdir)/emactl $(zshcompdir)/_emactl $(fishcompdir)/emactl.fish \
	$(foreach m,$(manuals),$(mandir)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)))
# What `make uninstall` removes when it is empty: what is ours, and below DESTDIR everything.
directories := $(if $(DESTDIR),$(sort $(dir $(installed))),$(docdir)/)

fill_in := sed -e '/^@service@$$/{r systemd/service.conf' -e 'd;}' -e 's|@PREFIX@|$(PREFIX)|g' \
	-e 's|@LIBDIR@|$(libdir)|g' -e 's|@INCLUDEDIR@|$(includedir)|g' -e 's|@bindir@|$(bindir)|g' \
	-e 's|@docdir@|$(docdir)|g' -e 's|@VERSION@|$(VERSION)|g'

.PHONY: install
install: $(products) ## installs under DESTDIR and PREFIX (/usr/local); the Python package: pip install client/python
	install -d $(sort $(dir $(addprefix $(DESTDIR),$(installed))))
	install -m 755 $(B)/emad $(B)/emactl $(DESTDIR)$(bindir)
	install -m 644 $(B)/$(SONAME) $(DESTDIR)$(libdir)/libemad.so.$(VERSION)
	ln -sf libemad.so.$(VERSION) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libemad.so
	install -m 644 client/emad.h $(DESTDIR)$(includedir)
	$(fill_in) client/emad.pc.in >$(DESTDIR)$(libdir)/pkgconfig/emad.pc
	set -e; for unit in $(units); do $(fill_in) systemd/$$unit.in >$(DESTDIR)$(unitdir)/$$unit; done
	install -m 644 systemd/system-preset/50-emad.preset $(DESTDIR)$(presetdir)
	install -m 644 systemd/emad.catalog $(DESTDIR)$(catalogdir)
	install -m 644 systemd/sysusers.d/emad.conf $(DESTDIR)$(sysusersdir)
	install -m 644 systemd/tmpfiles.d/emad.conf $(DESTDIR)$(tmpfilesdir)
	install -d $(DESTDIR)$(sysconfdir)/emad/emad.conf.d
	test -e $(DESTDIR)$(sysconfdir)/emad/emad.conf || \
		install -m 644 systemd/emad.conf $(DESTDIR)$(sysconfdir)/emad/emad.conf
	install -m 644 client/emactl/completion/emactl.bash $(DESTDIR)$(bashcompdir)/emactl
	install -m 644 client/emactl/completion/_emactl $(DESTDIR)$(zshcompdir)
	install -m 644 client/emactl/completion/emactl.fish $(DESTDIR)$(fishcompdir)
	set -e; for manual in $(manuals); do install -m 644 $$manual $(DESTDIR)$(mandir)/man$${manual##*.}; done
	install -m 644 README.md LICENSE daemon/monitoring/emad.rules.yml daemon/monitoring/grafana.json $(DESTDIR)$(docdir)
	$(if $(DESTDIR),,-ldconfig)

.PHONY: uninstall
uninstall: ## removes what install put there, but for the settings in sysconfdir
	rm -f $(addprefix $(DESTDIR),$(installed))
	$(if $(DESTDIR),-cd $(DESTDIR) && rmdir -p --ignore-fail-on-non-empty $(directories:/%=%) 2>/dev/null,\
		-rmdir --ignore-fail-on-non-empty $(directories))

.PHONY: clean
clean: ## removes everything that was built
	rm -rf build

.PHONY: objects-list
objects-list: # for tests/lint/lists.py
	@echo $(sort $(objects) $(failpoints))

.PHONY: help
help: ## shows this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{ printf "  %-18s %s\n", $$1, $$2 }'
