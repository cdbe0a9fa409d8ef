/*
 * The averaging kernels for AVX2 with FMA and F16C. A cache line of floats is two vectors, a block of lanes four
 * vectors of doubles.
 *
 * The target is set for this file's functions alone, so the file compiles with the flags of all others, and it is
 * reached only where the processor has the instructions (kernel.c).
 */
#if defined(__x86_64__)

#include "daemon/core/kernel.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define KERNEL_SET kernel_avx2
#define KERNEL_SET_NAME "avx2"

typedef __m256 vector_f32;
typedef __m256d vector_f64;

static inline vector_f32 load_f32(const float *source)
{
	return _mm256_loadu_ps(source);
}

static inline void store_f32(float *target, vector_f32 x)
{
	_mm256_storeu_ps(target, x);
}

static inline void stream_f32(float *target, vector_f32 x)
{
	_mm256_stream_ps(target, x);
}

static inline vector_f64 load_f64(const double *source)
{
	return _mm256_loadu_pd(source);
}

static inline void store_f64(double *target, vector_f64 x)
{
	_mm256_storeu_pd(target, x);
}

static inline void stream_f64(double *target, vector_f64 x)
{
	_mm256_stream_pd(target, x);
}

static inline vector_f64 widen_low(vector_f32 x)
{
	return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}

static inline vector_f64 widen_high(vector_f32 x)
{
	return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

static inline vector_f64 widen_load(const float *source)
{
	return _mm256_cvtps_pd(_mm_loadu_ps(source));
}

static inline vector_f64 square_add_widened(vector_f64 sum, vector_f64 x)
{
	return _mm256_fmadd_pd(x, x, sum);
}

static inline vector_f32 load_f16(const void *source)
{
	return _mm256_cvtph_ps(_mm_loadu_si128(source));
}

static inline vector_f32 load_bf16(const void *source)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(source)), 16));
}

/* A float16's exponent has room for this one's: the magnitude shifted into place is the value times 2^-8. */
static inline vector_f32 load_f8_e4m3(const void *source)
{
	__m128i byte = _mm_cvtepu8_epi16(_mm_loadl_epi64(source));
	__m128i magnitude = _mm_and_si128(byte, _mm_set1_epi16(0x7f));
	__m128i sign = _mm_slli_epi16(_mm_sub_epi16(byte, magnitude), 8);
	__m128i is_nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
	__m128i half = _mm_or_si128(sign, _mm_slli_epi16(magnitude, 7));
	half = _mm_or_si128(half, _mm_and_si128(is_nan, _mm_set1_epi16(0x7e00)));
	return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(0x1p8f));
}

static inline vector_f32 load_f8_e5m2(const void *source)
{
	return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64(source)), 8));
}

static inline void stream_bytes(void *target, const void *source)
{
	_mm256_stream_si256(target, _mm256_loadu_si256(source));
}

#include "daemon/core/kernel_parts.h"

#include "daemon/core/kernel_inner.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
enum { KERNEL_AVX2_IS_FOR_X86 }; /* C wants a declaration in every file */
#endif
