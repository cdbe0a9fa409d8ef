/*
 * Where the tensors of a summed file lie, and its header. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/safetensors.h"
#include "proto/status.h"

/* A pair of __metadata__: UTF-8. */
struct blend_pair {
	const char *key;
	const char *value;
};

struct blend_tensor {
	uint32_t entry;   /* index in the entries of the file that it is made like */
	enum dtype dtype; /* in the new file */
	uint64_t bytes;
};

struct blend_layout {
	uint32_t tensor_count;
	struct blend_tensor *tensors; /* owned; in the new file's order: widest first, else as in the file it is like */
	uint8_t *header;              /* owned; size, JSON, spaces */
	size_t header_bytes;          /* a multiple of the page */
	uint64_t file_bytes;
};

/*
 * Lays out a file with the tensors of contents. chosen: the dtype of its floating-point tensors; DTYPE_COUNT: as they
 * are. The metadata are the given pairs, and of those of contents the model, the attributes, the user's metadata and
 * whatever is not emad's, where no given pair has the key.
 * STATUS_ELIMIT when the header is larger than the format allows; -ENOMEM.
 */
int blend_layout_create(const struct safetensors *contents, enum dtype chosen, const struct blend_pair *pairs,
                        uint32_t pair_count, struct blend_layout **ret_layout, struct reason *reason);
void blend_layout_destroy(struct blend_layout *layout);
