/* When something is due, by the rules and against walking step by step. */
#include "client/emactl/cadence.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

START_TEST(the_newest_is_due_at_the_start_when_it_is_a_multiple)
{
	struct cadence cadence;

	cadence_begin(&cadence, 1000, UINT64_MAX, 3000);
	ck_assert_uint_eq(cadence.due, 3000);
	cadence_begin(&cadence, 1000, UINT64_MAX, 3001);
	ck_assert_uint_eq(cadence.due, 4000);
	cadence_begin(&cadence, 1000, UINT64_MAX, 0);
	ck_assert_uint_eq(cadence.due, 0);
}
END_TEST

START_TEST(what_was_passed_while_busy_is_not_made_up_for)
{
	struct cadence cadence;

	cadence_begin(&cadence, 1000, UINT64_MAX, 3000);
	ck_assert(cadence_take(&cadence, 3000));
	ck_assert_uint_eq(cadence.due, 4000);
	ck_assert(cadence_take(&cadence, 7123));
	ck_assert_uint_eq(cadence.due, 8000);
}
END_TEST

START_TEST(the_end_is_due_whether_it_is_a_multiple_or_not)
{
	struct cadence cadence;

	cadence_begin(&cadence, 1000, 2500, 2000);
	ck_assert(cadence_take(&cadence, 2000));
	ck_assert_uint_eq(cadence.due, 2500);
	ck_assert(!cadence_take(&cadence, 2500));
	cadence_begin(&cadence, 1000, 2500, 9000);
	ck_assert_uint_eq(cadence.due, 2500);
	ck_assert(!cadence_take(&cadence, 9000));
}
END_TEST

START_TEST(steps_are_due_again_when_training_went_back)
{
	struct cadence cadence;

	cadence_begin(&cadence, 1000, UINT64_MAX, 5000);
	cadence_take(&cadence, 5000);
	ck_assert(!cadence_see(&cadence, 5600));
	ck_assert_uint_eq(cadence.due, 6000);
	ck_assert(cadence_see(&cadence, 3100));
	ck_assert_uint_eq(cadence.due, 4000);
}
END_TEST

START_TEST(the_last_number_does_not_overflow)
{
	struct cadence cadence;

	cadence_begin(&cadence, INT64_MAX, UINT64_MAX, UINT64_MAX - 1);
	ck_assert_uint_eq(cadence.due, UINT64_MAX - 1);
	cadence_take(&cadence, UINT64_MAX - 1);
	ck_assert_uint_eq(cadence.due, UINT64_MAX);
}
END_TEST

START_TEST(random_walks_take_each_multiple_once_at_most)
{
	const unsigned seed = (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 1000; round++) {
		const uint64_t every = 1 + (uint64_t)rand() % 50;
		uint64_t step = (uint64_t)rand() % 100, last = UINT64_MAX;
		struct cadence cadence;

		cadence_begin(&cadence, every, UINT64_MAX, step);
		for (int i = 0; i < 100; i++, step += (uint64_t)rand() % 30) {
			if (step < cadence.due)
				continue;
			ck_assert(last == UINT64_MAX || step / every > last / every);
			cadence_take(&cadence, step);
			ck_assert_uint_gt(cadence.due, step);
			ck_assert_uint_le(cadence.due - step, every);
			last = step;
		}
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cadence");
	TCase *tests = tcase_create("rules");
	SRunner *runner;
	int failures;

	tcase_add_test(tests, the_newest_is_due_at_the_start_when_it_is_a_multiple);
	tcase_add_test(tests, what_was_passed_while_busy_is_not_made_up_for);
	tcase_add_test(tests, the_end_is_due_whether_it_is_a_multiple_or_not);
	tcase_add_test(tests, steps_are_due_again_when_training_went_back);
	tcase_add_test(tests, the_last_number_does_not_overflow);
	tcase_add_test(tests, random_walks_take_each_multiple_once_at_most);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
