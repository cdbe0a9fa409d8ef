/*
 * An update, against the same arithmetic written out element by element: random models, several profiles and ranks,
 * every action, and blocks in any order.
 */
#include "daemon/core/apply.h"

#include "proto/layout.h"
#include "tests/unit/failing_heap.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNTOUCHED = 0xa5 };

static const char *const PROFILES[] = {
	"yolo=yolo",           "constant=constant:form=lerp", "diffusers=diffusers", "kd=k-diffusion",
	"timm=timm:form=sub",  "swa=swa",                     "edm=edm",             "ep=ema-pytorch",
	"mm=mmengine",         "power=power",
};
enum { PROFILE_KINDS = sizeof PROFILES / sizeof PROFILES[0] };

/* A model with memory to update: stages of every rank, an old and a new slot. */
struct bench {
	struct random_model model;
	struct laid_out out;
	uint8_t *stages[RANDOM_WORLD_MAX];
	uint8_t *shadow, *target;
	struct apply apply;
	struct tensor_result *results;
};

static uint8_t *memory_make(uint64_t bytes)
{
	uint8_t *memory = aligned_alloc(LAYOUT_PAGE_BYTES, layout_page_round(bytes + 1));

	ck_assert_ptr_nonnull(memory);
	memset(memory, UNTOUCHED, bytes + 1);
	return memory;
}

static double element_read(enum dtype dtype, const uint8_t *bytes)
{
	double value = 0;
	float narrow;

	switch (dtype) {
	case DTYPE_F64:
		memcpy(&value, bytes, sizeof value);
		return value;
	case DTYPE_F32:
		memcpy(&narrow, bytes, sizeof narrow);
		return (double)narrow;
	default:
		kernel_scalar.widen_f32[dtype](&narrow, bytes, 1);
		return (double)narrow;
	}
}

/* Random bytes that are a finite value of the dtype. */
static void element_fill(enum dtype dtype, uint8_t *bytes, uint64_t *state)
{
	double value = random_value(state);
	float narrow = (float)value;

	if (dtype == DTYPE_F64) {
		memcpy(bytes, &value, sizeof value);
		return;
	}
	if (dtype == DTYPE_F32) {
		memcpy(bytes, &narrow, sizeof narrow);
		return;
	}
	do {
		uint64_t bits = random_next(state) >> 7;

		memcpy(bytes, &bits, dtype_bytes(dtype));
	} while (dtype_is_float(dtype) && !isfinite(element_read(dtype, bytes)));
}

static void stages_fill(struct bench *bench, uint64_t *state)
{
	for (uint32_t r = 0; r < bench->model.world; r++) {
		const struct manifest *rank = bench->model.ranks[r];

		bench->stages[r] = memory_make(rank->stage_bytes);
		bench->apply.stages[r] = bench->stages[r];
		for (uint32_t i = 0; i < rank->piece_count; i++) {
			const struct piece *piece = &rank->pieces[i];
			enum dtype dtype = rank->tensors[piece->tensor].dtype;

			for (uint64_t e = 0; e < piece->element_count; e++)
				element_fill(dtype, bench->stages[r] + piece->stage_offset + e * dtype_bytes(dtype), state);
		}
	}
}

static void slots_fill(struct bench *bench, uint64_t *state)
{
	const struct plan *plan = bench->out.plan;

	bench->shadow = memory_make(bench->out.slot_bytes);
	bench->target = memory_make(bench->out.slot_bytes);
	for (uint32_t t = 0; t < plan->manifest->tensor_count; t++) {
		for (uint32_t p = 0; p < plan->profile_count; p++) {
			const struct placement *at = &plan->placements[t * plan->profile_count + p];

			for (uint64_t e = 0; at->entry != ENTRY_DROP && e < plan->manifest->tensors[t].element_count; e++)
				element_fill(at->dtype, bench->shadow + at->offset + e * dtype_bytes(at->dtype), state);
		}
	}
	bench->apply.shadow = bench->shadow;
	bench->apply.target = bench->target;
}

/* Random profiles of one model, no kind twice. */
static uint32_t profiles_choose(const char **profiles, uint64_t *state)
{
	uint32_t first = (uint32_t)random_below(state, PROFILE_KINDS), count = 1 + (uint32_t)random_below(state, 4);

	for (uint32_t p = 0; p < count; p++)
		profiles[p] = PROFILES[(first + p * 3) % PROFILE_KINDS];
	return count;
}

static void actions_choose(struct bench *bench, uint64_t *state)
{
	static const double decays[] = { 0.9999, 0.5, 1.0 / 3, 0.999999, 1e-3 };

	for (uint32_t p = 0; p < bench->out.profile_count; p++) {
		bench->apply.actions[p] = (struct schedule_result){ .action = ACTION_LERP, .decay = decays[random_below(state, 5)] };
		if (random_below(state, 4) == 0)
			bench->apply.actions[p] = (struct schedule_result){ .action = ACTION_COPY, .decay = 0 };
		else if (random_below(state, 4) == 0)
			bench->apply.actions[p] = (struct schedule_result){ .action = ACTION_NOOP, .decay = 1 };
	}
}

static void bench_init(struct bench *bench, uint64_t *state)
{
	const char *profiles[PROFILE_KINDS];
	uint32_t world = 1 + (uint32_t)random_below(state, RANDOM_WORLD_MAX), profile_count;

	memset(bench, 0, sizeof *bench);
	random_model_init(&bench->model, state, world, 1 + (uint32_t)random_below(state, 10));
	profile_count = profiles_choose(profiles, state);
	laid_out_init(&bench->out, (const struct manifest *const *)bench->model.ranks, world, profiles, profile_count);
	ck_assert_int_eq(apply_init(&bench->apply, bench->out.plan), 0);
	stages_fill(bench, state);
	slots_fill(bench, state);
	actions_choose(bench, state);
	bench->results = calloc(bench->out.manifest->tensor_count, sizeof *bench->results);
	ck_assert_ptr_nonnull(bench->results);
}

static void bench_finish(struct bench *bench)
{
	apply_finish(&bench->apply);
	laid_out_finish(&bench->out);
	for (uint32_t r = 0; r < bench->model.world; r++)
		free(bench->stages[r]);
	random_model_finish(&bench->model);
	free(bench->shadow);
	free(bench->target);
	free(bench->results);
}

static void blocks_do(struct bench *bench)
{
	for (uint32_t b = 0; b < bench->out.plan->block_count; b++)
		apply_block(&bench->apply, b);
	apply_results(&bench->apply, bench->results);
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static float blend_f32(enum schedule_form form, double decay, float s, float x)
{
	float keep = (float)decay, take = (float)(1.0 - decay);

	switch (form) {
	case FORM_LERP:
		return s + take * (x - s);
	case FORM_MUL_ADD:
		return s * keep + take * x;
	case FORM_SUB:
		return s - take * (s - x);
	}
	abort();
}

static double blend_f64(enum schedule_form form, double decay, double s, double x)
{
	double take = 1.0 - decay;

	switch (form) {
	case FORM_LERP:
		return s + take * (x - s);
	case FORM_MUL_ADD:
		return s * decay + take * x;
	case FORM_SUB:
		return s - take * (s - x);
	}
	abort();
}

/* What the new slot must hold of one element of one profile. */
static void element_expect(const struct bench *bench, const struct placement *at, uint32_t p, enum dtype pushed,
                           const uint8_t *value, const uint8_t *shadow, uint8_t *expected)
{
	const struct schedule_result *action = &bench->apply.actions[p];
	enum schedule_form form = bench->out.plan->forms[p];
	bool start = bench->apply.shadow == NULL;
	double x = dtype_is_float(pushed) ? element_read(pushed, value) : 0, wide;
	float narrow;

	if (at->entry != ENTRY_AVERAGE) {
		memcpy(expected, start || at->entry == ENTRY_COPY ? value : shadow, dtype_bytes(at->dtype));
	} else if (action->action == ACTION_NOOP) {
		memcpy(expected, shadow, dtype_bytes(at->dtype));
	} else if (at->dtype == DTYPE_F64) {
		wide = action->action == ACTION_COPY ? x : blend_f64(form, action->decay, element_read(DTYPE_F64, shadow), x);
		memcpy(expected, &wide, sizeof wide);
	} else {
		narrow = action->action == ACTION_COPY
		                 ? (float)x
		                 : blend_f32(form, action->decay, (float)element_read(DTYPE_F32, shadow), (float)x);
		memcpy(expected, &narrow, sizeof narrow);
	}
}

static double drift_square(const struct placement *at, const uint8_t *shadow, double x)
{
	double s = element_read(at->dtype, shadow);

	if (at->dtype == DTYPE_F64)
		return (x - s) * (x - s);
	return (double)((float)x - (float)s) * (double)((float)x - (float)s);
}

/* Writes the expected new slot and the expected sums of a piece. */
static void piece_expect(const struct bench *bench, uint32_t rank, const struct piece *piece, uint8_t *expected,
                         struct tensor_result *results)
{
	const struct plan *plan = bench->out.plan;
	const struct tensor *tensor = &plan->manifest->tensors[piece->tensor];
	const uint8_t *value = bench->stages[rank] + piece->stage_offset;

	for (uint64_t i = 0; i < piece->element_count; i++, value += dtype_bytes(tensor->dtype)) {
		uint64_t element = 0, stride = 1, index = i;
		bool blended = false;

		for (uint32_t d = tensor->dimension_count; d-- > 0;) {
			element += (piece->offsets[d] + index % piece->extents[d]) * stride;
			index /= piece->extents[d];
			stride *= tensor->extents[d];
		}
		for (uint32_t p = 0; p < plan->profile_count; p++) {
			const struct placement *at = &plan->placements[piece->tensor * plan->profile_count + p];
			uint64_t offset = at->offset + element * dtype_bytes(at->dtype);
			const uint8_t *shadow = bench->shadow + offset;

			if (at->entry == ENTRY_DROP)
				continue;
			element_expect(bench, at, p, tensor->dtype, value, shadow, expected + offset);
			if (at->entry != ENTRY_AVERAGE || bench->apply.actions[p].action == ACTION_NOOP)
				continue;
			blended = true;
			if (bench->apply.shadow)
				results[piece->tensor].drift_squares[p] +=
				        drift_square(at, shadow, element_read(tensor->dtype, value));
		}
		if (blended)
			results[piece->tensor].value_squares +=
			        element_read(tensor->dtype, value) * element_read(tensor->dtype, value);
	}
}

static void near(double here, double expected, const char *what, uint32_t tensor)
{
	if (!(fabs(here - expected) <= 1e-12 * fabs(expected)))
		ck_abort_msg("%s of tensor %u: %.17g, and %.17g in the reference", what, tensor, here, expected);
}

static void bench_check(const struct bench *bench)
{
	const struct plan *plan = bench->out.plan;
	uint8_t *expected = memory_make(bench->out.slot_bytes);
	struct tensor_result *results = calloc(plan->manifest->tensor_count, sizeof *results);

	for (uint32_t r = 0; r < bench->model.world; r++)
		for (uint32_t i = 0; i < bench->model.ranks[r]->piece_count; i++)
			piece_expect(bench, r, &bench->model.ranks[r]->pieces[i], expected, results);
	for (uint64_t i = 0; i <= bench->out.slot_bytes; i++)
		if (bench->target[i] != expected[i])
			ck_abort_msg("byte %lu of the slot is %02x, and %02x in the reference", (unsigned long)i,
			             bench->target[i], expected[i]);
	for (uint32_t t = 0; t < plan->manifest->tensor_count; t++) {
		ck_assert_uint_eq(bench->results[t].nonfinite, 0);
		near(bench->results[t].value_squares, results[t].value_squares, "squares", t);
		for (uint32_t p = 0; p < plan->profile_count; p++)
			near(bench->results[t].drift_squares[p], results[t].drift_squares[p], "drift", t);
	}
	free(expected);
	free(results);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(does_what_the_reference_does)
{
	uint64_t state = 0xd1b54a32d192ed03 + (uint64_t)_i;

	for (int round = 0; round < 60; round++) {
		struct bench bench;

		bench_init(&bench, &state);
		blocks_do(&bench);
		bench_check(&bench);
		bench_finish(&bench);
	}
}
END_TEST

START_TEST(starts_as_a_copy_of_the_values)
{
	uint64_t state = 0x2545f4914f6cdd1d + (uint64_t)_i;

	for (int round = 0; round < 30; round++) {
		struct bench bench;

		bench_init(&bench, &state);
		bench.apply.shadow = NULL;
		for (uint32_t p = 0; p < bench.out.profile_count; p++)
			bench.apply.actions[p] = (struct schedule_result){ .action = ACTION_COPY, .decay = 0 };
		blocks_do(&bench);
		bench_check(&bench);
		bench_finish(&bench);
	}
}
END_TEST

/* Three tensors that each span several blocks, one of them in rows. */
static void large_init(struct bench *bench, uint64_t *state)
{
	static const struct tensor_row rows[] = {
		{ "a", DTYPE_F32, false, SHAPE(5, 150001) },
		{ "b", DTYPE_BF16, false, SHAPE(300007) },
		{ "c", DTYPE_F64, false, SHAPE(3, 7, 11) },
	};
	static const char *const profiles[] = { "a=yolo", "b=constant" };

	memset(bench, 0, sizeof *bench);
	bench->model.world = 2;
	for (uint32_t r = 0; r < 2; r++)
		bench->model.ranks[r] = manifest_shard(rows, 3, r, 2);
	laid_out_init(&bench->out, (const struct manifest *const *)bench->model.ranks, 2, profiles, 2);
	ck_assert_int_eq(apply_init(&bench->apply, bench->out.plan), 0);
	stages_fill(bench, state);
	slots_fill(bench, state);
	for (int p = 0; p < 2; p++)
		bench->apply.actions[p] = (struct schedule_result){ .action = ACTION_LERP, .decay = 0.99 };
	bench->results = calloc(3, sizeof *bench->results);
}

START_TEST(order_of_blocks_and_kernels_change_no_bit)
{
	uint64_t state = 0x853c49e6748fea9b;
	struct tensor_result first[3];
	struct bench bench;
	uint8_t *slot;
	size_t set_count;
	const struct kernel_set *const *sets = kernel_sets(&set_count);

	large_init(&bench, &state);
	ck_assert_uint_gt(bench.out.plan->block_count, 4);
	blocks_do(&bench);
	bench_check(&bench);
	memcpy(first, bench.results, sizeof first);
	slot = memory_make(bench.out.slot_bytes);
	memcpy(slot, bench.target, bench.out.slot_bytes);
	for (size_t set = 0; set < set_count; set++) {
		uint32_t count = bench.out.plan->block_count, order[64];

		bench.apply.kernels = sets[set];
		memset(bench.target, UNTOUCHED, bench.out.slot_bytes);
		for (uint32_t b = 0; b < count; b++)
			order[b] = b;
		for (uint32_t b = count; b > 1; b--) {
			uint32_t other = (uint32_t)random_below(&state, b), kept = order[b - 1];

			order[b - 1] = order[other];
			order[other] = kept;
		}
		for (uint32_t b = 0; b < count; b++)
			apply_block(&bench.apply, order[b]);
		apply_results(&bench.apply, bench.results);
		ck_assert_mem_eq(slot, bench.target, bench.out.slot_bytes);
		ck_assert_mem_eq(first, bench.results, sizeof first);
	}
	free(slot);
	bench_finish(&bench);
}
END_TEST

struct bad_case {
	enum dtype dtype;
	uint64_t bits;
};

static const struct bad_case bad_values[] = {
	{ DTYPE_F64, 0x7ff8000000000000 }, { DTYPE_F64, 0xfff0000000000000 }, { DTYPE_F32, 0x7fc00000 },
	{ DTYPE_F32, 0xff800000 },         { DTYPE_F16, 0x7e00 },             { DTYPE_F16, 0xfc00 },
	{ DTYPE_BF16, 0x7fc0 },            { DTYPE_BF16, 0xff80 },            { DTYPE_F8_E4M3, 0x7f },
	{ DTYPE_F8_E4M3, 0xff },           { DTYPE_F8_E5M2, 0x7c },           { DTYPE_F8_E5M2, 0xfe },
};

/* One tensor of the dtype between two others, and the number of bad values that an update finds in each. */
static void bad_find(const struct bad_case *bad, bool is_buffer, const char *profile, const uint64_t *at,
                     uint32_t at_count, bool start, uint64_t *ret_counts)
{
	struct tensor_row rows[] = {
		{ "a", DTYPE_F32, false, SHAPE(9) },
		{ "b", bad->dtype, is_buffer, SHAPE(1501) },
		{ "c", DTYPE_F32, false, SHAPE(9) },
	};
	uint64_t state = 0xda942042e4dd58b5;
	struct bench bench;

	memset(&bench, 0, sizeof bench);
	bench.model.world = 1;
	bench.model.ranks[0] = manifest_of_rows(rows, 3);
	laid_out_init(&bench.out, (const struct manifest *const *)bench.model.ranks, 1, &profile, 1);
	ck_assert_int_eq(apply_init(&bench.apply, bench.out.plan), 0);
	stages_fill(&bench, &state);
	slots_fill(&bench, &state);
	if (start)
		bench.apply.shadow = NULL;
	bench.apply.actions[0] = (struct schedule_result){ .action = start ? ACTION_COPY : ACTION_LERP, .decay = 0.5 };
	bench.results = calloc(3, sizeof *bench.results);
	for (uint32_t i = 0; i < at_count; i++)
		memcpy(bench.stages[0] + bench.model.ranks[0]->pieces[1].stage_offset + at[i] * dtype_bytes(bad->dtype),
		       &bad->bits, dtype_bytes(bad->dtype));
	blocks_do(&bench);
	for (int t = 0; t < 3; t++)
		ret_counts[t] = bench.results[t].nonfinite;
	bench_finish(&bench);
}

START_TEST(counts_what_is_not_finite_wherever_it_is)
{
	static const uint64_t places[] = { 0, 1500, 777 };
	static const char *const profiles[] = { "a=yolo", "a=k-diffusion" }; /* averages float buffers; copies them */
	uint64_t counts[3];

	for (int profile = 0; profile < 2; profile++) {
		for (int start = 0; start < 2; start++) {
			for (int i = 0; i < 3; i++) {
				bad_find(&bad_values[_i], true, profiles[profile], &places[i], 1, start, counts);
				ck_assert_uint_eq(counts[0], 0);
				ck_assert_msg(counts[1] == 1, "%lu found at %lu, profile %d, start %d",
				              (unsigned long)counts[1], (unsigned long)places[i], profile, start);
				ck_assert_uint_eq(counts[2], 0);
			}
			bad_find(&bad_values[_i], false, profiles[profile], places, 3, start, counts);
			ck_assert_uint_eq(counts[1], 3);
		}
	}
}
END_TEST

START_TEST(does_not_look_at_what_every_profile_drops)
{
	static const uint64_t place = 5;
	uint64_t counts[3];

	for (int start = 0; start < 2; start++) {
		bad_find(&bad_values[2], true, "a=diffusers", &place, 1, start, counts);
		ck_assert_uint_eq(counts[1], 0);
	}
}
END_TEST

START_TEST(huge_values_are_finite)
{
	const struct bad_case huge[] = {
		{ DTYPE_F64, 0x7fefffffffffffff }, { DTYPE_F32, 0xff7fffff }, { DTYPE_F16, 0x7bff },
		{ DTYPE_BF16, 0xff7f },            { DTYPE_F8_E4M3, 0x7e },   { DTYPE_F8_E5M2, 0x7b },
	};
	static const uint64_t places[] = { 0, 1, 1500, 777 };
	uint64_t counts[3];

	for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
		for (int start = 0; start < 2; start++) {
			bad_find(&huge[i], false, "a=yolo", places, 4, start, counts);
			ck_assert_uint_eq(counts[1], 0);
			bad_find(&huge[i], true, "a=k-diffusion", places, 4, start, counts);
			ck_assert_uint_eq(counts[1], 0);
		}
	}
}
END_TEST

static int init_and_finish(void *context)
{
	struct apply apply;
	int error = apply_init(&apply, context);

	if (!error)
		apply_finish(&apply);
	return error;
}

START_TEST(room_for_the_results_is_all_that_is_allocated)
{
	uint64_t state = 0x94d049bb133111eb;
	struct bench bench;

	bench_init(&bench, &state);
	ck_assert_uint_eq(failing_heap_sweep(init_and_finish, bench.out.plan), 2);
	failing_heap_arm(1, true);
	for (uint32_t b = 0; b < bench.out.plan->block_count; b++)
		apply_block(&bench.apply, b);
	apply_results(&bench.apply, bench.results);
	ck_assert(!failing_heap_disarm());
	bench_finish(&bench);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("apply");
	TCase *tcase = tcase_create("apply");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, does_what_the_reference_does, 0, 8);
	tcase_add_loop_test(tcase, starts_as_a_copy_of_the_values, 0, 4);
	tcase_add_test(tcase, order_of_blocks_and_kernels_change_no_bit);
	tcase_add_loop_test(tcase, counts_what_is_not_finite_wherever_it_is, 0, sizeof bad_values / sizeof bad_values[0]);
	tcase_add_test(tcase, does_not_look_at_what_every_profile_drops);
	tcase_add_test(tcase, huge_values_are_finite);
	tcase_add_test(tcase, room_for_the_results_is_all_that_is_allocated);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
