/*
 * A model: its geometry, its memory, its ranks, and the one update that may be under way.
 *
 *     create -> (memory is made) -> serving -> (doomed: removed or replaced, an update still runs) -> destroy
 *
 * Other profiles need other slots, other tensors or another world a whole new model. Either way the newest version of
 * before stays readable as the `heirloom`, and the next update goes on from there into the new slots:
 *
 *     relay:  same ranks and stages, new geometry; its slots are made, then adopted between two updates
 *     heir:   a new model, hidden until its memory is made; then it inherits from its ancestor, which is doomed
 *
 * Loop thread only. The workers see `apply` and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/apply.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/geometry.h"
#include "daemon/core/guards.h"
#include "daemon/core/host.h"
#include "daemon/core/inflow.h"
#include "daemon/core/intake.h"
#include "daemon/core/keep.h"
#include "daemon/core/plan.h"
#include "daemon/core/restore.h"
#include "daemon/core/seal.h"
#include "daemon/core/settings.h"
#include "daemon/core/versions.h"
#include "proto/counters.h"
#include "proto/layout.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/profile.h"

/* What belongs to a snapshot in a stage beside its values. */
struct enclosure {
	char *metadata; /* owned; JSON object, NULL for none */
	bool seeds;     /* the snapshot is the average itself */
	char profile[PROFILE_NAME_BYTES_MAX + 1]; /* of that profile */
	uint64_t updates;                         /* after so many updates */
};

/* What the daemon knows of one rank beside its record in the head segment. */
struct rank {
	struct manifest *manifest; /* owned; its pieces; NULL until it has registered */
	struct memory stage;       /* its stages; none until the trainer attaches, and after it has gone */
	bool stage_ordered;
	uint64_t attached_peer; /* 0: nobody */
	bool stale_told;        /* that its snapshots are of older steps than the average */
	bool is_remote;         /* whoever that is shares no memory with the daemon */
	uint64_t away_due_ms;   /* when a remote trainer that was not heard of is given up; 0: never */
	struct inflow inflows[STAGE_COUNT_MAX];
	uint64_t sequence_min;  /* of the trainer's requests, those with a lower number were given up */
	int64_t pid;            /* of the trainer, for logs */
	struct reason refusal;  /* why its latest snapshot was refused */
	struct enclosure enclosures[STAGE_COUNT_MAX];
};

/* The newest version of a model's earlier geometry: read until the first update after the change, never written. */
struct heirloom {
	struct memory memory; /* none where there is no heirloom */
	struct geometry *geometry; /* owned */
	struct placement *sources; /* owned; where the model's geometry finds its old shadows in it */
};

/* Another geometry, and slots for it on their way. */
struct relay {
	struct geometry *geometry; /* owned; NULL: none is wanted */
	bool swaps;                /* the slots that there are fit it: no memory is needed */
	bool made;                 /* everything is there, to be adopted when no update runs */
	bool manages;              /* it was asked for, and not by a registration */
	struct memory slots[SLOT_COUNT_MAX];
	uint64_t slot_bytes_sum; /* of the memory */
};

struct model {
	struct model *next; /* in the service's list */
	uint64_t id;
	char name[MODEL_NAME_BYTES_MAX + 1];
	struct manifest *manifest; /* owned; the tensors */
	struct geometry *geometry; /* owned; of the slots that are written */
	uint32_t world;
	uint32_t slot_count;
	uint32_t stage_count;
	int64_t owner;         /* uid of whoever made it; OWNER_UNKNOWN */
	uint64_t memory_bytes; /* of all its segments, made or still to be made, but for a relay's */
	char *attributes;      /* owned; compact JSON object */
	char *metadata;        /* owned; of the newest version; NULL for none */
	char *histories[PROFILE_COUNT_MAX]; /* owned; of the geometry's profiles; NULL: nothing was changed */

	/* As the latest registration wants it. */
	struct guards guards;
	uint64_t stride; /* steps from one call of the schedules to the next */
	bool coalesces;
	char *changes; /* owned; how its tensors differ from those of its ancestor; NULL: it had none */
	bool managed; /* profiles were changed on request: later registrations take them as they are */
	uint64_t facts_changed; /* goes up whenever what a checkpoint says of the model changes without a new version */

	bool serving; /* its memory is there */
	bool recovers; /* its averages are still read from disk: it has no book */
	bool doomed;  /* no longer in the service's list of names; destroyed when the update ends */
	bool touched; /* in the service's list of models to look at again */
	struct model *touched_next;
	struct model *ancestor; /* whose newest version it waits to inherit; until then it is hidden */
	struct model *heir;     /* the other way round */

	struct memory head_memory;
	struct memory slot_memory[SLOT_COUNT_MAX];
	struct head_header *head;    /* in head_memory */
	bool book_is_stale;          /* facts have changed that could not be written there yet */
	struct rank_record *records; /* in head_memory, one a rank */
	struct rank *ranks;          /* owned, one a rank */
	struct versions versions;
	struct heirloom heirloom;
	struct relay relay;
	struct keep keep;
	struct checkpoint checkpoint;
	struct restore restore;

	bool has_step; /* `step` is the latest that was averaged, or before which the trainer has begun again */
	uint64_t step;

	struct plan *plan;             /* owned; NULL until every rank has registered */
	struct apply apply;            /* room for the results */
	struct tensor_result *results;      /* owned; of the newest version */
	struct tensor_result *results_next; /* owned; of the update under way */
	bool *kept;                         /* owned; tensors that keep their old shadow in the update under way */
	bool applying;
	struct intake_next applying_next; /* which stages */
	uint64_t applying_after; /* the step from which the update under way goes on */
	struct enclosure applying_enclosure; /* that of rank 0 */
	struct reason keeping; /* why `kept` is in use */
	uint64_t applying_since_us; /* of the monotonic clock */
	uint64_t coalesced_count; /* snapshots that gave way since the latest update began */
	uint64_t applying_coalesced_count; /* and before, since the version before it */
	uint64_t drop_count; /* snapshots that were dropped as incomplete and not told of yet; */
	uint32_t drop_rank;  /* of the latest of them */
	uint64_t drop_step;
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

/* How many of everything a model has. */
struct model_counts {
	uint32_t world, slots, stages;
};

/* The same with counts that are given. */
int model_create_with(const struct model_counts *counts, const char *name, struct manifest *manifest,
                      const struct profile *profiles, uint32_t profile_count, struct model **ret_model,
                      struct reason *reason);

/* Gives back its memory through the host. No update may be under way, and no file be written. */
void model_destroy(struct model *model, const struct host *host);

/* Head and slots, as one order. */
void model_order(const struct model *model, struct segment_order *order);

/* The stages of a rank, as an order to be freed with free(). -ENOMEM; STATUS_ELIMIT as manifest_encode. */
int model_order_stage(const struct model *model, uint32_t rank, struct segment_order **ret_order,
                      struct reason *reason);

/* Takes over the memory of a fulfilled order and writes the segments' headers. */
void model_adopt(struct model *model, struct segment_order *order);
void model_adopt_stage(struct model *model, const struct segment_order *order);

/* The memory of head, slots and stages is that of a model that was made before: what stands in it stays. */
void model_take_head(struct model *model, const struct memory *memory);
void model_take_slots(struct model *model, const struct memory *memory);

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

/* Makes the plan for another geometry, if all ranks are known. No update may be under way; failures as above. */
int model_replan(struct model *model, const struct geometry *geometry, struct reason *reason);

/* Slots of the model's geometry take the place of those it had, which have been given back. */
void model_adopt_slots(struct model *model, const struct memory *memory);

/* Room for the metadata in the images of a model. */
extern const size_t MODEL_METADATA_BYTES;

/* Frees the stage of a rank whose trainer has gone and that has nothing pending. True when it was freed. */
bool model_stage_sweep(struct model *model, uint32_t rank, const struct host *host);

/* Whether what was read into a slot begins as the images of the geometry do, but for their metadata. */
bool model_slot_fits(const struct model *model, uint32_t slot);

/* The geometry of the newest version: the heirloom's, while there is one. */
const struct geometry *model_newest_geometry(const struct model *model);

/* The newest version's facts of a profile of the model's geometry; NULL: it has none yet. */
const struct slot_profile *model_newest_facts(const struct model *model, uint32_t profile);

/* The memory of the newest version, which must be there. */
const struct memory *model_newest_memory(const struct model *model);

/* The latest averaged step, NULL when there is none. */
const uint64_t *model_newest_step(const struct model *model);

/* Snapshots accepted but not decided, of the rank that has most. */
uint32_t model_lag(const struct model *model);

/* Copies the stage's state to where the trainer sees it. */
void model_stage_mirror(struct model *model, uint32_t rank, uint32_t stage);

/* Lets go of what belonged to a snapshot. */
void enclosure_clear(struct enclosure *enclosure);

/* Puts it down where the next daemon finds it, for a stage that is free. */
void model_enclosure_write(struct model *model, uint32_t rank, uint32_t stage, const struct enclosure *enclosure);

/* Gives back a rank's stages, if it has some. */
void model_stage_drop(struct model *model, uint32_t rank, const struct host *host);
