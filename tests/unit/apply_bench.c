/*
 * The reference knows nothing of sources and groups: it looks for a tensor's old values by name and shape, and for its
 * decay by asking the profile.
 */
#include "tests/unit/apply_bench.h"

#include "proto/layout.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNTOUCHED = 0xa5 };

uint8_t *apply_bench_memory(uint64_t bytes)
{
	uint8_t *memory = aligned_alloc(LAYOUT_PAGE_BYTES, layout_page_round(bytes + 1));

	ck_assert_ptr_nonnull(memory);
	memset(memory, UNTOUCHED, bytes + 1);
	return memory;
}

double element_read(enum dtype dtype, const uint8_t *bytes)
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

static void element_write(enum dtype dtype, double value, uint8_t *bytes)
{
	float narrow = (float)value;

	if (dtype == DTYPE_F64)
		memcpy(bytes, &value, sizeof value);
	else
		memcpy(bytes, &narrow, sizeof narrow);
}

void element_fill(enum dtype dtype, uint8_t *bytes, uint64_t *state)
{
	double value = random_value(state);

	if (dtype == DTYPE_F64 || dtype == DTYPE_F32) {
		element_write(dtype, value, bytes);
		return;
	}
	do {
		uint64_t bits = random_next(state) >> 7;

		memcpy(bytes, &bits, dtype_bytes(dtype));
	} while (dtype_is_float(dtype) && !isfinite(element_read(dtype, bytes)));
}

static void stages_fill(struct apply_bench *bench, uint64_t *state)
{
	for (uint32_t r = 0; r < bench->model.world; r++) {
		const struct manifest *rank = bench->model.ranks[r];

		bench->stages[r] = apply_bench_memory(rank->stage_bytes);
		bench->apply.stages[r] = bench->stages[r];
		for (uint32_t i = 0; i < rank->piece_count; i++) {
			const struct piece *piece = &rank->pieces[i];
			enum dtype dtype = rank->tensors[piece->tensor].dtype;

			for (uint64_t e = 0; e < piece->element_count; e++)
				element_fill(dtype, bench->stages[r] + piece->stage_offset + e * dtype_bytes(dtype),
				             state);
		}
	}
}

static void slots_fill(struct apply_bench *bench, uint64_t *state)
{
	const struct geometry *before = bench->before;

	bench->shadow = apply_bench_memory(before->slot_bytes);
	bench->target = apply_bench_memory(bench->out.geometry->slot_bytes);
	for (uint32_t t = 0; t < before->manifest->tensor_count; t++) {
		for (uint32_t p = 0; p < before->profile_count; p++) {
			const struct placement *at = &before->placements[t * before->profile_count + p];

			for (uint64_t e = 0; at->entry != ENTRY_DROP && e < before->manifest->tensors[t].element_count;
			     e++)
				element_fill(at->dtype, bench->shadow + at->offset + e * dtype_bytes(at->dtype), state);
		}
	}
	bench->apply.shadow = bench->shadow;
	bench->apply.target = bench->target;
}

static void before_make(struct apply_bench *bench, struct manifest *manifest, const char *const *profiles,
                        uint32_t profile_count)
{
	struct profile parsed[PROFILE_COUNT_MAX];
	struct geometry *geometry = bench->out.geometry;

	if (!manifest) {
		bench->before = geometry_share(geometry);
		memcpy(bench->sources, geometry->placements,
		       geometry->manifest->tensor_count * geometry->profile_count * sizeof *bench->sources);
		return;
	}
	for (uint32_t p = 0; p < profile_count; p++)
		ck_assert_int_eq(profile_parse(profiles[p], strlen(profiles[p]), &parsed[p], NULL), 0);
	ck_assert_int_eq(geometry_create(manifest, parsed, profile_count, 300, &bench->before, NULL), 0);
	geometry_sources(geometry, bench->before, bench->sources);
}

void apply_bench_fill(struct apply_bench *bench, uint64_t *state, const char *const *profiles, uint32_t profile_count,
                      struct manifest *before, const char *const *before_profiles, uint32_t before_count)
{
	uint32_t tensor_count = bench->model.ranks[0]->tensor_count;

	laid_out_init(&bench->out, bench->model.ranks, bench->model.world, profiles, profile_count);
	ck_assert_int_eq(apply_init(&bench->apply, bench->out.plan), 0);
	bench->sources = calloc((size_t)tensor_count * profile_count, sizeof *bench->sources);
	bench->results = calloc(tensor_count, sizeof *bench->results);
	ck_assert(bench->sources && bench->results);
	before_make(bench, before, before_profiles, before_count);
	stages_fill(bench, state);
	slots_fill(bench, state);
	bench->apply.sources = bench->sources;
	for (uint32_t p = 0; p < profile_count; p++) {
		bench->apply.profiles[p].form = bench->out.geometry->profiles[p].schedule.form;
		bench->apply.profiles[p].start = (struct schedule_result){ ACTION_COPY, 0 };
	}
}

void apply_bench_finish(struct apply_bench *bench)
{
	apply_finish(&bench->apply);
	laid_out_finish(&bench->out);
	geometry_destroy(bench->before);
	for (uint32_t r = 0; r < bench->model.world; r++)
		free(bench->stages[r]);
	random_model_finish(&bench->model);
	free(bench->sources);
	free(bench->shadow);
	free(bench->target);
	free(bench->results);
}

static struct schedule_result action_choose(uint64_t *state)
{
	static const double decays[] = { 0.9999, 0.5, 1.0 / 3, 0.999999, 1e-3 };

	if (random_below(state, 4) == 0)
		return (struct schedule_result){ ACTION_COPY, 0 };
	if (random_below(state, 4) == 0)
		return (struct schedule_result){ ACTION_NOOP, 1 };
	return (struct schedule_result){ ACTION_LERP, decays[random_below(state, 5)] };
}

void apply_bench_choose(struct apply_bench *bench, uint64_t *state)
{
	bool seeds = random_below(state, 5) == 0;

	for (uint32_t p = 0; p < bench->out.geometry->profile_count; p++) {
		struct apply_profile *at = &bench->apply.profiles[p];

		at->mode = !seeds ? APPLY_UPDATE : random_below(state, 2) ? APPLY_SEED : APPLY_HOLD;
		at->is_first = random_below(state, 2);
		at->start.action = at->mode != APPLY_SEED && random_below(state, 3) == 0 ? ACTION_ZERO : ACTION_COPY;
		for (uint32_t i = 0; i <= RULE_COUNT_MAX; i++)
			at->actions[i] = action_choose(state);
	}
}

void apply_bench_run(struct apply_bench *bench)
{
	for (uint32_t b = 0; b < bench->out.plan->block_count; b++)
		apply_block(&bench->apply, b);
	apply_results(&bench->apply, bench->results);
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

float blend_f32(enum schedule_form form, double decay, float s, float x)
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

double blend_f64(enum schedule_form form, double decay, double s, double x)
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

/* Where a tensor of a profile has old values to go on from, or NULL. */
static const struct placement *old_find(const struct apply_bench *bench, uint32_t t, uint32_t p)
{
	const struct geometry *to = bench->out.geometry, *from = bench->before;
	const struct tensor *tensor = &to->manifest->tensors[t];
	const struct placement *at = &to->placements[t * to->profile_count + p];

	for (uint32_t i = 0; bench->apply.shadow && i < from->manifest->tensor_count; i++) {
		const struct tensor *old = &from->manifest->tensors[i];
		bool same = strcmp(old->name, tensor->name) == 0 && old->dimension_count == tensor->dimension_count;

		for (uint32_t d = 0; same && d < tensor->dimension_count; d++)
			same = old->extents[d] == tensor->extents[d];
		for (uint32_t q = 0; same && q < from->profile_count; q++) {
			const struct placement *source = &from->placements[i * from->profile_count + q];

			if (strcmp(from->profiles[q].name, to->profiles[p].name) != 0 || source->entry == ENTRY_DROP)
				continue;
			if (at->entry == ENTRY_AVERAGE ? dtype_is_float(source->dtype) : source->dtype == at->dtype)
				return source;
		}
	}
	return NULL;
}

static struct schedule_result action_expect(const struct apply_bench *bench, uint32_t t, uint32_t p, bool has_old)
{
	const struct apply_profile *at = &bench->apply.profiles[p];
	const struct geometry *geometry = bench->out.geometry;
	int32_t rule = profile_choose(&geometry->profiles[p], &geometry->manifest->tensors[t]).rule;
	bool kept = bench->apply.kept && bench->apply.kept[t];

	if (!has_old)
		return at->start;
	if (kept || at->mode == APPLY_HOLD)
		return (struct schedule_result){ ACTION_NOOP, 1 };
	return at->mode == APPLY_SEED ? (struct schedule_result){ ACTION_COPY, 0 } : at->actions[rule + 1];
}

static bool value_is_taken(const struct apply_bench *bench, uint32_t t, uint32_t p, enum schedule_entry entry)
{
	const struct apply_profile *at = &bench->apply.profiles[p];

	if (at->mode == APPLY_HOLD || (bench->apply.kept && bench->apply.kept[t]))
		return false;
	return at->mode == APPLY_SEED || entry == ENTRY_COPY || (entry == ENTRY_FIRST && at->is_first);
}

/* One element of one profile into the expected slot. Whether it was averaged; its drift. */
static bool element_expect(const struct apply_bench *bench, uint32_t t, uint32_t p, uint64_t element,
                           const uint8_t *value, uint8_t *expected, double *ret_drift_square)
{
	const struct geometry *geometry = bench->out.geometry;
	const struct placement *at = &geometry->placements[t * geometry->profile_count + p];
	const struct placement *old = old_find(bench, t, p);
	const uint8_t *shadow = old ? bench->shadow + old->offset + element * dtype_bytes(old->dtype) : NULL;
	uint8_t *to = expected + at->offset + element * dtype_bytes(at->dtype);
	enum dtype pushed = geometry->manifest->tensors[t].dtype;
	struct schedule_result action;
	double x, s;

	*ret_drift_square = 0;
	if (at->entry == ENTRY_DROP)
		return false;
	if (at->entry != ENTRY_AVERAGE) {
		bool takes = !old || value_is_taken(bench, t, p, at->entry);

		memcpy(to, takes ? value : shadow, dtype_bytes(at->dtype));
		return false;
	}
	action = action_expect(bench, t, p, old != NULL);
	x = element_read(pushed, value);
	s = old ? element_read(old->dtype, shadow) : 0;
	if (action.action == ACTION_NOOP || action.action == ACTION_ZERO) {
		element_write(at->dtype, action.action == ACTION_ZERO ? 0 : s, to);
		return false;
	}
	if (action.action == ACTION_COPY)
		element_write(at->dtype, x, to);
	else if (at->dtype == DTYPE_F64)
		element_write(at->dtype, blend_f64(bench->apply.profiles[p].form, action.decay, s, x), to);
	else
		element_write(at->dtype,
		              (double)blend_f32(bench->apply.profiles[p].form, action.decay, (float)s, (float)x), to);
	if (old && at->dtype == DTYPE_F64)
		*ret_drift_square = (x - s) * (x - s);
	else if (old)
		*ret_drift_square = (double)((float)x - (float)s) * (double)((float)x - (float)s);
	return true;
}

/* Writes the expected new slot and the expected sums of a piece. */
static void piece_expect(const struct apply_bench *bench, uint32_t rank, const struct piece *piece, uint8_t *expected,
                         struct tensor_result *results)
{
	const struct geometry *geometry = bench->out.geometry;
	const struct tensor *tensor = &geometry->manifest->tensors[piece->tensor];
	const uint8_t *value = bench->stages[rank] + piece->stage_offset;

	for (uint64_t i = 0; i < piece->element_count; i++, value += dtype_bytes(tensor->dtype)) {
		uint64_t element = 0, stride = 1, index = i;
		bool blended = false;

		for (uint32_t d = tensor->dimension_count; d-- > 0;) {
			element += (piece->offsets[d] + index % piece->extents[d]) * stride;
			index /= piece->extents[d];
			stride *= tensor->extents[d];
		}
		for (uint32_t p = 0; p < geometry->profile_count; p++) {
			const struct placement *at = &geometry->placements[piece->tensor * geometry->profile_count + p];
			double drift_square, x;

			if (!element_expect(bench, piece->tensor, p, element, value, expected, &drift_square))
				continue;
			results[piece->tensor].drift_squares[p] += drift_square;
			/* In the precision of the first profile that averages it. */
			x = element_read(tensor->dtype, value);
			x = at->dtype == DTYPE_F64 ? x : (double)(float)x;
			results[piece->tensor].value_squares += blended ? 0 : x * x;
			blended = true;
		}
	}
}

static void near(double here, double expected, const char *what, uint32_t tensor)
{
	/* Of huge values of both signs the difference overflows, here as there. */
	if (here != expected && !(fabs(here - expected) <= 1e-12 * fabs(expected)))
		ck_abort_msg("%s of tensor %u: %.17g, and %.17g in the reference", what, tensor, here, expected);
}

void apply_bench_check(const struct apply_bench *bench)
{
	const struct geometry *geometry = bench->out.geometry;
	uint8_t *expected = apply_bench_memory(geometry->slot_bytes);
	struct tensor_result *results = calloc(geometry->manifest->tensor_count, sizeof *results);

	for (uint32_t r = 0; r < bench->model.world; r++)
		for (uint32_t i = 0; i < bench->model.ranks[r]->piece_count; i++)
			piece_expect(bench, r, &bench->model.ranks[r]->pieces[i], expected, results);
	for (uint64_t i = 0; i <= geometry->slot_bytes; i++)
		if (bench->target[i] != expected[i])
			ck_abort_msg("byte %lu of the slot is %02x, and %02x in the reference", (unsigned long)i,
			             bench->target[i], expected[i]);
	for (uint32_t t = 0; t < geometry->manifest->tensor_count; t++) {
		ck_assert_uint_eq(bench->results[t].nonfinite, 0);
		near(bench->results[t].value_squares, results[t].value_squares, "squares", t);
		for (uint32_t p = 0; p < geometry->profile_count; p++)
			near(bench->results[t].drift_squares[p], results[t].drift_squares[p], "drift", t);
	}
	free(expected);
	free(results);
}
