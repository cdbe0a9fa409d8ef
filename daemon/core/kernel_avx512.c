/*
 * The averaging kernels for AVX-512 (the F part alone). A cache line of floats is one vector, a block of lanes two
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
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f")
#endif

#define KERNEL_SET kernel_avx512
#define KERNEL_SET_NAME "avx512"

typedef __m512 vector_f32;
typedef __m512d vector_f64;

static inline vector_f32 load_f32(const float *source)
{
	return _mm512_loadu_ps(source);
}

static inline void store_f32(float *target, vector_f32 x)
{
	_mm512_storeu_ps(target, x);
}

static inline void stream_f32(float *target, vector_f32 x)
{
	_mm512_stream_ps(target, x);
}

static inline vector_f64 load_f64(const double *source)
{
	return _mm512_loadu_pd(source);
}

static inline void store_f64(double *target, vector_f64 x)
{
	_mm512_storeu_pd(target, x);
}

static inline void stream_f64(double *target, vector_f64 x)
{
	_mm512_stream_pd(target, x);
}

static inline vector_f64 widen_low(vector_f32 x)
{
	return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

static inline vector_f64 widen_high(vector_f32 x)
{
	return _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
}

static inline vector_f64 widen_load(const float *source)
{
	return _mm512_cvtps_pd(_mm256_loadu_ps(source));
}

static inline vector_f64 square_add_widened(vector_f64 sum, vector_f64 x)
{
	return _mm512_fmadd_pd(x, x, sum);
}

static inline vector_f32 load_f16(const void *source)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256(source));
}

static inline vector_f32 load_bf16(const void *source)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(source)), 16));
}

/* A float16's exponent has room for this one's: the magnitude shifted into place is the value times 2^-8. */
static inline vector_f32 load_f8_e4m3(const void *source)
{
	__m256i byte = _mm256_cvtepu8_epi16(_mm_loadu_si128(source));
	__m256i magnitude = _mm256_and_si256(byte, _mm256_set1_epi16(0x7f));
	__m256i sign = _mm256_slli_epi16(_mm256_sub_epi16(byte, magnitude), 8);
	__m256i is_nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
	__m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7));
	half = _mm256_or_si256(half, _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00)));
	return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(0x1p8f));
}

static inline vector_f32 load_f8_e5m2(const void *source)
{
	return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(source)), 8));
}

static inline void stream_bytes(void *target, const void *source)
{
	_mm512_stream_si512(target, _mm512_loadu_si512(source));
}

/*
 * Masked loads and stores touch only the elements of the mask, so the address of the block's first element may lie
 * outside of the array; it is computed as a number.
 */
static inline uintptr_t block_start(const void *elements, size_t bytes)
{
	return (uintptr_t)elements - bytes;
}

static inline __mmask16 part_mask(unsigned first, unsigned count)
{
	return (__mmask16)(((1u << count) - 1) << first);
}

static inline void part_load_f32(float *block, const float *source, unsigned first, unsigned count)
{
	uintptr_t from = block_start(source, first * sizeof *source);
	_mm512_storeu_ps(block, _mm512_maskz_loadu_ps(part_mask(first, count), (const void *)from));
}

static inline void part_store_f32(float *target, const float *block, unsigned first, unsigned count)
{
	uintptr_t to = block_start(target, first * sizeof *target);
	_mm512_mask_storeu_ps((void *)to, part_mask(first, count), _mm512_loadu_ps(block));
}

static inline void part_load_f64(double *block, const double *source, unsigned first, unsigned count)
{
	uintptr_t from = block_start(source, first * sizeof *source);
	__mmask8 low = (__mmask8)part_mask(first, count), high = (__mmask8)(part_mask(first, count) >> 8);
	_mm512_storeu_pd(block, _mm512_maskz_loadu_pd(low, (const void *)from));
	_mm512_storeu_pd(block + 8, _mm512_maskz_loadu_pd(high, (const void *)(from + sizeof(vector_f64))));
}

static inline void part_store_f64(double *target, const double *block, unsigned first, unsigned count)
{
	uintptr_t to = block_start(target, first * sizeof *target);
	__mmask8 low = (__mmask8)part_mask(first, count), high = (__mmask8)(part_mask(first, count) >> 8);
	_mm512_mask_storeu_pd((void *)to, low, _mm512_loadu_pd(block));
	_mm512_mask_storeu_pd((void *)(to + sizeof(vector_f64)), high, _mm512_loadu_pd(block + 8));
}

#include "daemon/core/kernel_inner.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
enum { KERNEL_AVX512_IS_FOR_X86 }; /* C wants a declaration in every file */
#endif
