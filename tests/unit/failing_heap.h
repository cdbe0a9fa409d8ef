/*
 * A heap that fails when told to, for tests that every allocation of a call may fail.
 *
 * Link with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup. Only calls made by the
 * objects linked in are counted, not those inside shared libraries. Leaks are the sanitizer's to find.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The nth allocation of this thread from now on (1 is the next) fails; with for_ever all that follow it fail too. */
void failing_heap_arm(uint64_t nth, bool for_ever);

/* Back to normal. Whether an allocation has failed since failing_heap_arm. */
bool failing_heap_disarm(void);

/*
 * Calls attempt with its 1st, 2nd, 3rd ... allocation failing, once and for ever, until a call needs none that fails.
 * Asserts that each call with a failure returns -ENOMEM and the last one 0. attempt must free what it made, and
 * must not assert: Check allocates too.
 * Returns how many allocations the untouched call makes.
 */
uint64_t failing_heap_sweep(int (*attempt)(void *context), void *context);
