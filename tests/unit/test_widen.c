/*
 * Conversions to double and back: every 16-bit value survives, and rounding happens once, to the nearest, ties to even.
 */
#include "client/widen.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint16_t narrowed(enum dtype dtype, double value)
{
	uint16_t bits;

	narrow(dtype, &value, (uint8_t *)&bits, 1);
	return bits;
}

static double widened(enum dtype dtype, uint16_t bits)
{
	double value;

	widen(dtype, (const uint8_t *)&bits, &value, 1);
	return value;
}

START_TEST(every_16_bit_value_survives)
{
	const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};

	for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
		const double value = widened(dtypes[_i], (uint16_t)bits);

		if (isnan(value))
			ck_assert(isnan(widened(dtypes[_i], narrowed(dtypes[_i], value))));
		else
			ck_assert_uint_eq(narrowed(dtypes[_i], value), bits);
	}
}
END_TEST

/* Between two neighbours: the middle goes to the even one, a trifle beside the middle to the nearer one. */
START_TEST(rounds_once_and_ties_to_even)
{
	const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16};
	const uint16_t largest = dtypes[_i] == DTYPE_F16 ? 0x7bff : 0x7f7f;

	for (uint16_t bits = 0; bits < largest; bits++) {
		const double low = widened(dtypes[_i], bits), high = widened(dtypes[_i], (uint16_t)(bits + 1));
		const double middle = low / 2 + high / 2;

		ck_assert_uint_eq(narrowed(dtypes[_i], middle), bits + (bits & 1));
		ck_assert_uint_eq(narrowed(dtypes[_i], nextafter(middle, 0)), bits);
		ck_assert_uint_eq(narrowed(dtypes[_i], nextafter(middle, INFINITY)), bits + 1);
		ck_assert_uint_eq(narrowed(dtypes[_i], -nextafter(middle, 0)), bits | 0x8000);
	}
	ck_assert(isinf(widened(dtypes[_i], narrowed(dtypes[_i], 1e300))));
	ck_assert(isinf(widened(dtypes[_i], narrowed(dtypes[_i], -INFINITY))));
}
END_TEST

START_TEST(float_and_double_are_those_of_the_machine)
{
	const double values[] = {0, -0.0, 1.1, 1e-45, 3.5e38, (double)INFINITY, -2.5};
	double back[7];
	uint8_t bytes[1 + sizeof(values)];

	narrow(DTYPE_F64, values, bytes + 1, 7);
	widen(DTYPE_F64, bytes + 1, back, 7);
	ck_assert_mem_eq(back, values, sizeof(values));
	narrow(DTYPE_F32, values, bytes + 1, 7);
	widen(DTYPE_F32, bytes + 1, back, 7);
	for (int i = 0; i < 7; i++) {
		const double wanted = (double)(float)values[i];

		ck_assert_mem_eq(&back[i], &wanted, sizeof(double));
	}
}
END_TEST

START_TEST(knows_the_dtypes_of_weights)
{
	unsigned known = 0;

	for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
		known += widen_knows((enum dtype)dtype);
		ck_assert(!widen_knows((enum dtype)dtype) || dtype_is_float((enum dtype)dtype));
	}
	ck_assert_uint_eq(known, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("widen");
	TCase *tcase = tcase_create("widen");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, every_16_bit_value_survives, 0, 2);
	tcase_add_loop_test(tcase, rounds_once_and_ties_to_even, 0, 2);
	tcase_add_test(tcase, float_and_double_are_those_of_the_machine);
	tcase_add_test(tcase, knows_the_dtypes_of_weights);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
