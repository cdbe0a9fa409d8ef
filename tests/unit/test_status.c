/* Status codes: every code has a name and a text, and reasons stay printable, terminated and whole. */
#include "proto/status.h"

#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	int code;
	const char *name, *text;
} CODES[] = {
#define X(name, number, wire, text) {STATUS_##name, wire, text},
        STATUS_CODES(X)
#undef X
};

static const size_t CODE_COUNT = sizeof(CODES) / sizeof(*CODES);

START_TEST(names_and_texts_of_our_codes_come_from_the_table)
{
	for (size_t i = 0; i < CODE_COUNT; i++) {
		ck_assert_str_eq(status_name(CODES[i].code), CODES[i].name);
		ck_assert_str_eq(status_text(CODES[i].code), CODES[i].text);
	}
	ck_assert_str_eq(status_name(STATUS_ENOMODEL), "no-model");
	ck_assert_str_eq(status_text(-10006), "the schedule is not valid");
}
END_TEST

START_TEST(codes_are_consecutive_and_wire_names_are_unique)
{
	for (size_t i = 0; i < CODE_COUNT; i++) {
		ck_assert_int_eq(CODES[i].code, -10001 - (int)i);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(CODES[i].name, CODES[j].name);
	}
}
END_TEST

START_TEST(errno_values_have_their_symbol_and_sentence)
{
	ck_assert_str_eq(status_name(-ENOENT), "ENOENT");
	ck_assert_str_eq(status_text(-ENOENT), "No such file or directory");
	ck_assert_str_eq(status_name(-EOVERFLOW), "EOVERFLOW");
	ck_assert_str_eq(status_name(0), "ok");
	ck_assert_str_eq(status_text(0), "success");
}
END_TEST

START_TEST(codes_nobody_knows_still_have_a_name_and_a_text)
{
	static const int CODES_UNKNOWN[] = {1, ENOENT, INT_MAX, -9999, -10000, -20000, INT_MIN, INT_MIN + 1};

	for (size_t i = 0; i < sizeof(CODES_UNKNOWN) / sizeof(*CODES_UNKNOWN); i++) {
		ck_assert_str_eq(status_name(CODES_UNKNOWN[i]), "unknown");
		ck_assert_str_eq(status_text(CODES_UNKNOWN[i]), "unknown error");
	}
}
END_TEST

START_TEST(a_reason_is_formatted_and_the_code_returned)
{
	struct reason reason;

	ck_assert_int_eq(reason_set(&reason, STATUS_ELIMIT, "%d tensors; the limit is %s", 7, "five"), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "7 tensors; the limit is five");
	ck_assert_int_eq(reason_set(NULL, STATUS_ENAME, "nobody listens: %d", 1), STATUS_ENAME);
}
END_TEST

START_TEST(a_reason_has_no_control_characters)
{
	struct reason reason;

	reason_set(&reason, STATUS_ENAME, "a\nb\tc\x1b[31md\x7f\xc3\xa9 \xc2\x9b" "31m\xc2\x80\xc2\x9f\xc2\xa0");
	ck_assert_str_eq(reason.text, "a?b?c?[31md?\xc3\xa9 ??31m????\xc2\xa0");
}
END_TEST

START_TEST(a_long_reason_is_cut_to_fit)
{
	struct reason reason;
	char longer[2 * sizeof(reason.text)];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	reason_set(&reason, STATUS_ENAME, "%s", longer);
	ck_assert_uint_eq(strlen(reason.text), sizeof(reason.text) - 1);
	longer[sizeof(reason.text) - 1] = '\0';
	ck_assert_str_eq(reason.text, longer);
}
END_TEST

START_TEST(a_cut_reason_ends_with_a_whole_character)
{
	/* Two, three and four bytes a character, pushed over the edge by 0 to 3 bytes. */
	static const char *const CHARACTERS[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x99\x82"};
	struct reason reason;
	char text[2 * sizeof(reason.text)];

	for (size_t i = 0; i < 3; i++) {
		size_t bytes = strlen(CHARACTERS[i]);

		for (size_t shift = 0; shift < 4; shift++) {
			size_t used = shift, room = sizeof(reason.text) - 1 - shift;

			memset(text, 'x', shift);
			while (used + bytes < sizeof(text)) {
				memcpy(text + used, CHARACTERS[i], bytes);
				used += bytes;
			}
			text[used] = '\0';
			reason_set(&reason, STATUS_ENAME, "%s", text);
			ck_assert_uint_eq(strlen(reason.text), shift + room / bytes * bytes);
			ck_assert_int_eq(memcmp(reason.text, text, strlen(reason.text)), 0);
		}
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("status");
	TCase *tcase = tcase_create("status");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, names_and_texts_of_our_codes_come_from_the_table);
	tcase_add_test(tcase, codes_are_consecutive_and_wire_names_are_unique);
	tcase_add_test(tcase, errno_values_have_their_symbol_and_sentence);
	tcase_add_test(tcase, codes_nobody_knows_still_have_a_name_and_a_text);
	tcase_add_test(tcase, a_reason_is_formatted_and_the_code_returned);
	tcase_add_test(tcase, a_reason_has_no_control_characters);
	tcase_add_test(tcase, a_long_reason_is_cut_to_fit);
	tcase_add_test(tcase, a_cut_reason_ends_with_a_whole_character);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
