/*
 * Conversion between floating-point dtypes, against a reference that knows nothing of bits: all values of a small
 * format in a row, and the nearest of them found by comparing with the middle of two neighbours.
 */
#include "proto/convert.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SMALL_COUNT = 4, FLOAT_COUNT = 6, CASE_COUNT_MAX = 16 * 65536 };

static const struct small {
	enum dtype dtype;
	unsigned bits, mantissa_bits;
	int bias;
	uint32_t infinity; /* the smallest magnitude that is not finite */
	bool has_infinity;
} smalls[SMALL_COUNT] = {
	{DTYPE_F16, 16, 10, 15, 0x7c00, true},
	{DTYPE_BF16, 16, 7, 127, 0x7f80, true},
	{DTYPE_F8_E4M3, 8, 3, 7, 0x7f, false},
	{DTYPE_F8_E5M2, 8, 2, 15, 0x7c, true},
};

static const enum dtype floats[FLOAT_COUNT] = {
	DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2,
};

static const struct small *small_of(enum dtype dtype)
{
	for (unsigned i = 0; i < SMALL_COUNT; i++) {
		if (smalls[i].dtype == dtype)
			return &smalls[i];
	}
	return NULL;
}

/* The value of a finite magnitude; also of the first one behind the finite ones, as if it were one of them. */
static double magnitude_value(const struct small *small, uint32_t magnitude)
{
	uint32_t mantissa = magnitude & ((1u << small->mantissa_bits) - 1);
	int exponent = (int)(magnitude >> small->mantissa_bits);

	if (exponent > 0)
		mantissa |= 1u << small->mantissa_bits;
	return ldexp(mantissa, (exponent > 0 ? exponent : 1) - small->bias - (int)small->mantissa_bits);
}

static double value_of(enum dtype dtype, const uint8_t *bytes)
{
	const struct small *small = small_of(dtype);
	uint32_t bits = 0, sign_bit, magnitude;
	double f64, value;
	float f32;

	if (dtype == DTYPE_F64) {
		memcpy(&f64, bytes, sizeof(f64));
		return f64;
	}
	if (dtype == DTYPE_F32) {
		memcpy(&f32, bytes, sizeof(f32));
		return (double)f32;
	}
	memcpy(&bits, bytes, small->bits / 8);
	sign_bit = 1u << (small->bits - 1);
	magnitude = bits & (sign_bit - 1);
	if (magnitude < small->infinity)
		value = magnitude_value(small, magnitude);
	else
		value = small->has_infinity && magnitude == small->infinity ? (double)INFINITY : (double)NAN;
	return copysign(value, bits & sign_bit ? -1.0 : 1.0);
}

/* The nearest of a small format's values; of two equally near ones the even. */
static double nearest_of(const struct small *small, double value)
{
	uint32_t low = 0, high = small->infinity, chosen;
	double size = fabs(value), middle, nearest;

	if (isnan(value))
		return value;
	while (high - low > 1) {
		uint32_t at = (low + high) / 2;

		if (magnitude_value(small, at) <= size)
			low = at;
		else
			high = at;
	}
	middle = (magnitude_value(small, low) + magnitude_value(small, high)) / 2;
	chosen = size > middle || (size == middle && low % 2 == 1) ? high : low;
	nearest = magnitude_value(small, chosen);
	if (chosen == small->infinity)
		nearest = small->has_infinity ? (double)INFINITY : magnitude_value(small, chosen - 1);
	return copysign(nearest, value);
}

static bool is_same(double a, double b)
{
	return signbit(a) == signbit(b) && (isnan(a) ? isnan(b) : a == b);
}

/* What one value becomes in a dtype. */
static double expected_of(enum dtype to, double value)
{
	if (to == DTYPE_F64)
		return value;
	return to == DTYPE_F32 ? (double)(float)value : nearest_of(small_of(to), value);
}

/* Whether a value is lost: as if its nearest were sought in a format without an end. */
static bool is_too_large(enum dtype to, double before, double after)
{
	if (to == DTYPE_F8_E4M3)
		return fabs(before) > 464;
	return isfinite(before) && isinf(after);
}

/* Converts by every kind, and looks at every value and at the count. */
static void check_all(enum dtype from, const uint8_t *source, enum dtype to, size_t count)
{
	uint8_t *target = malloc(count * dtype_bytes(to) + 1);
	uint64_t overflows = 0;

	ck_assert_ptr_nonnull(target);
	for (size_t i = 0; i < count; i++) {
		double before = value_of(from, source + i * dtype_bytes(from));

		overflows += is_too_large(to, before, expected_of(to, before));
	}
	for (enum convert_kind kind = 0; kind < CONVERT_KIND_COUNT; kind++) {
		if (!convert_kind_supported(kind))
			continue;
		ck_assert_uint_eq(convert_by_kind(kind, from, source, to, target, count), overflows);
		for (size_t i = 0; i < count; i++) {
			double before = value_of(from, source + i * dtype_bytes(from));
			double after = value_of(to, target + i * dtype_bytes(to));

			ck_assert_msg(is_same(after, expected_of(to, before)), "%s: %a of %s is %a in %s, not %a",
			              convert_kind_name(kind), before, dtype_name(from), expected_of(to, before),
			              dtype_name(to), after);
		}
	}
	free(target);
}

START_TEST(every_value_of_8_and_16_bits_is_right_in_every_other_dtype)
{
	const struct small *small = &smalls[_i];
	size_t count = (size_t)1 << small->bits, bytes = small->bits / 8;
	uint8_t *source = malloc(count * bytes);

	ck_assert_ptr_nonnull(source);
	for (size_t i = 0; i < count; i++)
		memcpy(source + i * bytes, &i, bytes);
	for (unsigned i = 0; i < FLOAT_COUNT; i++) {
		if (floats[i] != small->dtype)
			check_all(small->dtype, source, floats[i], count);
	}
	free(source);
}
END_TEST

/* Each value of the format, the middle to the next, and the F32 and F64 values beside both; and their negatives. */
START_TEST(neighbours_and_ties_of_every_small_value_are_rounded_once)
{
	const struct small *small = &smalls[_i];
	double *f64 = malloc(CASE_COUNT_MAX * sizeof(*f64));
	float *f32 = malloc(CASE_COUNT_MAX * sizeof(*f32));
	size_t f64_count = 0, f32_count = 0;

	ck_assert(f64 && f32);
	for (uint32_t magnitude = 0; magnitude < small->infinity; magnitude++) {
		double here = magnitude_value(small, magnitude);
		double middle = (here + magnitude_value(small, magnitude + 1)) / 2;

		for (int sign = -1; sign <= 1; sign += 2) {
			const double points[2] = {sign * here, sign * middle};

			for (int i = 0; i < 2; i++) {
				f64[f64_count++] = points[i];
				f64[f64_count++] = nextafter(points[i], (double)-INFINITY);
				f64[f64_count++] = nextafter(points[i], (double)INFINITY);
				f32[f32_count++] = (float)points[i];
				f32[f32_count++] = nextafterf((float)points[i], -INFINITY);
				f32[f32_count++] = nextafterf((float)points[i], INFINITY);
			}
		}
	}
	ck_assert_uint_le(f64_count, CASE_COUNT_MAX);
	check_all(DTYPE_F64, (const uint8_t *)f64, small->dtype, f64_count);
	check_all(DTYPE_F32, (const uint8_t *)f32, small->dtype, f32_count);
	free(f64);
	free(f32);
}
END_TEST

static const double SPECIAL[] = {
	0.0, -0.0, INFINITY, -INFINITY, NAN, 1.0, -1.0,
	0x1p-1074, -0x1p-1074, 0x1p-1022, 0x1p-149, 0x1p-150, 0x1.000001p-150, 0x1p-151, 0x1p-126, 0x1p-133, 0x1p-134,
	0x1.000002p-134, 0x1p-24, 0x1p-25, 0x1.0000000000001p-25, 0x1p-16, 0x1p-17, 0x1p-9, 0x1p-10,
	0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023, 0x1.fffffep127, 0x1.fffffefffffffp127, 0x1.ffffffp127,
	0x1p128, 0x1.fep127, 0x1.ffp127, 65504, 65519.999999999, 65520, 65536, 57344, 61440, 61439.999999999,
	448, 464, 464.00000000001, 480, 1e300, -1e300,
};

START_TEST(special_values_of_double_precision_are_right_in_every_dtype)
{
	for (unsigned i = 0; i < FLOAT_COUNT; i++) {
		if (floats[i] != DTYPE_F64)
			check_all(DTYPE_F64, (const uint8_t *)SPECIAL, floats[i], sizeof(SPECIAL) / sizeof(SPECIAL[0]));
	}
}
END_TEST

START_TEST(a_double_is_rounded_once_where_single_precision_would_hide_the_difference)
{
	/* Just above the middle of 1 and the next: by way of F32 it would be the middle, and go to the even 1. */
	static const struct {
		enum dtype to;
		double value, nearest;
	} CASES[] = {
		{DTYPE_BF16, 1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-7},
		{DTYPE_F16, 1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-10},
		{DTYPE_F8_E4M3, 1 + 0x1p-4 + 0x1p-40, 1 + 0x1p-3},
		{DTYPE_F8_E5M2, 1 + 0x1p-3 + 0x1p-40, 1 + 0x1p-2},
	};
	uint8_t target[2];

	for (unsigned i = 0; i < SMALL_COUNT; i++) {
		convert_elements(DTYPE_F64, &CASES[i].value, CASES[i].to, target, 1);
		ck_assert_double_eq(value_of(CASES[i].to, target), CASES[i].nearest);
		ck_assert_double_ne(expected_of(CASES[i].to, (double)(float)CASES[i].value), CASES[i].nearest);
	}
}
END_TEST

/* Xorshift. */
static uint64_t bits_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint8_t *random_bytes(size_t count, uint64_t seed)
{
	uint8_t *bytes = malloc(count);

	ck_assert_ptr_nonnull(bytes);
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(bits_next(&seed) >> 32);
	return bytes;
}

START_TEST(random_patterns_are_right_from_every_dtype_to_every_other)
{
	const size_t count = 20000;
	uint8_t *source = random_bytes(count * sizeof(double), 7);
	double value;

	for (unsigned i = 0; i < FLOAT_COUNT; i++) {
		for (unsigned j = 0; j < FLOAT_COUNT; j++) {
			if (i != j)
				check_all(floats[i], source, floats[j], count);
		}
	}
	/* Of random doubles nearly all are far outside of the other dtypes: bring them inside. */
	for (size_t i = 0; i < count; i++) {
		memcpy(&value, source + i * sizeof(value), sizeof(value));
		value = isfinite(value) ? ldexp(frexp(value, &(int){0}), (int)(i % 300) - 160) : 1;
		memcpy(source + i * sizeof(value), &value, sizeof(value));
	}
	for (unsigned j = 1; j < FLOAT_COUNT; j++)
		check_all(DTYPE_F64, source, floats[j], count);
	free(source);
}
END_TEST

START_TEST(all_kinds_give_the_same_bits_nan_included)
{
	const size_t count = 20000;
	uint8_t *source = random_bytes(count * sizeof(double), 99);
	uint8_t *one = malloc(count * sizeof(double)), *other = malloc(count * sizeof(double));

	ck_assert(one && other);
	for (unsigned i = 0; i < FLOAT_COUNT; i++) {
		for (unsigned j = 0; j < FLOAT_COUNT; j++) {
			convert_by_kind(CONVERT_PORTABLE, floats[i], source, floats[j], one, count);
			for (enum convert_kind kind = 0; kind < CONVERT_KIND_COUNT; kind++) {
				if (!convert_kind_supported(kind))
					continue;
				convert_by_kind(kind, floats[i], source, floats[j], other, count);
				ck_assert_mem_eq(one, other, count * dtype_bytes(floats[j]));
			}
		}
	}
	free(source);
	free(one);
	free(other);
}
END_TEST

START_TEST(memory_may_lie_at_any_byte_and_nothing_beside_is_touched)
{
	enum { COUNT_MAX = 515, MARGIN = 16, FILL = 0xa5 };
	static const size_t counts[] = {0, 1, 7, 255, 256, 257, 511, 512, COUNT_MAX};
	uint8_t *source = random_bytes((COUNT_MAX + 1) * sizeof(double), 3);
	uint8_t expected[COUNT_MAX * sizeof(double)], target[COUNT_MAX * sizeof(double) + 2 * MARGIN];

	for (unsigned pair = 0; pair < FLOAT_COUNT * FLOAT_COUNT; pair++) {
		enum dtype from = floats[pair / FLOAT_COUNT], to = floats[pair % FLOAT_COUNT];

		for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			size_t bytes = counts[i] * dtype_bytes(to), shift = 1 + (i + pair) % 7;

			for (size_t at = 0; at < counts[i]; at++)
				convert_elements(from, source + shift + at * dtype_bytes(from), to,
				                 expected + at * dtype_bytes(to), 1);
			memset(target, FILL, sizeof(target));
			convert_elements(from, source + shift, to, target + shift, counts[i]);
			ck_assert_mem_eq(target + shift, expected, bytes);
			for (size_t at = 0; at < sizeof(target); at++)
				ck_assert(target[at] == FILL || (at >= shift && at < shift + bytes));
		}
	}
	free(source);
}
END_TEST

START_TEST(counts_what_is_too_large)
{
	static const float VALUES[] = {65519.9f, 65520, -1e6f, INFINITY, -INFINITY, NAN, 464, 465, 1e38f, 3.4e38f};
	static const struct {
		enum dtype to;
		uint64_t overflows;
	} CASES[] = {
		{DTYPE_F64, 0}, {DTYPE_BF16, 1}, {DTYPE_F16, 4}, {DTYPE_F8_E5M2, 5},
		/* It has no infinity: the two that were infinite are clipped too. */
		{DTYPE_F8_E4M3, 8},
	};
	enum { COUNT = sizeof(VALUES) / sizeof(VALUES[0]), REPEATS = 100 };
	float source[COUNT * REPEATS];
	double target[COUNT * REPEATS];

	for (size_t i = 0; i < COUNT * REPEATS; i++)
		source[i] = VALUES[i % COUNT];
	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
		ck_assert_uint_eq(convert_elements(DTYPE_F32, VALUES, CASES[i].to, target, COUNT), CASES[i].overflows);
		ck_assert_uint_eq(convert_elements(DTYPE_F32, source, CASES[i].to, target, COUNT * REPEATS),
		                  REPEATS * CASES[i].overflows);
	}
	ck_assert_uint_eq(convert_elements(DTYPE_F32, source, DTYPE_F32, target, COUNT * REPEATS), 0);
}
END_TEST

START_TEST(without_infinity_the_largest_value_takes_its_place)
{
	static const double VALUES[] = {447, 448, 464, 465, 479, 480, 1e300, INFINITY, -INFINITY};
	enum { COUNT = sizeof(VALUES) / sizeof(VALUES[0]) };
	const double nan = copysign((double)NAN, -1);
	uint8_t target[COUNT];

	ck_assert_uint_eq(convert_elements(DTYPE_F64, VALUES, DTYPE_F8_E4M3, target, COUNT), 6);
	for (unsigned i = 0; i < COUNT; i++)
		ck_assert_uint_eq(target[i], i + 1 < COUNT ? 0x7e : 0xfe);
	ck_assert_uint_eq(convert_elements(DTYPE_F64, &nan, DTYPE_F8_E4M3, target, 1), 0);
	ck_assert_uint_eq(target[0], 0xff);
}
END_TEST

START_TEST(the_same_dtype_is_copied_integers_too)
{
	uint8_t *source = random_bytes(800, 5), target[800];

	for (enum dtype dtype = 0; dtype < DTYPE_COUNT; dtype++) {
		memset(target, 0, sizeof(target));
		ck_assert_uint_eq(convert_elements(dtype, source, dtype, target, 100), 0);
		ck_assert_mem_eq(target, source, 100 * dtype_bytes(dtype));
	}
	convert_elements(DTYPE_F32, NULL, DTYPE_F32, NULL, 0);
	convert_elements(DTYPE_F32, NULL, DTYPE_F16, NULL, 0);
	free(source);
}
END_TEST

#if defined(__x86_64__)
START_TEST(modes_of_the_thread_change_nothing_and_stay_as_they_are)
{
	/* Subnormal numbers taken and given as zero, as torch.set_flush_denormal does; and rounding upwards. */
	const unsigned mode = 0x1f80 | _MM_FLUSH_ZERO_ON | 0x0040 | _MM_ROUND_UP;
	const unsigned before = _mm_getcsr();
	static const double TINY[] = {0x1p-140, -0x1.8p-149, 0x1p-1060, 0x1p-24, 1.1};
	enum { COUNT = sizeof(TINY) / sizeof(TINY[0]) };
	double plain[COUNT], under[COUNT], back[COUNT], back_under[COUNT];

	for (enum convert_kind kind = 0; kind < CONVERT_KIND_COUNT; kind++) {
		for (unsigned i = 1; i < FLOAT_COUNT && convert_kind_supported(kind); i++) {
			convert_by_kind(kind, DTYPE_F64, TINY, floats[i], plain, COUNT);
			convert_by_kind(kind, floats[i], plain, DTYPE_F64, back, COUNT);
			_mm_setcsr(mode);
			convert_by_kind(kind, DTYPE_F64, TINY, floats[i], under, COUNT);
			convert_by_kind(kind, floats[i], plain, DTYPE_F64, back_under, COUNT);
			ck_assert_uint_eq(_mm_getcsr() & ~0x3fu, mode);
			_mm_setcsr(before);
			ck_assert_mem_eq(plain, under, COUNT * dtype_bytes(floats[i]));
			ck_assert_mem_eq(back, back_under, sizeof(back));
		}
	}
	convert_elements(DTYPE_F64, TINY, DTYPE_F32, plain, COUNT);
	ck_assert_double_eq(value_of(DTYPE_F32, (const uint8_t *)plain), 0x1p-140);
}
END_TEST
#endif

int main(void)
{
	Suite *suite = suite_create("convert");
	TCase *tests = tcase_create("convert");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, every_value_of_8_and_16_bits_is_right_in_every_other_dtype, 0, SMALL_COUNT);
	tcase_add_loop_test(tests, neighbours_and_ties_of_every_small_value_are_rounded_once, 0, SMALL_COUNT);
	tcase_add_test(tests, special_values_of_double_precision_are_right_in_every_dtype);
	tcase_add_test(tests, a_double_is_rounded_once_where_single_precision_would_hide_the_difference);
	tcase_add_test(tests, random_patterns_are_right_from_every_dtype_to_every_other);
	tcase_add_test(tests, all_kinds_give_the_same_bits_nan_included);
	tcase_add_test(tests, memory_may_lie_at_any_byte_and_nothing_beside_is_touched);
	tcase_add_test(tests, counts_what_is_too_large);
	tcase_add_test(tests, without_infinity_the_largest_value_takes_its_place);
	tcase_add_test(tests, the_same_dtype_is_copied_integers_too);
#if defined(__x86_64__)
	tcase_add_test(tests, modes_of_the_thread_change_nothing_and_stay_as_they_are);
#endif
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
