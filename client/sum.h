/*
 * From weighted parts to a new file and what the caller is told about it: what emad_posthoc and emad_merge share.
 */
#pragma once

#include <stdint.h>

#include "client/emad.h"
#include "client/parts.h"
#include "proto/dtype.h"
#include "proto/status.h"

struct sum_request {
	struct parts *parts;  /* oldest first, weighted; the last one that is named newest is last or of its step */
	uint32_t newest;      /* index, see struct blend; likewise twin */
	uint32_t twin;
	const char *schedule; /* of the new file */
	const char *profile;
	const char *dtype;    /* NULL: as in the parts */
	double error;         /* NAN: nothing is said about it */
	uint32_t open_files_max;
	emad_progress *progress;
	void *context;
};

/* Checks what a caller may get wrong: the profile's name and the dtype. */
int sum_request_check(const struct sum_request *request, struct reason *reason);

/* Writes output (NULL: nothing) and makes *ret_sum (if ret_sum is not NULL), with error 0 where it is NAN. */
int sum_make(const struct sum_request *request, const char *output, struct emad_sum **ret_sum, struct reason *reason);
