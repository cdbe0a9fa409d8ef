/*
 * Element types of tensors, with the names of the safetensors format.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* X(NAME, bytes, is floating point). The order is part of the wire protocol: append, never reorder. */
#define DTYPES(X)                                                                                                     \
	X(F64, 8, true)                                                                                               \
	X(F32, 4, true)                                                                                               \
	X(F16, 2, true)                                                                                               \
	X(BF16, 2, true)                                                                                              \
	X(F8_E4M3, 1, true)                                                                                           \
	X(F8_E5M2, 1, true)                                                                                           \
	X(I64, 8, false)                                                                                              \
	X(I32, 4, false)                                                                                              \
	X(I16, 2, false)                                                                                              \
	X(I8, 1, false)                                                                                               \
	X(U8, 1, false)                                                                                               \
	X(BOOL, 1, false)

enum dtype {
#define X(name, bytes, is_float) DTYPE_##name,
	DTYPES(X)
#undef X
	DTYPE_COUNT
};

/* The safetensors name ("BF16"). */
const char *dtype_name(enum dtype dtype);

/* Bytes of one element. */
uint64_t dtype_bytes(enum dtype dtype);

bool dtype_is_float(enum dtype dtype);

/* The dtype of a safetensors name; false when there is none, *ret_dtype untouched. */
bool dtype_parse(const char *name, enum dtype *ret_dtype);

/* The dtype in which the average of such a tensor is kept: F64 for F64, F32 for the other floats, else itself. */
enum dtype dtype_shadow(enum dtype dtype);

/*
 * Number of elements of a shape (1 for no dimensions; 0 where an extent is 0).
 * -EOVERFLOW when the element count or its bytes in this dtype do not fit into int64.
 */
int shape_elements(const uint64_t *extents, uint32_t dimension_count, enum dtype dtype, uint64_t *ret_elements);
