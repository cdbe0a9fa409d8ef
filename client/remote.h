/*
 * Remote: what a trainer does otherwise where no memory is shared with the daemon.
 *
 * A trainer's stages lie in memory of its own. The daemon alone holds what it has accepted, so what a daemon without its
 * memory comes back without is sent again from there: one rank of several has as many stages as in the daemon, because
 * their snapshots wait for those of the others; else all are the same place.
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
