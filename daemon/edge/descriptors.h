/*
 * The limit on open files, which the kernel gives every process: RLIMIT_NOFILE.
 */
#pragma once

#include <stdint.h>

#include "proto/status.h"

/* Raises the limit as far as it may be. */
void descriptors_raise(void);

/*
 * Whether the limit is enough for that many segments, and for as many connections of each of the two sockets. -EMFILE
 * with both numbers.
 */
int descriptors_check(uint64_t segment_count_max, uint64_t connection_count_max, struct reason *reason);
