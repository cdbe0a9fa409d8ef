/*
 * Memory that ends at a place: what the two daemons for tests have in common whose allocations fail when told to.
 *
 *   emad_scarce      the daemon's own objects, linked with --wrap: their calls fail, and none inside a library
 *   emad_scarce_all  the same with a malloc of its own, which the libraries call too
 *
 * The environment's EMAD_SCARCE says which fails, counted over all threads from the beginning of main: "17" the 17th
 * alone, "17+" that and all that follow. The first that fails is said on the standard error stream, with the calls
 * that led to it.
 */
#pragma once

#include <stdbool.h>

/* Whether this allocation must fail; errno says so then. */
bool scarce_fails(void);
