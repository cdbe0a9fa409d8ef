/*
 * The segments directory, for memory.c: on a tmpfs, where there is no service manager that would keep memfds. One daemon
 * a directory, and nobody else may write into it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/status.h"

struct memory_directory {
	int fd;           /* locked; -1: there is none */
	const char *path; /* borrowed */
	bool is_memory;   /* its files are never written to a disk */
};

/*
 * Makes the directory if it is not there (0700, parents not), and locks it. -EEXIST with the pid of the daemon that has
 * it already; -EPERM where somebody else owns it or may write into it; or another -errno, with a sentence.
 */
int memory_directory_open(const char *path, struct memory_directory *ret_directory, struct reason *reason);

/* Lets go of the lock. The segments stay. */
void memory_directory_close(struct memory_directory *directory);

/* Whether so many bytes more fit. STATUS_EMEMORY with both numbers. */
int memory_directory_check(const struct memory_directory *directory, uint64_t bytes, struct reason *reason);

struct memory_directory_reader {
	void *context;
	/* A segment's file, opened; the descriptor is the callee's. Anything but 0 ends the reading. */
	int (*found)(void *context, const char *name, int fd);
	/* What is not ours, and is left alone. */
	void (*strange)(void *context, const char *name, const struct reason *reason);
};

/* Goes through all that is in the directory. What `found` returned last, or -errno with a sentence. */
int memory_directory_read(const struct memory_directory *directory, const struct memory_directory_reader *reader,
                          struct reason *reason);
