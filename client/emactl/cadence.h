/*
 * At which steps something is due that is to happen every so many steps. Pure.
 *
 * A version of any step at or behind a due one will do: trainers push at steps of their own, and the newest version may
 * be far behind the due step when there is time for it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cadence {
	uint64_t every; /* at least 1 */
	uint64_t until; /* the last step that is wanted; UINT64_MAX: without end */
	uint64_t due;   /* the next step; a version of it or later is to be taken */
	uint64_t seen;  /* the newest step that was seen, to notice that training went back */
};

/* newest: the step of the version that is there at the start; it is due itself when it is a multiple. */
void cadence_begin(struct cadence *cadence, uint64_t every, uint64_t until, uint64_t newest);

/* A version of this step was taken; false: it was the last one. */
bool cadence_take(struct cadence *cadence, uint64_t step);

/* Told of the newest step there is. True when training went back, and what is due has changed. */
bool cadence_see(struct cadence *cadence, uint64_t step);
