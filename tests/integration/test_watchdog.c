/*
 * The watchdog: the service manager hears of the daemon in time while all of it lives, also when processors are scarce,
 * and hears nothing while its loop or one of its workers hangs. The test takes the service manager's part.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"

#include <check.h>
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WATCHDOG_MS = 1000, END_MAX_MS = 20000 };

static char configuration[96];
static struct harness harness;

/* Time is spent waiting here, not computing: slow builds need more of it, but not as much more as they are slow. */
static int patience(void)
{
	return process_scale() > 1 ? 2 : 1;
}

/* A daemon with two workers that is to be heard of every so often; 0: no watchdog. */
static void daemon_open(int watchdog_ms)
{
	const char *arguments[] = {"--config", configuration, NULL};
	char microseconds[32];
	FILE *file;
	int fd;

	snprintf(configuration, sizeof(configuration), "/tmp/emad-watchdog-XXXXXX");
	fd = mkstemp(configuration);
	ck_assert_int_ge(fd, 0);
	file = fdopen(fd, "w");
	fputs("[daemon]\nworkers=2\n", file);
	fclose(file);
	snprintf(microseconds, sizeof(microseconds), "%d", watchdog_ms * 1000);
	if (watchdog_ms)
		setenv("WATCHDOG_USEC", microseconds, 1);
	harness_open(&harness, arguments);
	unsetenv("WATCHDOG_USEC");
	unlink(configuration);
}

static void daemon_close(void)
{
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_close(&harness);
}

START_TEST(is_heard_of_in_time)
{
	daemon_open(WATCHDOG_MS * patience());
	for (int i = 0; i < 5; i++)
		ck_assert_int_ge(harness_report_wait(&harness, "WATCHDOG=1", WATCHDOG_MS * patience()), 0);
	daemon_close();
}
END_TEST

START_TEST(says_nothing_where_no_watchdog_is)
{
	daemon_open(0);
	ck_assert_int_eq(harness_report_wait(&harness, "WATCHDOG=1", WATCHDOG_MS), -1);
	daemon_close();
}
END_TEST

static const char *const hanging[] = {"emad", "emad-worker-0", "emad-worker-1"};

START_TEST(is_not_heard_of_while_one_thread_hangs)
{
	int watchdog_ms = WATCHDOG_MS * patience();
	pid_t thread;

	daemon_open(watchdog_ms);
	ck_assert_int_ge(harness_report_wait(&harness, "WATCHDOG=1", watchdog_ms), 0);
	thread = process_thread(harness.pid, hanging[_i]);
	ck_assert_int_gt(thread, 0);
	if (process_thread_hang(thread)) {
		/* One may have been on its way. */
		(void)harness_report_wait(&harness, "WATCHDOG=1", watchdog_ms);
		ck_assert_int_eq(harness_report_wait(&harness, "WATCHDOG=1", 2 * watchdog_ms), -1);
		process_thread_release(thread);
		for (int i = 0; i < 3; i++)
			ck_assert_int_ge(harness_report_wait(&harness, "WATCHDOG=1", watchdog_ms), 0);
	}
	daemon_close();
}
END_TEST

static void threads_be_nice(pid_t pid, int nice_value)
{
	struct dirent *entry;
	char path[64];
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	folder = opendir(path);
	ck_assert_ptr_nonnull(folder);
	while ((entry = readdir(folder)))
		if (entry->d_name[0] != '.')
			(void)setpriority(PRIO_PROCESS, (id_t)strtoul(entry->d_name, NULL, 10), nice_value);
	closedir(folder);
}

/* One processor, and on it four others that take all they can get, each with ten times the weight. */
START_TEST(is_heard_of_in_time_when_starved)
{
	enum { BURNER_COUNT = 4, NICE = 10, STARVED_WATCHDOG_MS = 4000 };
	static const char *const burner[] = {"--burn", NULL};
	int watchdog_ms = STARVED_WATCHDOG_MS * patience();
	pid_t burners[BURNER_COUNT];
	cpu_set_t before, one;

	CPU_ZERO(&one);
	CPU_ZERO(&before);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(before), &before), 0);
	for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
		if (CPU_ISSET(cpu, &before))
			CPU_SET(cpu, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	daemon_open(watchdog_ms);
	for (int i = 0; i < BURNER_COUNT; i++)
		burners[i] = process_spawn(PROCESS_SELF, burner, NULL);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(before), &before), 0);
	threads_be_nice(harness.pid, NICE);
	for (int i = 0; i < 4; i++)
		ck_assert_int_ge(harness_report_wait(&harness, "WATCHDOG=1", watchdog_ms), 0);
	for (int i = 0; i < BURNER_COUNT; i++) {
		kill(burners[i], SIGKILL);
		(void)process_wait(burners[i], END_MAX_MS);
	}
	daemon_close();
}
END_TEST

static Suite *watchdog_suite(void)
{
	Suite *suite = suite_create("watchdog");
	TCase *cases = tcase_create("watchdog");

	tcase_add_test(cases, is_heard_of_in_time);
	tcase_add_test(cases, says_nothing_where_no_watchdog_is);
	tcase_add_loop_test(cases, is_not_heard_of_while_one_thread_hangs, 0, sizeof(hanging) / sizeof(hanging[0]));
	tcase_add_test(cases, is_heard_of_in_time_when_starved);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--burn") == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (volatile unsigned n = 0;; n++)
			;
	}
	runner = srunner_create(watchdog_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
