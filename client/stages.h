/*
 * The stages of a rank as its trainer sees them: the mapped memory, what was pushed last from each of them, and the
 * snapshots that are still to be repeated.
 *
 *   copied --> in doubt --answer--> accepted --overwritten, or the daemon says so--> decided
 *                                      |
 *                                      v the daemon is another one, and has lost the model
 *                                   keepsake --pushed again--> accepted
 *
 * A daemon that comes back without its memory has lost what it had accepted and not averaged: of a sharded model, steps
 * that other ranks had not pushed yet. The trainer still has the memory in which they lie. Of the stages that such
 * snapshots are in the pages stay mapped, as keepsakes, until the new daemon has accepted them too.
 *
 * Used by one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/enclosure.h"
#include "proto/layout.h"
#include "proto/manifest.h"
#include "proto/status.h"

/* The mapped stage segment of a rank. */
struct stage_map {
	uint8_t *bytes; /* NULL when there is none */
	uint64_t segment_bytes;
	uint32_t stage_count;
	uint64_t stage_stride; /* 0: all stages are the same place; only where no memory is shared with the daemon */
	bool is_shared;        /* with the daemon, which mirrors the stages' states in it */
};

/* What was pushed last from a stage. */
struct stage_note {
	uint64_t step;
	bool pushed;   /* there is such a thing */
	bool in_doubt; /* the answer did not come, and the request may still arrive: nothing must be written there */
	bool accepted; /* the daemon has said that it holds the snapshot, and not yet what became of it */
	bool is_own;   /* of the push under way, of whose model the daemon has said that it is not there */
	struct enclosure *enclosure; /* owned; NULL: nothing went with it */
};

struct keepsake {
	uint64_t step;
	bool is_own; /* of the push under way, which nobody has acknowledged */
	struct enclosure *enclosure; /* owned; NULL: nothing goes with it */
	uint8_t *bytes;     /* owned pages */
	uint64_t map_bytes; /* of those */
};

struct stages {
	struct stage_map map;
	struct stage_note notes[STAGE_COUNT_MAX]; /* of places: stages that are the same place have the first */
	uint32_t keepsake_count;
	struct keepsake keepsakes[STAGE_COUNT_MAX]; /* by step */
	bool has_settled;
	uint64_t settled_step; /* the newest that was accepted and cannot be repeated any more: it is averaged, or lost */
};

/* Maps the segment. Everything in it is checked before the first byte is written. STATUS_ECORRUPT, -errno. */
int stage_map_init(struct stage_map *map, int fd, const struct manifest *manifest, struct reason *reason);

/* The memory of a stage. */
uint8_t *stage_map_stage(const struct stage_map *map, uint32_t stage);
void stage_map_finish(struct stage_map *map);

/* Accepts stages of zeros. */
void stages_finish(struct stages *stages);

/* A stage that the daemon has read and that is in no doubt, or -1. */
int stages_free(const struct stages *stages);

/* What the stage holds is about to be overwritten. */
struct stage_note *stages_overwrite(struct stages *stages, uint32_t stage);

/* The daemon holds that step, whichever push has brought it; or it is in a version. */
void stages_accepted(struct stages *stages, uint64_t step);
void stages_applied(struct stages *stages, uint64_t step);

/* A later push is answered, or a stage reserved: the daemon takes none any more of those that were in doubt. */
void stages_answered(struct stages *stages);

/* Everything that was pushed is averaged or refused. */
void stages_decided(struct stages *stages);

/* Whether something was accepted of which it is not known what became of it. */
bool stages_hold(const struct stages *stages);

/*
 * The daemon knows of nothing that was pushed: takes over the new map, which may be the same memory elsewhere. What the
 * daemon had accepted and not decided, and what is the push's own, is kept from the old one, with `repeats`; else only
 * the latter, because somebody has removed the model.
 */
void stages_replace(struct stages *stages, const struct stage_map *map, uint64_t stage_bytes, bool repeats);

/* The same memory, mapped again or not. */
void stages_remap(struct stages *stages, const struct stage_map *map);

/* The oldest snapshot to be repeated, or NULL; the push's own, or NULL. */
struct keepsake *stages_keepsake(struct stages *stages);
struct keepsake *stages_own_keepsake(struct stages *stages);

/* It needs to be kept no longer. */
void stages_drop(struct stages *stages, struct keepsake *keepsake);
