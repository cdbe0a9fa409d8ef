/*
 * emad_merge: checkpoints of a window, weighed as a decay of the learning rate would have done.
 */
#include "client/emad.h"

#include "client/error.h"
#include "client/parts.h"
#include "client/sum.h"
#include "proto/merge.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCHEDULE_BYTES = 64 };

static bool is_every_step_known(const struct parts *parts)
{
	for (uint32_t i = 0; i < parts->count; i++) {
		if (!parts->items[i].has_step)
			return false;
	}
	return true;
}

/* By step; by the order in which they were given where that is the same. */
static void parts_sort(struct parts *parts)
{
	for (uint32_t i = 1; i < parts->count; i++) {
		const struct part part = parts->items[i];
		uint32_t at = i;

		for (; at > 0 && parts->items[at - 1].step > part.step; at--)
			parts->items[at] = parts->items[at - 1];
		parts->items[at] = part;
	}
}

static int parts_weigh(struct parts *parts, enum merge_shape shape)
{
	double *weights = calloc(parts->count, sizeof(*weights));

	if (!weights)
		return -ENOMEM;
	merge_coefficients(shape, parts->count, weights);
	for (uint32_t i = 0; i < parts->count; i++)
		parts->items[i].weight = weights[i];
	free(weights);
	return 0;
}

static int options_check(const char *const *paths, size_t path_count, const struct emad_merge_options *options,
                         enum merge_shape *ret_shape, struct reason *reason)
{
	const char *shape = options->shape ? options->shape : merge_shape_name(MERGE_LINEAR);
	const struct sum_request request = {
		.profile = options->profile ? options->profile : "merged", .dtype = options->dtype,
	};

	if (!paths || path_count == 0)
		return reason_set(reason, STATUS_EARGUMENT, "there are no files; name the checkpoints, oldest first");
	for (size_t i = 0; i < path_count; i++) {
		if (!paths[i])
			return reason_set(reason, STATUS_EARGUMENT, "path %zu is NULL", i + 1);
	}
	if (!merge_shape_parse(shape, ret_shape))
		return reason_set(reason, STATUS_EARGUMENT,
		                  "the shape '%.40s' is not one of linear, minus-sqrt, uniform", shape);
	return sum_request_check(&request, reason);
}

static int merge_make(struct parts *parts, enum merge_shape shape, const char *output,
                      const struct emad_merge_options *options, struct emad_sum **ret_sum, struct reason *reason)
{
	const bool is_by_step = is_every_step_known(parts);
	char schedule[SCHEDULE_BYTES];
	const struct sum_request request = {
		.parts = parts, .newest = parts->count - 1, .twin = UINT32_MAX, .schedule = schedule,
		.profile = options->profile ? options->profile : "merged", .dtype = options->dtype,
		.error = (double)NAN, .open_files_max = options->open_files_max, .progress = options->progress,
		.context = options->context,
	};
	int r;

	if (is_by_step)
		parts_sort(parts);
	r = parts_weigh(parts, shape);
	snprintf(schedule, sizeof(schedule), "merge:shape=%s,n=%u", merge_shape_name(shape), parts->count);
	if (r == 0)
		r = sum_make(&request, output, ret_sum, reason);
	if (r == 0 && ret_sum)
		(*ret_sum)->is_by_step = is_by_step;
	return r;
}

int emad_merge(const char *const *paths, size_t path_count, const char *output,
               const struct emad_merge_options *options, struct emad_sum **ret_sum)
{
	static const struct emad_merge_options DEFAULTS;
	struct reason reason = {.text = ""};
	struct parts parts = {0};
	enum merge_shape shape;
	int r;

	if (!options)
		options = &DEFAULTS;
	r = options_check(paths, path_count, options, &shape, &reason);
	for (size_t i = 0; i < path_count && r == 0; i++)
		r = parts_add(&parts, paths[i], &reason);
	if (r == 0)
		r = merge_make(&parts, shape, output, options, ret_sum, &reason);
	parts_finish(&parts);
	return error_report(r, &reason);
}
