/*
 * Counting what is not a number, and what is infinite, in the bytes of a tensor. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

struct scan {
	uint64_t nan_count;
	uint64_t infinite_count;
};

/*
 * Adds the counts of a run of whole elements; bytes need not be aligned. Dtypes that are not floating point hold
 * neither. F8_E4M3 has no infinities.
 */
void scan_add(struct scan *scan, enum dtype dtype, const uint8_t *bytes, size_t byte_count);
