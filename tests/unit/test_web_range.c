/*
 * Ranges and conditions, against RFC 9110.
 */
#include "daemon/core/web_range.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define TAG "\"5-ema\""

enum { BYTES = 1000 };

static const struct {
	const char *range;
	enum web_outcome outcome;
	uint64_t offset, count;
} ranges[] = {
	{ NULL, WEB_WHOLE, 0, BYTES },
	{ "bytes=0-0", WEB_PART, 0, 1 },
	{ "bytes=0-", WEB_PART, 0, BYTES },
	{ "bytes=10-19", WEB_PART, 10, 10 },
	{ "bytes=999-", WEB_PART, 999, 1 },
	{ "bytes=999-99999", WEB_PART, 999, 1 },
	{ "bytes=0-18446744073709551615", WEB_PART, 0, BYTES },
	{ "bytes=0-99999999999999999999999", WEB_PART, 0, BYTES },
	{ "bytes=-1", WEB_PART, 999, 1 },
	{ "bytes=-1000", WEB_PART, 0, BYTES },
	{ "bytes=-5000", WEB_PART, 0, BYTES },
	{ "Bytes= 1-2 ", WEB_PART, 1, 2 },
	{ "bytes=1000-", WEB_UNSATISFIABLE, 0, BYTES },
	{ "bytes=99999999999999999999999-", WEB_UNSATISFIABLE, 0, BYTES },
	{ "bytes=-0", WEB_UNSATISFIABLE, 0, BYTES },
	/* What is not understood, and several at once, are ignored. */
	{ "bytes=", WEB_WHOLE, 0, BYTES },
	{ "bytes=-", WEB_WHOLE, 0, BYTES },
	{ "bytes=2-1", WEB_WHOLE, 0, BYTES },
	{ "bytes=1", WEB_WHOLE, 0, BYTES },
	{ "bytes=a-b", WEB_WHOLE, 0, BYTES },
	{ "bytes=1-2,4-5", WEB_WHOLE, 0, BYTES },
	{ "bytes=1-2x", WEB_WHOLE, 0, BYTES },
	{ "bytes=--1", WEB_WHOLE, 0, BYTES },
	{ "byte=1-2", WEB_WHOLE, 0, BYTES },
	{ "lines=1-2", WEB_WHOLE, 0, BYTES },
	{ "", WEB_WHOLE, 0, BYTES },
};

START_TEST(ranges_are_read)
{
	struct web_conditions conditions = { .range = ranges[_i].range };
	uint64_t offset = 77, count = 77;

	ck_assert_int_eq(web_range_choose(&conditions, TAG, BYTES, &offset, &count), ranges[_i].outcome);
	ck_assert_uint_eq(offset, ranges[_i].offset);
	ck_assert_uint_eq(count, ranges[_i].count);
}
END_TEST

static const struct {
	struct web_conditions conditions;
	enum web_outcome outcome;
} conditions_of[] = {
	{ { .if_match = TAG }, WEB_WHOLE },
	{ { .if_match = "*" }, WEB_WHOLE },
	{ { .if_match = "\"4-ema\", " TAG }, WEB_WHOLE },
	{ { .if_match = "\"4-ema\"" }, WEB_MISMATCH },
	{ { .if_match = "W/" TAG }, WEB_MISMATCH },
	{ { .if_match = "" }, WEB_MISMATCH },
	{ { .if_none_match = TAG }, WEB_UNCHANGED },
	{ { .if_none_match = "W/" TAG }, WEB_UNCHANGED },
	{ { .if_none_match = "\"4-ema\",W/\"x\",, " TAG }, WEB_UNCHANGED },
	{ { .if_none_match = "*" }, WEB_UNCHANGED },
	{ { .if_none_match = "\"4-ema\"" }, WEB_WHOLE },
	{ { .if_none_match = "5-ema" }, WEB_WHOLE },
	{ { .if_none_match = "\"5-ema" }, WEB_WHOLE },
	{ { .if_match = "\"x\"", .if_none_match = TAG }, WEB_MISMATCH },
	{ { .if_none_match = TAG, .range = "bytes=0-1" }, WEB_UNCHANGED },
	{ { .if_range = TAG, .range = "bytes=0-1" }, WEB_PART },
	{ { .if_range = "W/" TAG, .range = "bytes=0-1" }, WEB_WHOLE },
	{ { .if_range = "\"4-ema\"", .range = "bytes=0-1" }, WEB_WHOLE },
	{ { .if_range = "\"4-ema\"", .range = "bytes=5000-" }, WEB_WHOLE },
	{ { .if_range = "Sat, 29 Oct 1994 19:43:31 GMT", .range = "bytes=0-1" }, WEB_WHOLE },
	{ { .if_range = TAG }, WEB_WHOLE },
};

START_TEST(conditions_come_before_ranges)
{
	uint64_t offset, count;

	ck_assert_int_eq(web_range_choose(&conditions_of[_i].conditions, TAG, BYTES, &offset, &count),
	                 conditions_of[_i].outcome);
}
END_TEST

START_TEST(a_range_never_leaves_the_bytes)
{
	static const uint64_t sizes[] = { 0, 1, 2, 4096, UINT64_MAX };
	uint64_t offset, count;

	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
		for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
			struct web_conditions conditions = { .range = ranges[i].range };
			enum web_outcome outcome = web_range_choose(&conditions, TAG, sizes[s], &offset, &count);

			ck_assert(outcome != WEB_PART || count > 0);
			ck_assert(offset <= sizes[s] && count <= sizes[s] - offset);
		}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("web_range");
	TCase *tcase = tcase_create("web_range");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, ranges_are_read, 0, sizeof ranges / sizeof ranges[0]);
	tcase_add_loop_test(tcase, conditions_come_before_ranges, 0, sizeof conditions_of / sizeof conditions_of[0]);
	tcase_add_test(tcase, a_range_never_leaves_the_bytes);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
