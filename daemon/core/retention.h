/*
 * Which averages lie on disk: when one is due, what its file is called, and which files go when there are too many.
 *
 * Files are thinned by their place in the row of multiples of the interval, not by their age: whoever looks at a
 * directory later finds steps that are spread over the whole training, the first and the last among them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RETENTION_NAME_BYTES = 20 + 12 + 1 }; /* "00000000000000000016.safetensors" and its NUL */

/* Whether a multiple of the interval lies behind step_previous and not behind step. interval 0: never. */
bool retention_due(uint64_t step, uint64_t step_previous, uint64_t interval);

/* The name of the file that holds a step. */
void retention_name_write(uint64_t step, char ret_name[RETENTION_NAME_BYTES]);

/* Whether a name is one of those, and of which step. */
bool retention_name_parse(const char *name, uint64_t *ret_step);

/*
 * Marks the files that go so that at most keep_count stay: the interval doubles until what stays is few enough, and a
 * file whose step / interval is not a multiple of that goes. The oldest and the newest stay; of keep_count 1 the newest
 * alone. steps: ascending, no two equal. keep_count 0: all stay. Returns how many go.
 */
size_t retention_thin(const uint64_t *steps, size_t step_count, uint64_t interval, uint64_t keep_count,
                      bool *ret_goes);

/*
 * Whether a step is the first at or after a multiple of `interval`. *stretch is 0 before the oldest step and goes up from
 * one to the next. interval 0: no step is.
 */
bool retention_begins(uint64_t step, uint64_t interval, uint64_t *stretch);
