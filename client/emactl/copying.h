/*
 * A long copy that the library makes for a command: its progress bar, and an interrupt that lets the library remove its
 * temporary file before the program ends as it would have ended at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emactl/emactl.h"
#include "client/emactl/progress.h"

struct copying {
	struct progress progress;
	bool is_started;
};

void copying_begin(struct copying *copying, const struct emactl *emactl);

/* The emad_progress of the copy; its context is the struct copying. */
int copying_progress(void *context, uint64_t done_bytes, uint64_t total_bytes);

/* Wipes the bar. Does not return when an interrupt was what ended the copy with code. */
void copying_end(struct copying *copying, int code);

/*
 * Prints the library's error and returns the exit status, for a copy whose errno values are about the output file
 * alone, whatever else they could mean.
 */
int copying_error(const struct emactl *emactl, int code);

/* That exit status alone. */
int copying_exit_status(int code);
