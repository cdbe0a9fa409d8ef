/*
 * Which tensors are meant: names, patterns, and what is said when none is.
 */
#include "client/selection.h"

#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 5 };

/* In the order of a file. */
static const char *const NAMES[COUNT] = {"head.weight", "head.bias", "body.weight", "w[0]", "w0"};

static struct safetensors *tensors;

static void setup(void)
{
	uint8_t header[1024] = {0};
	size_t used = 8;

	for (int i = 0; i < COUNT; i++)
		used += (size_t)snprintf((char *)header + used, sizeof(header) - used,
		                         "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "{",
		                         NAMES[i], 4 * i, 4 * i + 4);
	header[used++] = '}';
	header[0] = (uint8_t)(used - 8);
	header[1] = (uint8_t)((used - 8) >> 8);
	ck_assert_int_eq(safetensors_parse(header, used, used + 4 * COUNT, &tensors, NULL), 0);
}

static void teardown(void)
{
	safetensors_destroy(tensors);
}

/* Which are chosen, a letter each. */
static const char *chosen_by(const char *const *texts, size_t count)
{
	static char letters[COUNT + 1];
	struct reason reason = {""};
	bool *chosen;

	ck_assert_msg(selection_create(tensors, texts, count, "net", &chosen, &reason) == 0, "%s", reason.text);
	for (int i = 0; i < COUNT; i++)
		letters[i] = chosen[i] ? '1' : '0';
	free(chosen);
	return letters;
}

#define CHOSEN(...) chosen_by((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

START_TEST(names_and_patterns_add_up)
{
	ck_assert_str_eq(CHOSEN("body.weight"), "00100");
	ck_assert_str_eq(CHOSEN("head.*"), "11000");
	ck_assert_str_eq(CHOSEN("*.weight", "head.bias", "head.*"), "11100");
	ck_assert_str_eq(CHOSEN("*"), "11111");
	ck_assert_str_eq(CHOSEN("[bh]*.??as"), "01000");
	ck_assert_str_eq(chosen_by(NULL, 0), "00000");
}
END_TEST

START_TEST(a_name_that_looks_like_a_pattern_is_a_name)
{
	ck_assert_str_eq(CHOSEN("w[0]"), "00010");
	ck_assert_str_eq(CHOSEN("w[0-1]"), "00001");
	ck_assert_str_eq(CHOSEN("w*"), "00011");
}
END_TEST

START_TEST(what_means_none_is_told_the_nearest)
{
	static const struct {
		const char *text, *sentence;
	} CASES[] = {
		{"head.wieght", "model 'net' has no tensor 'head.wieght' in this profile; the nearest is 'head.weight'"},
		{"", "model 'net' has no tensor '' in this profile; the nearest is 'w0'"},
		{"bady.*", "model 'net' has no tensor that matches 'bady.*' in this profile; the nearest is 'body.weight'"},
		{"*.baas", "model 'net' has no tensor that matches '*.baas' in this profile; the nearest is 'head.bias'"},
		{"?", "model 'net' has no tensor that matches '?' in this profile; the nearest is 'head.weight'"},
	};

	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
		const char *const texts[] = {"*", CASES[i].text};
		struct reason reason = {""};
		bool *chosen = NULL;

		ck_assert_int_eq(selection_create(tensors, texts, 2, "net", &chosen, &reason), -ENOENT);
		ck_assert_str_eq(reason.text, CASES[i].sentence);
		ck_assert_ptr_null(chosen);
	}
}
END_TEST

START_TEST(null_is_no_name)
{
	const char *const texts[] = {"*", NULL};
	struct reason reason;
	bool *chosen;

	ck_assert_int_eq(selection_create(tensors, texts, 2, "net", &chosen, &reason), STATUS_EARGUMENT);
	ck_assert_str_eq(reason.text, "tensor 1 of 2 is NULL");
}
END_TEST

START_TEST(what_is_not_kept_is_forgotten)
{
	const bool chosen[COUNT] = {false, true, false, true, true};

	safetensors_keep(tensors, chosen);
	ck_assert_uint_eq(tensors->entry_count, 3);
	ck_assert_str_eq(tensors->entries[0].name, "head.bias");
	ck_assert_uint_eq(tensors->entries[0].offset % 4, tensors->data_offset % 4);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(safetensors_find(tensors, NAMES[i]) != NULL, chosen[i]);
	ck_assert_ptr_eq(safetensors_find(tensors, "w0"), &tensors->entries[2]);
	safetensors_keep(tensors, (const bool[3]){false, false, false});
	ck_assert_ptr_null(safetensors_find(tensors, "w0"));
}
END_TEST

static int attempt(void *context)
{
	const char *const texts[] = {"*.weight", "w0"};
	bool *chosen = NULL;
	int code = selection_create(context, texts, 2, "net", &chosen, NULL);

	free(chosen);
	return code;
}

START_TEST(the_allocation_may_fail)
{
	ck_assert_uint_eq(failing_heap_sweep(attempt, tensors), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("selection");
	TCase *cases = tcase_create("selection");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(cases, setup, teardown);
	tcase_add_test(cases, names_and_patterns_add_up);
	tcase_add_test(cases, a_name_that_looks_like_a_pattern_is_a_name);
	tcase_add_test(cases, what_means_none_is_told_the_nearest);
	tcase_add_test(cases, null_is_no_name);
	tcase_add_test(cases, what_is_not_kept_is_forgotten);
	tcase_add_test(cases, the_allocation_may_fail);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
