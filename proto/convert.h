/*
 * Floating-point elements in another dtype.
 *
 * Every value is rounded once, to the nearest and on a tie to the even one, also where F64 becomes one of the small
 * dtypes (PyTorch goes by way of F32 there and rounds twice). Signs, signed zeros and subnormal numbers are kept; a
 * NaN stays a NaN. What is too large becomes infinite; F8_E4M3 has no infinity, and there it becomes 448, the largest
 * value, infinities too. The processor's rounding mode and its flushing of subnormal numbers in the calling thread
 * change nothing.
 * source: PyTorch 2.13, torch/headeronly/util/Float8_e4m3fn.h (releases before gave NaN for 448) and its neighbours
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

enum convert_kind {
	CONVERT_PORTABLE,
	CONVERT_AVX2, /* with F16C */
	CONVERT_KIND_COUNT,
};

bool convert_kind_supported(enum convert_kind kind);
const char *convert_kind_name(enum convert_kind kind);

/*
 * Converts by one kind, which must be supported; all kinds give the same bits. Both dtypes are floating-point, or they
 * are the same: then the bytes are copied. The memory may lie at any byte and must not overlap.
 * Returns how many values were too large: that were finite and no longer are, or that F8_E4M3 clipped.
 */
uint64_t convert_by_kind(enum convert_kind kind, enum dtype from, const void *source, enum dtype to, void *target,
                         size_t count);

/* The same by the fastest kind on this processor. */
uint64_t convert_elements(enum dtype from, const void *source, enum dtype to, void *target, size_t count);
