/* Sums over elements, against plain loops over doubles. */
#include "client/emactl/numbers.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct difference differ(const double *a, const double *b, size_t count)
{
	struct difference difference = {0};

	difference_add(&difference, DTYPE_F64, (const uint8_t *)a, DTYPE_F64, (const uint8_t *)b, count);
	return difference;
}

START_TEST(two_vectors_are_as_far_apart_as_geometry_says)
{
	const double a[] = {3, 0, 4}, b[] = {3, 2, 4};
	const struct difference difference = differ(a, b, 3);

	ck_assert_uint_eq(difference.differing_count, 1);
	ck_assert_double_eq(difference_distance(&difference), 2);
	ck_assert_double_eq(difference_relative(&difference), 2. / 5);
	ck_assert_double_eq(difference.absolute_max, 2);
	ck_assert_double_eq_tol(difference_cosine(&difference), 25 / (5 * sqrt(29)), 1e-15);
}
END_TEST

START_TEST(equal_is_equal_also_where_nothing_is_finite)
{
	const double a[] = {NAN, INFINITY, -INFINITY, -0.0, 1}, b[] = {-NAN, INFINITY, -INFINITY, 0.0, 1};
	const struct difference difference = differ(a, b, 5);

	ck_assert_uint_eq(difference.differing_count, 0);
	ck_assert_double_eq(difference_relative(&difference), 0);
	ck_assert_double_eq(difference_cosine(&difference), 1);
}
END_TEST

START_TEST(one_nan_makes_the_distance_infinite_and_spoils_no_sum)
{
	const double a[] = {1, NAN, INFINITY, 2}, b[] = {1, 1, -INFINITY, 3};
	const struct difference difference = differ(a, b, 4);

	ck_assert_uint_eq(difference.differing_count, 3);
	ck_assert_uint_eq(difference.nonfinite_count, 2);
	ck_assert_double_eq(difference_distance(&difference), 1);
	ck_assert(isinf(difference_relative(&difference)));
}
END_TEST

START_TEST(zero_has_no_direction)
{
	const double zero[] = {0, 0}, one[] = {0, 1};
	struct difference difference = differ(zero, zero, 2);

	ck_assert_double_eq(difference_relative(&difference), 0);
	ck_assert_double_eq(difference_cosine(&difference), 1);
	difference = differ(zero, one, 2);
	ck_assert(isinf(difference_relative(&difference)));
	ck_assert(isnan(difference_cosine(&difference)));
}
END_TEST

START_TEST(large_integers_are_told_apart)
{
	const int64_t a[] = {INT64_MAX, INT64_MIN, 5}, b[] = {INT64_MAX - 1, INT64_MAX, 5};
	struct difference difference = {0};

	difference_add(&difference, DTYPE_I64, (const uint8_t *)a, DTYPE_I64, (const uint8_t *)b, 2);
	ck_assert_uint_eq(difference.differing_count, 2);
	ck_assert_double_eq(difference.absolute_max, 18446744073709551615.);
	difference = (struct difference){0};
	difference_add(&difference, DTYPE_I64, (const uint8_t *)a, DTYPE_I64, (const uint8_t *)b, 1);
	ck_assert_double_eq(difference_distance(&difference), 1);
}
END_TEST

START_TEST(dtypes_are_compared_by_value)
{
	const float a[] = {1.5f, -2, 0.1f};
	const uint16_t bf16[] = {0x3fc0, 0xc000, 0x3dcd};
	const int8_t integers[] = {1, -2, 0};
	struct difference difference = {0};

	difference_add(&difference, DTYPE_F32, (const uint8_t *)a, DTYPE_BF16, (const uint8_t *)bf16, 3);
	ck_assert_uint_eq(difference.differing_count, 1);
	difference = (struct difference){0};
	difference_add(&difference, DTYPE_F32, (const uint8_t *)a, DTYPE_I8, (const uint8_t *)integers, 3);
	ck_assert_uint_eq(difference.differing_count, 2);
	ck_assert_double_eq(difference.absolute_max, 0.5);
}
END_TEST

START_TEST(parts_make_the_same_sums_as_the_whole)
{
	const unsigned seed = (unsigned)time(NULL);
	double *a = malloc(3000 * sizeof(*a)), *b = malloc(3000 * sizeof(*b));
	struct difference whole, parts = {0};

	printf("seed %u\n", seed);
	srand48(seed);
	for (int i = 0; i < 3000; i++) {
		a[i] = drand48() - 0.5;
		b[i] = i % 3 ? a[i] : drand48() - 0.5;
	}
	whole = differ(a, b, 3000);
	for (size_t done = 0; done < 3000; done += 600) {
		const struct difference part = differ(a + done, b + done, 600);

		difference_merge(&parts, &part);
	}
	ck_assert_uint_eq(parts.element_count, 3000);
	ck_assert_uint_eq(parts.differing_count, whole.differing_count);
	ck_assert_double_eq_tol(difference_distance(&parts), difference_distance(&whole), 1e-12);
	ck_assert_double_eq_tol(difference_cosine(&parts), difference_cosine(&whole), 1e-12);
	free(a);
	free(b);
}
END_TEST

START_TEST(a_summary_over_parts_is_that_of_all_values)
{
	double values[1000], mean = 0, squares = 0;
	struct summary summary = {0};

	for (int i = 0; i < 1000; i++) {
		/* Far from zero: a sum of squares would lose the deviation. */
		values[i] = 1e8 + sin(i);
		mean += values[i] / 1000;
	}
	for (int i = 0; i < 1000; i++)
		squares += (values[i] - mean) * (values[i] - mean);
	for (size_t done = 0; done < 1000; done += 250)
		summary_add(&summary, DTYPE_F64, (const uint8_t *)(values + done), 250);
	ck_assert_uint_eq(summary.finite_count, 1000);
	ck_assert_double_eq_tol(summary.mean, mean, 1e-6);
	ck_assert_double_eq_tol(summary_deviation(&summary), sqrt(squares / 1000), 1e-7);
	ck_assert(summary.minimum >= 1e8 - 1 && summary.maximum <= 1e8 + 1);
}
END_TEST

START_TEST(a_summary_counts_what_is_not_finite_and_leaves_it_out)
{
	const float values[] = {NAN, 1, INFINITY, 3, -INFINITY, 0, -NAN};
	struct summary summary = {0};

	summary_add(&summary, DTYPE_F32, (const uint8_t *)values, 7);
	ck_assert_uint_eq(summary.nan_count, 2);
	ck_assert_uint_eq(summary.infinite_count, 2);
	ck_assert_uint_eq(summary.zero_count, 1);
	ck_assert_uint_eq(summary.finite_count, 3);
	ck_assert_double_eq_tol(summary.mean, 4. / 3, 1e-15);
	ck_assert(summary.minimum <= 0 && summary.minimum >= 0 && summary.maximum >= 3 && summary.maximum <= 3);
}
END_TEST

START_TEST(the_largest_values_have_a_finite_mean)
{
	const double values[] = {DBL_MAX / 2, DBL_MAX / 2, DBL_MAX / 2, DBL_MAX / 2};
	struct summary summary = {0};

	summary_add(&summary, DTYPE_F64, (const uint8_t *)values, 4);
	ck_assert_double_eq_tol(summary.mean / DBL_MAX, 0.5, 1e-12);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("numbers");
	TCase *tests = tcase_create("sums");
	SRunner *runner;
	int failures;

	tcase_add_test(tests, two_vectors_are_as_far_apart_as_geometry_says);
	tcase_add_test(tests, equal_is_equal_also_where_nothing_is_finite);
	tcase_add_test(tests, one_nan_makes_the_distance_infinite_and_spoils_no_sum);
	tcase_add_test(tests, zero_has_no_direction);
	tcase_add_test(tests, large_integers_are_told_apart);
	tcase_add_test(tests, dtypes_are_compared_by_value);
	tcase_add_test(tests, parts_make_the_same_sums_as_the_whole);
	tcase_add_test(tests, a_summary_over_parts_is_that_of_all_values);
	tcase_add_test(tests, a_summary_counts_what_is_not_finite_and_leaves_it_out);
	tcase_add_test(tests, the_largest_values_have_a_finite_mean);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
