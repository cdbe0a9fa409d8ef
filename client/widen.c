/*
 * Conversions between doubles and the floating-point dtypes of files. Rounding by way of float would round twice:
 * bfloat16 is made from a float that was rounded to odd, whose last bit remembers everything behind it, and half
 * precision by rounding to a whole number of its units in the last place. Not every compiler has a type for it.
 */
#include "client/widen.h"

#include <assert.h>
#include <math.h>
#include <string.h>

bool widen_knows(enum dtype dtype)
{
	return dtype == DTYPE_F64 || dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

static double bfloat16_value(uint16_t half)
{
	const uint32_t bits = (uint32_t)half << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return (double)value;
}

static uint16_t bfloat16_nearest(double value)
{
	float near = (float)value;
	uint32_t bits;

	memcpy(&bits, &near, sizeof(bits));
	if (isnan(near))
		return (uint16_t)(bits >> 16 | 0x40);
	if ((double)near != value) {
		/* Truncate, then remember that something was cut off. */
		if (fabs((double)near) > fabs(value))
			bits--;
		bits |= 1;
	}
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double half_value(uint16_t half)
{
	const int exponent = half >> 10 & 31, fraction = half & 1023;
	double value;

	if (exponent == 31)
		value = fraction ? (double)NAN : (double)INFINITY;
	else if (exponent == 0)
		value = ldexp(fraction, -24);
	else
		value = ldexp(1024 + fraction, exponent - 25);
	return half & 0x8000 ? -value : value;
}

static uint16_t half_nearest(double value)
{
	const unsigned sign = signbit(value) ? 0x8000 : 0;
	const double magnitude = fabs(value);
	int exponent;

	if (isnan(value))
		return 0x7e00;
	if (magnitude >= 65520) /* beyond the middle between the largest value and the next power of two */
		return (uint16_t)(sign | 0x7c00);
	if (magnitude < 0x1p-14)
		return (uint16_t)(sign | (unsigned)rint(magnitude * 0x1p24));
	exponent = ilogb(magnitude);
	/* What is rounded up to the next power of two carries into the exponent. */
	return (uint16_t)(sign | ((unsigned)(exponent + 14) * 1024 + (unsigned)rint(ldexp(magnitude, 10 - exponent))));
}

void widen(enum dtype dtype, const uint8_t *bytes, double *ret_values, size_t count)
{
	assert(widen_knows(dtype));
	if (dtype == DTYPE_F64) {
		memcpy(ret_values, bytes, count * sizeof(double));
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (dtype == DTYPE_F32) {
			float value;

			memcpy(&value, bytes + i * sizeof(value), sizeof(value));
			ret_values[i] = (double)value;
		} else if (dtype == DTYPE_F16) {
			uint16_t value;

			memcpy(&value, bytes + i * sizeof(value), sizeof(value));
			ret_values[i] = half_value(value);
		} else {
			uint16_t value;

			memcpy(&value, bytes + i * sizeof(value), sizeof(value));
			ret_values[i] = bfloat16_value(value);
		}
	}
}

void narrow(enum dtype dtype, const double *values, uint8_t *ret_bytes, size_t count)
{
	assert(widen_knows(dtype));
	if (dtype == DTYPE_F64) {
		memcpy(ret_bytes, values, count * sizeof(double));
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (dtype == DTYPE_F32) {
			const float value = (float)values[i];

			memcpy(ret_bytes + i * sizeof(value), &value, sizeof(value));
		} else if (dtype == DTYPE_F16) {
			const uint16_t value = half_nearest(values[i]);

			memcpy(ret_bytes + i * sizeof(value), &value, sizeof(value));
		} else {
			const uint16_t value = bfloat16_nearest(values[i]);

			memcpy(ret_bytes + i * sizeof(value), &value, sizeof(value));
		}
	}
}
