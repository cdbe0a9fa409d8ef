/*
 * How the daemon ends: with 0 and in time, whatever is going on, refusing what is new and finishing what was accepted;
 * at once when it is told twice; and in time even when a thread never comes back. Its memory goes with it here, and what
 * was acknowledged is in the averages of the next one nevertheless.
 *
 * EMAD_STOP_ROUNDS says how often it is ended under load (default 4). With 50 or more, the end that takes its full time
 * limit is tried too.
 */
#include "tests/integration/crew.h"
#include "tests/integration/harness.h"
#include "tests/integration/inspector.h"
#include "tests/integration/process.h"
#include "tests/integration/role.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	ROWS = 20000,
	TIMEOUT_MS = 20000,
	END_MAX_MS = 5000,        /* of the daemon, under load */
	HURRIED_END_MAX_MS = 4000,
	OVERDUE_END_MAX_MS = 40000, /* 20 s for what was accepted, 10 s for closing */
	FULL_ROUND_COUNT = 50,
};

static char configuration[96];
static struct harness harness;
static struct progress_page page;
static struct crew crew;
static struct inspector inspector;
static pid_t hanging; /* a thread of the daemon; 0: none */

#define OK(call)                                                                                                      \
	do {                                                                                                          \
		int code_ = (call);                                                                                   \
		ck_assert_msg(code_ == 0, "%s: %s: %s", #call, emad_code_name(code_), emad_error());                  \
	} while (0)

static int round_count(void)
{
	const char *given = getenv("EMAD_STOP_ROUNDS");

	return given ? (int)strtol(given, NULL, 10) : 4;
}

static void daemon_open(void)
{
	const char *arguments[] = {"--config", configuration, NULL};
	FILE *file;
	int fd;

	/* One worker, so that an update cannot go on without the one that hangs. */
	snprintf(configuration, sizeof(configuration), "/tmp/emad-stop-XXXXXX");
	fd = mkstemp(configuration);
	ck_assert_int_ge(fd, 0);
	file = fdopen(fd, "w");
	fputs("[daemon]\nworkers=1\n", file);
	fclose(file);
	harness_open(&harness, arguments);
	progress_open(&page, harness.directory);
}

static void daemon_close(void)
{
	/* A process is not gone before its hanging threads have been waited for. */
	if (hanging && harness.pid) {
		kill(harness.pid, SIGKILL);
		(void)process_thread_reap(hanging, TIMEOUT_MS);
	}
	hanging = 0;
	inspector_finish(&inspector);
	crew_finish(&crew);
	progress_close(&page);
	harness_close(&harness);
	unlink(configuration);
}

/* Waits for the end, which must be an orderly one. */
static void ends_with_0(int timeout_ms)
{
	int status = process_wait(harness.pid, timeout_ms * process_scale());

	harness.pid = 0;
	if (status != 0)
		harness_log_print(&harness);
	ck_assert_msg(status == 0, status == -1 ? "the daemon did not end in time" : "the daemon ended with status %#x",
	              (unsigned)status);
}

static bool log_has(const char *text)
{
	char line[1024];
	bool found = false;
	FILE *log = fopen(harness.log, "re");

	ck_assert_ptr_nonnull(log);
	while (!found && fgets(line, sizeof(line), log))
		found = strstr(line, text) != NULL;
	fclose(log);
	return found;
}

static void is_gone(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", harness.directory, name);
	ck_assert_msg(access(path, F_OK) != 0, "'%s' is left", path);
}

/* What is wrong with the averages, or NULL. The daemon's memory has gone with the one before. */
static const char *find_mistake(void)
{
	if (!inspector_meets(&inspector, harness.pid, TIMEOUT_MS))
		return "the daemon does not answer";
	if (!inspector_release(&inspector) || !inspector_check(&inspector, TIMEOUT_MS * process_scale()))
		return inspector.text;
	return crew_mistake(&crew);
}

/* Every trainer and reader has done a little more. */
static void load_goes_on(int round)
{
	uint64_t before[CREW_COUNT] = {0};

	for (int i = 0; i < CREW_COUNT; i++)
		if (crew.ledgers[i])
			before[i] = atomic_load(&crew.ledgers[i]->rounds);
	for (int i = 0; i < CREW_COUNT; i++) {
		const char *mistake = NULL;

		if (crew.ledgers[i] && !progress_reaches(&crew.ledgers[i]->rounds, before[i] + 3, TIMEOUT_MS))
			mistake = crew_mistake(&crew);
		else
			continue;
		harness_log_print(&harness);
		ck_abort_msg("round %d: member %d of the load does not go on: %s", round, i, mistake ? mistake : "");
	}
}

/*
 * The averages come back from checkpoints, and hold every push that was acknowledged, exactly: also those of steps that
 * only one of two ranks had pushed when the daemon was told to end.
 */
START_TEST(ends_with_0_under_load_every_time_and_loses_nothing)
{
	uint64_t seed = seed_take("ended daemons"), first = seed;
	long long slowest_ms = 0;
	const char *mistake;

	crew_start(&crew, harness.directory, harness.url, seed, CREW_TRAINERS | CREW_READERS);
	ck_assert(crew_begins(&crew, TIMEOUT_MS * process_scale()));
	ck_assert_int_eq(inspector_init(&inspector, &crew, harness.url), 0);
	for (int round = 0; round < round_count(); round++) {
		long long begun_ms;

		load_goes_on(round);
		inspector_hold(&inspector);
		process_sleep_ms((int)seed_next(&seed, 40));
		begun_ms = harness_now_ms();
		kill(harness.pid, SIGTERM);
		ends_with_0(END_MAX_MS);
		if (harness_now_ms() - begun_ms > slowest_ms)
			slowest_ms = harness_now_ms() - begun_ms;
		ck_assert(!log_has("not everything"));
		is_gone("emad.sock");
		is_gone("attach.sock");
		is_gone("emad.pid");
		harness_start(&harness);
		mistake = find_mistake();
		if (mistake)
			harness_log_print(&harness);
		ck_assert_msg(!mistake, "round %d, seed 0x%" PRIx64 ": %s", round, first, mistake);
	}
	printf("%d ends under load, the slowest in %lld ms; %" PRIu64 " versions compared\n", round_count(), slowest_ms,
	       inspector.compared_count);
	ck_assert(crew_stop(&crew, TIMEOUT_MS * process_scale()));
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* ---- with a step that one rank of two has pushed ----------------------------------------------------------------- */

enum { WORLD = 2, LINGER_MS = 1000 };

static struct emad_client *clients[WORLD];
static struct emad_trainer *trainers[WORLD];
static struct role_model shards[WORLD];

static void ranks_open(const char *model)
{
	for (uint32_t r = 0; r < WORLD; r++) {
		const struct emad_trainer_options options = {
			.profiles = role_profiles,
			.profile_count = ROLE_PROFILE_COUNT,
			.rank = r,
			.world = WORLD,
			.timeout_ms = TIMEOUT_MS,
		};

		role_model_init(&shards[r], 100, r, WORLD);
		OK(emad_client_open(harness.url, TIMEOUT_MS, &clients[r]));
		OK(emad_trainer_open(clients[r], model, shards[r].tensors, ROLE_TENSOR_COUNT, &options, &trainers[r]));
	}
}

static void ranks_close(void)
{
	for (uint32_t r = 0; r < WORLD; r++) {
		emad_trainer_close(trainers[r]);
		emad_client_close(clients[r]);
		role_model_finish(&shards[r]);
	}
}

static void rank_push(uint32_t rank, uint64_t step, const char *metadata)
{
	const struct emad_enclosure enclosure = {.metadata = metadata};
	struct emad_push_result result;

	role_model_fill(&shards[rank], step);
	OK(emad_enclose(trainers[rank], &enclosure));
	OK(emad_push(trainers[rank], step, shards[rank].data, 0, TIMEOUT_MS, &result));
	ck_assert_int_eq(result.outcome, EMAD_ACCEPTED);
}

/* Something that was pushed is not averaged yet. */
static void flush_waits(struct emad_trainer *trainer)
{
	int code = emad_flush(trainer, 0, NULL);

	ck_assert_msg(code == EMAD_ETIMEOUT, "a flush: %s: %s", emad_code_name(code), emad_error());
}

/* Rank 0 has pushed two steps more than rank 1, and the daemon has waited for those in vain. */
static void end_between_ranks(void)
{
	long long begun_ms;

	for (uint32_t r = 0; r < WORLD; r++)
		rank_push(r, 1, NULL);
	OK(emad_flush(trainers[0], TIMEOUT_MS, NULL));
	rank_push(0, 2, "{\"of\":2}");
	rank_push(0, 3, "{\"of\":3}");
	begun_ms = harness_now_ms();
	kill(harness.pid, SIGTERM);
	ends_with_0(END_MAX_MS);
	ck_assert_int_ge(harness_now_ms() - begun_ms, LINGER_MS);
	ck_assert(log_has("step 2 of rank 0 was accepted and is in no average yet: unless its memory is kept, its trainer"));
	ck_assert(log_has("step 3 of rank 0 was accepted and is in no average yet: unless its memory is kept, its trainer"));
}

static void holds_step(const char *model, uint64_t step)
{
	char metadata[24];

	for (int p = 0; p < ROLE_PROFILE_COUNT; p++) {
		struct emad_view_info info;
		struct emad_view *view;

		OK(emad_view_open(clients[0], model, p ? "mean" : "now", step, TIMEOUT_MS, &view));
		OK(emad_view_info(view, &info));
		ck_assert_uint_eq(info.step, step);
		ck_assert_uint_eq(info.updates, step - 1);
		ck_assert_int_eq(role_view_judge(view), 0);
		snprintf(metadata, sizeof(metadata), "{\"of\":%" PRIu64 "}", step);
		ck_assert_str_eq(emad_view_metadata(view, "emad.metadata"), metadata);
		emad_view_close(view);
	}
}

START_TEST(what_one_rank_had_pushed_is_there_again_when_it_flushes)
{
	struct emad_trainer_info info;

	ranks_open("sharded");
	end_between_ranks();
	harness_start(&harness);
	flush_waits(trainers[0]);
	rank_push(1, 2, NULL);
	rank_push(1, 3, NULL);
	OK(emad_flush(trainers[0], TIMEOUT_MS, NULL));
	holds_step("sharded", 3);
	OK(emad_trainer_info(trainers[0], &info));
	ck_assert_uint_eq(info.restart_count, 1);
	ck_assert_uint_eq(info.lost_count, 0);
	ranks_close();
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

START_TEST(and_before_its_next_push)
{
	struct emad_push_result result;

	ranks_open("sharded");
	end_between_ranks();
	harness_start(&harness);
	rank_push(1, 2, NULL);
	rank_push(1, 3, NULL);
	role_model_fill(&shards[0], 4);
	OK(emad_push(trainers[0], 4, shards[0].data, 0, TIMEOUT_MS, &result));
	ck_assert_int_eq(result.outcome, EMAD_ACCEPTED);
	holds_step("sharded", 3);
	/* What was pushed again counts as pushed. */
	OK(emad_push(trainers[0], 4, shards[0].data, 0, TIMEOUT_MS, &result));
	ck_assert_int_eq(result.outcome, EMAD_DUPLICATE);
	ranks_close();
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* A second end before the first of them is there again, and a third when some are. */
START_TEST(and_after_several_ends)
{
	ranks_open("sharded");
	end_between_ranks();
	harness_start(&harness);
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_start(&harness);
	flush_waits(trainers[0]);
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_start(&harness);
	rank_push(1, 2, NULL);
	flush_waits(trainers[0]);
	holds_step("sharded", 2);
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_start(&harness);
	rank_push(1, 3, NULL);
	OK(emad_flush(trainers[0], TIMEOUT_MS, NULL));
	holds_step("sharded", 3);
	ranks_close();
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* A model that somebody has removed starts with what is pushed then, not with what was removed. */
START_TEST(what_was_removed_is_not_pushed_again)
{
	struct emad_trainer_info info;

	ranks_open("sharded");
	for (uint32_t r = 0; r < WORLD; r++)
		rank_push(r, 1, NULL);
	OK(emad_flush(trainers[0], TIMEOUT_MS, NULL));
	rank_push(0, 2, NULL);
	OK(emad_remove(clients[0], "sharded", TIMEOUT_MS, NULL));
	for (uint32_t r = 0; r < WORLD; r++)
		rank_push(r, 3, "{\"of\":3}");
	OK(emad_flush(trainers[0], TIMEOUT_MS, NULL));
	OK(emad_trainer_info(trainers[0], &info));
	ck_assert_uint_eq(info.restart_count, 1);
	ck_assert_uint_eq(info.version, 0);
	ranks_close();
	ck_assert_int_eq(harness_stop(&harness), 0);
	ck_assert(!log_has("step 2 of rank 0 was dropped"));
}
END_TEST

/* ---- with an update that does not end ---------------------------------------------------------------------------- */

/* A trainer that waits for a push which the hanging worker has in hand. False where no thread can be made to hang. */
static bool hang(pid_t *ret_trainer)
{
	struct emad_client *client;
	bool waits = false;

	*ret_trainer = role_trainer_start(&page, 0, harness.url, "hangs", ROWS, 0, 1, 1, 0, ROLE_WAITS);
	ck_assert(progress_reaches(&page.all[0].applied, 3, TIMEOUT_MS));
	hanging = process_thread(harness.pid, "emad-worker-0");
	ck_assert_int_gt(hanging, 0);
	if (!process_thread_hang(hanging)) {
		hanging = 0;
		kill(*ret_trainer, SIGKILL);
		(void)process_wait(*ret_trainer, TIMEOUT_MS);
		return false;
	}
	OK(emad_client_open(harness.url, TIMEOUT_MS, &client));
	for (long long due_ms = harness_now_ms() + TIMEOUT_MS; !waits && harness_now_ms() < due_ms;
	     process_sleep_ms(2)) {
		char *json;

		OK(emad_status_json(client, TIMEOUT_MS, &json));
		waits = strstr(json, "\"waiting\":1") != NULL;
		emad_free(json);
	}
	emad_client_close(client);
	ck_assert(waits);
	return true;
}

START_TEST(finishes_what_was_accepted_and_refuses_what_is_new)
{
	struct emad_trainer *other;
	struct emad_client *client;
	struct role_model model;
	pid_t trainer;

	OK(emad_client_open(harness.url, TIMEOUT_MS, &client));
	role_model_init(&model, 10, 0, 1);
	if (hang(&trainer)) {
		uint64_t applied = page.all[0].applied;

		kill(harness.pid, SIGTERM);
		ck_assert_int_ge(harness_report_wait(&harness, "STOPPING=1", TIMEOUT_MS), 0);
		for (int i = 0; i < 3; i++)
			ck_assert_int_ge(harness_report_wait(&harness, "EXTEND_TIMEOUT_USEC=", TIMEOUT_MS), 0);
		ck_assert_int_eq(emad_trainer_open(client, "new", model.tensors, ROLE_TENSOR_COUNT, NULL, &other),
		                 EMAD_ESHUTDOWN);
		process_thread_release(hanging);
		hanging = 0;
		ends_with_0(END_MAX_MS);
		ck_assert_int_eq(process_wait(trainer, TIMEOUT_MS), 0);
		ck_assert_uint_eq(page.all[0].applied, applied + 1);
		ck_assert_uint_eq(page.all[0].errors, 1);
		ck_assert(!log_has("not everything"));
	} else {
		ck_assert_int_eq(harness_stop(&harness), 0);
	}
	role_model_finish(&model);
	emad_client_close(client);
}
END_TEST

START_TEST(a_second_signal_ends_it_at_once)
{
	pid_t trainer;
	long long begun_ms;

	if (!hang(&trainer))
		return;
	kill(harness.pid, SIGTERM);
	ck_assert_int_ge(harness_report_wait(&harness, "EXTEND_TIMEOUT_USEC=", TIMEOUT_MS), 0);
	begun_ms = harness_now_ms();
	kill(harness.pid, SIGTERM);
	ck_assert(process_thread_reap(hanging, HURRIED_END_MAX_MS * process_scale()));
	ends_with_0(HURRIED_END_MAX_MS);
	printf("a second signal ended it after %lld ms\n", harness_now_ms() - begun_ms);
	ck_assert_int_eq(process_wait(trainer, TIMEOUT_MS), 0);
	/* What it has left does no harm. */
	harness_start(&harness);
	ck_assert_int_eq(harness_stop(&harness), 0);
}
END_TEST

/* Nobody reads what it reports meanwhile, which must not stop it either. */
START_TEST(ends_in_time_with_a_thread_that_hangs)
{
	pid_t trainer;

	if (round_count() < FULL_ROUND_COUNT || !hang(&trainer))
		return;
	kill(harness.pid, SIGTERM);
	ck_assert(process_thread_reap(hanging, OVERDUE_END_MAX_MS));
	ends_with_0(END_MAX_MS);
	ck_assert(log_has("not everything that was accepted"));
	ck_assert_int_eq(process_wait(trainer, TIMEOUT_MS), 0);
}
END_TEST

static Suite *stop_suite(void)
{
	Suite *suite = suite_create("stop");
	TCase *cases = tcase_create("stop");

	tcase_add_checked_fixture(cases, daemon_open, daemon_close);
	tcase_add_test(cases, ends_with_0_under_load_every_time_and_loses_nothing);
	tcase_add_test(cases, what_one_rank_had_pushed_is_there_again_when_it_flushes);
	tcase_add_test(cases, and_before_its_next_push);
	tcase_add_test(cases, and_after_several_ends);
	tcase_add_test(cases, what_was_removed_is_not_pushed_again);
	tcase_add_test(cases, finishes_what_was_accepted_and_refuses_what_is_new);
	tcase_add_test(cases, a_second_signal_ends_it_at_once);
	tcase_add_test(cases, ends_in_time_with_a_thread_that_hangs);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--role") == 0)
		return role_main(argc, argv);
	if (argc > 1 && strcmp(argv[1], "--crew") == 0)
		return crew_main(argc, argv);
	runner = srunner_create(stop_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
