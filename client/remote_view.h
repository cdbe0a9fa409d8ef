/*
 * Remote views: what is read of a daemon that no memory is shared with.
 *
 * A version is leased for as long as it takes to copy what is wanted of it. That is the whole image, as it is; or the
 * header first, and then the places of the tensors that are wanted, in a dtype that the daemon converts them to where
 * that makes them shorter: these make another image here, the one that a local conversion would make.
 */
#pragma once

#include "client/client.h"

/* A version that was copied. */
struct remote_image {
	struct emad_view_info facts; /* but for tensor_count */
	uint8_t *map;                /* the image, read-only; munmap */
	int fd;                      /* of it; close */
};

/*
 * Copies what options name of the version that a request (as for view) asks for. STATUS_EREVOKED: it was taken back in
 * the middle.
 */
int remote_view_read(struct emad_client *client, const struct request *view, const struct emad_view_options *options,
                     int64_t deadline_ms, struct remote_image *ret_image, struct reason *reason);

/* Copies a range of bytes of such a version's image to its buffer; ret_facts without image and tensor_count. */
int remote_view_range(struct emad_client *client, const struct request *view, const struct emad_range *range,
                      int64_t deadline_ms, struct emad_view_info *ret_facts, struct reason *reason);
