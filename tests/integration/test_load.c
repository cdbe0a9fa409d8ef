/*
 * The daemon under load, with real processes: readers that look at every version at full speed, trainers that die at
 * any moment, ranks that lag, daemons that are ended and killed in the middle. See role.h for how a mixture is noticed.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/role.h"
#include "tests/integration/wire.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/layout.h"

enum {
	ROWS = 20000, /* 2 MB of snapshot, an update of a millisecond */
	TIMEOUT_MS = 20000,
	END_MAX_MS = 20000, /* of a role */
};

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
	harness_open(&harness, NULL);
	progress_open(&page, harness.directory);
	OK(emad_client_open(harness.url, TIMEOUT_MS, &client));
}

static void daemon_close(void)
{
	int status;

	emad_client_close(client);
	progress_close(&page);
	status = harness_stop(&harness);
	if (status != 0)
		harness_log_print(&harness);
	ck_assert_msg(status == 0, "the daemon ended with status %#x", (unsigned)status);
	harness_close(&harness);
}

/* The role ends by itself, with 0. */
static void ends_well(pid_t pid)
{
	int status = process_wait(pid, END_MAX_MS * process_scale());

	ck_assert_msg(status == 0, "a role ended with status %#x", (unsigned)status);
}

static void stop_all(void)
{
	for (int i = 0; i < ROLE_COUNT_MAX; i++)
		atomic_store(&page.all[i].stop, 1);
}

/* Waits until the test's own client has found a daemon that was started anew. */
static void client_returns(void)
{
	long long deadline_ms = harness_now_ms() + TIMEOUT_MS;
	struct emad_daemon daemon;

	while (emad_hello(client, 1000, &daemon) != 0 || daemon.pid != (uint64_t)harness.pid) {
		ck_assert_int_lt(harness_now_ms(), deadline_ms);
		process_sleep_ms(5);
	}
}

/* Opens the newest version and judges it here; its step. */
static uint64_t newest_step(const char *model)
{
	struct emad_view_info info = {0};
	struct emad_view *view;

	for (int p = 0; p < ROLE_PROFILE_COUNT; p++) {
		OK(emad_view_open(client, model, p ? "mean" : "now", 0, TIMEOUT_MS, &view));
		ck_assert_int_eq(role_view_judge(view), 0);
		OK(emad_view_info(view, &info));
		emad_view_close(view);
	}
	return info.step;
}

/* ---- reading at full speed --------------------------------------------------------------------------------------- */

START_TEST(readers_see_whole_versions_only)
{
	enum { TRAINER_COUNT = 2, READER_COUNT = 4, RUN_MS = 2500 };
	static const char *const models[TRAINER_COUNT] = {"run/a", "run/b"};
	pid_t pids[TRAINER_COUNT + READER_COUNT];
	uint64_t versions = 0, steps = 0;

	for (uint32_t i = 0; i < TRAINER_COUNT; i++)
		pids[i] = role_trainer_start(&page, i, harness.url, models[i], ROWS, 0, 1, 1, 0, i ? ROLE_WAITS : 0);
	for (uint32_t i = 0; i < TRAINER_COUNT; i++)
		ck_assert(progress_reaches(&page.all[i].accepted, 2, TIMEOUT_MS));
	for (uint32_t i = 0; i < READER_COUNT; i++)
		pids[TRAINER_COUNT + i] = role_reader_start(&page, TRAINER_COUNT + i, harness.url, models[i % TRAINER_COUNT]);
	process_sleep_ms(RUN_MS);
	stop_all();
	for (int i = 0; i < TRAINER_COUNT + READER_COUNT; i++) {
		ends_well(pids[i]);
		versions += page.all[i].versions;
		steps += page.all[i].accepted;
		ck_assert_uint_eq(page.all[i].errors, 0);
	}
	printf("%" PRIu64 " steps, %" PRIu64 " versions judged\n", steps, versions);
	ck_assert_uint_gt(steps, 20 / (unsigned)process_scale());
	ck_assert_uint_gt(versions, 20 / (unsigned)process_scale());
}
END_TEST

/* ---- trainers that die ------------------------------------------------------------------------------------------- */

static void stages_are_given_back(const char *model)
{
	char label[64];
	long long deadline_ms = harness_now_ms() + 5000 * process_scale();

	snprintf(label, sizeof(label), "emad:%s:stage", model);
	while (process_fd_count(harness.pid, label) > 0) {
		ck_assert_msg(harness_now_ms() < deadline_ms, "stages of '%s' are still there", model);
		process_sleep_ms(2);
	}
}

START_TEST(a_trainer_killed_at_any_moment_leaves_the_average_whole)
{
	enum { ROUND_COUNT = 12, FIRST_STEPS = 3 };
	uint64_t seed = seed_take("killed trainers"), step = 0;

	for (int round = 0; round < ROUND_COUNT; round++) {
		struct progress *progress = &page.all[0];
		pid_t pid;

		memset(progress, 0, sizeof(*progress));
		pid = role_trainer_start(&page, 0, harness.url, "killed", ROWS, 0, 1, 0, 0, round % 2 ? ROLE_WAITS : 0);
		ck_assert(progress_reaches(&progress->accepted, step + FIRST_STEPS, TIMEOUT_MS));
		ck_assert_uint_ge(progress->resumed, step + 1);
		process_sleep_ms((int)seed_next(&seed, 20));
		kill(pid, SIGKILL);
		ck_assert_int_ne(process_wait(pid, END_MAX_MS), -1);
		stages_are_given_back("killed");
		ck_assert_uint_ge(newest_step("killed"), progress->accepted);
		step = newest_step("killed");
	}
}
END_TEST

START_TEST(half_a_snapshot_is_never_seen)
{
	enum { ROUND_COUNT = 3 };
	uint64_t step = 0;

	for (int i = 0; i < ROUND_COUNT * ROLE_MOMENT_COUNT; i++) {
		enum role_moment moment = (enum role_moment)(i % ROLE_MOMENT_COUNT);
		struct progress *progress = &page.all[0];
		uint64_t after;

		memset(progress, 0, sizeof(*progress));
		ends_well(role_trainer_start(&page, 0, harness.url, "victim", ROWS, 0, 1, 0, step + 2, 0));
		ck_assert_uint_eq(newest_step("victim"), step + 2);
		step += 2;
		ck_assert_int_eq(WTERMSIG(process_wait(role_victim_start(harness.directory, "victim", ROWS, step + 1, moment),
		                                       END_MAX_MS * process_scale())), SIGKILL);
		stages_are_given_back("victim");
		after = newest_step("victim");
		/* A push whose answer nobody read has arrived or not; without it nothing has changed. */
		ck_assert_msg(after == step || (moment == ROLE_AFTER_PUSH && after == step + 1), "moment %d: step %" PRIu64
		              " after %" PRIu64, (int)moment, after, step);
		step = after;
	}
}
END_TEST

/* The update must be under way when the second comes: large, and pushed without waiting. */
START_TEST(the_older_of_two_trainers_is_fenced_under_load)
{
	enum { ROUND_COUNT = 6, LARGE_ROWS = 200000 };
	const struct emad_trainer_options options = {
		.profiles = role_profiles,
		.profile_count = ROLE_PROFILE_COUNT,
		.timeout_ms = TIMEOUT_MS,
	};
	struct emad_trainer *trainers[ROUND_COUNT + 1] = {NULL};
	struct role_model model;
	uint64_t step = 0;

	role_model_init(&model, LARGE_ROWS, 0, 1);
	for (int i = 0; i <= ROUND_COUNT; i++) {
		OK(emad_trainer_open(client, "fenced", model.tensors, ROLE_TENSOR_COUNT, &options, &trainers[i]));
		for (int old = 0; old < i; old++)
			ck_assert_int_eq(emad_push(trainers[old], step + 1, model.data, 0, TIMEOUT_MS, NULL), EMAD_EFENCED);
		for (int n = 0; n < 2; n++) {
			role_model_fill(&model, ++step);
			OK(emad_push(trainers[i], step, model.data, 0, TIMEOUT_MS, NULL));
		}
	}
	OK(emad_flush(trainers[ROUND_COUNT], TIMEOUT_MS, NULL));
	ck_assert_uint_eq(newest_step("fenced"), step);
	for (int i = 0; i <= ROUND_COUNT; i++)
		emad_trainer_close(trainers[i]);
	role_model_finish(&model);
}
END_TEST

/* ---- several ranks ----------------------------------------------------------------------------------------------- */

START_TEST(ranks_that_lag_and_leave_steps_out_never_mix)
{
	enum { WORLD = 4, LAST_STEP = 150 };
	pid_t pids[WORLD], reader;
	struct emad_view_info info;
	struct emad_view *view;

	for (uint32_t rank = 0; rank < WORLD; rank++)
		pids[rank] = role_trainer_start(&page, rank, harness.url, "sharded", ROWS, rank, WORLD, 1, LAST_STEP,
		                                rank == 2 ? ROLE_SKIPS : 0);
	reader = role_reader_start(&page, WORLD, harness.url, "sharded");
	for (uint32_t rank = 0; rank < WORLD; rank++)
		ends_well(pids[rank]);
	ck_assert_uint_eq(newest_step("sharded"), LAST_STEP);
	OK(emad_view_open(client, "sharded", NULL, 0, TIMEOUT_MS, &view));
	OK(emad_view_info(view, &info));
	/* Rank 2 has left one in seven out; every other step is there, once, and the next stands for the one left out. */
	ck_assert_uint_eq(info.updates, LAST_STEP - 1);
	emad_view_close(view);
	stop_all();
	ends_well(reader);
	ck_assert_uint_gt(page.all[WORLD].versions, 0);
}
END_TEST

/* ---- readers that do not let go ---------------------------------------------------------------------------------- */

/* The daemon of the test anew, with settings. */
static void daemon_configure(const char *settings)
{
	static char path[96];
	FILE *file;

	ck_assert_int_eq(harness_stop(&harness), 0);
	snprintf(path, sizeof(path), "%s/conf", harness.directory);
	file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	fputs(settings, file);
	ck_assert_int_eq(fclose(file), 0);
	for (size_t i = 0; i < HARNESS_ARGUMENT_COUNT_MAX; i++) {
		if (harness.arguments[i])
			continue;
		harness.arguments[i] = "--config";
		harness.arguments[i + 1] = path;
		break;
	}
	harness_start(&harness);
	client_returns();
}

START_TEST(a_reader_that_never_lets_go_stops_nobody)
{
	enum { SLOT_COUNT = 3 };
	struct emad_view *held[SLOT_COUNT];
	struct progress *progress = &page.all[0];
	pid_t trainer, reader;

	daemon_configure("[limits]\nlease-min=300ms\nslots=3\n");
	trainer = role_trainer_start(&page, 0, harness.url, "held", ROWS, 0, 1, 1, 0, ROLE_WAITS | ROLE_PERSISTS);
	ck_assert(progress_reaches(&progress->applied, 5, TIMEOUT_MS));
	reader = role_reader_start(&page, 1, harness.url, "held");
	for (int round = 0; round < 2; round++) {
		struct emad_view_info info = {0};
		int revoked = 0;

		/* One on every slot: each is newer than the one before. */
		for (int i = 0; i < SLOT_COUNT; i++) {
			OK(emad_view_open(client, "held", NULL, info.step + 1, TIMEOUT_MS, &held[i]));
			OK(emad_view_info(held[i], &info));
		}
		ck_assert(progress_reaches(&progress->applied, info.step + 20, TIMEOUT_MS));
		/* Updates need two slots to go on; a third may be held for ever. */
		for (int i = 0; i < SLOT_COUNT; i++) {
			int code = role_view_judge(held[i]);

			ck_assert(code == 0 || code == EMAD_EREVOKED);
			revoked += code == EMAD_EREVOKED && emad_view_check(held[i]) == EMAD_EREVOKED;
			emad_view_close(held[i]);
		}
		ck_assert_int_ge(revoked, SLOT_COUNT - 1);
	}
	stop_all();
	ends_well(trainer);
	ends_well(reader);
	ck_assert_uint_gt(page.all[1].versions, 0);
}
END_TEST

/* With two slots a held view stops the second update behind it, and for the guaranteed time only. */
START_TEST(a_lease_holds_for_its_guaranteed_time)
{
	/* Longer by far than some updates take. */
	const int lease_min_ms = 400 * process_scale();
	const struct emad_trainer_options options = {
		.profiles = role_profiles,
		.profile_count = ROLE_PROFILE_COUNT,
		.timeout_ms = TIMEOUT_MS,
	};
	struct emad_trainer *trainer;
	struct role_model model;
	struct emad_view *view;
	long long begin_ms;
	char settings[64];

	snprintf(settings, sizeof(settings), "[limits]\nlease-min=%dms\nslots=2\n", lease_min_ms);
	daemon_configure(settings);
	role_model_init(&model, ROWS, 0, 1);
	OK(emad_trainer_open(client, "lease", model.tensors, ROLE_TENSOR_COUNT, &options, &trainer));
	role_model_fill(&model, 1);
	OK(emad_push(trainer, 1, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL));
	begin_ms = harness_now_ms();
	OK(emad_view_open(client, "lease", NULL, 0, TIMEOUT_MS, &view));
	role_model_fill(&model, 2);
	OK(emad_push(trainer, 2, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL));
	ck_assert_int_eq(role_view_judge(view), 0);
	role_model_fill(&model, 3);
	OK(emad_push(trainer, 3, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL));
	ck_assert_int_ge(harness_now_ms() - begin_ms, lease_min_ms - 5);
	ck_assert_int_le(harness_now_ms() - begin_ms, lease_min_ms + 1000 * process_scale());
	ck_assert_int_eq(emad_view_check(view), EMAD_EREVOKED);
	emad_view_close(view);
	/* Who lets go in time holds up nobody. */
	OK(emad_view_open(client, "lease", NULL, 0, TIMEOUT_MS, &view));
	emad_view_close(view);
	begin_ms = harness_now_ms();
	for (uint64_t step = 4; step < 8; step++) {
		role_model_fill(&model, step);
		OK(emad_push(trainer, step, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL));
	}
	ck_assert_int_lt(harness_now_ms() - begin_ms, lease_min_ms);
	emad_trainer_close(trainer);
	role_model_finish(&model);
}
END_TEST

/* ---- daemons that end -------------------------------------------------------------------------------------------- */

/* The slots of a model, kept mapped beyond the daemon's life: what was in memory when it ended. */
struct relics {
	size_t count;
	ino_t inodes[SLOT_COUNT_MAX];
	const struct slot_header *slots[SLOT_COUNT_MAX];
};

static void relics_take(struct relics *relics, const char *model, size_t slot_count)
{
	long long deadline_ms = harness_now_ms() + TIMEOUT_MS;

	relics->count = 0;
	while (relics->count < slot_count) {
		struct emad_view_info info;
		struct emad_view *view;
		struct stat facts;
		bool known = false;

		ck_assert_int_lt(harness_now_ms(), deadline_ms);
		OK(emad_view_open(client, model, NULL, 0, TIMEOUT_MS, &view));
		if (emad_view_info(view, &info) == 0) {
			ck_assert_int_eq(fstat(info.fd, &facts), 0);
			for (size_t i = 0; i < relics->count; i++)
				known |= relics->inodes[i] == facts.st_ino;
			if (!known) {
				void *map = mmap(NULL, LAYOUT_PAGE_BYTES, PROT_READ, MAP_SHARED, info.fd, 0);

				ck_assert_ptr_ne(map, MAP_FAILED);
				relics->inodes[relics->count] = facts.st_ino;
				relics->slots[relics->count++] = map;
			}
		}
		emad_view_close(view);
		process_sleep_ms(1);
	}
}

/* The newest version's step, from headers that check. */
static uint64_t relics_step(const struct relics *relics)
{
	uint64_t version = 0, step = 0;

	for (size_t i = 0; i < relics->count; i++) {
		const struct slot_header *slot = relics->slots[i];

		if (slot->version <= version)
			continue;
		ck_assert_uint_eq(slot->checksum, slot_header_checksum(slot));
		version = slot->version;
		step = slot->step;
	}
	return step;
}

static void relics_finish(const struct relics *relics)
{
	for (size_t i = 0; i < relics->count; i++)
		munmap((void *)(uintptr_t)relics->slots[i], LAYOUT_PAGE_BYTES);
}

START_TEST(sigterm_under_load_loses_nothing_acknowledged)
{
	enum { ROUND_COUNT = 20, STOP_MAX_MS = 3000, SLOT_COUNT = 3 };
	uint64_t seed = seed_take("sigterm");

	for (int round = 0; round < ROUND_COUNT; round++) {
		struct relics relics;
		pid_t pids[3];
		long long begin_ms;
		int status;

		memset(page.all, 0, ROLE_COUNT_MAX * sizeof(struct progress));
		for (uint32_t i = 0; i < 2; i++)
			pids[i] = role_trainer_start(&page, i, harness.url, i ? "waits" : "runs", ROWS, 0, 1, 1, 0,
			                             i ? ROLE_WAITS : 0);
		for (uint32_t i = 0; i < 2; i++)
			ck_assert(progress_reaches(&page.all[i].accepted, 3, TIMEOUT_MS));
		pids[2] = role_reader_start(&page, 2, harness.url, "waits");
		ck_assert(progress_reaches(&page.all[2].versions, 1, TIMEOUT_MS));
		relics_take(&relics, round % 2 ? "waits" : "runs", SLOT_COUNT);
		process_sleep_ms((int)seed_next(&seed, 25));

		begin_ms = harness_now_ms();
		status = harness_stop(&harness);
		if (status != 0)
			harness_log_print(&harness);
		ck_assert_msg(status == 0, "round %d: the daemon ended with status %#x", round, (unsigned)status);
		ck_assert_int_lt(harness_now_ms() - begin_ms, STOP_MAX_MS * process_scale());
		/* A call that is under way hopes for a new daemon for a while; what was acknowledged is known by now. */
		stop_all();
		for (int i = 0; i < 3; i++) {
			status = process_wait(pids[i], 40 * process_scale());
			ck_assert_msg(status <= 0, "round %d: a role ended with status %#x", round, (unsigned)status);
		}
		ck_assert_uint_ge(relics_step(&relics), page.all[round % 2].accepted);
		relics_finish(&relics);
		harness_start(&harness);
		client_returns();
	}
}
END_TEST

START_TEST(clients_outlive_a_killed_daemon)
{
	enum { ROUND_COUNT = 6, TRAINER_COUNT = 2, READER_COUNT = 2 };
	static const char *const models[] = {"survivor/a", "survivor/b"};
	uint64_t seed = seed_take("killed daemons"), errors = 0;
	pid_t pids[TRAINER_COUNT + READER_COUNT];

	for (uint32_t i = 0; i < TRAINER_COUNT; i++)
		pids[i] = role_trainer_start(&page, i, harness.url, models[i], ROWS, 0, 1, 1, 0,
		                             ROLE_PERSISTS | (i ? ROLE_WAITS : 0));
	for (uint32_t i = TRAINER_COUNT; i < TRAINER_COUNT + READER_COUNT; i++)
		pids[i] = role_reader_start(&page, i, harness.url, models[i % 2]);
	for (int round = 0; round < ROUND_COUNT; round++) {
		uint64_t before[TRAINER_COUNT + READER_COUNT];

		for (uint32_t i = 0; i < TRAINER_COUNT + READER_COUNT; i++)
			before[i] = i < TRAINER_COUNT ? page.all[i].accepted : page.all[i].versions;
		for (uint32_t i = 0; i < TRAINER_COUNT + READER_COUNT; i++)
			ck_assert_msg(progress_reaches(i < TRAINER_COUNT ? &page.all[i].accepted : &page.all[i].versions,
			                               before[i] + 3, TIMEOUT_MS), "round %d: role %u does not go on", round, i);
		process_sleep_ms((int)seed_next(&seed, 40));
		harness_kill(&harness);
		process_sleep_ms((int)seed_next(&seed, 60));
		harness_start(&harness);
	}
	for (uint32_t i = 0; i < TRAINER_COUNT; i++)
		ck_assert(progress_reaches(&page.all[i].accepted, page.all[i].accepted + 3, TIMEOUT_MS));
	stop_all();
	for (uint32_t i = 0; i < TRAINER_COUNT + READER_COUNT; i++) {
		ends_well(pids[i]);
		errors += page.all[i].errors;
	}
	ck_assert_uint_ge(errors, ROUND_COUNT);
	client_returns();
	for (int i = 0; i < 2; i++)
		ck_assert_uint_gt(newest_step(models[i]), 0);
}
END_TEST

/* A case for each, so that CK_RUN_CASE can choose one. */
static void add(Suite *suite, const char *name, const TTest *test)
{
	TCase *cases = tcase_create(name);

	tcase_add_checked_fixture(cases, daemon_open, daemon_close);
	tcase_add_test(cases, test);
	suite_add_tcase(suite, cases);
}

static Suite *load_suite(void)
{
	Suite *suite = suite_create("load");

	add(suite, "whole-versions", readers_see_whole_versions_only);
	add(suite, "killed-trainer", a_trainer_killed_at_any_moment_leaves_the_average_whole);
	add(suite, "half-snapshot", half_a_snapshot_is_never_seen);
	add(suite, "fenced", the_older_of_two_trainers_is_fenced_under_load);
	add(suite, "ranks", ranks_that_lag_and_leave_steps_out_never_mix);
	add(suite, "held", a_reader_that_never_lets_go_stops_nobody);
	add(suite, "lease", a_lease_holds_for_its_guaranteed_time);
	add(suite, "sigterm", sigterm_under_load_loses_nothing_acknowledged);
	add(suite, "killed-daemon", clients_outlive_a_killed_daemon);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--role") == 0)
		return role_main(argc, argv);
	runner = srunner_create(load_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
