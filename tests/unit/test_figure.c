/* Numbers as people and machines read them. */
#include "client/emactl/figure.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

START_TEST(bytes_are_shown_in_binary_units_with_three_digits)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} CASES[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.00 KiB"},
		{10 * 1024 - 1, "10.0 KiB"},
		{12 << 20, "12.0 MiB"},
		{(1 << 20) - 1, "1.00 MiB"},
		{UINT64_C(5) << 38, "1.25 TiB"},
		{UINT64_MAX, "16.0 EiB"},
	};

	for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++)
		ck_assert_str_eq(figure_bytes(CASES[i].bytes).text, CASES[i].text);
}
END_TEST

START_TEST(small_counts_are_shown_in_full)
{
	ck_assert_str_eq(figure_count(99999).text, "99999");
	ck_assert_str_eq(figure_count(100000).text, "100 k");
	ck_assert_str_eq(figure_count(25557032).text, "25.6 M");
	ck_assert_str_eq(figure_count(999999999).text, "1.00 G");
}
END_TEST

START_TEST(durations_take_the_unit_that_fits)
{
	static const struct {
		uint64_t us;
		const char *text;
	} CASES[] = {
		{0, "0 us"},
		{999, "999 us"},
		{3140, "3.1 ms"},
		{999499, "999 ms"},
		{999600, "1.0 s"},
		{3200000, "3.2 s"},
		{252000000, "4 min 12 s"},
		{240000000, "4 min"},
		{UINT64_C(11100000000), "3 h 5 min"},
		{UINT64_C(1051200000000), "12 d 4 h"},
	};

	for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++)
		ck_assert_str_eq(figure_duration_us(CASES[i].us).text, CASES[i].text);
	ck_assert_uint_lt(strlen(figure_age_us(UINT64_MAX, 1).text), sizeof(struct figure) - 1);
}
END_TEST

START_TEST(an_age_is_never_negative)
{
	ck_assert_str_eq(figure_age_us(5000000, 1800000).text, "3.2 s ago");
	ck_assert_str_eq(figure_age_us(5, 0).text, "never");
	ck_assert_str_eq(figure_age_us(5, 6).text, "now");
}
END_TEST

START_TEST(json_reals_have_the_fewest_digits_and_stay_reals)
{
	static const struct {
		double value;
		const char *text;
	} CASES[] = {
		{0, "0.0"},
		{1, "1.0"},
		{0.9999, "0.9999"},
		{0.1, "0.1"},
		{0.1 + 0.2, "0.30000000000000004"},
		{1e300, "1e+300"},
		{5e-324, "5e-324"},
		{-0.5, "-0.5"},
	};

	for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++)
		ck_assert_str_eq(figure_json_real(CASES[i].value).text, CASES[i].text);
	ck_assert_str_eq(figure_json_real((double)INFINITY).text, "null");
	ck_assert_str_eq(figure_json_real((double)NAN).text, "null");
}
END_TEST

START_TEST(json_reals_read_back_as_the_same_double)
{
	uint64_t state = 88172645463325252u, bits;
	double value;

	for (int i = 0; i < 200000; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bits = state;
		memcpy(&value, &bits, sizeof(value));
		if (isfinite(value))
			ck_assert(strtod(figure_json_real(value).text, NULL) == value);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("figure");
	TCase *tcase = tcase_create("figure");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, bytes_are_shown_in_binary_units_with_three_digits);
	tcase_add_test(tcase, small_counts_are_shown_in_full);
	tcase_add_test(tcase, durations_take_the_unit_that_fits);
	tcase_add_test(tcase, an_age_is_never_negative);
	tcase_add_test(tcase, json_reals_have_the_fewest_digits_and_stay_reals);
	tcase_add_test(tcase, json_reals_read_back_as_the_same_double);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
