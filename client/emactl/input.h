/*
 * A safetensors file that a command reads. It is read with pread and never mapped: one that is cut short meanwhile must
 * be an error, not a SIGBUS. The structure is checked by the parser that the daemon itself uses.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/safetensors.h"
#include "proto/status.h"

struct input {
	const char *path; /* borrowed */
	int fd;           /* -1 when it is not open */
	uint64_t file_bytes;
	struct safetensors *contents; /* owned; NULL when the structure is damaged */
};

/*
 * Opens a file and reads its header. -errno, STATUS_EARGUMENT (no regular file), STATUS_ECORRUPT, with a sentence that
 * goes behind the path. Call input_close on failure too; what was found out by then is set.
 */
int input_open(struct input *input, const char *path, struct reason *reason);

/* Reads byte_count bytes from offset of the file. -errno, STATUS_ECORRUPT when it has become shorter. */
int input_read(const struct input *input, uint64_t offset, uint8_t *bytes, size_t byte_count, struct reason *reason);

void input_close(struct input *input);
