/*
 * The segments that an earlier daemon has left behind. Each is looked for by its identity, believed only when its header
 * says the same, and taken out of the estate by the model that it belongs to.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/host.h"
#include "proto/layout.h"
#include "proto/status.h"

/* base is NULL where a model has taken a segment. */
struct estate {
	struct memory *segments; /* owned */
	uint32_t count;
};

static inline const struct segment_header *estate_header(const struct memory *segment)
{
	return (const void *)segment->base;
}

/*
 * Whether a segment is what its identity says. The identity is that of its name, to which nobody but the daemon can
 * write; a trainer may have written anything into the header of its stages.
 */
int estate_check(const struct memory *segment, enum segment_kind kind, struct reason *reason);

/* The segment of that identity and kind, or NULL with a sentence. */
const struct memory *estate_find(const struct estate *estate, uint64_t segment, enum segment_kind kind,
                                 struct reason *reason);

/* Takes a segment out of the estate. */
struct memory estate_take(const struct memory *segment);
