/*
 * Sums over elements. See numbers.h.
 *
 * Chunks of finite numbers, which nearly all are, are summed without a branch; a sum that is not finite then tells that
 * the chunk has to be looked at one by one.
 */
#include "client/emactl/numbers.h"

#include "proto/convert.h"

#include <math.h>
#include <string.h>

#define WIDEN(type)                                                                                                   \
	do {                                                                                                          \
		type value;                                                                                           \
                                                                                                                      \
		for (size_t i = 0; i < count; i++) {                                                                  \
			memcpy(&value, bytes + i * sizeof(value), sizeof(value));                                     \
			ret_values[i] = (double)value;                                                                \
		}                                                                                                     \
	} while (0)

void numbers_widen(enum dtype dtype, const uint8_t *bytes, size_t count, double *ret_values)
{
	switch (dtype) {
	case DTYPE_F64:
	case DTYPE_F32:
	case DTYPE_F16:
	case DTYPE_BF16:
	case DTYPE_F8_E4M3:
	case DTYPE_F8_E5M2:
		convert_elements(dtype, bytes, DTYPE_F64, ret_values, count);
		break;
	case DTYPE_I64:
		WIDEN(int64_t);
		break;
	case DTYPE_I32:
		WIDEN(int32_t);
		break;
	case DTYPE_I16:
		WIDEN(int16_t);
		break;
	case DTYPE_I8:
		WIDEN(int8_t);
		break;
	case DTYPE_U8:
	case DTYPE_BOOL:
		WIDEN(uint8_t);
		break;
	case DTYPE_COUNT:
		break;
	}
}

/* ---- differences ---------------------------------------------------------------------------------------------- */

/* Neighbouring large integers are one double: what they differ by is found before it is widened. */
static void integers_add(struct difference *difference, const uint8_t *a, const uint8_t *b, size_t count)
{
	int64_t left, right;
	double distance;

	for (size_t i = 0; i < count; i++) {
		memcpy(&left, a + i * sizeof(left), sizeof(left));
		memcpy(&right, b + i * sizeof(right), sizeof(right));
		distance = left > right ? (double)((uint64_t)left - (uint64_t)right)
		                        : (double)((uint64_t)right - (uint64_t)left);
		difference->differing_count += left != right;
		difference->square_sum += distance * distance;
		difference->a_square_sum += (double)left * (double)left;
		difference->b_square_sum += (double)right * (double)right;
		difference->product_sum += (double)left * (double)right;
		difference->absolute_max = fmax(difference->absolute_max, distance);
	}
}

static void finite_add(struct difference *difference, const double *a, const double *b, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const double distance = a[i] - b[i], size = fabs(distance);

		difference->differing_count += distance != 0;
		difference->square_sum += distance * distance;
		difference->a_square_sum += a[i] * a[i];
		difference->b_square_sum += b[i] * b[i];
		difference->product_sum += a[i] * b[i];
		difference->absolute_max = size > difference->absolute_max ? size : difference->absolute_max;
	}
}

static void any_add(struct difference *difference, const double *a, const double *b, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (isfinite(a[i]) && isfinite(b[i])) {
			finite_add(difference, &a[i], &b[i], 1);
		} else if (a[i] != b[i] && !(isnan(a[i]) && isnan(b[i]))) {
			difference->differing_count++;
			difference->nonfinite_count++;
		}
	}
}

void difference_add(struct difference *difference, enum dtype a_dtype, const uint8_t *a, enum dtype b_dtype,
                    const uint8_t *b, size_t count)
{
	double left[NUMBERS_CHUNK_COUNT], right[NUMBERS_CHUNK_COUNT];
	struct difference sums = {0};

	difference->element_count += count;
	if (a_dtype == DTYPE_I64 && b_dtype == DTYPE_I64) {
		integers_add(difference, a, b, count);
		return;
	}
	numbers_widen(a_dtype, a, count, left);
	numbers_widen(b_dtype, b, count, right);
	finite_add(&sums, left, right, count);
	if (!isfinite(sums.a_square_sum + sums.b_square_sum)) {
		sums = (struct difference){0};
		any_add(&sums, left, right, count);
	}
	difference_merge(difference, &sums);
}

void difference_merge(struct difference *difference, const struct difference *other)
{
	difference->element_count += other->element_count;
	difference->differing_count += other->differing_count;
	difference->nonfinite_count += other->nonfinite_count;
	difference->square_sum += other->square_sum;
	difference->a_square_sum += other->a_square_sum;
	difference->b_square_sum += other->b_square_sum;
	difference->product_sum += other->product_sum;
	difference->absolute_max = fmax(difference->absolute_max, other->absolute_max);
}

double difference_distance(const struct difference *difference)
{
	return sqrt(difference->square_sum);
}

double difference_relative(const struct difference *difference)
{
	if (difference->differing_count == 0)
		return 0;
	if (difference->nonfinite_count > 0 || difference->a_square_sum <= 0)
		return INFINITY;
	return sqrt(difference->square_sum / difference->a_square_sum);
}

double difference_cosine(const struct difference *difference)
{
	const double a = sqrt(difference->a_square_sum), b = sqrt(difference->b_square_sum);
	double cosine;

	if (a <= 0 && b <= 0)
		return 1;
	if (a <= 0 || b <= 0)
		return NAN;
	/* Rounding must not make an angle of what is none. */
	cosine = difference->product_sum / a / b;
	return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/* ---- summaries ------------------------------------------------------------------------------------------------ */

/* The mean and the squares of two runs from those of each. source: Chan, Golub, LeVeque, "Updating Formulae" (1979) */
static void summary_merge(struct summary *summary, const struct summary *other)
{
	const double left = (double)summary->finite_count, right = (double)other->finite_count, all = left + right;
	const double step = other->mean - summary->mean;

	if (other->finite_count == 0)
		return;
	if (summary->finite_count == 0) {
		summary->minimum = other->minimum;
		summary->maximum = other->maximum;
	}
	summary->minimum = fmin(summary->minimum, other->minimum);
	summary->maximum = fmax(summary->maximum, other->maximum);
	summary->mean += step * (right / all);
	summary->deviation_squares += other->deviation_squares + step * step * (left * right / all);
	summary->finite_count += other->finite_count;
	summary->zero_count += other->zero_count;
}

/* Takes out what is not finite, and counts it; returns how many values are left. */
static size_t values_sift(struct summary *summary, double *values, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		summary->nan_count += isnan(values[i]) != 0;
		summary->infinite_count += isinf(values[i]) != 0;
		values[kept] = values[i];
		kept += isfinite(values[i]) != 0;
	}
	return kept;
}

void summary_add(struct summary *summary, enum dtype dtype, const uint8_t *bytes, size_t count)
{
	double values[NUMBERS_CHUNK_COUNT], sum = 0;
	struct summary run = {0};
	size_t kept;

	numbers_widen(dtype, bytes, count, values);
	summary->element_count += count;
	kept = values_sift(summary, values, count);
	if (kept == 0)
		return;
	run.finite_count = kept;
	run.minimum = run.maximum = values[0];
	for (size_t i = 0; i < kept; i++) {
		/* Divided before it is added: the sum of large values must not become infinite. */
		sum += values[i] / (double)kept;
		run.zero_count += values[i] == 0;
		run.minimum = values[i] < run.minimum ? values[i] : run.minimum;
		run.maximum = values[i] > run.maximum ? values[i] : run.maximum;
	}
	run.mean = sum;
	for (size_t i = 0; i < kept; i++)
		run.deviation_squares += (values[i] - sum) * (values[i] - sum);
	summary_merge(summary, &run);
}

double summary_deviation(const struct summary *summary)
{
	return summary->finite_count ? sqrt(summary->deviation_squares / (double)summary->finite_count) : 0;
}
