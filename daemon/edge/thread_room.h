/*
 * Room for threads. Where a limit on tasks lets NNG 1.5 make only some of those that it wants it crashes, or hangs for
 * ever. So before its first use as many are made for a moment, and if that fails the daemon can say so.
 */
#pragma once

#include <stdint.h>

#include "proto/status.h"

/* So many are made and ended again. 0, or -errno, with both numbers. Signals are blocked in them. */
int thread_room_try(uint32_t count, struct reason *reason);
