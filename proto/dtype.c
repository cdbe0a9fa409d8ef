/*
 * Element types: the table in dtype.h, looked up both ways, and the one place where the size of a tensor is computed,
 * so that the check against overflow cannot be forgotten anywhere else.
 */
#include "proto/dtype.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
	const char *name;
	uint64_t bytes;
	bool is_float;
} DTYPE_TABLE[DTYPE_COUNT] = {
#define X(name, bytes, is_float) [DTYPE_##name] = {#name, (bytes), (is_float)},
	DTYPES(X)
#undef X
};

const char *dtype_name(enum dtype dtype)
{
	assert((unsigned)dtype < DTYPE_COUNT);
	return DTYPE_TABLE[dtype].name;
}

uint64_t dtype_bytes(enum dtype dtype)
{
	assert((unsigned)dtype < DTYPE_COUNT);
	return DTYPE_TABLE[dtype].bytes;
}

bool dtype_is_float(enum dtype dtype)
{
	assert((unsigned)dtype < DTYPE_COUNT);
	return DTYPE_TABLE[dtype].is_float;
}

bool dtype_parse(const char *name, enum dtype *ret_dtype)
{
	for (unsigned i = 0; i < DTYPE_COUNT; i++) {
		if (strcmp(name, DTYPE_TABLE[i].name) == 0) {
			*ret_dtype = (enum dtype)i;
			return true;
		}
	}
	return false;
}

enum dtype dtype_shadow(enum dtype dtype)
{
	if (!dtype_is_float(dtype) || dtype == DTYPE_F64)
		return dtype;
	return DTYPE_F32;
}

int shape_elements(const uint64_t *extents, uint32_t dimension_count, enum dtype dtype, uint64_t *ret_elements)
{
	/* Bytes are never fewer than elements, so one bound on the elements covers both. */
	const uint64_t elements_max = (uint64_t)INT64_MAX / dtype_bytes(dtype);
	uint64_t elements = 1;

	/* First, because the product of the other extents may overflow on the way to a zero. */
	for (uint32_t i = 0; i < dimension_count; i++) {
		if (extents[i] == 0) {
			*ret_elements = 0;
			return 0;
		}
	}
	for (uint32_t i = 0; i < dimension_count; i++) {
		if (extents[i] > elements_max / elements)
			return -EOVERFLOW;
		elements *= extents[i];
	}
	*ret_elements = elements;
	return 0;
}
