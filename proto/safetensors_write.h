/*
 * Writing the JSON header of a safetensors file, piece by piece: tensors first, `__metadata__` last.
 *
 * A writer that is given no room only counts. Everything is written twice, counted first, so that what is counted and
 * what is written cannot differ.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

struct safetensors_writer {
	char *text; /* borrowed; NULL to count only */
	size_t used;
};

/* One tensor, and what has to be before it. begin, end: bytes from the start of the tensors. */
void safetensors_write_tensor(struct safetensors_writer *writer, const char *name, enum dtype dtype,
                              const uint64_t *extents, uint32_t dimension_count, uint64_t begin, uint64_t end);

/* The metadata: begin, pairs of UTF-8 strings, end. The end is that of the header. */
void safetensors_write_metadata_begin(struct safetensors_writer *writer);
void safetensors_write_metadata_pair(struct safetensors_writer *writer, bool is_first, const char *key,
                                     const char *value, size_t value_bytes);
void safetensors_write_metadata_end(struct safetensors_writer *writer);

/* The eight bytes in front of the header. */
void safetensors_write_size(uint8_t first[8], uint64_t json_bytes);
