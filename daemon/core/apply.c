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
	apply->drifts = calloc((size_t)plan->run_count * plan->profile_count + 1, sizeof *apply->drifts);
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
	enum dtype dtype;                   /* as pushed */
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

/* Values in the work type of a shadow: widened into the buffer where the push has another type. */
static const void *widened(const struct kernel_set *kernels, enum dtype shadow, enum dtype dtype, const void *source,
                           size_t count, void *buffer)
{
	if (dtype == shadow)
		return source;
	if (shadow == DTYPE_F64)
		kernels->widen_f64[dtype](buffer, source, count);
	else
		kernels->widen_f32[dtype](buffer, source, count);
	return buffer;
}

static void average(const struct apply *apply, const struct placement *placement, uint32_t profile, const void *value,
                    uint64_t first, size_t count, struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	const struct kernel_set *kernels = apply->kernels;
	const struct schedule_result *action = &apply->actions[profile];
	uint64_t element_bytes = dtype_bytes(placement->dtype);
	uint64_t at = placement->offset + first * element_bytes;
	unsigned phase = (unsigned)(at / element_bytes % KERNEL_LANES);
	uint8_t *target = apply->target + at;
	const uint8_t *shadow = apply->shadow ? apply->shadow + at : NULL;
	enum schedule_form form = apply->plan->forms[profile];

	if (action->action == ACTION_COPY) {
		if (placement->dtype == DTYPE_F64)
			kernels->assign_f64((void *)target, (const void *)shadow, value, count, phase, drift,
			                    value_squares);
		else
			kernels->assign_f32((void *)target, (const void *)shadow, value, count, phase, drift,
			                    value_squares);
		return;
	}
	if (placement->dtype == DTYPE_F64)
		kernels->update_f64[form]((void *)target, (const void *)shadow, value, count, phase, action->decay,
		                          drift, value_squares);
	else
		kernels->update_f32[form]((void *)target, (const void *)shadow, value, count, phase, action->decay,
		                          drift, value_squares);
}

/* Entries that are not blended: bytes from the stage or from the old slot. */
static void carry(const struct apply *apply, const struct placement *placement, bool fresh,
                  const struct stretch *stretch)
{
	uint64_t element_bytes = dtype_bytes(placement->dtype);
	uint64_t at = placement->offset + stretch->first * element_bytes;
	const uint8_t *source = fresh || !apply->shadow ? stretch->source : apply->shadow + at;

	apply->kernels->move(apply->target + at, source, stretch->count * element_bytes);
}

static bool blends(const struct apply *apply, const struct placement *placement, uint32_t profile)
{
	return placement->entry == ENTRY_AVERAGE && apply->actions[profile].action != ACTION_NOOP;
}

/*
 * Several profiles, or values that must be widened: chunk by chunk, so that the values are read from memory once and
 * from the first-level cache after that.
 */
static void stretch_average(const struct apply *apply, const struct stretch *stretch, struct sums *sums)
{
	_Alignas(64) double buffer[KERNEL_CHUNK];
	uint64_t source_bytes = dtype_bytes(stretch->dtype);
	enum dtype shadow = dtype_shadow(stretch->dtype);
	uint32_t done = 0;

	while (done < stretch->count) {
		uint32_t left = stretch->count - done;
		uint32_t count = KERNEL_CHUNK - (uint32_t)((stretch->origin + stretch->first + done) % KERNEL_CHUNK);
		struct kernel_lanes *value_squares = &sums->value_squares;
		const void *value;

		if (count > left)
			count = left;
		value = widened(apply->kernels, shadow, stretch->dtype, stretch->source + done * source_bytes, count,
		                buffer);
		for (uint32_t p = 0; p < apply->plan->profile_count; p++) {
			if (!blends(apply, &stretch->placements[p], p))
				continue;
			average(apply, &stretch->placements[p], p, value, stretch->first + done, count,
			        &sums->drift[p], value_squares);
			value_squares = NULL;
		}
		done += count;
	}
}

static void stretch_apply(const struct apply *apply, const struct stretch *stretch, struct sums *sums)
{
	uint32_t blend_count = 0, blend_profile = 0;

	for (uint32_t p = 0; p < apply->plan->profile_count; p++) {
		const struct placement *placement = &stretch->placements[p];

		if (blends(apply, placement, p)) {
			blend_count++;
			blend_profile = p;
		} else if (placement->entry != ENTRY_DROP) {
			carry(apply, placement, placement->entry == ENTRY_COPY, stretch);
		}
	}
	if (blend_count == 0)
		return;
	sums->counted = true;
	if (blend_count == 1 && stretch->dtype == stretch->placements[blend_profile].dtype)
		average(apply, &stretch->placements[blend_profile], blend_profile, stretch->source, stretch->first,
		        stretch->count, &sums->drift[blend_profile], &sums->value_squares);
	else
		stretch_average(apply, stretch, sums);
}

/* Whether any profile takes something from this snapshot: if all keep what they have, its values are not looked at. */
static bool reads_values(const struct apply *apply, const struct placement *placements)
{
	for (uint32_t p = 0; p < apply->plan->profile_count; p++)
		if (placements[p].entry != ENTRY_DROP &&
		    (!apply->shadow || placements[p].entry == ENTRY_COPY || blends(apply, &placements[p], p)))
			return true;
	return false;
}

static void run_apply(struct apply *apply, uint32_t index)
{
	const struct plan *plan = apply->plan;
	const struct run *run = &plan->runs[index];
	struct run_result *result = &apply->runs[index];
	enum dtype dtype = plan->manifest->tensors[run->tensor].dtype;
	struct stretch stretch = {
		.placements = &plan->placements[(size_t)run->tensor * plan->profile_count],
		.dtype = dtype,
		.source = apply->stages[run->rank] + run->stage_offset,
		.first = run->first,
		.origin = plan->origins[run->tensor],
		.count = run->count,
	};
	const uint8_t *source = stretch.source;
	uint64_t element_count = (uint64_t)run->count * run->repeat;
	struct sums sums;

	memset(&sums, 0, offsetof(struct sums, drift) + plan->profile_count * sizeof sums.drift[0]);
	sums.counted = false;
	for (uint32_t i = 0; i < run->repeat; i++) {
		stretch_apply(apply, &stretch, &sums);
		stretch.source += run->count * dtype_bytes(dtype);
		stretch.first += run->stride;
	}
	result->nonfinite = 0;
	result->value_squares = sums.counted ? kernel_lanes_sum(&sums.value_squares) : 0;
	for (uint32_t p = 0; p < plan->profile_count; p++)
		apply->drifts[(size_t)index * plan->profile_count + p] = kernel_lanes_sum(&sums.drift[p]);
	if (dtype_is_float(dtype) && (sums.counted ? !isfinite(result->value_squares)
	                                           : reads_values(apply, stretch.placements)))
		result->nonfinite = kernel_count_nonfinite(dtype, source, element_count);
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

	memset(results, 0, plan->manifest->tensor_count * sizeof *results);
	for (uint32_t i = 0; i < plan->run_count; i++) {
		struct tensor_result *result = &results[plan->runs[i].tensor];

		result->nonfinite += apply->runs[i].nonfinite;
		result->value_squares += apply->runs[i].value_squares;
		for (uint32_t p = 0; p < plan->profile_count; p++)
			result->drift_squares[p] += apply->drifts[(size_t)i * plan->profile_count + p];
	}
}
