/* Counting NaN and infinity, against the C library's own idea of them where it has one. */
#include "client/emactl/scan.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

START_TEST(every_16_bit_pattern_is_counted_as_its_format_means_it)
{
	static const struct {
		enum dtype dtype;
		unsigned exponent_mask, fraction_mask;
	} FORMATS[] = {{DTYPE_F16, 0x7c00, 0x03ff}, {DTYPE_BF16, 0x7f80, 0x007f}};

	for (size_t format = 0; format < 2; format++) {
		for (unsigned bits = 0; bits < 0x10000; bits++) {
			const bool is_special = (bits & FORMATS[format].exponent_mask) == FORMATS[format].exponent_mask;
			const bool is_nan = is_special && (bits & FORMATS[format].fraction_mask);
			const uint8_t bytes[2] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
			struct scan scan = {0};

			scan_add(&scan, FORMATS[format].dtype, bytes, sizeof(bytes));
			ck_assert_uint_eq(scan.nan_count, is_nan);
			ck_assert_uint_eq(scan.infinite_count, is_special && !is_nan);
		}
	}
}
END_TEST

START_TEST(e4m3_has_two_nans_and_no_infinity_and_e5m2_has_both)
{
	uint8_t bytes[256];
	struct scan e4m3 = {0}, e5m2 = {0};

	for (unsigned i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	scan_add(&e4m3, DTYPE_F8_E4M3, bytes, sizeof(bytes));
	scan_add(&e5m2, DTYPE_F8_E5M2, bytes, sizeof(bytes));
	ck_assert_uint_eq(e4m3.nan_count, 2);
	ck_assert_uint_eq(e4m3.infinite_count, 0);
	ck_assert_uint_eq(e5m2.nan_count, 6);
	ck_assert_uint_eq(e5m2.infinite_count, 2);
}
END_TEST

START_TEST(singles_and_doubles_agree_with_the_c_library_at_any_alignment)
{
	static const float FLOATS[] = {0, -0.0f, 1, INFINITY, -INFINITY, NAN, -NAN, 3.4e38f, 1e-45f, 7};
	uint8_t bytes[10 * sizeof(double) + 1];
	struct scan singles = {0}, doubles = {0};
	double wide;

	memcpy(bytes + 1, FLOATS, sizeof(FLOATS));
	scan_add(&singles, DTYPE_F32, bytes + 1, sizeof(FLOATS));
	for (size_t i = 0; i < 10; i++) {
		wide = (double)FLOATS[i];
		memcpy(bytes + 1 + i * sizeof(wide), &wide, sizeof(wide));
	}
	scan_add(&doubles, DTYPE_F64, bytes + 1, 10 * sizeof(double));
	ck_assert_uint_eq(singles.nan_count, 2);
	ck_assert_uint_eq(singles.infinite_count, 2);
	ck_assert_uint_eq(doubles.nan_count, 2);
	ck_assert_uint_eq(doubles.infinite_count, 2);
}
END_TEST

START_TEST(integers_are_never_damaged)
{
	uint8_t bytes[64];
	struct scan scan = {0};

	memset(bytes, 0xff, sizeof(bytes));
	for (int dtype = DTYPE_I64; dtype < DTYPE_COUNT; dtype++)
		scan_add(&scan, (enum dtype)dtype, bytes, sizeof(bytes));
	ck_assert_uint_eq(scan.nan_count + scan.infinite_count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("scan");
	TCase *tcase = tcase_create("scan");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, every_16_bit_pattern_is_counted_as_its_format_means_it);
	tcase_add_test(tcase, e4m3_has_two_nans_and_no_infinity_and_e5m2_has_both);
	tcase_add_test(tcase, singles_and_doubles_agree_with_the_c_library_at_any_alignment);
	tcase_add_test(tcase, integers_are_never_damaged);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
