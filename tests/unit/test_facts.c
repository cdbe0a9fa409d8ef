/* What the daemon says in JSON, shown tolerantly; and the tables it is shown in. */
#include "client/emactl/facts.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const struct fact ROW[] = {
	{"MODEL", "model", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"RANKS", NULL, FACT_RANKS, TABLE_WARN},
	{"REFUSED", "refused", FACT_INTEGER, TABLE_BAD},
};

static json_t *parse(const char *text)
{
	json_error_t complaint;
	json_t *value = facts_parse(text, &complaint);

	ck_assert_ptr_nonnull(value);
	return value;
}

/* What print_rows makes of the member "rows" of a text. The caller frees. */
static char *rows_of(const char *text, bool is_colour)
{
	json_t *object = parse(text);
	char *printed = NULL;
	size_t bytes;
	FILE *stream = open_memstream(&printed, &bytes);

	ck_assert_int_eq(facts_print_rows(json_object_get(object, "rows"), ROW, 4, is_colour, stream), 0);
	fclose(stream);
	json_decref(object);
	return printed;
}

START_TEST(members_of_every_kind_have_a_text)
{
	static const struct {
		const char *json;
		enum fact_kind kind;
		const char *text;
	} CASES[] = {
		{"{\"x\":\"a\"}", FACT_TEXT, "a"},
		{"{\"x\":[\"a\",\"b\"]}", FACT_TEXT, "a,b"},
		{"{\"x\":[{\"name\":\"a\"},{\"name\":\"b\"},{}]}", FACT_TEXT, "a,b,-"},
		{"{\"x\":\"\"}", FACT_TEXT, "-"},
		{"{\"x\":12}", FACT_INTEGER, "12"},
		{"{\"x\":[1,2,3]}", FACT_INTEGER, "3"},
		{"{\"x\":25600000}", FACT_COUNT, "25.6 M"},
		{"{\"x\":-1}", FACT_COUNT, "-"},
		{"{\"x\":12582912}", FACT_BYTES, "12.0 MiB"},
		{"{\"x\":0.9999}", FACT_REAL, "0.9999"},
		{"{\"x\":3}", FACT_REAL, "3"},
		{"{\"x\":33.123456}", FACT_MEASURE, "33.12"},
		{"{\"x\":3200}", FACT_MS, "3.2 s"},
		{"{\"x\":1000000}", FACT_AGE_US, "1.0 s ago"},
		{"{\"x\":0}", FACT_AGE_US, "never"},
		{"{\"ranks_attached\":1,\"world\":2}", FACT_RANKS, "1/2"},
		{"{\"x\":true}", FACT_YES, "yes"},
		{"{\"x\":1}", FACT_YES, "-"},
		{"{\"x\":[64,3]}", FACT_SHAPE, "[64,3]"},
		{"{\"x\":[]}", FACT_SHAPE, "[]"},
		{"{\"x\":{\"ema\":\"average\",\"swa\":\"copy\"}}", FACT_PAIRS, "ema=average swa=copy"},
	};
	char text[64];

	for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
		const struct fact fact = {"X", "x", CASES[i].kind, TABLE_PLAIN};
		json_t *object = parse(CASES[i].json);

		fact_text(object, &fact, 2000000, text, sizeof(text));
		ck_assert_str_eq(text, CASES[i].text);
		json_decref(object);
	}
}
END_TEST

START_TEST(what_is_missing_or_of_another_type_is_a_dash)
{
	static const char *const OBJECTS[] = {"{}", "{\"x\":null}"};
	char text[64];

	for (size_t i = 0; i < 2; i++) {
		json_t *object = parse(OBJECTS[i]);

		for (int kind = FACT_TEXT; kind <= FACT_PAIRS; kind++) {
			const struct fact fact = {"X", "x", (enum fact_kind)kind, TABLE_PLAIN};

			fact_text(object, &fact, 1, text, sizeof(text));
			ck_assert_str_eq(text, kind == FACT_RANKS ? "-/-" : "-");
		}
		json_decref(object);
	}
}
END_TEST

START_TEST(a_long_text_is_cut_to_its_buffer)
{
	const struct fact fact = {"X", "x", FACT_TEXT, TABLE_PLAIN};
	json_t *object = parse("{\"x\":[\"abcdef\",\"ghi\",\"jkl\"]}");
	char text[8];

	fact_text(object, &fact, 0, text, sizeof(text));
	ck_assert_str_eq(text, "abcdef,");
	json_decref(object);
}
END_TEST

START_TEST(tables_are_aligned_and_lines_have_no_blanks_at_their_end)
{
	char *printed = rows_of("{\"rows\":["
	                        "{\"model\":\"a\",\"step\":100,\"ranks_attached\":1,\"world\":1,\"refused\":0},"
	                        "{\"model\":\"\xc3\xa4\xc3\xb6.net\",\"step\":7},5]}",
	                        false);

	ck_assert_str_eq(printed, "MODEL   STEP  RANKS  REFUSED\n"
	                          "a        100    1/1        0\n"
	                          "\xc3\xa4\xc3\xb6.net     7    -/-        -\n"
	                          "-          -    -/-        -\n");
	free(printed);
}
END_TEST

START_TEST(what_could_steer_a_terminal_is_not_printed)
{
	char *printed = rows_of("{\"rows\":[{\"model\":\"a\\u001b[2J\\u009b1m\\u202e\\u007f\"}]}", false);

	ck_assert_ptr_null(strchr(printed, '\033'));
	ck_assert_ptr_nonnull(strstr(printed, "a?[2J??1m????"));
	free(printed);
}
END_TEST

START_TEST(only_unusual_values_are_coloured)
{
	char *printed = rows_of("{\"rows\":[{\"model\":\"a\",\"ranks_attached\":1,\"world\":2,\"refused\":3},"
	                        "{\"model\":\"b\",\"ranks_attached\":2,\"world\":2,\"refused\":0},{}]}",
	                        true);

	ck_assert_ptr_nonnull(strstr(printed, "\033[33m1/2\033[0m"));
	ck_assert_ptr_nonnull(strstr(printed, "\033[31m3\033[0m"));
	ck_assert_ptr_null(strstr(strstr(printed, "\nb"), "\033"));
	free(printed);
}
END_TEST

START_TEST(json_is_passed_on_with_its_order_and_exact_reals)
{
	const char *text = "{\"z\":0.1,\"a\":[1,1.0,true,null,{}],\"q\":\"\\u0007\\\"\",\"n\":-9007199254740993}";
	json_t *object = parse(text);
	char *printed = NULL;
	size_t bytes;
	FILE *stream = open_memstream(&printed, &bytes);

	facts_write(object, stream);
	fclose(stream);
	ck_assert_str_eq(printed, text);
	free(printed);
	json_decref(object);
}
END_TEST

START_TEST(numbers_beyond_63_bits_do_not_hide_the_rest)
{
	json_t *object = parse("{\"instance\":18446744073709551615,\"model\":\"a\"}");

	ck_assert_str_eq(json_string_value(json_object_get(object, "model")), "a");
	json_decref(object);
}
END_TEST

START_TEST(rejects_what_is_not_one_json_object)
{
	static const char *const TEXTS[] = {"", "[1]", "{", "{} {}", "nonsense", "\"text\""};
	json_error_t complaint;

	for (size_t i = 0; i < sizeof(TEXTS) / sizeof(*TEXTS); i++) {
		ck_assert_ptr_null(facts_parse(TEXTS[i], &complaint));
		ck_assert_uint_gt(strlen(complaint.text), 0);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("facts");
	TCase *tcase = tcase_create("facts");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, members_of_every_kind_have_a_text);
	tcase_add_test(tcase, what_is_missing_or_of_another_type_is_a_dash);
	tcase_add_test(tcase, a_long_text_is_cut_to_its_buffer);
	tcase_add_test(tcase, tables_are_aligned_and_lines_have_no_blanks_at_their_end);
	tcase_add_test(tcase, what_could_steer_a_terminal_is_not_printed);
	tcase_add_test(tcase, only_unusual_values_are_coloured);
	tcase_add_test(tcase, json_is_passed_on_with_its_order_and_exact_reals);
	tcase_add_test(tcase, numbers_beyond_63_bits_do_not_hide_the_rest);
	tcase_add_test(tcase, rejects_what_is_not_one_json_object);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
