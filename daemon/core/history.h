/*
 * The history of a profile: what was changed while it ran, oldest first, as a JSON array that travels in the metadata
 * of its averages:
 *
 *     [{"step":1200,"updates":1200,"change":"schedule","from":"constant:decay=0.99","to":"constant:decay=0.999"}, ...]
 *
 * The oldest entries give way when it has more than HISTORY_BYTES_MAX bytes.
 */
#pragma once

#include <stdint.h>

struct history_entry {
	uint64_t step;
	uint64_t updates;
	const char *change; /* "started", "schedule", "seeded", "rewound", "continued" */
	const char *from;   /* NULL: none */
	const char *to;     /* NULL: none */
};

/* Appends to *history, which is owned and may be NULL. -ENOMEM: it is as it was. */
int history_append(char **history, const struct history_entry *entry);
