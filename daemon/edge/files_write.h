/*
 * Writing one file, for files.c and files_generation.c.
 *
 * Large files go from the shared memory to the disk past the page cache where the file system can do that (O_DIRECT):
 * nothing is copied, the memory that a training reads its data through stays its own, and an fsync finds nothing to be
 * written. Elsewhere what was written is sent to the disk as it comes, for the same reasons. The checksum is taken of
 * each chunk just before it is written, when it has to be fetched from memory anyhow.
 */
#pragma once

#include "daemon/edge/files_place.h"

/* What goes into a file. */
struct files_content {
	const char *name; /* in sentences */
	const uint8_t *bytes;
	uint64_t byte_count;
	uint64_t *ret_checksum; /* NULL: nobody wants to know */
	_Atomic uint64_t *written_bytes; /* grows with what is written; NULL as well */
};

/*
 * Makes a file that is not there yet, writes it and synchronises it. On failure, STATUS_ESHUTDOWN or -errno with a
 * sentence, it may be there in part.
 */
int files_file_write(const struct files_place *place, int directory, const char *name,
                     const struct files_content *content, struct reason *reason);
