/*
 * The layout of a summed file. The header is written by a writer that only counts when it is given no room: it runs
 * twice, so that what is counted and what is written cannot differ.
 */
#include "client/blend_layout.h"

#include "proto/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SIZE_BYTES = 8,
	HEADER_BYTES_MAX = 100000000, /* source: safetensors, MAX_HEADER_SIZE */
};

struct writer {
	char *text; /* borrowed; NULL to count only */
	size_t used;
};

static void write_bytes(struct writer *writer, const char *bytes, size_t count)
{
	if (writer->text)
		memcpy(writer->text + writer->used, bytes, count);
	writer->used += count;
}

static void write_text(struct writer *writer, const char *text)
{
	write_bytes(writer, text, strlen(text));
}

static void write_number(struct writer *writer, uint64_t number)
{
	char digits[24];

	write_bytes(writer, digits, (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, number));
}

/* A JSON string of UTF-8: only what JSON demands is escaped. */
static void write_string(struct writer *writer, const char *text)
{
	char escape[8];

	write_text(writer, "\"");
	for (; *text; text++) {
		const unsigned char c = (unsigned char)*text;

		if (c < ' ')
			write_bytes(writer, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", c));
		else if (c == '"' || c == '\\')
			write_bytes(writer, (const char[]){'\\', (char)c}, 2);
		else
			write_bytes(writer, text, 1);
	}
	write_text(writer, "\"");
}

static void write_tensors(struct writer *writer, const struct blend_layout *layout, const struct safetensors *contents)
{
	uint64_t offset = 0;

	for (uint32_t i = 0; i < layout->tensor_count; i++) {
		const struct blend_tensor *tensor = &layout->tensors[i];
		const struct safetensors_entry *entry = &contents->entries[tensor->entry];

		write_string(writer, entry->name);
		write_text(writer, ":{\"dtype\":\"");
		write_text(writer, dtype_name(tensor->dtype));
		write_text(writer, "\",\"shape\":[");
		for (uint32_t d = 0; d < entry->dimension_count; d++) {
			write_text(writer, d > 0 ? "," : "");
			write_number(writer, entry->extents[d]);
		}
		write_text(writer, "],\"data_offsets\":[");
		write_number(writer, offset);
		write_text(writer, ",");
		offset += tensor->bytes;
		write_number(writer, offset);
		write_text(writer, "]},");
	}
}

/* Of emad's own pairs those that hold for the sum as well: the model, and what its user said about it. */
static bool pair_is_kept(const char *key, const struct blend_pair *pairs, uint32_t pair_count)
{
	static const char *const KEPT[] = {"emad.model", "emad.attributes", "emad.metadata"};

	for (uint32_t i = 0; i < pair_count; i++) {
		if (strcmp(key, pairs[i].key) == 0)
			return false;
	}
	for (size_t i = 0; i < sizeof(KEPT) / sizeof(*KEPT); i++) {
		if (strcmp(key, KEPT[i]) == 0)
			return true;
	}
	return strncmp(key, "emad.", 5) != 0;
}

static void write_pair(struct writer *writer, const char *key, const char *value, bool *is_first)
{
	write_text(writer, *is_first ? "" : ",");
	*is_first = false;
	write_string(writer, key);
	write_text(writer, ":");
	write_string(writer, value);
}

static void write_header(struct writer *writer, const struct blend_layout *layout, const struct safetensors *contents,
                         const struct blend_pair *pairs, uint32_t pair_count)
{
	bool is_first = true;

	write_text(writer, "{");
	write_tensors(writer, layout, contents);
	write_text(writer, "\"__metadata__\":{");
	for (uint32_t i = 0; i < contents->metadata_count; i++) {
		if (pair_is_kept(contents->metadata[i].key, pairs, pair_count))
			write_pair(writer, contents->metadata[i].key, contents->metadata[i].value, &is_first);
	}
	for (uint32_t i = 0; i < pair_count; i++)
		write_pair(writer, pairs[i].key, pairs[i].value, &is_first);
	write_text(writer, "}}");
}

/* Widest first, so that every tensor is aligned; else the order of the file. */
static int tensor_compare(const void *left, const void *right)
{
	const struct blend_tensor *a = left, *b = right;

	if (dtype_bytes(a->dtype) != dtype_bytes(b->dtype))
		return dtype_bytes(a->dtype) > dtype_bytes(b->dtype) ? -1 : 1;
	return (a->entry > b->entry) - (a->entry < b->entry);
}

static uint64_t tensors_place(struct blend_layout *layout, const struct safetensors *contents, enum dtype chosen)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < layout->tensor_count; i++) {
		const struct safetensors_entry *entry = &contents->entries[i];
		const enum dtype dtype = chosen != DTYPE_COUNT && dtype_is_float(entry->dtype) ? chosen : entry->dtype;

		layout->tensors[i] = (struct blend_tensor){
			.entry = i, .dtype = dtype,
			.bytes = entry->bytes / dtype_bytes(entry->dtype) * dtype_bytes(dtype),
		};
		bytes += layout->tensors[i].bytes;
	}
	qsort(layout->tensors, layout->tensor_count, sizeof(*layout->tensors), tensor_compare);
	return bytes;
}

int blend_layout_create(const struct safetensors *contents, enum dtype chosen, const struct blend_pair *pairs,
                        uint32_t pair_count, struct blend_layout **ret_layout, struct reason *reason)
{
	struct blend_layout *layout = calloc(1, sizeof(*layout));
	struct writer writer = {0};
	uint64_t data_bytes;
	int r = -ENOMEM;

	if (!layout)
		return -ENOMEM;
	layout->tensor_count = contents->entry_count;
	layout->tensors = calloc((size_t)contents->entry_count + 1, sizeof(*layout->tensors));
	if (!layout->tensors)
		goto fail;
	data_bytes = tensors_place(layout, contents, chosen);
	write_header(&writer, layout, contents, pairs, pair_count);
	if (writer.used > HEADER_BYTES_MAX - IMAGE_PAGE_BYTES) {
		r = reason_set(reason, STATUS_ELIMIT, "the header would have %zu bytes, at most %d are allowed",
		               writer.used, HEADER_BYTES_MAX - IMAGE_PAGE_BYTES);
		goto fail;
	}
	layout->header_bytes = (SIZE_BYTES + writer.used + IMAGE_PAGE_BYTES - 1) / IMAGE_PAGE_BYTES * IMAGE_PAGE_BYTES;
	layout->file_bytes = layout->header_bytes + data_bytes;
	layout->header = malloc(layout->header_bytes);
	if (!layout->header)
		goto fail;
	memset(layout->header, ' ', layout->header_bytes);
	for (unsigned i = 0; i < SIZE_BYTES; i++)
		layout->header[i] = (uint8_t)((uint64_t)(layout->header_bytes - SIZE_BYTES) >> 8 * i);
	writer = (struct writer){.text = (char *)layout->header + SIZE_BYTES};
	write_header(&writer, layout, contents, pairs, pair_count);
	*ret_layout = layout;
	return 0;
fail:
	blend_layout_destroy(layout);
	return r;
}

void blend_layout_destroy(struct blend_layout *layout)
{
	if (!layout)
		return;
	free(layout->tensors);
	free(layout->header);
	free(layout);
}
