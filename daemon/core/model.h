/*
 * A model: its manifest and profiles, its memory, its ranks, and the one update that may be under way.
 *
 *     create -> (memory is made) -> serving -> (doomed: removed or replaced, an update still runs) -> destroy
 *
 * Loop thread only. The workers see `apply` and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/apply.h"
#include "daemon/core/host.h"
#include "daemon/core/intake.h"
#include "daemon/core/plan.h"
#include "daemon/core/settings.h"
#include "daemon/core/versions.h"
#include "proto/counters.h"
#include "proto/image.h"
#include "proto/layout.h"
#include "proto/manifest.h"
#include "proto/profile.h"

/* What the daemon knows of one rank beside its record in the head segment. */
struct rank {
	struct manifest *manifest; /* owned; its pieces; NULL until it has registered */
	struct memory stage;       /* its stages; none until the trainer attaches, and after it has gone */
	bool stage_ordered;
	uint64_t attached_peer; /* 0: nobody */
	int64_t pid;            /* of the trainer, for logs */
	struct reason refusal;  /* why its latest snapshot was refused */
};

struct model {
	struct model *next; /* in the service's list */
	uint64_t id;
	char name[MODEL_NAME_BYTES_MAX + 1];
	struct manifest *manifest; /* owned; the tensors */
	uint32_t world;
	uint32_t profile_count;
	uint32_t slot_count;
	uint32_t stage_count;
	struct profile profiles[PROFILE_COUNT_MAX];
	struct image *images[PROFILE_COUNT_MAX]; /* owned */
	uint64_t region_offsets[PROFILE_COUNT_MAX];
	uint64_t slot_bytes;
	uint64_t geometry;
	uint64_t memory_bytes; /* of all its segments, made or still to be made */
	char *attributes;      /* owned; compact JSON object */

	bool serving; /* its memory is there */
	bool doomed;  /* no longer in the service's list of names; destroyed when the update ends */
	bool touched; /* in the service's list of models to look at again */
	struct model *touched_next;

	struct memory head_memory;
	struct memory slot_memory[SLOT_COUNT_MAX];
	struct head_header *head;    /* in head_memory */
	struct rank_record *records; /* in head_memory, one a rank */
	struct rank *ranks;          /* owned, one a rank */
	struct versions versions;

	struct plan *plan;             /* owned; NULL until every rank has registered */
	struct apply apply;            /* room for the results */
	struct tensor_result *results;      /* owned; of the newest version */
	struct tensor_result *results_next; /* owned; of the update under way */
	bool applying;
	struct intake_next applying_next; /* which stages */
	uint64_t applying_since_us;
	uint64_t room_due_ms; /* when a leased slot may be taken back for a waiting update; 0: none waits */
	uint64_t version_next;
	uint64_t payload_bytes; /* of one snapshot, all ranks together */
};

/*
 * Lays out a model; takes the manifest, also on failure. Memory is ordered next with model_order.
 * STATUS_ELIMIT, STATUS_EPROFILE, -ENOMEM with a sentence.
 */
int model_create(const struct settings *settings, const char *name, uint32_t world, struct manifest *manifest,
                 const struct profile *profiles, uint32_t profile_count, struct model **ret_model,
                 struct reason *reason);

/* Gives back its memory through the host. No update may be under way. */
void model_destroy(struct model *model, const struct host *host);

/* Head and slots, as one order. */
void model_order(const struct model *model, struct segment_order *order);

/* The stages of a rank. */
void model_order_stage(const struct model *model, uint32_t rank, struct segment_order *order);

/* Bytes of a rank's stage segment. */
uint64_t model_stage_segment_bytes(const struct model *model, uint32_t rank);

/* Takes over the memory of a fulfilled order and writes the segments' headers. */
void model_adopt(struct model *model, struct segment_order *order);
void model_adopt_stage(struct model *model, struct segment_order *order);

/*
 * Whether a rank's pieces fit those of the others, as far as they are known: together they must tile the tensors.
 * STATUS_EMANIFEST with a sentence.
 */
int model_pieces_check(const struct model *model, uint32_t rank, const struct manifest *candidate,
                       struct reason *reason);

/*
 * Takes a rank's pieces (also on failure), and makes the plan when all ranks are known. They must have been checked,
 * and no update may be under way. STATUS_ELIMIT as plan_create, -ENOMEM: everything is as before.
 */
int model_rank_pieces(struct model *model, uint32_t rank, struct manifest *candidate, struct reason *reason);

/* Frees the stage of a rank whose trainer has gone and that has nothing pending. True when it was freed. */
bool model_stage_sweep(struct model *model, uint32_t rank, const struct host *host);

/* Step of the newest version, NULL when there is none. */
const uint64_t *model_newest_step(const struct model *model);

/* Snapshots accepted but not decided, of the rank that has most. */
uint32_t model_lag(const struct model *model);

/* Copies the stage's state to where the trainer sees it. */
void model_stage_mirror(struct model *model, uint32_t rank, uint32_t stage);
