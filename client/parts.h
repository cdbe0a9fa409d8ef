/*
 * The files of a sum, and what their metadata say about them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/status.h"

struct part {
	char *path;     /* owned, like all strings here */
	char *model;    /* NULL where the file does not say, likewise the next two */
	char *profile;
	char *schedule;
	char *updates;
	bool has_step;
	uint64_t step;
	double exponent; /* of its average, once it is known */
	double weight;
};

struct parts {
	uint32_t count, capacity;
	struct part *items; /* owned */
};

/* Adds a safetensors file. STATUS_ECORRUPT, STATUS_ELIMIT, -ENOMEM, -errno. reason is needed here and below. */
int parts_add(struct parts *parts, const char *path, struct reason *reason);

/*
 * Adds the files named *.safetensors in a directory and in the directories in it; of those in them no more. Names with
 * a point in front are passed over, and so are directories that the daemon has moved aside (PROFILE.old-TIME), and what
 * is removed meanwhile.
 */
int parts_add_directory(struct parts *parts, const char *path, struct reason *reason);

/* Takes the parts from index `from` on out that is_kept does not want. */
void parts_filter(struct parts *parts, uint32_t from, bool (*is_kept)(const struct part *part, const void *context),
                  const void *context);

void parts_finish(struct parts *parts);
