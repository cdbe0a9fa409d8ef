/*
 * Room for threads. Where a limit on tasks lets NNG 1.5 make only some of those that it wants it crashes, or hangs for
 * ever, and the host program with it. So before its first use as many are made for a moment.
 */
#pragma once

#include <stdint.h>

/* So many are made and ended again. 0, or -errno, with how many there could be. */
int threads_try(uint32_t count, uint32_t *ret_made_count);
