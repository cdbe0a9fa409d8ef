/*
 * Guards in the service: bad values in every float type at every place, values that overflow on the way, losses and
 * norms; what each policy makes of them, and what it says.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 1501 };

static struct fake_host host;
static struct fake_trainer trainer;
static struct manifest *manifest;

static void setup(void)
{
	fake_host_init(&host);
	fake_host_start(&host);
	manifest = NULL;
}

static void teardown(void)
{
	if (manifest) {
		fake_trainer_finish(&trainer);
		manifest_destroy(manifest);
	}
	fake_host_finish(&host);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

/* A trainer of "net": "head", "bad" of the dtype, "tail", with guards. */
static void joined(enum dtype dtype, bool is_buffer, const char *profile, const char *guards)
{
	const struct tensor_row rows[] = {
		{ "head", DTYPE_F32, false, SHAPE(5) },
		{ "bad", dtype, is_buffer, SHAPE(COUNT) },
		{ "tail", DTYPE_F32, false, SHAPE(9) },
	};

	manifest = manifest_of_rows(rows, 3);
	fake_trainer_init(&trainer, &host, "net", manifest_share(manifest));
	trainer.profiles[0] = profile;
	trainer.guards = guards;
	fake_trainer_join(&trainer);
}

static uint8_t *element(uint32_t tensor, uint64_t index)
{
	return (uint8_t *)fake_trainer_stage(&trainer, 0) + manifest->pieces[tensor].stage_offset +
	       index * dtype_bytes(manifest->tensors[tensor].dtype);
}

static void fill(uint32_t tensor, uint64_t bits)
{
	for (uint64_t i = 0; i < manifest->tensors[tensor].element_count; i++)
		memcpy(element(tensor, i), &bits, dtype_bytes(manifest->tensors[tensor].dtype));
}

static uint64_t bits_of(float value)
{
	uint64_t bits = 0;

	memcpy(&bits, &value, sizeof value);
	return bits;
}

static const struct fake_reply *push(uint64_t step, const char *outcome)
{
	const struct fake_reply *answer = fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);

	ck_assert_msg(strcmp(answer->outcome, outcome) == 0, "%s, not %s: %s", answer->outcome, outcome,
	              answer->refusal);
	return answer;
}

/* An element of the average. */
static double average_at(const char *tensor, uint64_t index)
{
	const struct fake_reply *view = fake_host_expect(&host, fake_view(&host, 900, "net", NULL, 0, 0), 0);
	const struct model *model = service_find(host.service, "net", 3);
	const struct image *image = model->geometry->images[0];
	const uint8_t *bytes = fake_tensor(&host, view, tensor);
	int64_t at = manifest_find(model->manifest, tensor);
	bool is_wide = image->tensors[image->index_of[at]].dtype == DTYPE_F64;
	double wide = 0;
	float narrow = 0;

	ck_assert_ptr_nonnull(bytes);
	if (is_wide)
		memcpy(&wide, bytes + index * sizeof wide, sizeof wide);
	else
		memcpy(&narrow, bytes + index * sizeof narrow, sizeof narrow);
	fake_host_gone(&host, 900);
	return is_wide ? wide : (double)narrow;
}

static const struct slot_header *newest(void)
{
	return versions_newest(&service_find(host.service, "net", 3)->versions);
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

/* ---- what is not finite ------------------------------------------------------------------------------------------ */

struct bad_case {
	enum dtype dtype;
	uint64_t one, bad;
};

static const struct bad_case bad_cases[] = {
	{ DTYPE_F64, 0x3ff0000000000000, 0x7ff8000000000000 }, { DTYPE_F64, 0x3ff0000000000000, 0xfff0000000000000 },
	{ DTYPE_F32, 0x3f800000, 0x7fc00000 },                 { DTYPE_F32, 0x3f800000, 0xff800000 },
	{ DTYPE_F16, 0x3c00, 0x7e00 },                         { DTYPE_F16, 0x3c00, 0xfc00 },
	{ DTYPE_BF16, 0x3f80, 0x7fc0 },                        { DTYPE_BF16, 0x3f80, 0xff80 },
	{ DTYPE_F8_E4M3, 0x38, 0x7f },                         { DTYPE_F8_E4M3, 0x38, 0xff },
	{ DTYPE_F8_E5M2, 0x3c, 0x7c },                         { DTYPE_F8_E5M2, 0x3c, 0xfe },
};
enum { BAD_CASES = sizeof bad_cases / sizeof bad_cases[0] };

static const uint64_t PLACES[] = { 0, COUNT - 1, 777 };

/* Everything at one, or at zero but for one bad value. */
static void ones(const struct bad_case *bad)
{
	fill(0, bits_of(1));
	fill(1, bad->one);
	fill(2, bits_of(1));
}

static void zeros_and(const struct bad_case *bad, uint64_t place)
{
	fill(0, 0);
	fill(1, 0);
	fill(2, 0);
	memcpy(element(1, place), &bad->bad, dtype_bytes(bad->dtype));
}

START_TEST(a_bad_value_is_refused_and_named)
{
	const struct bad_case *bad = &bad_cases[_i];

	joined(bad->dtype, false, "ema=constant:decay=0.5,form=lerp", NULL);
	for (int start = 1; start >= 0; start--) {
		for (uint64_t i = 0; i < 3; i++) {
			const struct fake_reply *answer;

			zeros_and(bad, PLACES[i]);
			answer = push(11 + i, "nonfinite");
			says(answer->refusal,
			     "was refused: tensor 'bad' holds 1 NaN or infinite values (in all 1 in 1 tensors)");
			says(host.event, answer->refusal);
			if (start)
				ck_assert_ptr_null(newest());
			else
				ck_assert_uint_eq(newest()->step, 10);
		}
		if (start) {
			ones(bad);
			push(10, "started");
		}
	}
	ck_assert_double_eq(average_at("bad", 777), 1);
	ck_assert_uint_eq(counters()->pushes_nonfinite, 6);
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, 0);
}
END_TEST

START_TEST(a_bad_tensor_keeps_its_average_and_the_others_go_on)
{
	const struct bad_case *bad = &bad_cases[_i];
	double others = 1;

	joined(bad->dtype, false, "ema=constant:decay=0.5,form=lerp", "nonfinite=skip-tensor");
	/* The start has nothing to keep. */
	zeros_and(bad, 5);
	says(push(9, "nonfinite")->refusal, "'bad' holds 1 ");
	ones(bad);
	push(10, "started");
	for (uint64_t i = 0; i < 3; i++) {
		zeros_and(bad, PLACES[i]);
		push(11 + i, "applied");
		others /= 2;
		ck_assert_double_eq(average_at("bad", PLACES[i]), 1);
		ck_assert_double_eq(average_at("bad", 3), 1);
		ck_assert_double_eq(average_at("head", 4), others);
		ck_assert_double_eq(average_at("tail", 0), others);
		says(host.event, "tensor 'bad' holds 1 NaN or infinite values (in all 1 in 1 tensors), one is ");
		says(host.event, ": 1 tensor kept the old average");
	}
	ck_assert_uint_eq(counters()->tensors_skipped, 3);
	ck_assert_uint_eq(counters()->pushes_nonfinite, 1);
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, 0);
	ck_assert_uint_eq(newest()->updates, 3);
	fill(1, 0);
	push(14, "applied");
	ck_assert_double_eq(average_at("bad", 0), 0.5);
}
END_TEST

START_TEST(a_bad_value_that_is_wanted_is_taken_and_never_hidden)
{
	const struct bad_case *bad = &bad_cases[_i];
	const struct fake_reply *view;
	char *count;

	joined(bad->dtype, false, "ema=constant:decay=0.5,form=lerp", "nonfinite=apply");
	for (int start = 0; start < 2; start++) {
		trainer.resume = "never";
		fake_trainer_join(&trainer);
		ones(bad);
		if (start)
			zeros_and(bad, 777);
		push(10, "started");
		zeros_and(bad, 777);
		push(11, "applied");
		says(host.event, "step 11 was applied although tensor 'bad' holds 1 NaN");
		ck_assert(!isfinite(average_at("bad", 777)));
		ck_assert_double_eq(average_at("bad", 776), start ? 0 : 0.5);
		/* Also when nothing bad comes any more. */
		ones(bad);
		push(12, "applied");
		ck_assert_uint_eq(newest()->profiles[0].nonfinite, 1);
		view = fake_host_expect(&host, fake_view(&host, 900, "net", NULL, 0, 0), 0);
		count = fake_metadata(&host, view, "emad.nonfinite");
		ck_assert_str_eq(count, "1");
		free(count);
		fake_host_gone(&host, 900);
	}
	ck_assert_uint_eq(counters()->pushes_nonfinite, 0);
}
END_TEST

START_TEST(an_average_that_stays_or_is_guarded_again_still_says_what_it_holds)
{
	const struct bad_case *bad = &bad_cases[2];

	/* Every second call alone counts; "bad" is frozen at the start in one case, copied in the other. */
	joined(DTYPE_F32, true,
	       _i == 0   ? "ema=constant:decay=0.5,cadence=2"
	       : _i == 1 ? "ema=constant;freeze=bad"
	                 : "ema=constant;copy=bad",
	       "nonfinite=apply");
	zeros_and(bad, 3);
	push(10, "started");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, 1);
	ones(bad);
	push(11, "applied");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, _i < 2);
	push(12, "applied");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, _i < 2);
	trainer.guards = "nonfinite=skip-tensor";
	fake_trainer_join(&trainer);
	ones(bad);
	push(13, "applied");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, _i < 2);
	ck_assert_int_eq(isfinite(average_at("bad", 3)) != 0, _i == 2);
}
END_TEST

START_TEST(several_bad_tensors_are_counted_and_the_first_is_named)
{
	const struct bad_case *bad = &bad_cases[2];
	float nan = NAN;

	joined(DTYPE_F32, false, "ema=yolo", NULL);
	zeros_and(bad, 3);
	memcpy(element(1, 4), &nan, sizeof nan);
	memcpy(element(2, 8), &nan, sizeof nan);
	says(push(10, "nonfinite")->refusal, "tensor 'bad' holds 2 NaN or infinite values (in all 3 in 2 tensors)");
}
END_TEST

START_TEST(what_every_profile_drops_or_keeps_may_be_anything)
{
	const struct bad_case *bad = &bad_cases[2];

	joined(DTYPE_F32, true, _i ? "ema=constant;drop=bad" : "ema=constant;freeze=bad", NULL);
	ones(bad);
	push(10, "started");
	zeros_and(bad, 3);
	push(11, "applied");
}
END_TEST

/* ---- finite values that overflow --------------------------------------------------------------------------------- */

START_TEST(finite_values_that_overflow_on_the_way_are_refused)
{
	/* s + (1-d) * (x - s): x - s does not fit. */
	joined(DTYPE_F32, false, "ema=constant:decay=0.5,form=lerp", _i ? "nonfinite=skip-tensor" : NULL);
	fill(0, 0);
	fill(2, 0);
	fill(1, bits_of(-FLT_MAX));
	push(10, "started");
	fill(0, bits_of(1));
	fill(1, bits_of(FLT_MAX));
	if (_i == 0) {
		says(push(11, "nonfinite")->refusal, "the average of tensor 'bad' would overflow (in all 1 tensors)");
		ck_assert_uint_eq(newest()->step, 10);
	} else {
		push(11, "applied");
		ck_assert_double_eq(average_at("head", 0), 0.5);
	}
	ck_assert_double_eq(average_at("bad", 0), (double)-FLT_MAX);
}
END_TEST

START_TEST(huge_values_that_do_not_overflow_are_taken)
{
	joined(_i ? DTYPE_F64 : DTYPE_F32, false, "ema=constant:decay=0.5,form=mul-add", NULL);
	for (uint32_t t = 0; t < 3; t++)
		fill(t, 0);
	fill(1, _i ? 0x7fefffffffffffff : bits_of(FLT_MAX));
	push(10, "started");
	push(11, "applied");
	ck_assert_uint_eq(newest()->profiles[0].nonfinite, 0);
	ck_assert_double_eq(average_at("bad", 7), _i ? DBL_MAX : (double)FLT_MAX);
}
END_TEST

START_TEST(doubles_that_a_float_shadow_cannot_hold_are_refused)
{
	const double huge = 1e300;

	joined(DTYPE_F64, false, "ema=constant:decay=0.5,precision=f32", NULL);
	for (uint32_t t = 0; t < 3; t++)
		fill(t, 0);
	memcpy(element(1, 777), &huge, sizeof huge);
	says(push(10, "nonfinite")->refusal, "the average of tensor 'bad' would overflow");
	fill(1, 0);
	push(11, "started");
	memcpy(element(1, COUNT - 1), &huge, sizeof huge);
	says(push(12, "nonfinite")->refusal, "the average of tensor 'bad' would overflow");
	ck_assert_double_eq(average_at("bad", COUNT - 1), 0);
}
END_TEST

START_TEST(an_average_of_doubles_that_becomes_one_of_floats_must_fit_them)
{
	const char *const narrow[] = { "ema=constant:decay=0.5,precision=f32,cadence=2", NULL };
	const double huge = 1e300;

	joined(DTYPE_F64, false, "ema=constant:decay=0.5,cadence=2", NULL);
	for (uint32_t t = 0; t < 3; t++)
		fill(t, 0);
	memcpy(element(1, 777), &huge, sizeof huge);
	push(10, "started");
	fake_host_expect(&host, fake_profiles_set(&host, "net", narrow, 1000), 0);
	fill(1, 0);
	/* The next call does not count: the average stays, in its new type. */
	says(push(11, "nonfinite")->refusal, "the average of tensor 'bad' would overflow");
	ck_assert_uint_eq(newest()->step, 10);
}
END_TEST

START_TEST(an_average_that_is_kept_must_fit_its_new_type_too)
{
	const char *const narrow[] = { "ema=constant:decay=0.5,precision=f32", NULL };
	const double huge = 1e300, nan = NAN;

	joined(DTYPE_F64, false, "ema=constant:decay=0.5", "nonfinite=skip-tensor");
	for (uint32_t t = 0; t < 3; t++)
		fill(t, 0);
	memcpy(element(1, 777), &huge, sizeof huge);
	push(10, "started");
	fake_host_expect(&host, fake_profiles_set(&host, "net", narrow, 1000), 0);
	memcpy(element(1, 0), &nan, sizeof nan);
	says(push(11, "nonfinite")->refusal, "the average of tensor 'bad', which it should keep, does not fit float32");
	ck_assert_uint_eq(newest()->step, 10);
}
END_TEST

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static const struct fake_reply *push_with_loss(uint64_t step, double loss, const char *outcome)
{
	const struct fake_push with_loss = { .step = step, .waits = true, .loss = &loss };
	const struct fake_reply *answer = fake_host_expect(&host, fake_trainer_push_with(&trainer, &with_loss), 0);

	ck_assert_str_eq(answer->outcome, outcome);
	return answer;
}

START_TEST(a_loss_above_the_limit_is_refused)
{
	const struct fake_reply *answer;

	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "loss_max=2.5");
	ones(&bad_cases[2]);
	says(push_with_loss(9, 2.6, "loss")->refusal,
	     "step 9 was refused: its loss 2.6 is above loss_max 2.5; the average is unchanged");
	push_with_loss(10, 2.5, "started");
	says(push_with_loss(11, NAN, "loss")->refusal, "its loss nan is above loss_max 2.5");
	says(push_with_loss(12, INFINITY, "loss")->refusal, "its loss inf is above");
	answer = push_with_loss(13, -1e9, "applied");
	ck_assert_uint_eq(answer->reply.calls, 3);
	ck_assert_uint_eq(answer->reply.refused, 3);
	/* Without a loss nothing is known. */
	push(14, "applied");
	ck_assert_uint_eq(counters()->pushes_loss, 3);
	ck_assert_uint_eq(counters()->pushes_nonfinite, 0);
	ck_assert_uint_eq(newest()->step, 14);
}
END_TEST

START_TEST(a_refused_loss_is_answered_alike_when_it_is_repeated)
{
	const double loss = 3;
	const struct fake_push with_loss = { .step = 11, .waits = true, .loss = &loss };
	const struct fake_reply *answer;

	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "loss_max=2.5");
	ones(&bad_cases[2]);
	push(10, "started");
	for (int i = 0; i < 3; i++) {
		answer = fake_host_expect(&host, fake_trainer_push_with(&trainer, &with_loss), 0);
		ck_assert_str_eq(answer->outcome, "loss");
		ck_assert_uint_eq(answer->reply.refused, 1);
		trainer.sequence--;
	}
	ck_assert_uint_eq(counters()->pushes_loss, 1);
}
END_TEST

START_TEST(without_the_guard_any_loss_will_do)
{
	joined(DTYPE_F32, false, "ema=constant:decay=0.5", NULL);
	ones(&bad_cases[2]);
	push_with_loss(10, NAN, "started");
	push_with_loss(11, INFINITY, "applied");
}
END_TEST

/* ---- norms ------------------------------------------------------------------------------------------------------- */

START_TEST(a_norm_that_jumps_is_refused)
{
	const struct fake_reply *answer;

	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "norm_jump=0.5");
	ones(&bad_cases[2]);
	push(10, "started");
	fill(2, bits_of(1.4F));
	push(11, "applied");
	fill(2, bits_of(2.2F));
	answer = push(12, "norm-jump");
	says(answer->refusal,
	     "step 12 was refused: the norm of tensor 'tail' went from 4.2 to 6.6, a change of 0.5714 times "
	     "what it was, above norm_jump 0.5");
	/* It is compared with the latest that was taken. */
	says(push(13, "norm-jump")->refusal, "from 4.2 to 6.6");
	fill(2, bits_of(0.5F));
	says(push(14, "norm-jump")->refusal, "from 4.2 to 1.5");
	fill(2, bits_of(2));
	push(15, "applied");
	ck_assert_uint_eq(counters()->pushes_jump, 3);
	ck_assert_uint_eq(newest()->step, 15);
}
END_TEST

START_TEST(a_tensor_that_was_zero_may_become_anything)
{
	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "norm_jump=0.1");
	ones(&bad_cases[2]);
	fill(1, 0);
	push(10, "started");
	fill(1, bits_of(1000));
	push(11, "applied");
	fill(1, 0);
	push(12, "applied");
}
END_TEST

START_TEST(a_skipped_tensor_does_not_jump)
{
	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "norm_jump=0.5,nonfinite=skip-tensor");
	ones(&bad_cases[2]);
	push(10, "started");
	fill(1, bits_of(NAN));
	push(11, "applied");
	/* The norm that it is compared with is that of before. */
	fill(1, bits_of(1.4F));
	push(12, "applied");
	fill(1, bits_of(NAN));
	fill(0, bits_of(9));
	says(push(13, "norm-jump")->refusal, "tensor 'head'");
	ck_assert_uint_eq(newest()->step, 12);
}
END_TEST

START_TEST(a_norm_that_is_not_finite_is_not_this_guards_to_judge)
{
	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "norm_jump=0.5,nonfinite=apply");
	ones(&bad_cases[2]);
	fill(1, bits_of(NAN));
	push(10, "started");
	fill(1, bits_of(1));
	push(11, "applied");
	fill(1, bits_of(INFINITY));
	push(12, "applied");
	fill(1, bits_of(1));
	push(13, "applied");
	fill(0, bits_of(9));
	push(14, "norm-jump");
}
END_TEST

START_TEST(the_guards_are_shown)
{
	joined(DTYPE_F32, false, "ema=constant:decay=0.5", "norm_jump=0.5,loss_max=3");
	says(fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0)->body,
	     "\"guards\":\"nonfinite=refuse,loss_max=3,norm_jump=0.5\"");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_guards");
	TCase *nonfinite = tcase_create("nonfinite"), *overflow = tcase_create("overflow"),
	      *others = tcase_create("others");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(nonfinite, setup, teardown);
	tcase_add_loop_test(nonfinite, a_bad_value_is_refused_and_named, 0, BAD_CASES);
	tcase_add_loop_test(nonfinite, a_bad_tensor_keeps_its_average_and_the_others_go_on, 0, BAD_CASES);
	tcase_add_loop_test(nonfinite, a_bad_value_that_is_wanted_is_taken_and_never_hidden, 0, BAD_CASES);
	tcase_add_loop_test(nonfinite, an_average_that_stays_or_is_guarded_again_still_says_what_it_holds, 0, 3);
	tcase_add_test(nonfinite, several_bad_tensors_are_counted_and_the_first_is_named);
	tcase_add_loop_test(nonfinite, what_every_profile_drops_or_keeps_may_be_anything, 0, 2);
	suite_add_tcase(suite, nonfinite);
	tcase_add_checked_fixture(overflow, setup, teardown);
	tcase_add_loop_test(overflow, finite_values_that_overflow_on_the_way_are_refused, 0, 2);
	tcase_add_loop_test(overflow, huge_values_that_do_not_overflow_are_taken, 0, 2);
	tcase_add_test(overflow, doubles_that_a_float_shadow_cannot_hold_are_refused);
	tcase_add_test(overflow, an_average_of_doubles_that_becomes_one_of_floats_must_fit_them);
	tcase_add_test(overflow, an_average_that_is_kept_must_fit_its_new_type_too);
	suite_add_tcase(suite, overflow);
	tcase_add_checked_fixture(others, setup, teardown);
	tcase_add_test(others, a_loss_above_the_limit_is_refused);
	tcase_add_test(others, a_refused_loss_is_answered_alike_when_it_is_repeated);
	tcase_add_test(others, without_the_guard_any_loss_will_do);
	tcase_add_test(others, a_norm_that_jumps_is_refused);
	tcase_add_test(others, a_tensor_that_was_zero_may_become_anything);
	tcase_add_test(others, a_skipped_tensor_does_not_jump);
	tcase_add_test(others, a_norm_that_is_not_finite_is_not_this_guards_to_judge);
	tcase_add_test(others, the_guards_are_shown);
	suite_add_tcase(suite, others);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
