/*
 * Edit distances, and what was probably meant.
 */
#include "proto/nearest.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *a, *b;
	unsigned distance;
} pairs[] = {
	{ "", "", 0 },          { "", "abc", 3 },     { "slots", "slots", 0 },       { "slot", "slots", 1 },
	{ "solts", "slots", 2 }, { "slots", "clots", 1 }, { "kitten", "sitting", 3 }, { "abc", "xyz", 3 },
	{ "flaw", "lawn", 2 },  { "memory", "memroy-max", 6 },
};

START_TEST(counts_changed_added_and_dropped_letters)
{
	ck_assert_uint_eq(edit_distance(pairs[_i].a, pairs[_i].b), pairs[_i].distance);
	ck_assert_uint_eq(edit_distance(pairs[_i].b, pairs[_i].a), pairs[_i].distance);
}
END_TEST

START_TEST(looks_at_the_first_letters_only)
{
	char a[3 * NEAREST_BYTES_MAX], b[3 * NEAREST_BYTES_MAX];

	memset(a, 'a', sizeof a);
	memset(b, 'a', sizeof b);
	a[sizeof a - 1] = b[sizeof b - 1] = '\0';
	b[NEAREST_BYTES_MAX] = 'b';
	ck_assert_uint_eq(edit_distance(a, b), 0);
	b[NEAREST_BYTES_MAX - 1] = 'b';
	ck_assert_uint_eq(edit_distance(a, b), 1);
	ck_assert_uint_eq(edit_distance("", b), NEAREST_BYTES_MAX);
}
END_TEST

START_TEST(finds_what_was_meant)
{
	static const char *const names[] = { "slots", "stages", "memory-max", "models-max", NULL };
	static const char *const none[] = { NULL };
	char longest[1000];

	ck_assert_str_eq(nearest_name("slot", names), "slots");
	ck_assert_str_eq(nearest_name("stagse", names), "stages");
	ck_assert_str_eq(nearest_name("model", names), "models-max"); /* it begins so */
	ck_assert_str_eq(nearest_name("memory-mx", names), "memory-max");
	ck_assert_str_eq(nearest_name("", names), "slots");
	ck_assert_ptr_null(nearest_name("slots", none));
	memset(longest, 'z', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	ck_assert_ptr_nonnull(nearest_name(longest, names));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nearest");
	TCase *tcase = tcase_create("nearest");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, counts_changed_added_and_dropped_letters, 0, sizeof pairs / sizeof pairs[0]);
	tcase_add_test(tcase, looks_at_the_first_letters_only);
	tcase_add_test(tcase, finds_what_was_meant);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
