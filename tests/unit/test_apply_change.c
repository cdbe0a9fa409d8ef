/*
 * Updates that lead from one geometry into another: other profiles, other tensors, other types, and second passes in
 * which some tensors get back what they had.
 */
#include "daemon/core/apply.h"

#include "tests/unit/apply_bench.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIFICATION_BYTES = 200, PROFILES = 5 };

struct choice {
	uint32_t count;
	char texts[PROFILES][SPECIFICATION_BYTES];
	const char *specifications[PROFILES];
};

/* Some of five names in any order, each with a random schedule and rules. The first tensor is averaged always. */
static void profiles_choose(struct choice *choice, uint64_t *state)
{
	static const char *const schedules[] = {
		"yolo", "diffusers", "k-diffusion", "timm:form=sub", "edm", "ema-pytorch", "mmengine:update_buffers=1",
		"constant:form=lerp", "yolo:precision=f64", "power:precision=f64", "timm:precision=f32", "paddle",
	};
	static const char *const rules[] = {
		"copy=t1*",   "freeze=t2", "drop=t[3-5]", "average@0.9=t[1-6]",
		"average=t*", "freeze=*",  "copy=*",      "average@0.25=t7",
	};
	uint32_t first = (uint32_t)random_below(state, PROFILES);

	choice->count = 1 + (uint32_t)random_below(state, PROFILES);
	for (uint32_t p = 0; p < choice->count; p++) {
		char *text = choice->texts[p];
		int used = snprintf(text, SPECIFICATION_BYTES, "p%u=%s;average=t0", (first + p) % PROFILES,
		                    schedules[random_below(state, sizeof schedules / sizeof schedules[0])]);

		while (random_below(state, 3) > 0 && used < 120)
			used += snprintf(text + used, SPECIFICATION_BYTES - (size_t)used, ";%s",
			                 rules[random_below(state, sizeof rules / sizeof rules[0])]);
		/* A decay of its own is not for schedules without one. */
		if (strstr(text, "@") && !strstr(text, "=yolo") && !strstr(text, "=constant"))
			snprintf(text, SPECIFICATION_BYTES, "p%u=timm;average=t0;average@0.75=t[1-4]",
			         (first + p) % PROFILES);
		choice->specifications[p] = text;
	}
}

/* The tensors of an earlier registration: some are not there yet, some of another type or shape, some will go. */
static struct manifest *manifest_before(const struct manifest *manifest, uint64_t *state)
{
	const uint64_t extents[DIMENSION_COUNT_MAX] = { 7 };
	struct manifest *before;

	ck_assert_int_eq(manifest_create(&before), 0);
	ck_assert_int_eq(manifest_add_tensor(before, "gone", 4, DTYPE_F32, false, extents, 1, NULL), 0);
	ck_assert_int_eq(manifest_add_piece(before, NULL, NULL, NULL), 0);
	for (uint32_t i = manifest->tensor_count; i-- > 0;) {
		const struct tensor *tensor = &manifest->tensors[i];
		enum dtype dtype = random_below(state, 3) ? tensor->dtype
		                                          : (enum dtype)random_below(state, DTYPE_COUNT);
		bool reshaped = random_below(state, 6) == 0;

		if (random_below(state, 6) == 0)
			continue;
		ck_assert_int_eq(manifest_add_tensor(before, tensor->name, strlen(tensor->name), dtype,
		                                     tensor->is_buffer, reshaped ? extents : tensor->extents,
		                                     reshaped ? 1 : tensor->dimension_count, NULL),
		                 0);
		ck_assert_int_eq(manifest_add_piece(before, NULL, NULL, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(before, NULL), 0);
	return before;
}

/* An update of a random model from a random geometry. */
static void bench_init(struct apply_bench *bench, uint64_t *state, bool adapts)
{
	uint32_t world = 1 + (uint32_t)random_below(state, RANDOM_WORLD_MAX);
	struct manifest *manifest;
	struct choice before, after;

	memset(bench, 0, sizeof *bench);
	random_model_init(&bench->model, state, world, 1 + (uint32_t)random_below(state, 10));
	profiles_choose(&before, state);
	profiles_choose(&after, state);
	/* Where every tensor was dropped there was no geometry: a drop of t0 is behind its average. */
	manifest = adapts ? manifest_before(bench->model.ranks[0], state) : manifest_share(bench->model.ranks[0]);
	for (uint32_t p = 0; adapts && p < before.count; p++)
		strcat(before.texts[p], ";average=gone");
	apply_bench_fill(bench, state, after.specifications, after.count, manifest, before.specifications,
	                 before.count);
	apply_bench_choose(bench, state);
	manifest_destroy(manifest);
}

START_TEST(other_profiles_go_on_from_what_there_was)
{
	uint64_t state = 0xd1b54a32d192ed03 + (uint64_t)_i;

	for (int round = 0; round < 60; round++) {
		struct apply_bench bench;

		bench_init(&bench, &state, false);
		apply_bench_run(&bench);
		apply_bench_check(&bench);
		apply_bench_finish(&bench);
	}
}
END_TEST

START_TEST(other_tensors_go_on_from_what_there_was)
{
	uint64_t state = 0x2545f4914f6cdd1d + (uint64_t)_i;

	for (int round = 0; round < 60; round++) {
		struct apply_bench bench;

		bench_init(&bench, &state, true);
		apply_bench_run(&bench);
		apply_bench_check(&bench);
		apply_bench_finish(&bench);
	}
}
END_TEST

/* Tensors that may be kept: those that every profile which holds them has old values of. */
static uint32_t kept_choose(const struct apply_bench *bench, bool *kept, uint64_t *state)
{
	const struct geometry *geometry = bench->out.geometry;
	uint32_t count = 0;

	for (uint32_t t = 0; t < geometry->manifest->tensor_count; t++) {
		kept[t] = random_below(state, 2);
		for (uint32_t p = 0; p < geometry->profile_count; p++) {
			size_t at = (size_t)t * geometry->profile_count + p;

			if (geometry->placements[at].entry != ENTRY_DROP && bench->sources[at].entry == ENTRY_DROP)
				kept[t] = false;
		}
		count += kept[t];
	}
	return count;
}

START_TEST(a_second_pass_gives_some_tensors_back_what_they_had)
{
	uint64_t state = 0x9e3779b97f4a7c15 + (uint64_t)_i;
	uint32_t kept_count = 0;

	for (int round = 0; round < 60; round++) {
		struct apply_bench bench;
		bool kept[16];

		bench_init(&bench, &state, round % 2);
		apply_bench_run(&bench);
		kept_count += kept_choose(&bench, kept, &state);
		bench.apply.kept = kept;
		apply_bench_run(&bench);
		apply_bench_check(&bench);
		apply_bench_finish(&bench);
	}
	ck_assert_uint_gt(kept_count, 20);
}
END_TEST

/* One float32 tensor "w" of 1501 elements, from one profile to another, by one action. */
static void change_check(const char *from, const char *to, enum dtype before, enum dtype after,
                         struct schedule_result action, enum apply_mode mode)
{
	const struct tensor_row old = { "w", before, false, SHAPE(1501) }, new = { "w", after, false, SHAPE(1501) };
	struct manifest *manifest = manifest_of_rows(&old, 1);
	uint64_t state = 0xda942042e4dd58b5;
	struct apply_bench bench = { 0 };

	bench.model.world = 1;
	bench.model.ranks[0] = manifest_of_rows(&new, 1);
	apply_bench_fill(&bench, &state, &to, 1, manifest, &from, 1);
	bench.apply.profiles[0].mode = mode;
	bench.apply.profiles[0].actions[0] = action;
	apply_bench_run(&bench);
	apply_bench_check(&bench);
	apply_bench_finish(&bench);
	manifest_destroy(manifest);
}

START_TEST(every_change_of_type_with_every_action)
{
	static const char *const profiles[] = {
		"a=yolo",        "a=yolo:precision=f64", "a=constant:form=lerp", "a=timm:form=sub,precision=f64",
		"a=yolo;copy=w", "a=yolo;freeze=w",
	};
	static const enum dtype dtypes[] = {
		DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_I64, DTYPE_BOOL,
	};
	static const struct schedule_result actions[] = {
		{ ACTION_LERP, 0.9 }, { ACTION_COPY, 0 }, { ACTION_NOOP, 1 },
	};
	const int dtype_count = sizeof dtypes / sizeof dtypes[0];

	for (int from = 0; from < 6; from++)
		for (int to = 0; to < 6; to++)
			for (int i = 0; i < dtype_count * dtype_count; i++)
				for (int action = 0; action < 5; action++)
					change_check(profiles[from], profiles[to], dtypes[i / dtype_count],
					             dtypes[i % dtype_count], actions[action % 3],
					             action < 3 ? APPLY_UPDATE : action == 3 ? APPLY_SEED : APPLY_HOLD);
}
END_TEST

START_TEST(a_start_at_zero_is_zero_and_says_nothing_of_the_values)
{
	const struct tensor_row rows[] = { { "w", DTYPE_BF16, false, SHAPE(3, 700) },
		                           { "n", DTYPE_I64, true, SHAPE(5) } };
	const char *profiles[] = { "a=yolo", "b=yolo:precision=f64" };
	uint64_t state = 0x853c49e6748fea9b;
	struct apply_bench bench = { 0 };

	bench.model.world = 2;
	for (uint32_t r = 0; r < 2; r++)
		bench.model.ranks[r] = manifest_shard(rows, 2, r, 2);
	apply_bench_fill(&bench, &state, profiles, 2, NULL, NULL, 0);
	bench.apply.shadow = NULL;
	for (int p = 0; p < 2; p++)
		bench.apply.profiles[p].start = (struct schedule_result){ ACTION_ZERO, 0 };
	apply_bench_run(&bench);
	apply_bench_check(&bench);
	ck_assert_double_eq(bench.results[0].value_squares, 0);
	apply_bench_finish(&bench);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("apply_change");
	TCase *tcase = tcase_create("apply_change");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, other_profiles_go_on_from_what_there_was, 0, 6);
	tcase_add_loop_test(tcase, other_tensors_go_on_from_what_there_was, 0, 6);
	tcase_add_loop_test(tcase, a_second_pass_gives_some_tensors_back_what_they_had, 0, 4);
	tcase_add_test(tcase, every_change_of_type_with_every_action);
	tcase_add_test(tcase, a_start_at_zero_is_zero_and_says_nothing_of_the_values);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
