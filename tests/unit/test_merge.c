/*
 * Checkpoint merging: the weights against the paper's recursion, and what they add up to.
 */
#include "proto/merge.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKPOINTS_MAX = 40 };

static double decayed(enum merge_shape shape, double x)
{
	return shape == MERGE_MINUS_SQRT ? 1 - sqrt(x) : 1 - x;
}

/* d[i] = f(i/n); c[n-1] = d[n-1]; c[i] = d[i] - d[i+1]; c[0] = 1 - the others. */
static void recursion(enum merge_shape shape, uint32_t count, double *ret_coefficients)
{
	double sum = 0;

	for (uint32_t i = count - 1; i > 0; i--) {
		ret_coefficients[i] = decayed(shape, (double)i / count);
		if (i < count - 1)
			ret_coefficients[i] -= decayed(shape, (double)(i + 1) / count);
		sum += ret_coefficients[i];
	}
	ret_coefficients[0] = 1 - sum;
}

START_TEST(follows_the_papers_recursion)
{
	double coefficients[CHECKPOINTS_MAX], wanted[CHECKPOINTS_MAX];

	for (uint32_t count = 1; count <= CHECKPOINTS_MAX; count++) {
		merge_coefficients((enum merge_shape)_i, count, coefficients);
		recursion((enum merge_shape)_i, count, wanted);
		for (uint32_t i = 0; i < count; i++)
			ck_assert_double_eq_tol(coefficients[i], wanted[i], 1e-15);
	}
}
END_TEST

START_TEST(adds_up_to_1)
{
	static double coefficients[100000];
	double sum = 0;

	merge_coefficients((enum merge_shape)_i, 100000, coefficients);
	for (uint32_t i = 0; i < 100000; i++)
		sum += coefficients[i];
	ck_assert_double_eq_tol(sum, 1, 1e-11);
}
END_TEST

START_TEST(minus_sqrt_weighs_older_checkpoints_more)
{
	double coefficients[4];

	merge_coefficients(MERGE_MINUS_SQRT, 4, coefficients);
	ck_assert_double_eq_tol(coefficients[0], .5, 1e-15);
	for (int i = 1; i < 4; i++)
		ck_assert_double_lt(coefficients[i], coefficients[i - 1]);
}
END_TEST

START_TEST(names_and_shapes_are_inverse)
{
	enum merge_shape shape = MERGE_SHAPE_COUNT;

	ck_assert(merge_shape_parse(merge_shape_name((enum merge_shape)_i), &shape));
	ck_assert_int_eq(shape, _i);
	ck_assert(!merge_shape_parse("cubic", &shape));
	ck_assert(!merge_shape_parse("", &shape));
	ck_assert_int_eq(shape, _i);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("merge");
	TCase *tcase = tcase_create("merge");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, follows_the_papers_recursion, 0, MERGE_SHAPE_COUNT);
	tcase_add_loop_test(tcase, adds_up_to_1, 0, MERGE_SHAPE_COUNT);
	tcase_add_test(tcase, minus_sqrt_weighs_older_checkpoints_more);
	tcase_add_loop_test(tcase, names_and_shapes_are_inverse, 0, MERGE_SHAPE_COUNT);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
