/*
 * The plan: whatever the boxes, every element of every tensor is in exactly one run, and the run reads it from where
 * the rank's piece has it.
 */
#include "daemon/core/plan.h"

#include "tests/unit/failing_heap.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where an element of a tensor comes from. */
struct place {
	uint32_t rank;
	uint32_t seen; /* in how many runs */
	uint64_t stage_offset;
};

/* The element of the tensor that is the index-th of the box. */
static uint64_t box_element(const struct piece *piece, const struct tensor *tensor, uint64_t index)
{
	uint64_t element = 0, stride = 1;

	for (uint32_t d = tensor->dimension_count; d-- > 0;) {
		element += (piece->offsets[d] + index % piece->extents[d]) * stride;
		index /= piece->extents[d];
		stride *= tensor->extents[d];
	}
	return element;
}

static struct place *places_make(const struct tensor *tensor, uint32_t index, struct manifest *const *ranks,
                                 uint32_t world)
{
	struct place *places = calloc(tensor->element_count + 1, sizeof *places);

	ck_assert_ptr_nonnull(places);
	for (uint32_t r = 0; r < world; r++) {
		for (uint32_t i = 0; i < ranks[r]->piece_count; i++) {
			const struct piece *piece = &ranks[r]->pieces[i];

			for (uint64_t e = 0; piece->tensor == index && e < piece->element_count; e++)
				places[box_element(piece, tensor, e)] = (struct place){
					.rank = r,
					.stage_offset = piece->stage_offset + e * dtype_bytes(tensor->dtype),
				};
		}
	}
	return places;
}

static void run_check(const struct plan *plan, const struct run *run, struct place *places)
{
	const struct tensor *tensor = &plan->geometry->manifest->tensors[run->tensor];
	uint64_t stage_offset = run->stage_offset;

	ck_assert_uint_gt(run->count, 0);
	ck_assert_uint_gt(run->repeat, 0);
	ck_assert_uint_le((uint64_t)run->count * run->repeat, PLAN_BLOCK_ELEMENTS);
	for (uint32_t i = 0; i < run->repeat; i++) {
		uint64_t first = run->first + i * run->stride;

		ck_assert_uint_le(first + run->count, tensor->element_count);
		for (uint64_t e = first; e < first + run->count; e++) {
			if (places[e].rank != run->rank || places[e].stage_offset != stage_offset)
				ck_abort_msg("tensor %s element %lu is taken from rank %u at %lu and lies on rank %u at %lu",
				             tensor->name, (unsigned long)e, run->rank, (unsigned long)stage_offset,
				             places[e].rank, (unsigned long)places[e].stage_offset);
			places[e].seen++;
			stage_offset += dtype_bytes(tensor->dtype);
		}
	}
	/* A dense run ends where a block of the slot does, so that workers do not share its cache lines. */
	if (run->repeat == 1)
		ck_assert_uint_eq((plan->geometry->origins[run->tensor] + run->first) / PLAN_BLOCK_ELEMENTS,
		                  (plan->geometry->origins[run->tensor] + run->first + run->count - 1) / PLAN_BLOCK_ELEMENTS);
}

static void blocks_check(const struct plan *plan)
{
	ck_assert_uint_eq(plan->blocks[0], 0);
	ck_assert_uint_eq(plan->blocks[plan->block_count], plan->run_count);
	ck_assert_int_eq(plan->block_count == 0, plan->run_count == 0);
	for (uint32_t b = 0; b < plan->block_count; b++) {
		uint64_t elements = 0;

		ck_assert_uint_lt(plan->blocks[b], plan->blocks[b + 1]);
		for (uint32_t i = plan->blocks[b]; i < plan->blocks[b + 1]; i++)
			elements += (uint64_t)plan->runs[i].count * plan->runs[i].repeat;
		ck_assert_uint_le(elements, PLAN_BLOCK_ELEMENTS);
	}
}

static void plan_check(const struct laid_out *out, struct manifest *const *ranks, uint32_t world)
{
	const struct plan *plan = out->plan;
	uint64_t element_count = 0;

	for (uint32_t t = 0; t < plan->geometry->manifest->tensor_count; t++) {
		const struct tensor *tensor = &plan->geometry->manifest->tensors[t];
		struct place *places = places_make(tensor, t, ranks, world);

		for (uint32_t i = 0; i < plan->run_count; i++)
			if (plan->runs[i].tensor == t)
				run_check(plan, &plan->runs[i], places);
		for (uint64_t e = 0; e < tensor->element_count; e++)
			if (places[e].seen != 1)
				ck_abort_msg("tensor %s element %lu is in %u runs", tensor->name, (unsigned long)e,
				             places[e].seen);
		element_count += tensor->element_count;
		free(places);
	}
	ck_assert_uint_eq(plan->element_count, element_count);
	blocks_check(plan);
}

/* Makes the plan of some whole tensors and checks it; returns it laid out. */
static struct laid_out whole_plan(struct manifest *manifest, const char *profile)
{
	struct manifest *ranks[] = { manifest };
	struct laid_out out;

	laid_out_init(&out, ranks, 1, &profile, 1);
	plan_check(&out, ranks, 1);
	return out;
}

START_TEST(a_whole_tensor_is_one_run)
{
	static const struct tensor_row rows[] = {
		{ "a", DTYPE_F32, false, SHAPE(3, 4, 5) },
		{ "b", DTYPE_F64, false, SCALAR },
		{ "c", DTYPE_BF16, false, SHAPE(7) },
	};
	struct manifest *manifest = manifest_of_rows(rows, 3);
	struct laid_out out = whole_plan(manifest, "ema=yolo");

	ck_assert_uint_eq(out.plan->run_count, 3);
	ck_assert_uint_eq(out.plan->block_count, 1);
	/* In the order of the image: the widest first. */
	ck_assert_uint_eq(out.plan->runs[0].tensor, 1);
	ck_assert_uint_eq(out.plan->runs[0].count, 1);
	ck_assert_uint_eq(out.plan->runs[1].count, 60);
	ck_assert_uint_eq(out.plan->runs[2].count, 7);
	laid_out_finish(&out);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(tensors_without_elements_are_in_no_run)
{
	static const struct tensor_row rows[] = {
		{ "a", DTYPE_F32, false, SHAPE(0) },
		{ "b", DTYPE_F32, false, SHAPE(4, 0, 3) },
		{ "c", DTYPE_I64, false, SHAPE(0, 0) },
		{ "d", DTYPE_F32, false, SHAPE(2) },
	};
	struct manifest *manifest = manifest_of_rows(rows, 4);
	struct laid_out out = whole_plan(manifest, "ema=yolo");

	ck_assert_uint_eq(out.plan->run_count, 1);
	laid_out_finish(&out);
	manifest_destroy(manifest);
	manifest = manifest_of_rows(rows, 3);
	out = whole_plan(manifest, "ema=yolo");
	ck_assert_uint_eq(out.plan->run_count, 0);
	ck_assert_uint_eq(out.plan->block_count, 0);
	laid_out_finish(&out);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(large_tensors_are_cut_at_blocks_of_the_slot)
{
	static const struct tensor_row rows[] = {
		{ "a", DTYPE_F32, false, SHAPE(3, PLAN_BLOCK_ELEMENTS) },
		{ "b", DTYPE_F32, false, SHAPE(PLAN_BLOCK_ELEMENTS - 1) },
		{ "c", DTYPE_BF16, false, SHAPE(PLAN_BLOCK_ELEMENTS + 1) },
		{ "d", DTYPE_F64, false, SHAPE(5) },
	};
	struct manifest *manifest = manifest_of_rows(rows, 4);
	struct laid_out out = whole_plan(manifest, "ema=yolo");

	ck_assert_uint_ge(out.plan->block_count, 5);
	laid_out_finish(&out);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(many_tiny_tensors_share_a_block)
{
	const char *profile = "ema=yolo";
	struct manifest *manifest;
	struct laid_out out;
	char name[16];

	ck_assert_int_eq(manifest_create(&manifest), 0);
	for (unsigned i = 0; i < 20000; i++) {
		const uint64_t extents[] = { i % 4 + 1 };

		snprintf(name, sizeof name, "t%u", i);
		ck_assert_int_eq(manifest_add_tensor(manifest, name, strlen(name), DTYPE_F32, false, extents, 1, NULL), 0);
		ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	laid_out_init(&out, &manifest, 1, &profile, 1);
	ck_assert_uint_eq(out.plan->run_count, 20000);
	ck_assert_uint_eq(out.plan->block_count, 1);
	for (uint32_t i = 0; i < out.plan->run_count; i++)
		if (out.plan->runs[i].tensor != i || out.plan->runs[i].count != i % 4 + 1)
			ck_abort_msg("run %u is of tensor %u", i, out.plan->runs[i].tensor);
	laid_out_finish(&out);
	manifest_destroy(manifest);
}
END_TEST

/* Adds a tensor to both ranks and cuts it at `at` of dimension d. */
static void halves_add(struct manifest *const *ranks, const char *name, const uint64_t *extents,
                       uint32_t dimension_count, uint32_t d, uint64_t at)
{
	for (uint32_t r = 0; r < 2; r++) {
		uint64_t offsets[4] = { 0 }, part[4];

		memcpy(part, extents, dimension_count * sizeof *extents);
		offsets[d] = r ? at : 0;
		part[d] = r ? extents[d] - at : at;
		ck_assert_int_eq(manifest_add_tensor(ranks[r], name, strlen(name), DTYPE_F32, false, extents,
		                                     dimension_count, NULL),
		                 0);
		ck_assert_int_eq(manifest_add_piece(ranks[r], offsets, part, NULL), 0);
	}
}

/* Two ranks that share one tensor. */
static struct laid_out halves_plan(const uint64_t *extents, uint32_t dimension_count, uint32_t d, uint64_t at)
{
	const char *profile = "ema=yolo";
	struct manifest *ranks[2];
	struct laid_out out;

	for (int r = 0; r < 2; r++)
		ck_assert_int_eq(manifest_create(&ranks[r]), 0);
	halves_add(ranks, "w", extents, dimension_count, d, at);
	for (int r = 0; r < 2; r++)
		ck_assert_int_eq(manifest_finish(ranks[r], NULL), 0);
	laid_out_init(&out, ranks, 2, &profile, 1);
	plan_check(&out, ranks, 2);
	for (int r = 0; r < 2; r++)
		manifest_destroy(ranks[r]);
	return out;
}

START_TEST(shards_of_the_first_dimension_are_dense)
{
	struct laid_out out = halves_plan((const uint64_t[]){ 10, 6 }, 2, 0, 4);

	ck_assert_uint_eq(out.plan->run_count, 2);
	ck_assert_uint_eq(out.plan->runs[0].count, 24);
	ck_assert_uint_eq(out.plan->runs[1].count, 36);
	ck_assert_uint_eq(out.plan->runs[1].first, 24);
	laid_out_finish(&out);
}
END_TEST

START_TEST(shards_of_an_inner_dimension_repeat)
{
	struct laid_out out = halves_plan((const uint64_t[]){ 10, 6 }, 2, 1, 2);

	ck_assert_uint_eq(out.plan->run_count, 2);
	ck_assert_uint_eq(out.plan->runs[0].count, 2);
	ck_assert_uint_eq(out.plan->runs[0].repeat, 10);
	ck_assert_uint_eq(out.plan->runs[0].stride, 6);
	ck_assert_uint_eq(out.plan->runs[1].first, 2);
	laid_out_finish(&out);
	out = halves_plan((const uint64_t[]){ 3, 8, 5, 4 }, 4, 1, 3);
	ck_assert_uint_eq(out.plan->runs[0].count, 60);
	ck_assert_uint_eq(out.plan->runs[0].repeat, 3);
	laid_out_finish(&out);
	out = halves_plan((const uint64_t[]){ 3, 8, 5, 4 }, 4, 3, 1);
	ck_assert_uint_eq(out.plan->runs[0].count, 1);
	laid_out_finish(&out);
}
END_TEST

START_TEST(rows_larger_than_half_a_block_are_cut_like_dense_ones)
{
	struct laid_out out = halves_plan((const uint64_t[]){ 3, PLAN_BLOCK_ELEMENTS + 100 }, 2, 1, 50);

	laid_out_finish(&out);
	out = halves_plan((const uint64_t[]){ 3, PLAN_BLOCK_ELEMENTS }, 2, 1, PLAN_BLOCK_ELEMENTS / 2 + 1);
	laid_out_finish(&out);
	out = halves_plan((const uint64_t[]){ 5, PLAN_BLOCK_ELEMENTS }, 2, 1, PLAN_BLOCK_ELEMENTS / 2);
	laid_out_finish(&out);
}
END_TEST

START_TEST(random_boxes_are_covered_once)
{
	static const char *const profiles[] = { "a=yolo", "b=diffusers", "c=k-diffusion" };
	uint64_t state = 0x9e3779b97f4a7c15 + (uint64_t)_i;

	for (int round = 0; round < 40; round++) {
		uint32_t world = 1 + (uint32_t)random_below(&state, RANDOM_WORLD_MAX);
		struct random_model model;
		struct laid_out out;

		random_model_init(&model, &state, world, 1 + (uint32_t)random_below(&state, 8));
		laid_out_init(&out, model.ranks, world, profiles, 3);
		plan_check(&out, model.ranks, world);
		laid_out_finish(&out);
		random_model_finish(&model);
	}
}
END_TEST

START_TEST(knows_where_each_profile_has_a_tensor)
{
	static const struct tensor_row rows[] = {
		{ "weight", DTYPE_F16, false, SHAPE(6) },
		{ "running_mean", DTYPE_F32, true, SHAPE(3) },
		{ "batches", DTYPE_I64, true, SCALAR },
	};
	/* yolo averages float buffers and freezes integers; diffusers drops both; k-diffusion copies them. */
	static const char *const profiles[] = { "a=diffusers", "b=yolo", "c=k-diffusion" };
	static const enum schedule_entry entries[3][3] = {
		{ ENTRY_AVERAGE, ENTRY_AVERAGE, ENTRY_AVERAGE },
		{ ENTRY_DROP, ENTRY_AVERAGE, ENTRY_COPY },
		{ ENTRY_DROP, ENTRY_FREEZE, ENTRY_COPY },
	};
	struct manifest *manifest = manifest_of_rows(rows, 3);
	struct manifest *ranks[] = { manifest };
	struct laid_out out;

	laid_out_init(&out, ranks, 1, profiles, 3);
	plan_check(&out, ranks, 1);
	for (uint32_t t = 0; t < 3; t++) {
		for (uint32_t p = 0; p < 3; p++) {
			const struct placement *at = &out.geometry->placements[t * 3 + p];
			const struct image *image = out.geometry->images[p];

			ck_assert_int_eq(at->entry, entries[t][p]);
			if (at->entry == ENTRY_DROP)
				continue;
			ck_assert_uint_eq(at->offset, out.geometry->region_offsets[p] + image->data_offset +
			                                      image->tensors[image->index_of[t]].offset);
			ck_assert_uint_eq(at->offset % dtype_bytes(at->dtype), 0);
		}
		ck_assert_uint_eq(out.geometry->origins[t] * dtype_bytes(out.geometry->placements[t * 3 + (t ? 1 : 0)].dtype),
		                  out.geometry->placements[t * 3 + (t ? 1 : 0)].offset);
	}
	ck_assert_int_eq(out.geometry->placements[0].dtype, DTYPE_F32);
	laid_out_finish(&out);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(boxes_of_single_elements_end_at_a_limit)
{
	const uint64_t extents[] = { PLAN_RUN_COUNT_MAX / 4 + 1, 2, 2 };
	const char *specification = "ema=timm";
	struct manifest *manifest;
	struct profile profile;
	struct geometry *geometry;
	struct reason reason = { "" };
	struct plan *plan = NULL;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	ck_assert_int_eq(manifest_add_tensor(manifest, "w", 1, DTYPE_BF16, false, extents, 3, NULL), 0);
	for (uint64_t i = 0; i < 4; i++)
		ck_assert_int_eq(manifest_add_piece(manifest, (const uint64_t[]){ 0, i / 2, i % 2 },
		                                    (const uint64_t[]){ extents[0], 1, 1 }, NULL),
		                 0);
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	ck_assert_int_eq(profile_parse(specification, strlen(specification), &profile, NULL), 0);
	ck_assert_int_eq(geometry_create(manifest, &profile, 1, 100, &geometry, NULL), 0);
	ck_assert_int_eq(plan_create(geometry, (const struct manifest *const[]){ manifest }, 1, &plan, &reason),
	                 STATUS_ELIMIT);
	ck_assert_ptr_null(plan);
	ck_assert_msg(strstr(reason.text, "4194304") != NULL, "%s", reason.text);
	geometry_destroy(geometry);
	manifest_destroy(manifest);
}
END_TEST

struct parts {
	struct laid_out out;
	struct manifest *ranks[1];
};

static int create(void *context)
{
	struct parts *parts = context;
	struct plan *plan = NULL;
	int error = plan_create(parts->out.geometry, (const struct manifest *const *)parts->ranks, 1, &plan, NULL);

	plan_destroy(plan);
	return error;
}

START_TEST(every_allocation_may_fail)
{
	static const struct tensor_row rows[] = { { "w", DTYPE_F32, false, SHAPE(2, 3) } };
	const char *profile = "ema=yolo";
	struct manifest *manifest;
	struct parts parts;

	manifest = manifest_of_rows(rows, 1);
	parts.ranks[0] = manifest;
	laid_out_init(&parts.out, parts.ranks, 1, &profile, 1);
	ck_assert_uint_ge(failing_heap_sweep(create, &parts), 6);
	laid_out_finish(&parts.out);
	manifest_destroy(manifest);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("plan");
	TCase *tcase = tcase_create("plan");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, a_whole_tensor_is_one_run);
	tcase_add_test(tcase, tensors_without_elements_are_in_no_run);
	tcase_add_test(tcase, large_tensors_are_cut_at_blocks_of_the_slot);
	tcase_add_test(tcase, many_tiny_tensors_share_a_block);
	tcase_add_test(tcase, shards_of_the_first_dimension_are_dense);
	tcase_add_test(tcase, shards_of_an_inner_dimension_repeat);
	tcase_add_test(tcase, rows_larger_than_half_a_block_are_cut_like_dense_ones);
	tcase_add_loop_test(tcase, random_boxes_are_covered_once, 0, 5);
	tcase_add_test(tcase, knows_where_each_profile_has_a_tensor);
	tcase_add_test(tcase, boxes_of_single_elements_end_at_a_limit);
	tcase_add_test(tcase, every_allocation_may_fail);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
