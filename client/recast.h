/*
 * The layout of an image whose floating-point tensors are of another dtype, or that has only some of the tensors: what
 * the file will look like, before any element has been converted. Pure.
 *
 * The order is that of image.h for the new dtypes: widest first, then by dtype, then as the tensors were. The metadata
 * are kept, with "emad.dtype" beside them where there is another one.
 */
#pragma once

#include <stdint.h>

#include "proto/dtype.h"
#include "proto/runs.h"
#include "proto/safetensors.h"
#include "proto/status.h"

struct recast_tensor {
	uint32_t index;   /* in the entries of the image */
	enum dtype dtype; /* in the new file */
	uint64_t element_count;
	uint64_t bytes;
};

struct recast {
	uint32_t tensor_count;
	struct recast_tensor *tensors; /* owned; one behind the other, from header_bytes on, in the new file's order */
	uint8_t *header;               /* owned; size, JSON, spaces: everything in front of the tensors */
	uint64_t header_bytes;         /* a multiple of IMAGE_PAGE_BYTES */
	uint64_t file_bytes;
};

/*
 * dtype: floating-point, or RUNS_AS_KEPT. chosen: for each entry of the image, whether it will be there; NULL: all.
 * STATUS_ELIMIT when the header gets too large or the bytes cannot be addressed; -ENOMEM.
 */
int recast_create(const struct safetensors *image, enum dtype dtype, const bool *chosen, struct recast **ret_recast,
                  struct reason *reason);
void recast_destroy(struct recast *recast);
