/*
 * The runtime directory: one daemon in it at a time, whatever the others did before.
 */
#include "daemon/edge/runtime.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64];
static char lock[96];

static void setup(void)
{
	strcpy(directory, "/tmp/emad-test-runtime-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(lock, sizeof lock, "%s/emad.pid", directory);
}

static void teardown(void)
{
	unlink(lock);
	rmdir(directory);
}

START_TEST(holds_the_directory_until_it_is_closed)
{
	struct runtime first, second = { .lock_fd = 7 };
	struct reason reason;
	char text[32] = "", pid[32];
	FILE *file;

	ck_assert_int_eq(runtime_open(directory, &first, &reason), 0);
	ck_assert_str_eq(first.path, directory);
	file = fopen(lock, "r");
	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(fgets(text, sizeof text, file));
	fclose(file);
	snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	ck_assert_str_eq(text, pid);
	ck_assert_int_eq(fcntl(first.lock_fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(runtime_open(directory, &second, &reason), -EEXIST);
	snprintf(pid, sizeof pid, "pid %ld:", (long)getpid());
	ck_assert_msg(strstr(reason.text, pid) != NULL, "%s", reason.text);
	ck_assert_int_eq(second.lock_fd, 7);
	runtime_close(&first);
	ck_assert_int_eq(first.lock_fd, -1);
	runtime_close(&first);
	ck_assert_int_ne(access(lock, F_OK), 0);
	ck_assert_int_eq(runtime_open(directory, &second, &reason), 0);
	runtime_close(&second);
}
END_TEST

START_TEST(makes_the_directory_and_gives_its_real_path)
{
	struct runtime runtime;
	struct stat facts;
	char path[128], link[128];

	snprintf(path, sizeof path, "%s/made", directory);
	snprintf(link, sizeof link, "%s/link", directory);
	ck_assert_int_eq(symlink("made", link), 0);
	ck_assert_int_eq(runtime_open(path, &runtime, NULL), 0);
	ck_assert_int_eq(stat(path, &facts), 0);
	ck_assert_uint_eq(facts.st_mode & 022, 0);
	runtime_close(&runtime);
	ck_assert_int_eq(runtime_open(link, &runtime, NULL), 0);
	ck_assert_str_eq(runtime.path, path);
	runtime_close(&runtime);
	unlink(link);
	rmdir(path);
}
END_TEST

START_TEST(a_stale_lock_file_is_no_obstacle)
{
	struct runtime runtime;
	FILE *file = fopen(lock, "w");
	char text[64] = "";

	fprintf(file, "12345678901234567890\nleft by a daemon that was killed\n");
	fclose(file);
	ck_assert_int_eq(runtime_open(directory, &runtime, NULL), 0);
	file = fopen(lock, "r");
	ck_assert_ptr_nonnull(fgets(text, sizeof text, file));
	ck_assert_int_eq(atoi(text), getpid());
	ck_assert_ptr_null(fgets(text, sizeof text, file));
	fclose(file);
	runtime_close(&runtime);
}
END_TEST

START_TEST(the_lock_ends_with_the_process)
{
	struct runtime runtime;
	int ready[2], status;
	pid_t child;
	char byte;

	ck_assert_int_eq(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		if (runtime_open(directory, &runtime, NULL) == 0)
			ck_assert_int_eq(write(ready[1], "x", 1), 1);
		pause();
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(runtime_open(directory, &runtime, NULL), -EEXIST);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(runtime_open(directory, &runtime, NULL), 0);
	runtime_close(&runtime);
}
END_TEST

START_TEST(a_planted_link_is_not_followed)
{
	struct runtime runtime;
	struct reason reason;
	char victim[128];
	FILE *file;
	struct stat facts;

	snprintf(victim, sizeof victim, "%s/victim", directory);
	file = fopen(victim, "w");
	fprintf(file, "precious");
	fclose(file);
	ck_assert_int_eq(symlink(victim, lock), 0);
	ck_assert_int_eq(runtime_open(directory, &runtime, &reason), -ELOOP);
	ck_assert_msg(strstr(reason.text, lock) != NULL, "%s", reason.text);
	ck_assert_int_eq(stat(victim, &facts), 0);
	ck_assert_int_eq((int)facts.st_size, 8);
	unlink(victim);
}
END_TEST

START_TEST(a_directory_that_cannot_be_used_is_named)
{
	struct runtime runtime;
	struct reason reason;
	char path[256];
	FILE *file;

	ck_assert_int_eq(runtime_open("/nonexistent/emad", &runtime, &reason), -ENOENT);
	ck_assert_msg(strstr(reason.text, "'/nonexistent/emad'") != NULL, "%s", reason.text);
	file = fopen(lock, "w");
	fclose(file);
	ck_assert_int_eq(runtime_open(lock, &runtime, &reason), -ENOTDIR);
	unlink(lock);
	ck_assert_int_eq(mkdir(lock, 0700), 0);
	ck_assert_int_eq(runtime_open(directory, &runtime, &reason), -EISDIR);
	rmdir(lock);
	snprintf(path, sizeof path, "%s/%0100d", directory, 0);
	ck_assert_int_eq(runtime_open(path, &runtime, &reason), -ENAMETOOLONG);
	ck_assert_msg(strstr(reason.text, "at most 95") != NULL, "%s", reason.text);
	rmdir(path);
}
END_TEST

/* Two that start and end all the time never hold the directory together. */
START_TEST(two_that_start_and_end_at_once_take_turns)
{
	char path[128];
	pid_t children[2];
	int status;

	snprintf(path, sizeof path, "%s/inside", directory);
	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		if (children[i] != 0)
			continue;
		for (int round = 0; round < 2000; round++) {
			struct runtime runtime;
			int fd;

			if (runtime_open(directory, &runtime, NULL) != 0)
				continue;
			fd = open(path, O_CREAT | O_EXCL, 0600);
			if (fd < 0)
				_exit(1);
			close(fd);
			unlink(path);
			runtime_close(&runtime);
		}
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
		ck_assert_int_eq(status, 0);
	}
}
END_TEST

/* ---- the state directory ----------------------------------------------------------------------------------------- */

/* Whether another process is refused, with our pid. */
static bool is_refused(const char *state_dir)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct reason reason = { "" };
		char pid[32];
		int fd = -1, error = runtime_state_lock(state_dir, &fd, &reason);

		snprintf(pid, sizeof pid, "pid %ld:", (long)getppid());
		if (error)
			_exit(error == -EEXIST && fd == -1 && strstr(reason.text, pid) && strstr(reason.text, "--state-dir")
			              ? 1 : 2);
		runtime_state_unlock(state_dir, &fd);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_int_ne(WEXITSTATUS(status), 2);
	return WEXITSTATUS(status) == 1;
}

START_TEST(the_state_directory_is_one_daemons_too)
{
	char state_dir[128], file[160];
	struct runtime runtime;
	int fd = -1;

	snprintf(state_dir, sizeof state_dir, "%s/state", directory);
	snprintf(file, sizeof file, "%s/emad.lock", state_dir);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	for (int i = 0; i < 3; i++) {
		ck_assert(is_refused(state_dir));
		ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	}
	/* One directory may be both. */
	ck_assert_int_eq(runtime_open(state_dir, &runtime, NULL), 0);
	runtime_close(&runtime);
	runtime_state_unlock(state_dir, &fd);
	ck_assert_int_eq(fd, -1);
	runtime_state_unlock(state_dir, &fd);
	ck_assert_int_ne(access(file, F_OK), 0);
	ck_assert(!is_refused(state_dir));
	rmdir(state_dir);
}
END_TEST

START_TEST(a_state_directory_that_went_and_came_back_is_locked_anew)
{
	char state_dir[128], gone[128], file[160];
	int fd = -1;

	snprintf(state_dir, sizeof state_dir, "%s/state", directory);
	snprintf(gone, sizeof gone, "%s/gone", directory);
	snprintf(file, sizeof file, "%s/gone/emad.lock", directory);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	/* Another directory, as after mounting. */
	ck_assert_int_eq(rename(state_dir, gone), 0);
	ck_assert(!is_refused(state_dir));
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	ck_assert(is_refused(state_dir));
	/* The lock of the one before has been let go. */
	ck_assert(!is_refused(gone));
	/* The very same one is back, and another one has been there meanwhile. */
	runtime_state_unlock(state_dir, &fd);
	ck_assert_int_eq(rmdir(state_dir), 0);
	ck_assert_int_eq(rename(gone, state_dir), 0);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	ck_assert(is_refused(state_dir));
	/* Somebody has removed the file: what is held protects nothing. */
	snprintf(file, sizeof file, "%s/emad.lock", state_dir);
	ck_assert_int_eq(unlink(file), 0);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	ck_assert(is_refused(state_dir));
	runtime_state_unlock(state_dir, &fd);
	rmdir(state_dir);
}
END_TEST

START_TEST(a_state_directory_that_another_one_took_meanwhile_is_given_up)
{
	char state_dir[128], gone[128], file[160], byte;
	int fd = -1, ready[2], status;
	struct reason reason;
	pid_t child;

	snprintf(state_dir, sizeof state_dir, "%s/state", directory);
	snprintf(gone, sizeof gone, "%s/gone", directory);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	ck_assert_int_eq(rename(state_dir, gone), 0);
	ck_assert_int_eq(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		int mine = -1;

		if (runtime_state_lock(state_dir, &mine, NULL) == 0)
			ck_assert_int_eq(write(ready[1], "x", 1), 1);
		pause();
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, &reason), -EEXIST);
	ck_assert_int_eq(fd, -1);
	snprintf(file, sizeof file, "pid %ld:", (long)child);
	ck_assert_msg(strstr(reason.text, file) != NULL, "%s", reason.text);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(runtime_state_lock(state_dir, &fd, NULL), 0);
	runtime_state_unlock(state_dir, &fd);
	rmdir(state_dir);
	snprintf(file, sizeof file, "%s/emad.lock", gone);
	unlink(file);
	rmdir(gone);
}
END_TEST

START_TEST(a_state_directory_that_cannot_be_locked_is_named)
{
	struct reason reason;
	int fd = -1;

	ck_assert_int_eq(runtime_state_lock("/nonexistent/emad", &fd, &reason), -ENOENT);
	ck_assert_msg(strstr(reason.text, "'/nonexistent/emad'") != NULL, "%s", reason.text);
	ck_assert_int_eq(runtime_state_lock("/dev/null", &fd, &reason), -ENOTDIR);
	ck_assert_int_eq(fd, -1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("runtime");
	TCase *tcase = tcase_create("runtime");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, holds_the_directory_until_it_is_closed);
	tcase_add_test(tcase, makes_the_directory_and_gives_its_real_path);
	tcase_add_test(tcase, a_stale_lock_file_is_no_obstacle);
	tcase_add_test(tcase, the_lock_ends_with_the_process);
	tcase_add_test(tcase, a_planted_link_is_not_followed);
	tcase_add_test(tcase, a_directory_that_cannot_be_used_is_named);
	tcase_add_test(tcase, two_that_start_and_end_at_once_take_turns);
	tcase_add_test(tcase, the_state_directory_is_one_daemons_too);
	tcase_add_test(tcase, a_state_directory_that_went_and_came_back_is_locked_anew);
	tcase_add_test(tcase, a_state_directory_that_another_one_took_meanwhile_is_given_up);
	tcase_add_test(tcase, a_state_directory_that_cannot_be_locked_is_named);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
