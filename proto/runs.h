/*
 * Runs: bytes in which elements of equal dtype lie together, and how they travel in another one.
 *
 * A stage and the tensors of an image are both laid out widest dtype first, then by the dtype's number. So what dtype an
 * element is of follows from its place and from how many bytes there are of each dtype, whatever the number of tensors;
 * a part of either can be converted by whoever knows these few sums, which both sides do.
 *
 * On the wire floating-point elements that are wider than the wanted dtype are of that dtype, and all others as they
 * are kept. The elements of a part lie there in the same order, without holes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/dtype.h"

/* In place of a dtype: everything travels as it is kept. */
#define RUNS_AS_KEPT DTYPE_COUNT

struct runs {
	uint64_t bytes[DTYPE_COUNT]; /* of all elements of a dtype; together at most INT64_MAX */
};

/* The dtype in which an element that is kept in one travels. */
enum dtype runs_wire_dtype(enum dtype wire, enum dtype kept);

/* Whether an offset lies between two elements, in front of the first or behind the last. */
bool runs_is_boundary(const struct runs *runs, uint64_t offset);

/*
 * How many bytes a part has on the wire. It begins and ends at a boundary and not behind the last element, here and
 * below. As many as it is kept in: nothing in it is converted.
 */
uint64_t runs_wire_bytes(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes);

/* Converts a part for the wire, or back; source and target are those of the part, at any byte, and do not overlap. */
void runs_narrow(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes, const uint8_t *source,
                 uint8_t *target);
void runs_widen(const struct runs *runs, enum dtype wire, uint64_t offset, uint64_t bytes, const uint8_t *source,
                uint8_t *target);
