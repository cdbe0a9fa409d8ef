/*
 * Remote: what a trainer and a view do otherwise where no memory is shared with the daemon.
 *
 * A trainer's stages lie in memory of its own. The daemon alone holds what it has accepted, so what a daemon without its
 * memory comes back without is sent again from there: one rank of several has as many stages as in the daemon, because
 * their snapshots wait for those of the others; else all are the same place. A view is a copy of the image, which nobody
 * takes back.
 */
#pragma once

#include "client/registration.h"
#include "client/view.h"

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
	int64_t deadline_ms;
	bool patient; /* as in chunks.h */
};

/* Sends the snapshot in the map to a stage of the daemon. -EAGAIN: the daemon has given the stages up. */
int remote_send(const struct remote_send *send, struct reason *reason);

/* A version that was copied. */
struct remote_image {
	struct emad_view_info facts; /* but for tensor_count */
	uint8_t *map;                /* the image, read-only; munmap */
	int fd;                      /* of it; close */
};

/* Copies the version that a request (as for view) asks for. STATUS_EREVOKED: it was taken back in the middle. */
int remote_read(struct emad_client *client, const struct request *view, int64_t deadline_ms,
                struct remote_image *ret_image, struct reason *reason);
