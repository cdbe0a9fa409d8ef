/*
 * Verifying one safetensors file, by itself or as a part of a checkpoint.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emactl/progress.h"
#include "client/emactl/scan.h"
#include "client/source.h"

struct verification {
	struct source source;
	struct safetensors *contents; /* owned; NULL when the structure is damaged */
	struct scan *scans; /* owned; by the index of the source's entries; NULL before the scan */
	struct scan total;
	uint32_t damaged_count; /* tensors that hold NaN */
};

/*
 * Opens it, checks its structure and reads all of it. STATUS_ECORRUPT, -errno, -ENOMEM with a sentence that begins with
 * the path (source_name). Call verification_finish on failure too; what was found out by then is set.
 */
int verification_run(struct verification *file, const char *path, struct progress *progress, struct reason *reason);

/* The checksum of the whole file, which is open. -errno, STATUS_ECORRUPT when it has become shorter; -ENOMEM. */
int verification_checksum(struct verification *file, uint64_t *ret_checksum, struct reason *reason);

void verification_finish(struct verification *file);
