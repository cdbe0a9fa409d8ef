/*
 * A progress bar on a terminal: how much, how fast, how long still. Silent elsewhere.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool is_shown;       /* false: every call does nothing */
	bool is_drawn;       /* a bar is on the line and must be wiped */
	uint64_t started_us; /* monotonic */
	uint64_t phase_us;   /* when these bytes were begun: there may be others after them */
	uint64_t done_bytes;
	uint64_t drawn_us;
};

/* is_allowed: the user wants it; it is shown when standard error is a terminal as well. */
void progress_begin(struct progress *progress, bool is_allowed);

/* Redraws, at most ten times a second. */
void progress_update(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes);

/* Wipes the bar; call it before anything else is written to the terminal. */
void progress_end(struct progress *progress);

uint64_t progress_elapsed_us(const struct progress *progress);
