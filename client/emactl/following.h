/*
 * Waiting for the versions of a model, one after the other, through restarts of the daemon.
 *
 * The wait is the daemon's own: a view that is asked for with a step answers when there is one. It is asked for anew now
 * and then, so that a training which went back to an earlier step is noticed.
 */
#pragma once

#include "client/emactl/cadence.h"
#include "client/emactl/emactl.h"

struct following {
	const struct emactl *emactl; /* borrowed, likewise the next three */
	struct emad_client *client;
	const char *model;
	const char *profile; /* NULL: the first */
	uint64_t instance;   /* of the daemon that answered last */
	bool is_waiting_told;
	struct cadence cadence;
};

/*
 * Looks at the model as it is and begins the cadence. An exit status with the error printed: no such model or profile,
 * no daemon.
 */
int following_begin(struct following *following, uint64_t every, uint64_t until);

/*
 * Waits for the next due version, for ever: a view of it without tensors. An exit status with the error printed when it
 * cannot come any more.
 */
int following_next(struct following *following, struct emad_view **ret_view);

/* Whether a failure of a call passes by itself: the daemon is away, or took a version back. */
bool following_passes(int code);

/* What is said of the model in the daemon's list: the snapshots that wait to be applied; -1 when it cannot be had. */
int64_t following_lag(const struct following *following);
