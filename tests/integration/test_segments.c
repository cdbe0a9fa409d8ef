/*
 * Segments as files of a directory: there while their model is, gone with it, left behind when the daemon ends in
 * whatever way, and found by the next one.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/role.h"
#include "tests/integration/wire.h"

#include "proto/layout.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 2000, TIMEOUT_MS = 20000, END_MAX_MS = 10000, LAYOUT_BEFORE = 3, OTHER_UID = 65534, MODEL_SEGMENTS = 1 + 3 };

static char scratch[64];   /* on a tmpfs */
static char directory[80]; /* in it */
static struct harness harness;
static struct progress_page page;
static struct emad_client *client;

#define OK(call)                                                                                                      \
	do {                                                                                                          \
		int code_ = (call);                                                                                   \
		ck_assert_msg(code_ == 0, "%s: %s: %s", #call, emad_code_name(code_), emad_error());                  \
	} while (0)

static void daemon_open(void)
{
	static const char *arguments[] = {"--segments-dir", directory, NULL};

	snprintf(scratch, sizeof(scratch), "/dev/shm/emad-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(directory, sizeof(directory), "%s/segments", scratch);
	harness_open(&harness, arguments);
	progress_open(&page, harness.directory);
	OK(emad_client_open(harness.url, -1, &client));
}

static void directory_empty(const char *path)
{
	DIR *stream = opendir(path);
	struct dirent *entry;

	while (stream && (entry = readdir(stream)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(stream), entry->d_name, entry->d_type == DT_DIR ? AT_REMOVEDIR : 0);
	if (stream)
		closedir(stream);
}

static void daemon_close(void)
{
	emad_client_close(client);
	progress_close(&page);
	harness_close(&harness);
	directory_empty(directory);
	directory_empty(scratch);
	ck_assert_int_eq(rmdir(scratch), 0);
}

/* Segments in the directory, each of which must be what it has to be. */
static int segment_count(void)
{
	DIR *stream = opendir(directory);
	struct dirent *entry;
	int count = 0;

	ck_assert_ptr_nonnull(stream);
	while ((entry = readdir(stream))) {
		struct stat facts;

		if (entry->d_name[0] == '.' || strcmp(entry->d_name, "emad.pid") == 0)
			continue;
		ck_assert_msg(strlen(entry->d_name) == 21 && strncmp(entry->d_name, "emad-", 5) == 0 &&
		              strspn(entry->d_name + 5, "0123456789abcdef") == 16, "'%s'", entry->d_name);
		/* One that is given back just now may be gone. */
		if (fstatat(dirfd(stream), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		ck_assert(S_ISREG(facts.st_mode));
		ck_assert_uint_eq(facts.st_mode & 07777, 0600);
		ck_assert_uint_eq(facts.st_uid, geteuid());
		ck_assert_int_gt(facts.st_size, 0);
		count++;
	}
	closedir(stream);
	return count;
}

static void becomes(int count)
{
	long long deadline_ms = harness_now_ms() + TIMEOUT_MS;

	while (segment_count() != count) {
		ck_assert_msg(harness_now_ms() < deadline_ms, "there are %d segments, and %d are expected", segment_count(),
		              count);
		process_sleep_ms(5);
	}
}

/* A trainer pushes some steps and goes, and its stages go with it. */
static void trains(const char *model, uint64_t last_step)
{
	pid_t trainer = role_trainer_start(&page, 0, harness.url, model, ROWS, 0, 1, 0, last_step, ROLE_WAITS);

	ck_assert_int_eq(process_wait(trainer, TIMEOUT_MS * process_scale()), 0);
}

static int log_count(const char *text)
{
	return harness_log_count(&harness, text);
}

START_TEST(a_model_s_segments_come_and_go_with_it)
{
	struct stat facts;
	pid_t trainer;

	ck_assert_int_eq(stat(directory, &facts), 0);
	ck_assert_uint_eq(facts.st_mode & 07777, 0700);
	ck_assert_int_eq(segment_count(), 0);
	trainer = role_trainer_start(&page, 0, harness.url, "run/a", ROWS, 0, 1, 1, 0, ROLE_WAITS | ROLE_PERSISTS);
	ck_assert(progress_reaches(&page.all[0].applied, 3, TIMEOUT_MS));
	ck_assert_int_eq(segment_count(), MODEL_SEGMENTS + 1);
	kill(trainer, SIGKILL);
	(void)process_wait(trainer, TIMEOUT_MS);
	becomes(MODEL_SEGMENTS);
	trains("run/b", 3);
	becomes(2 * MODEL_SEGMENTS);
	OK(emad_remove(client, "run/a", -1, NULL));
	becomes(MODEL_SEGMENTS);
	OK(emad_remove(client, "run/b", -1, NULL));
	becomes(0);
	ck_assert_int_eq(harness_stop(&harness), 0);
	ck_assert_int_eq(log_count("warning"), 0);
}
END_TEST

/* 0: SIGKILL, 1: SIGTERM. */
START_TEST(the_next_daemon_finds_what_the_last_one_left)
{
	char text[160];

	trains("run/a", 3);
	trains("run/b", 3);
	becomes(2 * MODEL_SEGMENTS);
	if (_i == 0)
		harness_kill(&harness);
	else
		ck_assert_int_eq(harness_stop(&harness), 0);
	ck_assert_int_eq(segment_count(), 2 * MODEL_SEGMENTS);
	harness_start(&harness);
	snprintf(text, sizeof(text), "%d segments of an earlier daemon, ", 2 * MODEL_SEGMENTS);
	ck_assert_int_eq(log_count(text), 1);
	snprintf(text, sizeof(text), ": 0 kept by the service manager, %d files in %s\n", 2 * MODEL_SEGMENTS, directory);
	ck_assert_int_eq(log_count(text), 1);
	ck_assert_int_eq(log_count("left alone"), 0);
	ck_assert_int_eq(log_count("cannot be used"), 0);
	/* Whatever the models were taken up from, nothing is there that no model has. */
	trains("run/a", 6);
	trains("run/b", 6);
	becomes(2 * MODEL_SEGMENTS);
	OK(emad_remove(client, "run/a", -1, NULL));
	OK(emad_remove(client, "run/b", -1, NULL));
	becomes(0);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* Writes another layout version into all segments, as if another emad had made them. */
static void segments_age(void)
{
	const uint32_t version = LAYOUT_BEFORE;
	DIR *stream = opendir(directory);
	struct dirent *entry;

	ck_assert_ptr_nonnull(stream);
	while ((entry = readdir(stream))) {
		int fd;

		if (strncmp(entry->d_name, "emad-", 5) != 0)
			continue;
		fd = openat(dirfd(stream), entry->d_name, O_WRONLY | O_CLOEXEC);
		ck_assert_int_eq(pwrite(fd, &version, sizeof(version), offsetof(struct segment_header, layout_version)),
		                 sizeof(version));
		close(fd);
	}
	closedir(stream);
}

START_TEST(after_an_upgrade_to_another_layout_the_checkpoint_is_what_is_left)
{
	char text[80];
	uint64_t step;

	trains("run/a", 3);
	OK(emad_checkpoint(client, "run/a", -1, &step));
	ck_assert_uint_eq(step, 3);
	harness_kill(&harness);
	segments_age();
	harness_start(&harness);
	snprintf(text, sizeof(text), ": the segment's layout_version is %d, %d expected", LAYOUT_BEFORE, LAYOUT_VERSION);
	ck_assert_int_eq(log_count(text), 1);
	ck_assert_int_eq(log_count("run/a: goes on in its memory"), 0);
	ck_assert_int_eq(log_count("run/a: recovered from "), 1);
	trains("run/a", 6);
	becomes(MODEL_SEGMENTS);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* It has taken over what was there, and gives up before anybody could connect. */
START_TEST(a_start_that_fails_loses_nothing)
{
	char path[96], output[96];
	const char *arguments[] = {"--runtime-dir", harness.directory, "--segments-dir", directory, NULL};
	int status;

	trains("run/a", 3);
	becomes(MODEL_SEGMENTS);
	harness_kill(&harness);
	snprintf(path, sizeof(path), "%s/emad.sock", harness.directory);
	snprintf(output, sizeof(output), "%s/out", scratch);
	ck_assert_int_eq(unlink(path) | mkdir(path, 0700), 0);
	status = process_wait(process_spawn(getenv("EMAD_DAEMON"), arguments, output), END_MAX_MS * process_scale());
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 0, "status %#x", (unsigned)status);
	ck_assert_int_eq(segment_count(), MODEL_SEGMENTS);
	ck_assert_int_eq(rmdir(path), 0);
	harness_start(&harness);
	trains("run/a", 6);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

START_TEST(what_is_damaged_is_removed_and_what_is_not_ours_stays)
{
	char precious[128], bad[128];
	int fd;

	ck_assert_int_eq(harness_stop(&harness), 0);
	snprintf(precious, sizeof(precious), "%s/precious", directory);
	snprintf(bad, sizeof(bad), "%s/emad-00000000000000ff", directory);
	close(open(precious, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	fd = open(bad, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, 8192), 0);
	close(fd);
	harness_start(&harness);
	ck_assert_int_eq(log_count("/precious' is left alone: it is not the name of a segment"), 1);
	ck_assert_int_eq(log_count("emad-00000000000000ff, left by an earlier daemon in "), 1);
	ck_assert_int_eq(log_count("cannot be used and is removed: only 0 of its 8192 bytes are there"), 1);
	ck_assert_int_eq(access(precious, F_OK), 0);
	ck_assert_int_ne(access(bad, F_OK), 0);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

START_TEST(a_second_daemon_is_told_who_has_the_directory)
{
	char runtime[96], output[96], line[1024] = "", pid[64];
	const char *arguments[] = {"--runtime-dir", runtime, "--segments-dir", directory, NULL};
	FILE *file;
	int status;

	snprintf(runtime, sizeof(runtime), "%s/second", scratch);
	snprintf(output, sizeof(output), "%s/out", scratch);
	status = process_wait(process_spawn(getenv("EMAD_DAEMON"), arguments, output), END_MAX_MS * process_scale());
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 69, "status %#x", (unsigned)status);
	file = fopen(output, "re");
	ck_assert_ptr_nonnull(file);
	while (!strstr(line, "segments directory") && fgets(line, sizeof(line), file))
		;
	fclose(file);
	snprintf(pid, sizeof(pid), "is used by another emad, pid %d:", (int)harness.pid);
	ck_assert_msg(strstr(line, pid) && strstr(line, directory), "%s", line);
	trains("run/a", 2);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* Another user registers a model, which he may, and attaches. */
static int stranger_main(const char *socket_directory)
{
	static const uint8_t manifest[] = {0x91, 0x95, 0xa1, 'w', 0x01, 0x00, 0x91, 0x04, 0xc0};
	struct request attach = {.operation = OP_ATTACH}, enlist = wire_register("strange", 5);
	struct wire wire;
	char error[1024];
	bool told;
	int status;

	if (setgroups(0, NULL) != 0 || setgid(OTHER_UID) != 0 || setuid(OTHER_UID) != 0 ||
	    wire_open(&wire, socket_directory, true) != 0)
		return EXIT_FAILURE;
	status = wire_call(&wire, &enlist, manifest, sizeof(manifest), TIMEOUT_MS);
	if (status != 0) {
		fprintf(stderr, "register: %d\n", status);
		return EXIT_FAILURE;
	}
	request_set(&attach, model, text_of("strange"));
	request_set(&attach, client, 5);
	request_set(&attach, rank, 0);
	request_set(&attach, epoch, wire.reply.epoch);
	status = wire_call(&wire, &attach, NULL, 0, TIMEOUT_MS);
	(void)text_copy(wire.reply.error, error, sizeof(error));
	told = status == -EACCES && wire.passed < 0 &&
	       strstr(error, "a trainer of uid 65534 may not attach to a daemon of uid 0") &&
	       strstr(error, "Run both as the same user");
	if (!told)
		fprintf(stderr, "attach: %d: %s\n", status, error);
	wire_close(&wire);
	return told ? EXIT_SUCCESS : EXIT_FAILURE;
}

START_TEST(a_trainer_of_another_user_is_told_what_to_do)
{
	const char *arguments[] = {"--stranger", harness.directory, NULL};

	if (getuid() != 0) {
		printf("skipped: only root can become another user\n");
		return;
	}
	harness_kill(&harness);
	harness.arguments[2] = "--socket-mode";
	harness.arguments[3] = "0666";
	ck_assert_int_eq(chmod(harness.directory, 0755), 0);
	harness_start(&harness);
	ck_assert_int_eq(process_wait(process_spawn(PROCESS_SELF, arguments, NULL), TIMEOUT_MS * process_scale()), 0);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

static Suite *segments_suite(void)
{
	Suite *suite = suite_create("segments");
	TCase *cases = tcase_create("segments");

	tcase_add_checked_fixture(cases, daemon_open, daemon_close);
	tcase_add_test(cases, a_model_s_segments_come_and_go_with_it);
	tcase_add_loop_test(cases, the_next_daemon_finds_what_the_last_one_left, 0, 2);
	tcase_add_test(cases, after_an_upgrade_to_another_layout_the_checkpoint_is_what_is_left);
	tcase_add_test(cases, a_start_that_fails_loses_nothing);
	tcase_add_test(cases, what_is_damaged_is_removed_and_what_is_not_ours_stays);
	tcase_add_test(cases, a_second_daemon_is_told_who_has_the_directory);
	tcase_add_test(cases, a_trainer_of_another_user_is_told_what_to_do);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--role") == 0)
		return role_main(argc, argv);
	if (argc > 2 && strcmp(argv[1], "--stranger") == 0)
		return stranger_main(argv[2]);
	runner = srunner_create(segments_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
