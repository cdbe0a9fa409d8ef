/*
 * The averaging kernels: the innermost loops, pure arithmetic over flat arrays.
 *
 * One set of functions per instruction set; `kernel_scalar` defines the result and every other set returns the same
 * bits. Nothing here knows tensors, slots or threads: the apply plan (plan.h) cuts the work into runs that lie inside
 * one tensor, and calls these.
 *
 * Arithmetic. Weights arrive as any float dtype and are widened exactly to the work type (float, or double for a
 * double shadow). decay and 1-decay are computed in double and rounded once to the work type. Every operation of a
 * form is rounded on its own: no fused multiply-add on the shadow. Sums of squares are kept in double, in 16 lanes:
 * element i of a run adds to lane (phase + i) % 16, and lanes are only ever added up by kernel_lanes_sum, in lane
 * order, so the sums too are equal to the bit whatever the vector width. (For float work the squares are exact in
 * double, which is why a vector set may use a fused multiply-add there.)
 *
 * Non-finite values need no extra pass for float work: the squares of finite floats cannot overflow a double, so a
 * non-finite sum of squares over a run is the sign to count them. For double work a sum can overflow although every
 * value is finite: count, and believe the count.
 *
 * Stores. The destination is written with streaming stores wherever a whole aligned vector is written, because the
 * new slot is not read again soon. The fence that publication then needs is kernel_fence: once per block, called by
 * the plan. At a run's two ends only the run's own bytes are touched: the rest of the cache line may be another
 * thread's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"
#include "proto/schedule.h"

enum {
	KERNEL_LANES = 16,
	/*
	 * Elements widened at a time, and averaged into one profile before the next profile's turn: few enough that
	 * the values, and the shadows that the kernels prefetch for each profile's next turn, stay in the first-level
	 * cache. Start a tensor's second chunk at phase 0, so that only a tensor's two ends are partial blocks.
	 */
	KERNEL_CHUNK = 512,
};

/* Sums of one run for one profile; add up across runs lane by lane. */
struct kernel_lanes {
	double lane[KERNEL_LANES];
};

struct kernel_set {
	const char *name; /* "scalar", "portable", "avx2", "avx512" */

	/*
	 * Widens count (<= KERNEL_CHUNK) elements of a float dtype to float or double. NULL entries: the source
	 * already has the work type (widen_f32[DTYPE_F32], widen_f64[DTYPE_F64]) or the dtype is not a float.
	 * widen_f32[DTYPE_F64] rounds to nearest: a float shadow of double weights was asked for.
	 */
	void (*widen_f32[DTYPE_COUNT])(float *target, const void *source, size_t count);
	void (*widen_f64[DTYPE_COUNT])(double *target, const void *source, size_t count);

	/*
	 * One profile's update of one run: target[i] = form(shadow[i], value[i], decay) for count elements.
	 * phase: the run's first lane, so that target + 16 - phase is vector aligned; 0 <= phase < 16. Where it is not,
	 * the result is the same, by ordinary stores.
	 * drift (never NULL) receives += (value - shadow)^2, the difference rounded in the work type, then squared and
	 * added in double.
	 * value_squares receives += value^2; NULL when another profile of the same run has counted already.
	 * target, shadow and value never overlap.
	 */
	void (*update_f32[3])(float *target, const float *shadow, const float *value, size_t count,
	                      unsigned phase, double decay, struct kernel_lanes *drift,
	                      struct kernel_lanes *value_squares);
	void (*update_f64[3])(double *target, const double *shadow, const double *value, size_t count,
	                      unsigned phase, double decay, struct kernel_lanes *drift,
	                      struct kernel_lanes *value_squares);

	/*
	 * target = value exactly (ACTION_COPY, the start of a shadow) with the same sums; shadow may be NULL: then
	 * drift is left alone.
	 */
	void (*assign_f32)(float *target, const float *shadow, const float *value, size_t count, unsigned phase,
	                   struct kernel_lanes *drift, struct kernel_lanes *value_squares);
	void (*assign_f64)(double *target, const double *shadow, const double *value, size_t count, unsigned phase,
	                   struct kernel_lanes *drift, struct kernel_lanes *value_squares);

	/* Moves bytes unchanged, with streaming stores (entries that are copied or kept). No overlap. */
	void (*move)(void *target, const void *source, size_t bytes);
};

extern const struct kernel_set kernel_scalar;

/*
 * The sets that this processor can run, fastest first, always ending with the portable and the scalar one.
 * *ret_count receives their number. Static storage.
 */
const struct kernel_set *const *kernel_sets(size_t *ret_count);

/* The fastest set this processor can run. */
const struct kernel_set *kernel_best(void);

/* The set of that name if this processor can run it, else NULL. */
const struct kernel_set *kernel_named(const char *name);

/* The lanes added in order 0..15. */
double kernel_lanes_sum(const struct kernel_lanes *lanes);

/* How many of count elements are NaN or infinite; any float dtype. */
uint64_t kernel_count_nonfinite(enum dtype dtype, const void *source, size_t count);

/* The first NaN or infinite one of count elements, as a double; *ret_index, untouched where all are finite. */
double kernel_first_nonfinite(enum dtype dtype, const void *source, size_t count, size_t *ret_index);

/* Orders all streaming stores of this thread before its later stores. Once per block. */
void kernel_fence(void);
