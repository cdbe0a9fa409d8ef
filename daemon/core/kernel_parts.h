/*
 * part_load_X and part_store_X (see kernel_inner.h) for instruction sets without masked loads and stores.
 */
#pragma once

#include "daemon/core/kernel.h"

#include <string.h>

#define PARTS(name, real)                                                                                             \
	static inline void part_load_##name(real *block, const real *source, unsigned first, unsigned count)          \
	{                                                                                                             \
		memset(block, 0, KERNEL_LANES * sizeof *block);                                                       \
		memcpy(block + first, source, count * sizeof *block);                                                 \
	}                                                                                                             \
	static inline void part_store_##name(real *target, const real *block, unsigned first, unsigned count)         \
	{                                                                                                             \
		memcpy(target, block + first, count * sizeof *block);                                                 \
	}

PARTS(f32, float)
PARTS(f64, double)
#undef PARTS
