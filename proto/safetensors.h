/*
 * Reading safetensors: everything is checked before anything is believed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"
#include "proto/limits.h"
#include "proto/status.h"

enum {
	SAFETENSORS_SIZE_BYTES = 8,
	SAFETENSORS_HEADER_BYTES_MAX = 100000000, /* source: safetensors/src/tensor.rs, MAX_HEADER_SIZE */
	SAFETENSORS_METADATA_COUNT_MAX = 10000,
};

struct safetensors_entry {
	char *name; /* owned */
	enum dtype dtype;
	uint32_t dimension_count;
	uint64_t extents[DIMENSION_COUNT_MAX];
	uint64_t offset; /* bytes from the start of the file */
	uint64_t bytes;
};

struct safetensors_metadata {
	char *key; /* owned */
	char *value;
};

struct safetensors {
	uint64_t data_offset;
	uint64_t file_bytes;
	uint32_t entry_count;
	struct safetensors_entry *entries; /* owned; by offset */
	uint32_t metadata_count;
	struct safetensors_metadata *metadata; /* owned; by key */
	uint32_t *by_name;                     /* owned; indices of entries sorted by name */
};

/*
 * Parses the header of a file of file_bytes whose first header_available bytes are at bytes (at least 8 + header size
 * must be there; 8 suffice to learn it, see safetensors_header_bytes). Refuses with STATUS_ECORRUPT and a sentence: a
 * header larger than the file or 100 MB, anything that is not the format, duplicate keys, unknown dtypes, sizes that
 * overflow or do not match the shape, holes, overlaps, bytes beyond the last tensor. -ENOMEM.
 */
int safetensors_parse(const uint8_t *bytes, uint64_t header_available, uint64_t file_bytes,
                      struct safetensors **ret_safetensors, struct reason *reason);
void safetensors_destroy(struct safetensors *safetensors);

/* 8 + the header size that the first 8 bytes claim. STATUS_ECORRUPT when that is more than file_bytes or 100 MB. */
int safetensors_header_bytes(const uint8_t first[8], uint64_t file_bytes, uint64_t *ret_bytes, struct reason *reason);

/* Forgets the entries that are not chosen; the others keep their order. */
void safetensors_keep(struct safetensors *safetensors, const bool *chosen);

/* The entry of a name, or NULL. */
const struct safetensors_entry *safetensors_find(const struct safetensors *safetensors, const char *name);

/* The value of a metadata key, or NULL. */
const char *safetensors_metadata_get(const struct safetensors *safetensors, const char *key);
