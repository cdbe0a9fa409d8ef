/*
 * The vector kernels, written once. Each instruction set's file defines a handful of small operations on its own
 * vectors and includes this header, which builds the loops and the table `KERNEL_SET` from them.
 *
 * What the file defines before it includes this (all static inline):
 *   KERNEL_SET, KERNEL_SET_NAME     the table's symbol and the set's name
 *   vector_f32, vector_f64          a vector of floats, and of half as many doubles; +, - and * work on both
 *   load_X, store_X, stream_X       of any address; of any address; of an address that is a multiple of the vector
 *   widen_low, widen_high, widen_load   the halves of a vector_f32 as doubles; the same from memory
 *   square_add_widened              sum + x * x where x was a float, so that the product is exact
 *   load_f16, load_bf16, load_f8_e4m3, load_f8_e5m2   of any address, widened to a vector_f32
 *   stream_bytes                    moves the bytes of a vector_f32 unchanged to an aligned address
 *   part_load_X, part_store_X       of some consecutive elements of a block (see below)
 *
 * A block is KERNEL_LANES elements: one cache line of floats, or two of doubles. Its element j adds to lane j, so a
 * loop over blocks keeps all lanes in registers. A run begins and ends inside a block in general; those two are
 * copied to a whole block of their own, with zeros where the run has no elements (a zero adds nothing to a sum of
 * squares), and only the run's own elements are written back: the other bytes of that cache line may be another
 * thread's.
 */
#pragma once

#include "daemon/core/kernel.h"

#include <assert.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum {
	WIDTH_f32 = sizeof(vector_f32) / sizeof(float),
	WIDTH_f64 = sizeof(vector_f64) / sizeof(double),
	SUM_PARTS = KERNEL_LANES / WIDTH_f64,
	CACHE_LINE = 64,
	/*
	 * Bytes to prefetch ahead of the loads. The processor's own prefetchers start anew at every chunk when several
	 * profiles take turns; a little more than one chunk of floats ahead, each turn finds its lines on their way
	 * and asks for those of its next turn. On a Xeon, 1.5 KiB is 15 % slower, 2 KiB 5 %, 3 KiB up to 20 %.
	 */
	PREFETCH = KERNEL_CHUNK * sizeof(float) + 512,
};

/* What a run does with its values: the forms of schedule.h, and the assignment. */
enum step { STEP_LERP, STEP_MUL_ADD, STEP_SUB, STEP_ASSIGN };

/* The lanes while a loop runs: small enough to live in registers. */
struct sums {
	vector_f64 part[SUM_PARTS];
};

INLINE struct sums sums_load(const struct kernel_lanes *lanes)
{
	struct sums sums;
	UNROLLED
	for (unsigned p = 0; p < SUM_PARTS; p++)
		sums.part[p] = load_f64(lanes->lane + p * WIDTH_f64);
	return sums;
}

INLINE void sums_store(const struct sums *sums, struct kernel_lanes *lanes)
{
	UNROLLED
	for (unsigned p = 0; p < SUM_PARTS; p++)
		store_f64(lanes->lane + p * WIDTH_f64, sums->part[p]);
}

/* Adds the squares of vector number p of a block. */
INLINE void sums_add_f32(struct sums *sums, unsigned p, vector_f32 x)
{
	sums->part[2 * p] = square_add_widened(sums->part[2 * p], widen_low(x));
	sums->part[2 * p + 1] = square_add_widened(sums->part[2 * p + 1], widen_high(x));
}

INLINE void sums_add_f64(struct sums *sums, unsigned p, vector_f64 x)
{
	sums->part[p] = sums->part[p] + x * x;
}

/* The same for values in memory: widening loads spare the shuffles that the halves of a register need. */
INLINE void sums_add_loaded_f32(struct sums *sums, unsigned p, const float *x)
{
	sums->part[2 * p] = square_add_widened(sums->part[2 * p], widen_load(x));
	sums->part[2 * p + 1] = square_add_widened(sums->part[2 * p + 1], widen_load(x + WIDTH_f64));
}

INLINE void sums_add_loaded_f64(struct sums *sums, unsigned p, const double *x)
{
	sums_add_f64(sums, p, load_f64(x));
}

/* Only a hint, and never a fault: the address may lie behind the run. */
INLINE void prefetch(const void *address)
{
	__builtin_prefetch((const void *)((uintptr_t)address + PREFETCH));
}

#define REAL float
#define X(name) name##_f32
#include "daemon/core/kernel_run.h"
#undef REAL
#undef X

#define REAL double
#define X(name) name##_f64
#include "daemon/core/kernel_run.h"
#undef REAL
#undef X

/* Widening: whole vectors, then what is left by the scalar set. */
#define WIDEN(name, dtype, bytes)                                                                                     \
	static void name##_to_f32(float *target, const void *source, size_t count)                                    \
	{                                                                                                             \
		const char *from = source;                                                                            \
		size_t i = 0;                                                                                         \
		for (; i + WIDTH_f32 <= count; i += WIDTH_f32) {                                                      \
			prefetch(from + i * (bytes));                                                                 \
			store_f32(target + i, load_##name(from + i * (bytes)));                                       \
		}                                                                                                     \
		kernel_scalar.widen_f32[dtype](target + i, from + i * (bytes), count - i);                            \
	}                                                                                                             \
	static void name##_to_f64(double *target, const void *source, size_t count)                                   \
	{                                                                                                             \
		const char *from = source;                                                                            \
		size_t i = 0;                                                                                         \
		for (; i + WIDTH_f32 <= count; i += WIDTH_f32) {                                                      \
			prefetch(from + i * (bytes));                                                                 \
			vector_f32 values = load_##name(from + i * (bytes));                                          \
			store_f64(target + i, widen_low(values));                                                     \
			store_f64(target + i + WIDTH_f64, widen_high(values));                                        \
		}                                                                                                     \
		kernel_scalar.widen_f64[dtype](target + i, from + i * (bytes), count - i);                            \
	}

WIDEN(f16, DTYPE_F16, 2)
WIDEN(bf16, DTYPE_BF16, 2)
WIDEN(f8_e4m3, DTYPE_F8_E4M3, 1)
WIDEN(f8_e5m2, DTYPE_F8_E5M2, 1)
#undef WIDEN

static void f32_to_f64(double *target, const void *source, size_t count)
{
	const char *from = source;
	size_t i = 0;
	for (; i + WIDTH_f64 <= count; i += WIDTH_f64)
		store_f64(target + i, widen_load((const void *)(from + i * sizeof(float))));
	kernel_scalar.widen_f64[DTYPE_F32](target + i, from + i * sizeof(float), count - i);
}

static void f64_to_f32(float *target, const void *source, size_t count)
{
	kernel_scalar.widen_f32[DTYPE_F64](target, source, count);
}

static void move(void *target, const void *source, size_t bytes)
{
	char *to = target;
	const char *from = source;
	size_t head = -(uintptr_t)to % CACHE_LINE;
	if (head > bytes)
		head = bytes;
	memcpy(to, from, head);

	size_t i = head;
	for (; i + CACHE_LINE <= bytes; i += CACHE_LINE) {
		prefetch(from + i);
		UNROLLED
		for (unsigned p = 0; p < CACHE_LINE / sizeof(vector_f32); p++)
			stream_bytes(to + i + p * sizeof(vector_f32), from + i + p * sizeof(vector_f32));
	}
	memcpy(to + i, from + i, bytes - i);
}

extern const struct kernel_set KERNEL_SET;
const struct kernel_set KERNEL_SET = {
	.name = KERNEL_SET_NAME,
	.widen_f32 = {
		[DTYPE_F64] = f64_to_f32,
		[DTYPE_F16] = f16_to_f32,
		[DTYPE_BF16] = bf16_to_f32,
		[DTYPE_F8_E4M3] = f8_e4m3_to_f32,
		[DTYPE_F8_E5M2] = f8_e5m2_to_f32,
	},
	.widen_f64 = {
		[DTYPE_F32] = f32_to_f64,
		[DTYPE_F16] = f16_to_f64,
		[DTYPE_BF16] = bf16_to_f64,
		[DTYPE_F8_E4M3] = f8_e4m3_to_f64,
		[DTYPE_F8_E5M2] = f8_e5m2_to_f64,
	},
	.update_f32 = { [FORM_LERP] = lerp_f32, [FORM_MUL_ADD] = mul_add_f32, [FORM_SUB] = sub_f32 },
	.update_f64 = { [FORM_LERP] = lerp_f64, [FORM_MUL_ADD] = mul_add_f64, [FORM_SUB] = sub_f64 },
	.assign_f32 = assign_f32,
	.assign_f64 = assign_f64,
	.move = move,
};
