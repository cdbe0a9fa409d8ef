/*
 * The averaging kernels for any processor, in the vector extensions of GCC and Clang at 16 bytes, which SSE2, NEON and
 * the like have in hardware; the compiler spells the vectors out elsewhere.
 */
#include "daemon/core/kernel.h"

#include <assert.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define KERNEL_SET kernel_portable
#define KERNEL_SET_NAME "portable"

typedef float vector_f32 __attribute__((vector_size(16)));
typedef double vector_f64 __attribute__((vector_size(16)));
typedef uint32_t vector_u32 __attribute__((vector_size(16)));
typedef float half_f32 __attribute__((vector_size(8)));
typedef uint16_t half_u16 __attribute__((vector_size(8)));
typedef uint8_t quarter_u8 __attribute__((vector_size(4)));

static inline vector_f32 load_f32(const float *source)
{
	vector_f32 x;
	memcpy(&x, source, sizeof x);
	return x;
}

static inline void store_f32(float *target, vector_f32 x)
{
	memcpy(target, &x, sizeof x);
}

static inline vector_f64 load_f64(const double *source)
{
	vector_f64 x;
	memcpy(&x, source, sizeof x);
	return x;
}

static inline void store_f64(double *target, vector_f64 x)
{
	memcpy(target, &x, sizeof x);
}

#if defined(__SSE2__)
static inline void stream_f32(float *target, vector_f32 x)
{
	_mm_stream_ps(target, x);
}

static inline void stream_f64(double *target, vector_f64 x)
{
	_mm_stream_pd(target, x);
}

static inline void stream_bytes(void *target, const void *source)
{
	_mm_stream_si128(target, _mm_loadu_si128(source));
}
#else
static inline void stream_f32(float *target, vector_f32 x)
{
	store_f32(target, x);
}

static inline void stream_f64(double *target, vector_f64 x)
{
	store_f64(target, x);
}

static inline void stream_bytes(void *target, const void *source)
{
	memcpy(target, source, sizeof(vector_f32));
}
#endif

static inline vector_f64 widen_low(vector_f32 x)
{
	return (vector_f64){ (double)x[0], (double)x[1] };
}

static inline vector_f64 widen_high(vector_f32 x)
{
	return (vector_f64){ (double)x[2], (double)x[3] };
}

static inline vector_f64 widen_load(const float *source)
{
	half_f32 x;
	memcpy(&x, source, sizeof x);
	return (vector_f64){ (double)x[0], (double)x[1] };
}

static inline vector_f64 square_add_widened(vector_f64 sum, vector_f64 x)
{
	return sum + x * x;
}

static inline vector_u32 select_u32(vector_u32 mask, vector_u32 yes, vector_u32 no)
{
	return (mask & yes) | (~mask & no);
}

/* A float16 in the low half of each element. */
static inline vector_f32 f16_widen(vector_u32 half)
{
	vector_u32 sign = (half & 0x8000) << 16;
	vector_u32 magnitude = (half & 0x7fff) << 13;
	vector_u32 exponent = half & 0x7c00;
	vector_u32 normal = magnitude + ((127u - 15u) << 23);
	vector_u32 special = magnitude | 0x7f800000; /* infinities and NaN */
	/*
	 * Subnormals: mantissa * 2^-24 = (1 + mantissa * 2^-10) * 2^-14 - 2^-14. The subtraction is exact, and its
	 * operands are normal floats, so that it is fast.
	 */
	vector_f32 subnormal = (vector_f32)(magnitude + (113u << 23)) - 0x1p-14f;

	vector_u32 bits = select_u32((vector_u32)(exponent == 0x7c00), special, normal);
	bits = select_u32((vector_u32)(exponent == 0), (vector_u32)subnormal, bits);
	return (vector_f32)(bits | sign);
}

static inline vector_u32 load_u16(const void *source)
{
	half_u16 x;
	memcpy(&x, source, sizeof x);
	return __builtin_convertvector(x, vector_u32);
}

static inline vector_u32 load_u8(const void *source)
{
	quarter_u8 x;
	memcpy(&x, source, sizeof x);
	return (vector_u32){ x[0], x[1], x[2], x[3] };
}

static inline vector_f32 load_f16(const void *source)
{
	return f16_widen(load_u16(source));
}

static inline vector_f32 load_bf16(const void *source)
{
	return (vector_f32)(load_u16(source) << 16);
}

/* A float16's exponent has room for this one's: the magnitude shifted into place is the value times 2^-8. */
static inline vector_f32 load_f8_e4m3(const void *source)
{
	vector_u32 byte = load_u8(source);
	vector_u32 magnitude = byte & 0x7f;
	vector_u32 is_nan = (vector_u32)(magnitude == 0x7f);
	vector_f32 x = f16_widen((byte & 0x80) << 8 | magnitude << 7) * 0x1p8f;
	return (vector_f32)((vector_u32)x | (is_nan & 0x7fc00000));
}

static inline vector_f32 load_f8_e5m2(const void *source)
{
	return f16_widen(load_u8(source) << 8);
}

#include "daemon/core/kernel_parts.h"

#include "daemon/core/kernel_inner.h"
