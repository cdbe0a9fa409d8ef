/*
 * A file that is written whole or not at all: into a temporary file beside it, which takes its name when everything is
 * on the disk.
 *
 *     target_open      the directory is there and the path can be a file; nothing is created
 *     target_begin     the temporary file; write to target.fd
 *     target_sync      what was written is on the disk
 *     target_commit    it has the name, and that is on the disk
 *     target_abandon   instead of, or after a failed, target_commit: nothing is left of it
 *     target_close     lets go of the directory; right at any time after target_open
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

enum { TARGET_TEMPORARY_BYTES = 64 };

struct target {
	const char *path; /* borrowed until target_close */
	const char *name; /* inside path */
	int directory;    /* owned; open for fsync and the *at calls */
	int fd;           /* owned; the temporary file, -1 when there is none */
	char temporary[TARGET_TEMPORARY_BYTES];
};

/* -EISDIR, -ENOENT and what open() says about the directory, each with a sentence that names the path. */
int target_open(const char *path, struct target *ret_target, struct reason *reason);
int target_begin(struct target *target, struct reason *reason);

/* Writes all of the bytes at the end. */
int target_write(const struct target *target, const void *bytes, size_t byte_count, struct reason *reason);

int target_sync(const struct target *target, struct reason *reason);
int target_commit(struct target *target, struct reason *reason);
void target_abandon(struct target *target);
void target_close(struct target *target);
