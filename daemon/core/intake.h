/*
 * Intake: what becomes of a push, decided for one rank at a time and then for the step of all ranks.
 *
 *              register                push                     begin                    settle
 *     (nobody) --------> stage FREE ---------> stage READY ---------> stage APPLYING ---------> stage FREE
 *                                                  |                                               ^
 *                                                  +-- another rank left the step out: incomplete ------+
 *
 * READY is recorded in the head segment before the push is acknowledged, and survives the daemon: the next one calls
 * intake_adopt and goes on. Every function leaves the record whole at each instruction: the answer is written before the
 * stage's state when a snapshot comes, and when it is settled, and each of them comes into force by one store of its
 * seal. Each rank remembers its last ANSWER_COUNT answers by sequence number, so that a repeated request is answered as
 * it was and never applied twice; another push of a step that was accepted is `duplicate`, an older one `stale`. The
 * epoch fences: only the newest registration of a rank is listened to.
 *
 * Pure: works on the records alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/layout.h"
#include "proto/message.h"
#include "proto/status.h"

struct push {
	uint64_t client;
	uint64_t epoch;
	uint64_t sequence;
	uint64_t step;
	uint64_t stage;
	uint64_t sequence_min; /* a push of a lower number comes late: its trainer may have written into its stage again */
	bool seeds; /* the snapshot is the average itself: its step may be any */
	bool chunked; /* it came in chunks, all of which must be there */
};

/* What a push is answered. */
struct answer {
	uint64_t sequence;
	uint64_t step;
	uint64_t version; /* that the snapshot is in */
	uint64_t calls;   /* that it stood for */
	enum outcome outcome;
	uint32_t stage;
};

/* The rank now belongs to this registration; earlier answers and stages are forgotten. No stage may be in use. */
void intake_claim(struct rank_record *record, uint64_t client, uint64_t register_sequence, uint64_t epoch);

/* Nobody holds the rank any more, where somebody did: another registration is taking over. */
void intake_vacate(struct rank_record *record);

/* It has not taken over: whoever held the rank holds it again. */
void intake_reclaim(struct rank_record *record);

/* Whether somebody holds the rank. */
bool intake_is_held(const struct rank_record *record);

/*
 * 0 when client and epoch hold the rank. STATUS_EFENCED with a sentence when another registration does or is about to;
 * STATUS_ENOMODEL when nobody ever has, as after the daemon has lost the model and another rank has made it again.
 */
int intake_holds(const struct rank_record *record, uint64_t client, uint64_t epoch, struct reason *reason);

/*
 * Decides a push. newest_step: the latest step that is averaged, NULL when there is none. 0 with the answer (ACCEPTED:
 * the stage is READY now; DUPLICATE; STALE; or what the same request was answered before), STATUS_EFENCED,
 * STATUS_EARGUMENT for a stage that is not there or not free, or STATUS_ETIMEOUT for a push that comes late.
 */
int intake_push(struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step, const struct push *push,
                struct answer *ret_answer, struct reason *reason);

/* The answer to a sequence number; false when it is not remembered. */
bool intake_answer(const struct rank_record *record, uint64_t sequence, struct answer *ret_answer);

/* Stages that are READY or APPLYING. */
uint32_t intake_pending(const struct rank_record *record, uint32_t stage_count);

/* A free stage, or -1. */
int32_t intake_free_stage(const struct rank_record *record, uint32_t stage_count);

enum intake_choice {
	INTAKE_NOTHING, /* some rank has nothing ready */
	INTAKE_DROP,    /* the snapshot in `rank`, `stages[rank]` can never be completed: settle it as INCOMPLETE */
	INTAKE_COALESCE, /* the snapshots in stages[] give way to a newer step: settle them as COALESCED */
	INTAKE_APPLY,   /* every rank has the step ready: stages[] says where */
};

struct intake_next {
	enum intake_choice choice;
	uint64_t step;
	uint32_t rank;
	uint32_t stages[WORLD_MAX];
};

/*
 * What to do next, looking at the oldest READY stage of each rank. A rank pushes in rising order, so a step older than
 * the oldest of another rank will never be whole. With coalesce, of several whole steps the newest alone is applied.
 */
void intake_select(const struct rank_record *records, uint32_t world, uint32_t stage_count, bool coalesce,
                   struct intake_next *ret_next);

/* Records an answer that was decided without a stage: a push refused for its loss. */
void intake_refuse(struct rank_record *record, const struct push *push, enum outcome outcome,
                   struct answer *ret_answer);

/* The READY stage is being applied, to become a part of that version. */
void intake_begin(struct rank_record *record, uint32_t stage, uint64_t version);

/*
 * The stage's snapshot is decided: records the answer and frees the stage. calls: that the snapshot stood for; 0 where
 * it was not applied.
 */
void intake_settle(struct rank_record *record, uint32_t stage, enum outcome outcome, uint64_t version, uint64_t calls);

/*
 * Makes a record whole that a daemon has left at any instruction. version, calls: of the newest version that was
 * published (0: none), and how many calls it stood for. Stages that were being applied are settled where that version
 * is theirs, and READY again where not. An answer that was never sent is forgotten.
 */
void intake_adopt(struct rank_record *record, uint32_t stage_count, uint64_t version, uint64_t calls);

/* Which parts of a record are not as a daemon has left them. */
struct intake_damage {
	bool claim, refused, coalesced;
	uint32_t stages, answers; /* bits by index */
};

/* Looks for it, before intake_adopt. True when there is some. */
bool intake_is_damaged(const struct rank_record *record, struct intake_damage *ret_damage);

/*
 * Makes the record one without these parts: the rank was never registered, stages are free, answers are forgotten and
 * counts begin anew.
 */
void intake_mend(struct rank_record *record, const struct intake_damage *damage);

/* Counts one as refused that was accepted and is lost with its stage's record. */
void intake_lose(struct rank_record *record);

/* The answer of a snapshot in that stage which is not decided; false where there is none. */
bool intake_accepted(const struct rank_record *record, uint32_t stage, struct answer *ret_answer);
