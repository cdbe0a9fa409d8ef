/*
 * Going back: to the newest version of a step or an earlier one that is still there, in a slot or on disk.
 *
 *     asked -> seeking (the disk is looked at) -> sought -> in a slot -----------------------------> taken
 *                 ^                                 |                                                  ^
 *                 |                                 +-> on disk -> filling (read into a slot) -> filled +
 *                 +---- damaged, or gone ----------------------------+
 *
 * It becomes a new version, and the newest of all: numbers only rise. Until then the newest version stays what it was
 * and no update begins, so that whoever dies half-way leaves the one or the other. One request of a model at a time; it
 * is parked meanwhile, and when it goes away nothing has happened.
 *
 * Loop thread only; what takes time is done by the host.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/generation_text.h"

struct call;
struct file_order;
struct instant;
struct model;
struct service;

enum restore_state {
	RESTORE_IDLE,
	RESTORE_SEEKING, /* the order is with the host, as in FILLING */
	RESTORE_SOUGHT,
	RESTORE_FILLING,
	RESTORE_FILLED,
	RESTORE_FAILED,
};

struct restore {
	enum restore_state state;
	uint64_t asker;           /* number of the request that it is for */
	bool holds;               /* no update begins */
	bool doubts;              /* a generation turned out damaged: older ones are looked at */
	struct file_order *order; /* owned; made for the first one */
	bool found;
	struct generation generation; /* where one was found */
	uint32_t slot;                /* FILLING, FILLED: the versions' slot being written */
	int error;                    /* FAILED: of the disk */
};

/* A version to go back to. */
struct restore_target {
	bool on_disk;
	uint32_t slot; /* where it is, or was read into */
	uint64_t version, step, updates;
};

/*
 * 0 when the version is at hand and no update runs: restore_take may follow at once. CALL_PARK. STATUS_ENOVERSION with a
 * sentence that says which steps there are; STATUS_EMANIFEST, STATUS_EPROFILE: on disk are other tensors or profiles;
 * what the disk says. The newest version of all is at hand at any time.
 */
int restore_reach(struct call *call, struct model *model, uint64_t step, struct restore_target *ret_target);

/* The same, but it only says which: nothing is read or held. */
int restore_look(struct call *call, struct model *model, uint64_t step, struct restore_target *ret_target);

/* Makes it the newest of all. change: as the history has it. */
void restore_take(struct service *service, const struct instant *now, struct model *model,
                  const struct restore_target *target, const char *change);

/* The request of that number does without. */
void restore_drop(struct service *service, struct model *model, uint64_t asker);

/* The host has done the order. */
void restore_written(struct service *service, const struct instant *now, struct model *model);

/* Whether the host has an order, or a slot is filled: the model must stay, and its slots too. */
bool restore_busy(const struct model *model);

/* Lets go of what was done for a request that has gone away. */
void restore_sweep(struct service *service, struct model *model);

void restore_finish(struct model *model);
