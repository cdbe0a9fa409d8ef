/*
 * Inflow: which bytes of a snapshot have come by messages.
 *
 * A snapshot is cut into chunks of CHUNK_BYTES_MAX, the last one shorter; a chunk is there or not, however often it was
 * sent. It is named by the sequence number of the push that will follow. A higher one begins anew, a lower one is that
 * of a connection that was thought dead.
 *
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/status.h"

/* One of zeros has nothing, and expects nothing. */
struct inflow {
	uint64_t sequence; /* 0: nothing has begun */
	uint64_t snapshot_bytes;
	uint64_t chunk_count;
	uint64_t first_missing; /* chunks before it are there */
	uint8_t *chunks;        /* owned; a bit a chunk */
};

/* How many bytes the chunk that begins there has. STATUS_EARGUMENT with a sentence: none begins there. */
int inflow_check(uint64_t snapshot_bytes, uint64_t offset, uint64_t *ret_bytes, struct reason *reason);

/* Forgets what came before. -ENOMEM: as it was. */
int inflow_begin(struct inflow *inflow, uint64_t sequence, uint64_t snapshot_bytes);

/* The chunk at that offset is there; it must have been checked. */
void inflow_take(struct inflow *inflow, uint64_t offset);

/* The first byte that has not come; the size of the snapshot when all have. */
uint64_t inflow_missing(const struct inflow *inflow);

/* Whether all of a snapshot has come. */
bool inflow_whole(const struct inflow *inflow, uint64_t sequence, uint64_t snapshot_bytes);

void inflow_finish(struct inflow *inflow);
