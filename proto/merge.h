/*
 * Merging the checkpoints of a training without learning-rate decay: weights that stand for a decay over the window.
 *
 * source: "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging for LLM Pre-training"
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum merge_shape {
	MERGE_LINEAR,     /* the learning rate falls as 1 - x over the window, which comes out as the mean */
	MERGE_MINUS_SQRT, /* as 1 - sqrt(x): the older checkpoints weigh more */
	MERGE_UNIFORM,    /* the mean */
	MERGE_SHAPE_COUNT
};

/* "linear", "minus-sqrt", "uniform". */
const char *merge_shape_name(enum merge_shape shape);

/* The shape of a name; false when there is none, *ret_shape untouched. */
bool merge_shape_parse(const char *name, enum merge_shape *ret_shape);

/* The weights of count >= 1 checkpoints, oldest first, that add up to 1 within rounding. */
void merge_coefficients(enum merge_shape shape, uint32_t count, double *ret_coefficients);
