/*
 * Chunks of a snapshot: which are allowed, and when all are there.
 */
#include "daemon/core/inflow.h"

#include <check.h>
#include <stdlib.h>

#include "proto/limits.h"

enum { CHUNK = CHUNK_BYTES_MAX };

START_TEST(a_chunk_begins_at_each_mebibyte_and_has_one_size)
{
	struct reason reason;
	uint64_t bytes = 0;

	ck_assert_int_eq(inflow_check(3 * CHUNK, 0, &bytes, &reason), 0);
	ck_assert_uint_eq(bytes, CHUNK);
	ck_assert_int_eq(inflow_check(3 * CHUNK, 2 * CHUNK, &bytes, &reason), 0);
	ck_assert_uint_eq(bytes, CHUNK);
	ck_assert_int_eq(inflow_check(2 * CHUNK + 5, 2 * CHUNK, &bytes, &reason), 0);
	ck_assert_uint_eq(bytes, 5);
	ck_assert_int_eq(inflow_check(1, 0, &bytes, &reason), 0);
	ck_assert_uint_eq(bytes, 1);

	ck_assert_int_eq(inflow_check(3 * CHUNK, 3 * CHUNK, &bytes, &reason), STATUS_EARGUMENT);
	ck_assert_int_eq(inflow_check(3 * CHUNK, UINT64_MAX - CHUNK + 1, &bytes, &reason), STATUS_EARGUMENT);
	ck_assert_int_eq(inflow_check(3 * CHUNK, 1, &bytes, &reason), STATUS_EARGUMENT);
	ck_assert_int_eq(inflow_check(0, 0, &bytes, &reason), STATUS_EARGUMENT);
	ck_assert_uint_eq(bytes, 1);
}
END_TEST

START_TEST(a_snapshot_is_whole_when_every_chunk_has_come_in_whatever_order)
{
	struct inflow inflow = { .sequence = 0 };
	const uint64_t bytes = 19 * CHUNK + 1;

	for (uint64_t last = 0; last < 20; last++) {
		ck_assert_int_eq(inflow_begin(&inflow, last + 1, bytes), 0);
		for (uint64_t i = 20; i-- > 0;) {
			if (i == last)
				continue;
			inflow_take(&inflow, i * CHUNK);
			inflow_take(&inflow, i * CHUNK);
			ck_assert(!inflow_whole(&inflow, last + 1, bytes));
		}
		ck_assert_uint_eq(inflow_missing(&inflow), last * CHUNK);
		inflow_take(&inflow, last * CHUNK);
		ck_assert_uint_eq(inflow_missing(&inflow), bytes);
		ck_assert(inflow_whole(&inflow, last + 1, bytes));
		ck_assert(!inflow_whole(&inflow, last + 2, bytes));
	}
	inflow_finish(&inflow);
}
END_TEST

START_TEST(another_snapshot_has_nothing_of_the_one_before)
{
	struct inflow inflow = { .sequence = 0 };

	ck_assert_int_eq(inflow_begin(&inflow, 7, 2 * CHUNK), 0);
	inflow_take(&inflow, 0);
	ck_assert_int_eq(inflow_begin(&inflow, 9, 3 * CHUNK), 0);
	ck_assert_uint_eq(inflow_missing(&inflow), 0);
	ck_assert_uint_eq(inflow.chunk_count, 3);
	inflow_finish(&inflow);
	ck_assert(!inflow_whole(&inflow, 9, 3 * CHUNK));
}
END_TEST

START_TEST(of_an_empty_snapshot_nothing_need_come)
{
	const struct inflow inflow = { .sequence = 0 };

	ck_assert(inflow_whole(&inflow, 1, 0));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("inflow");
	TCase *tests = tcase_create("inflow");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tests, a_chunk_begins_at_each_mebibyte_and_has_one_size);
	tcase_add_test(tests, a_snapshot_is_whole_when_every_chunk_has_come_in_whatever_order);
	tcase_add_test(tests, another_snapshot_has_nothing_of_the_one_before);
	tcase_add_test(tests, of_an_empty_snapshot_nothing_need_come);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
