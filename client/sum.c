/*
 * Metadata, inputs, and the report of a sum.
 */
#include "client/sum.h"

#include "client/served.h"

#include "client/blend.h"
#include "proto/name.h"
#include "proto/posthoc.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 48, PAIR_COUNT_MAX = 8 };

/* The report; the caller sees its first member. */
struct sum {
	struct emad_sum public;
	struct emad_sum_part *parts; /* owned, with their strings */
};

static int dtype_choose(const char *name, enum dtype *ret_dtype, struct reason *reason)
{
	enum emad_served_dtype served;
	int r;

	if (!name) {
		*ret_dtype = DTYPE_COUNT;
		return 0;
	}
	r = served_parse(name, &served, reason);
	if (r == 0)
		*ret_dtype = served_dtype(served, DTYPE_F32);
	return r;
}

int sum_request_check(const struct sum_request *request, struct reason *reason)
{
	enum dtype dtype;
	int r = profile_name_check(request->profile, strlen(request->profile), reason);

	return r != 0 ? r : dtype_choose(request->dtype, &dtype, reason);
}

/* Five digits, with a point whatever the host program's locale says. */
static void real_format(double value, char text[static NUMBER_BYTES])
{
	int exponent = value > 0 ? (int)floor(log10(value)) : 0;
	long digits = value > 0 ? lround(value / pow(10, exponent) * 10000) : 0;

	if (digits == 100000) {
		digits = 10000;
		exponent++;
	}
	snprintf(text, NUMBER_BYTES, "%ld.%04lde%d", digits / 10000, digits % 10000, exponent);
}

static int sum_write(const struct sum_request *request, const char *output, uint64_t *ret_file_bytes,
                     struct reason *reason)
{
	const struct parts *parts = request->parts;
	const struct part *newest = &parts->items[request->newest];
	struct blend_input *inputs = calloc(parts->count, sizeof(*inputs));
	char step[NUMBER_BYTES], sources[NUMBER_BYTES], error[NUMBER_BYTES];
	struct blend_pair pairs[PAIR_COUNT_MAX];
	struct blend blend = {
		.inputs = inputs, .input_count = parts->count, .newest = request->newest, .twin = request->twin,
		.open_count = request->open_files_max, .pairs = pairs, .progress = request->progress,
		.context = request->context,
	};
	uint32_t used_count = 0;
	int r;

	if (!inputs)
		return -ENOMEM;
	for (uint32_t i = 0; i < parts->count; i++) {
		inputs[i] = (struct blend_input){.path = parts->items[i].path, .weight = parts->items[i].weight};
		used_count += inputs[i].weight != 0;
	}
	snprintf(step, sizeof(step), "%" PRIu64, newest->step);
	snprintf(sources, sizeof(sources), "%u", used_count);
	pairs[blend.pair_count++] = (struct blend_pair){"emad.profile", request->profile};
	pairs[blend.pair_count++] = (struct blend_pair){"emad.schedule", request->schedule};
	pairs[blend.pair_count++] = (struct blend_pair){"emad.sources", sources};
	if (newest->has_step)
		pairs[blend.pair_count++] = (struct blend_pair){"emad.step", step};
	if (newest->updates)
		pairs[blend.pair_count++] = (struct blend_pair){"emad.updates", newest->updates};
	if (!isnan(request->error)) {
		real_format(request->error, error);
		pairs[blend.pair_count++] = (struct blend_pair){"emad.error", error};
	}
	r = dtype_choose(request->dtype, &blend.dtype, reason);
	if (r == 0)
		r = blend_write(&blend, output, ret_file_bytes, reason);
	free(inputs);
	return r;
}

void emad_sum_free(struct emad_sum *sum)
{
	struct sum *whole = (struct sum *)sum;

	if (!whole)
		return;
	for (size_t i = 0; i < whole->public.part_count; i++) {
		free((char *)(uintptr_t)whole->parts[i].path);
		free((char *)(uintptr_t)whole->parts[i].profile);
	}
	free(whole->parts);
	free(whole);
}

static int report_make(const struct sum_request *request, struct emad_sum **ret_sum)
{
	const struct parts *parts = request->parts;
	struct sum *sum = calloc(1, sizeof(*sum));

	if (!sum)
		return -ENOMEM;
	sum->parts = calloc(parts->count, sizeof(*sum->parts));
	if (!sum->parts)
		goto fail;
	sum->public.parts = sum->parts;
	sum->public.part_count = parts->count;
	sum->public.step = parts->items[request->newest].step;
	sum->public.error = isnan(request->error) ? 0 : request->error;
	for (uint32_t i = 0; i < parts->count; i++) {
		const struct part *part = &parts->items[i];

		sum->parts[i] = (struct emad_sum_part){
			.path = strdup(part->path),
			.profile = strdup(part->profile ? part->profile : ""),
			/* The way by the exponent leaves some rounding at the end. */
			.std = isnan(request->error) ? 0 : round(posthoc_std(part->exponent) * 1e12) / 1e12,
			.step = part->step,
			.weight = part->weight,
		};
		if (!sum->parts[i].path || !sum->parts[i].profile)
			goto fail;
	}
	*ret_sum = &sum->public;
	return 0;
fail:
	emad_sum_free(&sum->public);
	return -ENOMEM;
}

int sum_make(const struct sum_request *request, const char *output, struct emad_sum **ret_sum, struct reason *reason)
{
	struct emad_sum *sum = NULL;
	uint64_t file_bytes = 0;
	int r = 0;

	/* The report first: what takes long should be the last thing that can fail. */
	if (ret_sum)
		r = report_make(request, &sum);
	if (r == 0 && output)
		r = sum_write(request, output, &file_bytes, reason);
	if (r != 0) {
		emad_sum_free(sum);
		return r;
	}
	if (ret_sum) {
		sum->file_bytes = file_bytes;
		*ret_sum = sum;
	}
	return 0;
}
