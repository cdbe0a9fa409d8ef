/*
 * The image: how one profile of one version lies in memory, which is also a whole safetensors file.
 *
 *     0            8                  8 + header                                   image bytes
 *     | header size | JSON header, spaces | tensors, widest dtype first, no holes      |
 *                                         ^ a page boundary
 *
 * So export, checkpoint and download are "write these bytes", and the update runs over long flat runs of equal dtype.
 * The JSON header lists the tensors first and `__metadata__` last: the first part never changes, and a new version
 * rewrites the metadata alone, inside a room reserved when the image was laid out.
 *
 * Tensors are ordered by the bytes of the shadow's dtype (widest first), then by shadow dtype, then by the dtype that
 * is pushed, then averaged before copied before frozen, then by the manifest.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/manifest.h"
#include "proto/profile.h"
#include "proto/runs.h"
#include "proto/status.h"

enum { IMAGE_PAGE_BYTES = 4096 };

struct image_tensor {
	uint32_t tensor;  /* index in the manifest */
	enum dtype dtype; /* as stored here */
	enum schedule_entry entry;
	int32_t rule; /* of the profile; -1: none names it */
	uint64_t offset; /* bytes from the start of the tensors */
	uint64_t bytes;
};

struct image {
	uint32_t tensor_count;        /* dropped tensors are not here */
	struct image_tensor *tensors; /* owned; in the file's order */
	uint32_t *index_of;           /* owned; manifest index -> index in tensors, UINT32_MAX when dropped */
	char *header;                 /* owned; the constant first part of the JSON header */
	size_t header_fixed_bytes;
	uint64_t data_offset; /* where the tensors begin: 8 + JSON header, a multiple of IMAGE_PAGE_BYTES */
	uint64_t data_bytes;
	struct runs runs;     /* of the tensors */
	uint64_t image_bytes; /* data_offset + data_bytes */
};

/* A string pair of __metadata__: UTF-8 without NUL; no key twice. */
struct image_metadata {
	const char *key;
	const char *value;
	size_t value_bytes;
};

/*
 * Lays out the image of a profile. metadata_capacity: bytes that the pairs of the metadata may take as JSON.
 * STATUS_EPROFILE when every tensor is dropped; STATUS_ELIMIT; -ENOMEM.
 */
int image_create(const struct manifest *manifest, const struct profile *profile, size_t metadata_capacity,
                 struct image **ret_image, struct reason *reason);
void image_destroy(struct image *image);

/*
 * Writes the whole header (size, tensors, metadata, spaces) at the start of a region of image_bytes.
 * STATUS_ELIMIT with both numbers when the metadata do not fit, STATUS_EARGUMENT when they are not UTF-8 or contain a
 * NUL; the region is then untouched. Does not allocate.
 */
int image_header_write(const struct image *image, uint8_t *region, const struct image_metadata *metadata,
                       size_t metadata_count, struct reason *reason);
