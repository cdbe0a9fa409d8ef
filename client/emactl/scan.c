/*
 * Scanning. IEEE formats order as integers once the sign is gone: everything above infinity is a NaN. So one loop per
 * width does it, and the compiler makes vectors of it.
 */
#include "client/emactl/scan.h"

#include <string.h>

/* Counts into 32 bits: a run is a chunk of a file, far below 2^32 elements, and narrow sums vectorise better. */
#define SCAN_WIDTH(bits)                                                                                              \
	static void scan_u##bits(struct scan *scan, const uint8_t *bytes, size_t count, uint##bits##_t magnitude,     \
	                         uint##bits##_t infinity)                                                             \
	{                                                                                                             \
		uint32_t nans = 0, infinities = 0;                                                                    \
		uint##bits##_t value;                                                                                 \
                                                                                                                      \
		for (size_t i = 0; i < count; i++) {                                                                  \
			memcpy(&value, bytes + i * sizeof(value), sizeof(value));                                     \
			value = (uint##bits##_t)(value & magnitude);                                                  \
			nans += value > infinity;                                                                     \
			infinities += value == infinity;                                                              \
		}                                                                                                     \
		scan->nan_count += nans;                                                                              \
		scan->infinite_count += infinities;                                                                   \
	}

SCAN_WIDTH(8)
SCAN_WIDTH(16)
SCAN_WIDTH(32)
SCAN_WIDTH(64)
#undef SCAN_WIDTH

static void scan_e4m3(struct scan *scan, const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		scan->nan_count += (bytes[i] & 0x7f) == 0x7f;
}

void scan_add(struct scan *scan, enum dtype dtype, const uint8_t *bytes, size_t byte_count)
{
	const size_t count = byte_count / dtype_bytes(dtype);

	switch (dtype) {
	case DTYPE_F64:
		scan_u64(scan, bytes, count, INT64_MAX, UINT64_C(0x7ff0000000000000));
		break;
	case DTYPE_F32:
		scan_u32(scan, bytes, count, 0x7fffffff, 0x7f800000);
		break;
	case DTYPE_F16:
		scan_u16(scan, bytes, count, 0x7fff, 0x7c00);
		break;
	case DTYPE_BF16:
		scan_u16(scan, bytes, count, 0x7fff, 0x7f80);
		break;
	case DTYPE_F8_E5M2:
		scan_u8(scan, bytes, count, 0x7f, 0x7c);
		break;
	case DTYPE_F8_E4M3:
		scan_e4m3(scan, bytes, count);
		break;
	case DTYPE_I64:
	case DTYPE_I32:
	case DTYPE_I16:
	case DTYPE_I8:
	case DTYPE_U8:
	case DTYPE_BOOL:
	case DTYPE_COUNT:
		break;
	}
}
