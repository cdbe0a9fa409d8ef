/*
 * Trainers that begin again at a step that is averaged already: nothing happens, the average stays and goes on, or it
 * goes back to a version that is kept.
 */
#include "tests/unit/fake_host.h"

#include "daemon/core/call.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;
static struct fake_trainer trainers[2];
static uint32_t world;

static void setup(void)
{
	fake_host_init(&host);
	host.settings.slot_count = 4;
	fake_host_start(&host);
}

static void teardown(void)
{
	for (uint32_t r = 0; r < world; r++)
		fake_trainer_finish(&trainers[r]);
	fake_host_finish(&host);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

static struct model *net(void)
{
	return service_find(host.service, "net", 3);
}

static const struct slot_header *newest(void)
{
	return versions_newest(&net()->versions);
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

static const struct fake_reply *push(uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer = NULL;

	for (uint32_t r = 0; r < world; r++) {
		uint64_t number;

		fake_trainer_fill(&trainers[r], 0, value);
		number = fake_trainer_push(&trainers[r], step, 0, r + 1 == world);
		if (r + 1 == world) {
			answer = fake_host_expect(&host, number, 0);
			ck_assert_msg(strcmp(answer->outcome, outcome) == 0, "%s, not %s: %s", answer->outcome, outcome,
			              answer->refusal);
		}
	}
	return answer;
}

/* Ranks that are joined; versions of steps 10 to 13: 16, 8, 4, 2. */
static void averaged(uint32_t count)
{
	world = count;
	for (uint32_t r = 0; r < count; r++) {
		fake_trainer_init(&trainers[r], &host, "net", fake_manifest(r, count));
		trainers[r].rank = r;
		trainers[r].world = count;
		trainers[r].profiles[0] = "ema=constant:decay=0.5";
	}
	for (uint32_t r = 0; r < count; r++)
		fake_trainer_join(&trainers[r]);
	push(10, 16, "started");
	for (uint64_t step = 11; step < 14; step++)
		push(step, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
}

static uint64_t again(uint32_t rank, uint64_t start_step, const char *rewind)
{
	uint64_t number;

	trainers[rank].start_step = &start_step;
	trainers[rank].rewind = rewind;
	number = fake_trainer_register(&trainers[rank]);
	trainers[rank].start_step = NULL;
	trainers[rank].rewind = NULL;
	return number;
}

static void rejoin(uint64_t start_step, const char *rewind)
{
	for (uint32_t r = 0; r < world; r++) {
		fake_trainer_registered(&trainers[r], again(r, start_step, rewind));
		fake_trainer_attached(&trainers[r], fake_trainer_attach(&trainers[r]));
	}
}

static char *history(void)
{
	const struct fake_reply *view = fake_host_expect(&host, fake_view(&host, 900, "net", NULL, 0, 0), 0);
	char *text = fake_metadata(&host, view, "emad.history");

	fake_host_gone(&host, 900);
	return text;
}

/* ---- refuse ------------------------------------------------------------------------------------------------------ */

START_TEST(without_a_word_older_steps_are_stale)
{
	averaged(1);
	rejoin(12, _i ? "refuse" : NULL);
	host.event_count = 0;
	push(11, 100, "stale");
	ck_assert_uint_eq(host.event_count, 1);
	says(host.event, "net: step 11 of rank 0 is behind step 13, which is averaged: nothing changes until");
	push(12, 100, "stale");
	push(13, 100, "duplicate");
	ck_assert_uint_eq(host.event_count, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
	ck_assert_uint_eq(counters()->rewinds, 0);
	push(14, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
	ck_assert_ptr_null(history());
}
END_TEST

START_TEST(a_step_that_is_not_averaged_yet_is_no_rewind)
{
	averaged(1);
	rejoin(14, _i ? "back" : "continue");
	ck_assert_uint_eq(counters()->rewinds, 0);
	ck_assert_uint_eq(push(14, 0, "applied")->reply.calls, 1);
	ck_assert_ptr_null(history());
}
END_TEST

/* ---- continue ---------------------------------------------------------------------------------------------------- */

START_TEST(an_average_that_stays_goes_on_with_the_older_steps)
{
	const struct fake_reply *answer;
	char *text;

	averaged(1 + (uint32_t)_i);
	rejoin(11, "continue");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
	ck_assert_uint_eq(counters()->rewinds, 1);
	says(host.event, "registered as epoch");
	answer = push(11, 0, "applied");
	ck_assert_uint_eq(answer->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
	ck_assert_uint_eq(newest()->step, 11);
	ck_assert_uint_eq(newest()->updates, 4);
	text = history();
	ck_assert_str_eq(text, "[{\"step\":11,\"updates\":3,\"change\":\"continued\",\"from\":\"step 13\"}]");
	free(text);
	push(12, 0, "applied");
	push(12, 0, "duplicate");
	push(11, 0, "stale");
}
END_TEST

START_TEST(going_on_from_the_very_beginning_is_possible)
{
	averaged(1);
	rejoin(0, "continue");
	ck_assert_uint_eq(push(0, 0, "applied")->reply.calls, 1);
	ck_assert_uint_eq(newest()->updates, 4);
	ck_assert_uint_eq(push(1, 0, "applied")->reply.calls, 1);
	/* And it is no new model for whoever wants one. */
	trainers[0].resume = "never";
	fake_trainer_join(&trainers[0]);
	ck_assert_ptr_null(newest());
}
END_TEST

START_TEST(the_first_call_is_a_stride_behind)
{
	averaged(1);
	trainers[0].stride = 4;
	trainers[0].profiles[0] = "ema=power";
	trainers[0].resume = "adapt";
	rejoin(12, "continue");
	ck_assert_uint_eq(push(12, 1, "applied")->reply.calls, 1);
	ck_assert_double_eq_tol(newest()->profiles[0].decay, pow(8.0 / 12, schedule_power_exponent(0.05) + 1), 1e-15);
}
END_TEST

/* ---- back -------------------------------------------------------------------------------------------------------- */

START_TEST(an_average_goes_back_to_the_version_before)
{
	char *text;

	averaged(1 + (uint32_t)_i);
	rejoin(12, "back");
	ck_assert_uint_eq(newest()->step, 11);
	ck_assert_uint_eq(newest()->version, 5);
	ck_assert_uint_eq(newest()->updates, 1);
	ck_assert_uint_eq(newest()->checksum, slot_header_checksum(newest()));
	ck_assert_float_eq(fake_average(&host, "net", NULL), 8);
	ck_assert_uint_eq(counters()->rewinds, 1);
	text = history();
	ck_assert_str_eq(text, "[{\"step\":11,\"updates\":1,\"change\":\"rewound\",\"from\":\"step 13\"}]");
	free(text);
	ck_assert_uint_eq(push(12, 100, "applied")->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 54);
	ck_assert_uint_eq(newest()->updates, 2);
	text = history();
	ck_assert_ptr_nonnull(strstr(text, "rewound"));
	free(text);
}
END_TEST

START_TEST(going_back_again_never_finds_what_was_left)
{
	averaged(1);
	rejoin(12, "back");
	push(12, 100, "applied");
	/* Step 12 of before is kept too, and older. */
	rejoin(13, "back");
	ck_assert_uint_eq(counters()->rewinds, 1);
	push(13, 0, "applied");
	rejoin(13, "back");
	ck_assert_uint_eq(counters()->rewinds, 2);
	ck_assert_uint_eq(newest()->step, 12);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 54);
}
END_TEST

START_TEST(a_version_that_is_not_kept_is_not_gone_back_to)
{
	const struct fake_reply *answer;

	averaged(1);
	answer = fake_host_expect(&host, again(0, 10, "back"), STATUS_ENOVERSION);
	says(answer->error, "keeps no version of step 9 or earlier: the oldest of its 4 slots holds step 10; "
	                    "rewind=continue goes on from step 13");
	says(fake_host_expect(&host, again(0, 0, "back"), STATUS_ENOVERSION)->error, "resume=never starts anew");
	ck_assert_uint_eq(counters()->rewinds, 0);
	/* Whoever holds the rank goes on. */
	push(14, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
}
END_TEST

START_TEST(who_reads_the_version_that_is_gone_back_to_is_told)
{
	const struct fake_reply *view;
	const struct slot_header *slot, *other;
	uint64_t fence, other_fence;

	averaged(1);
	rejoin(12, "back");
	view = fake_host_expect(&host, fake_view(&host, 51, "net", NULL, 0, 0), 0);
	slot = (const void *)fake_host_map(&host, view->fd);
	fence = view->reply.fence;
	push(12, 0, "applied");
	view = fake_host_expect(&host, fake_view(&host, 52, "net", NULL, 0, 0), 0);
	other = (const void *)fake_host_map(&host, view->fd);
	other_fence = view->reply.fence;
	push(13, 0, "applied");
	ck_assert_uint_eq(slot->fence, fence);
	rejoin(12, "back");
	ck_assert_uint_ne(slot->fence, fence);
	ck_assert_uint_eq(other->fence, other_fence);
	ck_assert_uint_eq(counters()->leases_revoked, 1);
	ck_assert_uint_eq(net()->versions.lease_count, 1);
	ck_assert_uint_eq(fake_host_expect(&host, fake_view(&host, 51, "net", NULL, 0, 0), 0)->reply.step, 11);
}
END_TEST

START_TEST(metadata_of_the_version_is_not_that_of_the_newest)
{
	const struct fake_push push_12 = { .step = 14, .waits = true, .metadata = "{\"epoch\": 3}" };

	averaged(1);
	fake_trainer_push_with(&trainers[0], &push_12);
	says(fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0)->body, "\"metadata\":{\"epoch\":3}");
	rejoin(13, "back");
	says(fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0)->body, "\"metadata\":null");
}
END_TEST

/* ---- several ranks ----------------------------------------------------------------------------------------------- */

START_TEST(what_other_ranks_had_ready_is_not_in_the_way)
{
	uint64_t number;

	averaged(2);
	/* The second rank is a step ahead when all begin again. */
	fake_trainer_push(&trainers[1], 14, 1, false);
	fake_trainer_registered(&trainers[0], again(0, 12, _i ? "continue" : "back"));
	fake_trainer_attached(&trainers[0], fake_trainer_attach(&trainers[0]));
	fake_trainer_fill(&trainers[0], 0, 0);
	number = fake_trainer_push(&trainers[0], 12, 0, true);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_trainer_registered(&trainers[1], again(1, 12, _i ? "continue" : "back"));
	fake_trainer_attached(&trainers[1], fake_trainer_attach(&trainers[1]));
	fake_trainer_fill(&trainers[1], 0, 0);
	fake_trainer_push(&trainers[1], 12, 0, false);
	ck_assert_str_eq(fake_host_expect(&host, number, 0)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), _i ? 1 : 4);
	ck_assert_uint_eq(counters()->rewinds, 1);
	ck_assert_uint_eq(counters()->pushes_incomplete, 1);
}
END_TEST

START_TEST(a_rewind_that_fails_leaves_the_other_trainers_pieces_alone)
{
	averaged(2);
	fake_host_expect(&host, again(0, 10, "back"), STATUS_ENOVERSION);
	push(14, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
}
END_TEST

START_TEST(an_update_that_runs_is_waited_for)
{
	uint64_t number;

	averaged(1);
	host.prompt = false;
	fake_trainer_fill(&trainers[0], 0, 0);
	fake_trainer_push(&trainers[0], 14, 0, false);
	number = again(0, 13, "back");
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_settle(&host);
	fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(newest()->step, 12);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 4);
}
END_TEST

START_TEST(words_that_are_not_known_are_refused)
{
	averaged(1);
	says(fake_host_expect(&host, again(0, 12, "forward"), STATUS_EARGUMENT)->error,
	     "rewind must be refuse, continue or back");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_rewind");
	TCase *tcase = tcase_create("rewind");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, without_a_word_older_steps_are_stale, 0, 2);
	tcase_add_loop_test(tcase, a_step_that_is_not_averaged_yet_is_no_rewind, 0, 2);
	tcase_add_loop_test(tcase, an_average_that_stays_goes_on_with_the_older_steps, 0, 2);
	tcase_add_test(tcase, going_on_from_the_very_beginning_is_possible);
	tcase_add_test(tcase, the_first_call_is_a_stride_behind);
	tcase_add_loop_test(tcase, an_average_goes_back_to_the_version_before, 0, 2);
	tcase_add_test(tcase, going_back_again_never_finds_what_was_left);
	tcase_add_test(tcase, a_version_that_is_not_kept_is_not_gone_back_to);
	tcase_add_test(tcase, who_reads_the_version_that_is_gone_back_to_is_told);
	tcase_add_test(tcase, metadata_of_the_version_is_not_that_of_the_newest);
	tcase_add_loop_test(tcase, what_other_ranks_had_ready_is_not_in_the_way, 0, 2);
	tcase_add_test(tcase, a_rewind_that_fails_leaves_the_other_trainers_pieces_alone);
	tcase_add_test(tcase, an_update_that_runs_is_waited_for);
	tcase_add_test(tcase, words_that_are_not_known_are_refused);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
