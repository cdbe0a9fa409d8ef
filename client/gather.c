/*
 * Cutting, naming and spreading parts. See gather.h.
 */
#include "client/gather.h"

#include "client/served.h"
#include "proto/convert.h"
#include "proto/limits.h"
#include "proto/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void gather_finish(struct gather *gather)
{
	recast_destroy(gather->recast);
	free(gather->places);
	free(gather->spans);
	free(gather->parts);
	*gather = (struct gather){.tensors = NULL};
}

static int places_find(struct gather *gather)
{
	const struct recast *recast = gather->recast;
	uint64_t at = recast->header_bytes;

	gather->places = calloc((size_t)gather->tensors->entry_count + 1, sizeof(*gather->places));
	if (!gather->places)
		return -ENOMEM;
	for (uint32_t i = 0; i < recast->tensor_count; i++) {
		gather->places[recast->tensors[i].index] = at;
		at += recast->tensors[i].bytes;
	}
	return 0;
}

/* Room for one more in an array: its new beginning, or NULL. */
static void *array_grow(void *items, uint64_t count, uint64_t *capacity, size_t item_bytes)
{
	const uint64_t wanted = *capacity ? 2 * *capacity : 64;

	if (count < *capacity)
		return items;
	items = reallocarray(items, wanted, item_bytes);
	if (items)
		*capacity = wanted;
	return items;
}

static int span_add(struct gather *gather, uint64_t offset, uint32_t entry)
{
	struct gather_span *spans = array_grow(gather->spans, gather->span_count, &gather->span_capacity, sizeof(*spans));

	if (!spans)
		return -ENOMEM;
	gather->spans = spans;
	spans[gather->span_count++] = (struct gather_span){.offset = offset, .entry = entry};
	return 0;
}

static int part_add(struct gather *gather)
{
	struct gather_part *parts = array_grow(gather->parts, gather->count, &gather->capacity, sizeof(*parts));

	if (!parts)
		return -ENOMEM;
	gather->parts = parts;
	parts[gather->count++] = (struct gather_part){.first = gather->span_count};
	return 0;
}

/*
 * Puts bytes that begin at an offset, elements of so many bytes, into the part that is being filled, or into another
 * one; as many as have room there. Elements are never cut.
 */
static int bytes_add(struct gather *gather, uint64_t offset, uint64_t bytes, uint32_t entry, uint64_t *ret_bytes)
{
	const enum dtype kept = gather->tensors->entries[entry].dtype, wire = runs_wire_dtype(gather->wire, kept);
	const uint64_t width = dtype_bytes(kept);
	struct gather_part *part = gather->count > 0 ? &gather->parts[gather->count - 1] : NULL;
	struct gather_span *span = part && part->count > 0 ? &gather->spans[gather->span_count - 1] : NULL;
	bool extends = span && span->offset + span->bytes == offset;
	uint64_t room;
	int code = 0;

	if (!part || CHUNK_BYTES_MAX - part->bytes < width || (!extends && part->count == FETCH_RANGE_COUNT_MAX)) {
		code = part_add(gather);
		extends = false;
	}
	if (code == 0 && !extends)
		code = span_add(gather, offset, entry);
	if (code)
		return code;
	part = &gather->parts[gather->count - 1];
	span = &gather->spans[gather->span_count - 1];
	room = (CHUNK_BYTES_MAX - part->bytes) / width * width;
	bytes = bytes < room ? bytes : room;
	span->bytes += bytes;
	part->count += extends ? 0 : 1;
	part->bytes += bytes;
	part->wire_bytes += bytes / width * dtype_bytes(wire);
	*ret_bytes = bytes;
	return 0;
}

/* Cuts the wanted tensors into parts. */
static int parts_cut(struct gather *gather, const bool *chosen)
{
	int code;

	for (uint32_t i = 0; i < gather->tensors->entry_count; i++) {
		const struct safetensors_entry *entry = &gather->tensors->entries[i];
		uint64_t bytes;

		if (chosen && !chosen[i])
			continue;
		for (uint64_t at = 0; at < entry->bytes; at += bytes) {
			code = bytes_add(gather, entry->offset + at, entry->bytes - at, i, &bytes);
			if (code)
				return code;
		}
	}
	return 0;
}

/* Puts what has come of each tensor into its place; returns what is behind it. */
static const uint8_t *span_spread(const struct gather *gather, const struct gather_span *span, const uint8_t *body,
                                  uint8_t *file)
{
	uint64_t at = span->offset, end = span->offset + span->bytes;

	for (uint32_t i = span->entry; at < end; i++) {
		const struct safetensors_entry *entry = &gather->tensors->entries[i];
		const uint64_t entry_end = entry->offset + entry->bytes, stop = entry_end < end ? entry_end : end;
		const uint64_t width = dtype_bytes(entry->dtype), count = (stop - at) / width;
		const enum dtype wire = runs_wire_dtype(gather->wire, entry->dtype);
		const enum dtype dtype = served_dtype(gather->served, entry->dtype);

		if (entry->bytes == 0)
			continue;
		convert_elements(wire, body, dtype, file + gather->places[i] + (at - entry->offset) / width * dtype_bytes(dtype), count);
		body += count * dtype_bytes(wire);
		at = stop;
	}
	return body;
}

void gather_spread(const struct gather *gather, const struct gather_part *part, const uint8_t *body, uint8_t *file)
{
	for (uint64_t i = 0; i < part->count; i++)
		body = span_spread(gather, &gather->spans[part->first + i], body, file);
}

static void number_write(uint8_t *bytes, uint64_t number)
{
	for (int i = 7; i >= 0; i--, number >>= 8)
		bytes[i] = (uint8_t)number;
}

size_t gather_ranges(const struct gather *gather, const struct gather_part *part, uint8_t *ranges)
{
	for (uint64_t i = 0; i < part->count; i++) {
		const struct gather_span *span = &gather->spans[part->first + i];

		number_write(ranges + i * FETCH_RANGE_BYTES, span->offset);
		number_write(ranges + i * FETCH_RANGE_BYTES + FETCH_RANGE_BYTES / 2, span->bytes);
	}
	return part->count * FETCH_RANGE_BYTES;
}

int gather_plan(const struct safetensors *tensors, enum emad_served_dtype served, const bool *chosen,
                struct gather *ret_gather, struct reason *reason)
{
	const enum dtype dtype = served == EMAD_DTYPE_KEPT ? RUNS_AS_KEPT : served_dtype(served, DTYPE_F32);
	/* What gets no shorter is converted here. */
	struct gather gather = {.tensors = tensors, .served = served, .wire = dtype == DTYPE_F64 ? RUNS_AS_KEPT : dtype};
	int code = recast_create(tensors, dtype, chosen, &gather.recast, reason);

	if (code == 0)
		code = places_find(&gather);
	if (code == 0)
		code = parts_cut(&gather, chosen);
	if (code) {
		gather_finish(&gather);
		return code;
	}
	*ret_gather = gather;
	return 0;
}
