/*
 * The apply plan: which bytes of which rank's stage go where in a slot, cut into blocks for the workers.
 *
 * Made once, when the last rank has registered its pieces. A `run` is a stretch of one rank's stage that lies inside
 * one tensor: `count` elements, `repeat` times, dense in the stage and `stride` apart in the tensor (a box of a sharded
 * tensor is a few such runs; an unsharded tensor is one, or several when it is large). A block is a handful of runs,
 * about PLAN_BLOCK_ELEMENTS together: the unit that a worker takes off the counter. Every element of every tensor is in
 * exactly one run, so blocks can be done in any order by anybody.
 *
 * Pure; belongs to the loop thread while it is made, and is only read afterwards.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/geometry.h"
#include "proto/limits.h"
#include "proto/manifest.h"
#include "proto/status.h"

enum {
	PLAN_BLOCK_ELEMENTS = 256 * 1024,
	/* So that boxes of single elements cannot take more memory than the weights. */
	PLAN_RUN_COUNT_MAX = 4 * 1024 * 1024,
};

struct run {
	uint64_t stage_offset; /* bytes from the start of the rank's snapshot */
	uint64_t first;        /* first element in the tensor */
	uint64_t stride;       /* elements of the tensor from one repetition to the next */
	uint32_t count;
	uint32_t repeat;
	uint32_t tensor;
	uint32_t rank;
};

struct plan {
	const struct geometry *geometry; /* borrowed from the model */
	uint32_t run_count;
	uint32_t run_capacity;
	struct run *runs; /* owned; in the order of the first profile's image */
	uint32_t block_count;
	uint32_t *blocks; /* owned; block b is runs[blocks[b]] .. runs[blocks[b + 1] - 1] */
	uint64_t element_count; /* of all tensors */
};

/*
 * ranks[r]: the manifest of rank r, whose pieces must tile the tensors (manifest_tiling_check). STATUS_ELIMIT with a
 * sentence when they are cut too small; -ENOMEM.
 */
int plan_create(const struct geometry *geometry, const struct manifest *const *ranks, uint32_t rank_count,
                struct plan **ret_plan, struct reason *reason);
void plan_destroy(struct plan *plan);
