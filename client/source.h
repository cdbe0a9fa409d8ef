/*
 * A safetensors file that is read: by pread, never mapped, so that one that is cut short while it is read is an error
 * and no SIGBUS. Its descriptor may be let go of between two reads; a file that was exchanged meanwhile is refused.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "proto/safetensors.h"
#include "proto/status.h"

struct source {
	const char *path; /* borrowed until source_close */
	int fd;           /* owned; -1 while it is let go of */
	bool is_kept;     /* fd stays open between reads */
	dev_t device;     /* which file it was when it was opened first */
	ino_t inode;
	struct timespec changed;
	uint64_t file_bytes;
};

/*
 * Opens a regular file. is_kept false: the descriptor is closed after each call. Sentences begin with the path.
 * -errno, STATUS_EARGUMENT when it is no regular file. After a failure there is nothing to close.
 */
int source_open(const char *path, bool is_kept, struct source *ret_source, struct reason *reason);
void source_close(struct source *source);

/* The parsed header. STATUS_ECORRUPT, -ENOMEM, -errno; the caller calls safetensors_destroy. */
int source_header(struct source *source, struct safetensors **ret_contents, struct reason *reason);

/*
 * Both at once, for one file that is read from its beginning to its end: it stays open. On failure whatever was found
 * out by then is set, and source_close and safetensors_destroy are still to be called; *ret_contents may be NULL.
 */
int source_begin_reading(const char *path, struct source *ret_source, struct safetensors **ret_contents,
                         struct reason *reason);

/* Exactly byte_count bytes from offset. STATUS_ECORRUPT when the file is shorter or another than it was. */
int source_read(struct source *source, uint64_t offset, void *bytes, size_t byte_count, struct reason *reason);

/* For "%s" in a sentence: the end of a path, where it differs from others. */
const char *source_name(const char *path);
