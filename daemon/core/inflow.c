/*
 * Bits for chunks. See inflow.h.
 */
#include "daemon/core/inflow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"

int inflow_check(uint64_t snapshot_bytes, uint64_t offset, uint64_t *ret_bytes, struct reason *reason)
{
	if (offset >= snapshot_bytes || offset % CHUNK_BYTES_MAX != 0)
		return reason_set(reason, STATUS_EARGUMENT, "no chunk begins at byte %" PRIu64 ": the snapshot has %" PRIu64
		                  " bytes, and a chunk begins at each %d", offset, snapshot_bytes, CHUNK_BYTES_MAX);
	*ret_bytes = snapshot_bytes - offset < CHUNK_BYTES_MAX ? snapshot_bytes - offset : CHUNK_BYTES_MAX;
	return 0;
}

int inflow_begin(struct inflow *inflow, uint64_t sequence, uint64_t snapshot_bytes)
{
	uint64_t chunk_count = snapshot_bytes / CHUNK_BYTES_MAX + (snapshot_bytes % CHUNK_BYTES_MAX != 0);
	size_t bytes = (size_t)(chunk_count / 8 + 1);
	uint8_t *chunks = inflow->chunks;

	if (!chunks || inflow->chunk_count != chunk_count)
		chunks = malloc(bytes);
	if (!chunks)
		return -ENOMEM;
	memset(chunks, 0, bytes);
	if (chunks != inflow->chunks)
		free(inflow->chunks);
	*inflow = (struct inflow){
		.sequence = sequence,
		.snapshot_bytes = snapshot_bytes,
		.chunk_count = chunk_count,
		.chunks = chunks,
	};
	return 0;
}

static bool is_there(const struct inflow *inflow, uint64_t chunk)
{
	return inflow->chunks[chunk / 8] >> chunk % 8 & 1;
}

void inflow_take(struct inflow *inflow, uint64_t offset)
{
	uint64_t chunk = offset / CHUNK_BYTES_MAX;

	inflow->chunks[chunk / 8] |= (uint8_t)(1 << chunk % 8);
	while (inflow->first_missing < inflow->chunk_count && is_there(inflow, inflow->first_missing))
		inflow->first_missing++;
}

uint64_t inflow_missing(const struct inflow *inflow)
{
	return inflow->first_missing == inflow->chunk_count ? inflow->snapshot_bytes
	                                                    : inflow->first_missing * CHUNK_BYTES_MAX;
}

bool inflow_whole(const struct inflow *inflow, uint64_t sequence, uint64_t snapshot_bytes)
{
	/* Of nothing no chunk can be sent. */
	if (snapshot_bytes == 0)
		return true;
	return inflow->sequence == sequence && inflow_missing(inflow) == snapshot_bytes;
}

void inflow_finish(struct inflow *inflow)
{
	free(inflow->chunks);
	*inflow = (struct inflow){ .sequence = 0 };
}
