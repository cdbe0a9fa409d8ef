/*
 * Elements of files as doubles and back, for sums. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

/* Whether the two calls below know a dtype: F64, F32, F16 and BF16. */
bool widen_knows(enum dtype dtype);

/* Exact. bytes need not be aligned. */
void widen(enum dtype dtype, const uint8_t *bytes, double *ret_values, size_t count);

/* To the nearest, ties to even, in one rounding; what is too large becomes infinity. ret_bytes need not be aligned. */
void narrow(enum dtype dtype, const double *values, uint8_t *ret_bytes, size_t count);
