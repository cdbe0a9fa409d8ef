/*
 * Gathering: an image here, of some tensors and in another dtype, out of parts of an image elsewhere. Pure.
 *
 * The tensors that are wanted are cut into parts of a chunk at most, which may be of several places; what has come of a
 * part goes to the places of its tensors in the new image, converted where it has not come in their dtype.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "client/emad.h"
#include "client/recast.h"
#include "proto/runs.h"

/* Bytes that lie together in the image elsewhere and are all wanted. */
struct gather_span {
	uint64_t offset, bytes;
	uint32_t entry; /* the first of the tensors that they are of */
};

/* The spans that one request fetches. */
struct gather_part {
	uint64_t first, count; /* of the spans; at most FETCH_RANGE_COUNT_MAX */
	uint64_t bytes, wire_bytes;
};

struct gather {
	const struct safetensors *tensors; /* borrowed; of the image elsewhere */
	enum emad_served_dtype served;
	enum dtype wire;       /* in which the parts travel */
	struct recast *recast; /* owned; the new image */
	uint64_t *places;      /* owned; where each of the tensors goes in it */
	uint64_t span_count, span_capacity;
	struct gather_span *spans; /* owned */
	uint64_t count, capacity;
	struct gather_part *parts; /* owned */
};

/* chosen: for each of the tensors whether it is wanted; NULL: all. The tensors live as long. As recast_create. */
int gather_plan(const struct safetensors *tensors, enum emad_served_dtype served, const bool *chosen,
                struct gather *ret_gather, struct reason *reason);
void gather_finish(struct gather *gather);

/* Writes the body of the request for a part; ranges has room for FETCH_RANGE_COUNT_MAX. Returns its bytes. */
size_t gather_ranges(const struct gather *gather, const struct gather_part *part, uint8_t *ranges);

/* Puts a part's wire_bytes into the new image, all of which is in memory at file. */
void gather_spread(const struct gather *gather, const struct gather_part *part, const uint8_t *body, uint8_t *file);
