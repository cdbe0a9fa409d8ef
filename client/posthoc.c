/*
 * emad_posthoc: which snapshots there are, which of them the wanted average is made of, and the sum.
 *
 * Files that were named must fit; of a directory those are taken that do, because a model's directory holds what its
 * other profiles left as well.
 */
#include "client/emad.h"

#include "client/error.h"
#include "client/parts.h"
#include "client/source.h"
#include "client/sum.h"
#include "proto/limits.h"
#include "proto/posthoc.h"
#include "proto/schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- which files ---------------------------------------------------------------------------------------------- */

/* Whether a file is a snapshot that can be used, and of which exponent. */
static int part_check(const struct part *part, const char *model, double *ret_exponent, struct reason *reason)
{
	const char *name = source_name(part->path);
	struct reason inner = {""};
	int r;

	if (!part->schedule || !part->has_step)
		return reason_set(reason, STATUS_EPROFILE,
		                  "%s: it does not say of which schedule and step it is: only averages that emad has "
		                  "written will do", name);
	r = posthoc_exponent(part->schedule, ret_exponent, &inner);
	if (r != 0)
		return reason_set(reason, r, "%s: %s", name, inner.text);
	if (part->step == 0)
		return reason_set(reason, STATUS_EPROFILE, "%s: it is of step 0, where nothing has been averaged",
		                  name);
	if (model && (!part->model || strcmp(part->model, model) != 0))
		return reason_set(reason, STATUS_EPROFILE, "%s: it is of model '%.200s', not '%.200s'", name,
		                  part->model ? part->model : "", model);
	return 0;
}

static bool part_is_usable(const struct part *part, const void *model)
{
	double exponent;

	return part_check(part, model, &exponent, NULL) == 0;
}

static int path_add(struct parts *parts, const char *path, const char *model, struct reason *reason)
{
	const uint32_t before = parts->count;
	struct stat facts;
	int r;

	if (stat(path, &facts) < 0 || !S_ISDIR(facts.st_mode)) {
		r = parts_add(parts, path, reason);
		return r != 0 ? r : part_check(&parts->items[before], model, &parts->items[before].exponent, reason);
	}
	r = parts_add_directory(parts, path, reason);
	if (r != 0)
		return r;
	parts_filter(parts, before, part_is_usable, model);
	if (parts->count == before)
		return reason_set(reason, -ENOENT,
		                  "%s: there is no snapshot of a profile of schedule power in it%s%.200s; the daemon "
		                  "keeps them when the schedule says so: power:std=0.1,snapshot=1000",
		                  source_name(path), model ? " of model " : "", model ? model : "");
	return 0;
}

static int part_compare(const void *left, const void *right)
{
	const struct part *a = left, *b = right;

	if (a->step != b->step)
		return a->step < b->step ? -1 : 1;
	return (a->exponent > b->exponent) - (a->exponent < b->exponent);
}

/* All parts, oldest first, of one model, none twice. */
static int parts_collect(struct parts *parts, const char *const *paths, size_t path_count, const char *model,
                         struct reason *reason)
{
	int r = 0;

	for (size_t i = 0; i < path_count && r == 0; i++)
		r = path_add(parts, paths[i], model, reason);
	for (uint32_t i = 0; i < parts->count && r == 0; i++) {
		struct part *part = &parts->items[i];

		r = part_check(part, parts->items[0].model, &part->exponent, reason);
	}
	if (r != 0)
		return r;
	qsort(parts->items, parts->count, sizeof(*parts->items), part_compare);
	for (uint32_t i = 1; i < parts->count; i++) {
		if (part_compare(&parts->items[i - 1], &parts->items[i]) == 0)
			return reason_set(reason, STATUS_EARGUMENT,
			                  "%s and %s are both of std %g and step %" PRIu64 ": leave one out",
			                  source_name(parts->items[i - 1].path), source_name(parts->items[i].path),
			                  posthoc_std(parts->items[i].exponent), parts->items[i].step);
	}
	return 0;
}

/* ---- which step ----------------------------------------------------------------------------------------------- */

static bool part_is_early(const struct part *part, const void *step)
{
	return part->step <= *(const uint64_t *)step;
}

/* Takes out what is behind the step, which must be that of a snapshot. */
static int parts_cut(struct parts *parts, uint64_t step, size_t *ret_later_count, struct reason *reason)
{
	const uint32_t count = parts->count;
	uint32_t later = 0;

	while (later < count && parts->items[later].step <= step)
		later++;
	if (later == 0)
		return reason_set(reason, STATUS_ENOVERSION,
		                  "there is no snapshot of step %" PRIu64 ": the oldest is of step %" PRIu64, step,
		                  parts->items[0].step);
	if (parts->items[later - 1].step != step && later == count)
		return reason_set(reason, STATUS_ENOVERSION,
		                  "there is no snapshot of step %" PRIu64 ": the newest is of step %" PRIu64, step,
		                  parts->items[later - 1].step);
	if (parts->items[later - 1].step != step)
		return reason_set(reason, STATUS_ENOVERSION,
		                  "there is no snapshot of step %" PRIu64 ": the nearest are of steps %" PRIu64
		                  " and %" PRIu64,
		                  step, parts->items[later - 1].step, parts->items[later].step);
	parts_filter(parts, 0, part_is_early, &step);
	*ret_later_count = count - parts->count;
	return 0;
}

/* ---- the sum -------------------------------------------------------------------------------------------------- */

/* Weighs the parts, and finds how near their sum comes. */
static int parts_weigh(struct parts *parts, const struct posthoc_point *target, double *ret_error,
                       struct reason *reason)
{
	struct posthoc_point *points = calloc(parts->count, sizeof(*points));
	double *weights = calloc(parts->count, sizeof(*weights));
	int r = points && weights ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < parts->count && r == 0; i++)
		points[i] = (struct posthoc_point){.exponent = parts->items[i].exponent, .step = parts->items[i].step};
	if (r == 0)
		r = posthoc_solve(points, parts->count, target, weights, reason);
	if (r == 0) {
		*ret_error = posthoc_error(points, parts->count, target, weights);
		for (uint32_t i = 0; i < parts->count; i++)
			parts->items[i].weight = weights[i];
	}
	free(points);
	free(weights);
	return r;
}

static int posthoc_make(struct parts *parts, const char *output, const struct emad_posthoc_options *options,
                        struct emad_sum **ret_sum, struct reason *reason)
{
	const uint64_t step = options->step ? options->step : parts->items[parts->count - 1].step;
	const struct posthoc_point target = {.exponent = schedule_power_exponent(options->std), .step = step};
	char schedule[SCHEDULE_BYTES_MAX + 1];
	struct sum_request request = {
		.parts = parts, .twin = UINT32_MAX, .schedule = schedule,
		.profile = options->profile ? options->profile : "posthoc", .dtype = options->dtype,
		.open_files_max = options->open_files_max, .progress = options->progress, .context = options->context,
	};
	size_t later_count = 0;
	uint32_t last;
	int r = parts_cut(parts, step, &later_count, reason);

	if (r == 0)
		r = parts_weigh(parts, &target, &request.error, reason);
	if (r != 0)
		return r;
	last = request.newest = parts->count - 1;
	while (last-- > 0 && parts->items[last].step == step) {
		request.twin = request.newest;
		if (fabs(parts->items[last].weight) > fabs(parts->items[request.newest].weight))
			request.newest = last;
		else
			request.twin = last;
	}
	posthoc_schedule(options->std, schedule);
	r = sum_make(&request, output, ret_sum, reason);
	if (r == 0 && ret_sum)
		(*ret_sum)->later_count = later_count;
	return r;
}

static int options_check(const char *const *paths, size_t path_count, const struct emad_posthoc_options *options,
                         struct reason *reason)
{
	const struct sum_request request = {
		.profile = options && options->profile ? options->profile : "posthoc",
		.dtype = options ? options->dtype : NULL,
	};

	if (!paths || path_count == 0)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "there are no files; name snapshots, or the directory that holds them");
	for (size_t i = 0; i < path_count; i++) {
		if (!paths[i])
			return reason_set(reason, STATUS_EARGUMENT, "path %zu is NULL", i + 1);
	}
	if (!options || !(options->std >= POSTHOC_STD_MIN && options->std <= POSTHOC_STD_MAX))
		return reason_set(reason, STATUS_EARGUMENT,
		                  "the relative width std is %g; it must be from %g to %.6g, for example 0.15",
		                  options ? options->std : 0, POSTHOC_STD_MIN, POSTHOC_STD_MAX);
	return sum_request_check(&request, reason);
}

int emad_posthoc(const char *const *paths, size_t path_count, const char *output,
                 const struct emad_posthoc_options *options, struct emad_sum **ret_sum)
{
	struct reason reason = {.text = ""};
	struct parts parts = {0};
	int r = options_check(paths, path_count, options, &reason);

	if (r == 0)
		r = parts_collect(&parts, paths, path_count, options->model, &reason);
	if (r == 0)
		r = posthoc_make(&parts, output, options, ret_sum, &reason);
	parts_finish(&parts);
	return error_report(r, &reason);
}
