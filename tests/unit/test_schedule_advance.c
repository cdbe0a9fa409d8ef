/*
 * Averages call by call and over gaps: which calls count, the product of their decays, starts at zero, and states that
 * are taken up again.
 */
#include "proto/schedule.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static struct schedule parsed(const char *specification)
{
	struct schedule schedule;
	struct reason reason = {""};

	ck_assert_msg(schedule_parse(specification, &schedule, &reason) == 0, "%s: %s", specification, reason.text);
	return schedule;
}

/* One call at this step, which follows the one before it by `stride`. */
static struct schedule_result call_at(const struct schedule *schedule, struct schedule_state *state, uint64_t step,
				      uint64_t stride)
{
	return schedule_advance(schedule, state, &(struct schedule_gap){1, step, step - stride});
}

static void assert_result(struct schedule_result result, enum schedule_action action, double decay)
{
	ck_assert_str_eq(schedule_action_name(result.action), schedule_action_name(action));
	ck_assert_double_eq(result.decay, decay);
}

static uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 11;
}

/* ---- single calls --------------------------------------------------------------------------------------------- */

START_TEST(a_single_call_is_the_formula)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++) {
		struct schedule schedule = parsed(kinds[i].name);
		struct schedule_state state = {0};
		double product = 1;

		if (kinds[i].starts_at_zero)
			schedule.values[kinds[i].debias_key] = 0;
		for (uint64_t n = 1; n <= 300; n++) {
			struct schedule_result expected =
				schedule_at(&schedule, &(struct schedule_call){n, 3 * n, 3 * (n - 1)});

			assert_result(call_at(&schedule, &state, 3 * n, 3), expected.action, expected.decay);
			product *= expected.decay;
			ck_assert_uint_eq(state.calls, n);
			ck_assert_uint_eq(state.updates, n);
			ck_assert_double_eq_tol(state.decay_rest, 1 - product, 1e-15 * (double)n);
		}
	}
}
END_TEST

START_TEST(up_to_begin_the_average_follows_and_nothing_is_counted)
{
	struct schedule schedule = parsed("yolo:begin=30"), plain = parsed("yolo");
	struct schedule_state state = {0};

	for (uint64_t step = 10; step <= 30; step += 10) {
		assert_result(call_at(&schedule, &state, step, 10), ACTION_COPY, 0);
		ck_assert_uint_eq(state.calls, 0);
		ck_assert_uint_eq(state.updates, 0);
		ck_assert_double_eq(state.decay_rest, 1);
	}
	for (uint64_t n = 1; n <= 5; n++) {
		assert_result(call_at(&schedule, &state, 30 + 10 * n, 10), ACTION_LERP,
			      schedule_at(&plain, &(struct schedule_call){.n = n}).decay);
		ck_assert_uint_eq(state.updates, n);
	}
}
END_TEST

START_TEST(a_schedule_that_looks_at_steps_sees_them_as_they_are_behind_begin)
{
	struct schedule schedule = parsed("edm:begin=100");
	struct schedule_state state = {0};

	assert_result(call_at(&schedule, &state, 100, 50), ACTION_COPY, 0);
	assert_result(call_at(&schedule, &state, 150, 50), ACTION_LERP, exp2(-50 / (.09 * 150)));
}
END_TEST

START_TEST(a_cadence_counts_each_so_many_calls)
{
	struct schedule schedule = parsed("torch-ema:cadence=3");
	struct schedule_state state = {0};

	for (uint64_t call = 1; call <= 12; call++) {
		struct schedule_result result = call_at(&schedule, &state, call, 1);
		double n = (double)call / 3;

		if (call % 3 == 0)
			assert_result(result, ACTION_LERP, (1 + n) / (10 + n));
		else
			assert_result(result, ACTION_NOOP, 1);
		ck_assert_uint_eq(state.calls, call);
		ck_assert_uint_eq(state.updates, call / 3);
	}
}
END_TEST

START_TEST(with_a_cadence_steps_are_seen_from_one_counting_call_to_the_next)
{
	struct schedule sparse = parsed("power:cadence=4"), dense = parsed("power");
	struct schedule_state sparse_state = {0}, dense_state = {0};

	for (uint64_t call = 1; call <= 40; call++) {
		struct schedule_result result = call_at(&sparse, &sparse_state, 10 * call, 10), expected;

		if (call % 4 != 0)
			continue;
		/* As if the calls between had not been made. */
		expected = call_at(&dense, &dense_state, 10 * call, 40);
		assert_result(result, expected.action, expected.decay);
	}
}
END_TEST

START_TEST(begin_and_cadence_go_together)
{
	struct schedule schedule = parsed("constant:decay=0.5,begin=2,cadence=2");
	struct schedule_state state = {0};

	assert_result(call_at(&schedule, &state, 1, 1), ACTION_COPY, 0);
	assert_result(call_at(&schedule, &state, 2, 1), ACTION_COPY, 0);
	assert_result(call_at(&schedule, &state, 3, 1), ACTION_NOOP, 1);
	assert_result(call_at(&schedule, &state, 4, 1), ACTION_LERP, .5);
	assert_result(call_at(&schedule, &state, 5, 1), ACTION_NOOP, 1);
	ck_assert_uint_eq(state.calls, 3);
	ck_assert_uint_eq(state.updates, 1);
}
END_TEST

/* ---- starts at zero ------------------------------------------------------------------------------------------- */

START_TEST(an_average_starts_as_a_copy_unless_its_zero_is_left_in)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++) {
		struct schedule schedule = parsed(kinds[i].name);

		assert_result(schedule_start(&schedule), ACTION_COPY, 0);
	}
	for (size_t i = 0; i < 2; i++) {
		struct schedule schedule = parsed(i == 0 ? "optax:debias=0" : "paddle:debias=0");

		assert_result(schedule_start(&schedule), ACTION_ZERO, 0);
	}
	/* What follows the weights at first is never zero. */
	assert_result(schedule_start(&(struct schedule){.kind = parsed("optax").kind, .begin = 9}), ACTION_COPY, 0);
}
END_TEST

/* The product of the first n decays of paddle. */
static long double paddle_product(bool is_exponential, double decay, uint64_t n)
{
	const uint64_t settled = 200000;
	long double product = 1;

	for (uint64_t i = 1; i <= n && i <= settled; i++) {
		long double k = (long double)i;

		product *= is_exponential ? decay * (1 - expl(-k / 2000)) : fminl(decay, k / (9 + k));
	}
	return n > settled ? product * powl(decay, (long double)(n - settled)) : product;
}

static const struct {
	const char *specification;
	double decay;
	int formula; /* 0: constant, 1: threshold, 2: exponential */
} ZERO_STARTS[] = {
	{"optax", .999, 0},
	{"optax:decay=0.9", .9, 0},
	{"optax:decay=0.9999", .9999, 0},
	{"optax:decay=0.9999999", .9999999, 0},
	{"paddle", .9998, 1},
	{"paddle:decay=0.3", .3, 1},
	{"paddle:mode=exponential", .9998, 2},
};

START_TEST(the_decay_of_a_divided_average_is_exact_at_any_call)
{
	static const uint64_t CALLS[] = {1,   2,   3,   10,   99,    100,    101,
					 102, 103, 104, 105,  106,   107,    108,
					 109, 110, 111, 1000, 10000, 100000, UINT64_C(1000000000)};
	struct schedule schedule = parsed(ZERO_STARTS[_i].specification);
	struct schedule_state state = {0};

	for (size_t i = 0; i < COUNT(CALLS); i++) {
		long double decay = ZERO_STARTS[_i].decay, n = (long double)CALLS[i], before, after, exact;
		struct schedule_result result = {.action = ACTION_NOOP};

		if (ZERO_STARTS[_i].formula == 0) {
			/* What these lack of 1 is computed by itself: it may be small. */
			before = expm1l((n - 1) * log1pl(decay - 1));
			after = expm1l(n * log1pl(decay - 1));
		} else {
			before = paddle_product(ZERO_STARTS[_i].formula == 2, (double)decay, CALLS[i] - 1) - 1;
			after = paddle_product(ZERO_STARTS[_i].formula == 2, (double)decay, CALLS[i]) - 1;
			decay = ZERO_STARTS[_i].formula == 2 ? decay * (1 - expl(-n / 2000))
							     : fminl(decay, n / (9 + n));
		}
		/* The sum is (1 - product) times the average: of the next average, this part is the one before it. */
		exact = decay * before / after;
		if (CALLS[i] > 100000)
			state = schedule_resumed(&schedule, CALLS[i] - 1, CALLS[i] - 1);
		while (state.calls < CALLS[i])
			result = call_at(&schedule, &state, state.calls + 1, 1);
		ck_assert_msg(fabsl(result.decay - exact) <= 1e-15L, "%s at %llu: %.17g, off by %.3Lg",
			      ZERO_STARTS[_i].specification, (unsigned long long)CALLS[i], result.decay,
			      result.decay - exact);
		ck_assert_int_eq(result.action, CALLS[i] == 1 ? ACTION_COPY : ACTION_LERP);
		ck_assert_double_eq_tol(state.decay_rest, (double)-after, 1e-13);
	}
}
END_TEST

START_TEST(a_divided_average_is_the_library_s)
{
	struct schedule schedule = parsed("optax:decay=0.9");
	struct schedule_state state = {0};
	double sum = 0, product = 1, shadow = 123;

	for (int n = 1; n <= 200; n++) {
		double x = cos(0.37 * n), d;

		d = call_at(&schedule, &state, (uint64_t)n, 1).decay;
		shadow = shadow * d + (1 - d) * x;
		sum = sum * .9 + .1 * x;
		product *= .9;
		ck_assert_double_eq_tol(shadow, sum / (1 - product), 1e-14);
	}
}
END_TEST

START_TEST(a_start_at_zero_behind_begin_is_divided_out_from_there)
{
	struct schedule schedule = parsed("optax:decay=0.5,begin=10");
	struct schedule_state state = {0};

	assert_result(call_at(&schedule, &state, 5, 5), ACTION_COPY, 0);
	ck_assert_double_eq(state.decay_rest, 0);
	assert_result(call_at(&schedule, &state, 10, 5), ACTION_COPY, 0);
	assert_result(call_at(&schedule, &state, 15, 5), ACTION_COPY, 0);
	ck_assert_double_eq(state.decay_rest, .5);
	assert_result(call_at(&schedule, &state, 20, 5), ACTION_LERP, .5 * .5 / .75);
}
END_TEST

/* ---- gaps ----------------------------------------------------------------------------------------------------- */

/* NULL-terminated: all kinds of mixtures of COPY, LERP and NOOP. */
static const char *const GAPS[] = {
	"constant",
	"yolo",
	"yolo:begin=500",
	"timm:warmup=1,after=20",
	"diffusers:after=7",
	"ema-pytorch",
	"ema-pytorch:after=3,every=4,cadence=3",
	"ema-pytorch-karras",
	"k-diffusion:gamma=10",
	"half-life:interval=5,start=100",
	"torchtitan:every=3,start=50",
	"swa:interval=7",
	"averaged-model",
	"mmengine:interval=4",
	"mmengine-annealing",
	"mmdet-exp:cadence=2",
	"keras",
	"lightning:every=6,start=30",
	"fairseq:every=3,start=11",
	"linear:total=100",
	"cosine:total=100",
	"optax",
	"optax:begin=90,cadence=2",
	"optax:debias=0",
	"paddle",
	"paddle:mode=exponential,decay=0.9",
	"paddle:debias=0,begin=77",
	"constant:decay=0.5,begin=300,cadence=7",
	"constant:decay=1",
	"constant:decay=0",
};

/* The same calls one by one, on a shadow whose snapshot stays at 1: what is left of the old shadow, which is 0. */
static double advance_singly(const struct schedule *schedule, struct schedule_state *state,
			     const struct schedule_gap *gap, bool *ret_acts)
{
	const uint64_t stride = (gap->step - gap->step_previous) / gap->call_count;
	double left = 1;

	*ret_acts = false;
	for (uint64_t i = 1; i <= gap->call_count; i++) {
		struct schedule_result result = call_at(schedule, state, gap->step_previous + i * stride, stride);

		*ret_acts |= result.action != ACTION_NOOP;
		left *= result.decay;
	}
	return left;
}

START_TEST(a_gap_is_its_calls_one_by_one)
{
	struct schedule schedule = parsed(GAPS[_i]);
	uint64_t random = (uint64_t)_i + 1;

	for (int round = 0; round < 50; round++) {
		struct schedule_state state = {0}, single = {0};
		uint64_t step = 0, stride = 1 + random_next(&random) % 12;

		for (int gaps = 0; gaps < 40; gaps++) {
			uint64_t count = random_next(&random) % 3 == 0 ? 1 : 1 + random_next(&random) % 60;
			struct schedule_gap gap = {count, step + count * stride, step};
			bool acts;
			double left = advance_singly(&schedule, &single, &gap, &acts);
			struct schedule_result result = schedule_advance(&schedule, &state, &gap);

			ck_assert_uint_eq(state.calls, single.calls);
			ck_assert_uint_eq(state.updates, single.updates);
			ck_assert_double_eq_tol(state.decay_rest, single.decay_rest, 1e-14);
			ck_assert_double_eq_tol(result.decay, left, 1e-15 * (double)count);
			ck_assert_int_eq(result.action != ACTION_NOOP, acts);
			ck_assert_int_eq(result.action == ACTION_COPY, acts && left == 0);
			step = gap.step;
		}
	}
}
END_TEST

START_TEST(calls_on_both_sides_of_begin_copy_and_count)
{
	struct schedule schedule = parsed("constant:decay=0.5,begin=30");
	struct schedule_state state = {0};

	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){6, 60, 0}), ACTION_COPY, 0);
	ck_assert_uint_eq(state.calls, 3);
	ck_assert_uint_eq(state.updates, 3);
	ck_assert_double_eq(state.decay_rest, 1);
	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){2, 80, 60}), ACTION_LERP, .25);
}
END_TEST

START_TEST(a_copy_inside_a_gap_leaves_nothing_of_the_old_shadow)
{
	struct schedule schedule = parsed("ema-pytorch:after=10,every=10");
	struct schedule_state state = {0};

	/* Call 1 copies, then nothing, call 11 copies, and the rest do nothing. */
	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){15, 15, 0}), ACTION_COPY, 0);
	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){5, 20, 15}), ACTION_NOOP, 1);
	ck_assert_uint_eq(state.calls, 20);
	ck_assert_int_eq(schedule_advance(&schedule, &state, &(struct schedule_gap){1, 21, 20}).action, ACTION_LERP);
}
END_TEST

START_TEST(steps_of_a_gap_lie_evenly_where_they_do_not_divide)
{
	/* 7 calls over 17 steps: 2 4 7 9 12 14 17; of these 4, 12 and 14 are even, and 2 lies before the start. */
	struct schedule schedule = parsed("half-life:interval=2,start=3,half_life=2");
	struct schedule_state state = {0};

	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){7, 17, 0}), ACTION_COPY, 0);
	schedule = parsed("half-life:interval=2,half_life=2");
	state = (struct schedule_state){0};
	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){7, 17, 0}), ACTION_LERP,
		      .5 * .5 * .5 * .5);
	ck_assert_uint_eq(state.calls, 7);
	/* Steps of any size: the products inside do not overflow. */
	assert_result(schedule_advance(&schedule, &state,
				       &(struct schedule_gap){GAP_CALL_COUNT_MAX, UINT64_MAX, UINT64_MAX - 1}),
		      ACTION_COPY, 0);
	schedule_advance(&schedule, &state, &(struct schedule_gap){GAP_CALL_COUNT_MAX, UINT64_MAX, 0});
	/* A step that goes back stands still. */
	schedule = parsed("edm");
	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){3, 5, 9}), ACTION_LERP, 1);
}
END_TEST

START_TEST(a_schedule_that_spans_steps_makes_one_call_of_a_gap)
{
	struct schedule schedule = parsed("power:std=0.1");
	struct schedule_state far = {0}, near = {0};
	double product = 1;

	assert_result(schedule_advance(&schedule, &far, &(struct schedule_gap){128, 128, 0}), ACTION_COPY, 0);
	ck_assert_uint_eq(far.calls, 1);
	assert_result(call_at(&schedule, &near, 128, 128), ACTION_COPY, 0);
	/* The product of the calls telescopes: 128 images at once, or one by one. */
	for (uint64_t step = 129; step <= 1280; step++)
		product *= call_at(&schedule, &near, step, 1).decay;
	ck_assert_double_eq_tol(schedule_advance(&schedule, &far, &(struct schedule_gap){1152, 1280, 128}).decay,
				product, 1e-15 * 1152);
	ck_assert_uint_eq(far.calls, 2);
	ck_assert_uint_eq(far.updates, 2);
	schedule = parsed("edm:halflife=50");
	assert_result(schedule_advance(&schedule, &far, &(struct schedule_gap){20, 10100, 10000}), ACTION_LERP, .25);
	/* One step behind begin: all of it counts, as one call. */
	schedule = parsed("power:begin=1000");
	far = (struct schedule_state){0};
	assert_result(schedule_advance(&schedule, &far, &(struct schedule_gap){7, 1000, 0}), ACTION_COPY, 0);
	ck_assert_uint_eq(far.calls, 0);
	assert_result(schedule_advance(&schedule, &far, &(struct schedule_gap){7, 1007, 1000}), ACTION_COPY, 0);
	ck_assert_uint_eq(far.calls, 1);
}
END_TEST

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

START_TEST(the_longest_gap_is_soon_done)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);
	static const char *const SLOW[] = {
		"ema-pytorch-karras:every=1", "timm:warmup=1,decay=1",          "yolo:decay=1,tau=1e9",
		"cosine:total=1e9",           "k-diffusion:power=0.75",         "torchtitan",
		"half-life:half_life=1e9",    "mmdet-exp:momentum=0,gamma=1e9",
	};

	for (size_t i = 0; i < kind_count + COUNT(SLOW); i++) {
		struct schedule schedule = parsed(i < kind_count ? kinds[i].name : SLOW[i - kind_count]);
		struct schedule_state state = schedule_resumed(&schedule, 1000000000, 1000000000);
		struct schedule_gap gap = {GAP_CALL_COUNT_MAX, 1000000000 + 3 * GAP_CALL_COUNT_MAX, 1000000000};
		double began = milliseconds();
		struct schedule_result result = schedule_advance(&schedule, &state, &gap);

		began = milliseconds() - began;
		ck_assert(result.decay >= 0 && result.decay <= 1);
		ck_assert_uint_eq(state.calls, 1000000000 + (schedule.kind->spans_steps ? 1 : GAP_CALL_COUNT_MAX));
		ck_assert_uint_eq(state.updates, state.calls);
		/* An order above what it takes, for slow and busy machines. */
		ck_assert_double_lt(began, 400);
	}
}
END_TEST

START_TEST(when_nothing_is_left_the_calls_still_count)
{
	struct schedule schedule = parsed("constant:decay=0.5,cadence=3");
	struct schedule_state state = {.calls = 2};

	assert_result(schedule_advance(&schedule, &state, &(struct schedule_gap){100000, 100000, 0}), ACTION_COPY, 0);
	ck_assert_uint_eq(state.calls, 100002);
	ck_assert_uint_eq(state.updates, 33334);
	ck_assert_double_eq(state.decay_rest, 1);
}
END_TEST

/* ---- taken up again ------------------------------------------------------------------------------------------- */

START_TEST(a_resumed_average_goes_on_as_if_it_had_been_here)
{
	static const char *const SCHEDULES[] = {"yolo",
						"optax",
						"optax:decay=0.99999",
						"paddle",
						"paddle:mode=exponential",
						"torch-ema:cadence=4",
						"swa",
						"timm:warmup=1"};

	for (size_t i = 0; i < COUNT(SCHEDULES); i++) {
		struct schedule schedule = parsed(SCHEDULES[i]);
		struct schedule_state state = {0}, resumed;

		for (uint64_t call = 1; call <= 800; call++)
			call_at(&schedule, &state, call, 1);
		resumed = schedule_resumed(&schedule, state.updates, 800);
		ck_assert_uint_eq(resumed.updates, state.updates);
		ck_assert_uint_eq(resumed.calls, state.calls);
		if (schedule.kind->starts_at_zero)
			ck_assert_double_eq_tol(resumed.decay_rest, state.decay_rest, 1e-13);
		for (uint64_t call = 801; call <= 820; call++) {
			struct schedule_result expected = call_at(&schedule, &state, call, 1);
			struct schedule_result result = call_at(&schedule, &resumed, call, 1);

			ck_assert_int_eq(result.action, expected.action);
			ck_assert_double_eq_tol(result.decay, expected.decay, 1e-13);
		}
	}
	ck_assert_double_eq(
		schedule_resumed(&(struct schedule){.kind = parsed("optax").kind, .cadence = 1}, 0, 5).decay_rest, 0);
}
END_TEST

START_TEST(a_resumed_average_of_any_age_is_soon_found)
{
	static const char *const SCHEDULES[] = {"optax",
						"optax:decay=0.9999999999999999",
						"paddle:decay=1",
						"paddle:mode=exponential,decay=1",
						"paddle:decay=0.1",
						"yolo:cadence=9e15"};
	double began = milliseconds();

	for (size_t i = 0; i < COUNT(SCHEDULES); i++) {
		struct schedule schedule = parsed(SCHEDULES[i]);
		struct schedule_state state = schedule_resumed(&schedule, UINT64_MAX, UINT64_MAX);

		ck_assert_uint_eq(state.updates, UINT64_MAX);
		ck_assert_uint_eq(state.calls % schedule.cadence, 0);
		ck_assert(state.decay_rest > 0.9 && state.decay_rest <= 1);
	}
	ck_assert_double_lt(milliseconds() - began, 400);
}
END_TEST

/* ---- entries -------------------------------------------------------------------------------------------------- */

static const struct {
	const char *specification;
	enum schedule_entry parameter, float_buffer, integer, integer_buffer;
} ENTRIES[] = {
	{"yolo", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_FREEZE, ENTRY_FREEZE},
	{"timm", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY},
	{"k-diffusion", ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY, ENTRY_COPY},
	{"power", ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY, ENTRY_COPY},
	{"edm", ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY, ENTRY_COPY},
	{"ema-pytorch", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_FREEZE, ENTRY_FREEZE},
	{"mmengine", ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY, ENTRY_COPY},
	{"mmengine:update_buffers=1", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_FIRST, ENTRY_FIRST},
	{"mmengine-annealing:update_buffers=1", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_FIRST, ENTRY_FIRST},
	{"mmdet-exp:update_buffers=1", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_FIRST, ENTRY_FIRST},
	{"averaged-model", ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY, ENTRY_COPY},
	{"averaged-model:use_buffers=1", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY},
	{"swa:use_buffers=1", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY},
	{"diffusers", ENTRY_AVERAGE, ENTRY_DROP, ENTRY_DROP, ENTRY_DROP},
	{"torch-ema", ENTRY_AVERAGE, ENTRY_DROP, ENTRY_DROP, ENTRY_DROP},
	{"optax", ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_COPY, ENTRY_COPY},
};

START_TEST(entries_are_treated_as_the_library_does)
{
	struct schedule schedule = parsed(ENTRIES[_i].specification);

	ck_assert_int_eq(schedule_entry_default(&schedule, true, false), ENTRIES[_i].parameter);
	ck_assert_int_eq(schedule_entry_default(&schedule, true, true), ENTRIES[_i].float_buffer);
	ck_assert_int_eq(schedule_entry_default(&schedule, false, false), ENTRIES[_i].integer);
	ck_assert_int_eq(schedule_entry_default(&schedule, false, true), ENTRIES[_i].integer_buffer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("schedule_advance");
	TCase *tcase = tcase_create("schedule_advance");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, a_single_call_is_the_formula);
	tcase_add_test(tcase, up_to_begin_the_average_follows_and_nothing_is_counted);
	tcase_add_test(tcase, a_schedule_that_looks_at_steps_sees_them_as_they_are_behind_begin);
	tcase_add_test(tcase, a_cadence_counts_each_so_many_calls);
	tcase_add_test(tcase, with_a_cadence_steps_are_seen_from_one_counting_call_to_the_next);
	tcase_add_test(tcase, begin_and_cadence_go_together);
	tcase_add_test(tcase, an_average_starts_as_a_copy_unless_its_zero_is_left_in);
	tcase_add_loop_test(tcase, the_decay_of_a_divided_average_is_exact_at_any_call, 0, (int)COUNT(ZERO_STARTS));
	tcase_add_test(tcase, a_divided_average_is_the_library_s);
	tcase_add_test(tcase, a_start_at_zero_behind_begin_is_divided_out_from_there);
	tcase_add_loop_test(tcase, a_gap_is_its_calls_one_by_one, 0, (int)COUNT(GAPS));
	tcase_add_test(tcase, calls_on_both_sides_of_begin_copy_and_count);
	tcase_add_test(tcase, a_copy_inside_a_gap_leaves_nothing_of_the_old_shadow);
	tcase_add_test(tcase, steps_of_a_gap_lie_evenly_where_they_do_not_divide);
	tcase_add_test(tcase, a_schedule_that_spans_steps_makes_one_call_of_a_gap);
	tcase_add_test(tcase, the_longest_gap_is_soon_done);
	tcase_add_test(tcase, when_nothing_is_left_the_calls_still_count);
	tcase_add_test(tcase, a_resumed_average_goes_on_as_if_it_had_been_here);
	tcase_add_test(tcase, a_resumed_average_of_any_age_is_soon_found);
	tcase_add_loop_test(tcase, entries_are_treated_as_the_library_does, 0, (int)COUNT(ENTRIES));
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
