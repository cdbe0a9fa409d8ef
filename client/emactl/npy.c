/*
 * NumPy's header: magic, version, two bytes of length, and a Python dictionary as text, padded to whole cache lines.
 */
#include "client/emactl/npy.h"

#include "proto/limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PREFIX_BYTES = 10, ALIGNMENT = 64, EXTENT_CHARS_MAX = 22 };

_Static_assert(PREFIX_BYTES + 64 + DIMENSION_COUNT_MAX * EXTENT_CHARS_MAX + ALIGNMENT <= NPY_HEADER_BYTES_MAX,
               "every shape has room");

enum dtype npy_dtype(enum dtype dtype)
{
	return dtype == DTYPE_BF16 || dtype == DTYPE_F8_E4M3 || dtype == DTYPE_F8_E5M2 ? DTYPE_F32 : dtype;
}

/* Little-endian: the hosts are. */
static const char *dtype_description(enum dtype dtype)
{
	switch (npy_dtype(dtype)) {
	case DTYPE_F64:
		return "<f8";
	case DTYPE_F32:
	case DTYPE_BF16:
	case DTYPE_F8_E4M3:
	case DTYPE_F8_E5M2:
		return "<f4";
	case DTYPE_F16:
		return "<f2";
	case DTYPE_I64:
		return "<i8";
	case DTYPE_I32:
		return "<i4";
	case DTYPE_I16:
		return "<i2";
	case DTYPE_I8:
		return "|i1";
	case DTYPE_U8:
		return "|u1";
	case DTYPE_BOOL:
		return "|b1";
	case DTYPE_COUNT:
		break;
	}
	return "";
}

size_t npy_header(enum dtype dtype, const uint64_t *extents, uint32_t dimension_count,
                  char header[NPY_HEADER_BYTES_MAX])
{
	size_t used = PREFIX_BYTES, padded;

	memcpy(header, "\x93NUMPY\x01\x00", PREFIX_BYTES - 2);
	used += (size_t)snprintf(header + used, NPY_HEADER_BYTES_MAX - used,
	                         "{'descr': '%s', 'fortran_order': False, 'shape': (", dtype_description(dtype));
	for (uint32_t i = 0; i < dimension_count; i++)
		used += (size_t)snprintf(header + used, NPY_HEADER_BYTES_MAX - used, "%s%" PRIu64, i ? ", " : "",
		                         extents[i]);
	used += (size_t)snprintf(header + used, NPY_HEADER_BYTES_MAX - used, "%s), }", dimension_count == 1 ? "," : "");
	padded = (used + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	memset(header + used, ' ', padded - used);
	header[padded - 1] = '\n';
	header[PREFIX_BYTES - 2] = (char)((padded - PREFIX_BYTES) & 0xff);
	header[PREFIX_BYTES - 1] = (char)((padded - PREFIX_BYTES) >> 8);
	return padded;
}
