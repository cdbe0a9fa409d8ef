/*
 * From facts to findings: pure. See doctor.h. Every finding that is not good says what is wrong with both numbers, and
 * what to type.
 */
#include "client/emactl/doctor.h"

#include "client/emactl/figure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SETTINGS[] = "/etc/emad/emad.conf";

enum {
	FILE_COUNT_FEW = 4096,
	YEAR_2024_S = 1704067200, /* this was written later */
	NNG_MAJOR = 1,
	NNG_MINOR = 5,
};

static const uint64_t STATE_BYTES_FEW = UINT64_C(1) << 30;

struct doctor_finding *doctor_find(struct doctor_findings *findings, const char *name, enum doctor_verdict verdict,
                                   const char *format, ...)
{
	struct doctor_finding *finding = &findings->all[findings->count++];
	va_list arguments;

	*finding = (struct doctor_finding){.name = name, .verdict = verdict};
	va_start(arguments, format);
	vsnprintf(finding->text, sizeof(finding->text), format, arguments);
	va_end(arguments);
	return finding;
}

void doctor_fix(struct doctor_finding *finding, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(finding->fix, sizeof(finding->fix), format, arguments);
	va_end(arguments);
}

/* ---- the daemon ------------------------------------------------------------------------------------------------- */

static void join_group(struct doctor_finding *finding, const struct doctor_facts *facts)
{
	/* A group of its own opens the socket; root's would open the host. */
	if (facts->socket_group[0] && strcmp(facts->socket_group, "root") != 0)
		doctor_fix(finding, "sudo usermod -aG %s %s   # then log in again", facts->socket_group, facts->user);
	else
		doctor_fix(finding, "set socket-mode=0666 under [access] in %s, then: sudo systemctl restart emad", SETTINGS);
}

static void judge_daemon(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (facts->connect_code == 0) {
		doctor_find(findings, "daemon", DOCTOR_OK, "%s answered in %s (pid %" PRIu64 ")", facts->agent,
		     figure_duration_us(facts->round_trip_us).text, facts->pid);
		return;
	}
	finding = doctor_find(findings, "daemon", DOCTOR_FAIL, "%s", facts->connect_sentence);
	if (facts->connect_code == -EACCES)
		join_group(finding, facts);
	else
		doctor_fix(finding, "sudo systemctl start emad   # why it ended: journalctl -u emad -n 20");
}

static void judge_version(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	const char *version = strrchr(facts->agent, ' ');
	struct doctor_finding *finding;

	version = version ? version + 1 : facts->agent;
	if (strcmp(version, facts->library) == 0) {
		doctor_find(findings, "version", DOCTOR_OK, "the daemon and this library are both %s", facts->library);
		return;
	}
	finding = doctor_find(findings, "version", DOCTOR_WARN, "the daemon is %s, this library is %s", version, facts->library);
	doctor_fix(finding, "install the same version on both sides, then: sudo systemctl restart emad");
}

static void judge_socket(const struct doctor_facts *facts, const char *name, const char *path, int error,
                         struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (error == 0) {
		doctor_find(findings, name, DOCTOR_OK, "%s may use %s (%04" PRIo32 ", group %s)", facts->user, path,
		     facts->socket_mode, facts->socket_group);
		return;
	}
	finding = doctor_find(findings, name, DOCTOR_FAIL, "%s cannot use %s: %s", facts->user, path, strerrordesc_np(error));
	if (error == EACCES)
		join_group(finding, facts);
	else
		doctor_fix(finding, "sudo systemctl restart emad   # or set EMAD_SOCKET to where the daemon is");
}

static void judge_files(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	uint64_t count = facts->file_count, most = facts->file_count_max;
	struct doctor_finding *finding;
	bool is_scarce;
	char open[32];

	snprintf(open, sizeof(open), "%" PRIu64, count);
	if (count == DOCTOR_UNKNOWN)
		snprintf(open, sizeof(open), "an unknown number");
	if (most >= FILE_COUNT_FEW && (count == DOCTOR_UNKNOWN || count <= most / 10 * 9)) {
		doctor_find(findings, "open files", DOCTOR_OK, "the daemon has %s of %" PRIu64, open, most);
		return;
	}
	is_scarce = count != DOCTOR_UNKNOWN && count > most / 10 * 9;
	finding = doctor_find(findings, "open files", is_scarce ? DOCTOR_FAIL : DOCTOR_WARN,
	               "the daemon has %s of %" PRIu64 "; each connection takes one, each model about ten", open, most);
	doctor_fix(finding, "sudo systemctl edit emad   # [Service] LimitNOFILE=65536, then: sudo systemctl restart emad");
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void lower_memory(struct doctor_finding *finding, uint64_t bytes)
{
	doctor_fix(finding, "set memory-max=%" PRIu64 "M under [limits] in %s, then: sudo systemctl restart emad", bytes >> 20,
	    SETTINGS);
}

static void judge_memory(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	uint64_t used = facts->memory_bytes, most = facts->memory_bytes_max, total = facts->memory_total_bytes;
	uint64_t left = most > used ? most - used : 0;
	struct doctor_finding *finding;

	if (total == DOCTOR_UNKNOWN || facts->memory_available_bytes == DOCTOR_UNKNOWN)
		return;
	if (most > total) {
		finding = doctor_find(findings, "memory", DOCTOR_FAIL, "the daemon may use %s (memory-max), and the host has %s",
		               figure_bytes(most).text, figure_bytes(total).text);
		lower_memory(finding, total / 5 * 4);
	} else if (left > facts->memory_available_bytes) {
		finding = doctor_find(findings, "memory", DOCTOR_WARN,
		               "the daemon uses %s and may use %s more (memory-max is %s), but only %s are available",
		               figure_bytes(used).text, figure_bytes(left).text, figure_bytes(most).text,
		               figure_bytes(facts->memory_available_bytes).text);
		lower_memory(finding, (used + facts->memory_available_bytes) / 5 * 4);
	} else {
		doctor_find(findings, "memory", DOCTOR_OK, "the daemon uses %s of %s (memory-max); %s are available",
		     figure_bytes(used).text, figure_bytes(most).text, figure_bytes(facts->memory_available_bytes).text);
	}
}

static void judge_group(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	uint64_t used = facts->group_bytes, most = facts->group_bytes_max;
	struct doctor_finding *finding;

	if (most == DOCTOR_UNKNOWN) {
		doctor_find(findings, "control group", DOCTOR_OK, "no control group limits the daemon's memory");
	} else if (facts->memory_bytes_max > most) {
		finding = doctor_find(findings, "control group", DOCTOR_FAIL,
		               "the daemon may use %s (memory-max), but is killed at %s by its control group",
		               figure_bytes(facts->memory_bytes_max).text, figure_bytes(most).text);
		lower_memory(finding, most / 5 * 4);
	} else if (used != DOCTOR_UNKNOWN && used > most / 10 * 9) {
		finding = doctor_find(findings, "control group", DOCTOR_WARN, "%s of %s are in use", figure_bytes(used).text,
		               figure_bytes(most).text);
		doctor_fix(finding, "sudo systemctl set-property emad MemoryMax=%" PRIu64 "M", most / 4 * 5 >> 20);
	} else {
		doctor_find(findings, "control group", DOCTOR_OK, "it limits memory to %s, above memory-max (%s)",
		     figure_bytes(most).text, figure_bytes(facts->memory_bytes_max).text);
	}
}

static void judge_lock(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	if (facts->lock_bytes_max == DOCTOR_UNKNOWN)
		doctor_find(findings, "locked memory", DOCTOR_OK, "no limit for %s; emad itself locks none", facts->user);
	else
		doctor_find(findings, "locked memory", DOCTOR_OK, "%s for %s; emad itself locks none",
		     figure_bytes(facts->lock_bytes_max).text, facts->user);
}

static void judge_huge_pages(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	const char *setting = facts->huge_pages[0] ? facts->huge_pages : "not there";
	struct doctor_finding *finding;

	if (facts->collapse_error == 0 || (facts->huge_pages[0] && strcmp(setting, "never") != 0)) {
		doctor_find(findings, "huge pages", DOCTOR_OK, "shmem_enabled is %s; MADV_COLLAPSE %s", setting,
		     facts->collapse_error ? "does not work" : "works");
		return;
	}
	finding = doctor_find(findings, "huge pages", DOCTOR_WARN,
	               "none for shared memory: shmem_enabled is %s, and MADV_COLLAPSE fails (%s), so updates are slower",
	               setting, strerrordesc_np(facts->collapse_error));
	doctor_fix(finding, "echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

/* ---- the host ---------------------------------------------------------------------------------------------------- */

static void judge_kernel(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (facts->seal_error == 0) {
		doctor_find(findings, "kernel", DOCTOR_OK, "Linux %s has memory that can be sealed", facts->kernel);
		return;
	}
	finding = doctor_find(findings, "kernel", DOCTOR_FAIL, "Linux %s makes no memory that can be sealed: %s", facts->kernel,
	               strerrordesc_np(facts->seal_error));
	doctor_fix(finding, "allow memfd and its seals in the seccomp profile of the container");
}

static void judge_state(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	uint64_t wanted = facts->memory_bytes > STATE_BYTES_FEW ? facts->memory_bytes : STATE_BYTES_FEW;
	struct doctor_finding *finding;

	if (!facts->is_local || !facts->state_dir[0])
		return;
	if (facts->state_bytes_free == DOCTOR_UNKNOWN) {
		finding = doctor_find(findings, "state directory", DOCTOR_WARN, "%s cannot be seen by %s", facts->state_dir,
		               facts->user);
		doctor_fix(finding, "sudo emactl doctor");
	} else if (facts->process_uid != DOCTOR_UNKNOWN && facts->process_uid != 0 &&
	           facts->state_uid != facts->process_uid) {
		finding = doctor_find(findings, "state directory", DOCTOR_FAIL,
		               "%s belongs to uid %" PRIu64 ", and the daemon runs as uid %" PRIu64, facts->state_dir,
		               facts->state_uid, facts->process_uid);
		doctor_fix(finding, "sudo chown -R %" PRIu64 ": %s", facts->process_uid, facts->state_dir);
	} else if (facts->state_bytes_free < wanted) {
		finding = doctor_find(findings, "state directory", DOCTOR_WARN, "%s are free in %s, and %s should be",
		               figure_bytes(facts->state_bytes_free).text, facts->state_dir, figure_bytes(wanted).text);
		doctor_fix(finding, "du -xh %s | sort -h   # or set state-dir= under [daemon] in %s to a larger disk",
		    facts->state_dir, SETTINGS);
	} else {
		doctor_find(findings, "state directory", DOCTOR_OK, "%s are free in %s",
		     figure_bytes(facts->state_bytes_free).text, facts->state_dir);
	}
}

static void judge_clock(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (facts->wall_s < YEAR_2024_S) {
		finding = doctor_find(findings, "clock", DOCTOR_FAIL, "the clock is wrong: %" PRId64 " seconds since 1970",
		               facts->wall_s);
	} else if (!facts->is_clock_synchronised) {
		finding = doctor_find(findings, "clock", DOCTOR_WARN,
		               "the clock is not synchronised: ages of versions are wrong for readers on other hosts");
	} else {
		doctor_find(findings, "clock", DOCTOR_OK, "synchronised");
		return;
	}
	doctor_fix(finding, "sudo timedatectl set-ntp true");
}

static void judge_nng(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	struct doctor_finding *finding;
	int major = 0, minor = 0;

	(void)sscanf(facts->nng, "%d.%d", &major, &minor);
	if (major > NNG_MAJOR || (major == NNG_MAJOR && minor >= NNG_MINOR)) {
		doctor_find(findings, "NNG", DOCTOR_OK, "version %s", facts->nng);
		return;
	}
	finding = doctor_find(findings, "NNG", DOCTOR_WARN, "version %s has never been tried: %d.%d is the oldest that was",
	               facts->nng, NNG_MAJOR, NNG_MINOR);
	doctor_fix(finding, "sudo apt-get install libnng1");
}

void doctor_judge(const struct doctor_facts *facts, struct doctor_findings *ret_findings)
{
	ret_findings->count = 0;
	judge_daemon(facts, ret_findings);
	if (facts->connect_code == 0)
		judge_version(facts, ret_findings);
	if (facts->socket_path[0]) {
		judge_socket(facts, "socket", facts->socket_path, facts->socket_error, ret_findings);
		judge_socket(facts, "attach socket", facts->attach_path, facts->attach_error, ret_findings);
	}
	if (facts->connect_code == 0 && facts->is_local) {
		judge_memory(facts, ret_findings);
		judge_group(facts, ret_findings);
		if (facts->file_count_max != DOCTOR_UNKNOWN)
			judge_files(facts, ret_findings);
		judge_state(facts, ret_findings);
	}
	doctor_judge_network(facts, ret_findings);
	judge_lock(facts, ret_findings);
	judge_huge_pages(facts, ret_findings);
	judge_kernel(facts, ret_findings);
	judge_clock(facts, ret_findings);
	judge_nng(facts, ret_findings);
}
