/*
 * One update: every profile of a model, from the old slot and the ranks' snapshots into the new slot, in one pass.
 *
 * The loop thread fills in a `struct apply` and hands it to the workers; each calls apply_block for the blocks that it
 * takes off the counter, and touches nothing but the new slot's tensors and the results of its own runs. When all
 * blocks are done the loop thread adds the results up, always in the order of the plan, so that the sums do not depend
 * on who did what.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/kernel.h"
#include "daemon/core/plan.h"
#include "proto/limits.h"
#include "proto/schedule.h"

/* What the pass found in one run. */
struct run_result {
	double value_squares; /* sum x^2 where some profile averages the tensor */
	uint64_t nonfinite;   /* NaN or infinite values */
};

struct apply {
	const struct plan *plan;           /* borrowed until the update is done */
	const struct kernel_set *kernels;
	const uint8_t *stages[WORLD_MAX];  /* by rank: the snapshot */
	const uint8_t *shadow;             /* the old slot; NULL at the start: every action is COPY then */
	uint8_t *target;                   /* the new slot */
	struct schedule_result actions[PROFILE_COUNT_MAX];
	struct run_result *runs;           /* owned; by run */
	double *drifts;                    /* owned; [run * profile_count + profile] sum (x-s)^2 */
	void *owner;                       /* the model */

	/* The workers' own, while the update is with them. */
	struct apply *next;
	_Atomic uint32_t block_next;
	uint32_t user_count; /* guarded by the workers' lock */
};

/* Makes room for the results of a plan, so that updates allocate nothing. -ENOMEM. */
int apply_init(struct apply *apply, const struct plan *plan);
void apply_finish(struct apply *apply);

/* Does one block. Any thread; blocks of one update may run at once. */
void apply_block(struct apply *apply, uint32_t block);

/* What one tensor's values and shadows did in the update. */
struct tensor_result {
	uint64_t nonfinite;
	double value_squares;
	double drift_squares[PROFILE_COUNT_MAX];
};

/* The sums over all runs of each tensor; results has one entry a tensor. Loop thread, after the last block. */
void apply_results(const struct apply *apply, struct tensor_result *results);
