/*
 * What a generation's manifest.json says: all of a model but its averages, as JSON.
 *
 *     {"format": 1, "agent": "emad 0.1.0", "model": "run42/net", "version": 1187, "step": 1200, ...,
 *      "profiles": [{"specification": "ema=yolo", "updates": 1187, "decay_rest": "0x1.8p-9", ...}],
 *      "tensors": [["head.weight", "F32", [4, 8], false, "0x1.91p+3"], ...],
 *      "files": [{"profile": "ema", "bytes": 8421376, "xxh3": "..."}], "checksum": "..."}
 *
 * Real numbers are hexadecimal, so that they come back bit by bit. Numbers without sign are JSON's integers of the same
 * 64 bits. Behind a tensor stands the sum of the squares of its values in the newest snapshot, from which norm_jump
 * goes on; nothing where that is not known. "files" and "checksum" are generation.h's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/generation.h"
#include "daemon/core/guards.h"
#include "proto/layout.h"
#include "proto/manifest.h"
#include "proto/profile.h"

struct generation_profile {
	struct profile profile;
	struct slot_profile facts; /* but the region's place */
	char *history;             /* as struct generation says; NULL: none */
	bool has_snapshot;         /* averages of it are kept on disk (keep.h) */
	uint64_t snapshot_step;    /* the newest of them */
	uint64_t file_bytes;       /* decoded only, like the next */
	uint64_t file_checksum;
};

/* For encoding, pointers are borrowed; those of a decoded one are its own, to be freed by generation_finish. */
struct generation {
	const char *agent; /* encoded only */
	char model[MODEL_NAME_BYTES_MAX + 1];
	uint32_t world;
	uint64_t epoch; /* the largest that the daemon had handed out */
	uint64_t slot_count, stage_count; /* encoded only */
	uint64_t version;
	uint64_t step, updates, calls, published_us; /* of the version */
	bool has_step;       /* as in struct model, like the following */
	uint64_t model_step;
	uint64_t stride;
	bool coalesces;
	bool managed;
	int64_t owner;
	struct guards guards;
	char *attributes;
	char *metadata; /* NULL: none */
	struct manifest *manifest; /* the tensors; without pieces where decoded */
	double *value_squares;     /* one a tensor, 0: not known; NULL: of none */
	uint32_t profile_count;
	struct generation_profile profiles[PROFILE_COUNT_MAX];
};

/* The text without its end, with room for that; free with free(). NULL: no memory. */
char *generation_encode(const struct generation *generation, size_t *ret_bytes);

/*
 * Checks everything before it is believed. STATUS_EVERSION for a later format, STATUS_ECORRUPT for anything else that
 * generation_encode does not write, with a sentence; -ENOMEM. On failure there is nothing to be freed.
 */
int generation_decode(const char *text, size_t text_bytes, struct generation *ret_generation, struct reason *reason);

/*
 * The same without tensors and files, for a model's book: the version may be 0, for none. The text is owned by the
 * caller; NULL: no memory.
 */
char *generation_facts_encode(const struct generation *generation);
int generation_facts_decode(const char *text, size_t text_bytes, struct generation *ret_generation,
                            struct reason *reason);

/* What a manifest says of itself must be where it lies. */
bool generation_is_in_place(const struct generation *generation, const char *directory,
                            const struct generation_name *name);

/* The version's facts, but for its number; the slot's regions stay where they are. */
void generation_slot_write(const struct generation *generation, struct slot_header *slot);

void generation_finish(struct generation *generation);
