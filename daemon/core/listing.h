/*
 * A listing: what the disk holds of a model, newest first. Bounded: what is beyond is only counted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/generation.h"
#include "proto/limits.h"

enum {
	LISTING_GENERATION_COUNT_MAX = 256,
	LISTING_SNAPSHOT_COUNT_MAX = 4096, /* of all profiles together */
	LISTING_REASON_BYTES = 240,
};

struct listed_generation {
	struct generation_name name;
	uint64_t updates;   /* 0 where the manifest cannot be read */
	uint64_t wall_us;   /* when its manifest was written; 0: not known */
	uint64_t bytes;     /* of its files */
	uint64_t aside_s;   /* when it was set aside, seconds since 1970; 0: it was not */
	bool keeps;         /* it bears the mark of those that stay */
	bool whole;         /* its manifest is right, and its files have the sizes that it says */
	char reason[LISTING_REASON_BYTES]; /* why it is not, or was set aside */
};

/* An average of one profile, see keep.h. */
struct listed_snapshot {
	uint32_t item; /* index of the order's item */
	uint64_t step;
	uint64_t wall_us;
	uint64_t bytes;
};

struct listing {
	uint32_t generation_count, snapshot_count;
	uint64_t generations_left_out, snapshots_left_out;
	struct listed_generation generations[LISTING_GENERATION_COUNT_MAX];
	struct listed_snapshot snapshots[LISTING_SNAPSHOT_COUNT_MAX];
};
