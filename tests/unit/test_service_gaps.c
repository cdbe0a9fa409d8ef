/*
 * Calls of the schedules that no snapshot came for, and snapshots that give way to newer ones: the average is the one
 * that the calls would have made, and everybody is told how many they were.
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
	host.settings.stage_count = 4;
	fake_host_start(&host);
	world = 1;
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

static void trainers_init(uint32_t count, const char *profile)
{
	world = count;
	for (uint32_t r = 0; r < count; r++) {
		fake_trainer_init(&trainers[r], &host, "net", fake_manifest(r, count));
		trainers[r].rank = r;
		trainers[r].world = count;
		trainers[r].profiles[0] = profile;
	}
}

/* One trainer, joined, whose first snapshot of value 8 has been averaged. */
static void started(const char *profile, uint64_t step)
{
	trainers_init(1, profile);
	fake_trainer_join(&trainers[0]);
	fake_trainer_fill(&trainers[0], 0, 8);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push(&trainers[0], step, 0, true), 0)->outcome,
	                 "started");
}

static const struct fake_reply *push(uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer;

	fake_trainer_fill(&trainers[0], 0, value);
	answer = fake_host_expect(&host, fake_trainer_push(&trainers[0], step, 0, true), 0);
	ck_assert_str_eq(answer->outcome, outcome);
	return answer;
}

static const struct slot_header *newest(void)
{
	const struct model *model = service_find(host.service, "net", 3);

	ck_assert_ptr_nonnull(model);
	return versions_newest(&model->versions);
}

/* ---- gaps -------------------------------------------------------------------------------------------------------- */

START_TEST(a_gap_counts_for_each_of_its_calls)
{
	const struct fake_reply *answer;

	started("ema=constant:decay=0.5,form=lerp", 10);
	answer = push(13, 0, "applied");
	ck_assert_uint_eq(answer->reply.calls, 3);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
	ck_assert_uint_eq(newest()->calls, 3);
	ck_assert_uint_eq(newest()->updates, 3);
	ck_assert_uint_eq(newest()->profiles[0].calls, 3);
	ck_assert_double_eq(newest()->profiles[0].decay, 0.125);
	ck_assert_uint_eq(counters()->calls_skipped, 2);
	answer = push(14, 0, "applied");
	ck_assert_uint_eq(answer->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 0.5F);
	ck_assert_uint_eq(counters()->calls_skipped, 2);
	ck_assert_uint_eq(counters()->pushes_applied, 3);
}
END_TEST

START_TEST(a_warmup_goes_on_through_a_gap)
{
	double decay = 1;

	started("ema=yolo:precision=f64", 1000);
	push(1001, 3, "applied");
	push(1041, 5, "applied");
	for (int n = 2; n <= 41; n++)
		decay *= 0.9999 * (1 - exp(-n / 2000.0));
	ck_assert_double_eq_tol(newest()->profiles[0].decay, decay, 1e-300);
	ck_assert_uint_eq(newest()->updates, 41);
}
END_TEST

START_TEST(a_stride_is_one_call)
{
	trainers_init(1, "ema=constant:decay=0.5");
	trainers[0].stride = 100;
	fake_trainer_join(&trainers[0]);
	push(500, 8, "started");
	ck_assert_uint_eq(push(600, 0, "applied")->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 4);
	ck_assert_uint_eq(push(800, 0, "applied")->reply.calls, 2);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
	/* Between two strides, as at the end of an epoch. */
	ck_assert_uint_eq(push(850, 0, "applied")->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 0.5F);
	ck_assert_uint_eq(counters()->calls_skipped, 1);
	ck_assert_uint_eq(newest()->updates, 4);
}
END_TEST

START_TEST(a_power_average_knows_the_step_before)
{
	const double exponent = schedule_power_exponent(0.05);
	const struct fake_reply *answer;

	started("ema=power", 10);
	/* Its first call copies. */
	answer = push(30, 16, "applied");
	ck_assert_double_eq(newest()->profiles[0].decay, 0);
	ck_assert_uint_eq(newest()->profiles[0].updates, 1);
	ck_assert_uint_eq(answer->reply.calls, 20);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 16);
	push(32, 0, "applied");
	ck_assert_double_eq_tol(newest()->profiles[0].decay, pow(30.0 / 32, exponent + 1), 1e-15);
	push(64, 0, "applied");
	ck_assert_double_eq_tol(newest()->profiles[0].decay, pow(32.0 / 64, exponent + 1), 1e-15);
	ck_assert_uint_eq(newest()->profiles[0].updates, 3);
}
END_TEST

START_TEST(the_largest_gap_is_a_million_calls)
{
	const struct fake_reply *answer;

	started("ema=constant", 10);
	fake_trainer_fill(&trainers[0], 0, 0);
	answer = fake_host_expect(&host, fake_trainer_push(&trainers[0], 10 + GAP_CALL_COUNT_MAX + 1, 0, true),
	                          STATUS_EARGUMENT);
	ck_assert_msg(strstr(answer->error, "1048577 calls of schedule 'constant'") &&
	                      strstr(answer->error, "may have 1048576") && strstr(answer->error, "stride") &&
	                      strstr(answer->error, "rewind=continue"),
	              "%s", answer->error);
	ck_assert_uint_eq(newest()->step, 10);
	ck_assert_uint_eq(push(10 + GAP_CALL_COUNT_MAX, 0, "applied")->reply.calls, GAP_CALL_COUNT_MAX);
	ck_assert_uint_eq(newest()->updates, GAP_CALL_COUNT_MAX);
}
END_TEST

START_TEST(schedules_that_span_steps_may_leave_any_out)
{
	const uint64_t far = UINT64_C(1) << 40;

	started(_i ? "ema=edm:halflife=1000" : "ema=power", 10);
	push(10 + far, 0, "applied");
	ck_assert_uint_eq(newest()->updates, 1);
	ck_assert_uint_eq(newest()->step, 10 + far);
}
END_TEST

START_TEST(one_profile_that_counts_calls_is_enough_to_refuse_a_gap)
{
	trainers_init(1, "wide=power");
	trainers[0].profiles[1] = "ema=yolo";
	trainers[0].profile_count = 2;
	fake_trainer_join(&trainers[0]);
	push(10, 8, "started");
	ck_assert_ptr_nonnull(
		strstr(fake_host_expect(&host, fake_trainer_push(&trainers[0], UINT64_C(1) << 40, 0, true),
	                                STATUS_EARGUMENT)
	                       ->error,
	               "'yolo'"));
}
END_TEST

START_TEST(a_refused_snapshot_leaves_its_call_to_the_next)
{
	const struct fake_reply *answer;

	started("ema=constant:decay=0.5", 10);
	push(11, NAN, "nonfinite");
	answer = push(12, 0, "applied");
	ck_assert_uint_eq(answer->reply.calls, 2);
	ck_assert_uint_eq(answer->reply.refused, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
	ck_assert_uint_eq(counters()->calls_skipped, 1);
}
END_TEST

/* ---- giving way -------------------------------------------------------------------------------------------------- */

/* Trainers whose first snapshots are averaged; from now on updates are done when the test says so. */
static void lagging(uint32_t count, const char *profile)
{
	trainers_init(count, profile);
	for (uint32_t r = 0; r < count; r++) {
		trainers[r].policy = "coalesce";
		fake_trainer_join(&trainers[r]);
	}
	for (uint32_t r = 0; r < count; r++) {
		fake_trainer_fill(&trainers[r], 0, 8);
		fake_trainer_push(&trainers[r], 10, 0, false);
	}
	host.prompt = false;
}

/* Sends a push that waits for its end. */
static uint64_t send(uint32_t rank, uint64_t step, uint32_t stage, float value)
{
	fake_trainer_fill(&trainers[rank], stage, value);
	return fake_trainer_push(&trainers[rank], step, stage, true);
}

START_TEST(the_newest_of_several_that_wait_is_applied_alone)
{
	const struct fake_reply *answer;
	uint64_t numbers[4];

	lagging(1, "ema=constant:decay=0.5");
	for (uint32_t i = 0; i < 4; i++)
		numbers[i] = send(0, 11 + i, i, (float)i * 100);
	ck_assert_uint_eq(host.apply_count, 1);
	fake_host_settle(&host);
	ck_assert_str_eq(fake_host_expect(&host, numbers[0], 0)->outcome, "applied");
	ck_assert_str_eq(fake_host_expect(&host, numbers[1], 0)->outcome, "coalesced");
	ck_assert_str_eq(fake_host_expect(&host, numbers[2], 0)->outcome, "coalesced");
	answer = fake_host_expect(&host, numbers[3], 0);
	ck_assert_str_eq(answer->outcome, "applied");
	ck_assert_uint_eq(answer->reply.calls, 3);
	ck_assert_uint_eq(answer->reply.coalesced, 2);
	ck_assert_uint_eq(answer->reply.refused, 0);
	/* 8 -> 4, then three calls towards 300. */
	ck_assert_float_eq(fake_average(&host, "net", NULL), 4 * 0.125F + 300 * 0.875F);
	ck_assert_uint_eq(newest()->updates, 4);
	ck_assert_uint_eq(counters()->pushes_accepted, 5);
	ck_assert_uint_eq(counters()->pushes_applied, 3);
	ck_assert_uint_eq(counters()->pushes_coalesced, 2);
	ck_assert_uint_eq(counters()->calls_skipped, 0);
}
END_TEST

START_TEST(a_gap_beside_what_gave_way_is_counted_apart)
{
	uint64_t numbers[3];

	lagging(1, "ema=constant:decay=0.5");
	numbers[0] = send(0, 11, 0, 0);
	numbers[1] = send(0, 12, 1, 0);
	numbers[2] = send(0, 15, 2, 0);
	fake_host_settle(&host);
	ck_assert_uint_eq(fake_host_expect(&host, numbers[2], 0)->reply.calls, 4);
	ck_assert_uint_eq(counters()->pushes_coalesced, 1);
	ck_assert_uint_eq(counters()->calls_skipped, 2);
}
END_TEST

START_TEST(without_the_policy_every_snapshot_is_applied)
{
	uint64_t numbers[4];

	lagging(1, "ema=constant:decay=0.5");
	trainers[0].policy = NULL;
	host.prompt = true;
	fake_trainer_join(&trainers[0]);
	host.prompt = false;
	for (uint32_t i = 0; i < 4; i++)
		numbers[i] = send(0, 11 + i, i, 0);
	fake_host_settle(&host);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_str_eq(fake_host_expect(&host, numbers[i], 0)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 0.5F);
}
END_TEST

START_TEST(ranks_give_way_together)
{
	uint64_t numbers[2][4];

	lagging(2, "ema=constant:decay=0.5");
	/* The second rank is behind by one. */
	for (uint32_t i = 0; i < 4; i++)
		for (uint32_t r = 0; r < 2; r++)
			if (r == 0 || i < 3)
				numbers[r][i] = send(r, 11 + i, i, (float)i * 100);
	fake_host_apply(&host);
	fake_host_apply(&host);
	for (uint32_t r = 0; r < 2; r++) {
		ck_assert_str_eq(fake_host_expect(&host, numbers[r][0], 0)->outcome, "applied");
		ck_assert_str_eq(fake_host_expect(&host, numbers[r][1], 0)->outcome, "coalesced");
		ck_assert_str_eq(fake_host_expect(&host, numbers[r][2], 0)->outcome, "applied");
		ck_assert_uint_eq(fake_host_expect(&host, numbers[r][2], 0)->reply.calls, 2);
		ck_assert_uint_eq(fake_host_expect(&host, numbers[r][2], 0)->reply.coalesced, 1);
	}
	ck_assert_float_eq(fake_average(&host, "net", NULL), 151);
	ck_assert_ptr_null(fake_host_answer(&host, numbers[0][3]));
	numbers[1][3] = send(1, 14, 3, 151);
	fake_trainer_fill(&trainers[0], 3, 151);
	fake_host_settle(&host);
	ck_assert_uint_eq(fake_host_expect(&host, numbers[1][3], 0)->reply.calls, 1);
	ck_assert_uint_eq(newest()->updates, 4);
	ck_assert_uint_eq(counters()->calls_skipped, 0);
	ck_assert_uint_eq(counters()->pushes_coalesced, 2);
	ck_assert_uint_eq(counters()->pushes_incomplete, 0);
}
END_TEST

START_TEST(a_trainer_without_a_free_stage_gets_the_oldest_that_waits)
{
	uint64_t numbers[4], reserve;
	const struct fake_reply *answer;

	lagging(1, "ema=constant:decay=0.5");
	for (uint32_t i = 0; i < 4; i++)
		numbers[i] = send(0, 11 + i, i, 0);
	reserve = fake_trainer_reserve(&trainers[0], 1000);
	ck_assert_uint_eq(fake_host_expect(&host, reserve, 0)->reply.stage, 1);
	/* Who waits for it is told at once, not when the update ends. */
	ck_assert_str_eq(fake_host_expect(&host, numbers[1], 0)->outcome, "coalesced");
	numbers[1] = send(0, 15, 1, 0);
	fake_host_settle(&host);
	answer = fake_host_expect(&host, numbers[1], 0);
	ck_assert_str_eq(answer->outcome, "applied");
	ck_assert_uint_eq(answer->reply.calls, 4);
	ck_assert_uint_eq(answer->reply.coalesced, 3);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 0.25F);
	ck_assert_uint_eq(counters()->calls_skipped, 0);
}
END_TEST

START_TEST(a_step_that_one_rank_lets_go_is_refused_to_no_other)
{
	uint64_t numbers[2][5];

	lagging(2, "ema=constant:decay=0.5");
	for (uint32_t i = 0; i < 4; i++)
		numbers[0][i] = send(0, 11 + i, i, 0);
	/* All stages of the first rank wait: step 11 gives way, which the second rank pushes only now. */
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_reserve(&trainers[0], 1000), 0)->reply.stage, 0);
	numbers[0][4] = send(0, 15, 0, 0);
	for (uint32_t i = 0; i < 4; i++)
		numbers[1][i] = send(1, 11 + i, i, 0);
	fake_host_settle(&host);
	for (uint32_t r = 0; r < 2; r++)
		ck_assert_str_eq(fake_host_expect(&host, numbers[r][0], 0)->outcome, "coalesced");
	numbers[1][4] = send(1, 15, 0, 0);
	fake_host_settle(&host);
	for (uint32_t r = 0; r < 2; r++)
		ck_assert_str_eq(fake_host_expect(&host, numbers[r][4], 0)->outcome, "applied");
	ck_assert_uint_eq(newest()->updates, 5);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 0.25F);
	ck_assert_uint_eq(counters()->pushes_incomplete, 0);
	ck_assert_uint_eq(counters()->calls_skipped, 0);
}
END_TEST

START_TEST(what_waits_for_a_stage_under_block_waits)
{
	uint64_t reserve;

	lagging(1, "ema=constant");
	trainers[0].policy = "block";
	host.prompt = true;
	fake_trainer_join(&trainers[0]);
	host.prompt = false;
	for (uint32_t i = 0; i < 4; i++)
		send(0, 11 + i, i, 0);
	reserve = fake_trainer_reserve(&trainers[0], 1000);
	ck_assert_ptr_null(fake_host_answer(&host, reserve));
	fake_host_apply(&host);
	ck_assert_uint_eq(fake_host_expect(&host, reserve, 0)->reply.stage, 0);
	ck_assert_uint_eq(counters()->pushes_coalesced, 0);
}
END_TEST

START_TEST(an_average_that_is_pushed_never_gives_way)
{
	const struct fake_push seed = { .step = 12, .stage = 1, .waits = true, .profile = "ema", .updates = 500 };
	uint64_t numbers[5];

	lagging(1, "ema=constant:decay=0.5");
	numbers[0] = send(0, 11, 0, 0);
	fake_trainer_fill(&trainers[0], 1, 64);
	numbers[1] = fake_trainer_push_with(&trainers[0], &seed);
	numbers[2] = send(0, 13, 2, 0);
	numbers[3] = send(0, 14, 3, 0);
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_reserve(&trainers[0], 1000), 0)->reply.stage, 2);
	numbers[4] = send(0, 15, 2, 0);
	fake_host_settle(&host);
	ck_assert_str_eq(fake_host_expect(&host, numbers[1], 0)->outcome, "applied");
	ck_assert_uint_eq(fake_host_expect(&host, numbers[1], 0)->reply.calls, 1);
	ck_assert_str_eq(fake_host_expect(&host, numbers[2], 0)->outcome, "coalesced");
	ck_assert_str_eq(fake_host_expect(&host, numbers[3], 0)->outcome, "coalesced");
	ck_assert_uint_eq(fake_host_expect(&host, numbers[4], 0)->reply.calls, 3);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 8);
	ck_assert_uint_eq(newest()->updates, 503);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_gaps");
	TCase *gaps = tcase_create("gaps"), *coalescing = tcase_create("coalescing");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(gaps, setup, teardown);
	tcase_add_test(gaps, a_gap_counts_for_each_of_its_calls);
	tcase_add_test(gaps, a_warmup_goes_on_through_a_gap);
	tcase_add_test(gaps, a_stride_is_one_call);
	tcase_add_test(gaps, a_power_average_knows_the_step_before);
	tcase_add_test(gaps, the_largest_gap_is_a_million_calls);
	tcase_add_loop_test(gaps, schedules_that_span_steps_may_leave_any_out, 0, 2);
	tcase_add_test(gaps, one_profile_that_counts_calls_is_enough_to_refuse_a_gap);
	tcase_add_test(gaps, a_refused_snapshot_leaves_its_call_to_the_next);
	suite_add_tcase(suite, gaps);
	tcase_add_checked_fixture(coalescing, setup, teardown);
	tcase_add_test(coalescing, the_newest_of_several_that_wait_is_applied_alone);
	tcase_add_test(coalescing, a_gap_beside_what_gave_way_is_counted_apart);
	tcase_add_test(coalescing, without_the_policy_every_snapshot_is_applied);
	tcase_add_test(coalescing, ranks_give_way_together);
	tcase_add_test(coalescing, a_trainer_without_a_free_stage_gets_the_oldest_that_waits);
	tcase_add_test(coalescing, a_step_that_one_rank_lets_go_is_refused_to_no_other);
	tcase_add_test(coalescing, what_waits_for_a_stage_under_block_waits);
	tcase_add_test(coalescing, an_average_that_is_pushed_never_gives_way);
	suite_add_tcase(suite, coalescing);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
