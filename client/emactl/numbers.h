/*
 * The arithmetic of `emactl diff` and `emactl get`: sums over the elements of tensors of any dtype, a chunk at a time.
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

enum { NUMBERS_CHUNK_COUNT = 16384 }; /* elements at a time: 128 KiB of doubles, which stay in the cache */

/* Elements as doubles; every dtype but I64 beyond 2^53 is kept exactly. bytes need not be aligned. */
void numbers_widen(enum dtype dtype, const uint8_t *bytes, size_t count, double *ret_values);

/* How far two tensors are from each other. Zeroed at the start. */
struct difference {
	uint64_t element_count;
	uint64_t differing_count;   /* elements that are not equal; NaN equals NaN here */
	uint64_t nonfinite_count;   /* of those, where either is NaN or infinite: they are in no sum */
	double square_sum;          /* of a - b */
	double a_square_sum, b_square_sum, product_sum;
	double absolute_max;        /* of a - b */
};

/* Adds two runs of as many elements, at most NUMBERS_CHUNK_COUNT. The dtypes may differ. */
void difference_add(struct difference *difference, enum dtype a_dtype, const uint8_t *a, enum dtype b_dtype,
                    const uint8_t *b, size_t count);

/* Adds the sums of another tensor, for totals. */
void difference_merge(struct difference *difference, const struct difference *other);

/* The L2 norm of a - b. */
double difference_distance(const struct difference *difference);

/*
 * It relative to the L2 norm of a: 0 for equal tensors; infinite where a is zero and b is not, or where either has a NaN
 * or an infinity that the other has not.
 */
double difference_relative(const struct difference *difference);

/* The cosine of the angle between the two; 1 for two zeros, NaN where one alone is zero. */
double difference_cosine(const struct difference *difference);

/* What one tensor's values are like. Zeroed at the start. */
struct summary {
	uint64_t element_count;
	uint64_t nan_count;
	uint64_t infinite_count;
	uint64_t zero_count;
	uint64_t finite_count;
	double minimum, maximum; /* of the finite ones; of no use when there are none, likewise the next */
	double mean;
	double deviation_squares; /* sum of (x - mean)^2 */
};

/* Adds a run of at most NUMBERS_CHUNK_COUNT elements. */
void summary_add(struct summary *summary, enum dtype dtype, const uint8_t *bytes, size_t count);

/* The standard deviation of the finite values, divided by their count as NumPy's. */
double summary_deviation(const struct summary *summary);
