/*
 * Conversions between doubles and the floating-point dtypes of files. Rounding by way of float would round twice, so
 * bfloat16 is made from a float that was rounded to odd, whose last bit remembers everything behind it.
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
			_Float16 value;

			memcpy(&value, bytes + i * sizeof(value), sizeof(value));
			ret_values[i] = (double)value;
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
			const _Float16 value = (_Float16)values[i];

			memcpy(ret_bytes + i * sizeof(value), &value, sizeof(value));
		} else {
			const uint16_t value = bfloat16_nearest(values[i]);

			memcpy(ret_bytes + i * sizeof(value), &value, sizeof(value));
		}
	}
}
