/*
 * Due, names, thinning. See retention.h.
 */
#include "daemon/core/retention.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char SUFFIX[] = ".safetensors";

enum { DIGITS = 20 };

bool retention_due(uint64_t step, uint64_t step_previous, uint64_t interval)
{
	return interval > 0 && step / interval != step_previous / interval;
}

void retention_name_write(uint64_t step, char ret_name[RETENTION_NAME_BYTES])
{
	snprintf(ret_name, RETENTION_NAME_BYTES, "%020" PRIu64 "%s", step, SUFFIX);
}

bool retention_name_parse(const char *name, uint64_t *ret_step)
{
	uint64_t step = 0;

	for (int i = 0; i < DIGITS; i++) {
		if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(step, 10, &step) ||
		    __builtin_add_overflow(step, (uint64_t)(name[i] - '0'), &step))
			return false;
	}
	if (strcmp(name + DIGITS, SUFFIX) != 0)
		return false;
	*ret_step = step;
	return true;
}

/* Marks what goes at a stride of so many intervals; returns how many stay. */
static size_t mark(const uint64_t *steps, size_t step_count, uint64_t interval, uint64_t stride, bool *ret_goes)
{
	size_t stay_count = 0;

	for (size_t i = 0; i < step_count; i++) {
		bool is_end = i == 0 || i + 1 == step_count;

		ret_goes[i] = !is_end && steps[i] / interval % stride != 0;
		stay_count += !ret_goes[i];
	}
	return stay_count;
}

size_t retention_thin(const uint64_t *steps, size_t step_count, uint64_t interval, uint64_t keep_count,
                      bool *ret_goes)
{
	size_t stay_count = step_count;

	memset(ret_goes, 0, step_count * sizeof *ret_goes);
	if (keep_count == 0 || step_count <= keep_count)
		return 0;
	if (keep_count == 1) {
		memset(ret_goes, true, (step_count - 1) * sizeof *ret_goes);
		return step_count - 1;
	}
	if (interval == 0)
		interval = 1;
	/* Behind the last step's place nothing but the two ends, and a file before the first multiple, is left. */
	for (uint64_t stride = 2; stay_count > keep_count && stride != 0; stride *= 2)
		stay_count = mark(steps, step_count, interval, stride, ret_goes);
	/* A gap can leave several files in place 0: those between the ends go. */
	for (size_t i = 1; stay_count > keep_count && i + 1 < step_count; i++) {
		stay_count -= !ret_goes[i];
		ret_goes[i] = true;
	}
	return step_count - stay_count;
}

bool retention_begins(uint64_t step, uint64_t interval, uint64_t *stretch)
{
	if (interval == 0 || step / interval <= *stretch)
		return false;
	*stretch = step / interval;
	return true;
}
