/*
 * The scalar kernels: the plainest loops, one element at a time. They define the result; the vector sets are tested
 * against them bit by bit, so nothing clever belongs here.
 *
 * Every product and every sum is rounded on its own, which C promises only without contraction: the project is
 * compiled with -ffp-contract=off.
 */
#include "daemon/core/kernel.h"

#include <math.h>
#include <string.h>

static float f32_from_bits(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static float f16_widen(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000) << 16;
	uint32_t exponent = (uint32_t)half >> 10 & 0x1f;
	uint32_t mantissa = half & 0x3ff;

	if (exponent == 0x1f)
		return f32_from_bits(sign | 0x7f800000 | mantissa << 13);
	if (exponent == 0) /* zero or subnormal: a multiple of 2^-24, normal as a float */
		return copysignf((float)mantissa * 0x1p-24f, f32_from_bits(sign));
	return f32_from_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

static float bf16_widen(uint16_t half)
{
	return f32_from_bits((uint32_t)half << 16);
}

/* The OCP "fn" variant: no infinities, and only the all-ones magnitude is NaN. */
static float f8_e4m3_widen(uint8_t byte)
{
	uint16_t sign = (uint16_t)((byte & 0x80) << 8);
	uint16_t magnitude = byte & 0x7f;

	if (magnitude == 0x7f)
		return f32_from_bits((uint32_t)sign << 16 | 0x7fc00000);
	/* Four bits of exponent with bias 7, put where five with bias 15 belong: too small by 2^8. */
	return f16_widen((uint16_t)(sign | magnitude << 7)) * 0x1p8f;
}

/* The upper half of a float16. */
static float f8_e5m2_widen(uint8_t byte)
{
	return f16_widen((uint16_t)(byte << 8));
}

/* The source may lie at any byte: a stage packs tensors without holes. */
#define WIDEN(dtype, element)                                                                                         \
	static void dtype##_to_f32(float *target, const void *source, size_t count)                                   \
	{                                                                                                             \
		for (size_t i = 0; i < count; i++) {                                                                  \
			element value;                                                                                \
			memcpy(&value, (const char *)source + i * sizeof value, sizeof value);                        \
			target[i] = dtype##_widen(value);                                                             \
		}                                                                                                     \
	}                                                                                                             \
	static void dtype##_to_f64(double *target, const void *source, size_t count)                                  \
	{                                                                                                             \
		for (size_t i = 0; i < count; i++) {                                                                  \
			element value;                                                                                \
			memcpy(&value, (const char *)source + i * sizeof value, sizeof value);                        \
			target[i] = (double)dtype##_widen(value);                                                     \
		}                                                                                                     \
	}

WIDEN(f16, uint16_t)
WIDEN(bf16, uint16_t)
WIDEN(f8_e4m3, uint8_t)
WIDEN(f8_e5m2, uint8_t)

static void f32_to_f64(double *target, const void *source, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		float value;
		memcpy(&value, (const char *)source + i * sizeof value, sizeof value);
		target[i] = (double)value;
	}
}

/* The one narrowing: a float shadow of double weights. */
static void f64_to_f32(float *target, const void *source, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		double value;
		memcpy(&value, (const char *)source + i * sizeof value, sizeof value);
		target[i] = (float)value;
	}
}

/* Adds the squares of a run to its lanes. The difference has been rounded to the work type by the caller. */
static void lanes_add(struct kernel_lanes *lanes, size_t position, double value)
{
	if (lanes)
		lanes->lane[position % KERNEL_LANES] += value * value;
}

/* Forms, assignments and their sums for one work type. */
#define UPDATE(suffix, real)                                                                                          \
	static void lerp_##suffix(real *target, const real *shadow, const real *value, size_t count, unsigned phase,  \
	                          double decay, struct kernel_lanes *drift, struct kernel_lanes *value_squares)       \
	{                                                                                                             \
		real take = (real)(1.0 - decay);                                                                      \
		for (size_t i = 0; i < count; i++) {                                                                  \
			real difference = value[i] - shadow[i];                                                       \
			target[i] = shadow[i] + take * difference;                                                    \
			lanes_add(drift, phase + i, (double)difference);                                              \
			lanes_add(value_squares, phase + i, (double)value[i]);                                        \
		}                                                                                                     \
	}                                                                                                             \
	static void mul_add_##suffix(real *target, const real *shadow, const real *value, size_t count,               \
	                             unsigned phase, double decay, struct kernel_lanes *drift,                        \
	                             struct kernel_lanes *value_squares)                                              \
	{                                                                                                             \
		real keep = (real)decay;                                                                              \
		real take = (real)(1.0 - decay);                                                                      \
		for (size_t i = 0; i < count; i++) {                                                                  \
			real difference = value[i] - shadow[i];                                                       \
			target[i] = shadow[i] * keep + take * value[i];                                               \
			lanes_add(drift, phase + i, (double)difference);                                              \
			lanes_add(value_squares, phase + i, (double)value[i]);                                        \
		}                                                                                                     \
	}                                                                                                             \
	static void sub_##suffix(real *target, const real *shadow, const real *value, size_t count, unsigned phase,   \
	                         double decay, struct kernel_lanes *drift, struct kernel_lanes *value_squares)        \
	{                                                                                                             \
		real take = (real)(1.0 - decay);                                                                      \
		for (size_t i = 0; i < count; i++) {                                                                  \
			real difference = shadow[i] - value[i];                                                       \
			target[i] = shadow[i] - take * difference;                                                    \
			lanes_add(drift, phase + i, (double)difference);                                              \
			lanes_add(value_squares, phase + i, (double)value[i]);                                        \
		}                                                                                                     \
	}                                                                                                             \
	static void assign_##suffix(real *target, const real *shadow, const real *value, size_t count,                \
	                            unsigned phase, struct kernel_lanes *drift, struct kernel_lanes *value_squares)   \
	{                                                                                                             \
		for (size_t i = 0; i < count; i++) {                                                                  \
			target[i] = value[i];                                                                         \
			if (shadow)                                                                                   \
				lanes_add(drift, phase + i, (double)(value[i] - shadow[i]));                          \
			lanes_add(value_squares, phase + i, (double)value[i]);                                        \
		}                                                                                                     \
	}

UPDATE(f32, float)
UPDATE(f64, double)

static void move(void *target, const void *source, size_t bytes)
{
	memcpy(target, source, bytes);
}

const struct kernel_set kernel_scalar = {
	.name = "scalar",
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
