/*
 * Remote: what a trainer does otherwise where no memory is shared with the daemon.
 *
 * Its stages lie in memory of its own, all in the same place, because a snapshot has been sent when the push ends.
 */
#pragma once

#include "client/registration.h"

/* No memory is shared with this client's daemon. */
bool remote_is(const struct emad_client *client);

/* Claims the registration's stages, and makes memory for snapshots where *map has none. */
int remote_claim(const struct registration *registration, int64_t deadline_ms, struct stage_map *map,
                 struct reason *reason);

/* The trainer leaves; nothing is said when that fails. */
void remote_leave(const struct registration *registration);

/* Where a snapshot goes. */
struct remote_send {
	const struct registration *registration;
	uint32_t stage;
	uint64_t sequence; /* of the push that follows */
	uint64_t begin;    /* bytes before it have come */
	enum dtype wire;   /* in which it travels; RUNS_AS_KEPT */
	int64_t deadline_ms;
	bool patient; /* as in chunks.h */
};

/* Sends the snapshot in the map to a stage of the daemon. -EAGAIN: the daemon has given the stages up. */
int remote_send(const struct remote_send *send, struct reason *reason);
