/*
 * Checkpoint i of n carries what the learning rate, decayed to f(i/n), would have left of the steps before it less
 * what it would have left of those up to the next checkpoint.
 */
#include "proto/merge.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const char *const SHAPE_NAMES[MERGE_SHAPE_COUNT] = {
	[MERGE_LINEAR] = "linear",
	[MERGE_MINUS_SQRT] = "minus-sqrt",
	[MERGE_UNIFORM] = "uniform",
};

const char *merge_shape_name(enum merge_shape shape)
{
	assert((unsigned)shape < MERGE_SHAPE_COUNT);
	return SHAPE_NAMES[shape];
}

bool merge_shape_parse(const char *name, enum merge_shape *ret_shape)
{
	for (unsigned i = 0; i < MERGE_SHAPE_COUNT; i++) {
		if (strcmp(name, SHAPE_NAMES[i]) == 0) {
			*ret_shape = (enum merge_shape)i;
			return true;
		}
	}
	return false;
}

void merge_coefficients(enum merge_shape shape, uint32_t count, double *ret_coefficients)
{
	const double n = (double)count;

	assert(count >= 1);
	for (uint32_t i = 0; i < count; i++) {
		const double x = (double)i / n, next = (double)(i + 1) / n;

		/* f(x) - f(next), with f(1) = 0; for the first what is missing to 1, with f(0) = 1. */
		ret_coefficients[i] = shape == MERGE_MINUS_SQRT ? sqrt(next) - sqrt(x) : 1 / n;
	}
}
