/*
 * Chunks: moving many bytes to or from a daemon that no memory is shared with, several requests at a time.
 *
 * Each chunk is a request of its own over a connection of its own, so that the way there and back of one is filled with
 * the others; each may be sent again. The calling thread does its share, and helpers that live as long as the call do
 * the rest.
 */
#pragma once

#include <stdint.h>

#include "client/client.h"
#include "proto/limits.h"

struct chunks {
	struct emad_client *client; /* borrowed, like context */
	void *context;              /* for move */
	uint64_t begin, end;        /* numbers of chunks */
	uint64_t bytes;             /* of all from the first on, for whoever is told how far it is */
	int64_t deadline_ms;
	bool patient; /* the deadline is not that of all: each chunk has the client's timeout */
	/* Moves one chunk; called by several threads at once. */
	int (*move)(const struct chunks *chunks, uint64_t index, int64_t deadline_ms, struct reason *reason);
};

/* How many chunks so many bytes are. */
static inline uint64_t chunks_count(uint64_t bytes)
{
	return bytes / CHUNK_BYTES_MAX + (bytes % CHUNK_BYTES_MAX != 0);
}

/* Moves them all. The first failure ends it; chunks that were under way then have come to an end. */
int chunks_move(const struct chunks *chunks, struct reason *reason);
