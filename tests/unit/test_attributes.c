/*
 * Attributes: any JSON object comes out compact, and nothing else gets in.
 */
#include "daemon/core/attributes.h"

#include "proto/limits.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *text, *json;
} good[] = {
	{ "{}", "{}" },
	{ " { \"nc\" : 80 , \"names\" : [ \"a\" , \"b\" ] } ", "{\"nc\":80,\"names\":[\"a\",\"b\"]}" },
	{ "{\"z\":1,\"a\":null,\"m\":{\"x\":true}}", "{\"z\":1,\"a\":null,\"m\":{\"x\":true}}" }, /* in their order */
	{ "{\"s\":\"\\u00e9\\n\\\"\"}", "{\"s\":\"\xc3\xa9\\n\\\"\"}" },
	{ "{\"stride\":[8.0,16.0,32.0]}", "{\"stride\":[8.0,16.0,32.0]}" },
};

START_TEST(comes_out_compact_and_in_order)
{
	char *json = NULL;

	ck_assert_int_eq(attributes_parse(good[_i].text, strlen(good[_i].text), &json, NULL), 0);
	ck_assert_str_eq(json, good[_i].json);
	free(json);
}
END_TEST

static const struct {
	const char *text, *part;
} bad[] = {
	{ "", "not valid JSON" },
	{ "[]", "must be a JSON object" },
	{ "[1,2]", "must be a JSON object" },
	{ "{\"a\":1} x", "not valid JSON" },
	{ "{\"a\":}", "at byte 6" },
	{ "{\"a\":1,\"a\":2}", "not valid JSON" },
	{ "{\"a\":NaN}", "not valid JSON" },
	{ "{\"a\":\"\xff\"}", "not valid JSON" },
	{ "{\"a\":\"\\u0000\"}", "not valid JSON" },
	{ "{\"a\":1e999}", "not valid JSON" },
};

START_TEST(anything_else_is_refused_with_a_sentence)
{
	struct reason reason;
	char *json = (char *)"untouched";

	ck_assert_int_eq(attributes_parse(bad[_i].text, strlen(bad[_i].text), &json, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, bad[_i].part) != NULL, "%s", reason.text);
	ck_assert_str_eq(json, "untouched");
}
END_TEST

START_TEST(a_nul_byte_does_not_end_the_text)
{
	char *json;

	ck_assert_int_eq(attributes_parse("{}\0{}", 5, &json, NULL), STATUS_EARGUMENT);
}
END_TEST

/* An object of that many bytes. */
static char *object_of(size_t bytes)
{
	char *text = malloc(bytes + 1);

	memset(text, 'x', bytes);
	memcpy(text, "{\"a\":\"", 6);
	memcpy(text + bytes - 2, "\"}", 3);
	return text;
}

START_TEST(ends_at_its_limit_with_both_numbers)
{
	char *text = object_of(ATTRIBUTES_BYTES_MAX), *json;
	struct reason reason;

	ck_assert_int_eq(attributes_parse(text, ATTRIBUTES_BYTES_MAX, &json, &reason), 0);
	ck_assert_uint_eq(strlen(json), ATTRIBUTES_BYTES_MAX);
	free(json);
	free(text);
	text = object_of(ATTRIBUTES_BYTES_MAX + 1);
	ck_assert_int_eq(attributes_parse(text, ATTRIBUTES_BYTES_MAX + 1, &json, &reason), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "the attributes are 32769 bytes of JSON, and the limit is 32768");
	free(text);
}
END_TEST

/* "1e1" is three bytes and comes back as four ("10.0"): what counts is what is kept. */
START_TEST(text_that_grows_beyond_the_limit_is_refused)
{
	char text[ATTRIBUTES_BYTES_MAX + 1] = "{\"a\":[1e1", *json;
	size_t bytes = strlen(text);

	while (bytes + 6 < sizeof text) {
		memcpy(text + bytes, ",1e1", 4);
		bytes += 4;
	}
	memcpy(text + bytes, "]}", 3);
	ck_assert_int_eq(attributes_parse(text, strlen(text), &json, NULL), STATUS_ELIMIT);
}
END_TEST

START_TEST(deep_nesting_is_refused_and_does_no_harm)
{
	char text[ATTRIBUTES_BYTES_MAX], *json;

	memset(text, '[', sizeof text);
	ck_assert_int_eq(attributes_parse(text, sizeof text, &json, NULL), STATUS_EARGUMENT);
	for (size_t i = 0; i + 5 <= sizeof text; i += 5)
		memcpy(text + i, "{\"a\":", 5);
	ck_assert_int_eq(attributes_parse(text, sizeof text, &json, NULL), STATUS_EARGUMENT);
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* jansson lives in a shared library, where nothing is wrapped. */
static void *json_room(size_t bytes)
{
	return malloc(bytes);
}

START_TEST(what_was_not_read_for_want_of_memory_is_not_called_wrong)
{
	static const char text[] = "{\"lr\":[0.1,0.25],\"name\":\"a \\u00e4\\n name\",\"deep\":{\"of\":null,\"it\":true}}";
	uint64_t nth = 1, refused_count = 0;
	char *whole, *json;

	json_set_alloc_funcs(json_room, free);
	ck_assert_int_eq(metadata_parse(text, sizeof text - 1, &whole, NULL), 0);
	for (bool has_failed = true; has_failed; nth++) {
		struct reason reason = { "" };
		int error;

		json = (char *)"untouched";
		failing_heap_arm(nth, false);
		error = metadata_parse(text, sizeof text - 1, &json, &reason);
		has_failed = failing_heap_disarm();
		ck_assert_msg(error == 0 || (has_failed && error == -ENOMEM), "allocation %lu: %d: %s", (unsigned long)nth, error,
		              reason.text);
		ck_assert_str_eq(json, error ? "untouched" : whole);
		refused_count += error != 0;
		if (!error)
			free(json);
	}
	ck_assert_uint_gt(refused_count, 20);
	free(whole);
}
END_TEST

START_TEST(what_is_wrong_is_never_taken_for_right_without_memory)
{
	char *json = (char *)"untouched";
	uint64_t nth = 1;

	json_set_alloc_funcs(json_room, free);
	for (bool has_failed = true; has_failed; nth++) {
		struct reason reason = { "" };
		int error;

		failing_heap_arm(nth, false);
		error = attributes_parse(bad[_i].text, strlen(bad[_i].text), &json, &reason);
		has_failed = failing_heap_disarm();
		ck_assert_msg(error == STATUS_EARGUMENT || (has_failed && error == -ENOMEM), "allocation %lu: %d",
		              (unsigned long)nth, error);
		ck_assert(error == -ENOMEM || strstr(reason.text, "JSON"));
		ck_assert_str_eq(json, "untouched");
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("attributes");
	TCase *tcase = tcase_create("attributes");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, comes_out_compact_and_in_order, 0, sizeof good / sizeof good[0]);
	tcase_add_loop_test(tcase, anything_else_is_refused_with_a_sentence, 0, sizeof bad / sizeof bad[0]);
	tcase_add_test(tcase, a_nul_byte_does_not_end_the_text);
	tcase_add_test(tcase, ends_at_its_limit_with_both_numbers);
	tcase_add_test(tcase, text_that_grows_beyond_the_limit_is_refused);
	tcase_add_test(tcase, deep_nesting_is_refused_and_does_no_harm);
	tcase_add_test(tcase, what_was_not_read_for_want_of_memory_is_not_called_wrong);
	tcase_add_loop_test(tcase, what_is_wrong_is_never_taken_for_right_without_memory, 0, sizeof bad / sizeof bad[0]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
