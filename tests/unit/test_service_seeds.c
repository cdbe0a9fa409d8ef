/*
 * Snapshots that are an average themselves: one profile takes it as it is, with its counter, and the others stay.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

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
	fake_host_start(&host);
	world = 0;
}

static void teardown(void)
{
	for (uint32_t r = 0; r < world; r++)
		fake_trainer_finish(&trainers[r]);
	fake_host_finish(&host);
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

static const struct slot_header *newest(void)
{
	return versions_newest(&service_find(host.service, "net", 3)->versions);
}

static void joined(uint32_t count, const char *first, const char *second)
{
	world = count;
	for (uint32_t r = 0; r < count; r++) {
		fake_trainer_init(&trainers[r], &host, "net", fake_manifest(r, count));
		trainers[r].rank = r;
		trainers[r].world = count;
		trainers[r].profiles[0] = first;
		trainers[r].profiles[1] = second;
		trainers[r].profile_count = second ? 2 : 1;
		fake_trainer_join(&trainers[r]);
	}
}

/* Pushes from every rank; the last one's answer. profile: what is seeded, NULL for an ordinary snapshot. */
static const struct fake_reply *push(uint64_t step, float value, const char *profile, uint64_t updates)
{
	uint64_t number = 0;

	for (uint32_t r = 0; r < world; r++) {
		const struct fake_push what = { .step = step, .waits = true, .profile = profile, .updates = updates };

		fake_trainer_fill(&trainers[r], 0, value);
		number = fake_trainer_push_with(&trainers[r], &what);
	}
	return fake_host_expect(&host, number, 0);
}

START_TEST(one_profile_takes_it_and_the_others_stay)
{
	const struct fake_reply *answer;
	const struct fake_reply *view;
	char *text;

	joined(1 + (uint32_t)_i, "ema=constant:decay=0.5", "slow=constant:decay=0.75");
	push(10, 16, NULL, 0);
	push(11, 0, NULL, 0);
	answer = push(12, 100, "slow", 5000);
	ck_assert_str_eq(answer->outcome, "applied");
	ck_assert_uint_eq(answer->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 100);
	ck_assert_uint_eq(newest()->profiles[0].updates, 1);
	ck_assert_uint_eq(newest()->profiles[1].updates, 5000);
	ck_assert_uint_eq(newest()->step, 12);
	view = fake_host_expect(&host, fake_view(&host, 901, "net", "slow", 0, 0), 0);
	text = fake_metadata(&host, view, "emad.history");
	ck_assert_str_eq(text, "[{\"step\":12,\"updates\":5000,\"change\":\"seeded\"}]");
	free(text);
	fake_host_gone(&host, 901);
	answer = push(13, 0, NULL, 0);
	ck_assert_uint_eq(answer->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 75);
	ck_assert_uint_eq(newest()->profiles[1].updates, 5001);
	ck_assert_uint_eq(service_counters(host.service)->calls_skipped, 0);
}
END_TEST

START_TEST(a_model_can_start_with_it)
{
	joined(1, "ema=yolo", "slow=constant:decay=0.75");
	ck_assert_str_eq(push(70000, 100, "ema", 20000)->outcome, "started");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 100);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 100);
	ck_assert_uint_eq(newest()->profiles[0].updates, 20000);
	ck_assert_uint_eq(newest()->profiles[1].updates, 0);
	push(70001, 0, NULL, 0);
	/* The warm-up goes on where it was. */
	ck_assert_double_eq(newest()->profiles[0].decay, 0.9999 * (1 - exp(-20001 / 2000.0)));
	ck_assert_uint_eq(newest()->profiles[0].updates, 20001);
}
END_TEST

START_TEST(each_profile_may_be_given_its_own)
{
	joined(1, "ema=constant:decay=0.5", "slow=constant:decay=0.75");
	push(10, 1, "ema", 3);
	/* The same step again, for the other profile. */
	ck_assert_str_eq(push(10, 2, "slow", 4)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 1);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 2);
	ck_assert_uint_eq(newest()->profiles[0].updates, 3);
	ck_assert_uint_eq(newest()->profiles[1].updates, 4);
	ck_assert_uint_eq(push(11, 0, NULL, 0)->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 0.5F);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 1.5F);
}
END_TEST

START_TEST(its_step_may_be_older_or_far_ahead)
{
	joined(1, "ema=constant:decay=0.5", NULL);
	push(1000, 1, NULL, 0);
	ck_assert_str_eq(push(500, 8, "ema", 400)->outcome, "applied");
	/* The other averages have not gone back: it counts as of the newest step. */
	ck_assert_uint_eq(newest()->step, 1000);
	ck_assert_uint_eq(push(1001, 0, NULL, 0)->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
	/* No schedule is called for it, so that no gap is too wide. */
	ck_assert_uint_eq(push(UINT64_C(1) << 50, 8, "ema", 400)->reply.calls, 1);
	ck_assert_uint_eq(push((UINT64_C(1) << 50) + 1, 0, NULL, 0)->reply.calls, 1);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
	ck_assert_uint_eq(newest()->updates, 401);
}
END_TEST

START_TEST(an_average_that_is_debiased_goes_on_with_its_weight)
{
	joined(1, "ema=optax:decay=0.5", NULL);
	push(100, 8, "ema", 3);
	push(101, 0, NULL, 0);
	/* 8 is the average divided by 1 - 0.5^3; then 0.5 * that * 8 / (1 - 0.5^4). */
	ck_assert_float_eq_tol(fake_average(&host, "net", "ema"), 0.5F * 0.875F * 8 / 0.9375F, 1e-6F);
	ck_assert_uint_eq(newest()->updates, 4);
}
END_TEST

START_TEST(entries_that_are_not_averaged_take_its_values)
{
	joined(1, "ema=constant:decay=0.5;freeze=w", "other=constant;copy=w");
	push(10, 1, NULL, 0);
	push(11, 2, NULL, 0);
	push(12, 3, "ema", 7);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 3);
	ck_assert_float_eq(fake_average(&host, "net", "other"), 2);
}
END_TEST

START_TEST(what_makes_no_sense_is_refused)
{
	struct request request = { .operation = OP_PUSH };

	joined(1, "ema=constant:decay=0.5", NULL);
	push(10, 1, NULL, 0);
	for (int i = 0; i < 2; i++) {
		const struct fake_push what = { .step = 11, .profile = i ? "e/ma" : "emma", .updates = 3 };

		says(fake_host_expect(&host, fake_trainer_push_with(&trainers[0], &what),
		                      i ? STATUS_ENAME : STATUS_ENOPROFILE)
		             ->error,
		     i ? "name" : "has no profile 'emma'");
	}
	request_set(&request, model, text_of("net"));
	request_set(&request, rank, 0);
	request_set(&request, epoch, trainers[0].epoch);
	request_set(&request, client, trainers[0].client);
	request_set(&request, sequence, ++trainers[0].sequence);
	request_set(&request, step, 11);
	request_set(&request, stage, 0);
	request_set(&request, updates, 5);
	says(fake_host_expect(&host, fake_host_ask(&host, 2000, &request, NULL, 0), STATUS_EARGUMENT)->error,
	     "name the profile");
	ck_assert_str_eq(push(11, 3, NULL, 0)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
}
END_TEST

START_TEST(ranks_that_contradict_one_another_are_refused)
{
	const struct fake_push pushes[2] = {
		{ .step = 11, .waits = true, .profile = _i == 0 ? NULL : "ema", .updates = 5 },
		{ .step = 11, .waits = true, .profile = _i == 1 ? NULL : "slow", .updates = 5 },
	};
	uint64_t numbers[2];

	joined(2, "ema=constant:decay=0.5", "slow=constant:decay=0.75");
	push(10, 16, NULL, 0);
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_fill(&trainers[r], 0, 100);
		numbers[r] = fake_trainer_push_with(&trainers[r], &pushes[r]);
	}
	for (uint32_t r = 0; r < 2; r++) {
		ck_assert_str_eq(fake_host_expect(&host, numbers[r], 0)->outcome, "incomplete");
		says(fake_host_expect(&host, numbers[r], 0)->refusal,
		     "the ranks pushed averages of different profiles");
	}
	ck_assert_uint_eq(newest()->step, 10);
	ck_assert_str_eq(push(11, 0, NULL, 0)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
}
END_TEST

START_TEST(it_is_guarded_like_any_other)
{
	joined(1, "ema=constant:decay=0.5", "slow=constant:decay=0.75");
	push(10, 16, NULL, 0);
	ck_assert_str_eq(push(11, NAN, "slow", 5)->outcome, "nonfinite");
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 16);
	ck_assert_uint_eq(newest()->profiles[1].updates, 0);
	trainers[0].guards = "norm_jump=0.1,nonfinite=apply";
	fake_trainer_join(&trainers[0]);
	/* An average made elsewhere may be anything. */
	ck_assert_str_eq(push(12, 1000, "slow", 5)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 1000);
	ck_assert_str_eq(push(13, NAN, "slow", 5)->outcome, "applied");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, 0);
	ck_assert_uint_eq(newest()->profiles[1].nonfinite, 1);
}
END_TEST

START_TEST(metadata_stays_with_its_version)
{
	const struct fake_push with = { .step = 11, .waits = true, .metadata = "{ \"epoch\": 3, \"lr\": 0.5 }" };
	const struct fake_push bad = { .step = 12, .metadata = "[1]" };
	const struct fake_reply *view;
	char *text, long_text[METADATA_BYTES_MAX + 2];
	struct fake_push long_push = { .step = 12, .metadata = long_text };

	joined(1, "ema=constant:decay=0.5", "slow=constant:decay=0.75");
	push(10, 16, NULL, 0);
	fake_host_expect(&host, fake_trainer_push_with(&trainers[0], &with), 0);
	for (int i = 0; i < 2; i++) {
		view = fake_host_expect(&host, fake_view(&host, 901, "net", i ? "slow" : "ema", 0, 0), 0);
		text = fake_metadata(&host, view, "emad.metadata");
		ck_assert_str_eq(text, "{\"epoch\":3,\"lr\":0.5}");
		free(text);
		fake_host_gone(&host, 901);
	}
	says(fake_host_expect(&host, fake_trainer_push_with(&trainers[0], &bad), STATUS_EARGUMENT)->error,
	     "must be a JSON object");
	memset(long_text, ' ', sizeof long_text);
	long_text[0] = '{';
	long_text[sizeof long_text - 2] = '}';
	long_text[sizeof long_text - 1] = '\0';
	fake_host_expect(&host, fake_trainer_push_with(&trainers[0], &long_push), STATUS_ELIMIT);
	push(12, 0, NULL, 0);
	view = fake_host_expect(&host, fake_view(&host, 901, "net", NULL, 0, 0), 0);
	ck_assert_ptr_null(fake_metadata(&host, view, "emad.metadata"));
	fake_host_gone(&host, 901);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_seeds");
	TCase *tcase = tcase_create("seeds");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, one_profile_takes_it_and_the_others_stay, 0, 2);
	tcase_add_test(tcase, a_model_can_start_with_it);
	tcase_add_test(tcase, each_profile_may_be_given_its_own);
	tcase_add_test(tcase, its_step_may_be_older_or_far_ahead);
	tcase_add_test(tcase, an_average_that_is_debiased_goes_on_with_its_weight);
	tcase_add_test(tcase, entries_that_are_not_averaged_take_its_values);
	tcase_add_test(tcase, what_makes_no_sense_is_refused);
	tcase_add_loop_test(tcase, ranks_that_contradict_one_another_are_refused, 0, 3);
	tcase_add_test(tcase, it_is_guarded_like_any_other);
	tcase_add_test(tcase, metadata_stays_with_its_version);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
