/*
 * The daemon as a process: how it starts and ends, what it leaves behind, who may share its directory, and what it says
 * about a wrong option or setting.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/wire.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_MAX_MS = 10000 };

/* A directory for files of the test, beside the runtime directories of its daemons. */
static char scratch[64];

static void scratch_open(void)
{
	snprintf(scratch, sizeof(scratch), "/tmp/emad-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
}

static void scratch_close(void)
{
	static const char *const names[] = {"conf", "out", "a/emad.pid", "a", "b"};
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", scratch, names[i]);
		(void)remove(path);
	}
	ck_assert_int_eq(rmdir(scratch), 0);
}

static const char *scratch_path(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", scratch, name);
	return path;
}

static void file_write(const char *path, const void *bytes, size_t count)
{
	FILE *file = fopen(path, "we");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
	ck_assert_int_eq(fclose(file), 0);
}

/* Runs the daemon until it ends by itself. Its exit status, -1 when it had to be ended; what it said in `said`. */
static int run_to_end(const char *const *arguments, char *said, size_t capacity)
{
	char output[128];
	size_t count;
	FILE *file;
	int status;

	snprintf(output, sizeof(output), "%s/out", scratch);
	status = process_wait(process_spawn(getenv("EMAD_DAEMON"), arguments, output), END_MAX_MS * process_scale());
	file = fopen(output, "re");
	ck_assert_ptr_nonnull(file);
	count = fread(said, 1, capacity - 1, file);
	said[count] = '\0';
	fclose(file);
	return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void serves(const struct harness *harness)
{
	struct request request = {.operation = OP_HELLO};
	struct wire wire;

	ck_assert_int_eq(wire_open(&wire, harness->directory, false), 0);
	ck_assert_int_eq(wire_call(&wire, &request, NULL, 0, 10000), 0);
	ck_assert_uint_eq(wire.reply.pid, (uint64_t)harness->pid);
	wire_close(&wire);
}

/* Whatever is in the runtime directory that the harness did not put there. */
static void nothing_is_left(const struct harness *harness)
{
	DIR *folder = opendir(harness->directory);
	struct dirent *entry;

	ck_assert_ptr_nonnull(folder);
	while ((entry = readdir(folder))) {
		const char *name = entry->d_name;
		bool ours = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "log") == 0 ||
		            strcmp(name, "notify") == 0;

		ck_assert_msg(ours, "'%s' is left in the runtime directory", name);
	}
	closedir(folder);
}

/* ---- starting and ending ----------------------------------------------------------------------------------------- */

START_TEST(says_that_it_is_ready_and_leaves_nothing_behind)
{
	static const int signals[] = {SIGTERM, SIGINT};
	struct harness harness;
	char text[512];
	ssize_t count;
	int status;

	harness_open(&harness, NULL);
	ck_assert_ptr_nonnull(strstr(harness.ready, "STATUS=no models"));
	serves(&harness);
	ck_assert_int_eq(kill(harness.pid, signals[_i]), 0);
	status = process_wait(harness.pid, END_MAX_MS * process_scale());
	ck_assert_int_ne(status, -1);
	harness.pid = 0;
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	count = recv(harness.notify, text, sizeof(text) - 1, MSG_DONTWAIT);
	ck_assert_int_gt(count, 0);
	text[count] = '\0';
	ck_assert_ptr_nonnull(strstr(text, "STOPPING=1"));
	nothing_is_left(&harness);
	harness_close(&harness);
}
END_TEST

START_TEST(ends_with_0_in_a_storm_of_signals)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGPIPE};
	uint64_t seed = seed_take("storm");
	struct harness harness;
	int status;

	harness_open(&harness, NULL);
	for (int i = 0; i < 200; i++)
		kill(harness.pid, SIGPIPE);
	serves(&harness);
	for (int i = 0; i < 20; i++)
		kill(harness.pid, signals[seed_next(&seed, 3)]);
	kill(harness.pid, SIGTERM);
	status = process_wait(harness.pid, END_MAX_MS * process_scale());
	harness.pid = 0;
	ck_assert_msg(status == 0, "the daemon ended with status %#x", (unsigned)status);
	nothing_is_left(&harness);
	harness_close(&harness);
}
END_TEST

START_TEST(names_the_daemon_that_has_the_directory_already)
{
	struct harness harness;
	char said[4096], pid[32];

	harness_open(&harness, NULL);
	for (int i = 0; i < 3; i++) {
		const char *arguments[] = {"--runtime-dir", harness.directory, NULL};

		ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 69);
		snprintf(pid, sizeof(pid), "pid %d", (int)harness.pid);
		ck_assert_msg(strstr(said, pid) && strstr(said, harness.directory), "no pid, no directory in: %s", said);
		serves(&harness);
	}
	ck_assert_int_eq(harness_stop(&harness), 0);
	nothing_is_left(&harness);
	harness_close(&harness);
}
END_TEST

/* Both would write the same model's checkpoints, and each would take the other's for its own. */
START_TEST(names_the_daemon_that_has_the_state_directory_already)
{
	struct harness harness;
	char said[1024], pid[32], other[128], lock[128];
	const char *arguments[] = {"--runtime-dir", other, "--state-dir", harness.directory, NULL};
	const char *check[] = {"--check-config", "/dev/null", NULL};

	snprintf(other, sizeof(other), "%s/a", scratch);
	harness_open(&harness, NULL);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 69);
		snprintf(pid, sizeof(pid), "pid %d", (int)harness.pid);
		ck_assert_msg(strstr(said, pid) && strstr(said, harness.directory) && strstr(said, "--state-dir"), "%s", said);
		serves(&harness);
		ck_assert_int_eq(run_to_end(check, said, sizeof(said)), 0);
		/* A daemon that is killed holds nothing any more. */
		harness_kill(&harness);
		harness_start(&harness);
	}
	ck_assert_int_eq(harness_stop(&harness), 0);
	nothing_is_left(&harness);
	snprintf(lock, sizeof(lock), "%s/emad.lock", harness.directory);
	ck_assert_int_ne(access(lock, F_OK), 0);
	harness_close(&harness);
}
END_TEST

START_TEST(takes_over_what_a_killed_daemon_left)
{
	struct harness harness;
	char path[128];

	harness_open(&harness, NULL);
	for (int i = 0; i < 3; i++) {
		harness_kill(&harness);
		snprintf(path, sizeof(path), "%s/emad.sock", harness.directory);
		ck_assert_int_eq(access(path, F_OK), 0);
		snprintf(path, sizeof(path), "%s/attach.sock", harness.directory);
		ck_assert_int_eq(access(path, F_OK), 0);
		harness_start(&harness);
		serves(&harness);
	}
	ck_assert_int_eq(harness_stop(&harness), 0);
	nothing_is_left(&harness);
	harness_close(&harness);
}
END_TEST

/* One ends while others start: a lock file that is removed must not let two of them in. */
START_TEST(lets_one_of_many_into_a_directory)
{
	enum { COUNT = 4, ROUND_COUNT = 6 };
	uint64_t seed = seed_take("many");
	char directory[128], output[128];
	const char *arguments[] = {"--runtime-dir", directory, NULL};

	snprintf(directory, sizeof(directory), "%s/b", scratch);
	snprintf(output, sizeof(output), "%s/out", scratch);
	for (int round = 0; round < ROUND_COUNT; round++) {
		pid_t pids[COUNT];
		struct wire wire;
		int alive = 0;

		for (int i = 0; i < COUNT; i++) {
			pids[i] = process_spawn(getenv("EMAD_DAEMON"), arguments, output);
			if (i == 1)
				process_sleep_ms((int)seed_next(&seed, 15));
			if (i == 2)
				kill(pids[0], SIGTERM);
		}
		/* All may have met the one that was ending; two must not run. */
		for (int n = 0; n < 1000; n++) {
			alive = 0;
			for (int i = 0; i < COUNT; i++)
				if (pids[i] && waitpid(pids[i], NULL, WNOHANG) == 0)
					alive++;
				else
					pids[i] = 0;
			if (alive <= 1 && n >= 3)
				break;
			process_sleep_ms(10);
		}
		ck_assert_int_le(alive, 1);
		/* The one that is alive is starting, serving, or the one that ends. */
		for (int n = 0; alive; n++) {
			if (wire_open(&wire, directory, false) == 0) {
				wire_close(&wire);
				break;
			}
			for (int i = 0; i < COUNT; i++)
				if (pids[i] && waitpid(pids[i], NULL, WNOHANG) == pids[i])
					pids[i] = alive = 0;
			ck_assert_int_lt(n, 1000);
			process_sleep_ms(10);
		}
		for (int i = 0; i < COUNT; i++)
			if (pids[i])
				ck_assert_int_eq((kill(pids[i], SIGTERM), process_wait(pids[i], END_MAX_MS)), 0);
	}
}
END_TEST

/* ---- wrong options and settings ---------------------------------------------------------------------------------- */

static const struct {
	const char *arguments[4];
	int status;
	const char *says;
} wrong_options[] = {
	{{"--nonsense"}, 64, "--help"},
	{{"-x"}, 64, "--help"},
	{{"--runtime-dir"}, 64, "--help"},
	{{"start"}, 64, "'start' is not an option"},
	{{"--slots", "1"}, 64, "--slots=1 is outside 2 to 16"},
	{{"--push-users=no-such-user"}, 64, "there is no user 'no-such-user'"},
	{{"--json"}, 64, "--print-config"},
	{{"--check-config", "/tmp/x", "/tmp/y"}, 64, "'/tmp/y' is not an option"},
	{{"--profiles", "ema=swa"}, 64, "--help"},
	{{"--config", "/nonexistent/emad.conf"}, 71, "/nonexistent/emad.conf"},
	{{"--config", "/tmp"}, 71, "/tmp"},
	{{"--runtime-dir", "/nonexistent/emad"}, 71, "/nonexistent/emad"},
	{{"--runtime-dir", "/dev/null"}, 71, "/dev/null"},
	{{"--version"}, 0, "emad 0"},
	{{"--help"}, 0, "lease-min"},
};

START_TEST(says_which_option_is_wrong)
{
	char said[16384];

	ck_assert_int_eq(run_to_end(wrong_options[_i].arguments, said, sizeof(said)), wrong_options[_i].status);
	ck_assert_msg(strstr(said, wrong_options[_i].says), "'%s' is not in: %s", wrong_options[_i].says, said);
}
END_TEST

START_TEST(says_that_a_path_is_too_long)
{
	char deep[400], said[4096];
	const char *arguments[] = {"--runtime-dir", deep, NULL};

	memset(deep, 'x', sizeof(deep));
	memcpy(deep, "/tmp/", 5);
	deep[sizeof(deep) - 1] = '\0';
	ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 64);
	ck_assert_msg(strstr(said, "399") && strstr(said, "255"), "not both numbers in: %s", said);
	/* Short enough for the option and too long for a socket. */
	snprintf(deep, sizeof(deep), "%s/a", scratch);
	memset(deep + strlen(deep), 'x', 120);
	deep[strlen(scratch) + 2 + 120] = '\0';
	ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 71);
	ck_assert_msg(strstr(said, " 95"), "no limit in: %s", said);
	(void)rmdir(deep);
}
END_TEST

START_TEST(follows_no_planted_link)
{
	char directory[128], link[160], target[160], said[4096];
	const char *arguments[] = {"--runtime-dir", directory, NULL};

	snprintf(directory, sizeof(directory), "%s/a", scratch);
	snprintf(link, sizeof(link), "%s/emad.pid", directory);
	snprintf(target, sizeof(target), "%s/conf", scratch);
	file_write(target, "precious", 8);
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	ck_assert_int_eq(symlink(target, link), 0);
	ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 71);
	ck_assert_ptr_nonnull(strstr(said, link));
	ck_assert_int_eq(open(target, O_RDONLY | O_CLOEXEC) >= 0, 1);
}
END_TEST

#define TEXT(literal) literal, sizeof(literal) - 1
#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X300 X50 X50 X50 X50 X50 X50

static const struct {
	const char *text;
	size_t bytes;
	int line;
	const char *says[3];
} wrong_settings[] = {
	{TEXT("[limits]\nslots=1\n"), 2, {"slots=1", "2 to 16"}},
	{TEXT("# all is well\n\n[limits]\nslots=17\n"), 4, {"slots=17", "2 to 16"}},
	{TEXT("[limits]\nslotz=3\n"), 2, {"[limits] slotz", "'slots'"}},
	{TEXT("[limits]\nlease_min=3s\n"), 2, {"lease_min", "'lease-min'"}},
	{TEXT("[daemon]\nslots=3\n"), 2, {"[daemon] slots", "[limits]"}},
	{TEXT("[limit]\nslots=3\n"), 1, {"[limit] is not a section", "[limits]"}},
	{TEXT("slots=3\n"), 1, {"slots", "[limits]"}},
	{TEXT("[limits]\nmemory-max=8X\n"), 2, {"memory-max=8X", "512M"}},
	{TEXT("[limits]\nmemory-max=-1\n"), 2, {"memory-max=-1", "512M"}},
	{TEXT("[limits]\nmemory-max=99999999999999999999\n"), 2, {"memory-max", "outside"}},
	{TEXT("[limits]\nmemory-max=99999999T\n"), 2, {"memory-max", "outside"}},
	{TEXT("[limits]\nlease-min=2 fortnights\n"), 2, {"lease-min=2 fortnights", "500ms"}},
	{TEXT("[limits]\nlease-min=18446744073709551615ms\n"), 2, {"lease-min", "outside"}},
	{TEXT("[limits]\nwait-max=18446744073709551615ms\n"), 2, {"wait-max", "outside"}},
	{TEXT("[access]\nsocket-mode=0999\n"), 2, {"socket-mode=0999", "octal"}},
	{TEXT("[access]\nsocket-mode=7777\n"), 2, {"socket-mode=7777", "outside"}},
	{TEXT("[daemon]\nstate-dir=relative\n"), 2, {"state-dir=relative", "absolute"}},
	{TEXT("[daemon]\nworkers=\n"), 2, {"workers=", "whole number"}},
	{TEXT("[limits]\nslots=3\nnonsense\n"), 3, {"neither [section] nor key=value"}},
	{TEXT("[limits\nslots=3\n"), 1, {"neither [section] nor key=value"}},
	{TEXT("# " X300 "\n[limits]\nslotz=3\n"), 3, {"slotz"}},
	{TEXT("[daemon]\nstate-dir=/" X300 "\nworkers=1\n"), 2, {"bytes"}},
	{TEXT("[limits]\nslots=3\0 or 4\n"), 2, {"NUL"}},
	{TEXT("[limits]\r\nslots=1\r\n"), 2, {"slots=1 is outside"}},
};

START_TEST(says_which_setting_is_wrong)
{
	const char *path = scratch_path("conf");
	const char *arguments[] = {"--config", path, "--runtime-dir", "/nonexistent/emad", NULL};
	char said[4096], at[160];

	file_write(path, wrong_settings[_i].text, wrong_settings[_i].bytes);
	ck_assert_int_eq(run_to_end(arguments, said, sizeof(said)), 78);
	snprintf(at, sizeof(at), "%s:%d: ", path, wrong_settings[_i].line);
	ck_assert_msg(strstr(said, at), "'%s' is not in: %s", at, said);
	for (int i = 0; i < 3 && wrong_settings[_i].says[i]; i++)
		ck_assert_msg(strstr(said, wrong_settings[_i].says[i]), "'%s' is not in: %s", wrong_settings[_i].says[i],
		              said);
}
END_TEST

START_TEST(takes_settings_from_a_file)
{
	static const char text[] = "\xef\xbb\xbf# " X300 "\r\n[limits]\r\n  ; a comment\nmemory-max = 3 G ; three\nslots=4\n\n"
	                           "[daemon]\nworkers=2\n";
	enum { COMMENT_BYTES = 1000 * 1000 };
	const char *path = scratch_path("conf");
	const char *arguments[] = {"--config", path, NULL};
	struct request request = {.operation = OP_STATUS};
	char *long_text = malloc(sizeof(text) + COMMENT_BYTES);
	struct harness harness;
	struct wire wire;
	char json[4096];

	/* However long its comments are. */
	ck_assert_ptr_nonnull(long_text);
	memcpy(long_text, text, sizeof(text) - 1);
	for (size_t i = 0; i < COMMENT_BYTES; i++)
		long_text[sizeof(text) - 1 + i] = i % 64 == 63 ? '\n' : '#';
	file_write(path, long_text, sizeof(text) - 1 + COMMENT_BYTES);
	free(long_text);
	harness_open(&harness, arguments);
	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(wire_call(&wire, &request, NULL, 0, 10000), 0);
	snprintf(json, sizeof(json), "%.*s", (int)wire.body_bytes, (const char *)wire.body);
	ck_assert_msg(strstr(json, "\"memory_bytes_max\":3221225472") && strstr(json, "\"workers\":2"), "%s", json);
	wire_close(&wire);
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_close(&harness);
}
END_TEST

static Suite *daemon_suite(void)
{
	Suite *suite = suite_create("daemon");
	TCase *cases = tcase_create("daemon");

	tcase_add_checked_fixture(cases, scratch_open, scratch_close);
	tcase_add_loop_test(cases, says_that_it_is_ready_and_leaves_nothing_behind, 0, 2);
	tcase_add_test(cases, ends_with_0_in_a_storm_of_signals);
	tcase_add_test(cases, names_the_daemon_that_has_the_directory_already);
	tcase_add_test(cases, names_the_daemon_that_has_the_state_directory_already);
	tcase_add_test(cases, takes_over_what_a_killed_daemon_left);
	tcase_add_test(cases, lets_one_of_many_into_a_directory);
	tcase_add_loop_test(cases, says_which_option_is_wrong, 0, sizeof(wrong_options) / sizeof(wrong_options[0]));
	tcase_add_test(cases, says_that_a_path_is_too_long);
	tcase_add_test(cases, follows_no_planted_link);
	tcase_add_loop_test(cases, says_which_setting_is_wrong, 0, sizeof(wrong_settings) / sizeof(wrong_settings[0]));
	tcase_add_test(cases, takes_settings_from_a_file);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(daemon_suite());
	int failed;

	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
