/*
 * Bugs that are planted into the service, to see that the test of killed daemons finds them. None is, until it is told.
 *
 * Link with -Wl,--wrap=intake_push,--wrap=intake_begin,--wrap=book_note.
 */
#pragma once

/* "ready-first", "applying-first", "stale-book"; NULL: none. */
void kill_fault_plant(const char *name);
