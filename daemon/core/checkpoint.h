/*
 * Checkpoints of a model: when one is due, and what became of it. See generation.h for what lies on disk.
 *
 *     newer version -> asked for, interval over, enough updates, or the end -> written (its slot is pinned)
 *                                 ^                                              | failed
 *                                 +---- after 1 s, 2 s, 4 s ... 5 min -----------+
 *
 * What is said of a model may change without a new version: attributes, guards, the stride. Then, at the same times, the
 * manifest of the generation on disk is written anew, and the averages beside it stay.
 *
 * The newest version is written while updates go on in the other slots; a model with two slots waits for the disk. Of a
 * model, one version at a time is on its way to disk, this way or as a kept average (keep.h).
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "proto/limits.h"

struct call;
struct model;
struct service;

/* A file of the newest generation on disk. */
struct checkpoint_file {
	char profile[PROFILE_NAME_BYTES_MAX + 1];
	uint64_t bytes;
	uint64_t checksum;
};

struct checkpoint {
	bool writing;
	uint32_t slot;            /* pinned while writing */
	struct file_order *order; /* owned; made for the first one; the host's while writing */
	bool owns;         /* what the model's directory holds is of this very average */
	bool suspects;     /* it may: the daemon before could have died between a checkpoint and its note */
	uint64_t version;  /* the newest on disk; 0: none */
	uint64_t step;
	uint32_t file_count; /* of that; 0: not known */
	struct checkpoint_file files[PROFILE_COUNT_MAX];
	uint64_t facts, facts_writing; /* the model's facts_changed that is on disk, or on its way there */
	uint64_t wall_us;  /* when it was written; 0: before this daemon started */
	uint64_t since_ms; /* from when the interval counts; 0: no version yet */
	uint32_t failure_count; /* since one was written */
	uint64_t retry_ms;
	struct reason error; /* why the latest one failed; "": it was written */
	/* Requests are numbered: which was asked last, which the one being written is for, which are answered how. */
	uint64_t asked, asked_writing, answered;
	int answer;
	bool gives_up; /* the last one, at the end, could not be written */
	uint64_t remover; /* number of the request that removes the model: nothing is written while it waits; 0: none */
	bool discarding; /* what is on disk is on its way aside */
};

/* Begins what is due. */
void checkpoint_settle(struct service *service, const struct instant *now, struct model *model);

/* When checkpoint_settle must be called next; UINT64_MAX: something else will happen before. */
uint64_t checkpoint_due_ms(const struct service *service, const struct model *model);

/* It is on disk, or failed. */
void checkpoint_written(struct service *service, const struct instant *now, struct model *model);

/* Whether the end must wait for it. */
bool checkpoint_owed(const struct service *service, const struct model *model);

/*
 * The model is to be removed on request: what is on disk goes aside first, so that nobody is told of a removal that a
 * crash would undo. 0 when that is done, or has failed; until then CALL_PARK, and nothing is written for as long as the
 * request waits. -ENOMEM: nothing has happened.
 */
int checkpoint_discard(struct call *call, struct model *model);

/* It is aside, or failed. model: NULL when it is gone. */
void checkpoint_discarded(struct service *service, struct model *model, const struct file_order *order);

/* The newest version is written as soon as it can be, as if somebody had asked for it. */
void checkpoint_hasten(struct service *service, struct model *model);

/* The heir goes on from its ancestor, and so do its generations. */
void checkpoint_inherit(struct model *heir, const struct model *ancestor);

void checkpoint_finish(struct model *model);

/* What is to be said of all models: whose checkpoint was written last by this daemon, and whose fails. NULL: none's. */
struct checkpoint_news {
	const struct model *latest, *failing;
};
struct checkpoint_news checkpoint_news(const struct service *service);

/* Whether the daemon has a place for checkpoints. */
bool checkpoint_possible(const struct service *service);
