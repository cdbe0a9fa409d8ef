/*
 * Which averages are kept on disk: by tables, and by whole trainings.
 */
#include "daemon/core/retention.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 24 };

START_TEST(a_file_is_due_when_a_multiple_is_passed)
{
	static const struct {
		uint64_t step, step_previous, interval;
		bool due;
	} rows[] = {
		{ 1, 0, 0, false },
		{ 1, 0, 1, true },
		{ 15, 14, 16, false },
		{ 16, 15, 16, true },
		{ 17, 16, 16, false },
		{ 100, 15, 16, true },
		{ 31, 16, 16, false },
		{ 0, 0, 16, false },
		{ UINT64_MAX, UINT64_MAX - 1, UINT64_MAX, true },
		{ UINT64_MAX, 0, 1, true },
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		ck_assert_msg(retention_due(rows[i].step, rows[i].step_previous, rows[i].interval) == rows[i].due,
		              "row %zu", i);
}
END_TEST

START_TEST(a_name_says_its_step_and_sorts_by_it)
{
	static const uint64_t steps[] = { 0, 1, 16, 99999, UINT64_C(10000000000000000000), UINT64_MAX };
	char before[RETENTION_NAME_BYTES] = "";

	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		char name[RETENTION_NAME_BYTES];
		uint64_t step = 7;

		retention_name_write(steps[i], name);
		ck_assert_uint_eq(strlen(name), RETENTION_NAME_BYTES - 1);
		ck_assert(retention_name_parse(name, &step));
		ck_assert_uint_eq(step, steps[i]);
		ck_assert_int_lt(strcmp(before, name), 0);
		strcpy(before, name);
	}
	retention_name_write(16, before);
	ck_assert_str_eq(before, "00000000000000000016.safetensors");
}
END_TEST

START_TEST(other_names_are_not_files_of_ours)
{
	static const char *const names[] = {
		"",
		".",
		"..",
		"16.safetensors",
		"0000000000000000016.safetensors",
		"000000000000000000016.safetensors",
		"00000000000000000016",
		"00000000000000000016.safetensor",
		"00000000000000000016.safetensorsx",
		"+0000000000000000016.safetensors",
		"0000000000000000001x.safetensors",
		".00000000000000000016.safetensors.tmp",
		"18446744073709551616.safetensors",
		"99999999999999999999.safetensors",
	};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		uint64_t step = 7;

		ck_assert_msg(!retention_name_parse(names[i], &step), "%s", names[i]);
		ck_assert_uint_eq(step, 7);
	}
}
END_TEST

/* Rows end with a step that is less than the one before. */
START_TEST(what_is_too_much_goes_evenly)
{
	static const struct {
		uint64_t interval, keep;
		uint64_t steps[STEPS_MAX], left[STEPS_MAX];
	} rows[] = {
		{ 10, 0, { 10, 20, 30 }, { 10, 20, 30 } },
		{ 10, 3, { 10, 20, 30 }, { 10, 20, 30 } },
		{ 10, 3, { 10, 20, 30, 40 }, { 10, 20, 40 } },
		{ 10, 2, { 10, 20, 30 }, { 10, 30 } },
		{ 10, 1, { 10, 20, 30 }, { 30 } },
		{ 10, 4, { 10, 20, 30, 40, 50 }, { 10, 20, 40, 50 } },
		{ 10, 4, { 10, 20, 40, 60, 80, 90 }, { 10, 40, 80, 90 } },
		{ 16, 8, { 16, 32, 48, 64, 80, 96, 112, 128, 144 }, { 16, 32, 64, 96, 128, 144 } },
		/* After gaps the steps are no multiples: the multiple that they have passed counts. */
		{ 10, 3, { 11, 25, 33, 47 }, { 11, 25, 47 } },
		/* A larger interval than when they were written: several have passed the same one. */
		{ 100, 3, { 10, 20, 30, 40, 50 }, { 10, 40, 50 } },
		{ 0, 2, { 1, 2, 3 }, { 1, 3 } },
		{ 1, 2, { 1, UINT64_C(1) << 62, UINT64_MAX }, { 1, UINT64_MAX } },
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		size_t count = 0, left_count = 0, left = 0, gone;
		bool goes[STEPS_MAX];

		while (rows[i].steps[count] > 0)
			count++;
		while (rows[i].left[left_count] > 0)
			left_count++;
		gone = retention_thin(rows[i].steps, count, rows[i].interval, rows[i].keep, goes);
		ck_assert_uint_eq(gone, count - left_count);
		for (size_t s = 0; s < count; s++) {
			if (goes[s])
				continue;
			ck_assert_msg(rows[i].steps[s] == rows[i].left[left], "row %zu: step %lu stays", i,
			              (unsigned long)rows[i].steps[s]);
			left++;
		}
		ck_assert_uint_eq(left, left_count);
	}
}
END_TEST

START_TEST(there_may_be_no_file_at_all)
{
	bool goes;

	ck_assert_uint_eq(retention_thin(NULL, 0, 16, 8, &goes), 0);
}
END_TEST

/* Whole trainings: never more than keep, the ends stay, and no gap is much larger than the ideal one. */
START_TEST(whatever_is_kept_spans_the_training)
{
	enum { LAST = 3000 };

	for (uint64_t keep = 2; keep <= 33; keep++) {
		uint64_t steps[40];
		size_t count = 0;

		for (uint64_t step = 16; step <= LAST; step += 16) {
			size_t left = 0;
			bool goes[40];

			steps[count++] = step;
			(void)retention_thin(steps, count, 16, keep, goes);
			for (size_t i = 0; i < count; i++)
				if (!goes[i])
					steps[left++] = steps[i];
			count = left;
			ck_assert_uint_le(count, keep);
			ck_assert_uint_eq(steps[0], 16);
			ck_assert_uint_eq(steps[count - 1], step);
			for (size_t i = 1; keep > 3 && i < count; i++) {
				uint64_t gap = steps[i] - steps[i - 1];

				ck_assert_msg(gap == 16 || gap * (keep - 3) <= 4 * step, "keep %lu, step %lu: a gap of %lu",
				              (unsigned long)keep, (unsigned long)step, (unsigned long)gap);
			}
		}
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("retention");
	TCase *tcase = tcase_create("retention");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, a_file_is_due_when_a_multiple_is_passed);
	tcase_add_test(tcase, a_name_says_its_step_and_sorts_by_it);
	tcase_add_test(tcase, other_names_are_not_files_of_ours);
	tcase_add_test(tcase, what_is_too_much_goes_evenly);
	tcase_add_test(tcase, there_may_be_no_file_at_all);
	tcase_add_test(tcase, whatever_is_kept_spans_the_training);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
