/*
 * One segment of shared memory, for memory.c: made as a memfd or as a file of a directory, or taken over from an earlier
 * daemon. The only file that calls memfd_create.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"

enum { MEMORY_NAME_BYTES = 5 + 16 + 1 };

/* "emad-" and 16 hexadecimal digits: how a segment is called wherever it is kept. */
void memory_segment_name(uint64_t segment, char name[MEMORY_NAME_BYTES]);

/* The identity behind a name; false where it is not the name of a segment. */
bool memory_segment_identity(const char *name, uint64_t *ret_segment);

/*
 * Makes the segment whose bytes and identity are given: allocated to the last byte, 0600, and mapped. directory: where
 * its file goes; -1: a memfd, whose size is sealed. -errno: nothing is left of it.
 */
int memory_segment_make(struct memory *memory, const char *label, int directory);

/*
 * Takes over a descriptor; it is owned from here on, also on failure. STATUS_ECORRUPT where
 * it cannot be used, or -errno where this process cannot use it now (memory_segment_shortage), both with a sentence that
 * goes on behind its name. is_sealed: whether its size must be sealed.
 */
int memory_segment_take(int fd, uint64_t segment, bool is_sealed, struct memory *ret_memory, struct reason *reason);

/* Whether an error says that this process has too little of something now, and nothing of what it was about. */
bool memory_segment_shortage(int error);

/* Unmaps and closes. */
void memory_segment_close(struct memory *memory);
