/*
 * Walking the runs of a block through the kernels. See apply.h.
 */
#include "daemon/core/apply.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int apply_init(struct apply *apply, const struct plan *plan)
{
	memset(apply, 0, sizeof *apply);
	apply->plan = plan;
	apply->kernels = kernel_best();
	apply->runs = calloc((size_t)plan->run_count + 1, sizeof *apply->runs);
	apply->drifts = calloc((size_t)plan->run_count * plan->geometry->profile_count + 1, sizeof *apply->drifts);
	if (!apply->runs || !apply->drifts) {
		apply_finish(apply);
		return -ENOMEM;
	}
	return 0;
}

void apply_finish(struct apply *apply)
{
	free(apply->runs);
	free(apply->drifts);
	apply->runs = NULL;
	apply->drifts = NULL;
}

/* A stretch of one tensor that lies dense both in the stage and in the slots. */
struct stretch {
	const struct placement *placements; /* of the tensor, by profile */
	const struct placement *sources;    /* the same in the old slot */
	enum dtype dtype;                   /* as pushed */
	uint64_t element_bytes;
	const uint8_t *source;
	uint64_t first;  /* element of the tensor */
	uint64_t origin; /* the tensor's first element in the slot, counted in elements: chunks end on whole vectors */
	uint32_t count;
};

/* The sums of the run in hand. */
struct sums {
	struct kernel_lanes value_squares;
	struct kernel_lanes drift[PROFILE_COUNT_MAX];
	bool counted; /* value_squares covers the run: some profile averages it */
};

/* Values of a chunk in the work types: as they lie in memory, or widened into a buffer on first use. */
struct chunk {
	_Alignas(64) float narrow[KERNEL_CHUNK];
	_Alignas(64) double wide[KERNEL_CHUNK];
	_Alignas(64) double shadow[KERNEL_CHUNK]; /* of one profile, where its type has changed */
	const void *f32, *f64;
};

/* Floats of any type in a work type; itself where it has that type already. */
static const void *widened(const struct kernel_set *kernels, enum dtype work, enum dtype dtype, const void *source,
                           size_t count, void *buffer)
{
	if (dtype == work)
		return source;
	if (work == DTYPE_F64)
		kernels->widen_f64[dtype](buffer, source, count);
	else
		kernels->widen_f32[dtype](buffer, source, count);
	return buffer;
}

/* Whether a profile goes on from an old shadow of the tensor. */
static bool continues(const struct apply *apply, const struct placement *source)
{
	return apply->shadow && source->entry != ENTRY_DROP;
}

static struct schedule_result action_of(const struct apply *apply, const struct placement *placement,
                                        const struct placement *source, uint32_t profile)
{
	const struct apply_profile *at = &apply->profiles[profile];

	if (!continues(apply, source))
		return at->start;
	switch (at->mode) {
	case APPLY_UPDATE:
		return at->actions[placement->group];
	case APPLY_SEED:
		return (struct schedule_result){ ACTION_COPY, 0 };
	case APPLY_HOLD:
		break;
	}
	return (struct schedule_result){ ACTION_NOOP, 1 };
}

static const uint8_t *shadow_at(const struct apply *apply, const struct placement *source, uint64_t first)
{
	return apply->shadow + source->offset + first * dtype_bytes(source->dtype);
}

/* Keeps an average as it is, in a new type where that has changed. */
static void keep(const struct apply *apply, const struct placement *placement, const struct placement *source,
                 const struct stretch *stretch)
{
	uint64_t element_bytes = dtype_bytes(placement->dtype);
	uint8_t *target = apply->target + placement->offset + stretch->first * element_bytes;
	_Alignas(64) double buffer[KERNEL_CHUNK];

	if (source->dtype == placement->dtype) {
		apply->kernels->move(target, shadow_at(apply, source, stretch->first), stretch->count * element_bytes);
		return;
	}
	for (uint32_t done = 0; done < stretch->count; done += KERNEL_CHUNK) {
		uint32_t left = stretch->count - done, count = left < KERNEL_CHUNK ? left : KERNEL_CHUNK;

		memcpy(target + done * element_bytes,
		       widened(apply->kernels, placement->dtype, source->dtype,
		               shadow_at(apply, source, stretch->first + done), count, buffer),
		       count * element_bytes);
	}
}

/* Entries that are not blended: bytes from the stage or from the old slot. */
static void carry(const struct apply *apply, const struct placement *placement, const struct placement *source,
                  bool fresh, const struct stretch *stretch)
{
	uint64_t element_bytes = dtype_bytes(placement->dtype);

	if (fresh || !continues(apply, source))
		apply->kernels->move(apply->target + placement->offset + stretch->first * element_bytes,
		                     stretch->source, stretch->count * element_bytes);
	else
		apply->kernels->move(apply->target + placement->offset + stretch->first * element_bytes,
		                     shadow_at(apply, source, stretch->first), stretch->count * element_bytes);
}

/* Whether an entry that is not averaged takes the snapshot's value. */
static bool takes_value(const struct apply *apply, enum schedule_entry entry, uint32_t profile)
{
	const struct apply_profile *at = &apply->profiles[profile];

	switch (at->mode) {
	case APPLY_UPDATE:
		return entry == ENTRY_COPY || (entry == ENTRY_FIRST && at->is_first);
	case APPLY_SEED:
		return true;
	case APPLY_HOLD:
		break;
	}
	return false;
}

/* One profile that blends a stretch: what does not change from chunk to chunk. */
struct blend {
	uint32_t profile;
	enum dtype dtype; /* of the average, the work type */
	enum schedule_form form;
	struct schedule_result action;
	uint64_t element_bytes;
	uint64_t origin;       /* the stretch's first element in the slot, counted in elements */
	uint8_t *target;
	const uint8_t *shadow; /* NULL where there is none */
	enum dtype shadow_dtype;
	uint64_t shadow_element_bytes;
};

static struct blend blend_of(const struct apply *apply, const struct stretch *stretch, uint32_t profile,
                             struct schedule_result action)
{
	const struct placement *placement = &stretch->placements[profile], *source = &stretch->sources[profile];
	uint64_t element_bytes = dtype_bytes(placement->dtype);
	uint64_t at = placement->offset + stretch->first * element_bytes;
	struct blend blend = {
		.profile = profile,
		.dtype = placement->dtype,
		.form = apply->profiles[profile].form,
		.action = action,
		.element_bytes = element_bytes,
		.origin = at / element_bytes,
		.target = apply->target + at,
		.shadow_dtype = placement->dtype,
	};

	if (continues(apply, source)) {
		blend.shadow = shadow_at(apply, source, stretch->first);
		blend.shadow_dtype = source->dtype;
		blend.shadow_element_bytes = dtype_bytes(source->dtype);
	}
	return blend;
}

/* count elements from number `done` of the stretch on. value and shadow are in the work type. */
static void blend_apply(const struct kernel_set *kernels, const struct blend *blend, uint32_t done, const void *shadow,
                        const void *value, size_t count, struct kernel_lanes *drift,
                        struct kernel_lanes *value_squares)
{
	void *target = blend->target + done * blend->element_bytes;
	unsigned phase = (unsigned)((blend->origin + done) % KERNEL_LANES);

	if (blend->action.action == ACTION_COPY) {
		if (blend->dtype == DTYPE_F64)
			kernels->assign_f64(target, shadow, value, count, phase, drift, value_squares);
		else
			kernels->assign_f32(target, shadow, value, count, phase, drift, value_squares);
		return;
	}
	if (blend->dtype == DTYPE_F64)
		kernels->update_f64[blend->form](target, shadow, value, count, phase, blend->action.decay, drift,
		                                 value_squares);
	else
		kernels->update_f32[blend->form](target, shadow, value, count, phase, blend->action.decay, drift,
		                                 value_squares);
}

/* A chunk into all profiles that blend it. */
static void chunk_blend(const struct apply *apply, const struct stretch *stretch, const struct blend *blends,
                        uint32_t blend_count, uint32_t done, uint32_t count, struct chunk *chunk, struct sums *sums)
{
	const uint8_t *source = stretch->source + done * stretch->element_bytes;
	struct kernel_lanes *value_squares = &sums->value_squares;

	chunk->f32 = chunk->f64 = NULL;
	for (uint32_t i = 0; i < blend_count; i++) {
		const struct blend *blend = &blends[i];
		const void **value = blend->dtype == DTYPE_F64 ? &chunk->f64 : &chunk->f32;
		const void *shadow = NULL;

		if (!*value)
			*value = widened(apply->kernels, blend->dtype, stretch->dtype, source, count,
			                 blend->dtype == DTYPE_F64 ? (void *)chunk->wide : (void *)chunk->narrow);
		if (blend->shadow)
			shadow = widened(apply->kernels, blend->dtype, blend->shadow_dtype,
			                 blend->shadow + done * blend->shadow_element_bytes, count, chunk->shadow);
		blend_apply(apply->kernels, blend, done, shadow, *value, count, &sums->drift[blend->profile],
		            value_squares);
		value_squares = NULL;
	}
}

/*
 * Several profiles, or values that must be widened: chunk by chunk, so that the values are read from memory once and
 * from the first-level cache after that.
 */
static void stretch_blend(const struct apply *apply, const struct stretch *stretch, const struct blend *blends,
                          uint32_t blend_count, struct sums *sums)
{
	struct chunk chunk;
	uint32_t done = 0;

	while (done < stretch->count) {
		uint32_t left = stretch->count - done;
		uint32_t count = KERNEL_CHUNK - (uint32_t)((stretch->origin + stretch->first + done) % KERNEL_CHUNK);

		if (count > left)
			count = left;
		chunk_blend(apply, stretch, blends, blend_count, done, count, &chunk, sums);
		done += count;
	}
}

/* Does what one profile does without the values' arithmetic; true when it blends instead. */
static bool profile_apply(const struct apply *apply, const struct stretch *stretch, uint32_t profile,
                          struct schedule_result *ret_action)
{
	const struct placement *placement = &stretch->placements[profile], *source = &stretch->sources[profile];
	uint64_t element_bytes = dtype_bytes(placement->dtype);

	if (placement->entry == ENTRY_DROP)
		return false;
	if (placement->entry != ENTRY_AVERAGE) {
		carry(apply, placement, source, takes_value(apply, placement->entry, profile), stretch);
		return false;
	}
	*ret_action = action_of(apply, placement, source, profile);
	switch (ret_action->action) {
	case ACTION_COPY:
	case ACTION_LERP:
		return true;
	case ACTION_NOOP:
		keep(apply, placement, source, stretch);
		break;
	case ACTION_ZERO:
		memset(apply->target + placement->offset + stretch->first * element_bytes, 0,
		       stretch->count * element_bytes);
		break;
	}
	return false;
}

static void stretch_apply(const struct apply *apply, const struct stretch *stretch, struct sums *sums)
{
	struct blend blends[PROFILE_COUNT_MAX];
	struct schedule_result action;
	uint32_t blend_count = 0;

	for (uint32_t p = 0; p < apply->plan->geometry->profile_count; p++)
		if (profile_apply(apply, stretch, p, &action))
			blends[blend_count++] = blend_of(apply, stretch, p, action);
	if (blend_count == 0)
		return;
	sums->counted = true;
	if (blend_count > 1 || stretch->dtype != blends[0].dtype || blends[0].shadow_dtype != blends[0].dtype)
		stretch_blend(apply, stretch, blends, blend_count, sums);
	else
		blend_apply(apply->kernels, &blends[0], 0, blends[0].shadow, stretch->source, stretch->count,
		            &sums->drift[blends[0].profile], &sums->value_squares);
}

/* Whether any profile takes something from this snapshot: if all keep what they have, its values are not looked at. */
static bool reads_values(const struct apply *apply, const struct stretch *stretch)
{
	for (uint32_t p = 0; p < apply->plan->geometry->profile_count; p++) {
		const struct placement *placement = &stretch->placements[p], *source = &stretch->sources[p];

		if (placement->entry == ENTRY_DROP)
			continue;
		if (!continues(apply, source))
			return true;
		if (placement->entry != ENTRY_AVERAGE ? takes_value(apply, placement->entry, p)
		                                      : action_of(apply, placement, source, p).action != ACTION_NOOP)
			return true;
	}
	return false;
}

/* A tensor that keeps its old shadow in all profiles. It has one: the first snapshot is refused whole. */
static void stretch_keep(const struct apply *apply, const struct stretch *stretch)
{
	for (uint32_t p = 0; p < apply->plan->geometry->profile_count; p++) {
		const struct placement *placement = &stretch->placements[p];

		if (placement->entry == ENTRY_AVERAGE)
			keep(apply, placement, &stretch->sources[p], stretch);
		else if (placement->entry != ENTRY_DROP)
			carry(apply, placement, &stretch->sources[p], false, stretch);
	}
}

static void stretch_advance(struct stretch *stretch, const struct run *run)
{
	stretch->source += run->count * stretch->element_bytes;
	stretch->first += run->stride;
}

static void run_keep(struct apply *apply, uint32_t index, struct stretch *stretch)
{
	const struct run *run = &apply->plan->runs[index];
	uint32_t profile_count = apply->plan->geometry->profile_count;

	for (uint32_t i = 0; i < run->repeat; i++, stretch_advance(stretch, run))
		stretch_keep(apply, stretch);
	apply->runs[index].value_squares = 0;
	memset(&apply->drifts[(size_t)index * profile_count], 0, profile_count * sizeof apply->drifts[0]);
}

static void nonfinite_count(const struct run *run, enum dtype dtype, const uint8_t *source, struct run_result *result)
{
	uint64_t count = (uint64_t)run->count * run->repeat;
	size_t index = 0;

	result->nonfinite = kernel_count_nonfinite(dtype, source, count);
	if (result->nonfinite == 0)
		return;
	result->bad_value = kernel_first_nonfinite(dtype, source, count, &index);
	result->bad_element = run->first + index / run->count * run->stride + index % run->count;
}

static void run_update(struct apply *apply, uint32_t index, struct stretch *stretch)
{
	const struct run *run = &apply->plan->runs[index];
	uint32_t profile_count = apply->plan->geometry->profile_count;
	struct run_result *result = &apply->runs[index];
	const uint8_t *source = stretch->source;
	struct sums sums;

	memset(&sums, 0, offsetof(struct sums, drift) + profile_count * sizeof sums.drift[0]);
	sums.counted = false;
	for (uint32_t i = 0; i < run->repeat; i++, stretch_advance(stretch, run))
		stretch_apply(apply, stretch, &sums);
	result->nonfinite = 0;
	result->value_squares = sums.counted ? kernel_lanes_sum(&sums.value_squares) : 0;
	for (uint32_t p = 0; p < profile_count; p++)
		apply->drifts[(size_t)index * profile_count + p] = kernel_lanes_sum(&sums.drift[p]);
	if (dtype_is_float(stretch->dtype) &&
	    (sums.counted ? !isfinite(result->value_squares) : reads_values(apply, stretch)))
		nonfinite_count(run, stretch->dtype, source, result);
}

static void run_apply(struct apply *apply, uint32_t index)
{
	const struct plan *plan = apply->plan;
	const struct geometry *geometry = plan->geometry;
	const struct run *run = &plan->runs[index];
	size_t row = (size_t)run->tensor * geometry->profile_count;
	struct stretch stretch = {
		.placements = &geometry->placements[row],
		.sources = &apply->sources[row],
		.dtype = geometry->manifest->tensors[run->tensor].dtype,
		.element_bytes = dtype_bytes(geometry->manifest->tensors[run->tensor].dtype),
		.source = apply->stages[run->rank] + run->stage_offset,
		.first = run->first,
		.origin = geometry->origins[run->tensor],
		.count = run->count,
	};

	if (!apply->kept)
		run_update(apply, index, &stretch);
	else if (apply->kept[run->tensor])
		run_keep(apply, index, &stretch);
}

void apply_block(struct apply *apply, uint32_t block)
{
	for (uint32_t i = apply->plan->blocks[block]; i < apply->plan->blocks[block + 1]; i++)
		run_apply(apply, i);
	kernel_fence();
}

void apply_results(const struct apply *apply, struct tensor_result *results)
{
	const struct plan *plan = apply->plan;
	uint32_t profile_count = plan->geometry->profile_count;

	memset(results, 0, plan->geometry->manifest->tensor_count * sizeof *results);
	for (uint32_t i = 0; i < plan->run_count; i++) {
		struct tensor_result *result = &results[plan->runs[i].tensor];

		if (result->nonfinite == 0 && apply->runs[i].nonfinite > 0) {
			result->bad_element = apply->runs[i].bad_element;
			result->bad_value = apply->runs[i].bad_value;
		}
		result->nonfinite += apply->runs[i].nonfinite;
		result->value_squares += apply->runs[i].value_squares;
		for (uint32_t p = 0; p < profile_count; p++)
			result->drift_squares[p] += apply->drifts[(size_t)i * profile_count + p];
	}
}
