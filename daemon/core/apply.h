/*
 * One update: every profile of a model, from the old slot and the ranks' snapshots into the new slot, in one pass.
 *
 * The old slot may be of another geometry than the new one: the model has got other profiles or tensors meanwhile. What
 * both have goes on, converted where its type has changed; what is new starts from the snapshot.
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
	uint64_t bad_element; /* the first of them: its place in the tensor */
	double bad_value;
};

/* What one profile does in an update. */
enum apply_mode {
	APPLY_UPDATE, /* as the schedule says */
	APPLY_SEED,   /* the snapshot is the average itself */
	APPLY_HOLD,   /* everything stays: another profile is seeded */
};

struct apply_profile {
	enum apply_mode mode;
	enum schedule_form form;
	struct schedule_result actions[RULE_COUNT_MAX + 1]; /* by the placements' groups */
	struct schedule_result start; /* of tensors that have no old shadow: COPY or ZERO */
	bool is_first;                /* call 1: entries that keep the first value take it */
};

struct apply {
	const struct plan *plan;           /* borrowed until the update is done */
	const struct kernel_set *kernels;
	const uint8_t *stages[WORLD_MAX];  /* by rank: the snapshot */
	const uint8_t *shadow;             /* the old slot; NULL at the start */
	const struct placement *sources;   /* where the old shadows lie: the geometry's placements, or another slot's */
	uint8_t *target;                   /* the new slot */
	struct apply_profile profiles[PROFILE_COUNT_MAX];
	const bool *kept;                  /* by tensor; not NULL: a second pass, these get their old shadow back */
	struct run_result *runs;           /* owned; by run */
	double *drifts;                    /* owned; [run * profile_count + profile] sum (x-s)^2 */
	void *owner;                       /* the model */

	/* The workers' own. */
	_Atomic uint32_t block_next;
	struct apply *next, *previous; /* guarded by the workers' lock, like the following */
	uint32_t user_count;
	uint64_t served; /* of the workers' time, counted in what it moved; stays from one update to the next */
	bool queued;
};

/* Makes room for the results of a plan, so that updates allocate nothing. -ENOMEM. */
int apply_init(struct apply *apply, const struct plan *plan);
void apply_finish(struct apply *apply);

/* Does one block. Any thread; blocks of one update may run at once. */
void apply_block(struct apply *apply, uint32_t block);

/* What one tensor's values and shadows did in the update. */
struct tensor_result {
	uint64_t nonfinite;
	uint64_t bad_element; /* one of them: its place in the tensor */
	double bad_value;
	double value_squares;
	double drift_squares[PROFILE_COUNT_MAX];
};

/* The sums over all runs of each tensor; results has one entry a tensor. Loop thread, after the last block. */
void apply_results(const struct apply *apply, struct tensor_result *results);
