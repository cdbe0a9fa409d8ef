/*
 * Copying the values of a rank's tensors into a stage.
 *
 * The work is cut once into items of about a megabyte: slices of large tensors, handfuls of small ones. A synchronous
 * push shares the items out to a team, because the training waits for it; an asynchronous one copies alone, because the
 * training wants the other cores.
 *
 * Used by one thread at a time.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/copy.h"
#include "client/team.h"
#include "proto/manifest.h"

/* Whole pieces first..end-1, or, where bytes is not 0, that many bytes from offset of the first alone. */
struct snapshot_item {
	uint32_t first, end;
	uint64_t offset, bytes;
};

struct snapshot {
	const struct manifest *manifest; /* borrowed until snapshot_finish; piece i is of tensor i */
	enum copy_kind copy_kind;
	uint32_t item_count;
	struct snapshot_item *items; /* owned */
	struct team *team;           /* owned; NULL until there was something large to share */
	bool is_alone;               /* no team can be had */

	/* The copy under way. */
	const void *const *data;
	uint8_t *stage;
	_Atomic uint32_t item_next;
};

/* -ENOMEM; snapshot_finish is right then too. */
int snapshot_init(struct snapshot *snapshot, const struct manifest *manifest);
void snapshot_finish(struct snapshot *snapshot);

/* data[i]: the values of tensor i. Everything is in the stage, for whoever is told so afterwards, when this returns. */
void snapshot_copy(struct snapshot *snapshot, const void *const *data, uint8_t *stage, bool shared_out);
