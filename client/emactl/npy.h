/*
 * The header of NumPy's file format, version 1.0. Pure.
 * source: numpy/lib/format.py
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/dtype.h"

enum { NPY_HEADER_BYTES_MAX = 512 };

/* The dtype in which a tensor is written: its own, or F32 for those that NumPy does not have (BF16, F8). */
enum dtype npy_dtype(enum dtype dtype);

/* Writes the header of a row-major array of npy_dtype(dtype); returns its bytes, a multiple of 64. */
size_t npy_header(enum dtype dtype, const uint64_t *extents, uint32_t dimension_count,
                  char header[NPY_HEADER_BYTES_MAX]);
