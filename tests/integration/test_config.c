/*
 * The configuration of a real daemon: what counts more than what, what --check-config and --print-config say, reading it
 * all again while a trainer pushes, and who is let into what.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/role.h"
#include "tests/integration/wire.h"

#include <check.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALL_MAX_MS = 20000, OTHER_UID = 65534, OTHER_GROUP = 54321, TEXT_BYTES_MAX = 65536 };

static char scratch[64], path[96];
static char said[TEXT_BYTES_MAX];
static struct harness harness;

static void scratch_open(void)
{
	char name[128];

	snprintf(scratch, sizeof(scratch), "/tmp/emad-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(path, sizeof(path), "%s/conf", scratch);
	snprintf(name, sizeof(name), "%s.d", path);
	ck_assert_int_eq(mkdir(name, 0755), 0);
}

static void scratch_close(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", scratch);
	ck_assert_int_eq(system(command), 0);
}

static void conf_write(const char *name, const char *text)
{
	char whole[160];
	FILE *file;

	snprintf(whole, sizeof(whole), "%s/%s", scratch, name);
	file = fopen(whole, "we");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

/* Runs the program until it ends; its exit status, and all that it said in `said`. */
static int run(const char *const *arguments)
{
	char output[128];
	size_t count;
	FILE *file;
	int status;

	snprintf(output, sizeof(output), "%s/out", scratch);
	status = process_wait(process_spawn(getenv("EMAD_DAEMON"), arguments, output), CALL_MAX_MS * process_scale());
	file = fopen(output, "re");
	ck_assert_ptr_nonnull(file);
	count = fread(said, 1, sizeof(said) - 1, file);
	said[count] = '\0';
	fclose(file);
	return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_said(const char *part)
{
	ck_assert_msg(strstr(said, part) != NULL, "'%s' is not in: %s", part, said);
}

static void daemon_open(void)
{
	static const char *arguments[] = {"--config", path, "--models-max", "77", NULL};

	harness_open(&harness, arguments);
	ck_assert_int_eq(chmod(harness.directory, 0711), 0);
}

static void daemon_close(void)
{
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_close(&harness);
}

/* Sends SIGHUP, and waits until the daemon has said that it begins, and that it is ready again. */
static void reload(void)
{
	bool begun = false, ended = false;

	ck_assert_int_eq(kill(harness.pid, SIGHUP), 0);
	while (!ended) {
		struct pollfd poller = {.fd = harness.notify, .events = POLLIN};
		char text[1024];
		ssize_t count;

		ck_assert_int_eq(poll(&poller, 1, CALL_MAX_MS * process_scale()), 1);
		count = recv(harness.notify, text, sizeof(text) - 1, 0);
		ck_assert_int_ge(count, 0);
		text[count] = '\0';
		if (strncmp(text, "RELOADING=1\n", 12) == 0) {
			unsigned long long us = 0;

			ck_assert_int_eq(sscanf(text + 12, "MONOTONIC_USEC=%llu", &us), 1);
			ck_assert_int_le(llabs((long long)us / 1000 - harness_now_ms()), CALL_MAX_MS);
			begun = true;
		}
		ended = strncmp(text, "READY=1", 7) == 0;
	}
	ck_assert(begun);
}

static void log_read(void)
{
	FILE *file = fopen(harness.log, "re");
	size_t count;

	ck_assert_ptr_nonnull(file);
	count = fread(said, 1, sizeof(said) - 1, file);
	said[count] = '\0';
	fclose(file);
}

/* The daemon's status report. */
static const char *status_ask(void)
{
	static char json[8192];
	struct request request = {.operation = OP_STATUS};
	struct wire wire;

	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(wire_call(&wire, &request, NULL, 0, CALL_MAX_MS), 0);
	snprintf(json, sizeof(json), "%.*s", (int)wire.body_bytes, (const char *)wire.body);
	wire_close(&wire);
	return json;
}

/* ---- without a daemon -------------------------------------------------------------------------------------------- */

START_TEST(the_file_in_the_tree_is_what_the_program_prints)
{
	const char *arguments[] = {"--default-config", NULL};
	const char *check[] = {"--check-config", "systemd/emad.conf", NULL};
	char tree[TEXT_BYTES_MAX] = "";
	FILE *file = fopen("systemd/emad.conf", "re");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_gt(fread(tree, 1, sizeof(tree) - 1, file), 1000);
	fclose(file);
	ck_assert_int_eq(run(arguments), 0);
	ck_assert_msg(strcmp(said, tree) == 0, "systemd/emad.conf is not what `emad --default-config` prints: write it anew");
	ck_assert_int_eq(run(check), 0);
	expect_said("systemd/emad.conf: nothing is wrong\n");
}
END_TEST

START_TEST(the_command_line_counts_more_than_files_and_the_last_file_more_than_the_first)
{
	const char *arguments[] = {"--print-config", "--config", path, "--slots", "6", "--lease-min=1500ms", "-s", "/elsewhere", NULL};
	char line[400];

	setenv("RUNTIME_DIRECTORY", "/run/by-systemd", 1);
	setenv("STATE_DIRECTORY", "/var/lib/by-systemd", 1);
	conf_write("conf", "[limits]\nslots=3\nstages=3\nmodels-max=3\n");
	conf_write("conf.d/20.conf", "[limits]\nslots=5\nstages=5\n");
	conf_write("conf.d/10.conf", "[limits]\nslots=4\nstages=4\nlease-min=4s\n[access]\npush-groups=root,\n  7\n");
	ck_assert_int_eq(run(arguments), 0);
	unsetenv("RUNTIME_DIRECTORY");
	unsetenv("STATE_DIRECTORY");
	expect_said("# slots: command line\nslots=6\n");
	expect_said("# lease-min: command line\nlease-min=1500ms\n");
	expect_said("# runtime-dir: environment\nruntime-dir=/run/by-systemd\n");
	expect_said("# state-dir: command line\nstate-dir=/elsewhere\n");
	expect_said("# waiting-max: default\nwaiting-max=4096\n");
	snprintf(line, sizeof(line), "# stages: %s.d/20.conf:3\nstages=5\n", path);
	expect_said(line);
	snprintf(line, sizeof(line), "# models-max: %s:4\nmodels-max=3\n", path);
	expect_said(line);
	snprintf(line, sizeof(line), "# push-groups: %s.d/10.conf:6\npush-groups=root\n 7\n", path);
	expect_said(line);
}
END_TEST

START_TEST(a_relative_path_of_the_command_line_counts_from_here)
{
	const char *arguments[] = {"--print-config", "--config", path, "-r", "here", "--state-dir=there/too", NULL};
	char here[200], line[256];

	conf_write("conf", "");
	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	ck_assert_int_eq(run(arguments), 0);
	snprintf(line, sizeof(line), "\nruntime-dir=%s/here\n", here);
	expect_said(line);
	snprintf(line, sizeof(line), "\nstate-dir=%s/there/too\n", here);
	expect_said(line);
}
END_TEST

/* Lines that begin with # say where a value was set, which is another place in the copy. */
static void comments_drop(char *text)
{
	char *to = text;

	for (char *line = text, *next; *line; line = next) {
		size_t count = strcspn(line, "\n");

		next = line + count + (line[count] == '\n');
		if (*line != '#') {
			memmove(to, line, (size_t)(next - line));
			to += next - line;
		}
	}
	*to = '\0';
}

START_TEST(what_is_printed_can_be_read_again)
{
	const char *arguments[] = {"--print-config", "--config", path, "--workers", "3", NULL};
	const char *again[] = {"--print-config", "--config", path, NULL};
	char first[TEXT_BYTES_MAX];

	conf_write("conf", "[limits]\nmemory-max=37%\nlease-min=1h\n[access]\nread-users=root, 5 6\nsocket-mode=600\n"
	                   "[model a/[b-d]*]\nprofiles=ema=yolo:decay=0.999;copy=*.running_* slow=swa\nslots=5\n"
	                   "guards=loss_max=3\n[model *]\npolicy=coalesce\n");
	ck_assert_int_eq(run(arguments), 0);
	strcpy(first, said);
	conf_write("conf", first);
	ck_assert_int_eq(run(again), 0);
	comments_drop(first);
	comments_drop(said);
	ck_assert_str_eq(first, said);
	expect_said("workers=3\n");
	expect_said("[model a/[b-d]*]\nprofiles=ema=yolo:decay=0.999;copy=*.running_*\n slow=swa\n");
}
END_TEST

START_TEST(everything_that_is_wrong_is_said_at_once)
{
	const char *check[] = {"--check-config", path, NULL}, *start[] = {"--config", path, NULL};
	const char *print[] = {"--print-config", "--json", "--config", path, NULL};
	const char *const *all[] = {check, start, print};
	char line[200];

	conf_write("conf", "[limits]\nslots=1\nnonsense\n[limit]\n[access]\nread-users=no-such-user\n");
	conf_write("conf.d/1.conf", "[limits]\nstages=x\nstages=1\n");
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(run(all[i]), 78);
		snprintf(line, sizeof(line), "emad: %s:2: [limits] slots=1 is outside 2 to 16\n", path);
		expect_said(line);
		snprintf(line, sizeof(line), "emad: %s:3: neither [section] nor key=value\n", path);
		expect_said(line);
		snprintf(line, sizeof(line), "emad: %s:4: [limit] is not a section; the nearest is [limits]\n", path);
		expect_said(line);
		snprintf(line, sizeof(line), "emad: %s:6: [access] read-users: there is no user 'no-such-user'", path);
		expect_said(line);
		snprintf(line, sizeof(line), "emad: %s.d/1.conf:2: [limits] stages=x: a whole number is wanted\n", path);
		expect_said(line);
		snprintf(line, sizeof(line), "emad: %s.d/1.conf:3: [limits] stages comes for the second time", path);
		expect_said(line);
	}
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_wrong_too)
{
	const char *check[] = {"--check-config=/nonexistent/emad.conf", NULL};

	ck_assert_int_eq(run(check), 78);
	expect_said("'/nonexistent/emad.conf' cannot be read: No such file or directory");
}
END_TEST

START_TEST(the_json_names_files_and_patterns)
{
	const char *arguments[] = {"--print-config", "--json", "--config", path, NULL};
	char files[128];

	conf_write("conf", "[model \"x\\y]\nstride=3\n");
	ck_assert_int_eq(run(arguments), 0);
	expect_said("\"models\":[{\"pattern\":\"\\\"x\\\\y\",\"settings\":[");
	expect_said("\"key\":\"stride\",\"value\":\"3\",\"origin\":\"");
	snprintf(files, sizeof(files), "\"files\":[\"%s\"]", path);
	expect_said(files);
}
END_TEST

/* ---- reading it again -------------------------------------------------------------------------------------------- */

START_TEST(what_can_change_changes_and_the_rest_is_named)
{
	struct request request = {.operation = OP_HELLO};
	struct wire wires[3];

	conf_write("conf", "[daemon]\nworkers=2\n[limits]\nmemory-max=1G\nmodels-max=9\nconnections-max=2\nbody-max=32M\n");
	daemon_open();
	ck_assert_ptr_nonnull(strstr(status_ask(), "\"memory_bytes_max\":1073741824"));
	conf_write("conf", "[daemon]\nworkers=1\n[limits]\nmemory-max=2G\nmodels-max=8\nconnections-max=30\nbody-max=16M\n"
	                   "[access]\nsocket-mode=0600\n[model *]\nstride=2\n");
	reload();
	ck_assert_ptr_nonnull(strstr(status_ask(), "\"memory_bytes_max\":2147483648"));
	ck_assert_ptr_nonnull(strstr(status_ask(), "\"workers\":2"));
	/* More connections than there was room for. */
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(wire_open(&wires[i], harness.directory, false), 0);
		ck_assert_int_eq(wire_call(&wires[i], &request, NULL, 0, CALL_MAX_MS), 0);
		ck_assert_uint_eq(wires[i].reply.body_bytes_max, 16 << 20);
	}
	for (int i = 0; i < 3; i++)
		wire_close(&wires[i]);
	log_read();
	expect_said("memory-max=2G now, '1G' before (");
	expect_said("workers=1 (");
	expect_said("takes effect at the next start; until then it stays '2'");
	expect_said("socket-mode=0600 (");
	expect_said("1 [model PATTERN] sections now, 0 before");
	expect_said("the configuration was read again: 6 differences");
	/* That of the command line is the same as before. */
	ck_assert_ptr_null(strstr(said, "models-max"));
	daemon_close();
}
END_TEST

START_TEST(a_broken_one_changes_nothing)
{
	static const char *const texts[] = {"[limits]\nmemory-max=2G\nslotz=3\nslots=1\n", "[limits]\n\1\n", "nonsense"};

	conf_write("conf", "[limits]\nmemory-max=1G\n");
	daemon_open();
	for (int i = 0; i < 3; i++) {
		conf_write("conf", texts[i]);
		reload();
		ck_assert_ptr_nonnull(strstr(status_ask(), "\"memory_bytes_max\":1073741824"));
	}
	ck_assert_int_eq(unlink(path), 0);
	reload();
	log_read();
	expect_said("conf:3: [limits] slotz is not a key; the nearest is 'slots'");
	expect_said("conf:4: [limits] slots=1 is outside 2 to 16");
	expect_said("the configuration stays as it was: 2 faults in the new one");
	expect_said("conf' cannot be read: No such file or directory");
	ck_assert_ptr_nonnull(strstr(status_ask(), "\"memory_bytes_max\":1073741824"));
	conf_write("conf", "[limits]\nmemory-max=2G\n");
	reload();
	ck_assert_ptr_nonnull(strstr(status_ask(), "\"memory_bytes_max\":2147483648"));
	daemon_close();
}
END_TEST

START_TEST(a_trainer_that_pushes_notices_nothing)
{
	static const char *const texts[] = {
		"[limits]\nmemory-max=1G\nslots=3\nconnections-max=500\n",
		"[limits]\nmemory-max=1M\nslots=5\nmessage-timeout=5s\n[model *]\nprofiles=ema=yolo\n",
		"[limits]\nmemory-max=wrong\nthis\n[that]\n",
		"[access]\nread-users=7\npush-groups=8\nadmin-users=9\n[limits]\nlease-min=0\nwaiting-max=1\n",
	};
	struct progress_page page;
	pid_t trainer;
	uint64_t step;

	conf_write("conf", texts[0]);
	daemon_open();
	progress_open(&page, harness.directory);
	trainer = role_trainer_start(&page, 0, harness.url, "net", 3000, 0, 1, 1, 0, ROLE_WAITS);
	ck_assert(progress_reaches(&page.all[0].applied, 3, CALL_MAX_MS * process_scale()));
	for (int i = 0; i < 40; i++) {
		step = page.all[0].applied;
		conf_write("conf", texts[i % 4]);
		reload();
		ck_assert(progress_reaches(&page.all[0].applied, step + 3, CALL_MAX_MS * process_scale()));
	}
	page.all[0].stop = 1;
	ck_assert_int_eq(process_wait(trainer, CALL_MAX_MS * process_scale()), 0);
	log_read();
	expect_said("memory-max is 1048576 bytes now, and the models use ");
	progress_close(&page);
	daemon_close();
}
END_TEST

START_TEST(a_storm_of_hangups_is_survived)
{
	long long deadline_ms = harness_now_ms() + CALL_MAX_MS * process_scale();

	conf_write("conf", "[limits]\nmemory-max=1G\n");
	daemon_open();
	/* The service manager does not read what it is told meanwhile, and is not waited for. */
	for (int i = 0; i < 300; i++) {
		if (i % 3 == 0)
			conf_write("conf", i % 2 ? "[limits]\nmemory-max=1G\n" : "[limit");
		kill(harness.pid, SIGHUP);
	}
	conf_write("conf", "[limits]\nmemory-max=3G\n");
	kill(harness.pid, SIGHUP);
	while (!strstr(status_ask(), "\"memory_bytes_max\":3221225472")) {
		ck_assert_int_lt(harness_now_ms(), deadline_ms);
		process_sleep_ms(5);
	}
	/* When it reads again it learns that the last reload is over, too. */
	while (harness_report_wait(&harness, "=", 1) >= 0)
		;
	kill(harness.pid, SIGHUP);
	ck_assert_int_ge(harness_report_wait(&harness, "READY=1", CALL_MAX_MS), 0);
	for (int i = 0; i < 50; i++)
		kill(harness.pid, i == 25 ? SIGTERM : SIGHUP);
	ck_assert_int_eq(process_wait(harness.pid, CALL_MAX_MS * process_scale()), 0);
	harness.pid = 0;
	harness_close(&harness);
}
END_TEST

START_TEST(the_log_is_as_loud_as_it_is_told_to_be)
{
	conf_write("conf", "[daemon]\nlog-level=error\n");
	daemon_open();
	log_read();
	ck_assert_str_eq(said, "");
	conf_write("conf", "[daemon]\nlog-level=notice\n");
	reload();
	reload();
	log_read();
	expect_said("the configuration was read again: 0 differences");
	daemon_close();
}
END_TEST

/* ---- defaults of models ------------------------------------------------------------------------------------------ */

static uint8_t *manifest_bytes(size_t *ret_bytes)
{
	static const uint64_t shape = 1000;
	struct manifest *manifest;
	uint8_t *bytes;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	ck_assert_int_eq(manifest_add_tensor(manifest, "w", 1, DTYPE_F32, false, &shape, 1, NULL), 0);
	ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	ck_assert_int_eq(manifest_encode(manifest, &bytes, ret_bytes, NULL), 0);
	manifest_destroy(manifest);
	return bytes;
}

START_TEST(a_registration_without_profiles_gets_those_of_its_section)
{
	struct request request = wire_register("vision/net", 7);
	size_t count;
	uint8_t *manifest = manifest_bytes(&count);
	struct wire wire;

	request.present &= ~REQUEST_HAS(profiles);
	conf_write("conf", "[model speech/*]\nprofiles=ema=yolo\n");
	daemon_open();
	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(wire_call(&wire, &request, manifest, count, CALL_MAX_MS), STATUS_EPROFILE);
	conf_write("conf", "[model speech/*]\nprofiles=ema=yolo\n[model vision/*]\nprofiles=a=yolo b=swa\nstages=5\n"
	                   "[model *]\nprofiles=c=swa\n");
	reload();
	ck_assert_int_eq(wire_call(&wire, &request, manifest, count, CALL_MAX_MS), 0);
	ck_assert_uint_eq(wire.reply.stage_count, 5);
	snprintf(said, sizeof(said), "%.*s", (int)wire.reply.report.count, wire.reply.report.bytes);
	expect_said("a: 1 averaged");
	expect_said("b: 1 averaged");
	wire_close(&wire);
	free(manifest);
	daemon_close();
}
END_TEST

START_TEST(the_library_leaves_to_the_daemon_what_it_is_not_told)
{
	static const char *const none[1] = {NULL};
	static const uint64_t shape = 1000;
	const struct emad_tensor tensor = {.name = "w", .dtype = EMAD_F32, .dimension_count = 1, .shape = &shape};
	const struct emad_trainer_options options = {.profiles = none, .profile_count = 0};
	struct emad_client *client;
	struct emad_trainer *trainer;
	char *json;

	conf_write("conf", "[model vision/*]\nprofiles=a=yolo b=swa\nstride=4\npolicy=coalesce\nguards=loss_max=9\n");
	daemon_open();
	ck_assert_int_eq(emad_client_open(harness.url, CALL_MAX_MS, &client), 0);
	ck_assert_int_eq(emad_trainer_open(client, "vision/net", &tensor, 1, &options, &trainer), 0);
	ck_assert_int_eq(emad_show_json(client, "vision/net", CALL_MAX_MS, &json), 0);
	snprintf(said, sizeof(said), "%s", json);
	expect_said("\"stride\":4");
	expect_said("\"policy\":\"coalesce\"");
	expect_said("\"guards\":\"nonfinite=refuse,loss_max=9\"");
	free(json);
	emad_trainer_close(trainer);
	ck_assert_int_eq(emad_trainer_open(client, "speech/net", &tensor, 1, &options, &trainer), EMAD_EPROFILE);
	emad_client_close(client);
	daemon_close();
}
END_TEST

/* ---- access ------------------------------------------------------------------------------------------------------ */

/* A connection of another user, who has one group besides its own. The kernel keeps what it is when it connects. */
static void wire_open_as_other(struct wire *wire, bool attach)
{
	gid_t group = OTHER_GROUP;
	int error;

	ck_assert_int_eq(setgroups(1, &group), 0);
	ck_assert_int_eq(setegid(OTHER_UID), 0);
	ck_assert_int_eq(seteuid(OTHER_UID), 0);
	error = wire_open(wire, harness.directory, attach);
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(setegid(0), 0);
	ck_assert_int_eq(error, 0);
}

static int ask(struct wire *wire, enum operation operation)
{
	struct request request = {.operation = operation};
	size_t count;
	uint8_t *manifest = manifest_bytes(&count);
	int status;

	if (operation == OP_REGISTER)
		request = wire_register("net", 7);
	if (operation == OP_VIEW || operation == OP_REMOVE)
		request_set(&request, model, text_of("none"));
	status = wire_call(wire, &request, manifest, operation == OP_REGISTER ? count : 0, CALL_MAX_MS);
	snprintf(said, sizeof(said), "%.*s", status ? (int)wire->reply.error.count : 0, wire->reply.error.bytes);
	free(manifest);
	return status;
}

static const struct {
	const char *rules;
	int list, attach_view, registers, removes; /* what is answered */
	const char *says;                          /* to the last that is refused */
} access_rows[] = {
	{"", 0, STATUS_ENOMODEL, 0, -EACCES, "uid 65534 may not admin ('remove' is a request of that class): add it to admin-users="},
	{"push-users=root\n", 0, STATUS_ENOMODEL, -EACCES, -EACCES, "admin-users="},
	{"push-users=root 65534\n", 0, STATUS_ENOMODEL, 0, -EACCES, "admin-users="},
	{"read-users=root\n", -EACCES, -EACCES, 0, -EACCES, "admin-users="},
	{"read-users=root\npush-users=root\nadmin-users=nobody\n", 0, STATUS_ENOMODEL, 0, STATUS_ENOMODEL, NULL},
	{"read-users=root\npush-groups=65534\n", 0, STATUS_ENOMODEL, 0, -EACCES, "admin-groups="},
	/* The further groups of a peer are known on the attach socket; elsewhere those that the host's files have. */
	{"read-groups=54321\n", -EACCES, STATUS_ENOMODEL, 0, -EACCES, "admin-groups="},
	{"read-groups=54322\npush-groups=54322\nadmin-groups=54322\n", -EACCES, -EACCES, -EACCES, -EACCES, "admin-groups="},
};

START_TEST(another_user_is_let_into_what_the_lists_say)
{
	struct wire before, wire, attach;
	char text[256];

	if (geteuid() != 0) {
		puts("only root can be another user: skipped");
		return;
	}
	conf_write("conf", "[access]\nsocket-mode=0666\n");
	daemon_open();
	wire_open_as_other(&before, false);
	for (size_t i = 0; i < sizeof(access_rows) / sizeof(access_rows[0]); i++) {
		struct wire *const both[] = {&before, &wire};

		snprintf(text, sizeof(text), "[access]\nsocket-mode=0666\n%s", access_rows[i].rules);
		conf_write("conf", text);
		reload();
		wire_open_as_other(&wire, false);
		wire_open_as_other(&attach, true);
		/* A connection that was there before is judged by the new rules, too. */
		for (int j = 0; j < 2; j++) {
			ck_assert_int_eq(ask(both[j], OP_HELLO), 0);
			ck_assert_int_eq(ask(both[j], OP_LIST), access_rows[i].list);
			ck_assert_int_eq(ask(both[j], OP_REGISTER), access_rows[i].registers);
			ck_assert_int_eq(ask(both[j], OP_REMOVE), access_rows[i].removes);
			if (access_rows[i].says)
				expect_said(access_rows[i].says);
		}
		ck_assert_int_eq(ask(&attach, OP_VIEW), access_rows[i].attach_view);
		wire_close(&wire);
		wire_close(&attach);
		/* The daemon's own user may do everything. */
		ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
		ck_assert_int_eq(ask(&wire, OP_LIST), 0);
		ck_assert_int_eq(ask(&wire, OP_REMOVE), STATUS_ENOMODEL);
		wire_close(&wire);
	}
	ck_assert_ptr_null(strstr(status_ask(), "\"requests_denied\":0"));
	wire_close(&before);
	daemon_close();
}
END_TEST

static Suite *config_suite(void)
{
	Suite *suite = suite_create("config");
	TCase *cases = tcase_create("config");

	tcase_add_checked_fixture(cases, scratch_open, scratch_close);
	tcase_add_test(cases, the_file_in_the_tree_is_what_the_program_prints);
	tcase_add_test(cases, the_command_line_counts_more_than_files_and_the_last_file_more_than_the_first);
	tcase_add_test(cases, a_relative_path_of_the_command_line_counts_from_here);
	tcase_add_test(cases, what_is_printed_can_be_read_again);
	tcase_add_test(cases, everything_that_is_wrong_is_said_at_once);
	tcase_add_test(cases, a_file_that_cannot_be_read_is_wrong_too);
	tcase_add_test(cases, the_json_names_files_and_patterns);
	tcase_add_test(cases, what_can_change_changes_and_the_rest_is_named);
	tcase_add_test(cases, a_broken_one_changes_nothing);
	tcase_add_test(cases, a_trainer_that_pushes_notices_nothing);
	tcase_add_test(cases, a_storm_of_hangups_is_survived);
	tcase_add_test(cases, the_log_is_as_loud_as_it_is_told_to_be);
	tcase_add_test(cases, a_registration_without_profiles_gets_those_of_its_section);
	tcase_add_test(cases, the_library_leaves_to_the_daemon_what_it_is_not_told);
	tcase_add_test(cases, another_user_is_let_into_what_the_lists_say);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--role") == 0)
		return role_main(argc, argv);
	runner = srunner_create(config_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
