/*
 * A fault every moment, of every kind in turn and at random, under the load of a crew; after each the averages are
 * compared with the reference.
 *
 * EMAD_SOAK_SECONDS says for how long (default 10), EMAD_TEST_SEED repeats a run. What fails leaves its directories
 * behind and says where they are.
 */
#include "tests/integration/process.h"
#include "tests/integration/stand.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SECONDS_DEFAULT = 10, PAUSE_MAX_MS = 300 };

static const char checkpoints[] = "[checkpoint]\ncheckpoint-interval=100ms\n";

static struct stand stand;

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static void killed(uint64_t *seed)
{
	(void)seed;
	harness_kill(&stand.harness);
	harness_start(&stand.harness);
}

static void ended(uint64_t *seed)
{
	(void)seed;
	ck_assert_int_eq(harness_stop(&stand.harness), 0);
	harness_start(&stand.harness);
}

/* While it starts, with memory to take over: by SIGTERM or SIGKILL, up to three times. */
static void ended_while_it_comes_back(uint64_t *seed)
{
	harness_kill(&stand.harness);
	for (uint64_t left = seed_next(seed, 3) + 1; left > 0; left--) {
		harness_begin(&stand.harness);
		process_sleep_ms((int)seed_next(seed, 25));
		(void)harness_end(&stand.harness, seed_next(seed, 2) ? SIGTERM : SIGKILL);
	}
	harness_start(&stand.harness);
}

/* The host dies, and while everything is read from the disk again the daemon is ended, before it is let finish. */
static void forgotten(uint64_t *seed)
{
	const char *mistake;

	ck_assert(crew_pause(&stand.crew, true, STAND_CALL_MAX_MS * process_scale()));
	/* What was accepted must be averaged by then: a checkpoint holds the newest version that there is. */
	mistake = stand_mistake(&stand);
	ck_assert_msg(!mistake, "before the host dies: %s", mistake);
	ck_assert_msg(emad_checkpoint(stand.inspector.client, NULL, STAND_CALL_MAX_MS, NULL) == 0, "%s", emad_error());
	harness_kill(&stand.harness);
	stand_forget(&stand);
	for (uint64_t left = seed_next(seed, 3); left > 0; left--) {
		harness_begin(&stand.harness);
		process_sleep_ms((int)seed_next(seed, 25));
		(void)harness_end(&stand.harness, seed_next(seed, 2) ? SIGTERM : SIGKILL);
	}
	harness_start(&stand.harness);
	ck_assert(crew_pause(&stand.crew, false, STAND_CALL_MAX_MS * process_scale()));
}

static void stands_still(uint64_t *seed)
{
	kill(stand.harness.pid, SIGSTOP);
	process_sleep_ms((int)seed_next(seed, 700));
	kill(stand.harness.pid, SIGCONT);
}

static void worker_hangs(uint64_t *seed)
{
	pid_t thread = process_thread(stand.harness.pid, "emad-worker-0");

	ck_assert_int_gt(thread, 0);
	if (!process_thread_hang(thread))
		return;
	process_sleep_ms((int)seed_next(seed, 500));
	process_thread_release(thread);
}

static void member_stands_still(uint64_t *seed)
{
	pid_t pid = stand.crew.pids[seed_next(seed, CREW_TRAINER_COUNT + CREW_READER_COUNT)];

	ck_assert_int_gt(pid, 0);
	kill(pid, SIGSTOP);
	process_sleep_ms((int)seed_next(seed, 700));
	kill(pid, SIGCONT);
}

/* Settings that are wrong, or others, again and again; the service manager's queue is full soon. */
static void reloads(uint64_t *seed)
{
	for (int i = 0; i < 10; i++) {
		stand_configure(&stand, seed_next(seed, 2) ? "[limits]\nslots=1\n" : "[checkpoint]\ncheckpoint-interval=50ms\n");
		kill(stand.harness.pid, SIGHUP);
		process_sleep_ms((int)seed_next(seed, 5));
	}
	stand_configure(&stand, checkpoints);
	kill(stand.harness.pid, SIGHUP);
}

static int dial(const char *name, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%s", stand.harness.directory, name);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Peers that talk nonsense, or nothing, and go. */
static void strangers(uint64_t *seed)
{
	enum { COUNT = 60 };
	int fds[COUNT];

	for (int i = 0; i < COUNT; i++) {
		uint8_t bytes[256];

		for (size_t b = 0; b < sizeof(bytes); b++)
			bytes[b] = (uint8_t)seed_next(seed, 256);
		fds[i] = i % 2 ? dial("attach.sock", SOCK_SEQPACKET) : dial("emad.sock", SOCK_STREAM);
		if (fds[i] >= 0 && seed_next(seed, 4))
			(void)send(fds[i], bytes, seed_next(seed, sizeof(bytes)) + 1, MSG_NOSIGNAL);
	}
	process_sleep_ms((int)seed_next(seed, 50));
	for (int i = 0; i < COUNT; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void limited(int resource, rlim_t most, uint64_t *seed)
{
	struct rlimit before, less;

	ck_assert_int_eq(prlimit(stand.harness.pid, (enum __rlimit_resource)resource, NULL, &before), 0);
	less = (struct rlimit){.rlim_cur = most, .rlim_max = before.rlim_max};
	ck_assert_int_eq(prlimit(stand.harness.pid, (enum __rlimit_resource)resource, &less, NULL), 0);
	process_sleep_ms((int)seed_next(seed, 400) + 100);
	ck_assert_int_eq(prlimit(stand.harness.pid, (enum __rlimit_resource)resource, &before, NULL), 0);
}

/* Nothing can be opened: no connection, no checkpoint. */
static void without_descriptors(uint64_t *seed)
{
	limited(RLIMIT_NOFILE, 3, seed);
}

/* No file may become larger than this: whatever is written to disk fails on its way. */
static void without_room_on_disk(uint64_t *seed)
{
	limited(RLIMIT_FSIZE, 1000 + seed_next(seed, 20000), seed);
}

static const struct {
	const char *name;
	void (*happen)(uint64_t *seed);
} faults[] = {
	{"killed", killed},
	{"ended", ended},
	{"ended while it comes back", ended_while_it_comes_back},
	{"forgotten but for the disk", forgotten},
	{"stands still", stands_still},
	{"a worker hangs", worker_hangs},
	{"a client stands still", member_stands_still},
	{"reloads", reloads},
	{"strangers", strangers},
	{"no descriptors", without_descriptors},
	{"no room on disk", without_room_on_disk},
};

enum { FAULT_COUNT = sizeof(faults) / sizeof(faults[0]) };

/* ---- the soak ---------------------------------------------------------------------------------------------------- */

static long long soak_ms(void)
{
	const char *given = getenv("EMAD_SOAK_SECONDS");

	return (given ? strtoll(given, NULL, 10) : SECONDS_DEFAULT) * 1000;
}

static void looks_right(const char *after, unsigned count, uint64_t seed)
{
	const char *mistake = stand_mistake(&stand);

	if (mistake) {
		stand_totals_print(&stand);
		harness_log_print(&stand.harness);
	}
	ck_assert_msg(!mistake, "fault %u, '%s', seed 0x%" PRIx64 ", %s: %s", count, after, seed, stand.harness.directory,
	              mistake);
}

START_TEST(whatever_happens_the_averages_are_those_of_the_reference)
{
	uint64_t seed = seed_take("soak"), first = seed;
	unsigned counts[FAULT_COUNT] = {0}, count = 0;
	long long end_ms;

	stand_load_begin(&stand, stand.harness.url, seed, CREW_TRAINERS | CREW_READERS);
	end_ms = harness_now_ms() + soak_ms();
	/* Each kind once, then any. */
	while (count < FAULT_COUNT || harness_now_ms() < end_ms) {
		uint64_t kind = count < FAULT_COUNT ? count : seed_next(&seed, FAULT_COUNT);

		inspector_hold(&stand.inspector);
		process_sleep_ms((int)seed_next(&seed, PAUSE_MAX_MS));
		faults[kind].happen(&seed);
		looks_right(faults[kind].name, ++count, first);
		counts[kind]++;
	}
	process_sleep_ms(PAUSE_MAX_MS);
	looks_right("the end", count, first);
	printf("%u faults:", count);
	for (int i = 0; i < FAULT_COUNT; i++)
		printf("%s %u %s", i ? "," : "", counts[i], faults[i].name);
	printf("\n");
	stand_totals_print(&stand);
	stand_load_end(&stand);
}
END_TEST

static void open_stand(void)
{
	stand_open(&stand, checkpoints);
}

static void close_stand(void)
{
	stand_close(&stand);
}

int main(int argc, char **argv)
{
	Suite *suite = suite_create("soak");
	TCase *cases = tcase_create("soak");
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--crew") == 0)
		return crew_main(argc, argv);
	tcase_add_checked_fixture(cases, open_stand, close_stand);
	tcase_add_test(cases, whatever_happens_the_averages_are_those_of_the_reference);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
