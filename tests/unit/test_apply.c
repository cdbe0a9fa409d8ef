/*
 * An update, against the same arithmetic written out element by element: random models, several profiles and ranks,
 * every action, and blocks in any order. Updates into another geometry are in test_apply_change.c.
 */
#include "daemon/core/apply.h"

#include "tests/unit/apply_bench.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const char *const PROFILES[] = {
	"yolo=yolo",           "constant=constant:form=lerp", "diffusers=diffusers", "kd=k-diffusion",
	"timm=timm:form=sub",  "swa=swa",                     "edm=edm",             "ep=ema-pytorch",
	"mm=mmengine",         "power=power",
};
enum { PROFILE_KINDS = sizeof PROFILES / sizeof PROFILES[0] };

/* Random profiles of one model, no kind twice. */
static uint32_t profiles_choose(const char **profiles, uint64_t *state)
{
	uint32_t first = (uint32_t)random_below(state, PROFILE_KINDS), count = 1 + (uint32_t)random_below(state, 4);

	for (uint32_t p = 0; p < count; p++)
		profiles[p] = PROFILES[(first + p * 3) % PROFILE_KINDS];
	return count;
}

static void bench_init(struct apply_bench *bench, uint64_t *state)
{
	const char *profiles[PROFILE_KINDS];
	uint32_t world = 1 + (uint32_t)random_below(state, RANDOM_WORLD_MAX), profile_count;

	memset(bench, 0, sizeof *bench);
	random_model_init(&bench->model, state, world, 1 + (uint32_t)random_below(state, 10));
	profile_count = profiles_choose(profiles, state);
	apply_bench_fill(bench, state, profiles, profile_count, NULL, NULL, 0);
	apply_bench_choose(bench, state);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(does_what_the_reference_does)
{
	uint64_t state = 0xd1b54a32d192ed03 + (uint64_t)_i;

	for (int round = 0; round < 60; round++) {
		struct apply_bench bench;

		bench_init(&bench, &state);
		apply_bench_run(&bench);
		apply_bench_check(&bench);
		apply_bench_finish(&bench);
	}
}
END_TEST

START_TEST(starts_as_a_copy_of_the_values)
{
	uint64_t state = 0x2545f4914f6cdd1d + (uint64_t)_i;

	for (int round = 0; round < 30; round++) {
		struct apply_bench bench;

		bench_init(&bench, &state);
		bench.apply.shadow = NULL;
		for (uint32_t p = 0; p < bench.out.geometry->profile_count; p++)
			bench.apply.profiles[p].start = (struct schedule_result){ .action = ACTION_COPY, .decay = 0 };
		apply_bench_run(&bench);
		apply_bench_check(&bench);
		apply_bench_finish(&bench);
	}
}
END_TEST

/* Three tensors that each span several blocks, one of them in rows. */
static void large_init(struct apply_bench *bench, uint64_t *state)
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
	apply_bench_fill(bench, state, profiles, 2, NULL, NULL, 0);
	for (int p = 0; p < 2; p++)
		bench->apply.profiles[p].actions[0] = (struct schedule_result){ .action = ACTION_LERP, .decay = 0.99 };
}

START_TEST(order_of_blocks_and_kernels_change_no_bit)
{
	uint64_t state = 0x853c49e6748fea9b;
	struct tensor_result first[3];
	struct apply_bench bench;
	uint8_t *slot;
	size_t set_count;
	const struct kernel_set *const *sets = kernel_sets(&set_count);

	large_init(&bench, &state);
	ck_assert_uint_gt(bench.out.plan->block_count, 4);
	apply_bench_run(&bench);
	apply_bench_check(&bench);
	memcpy(first, bench.results, sizeof first);
	slot = apply_bench_memory(bench.out.geometry->slot_bytes);
	memcpy(slot, bench.target, bench.out.geometry->slot_bytes);
	for (size_t set = 0; set < set_count; set++) {
		uint32_t count = bench.out.plan->block_count, order[64];

		bench.apply.kernels = sets[set];
		memset(bench.target, 0xa5, bench.out.geometry->slot_bytes);
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
		ck_assert_mem_eq(slot, bench.target, bench.out.geometry->slot_bytes);
		ck_assert_mem_eq(first, bench.results, sizeof first);
	}
	free(slot);
	apply_bench_finish(&bench);
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
	struct apply_bench bench;

	memset(&bench, 0, sizeof bench);
	bench.model.world = 1;
	bench.model.ranks[0] = manifest_of_rows(rows, 3);
	apply_bench_fill(&bench, &state, &profile, 1, NULL, NULL, 0);
	if (start)
		bench.apply.shadow = NULL;
	bench.apply.profiles[0].actions[0] = (struct schedule_result){ .action = ACTION_LERP, .decay = 0.5 };
	for (uint32_t i = 0; i < at_count; i++)
		memcpy(bench.stages[0] + bench.model.ranks[0]->pieces[1].stage_offset + at[i] * dtype_bytes(bad->dtype),
		       &bad->bits, dtype_bytes(bad->dtype));
	apply_bench_run(&bench);
	for (int t = 0; t < 3; t++)
		ret_counts[t] = bench.results[t].nonfinite;
	apply_bench_finish(&bench);
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
	struct apply_bench bench;

	bench_init(&bench, &state);
	ck_assert_uint_eq(failing_heap_sweep(init_and_finish, bench.out.plan), 2);
	failing_heap_arm(1, true);
	for (uint32_t b = 0; b < bench.out.plan->block_count; b++)
		apply_block(&bench.apply, b);
	apply_results(&bench.apply, bench.results);
	ck_assert(!failing_heap_disarm());
	apply_bench_finish(&bench);
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
	tcase_add_loop_test(tcase, counts_what_is_not_finite_wherever_it_is, 0,
	                    sizeof bad_values / sizeof bad_values[0]);
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
