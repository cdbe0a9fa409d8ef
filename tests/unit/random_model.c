/*
 * A tensor's boxes come from cutting the whole box in two, again and again, at random places.
 */
#include "tests/unit/random_model.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

uint64_t random_below(uint64_t *state, uint64_t bound)
{
	return (random_next(state) >> 11) % bound;
}

double random_value(uint64_t *state)
{
	double value = ldexp((double)(int64_t)random_next(state), -63);

	return random_below(state, 20) == 0 ? 0 : ldexp(value, (int)random_below(state, 24) - 12);
}

struct box {
	uint64_t offsets[DIMENSION_COUNT_MAX], extents[DIMENSION_COUNT_MAX];
};

/* Cuts one of the boxes in two where it can be; true when it was. */
static bool box_cut(struct box *boxes, uint32_t count, uint32_t dimension_count, uint64_t *state)
{
	struct box *box = &boxes[random_below(state, count)];
	uint32_t d = (uint32_t)random_below(state, dimension_count);
	uint64_t at;

	if (box->extents[d] < 2)
		return false;
	at = 1 + random_below(state, box->extents[d] - 1);
	boxes[count] = *box;
	boxes[count].offsets[d] += at;
	boxes[count].extents[d] -= at;
	box->extents[d] = at;
	return true;
}

static void pieces_add(struct random_model *model, const uint64_t *extents, uint32_t dimension_count, uint64_t *state)
{
	struct box boxes[12] = { 0 };
	uint32_t count = 1, tries = (uint32_t)random_below(state, 11);

	memcpy(boxes[0].extents, extents, dimension_count * sizeof *extents);
	for (uint32_t i = 0; i < tries && dimension_count > 0; i++)
		count += box_cut(boxes, count, dimension_count, state);
	for (uint32_t i = 0; i < count; i++) {
		struct manifest *rank = model->ranks[random_below(state, model->world)];

		ck_assert_int_eq(manifest_add_piece(rank, boxes[i].offsets, boxes[i].extents, NULL), 0);
	}
}

static uint32_t shape_make(uint64_t *extents, uint64_t *state)
{
	uint32_t dimension_count = (uint32_t)random_below(state, 5);

	for (uint32_t d = 0; d < dimension_count; d++)
		extents[d] = random_below(state, 12) == 0 ? 0 : 1 + random_below(state, 9);
	if (dimension_count == 1 && random_below(state, 2))
		extents[0] = 1 + random_below(state, 3000);
	return dimension_count;
}

void random_model_init(struct random_model *model, uint64_t *state, uint32_t world, uint32_t tensor_count)
{
	model->world = world;
	for (uint32_t r = 0; r < world; r++)
		ck_assert_int_eq(manifest_create(&model->ranks[r]), 0);
	for (uint32_t t = 0; t < tensor_count; t++) {
		uint64_t extents[DIMENSION_COUNT_MAX] = { 0 };
		uint32_t dimension_count = shape_make(extents, state);
		enum dtype dtype = t == 0 ? DTYPE_F32 : (enum dtype)random_below(state, DTYPE_COUNT);
		bool is_buffer = t > 0 && random_below(state, 3) == 0;
		char name[24];

		snprintf(name, sizeof name, "t%u", t);
		for (uint32_t r = 0; r < world; r++)
			ck_assert_int_eq(manifest_add_tensor(model->ranks[r], name, strlen(name), dtype, is_buffer,
			                                     extents, dimension_count, NULL),
			                 0);
		pieces_add(model, extents, dimension_count, state);
	}
	for (uint32_t r = 0; r < world; r++)
		ck_assert_int_eq(manifest_finish(model->ranks[r], NULL), 0);
	ck_assert_int_eq(manifest_tiling_check((const struct manifest *const *)model->ranks, world, NULL), 0);
}

void random_model_finish(struct random_model *model)
{
	for (uint32_t r = 0; r < model->world; r++)
		manifest_destroy(model->ranks[r]);
}

struct manifest *manifest_shard(const struct tensor_row *rows, uint32_t count, uint32_t rank, uint32_t world)
{
	struct manifest *manifest;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t offsets[5] = { 0 }, extents[5] = { 0 };
		uint32_t dimension_count = 0;

		while (rows[i].extents[dimension_count] != UINT64_MAX) {
			extents[dimension_count] = rows[i].extents[dimension_count];
			dimension_count++;
		}
		ck_assert_int_eq(manifest_add_tensor(manifest, rows[i].name, strlen(rows[i].name), rows[i].dtype,
		                                     rows[i].is_buffer, extents, dimension_count, NULL),
		                 0);
		if (dimension_count == 0 && rank > 0)
			continue;
		if (dimension_count > 0) {
			offsets[0] = rank * extents[0] / world;
			extents[0] = (rank + 1) * extents[0] / world - offsets[0];
		}
		ck_assert_int_eq(manifest_add_piece(manifest, offsets, extents, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	return manifest;
}

struct manifest *manifest_of_rows(const struct tensor_row *rows, uint32_t count)
{
	return manifest_shard(rows, count, 0, 1);
}

void laid_out_init(struct laid_out *out, struct manifest *const *ranks, uint32_t world, const char *const *profiles,
                   uint32_t profile_count)
{
	struct profile parsed[PROFILE_COUNT_MAX];
	struct reason reason = { "" };

	for (uint32_t p = 0; p < profile_count; p++)
		ck_assert_msg(profile_parse(profiles[p], strlen(profiles[p]), &parsed[p], &reason) == 0, "%s",
		              reason.text);
	ck_assert_msg(geometry_create(ranks[0], parsed, profile_count, 500, &out->geometry, &reason) == 0, "%s",
	              reason.text);
	ck_assert_int_eq(plan_create(out->geometry, (const struct manifest *const *)ranks, world, &out->plan, NULL), 0);
}

void laid_out_finish(struct laid_out *out)
{
	plan_destroy(out->plan);
	geometry_destroy(out->geometry);
}
