/* States, rates and orders of `emactl top`, of JSON as the daemon writes it. */
#include "client/emactl/top_rows.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { SECOND_US = 1000000 };

/* output.c prints to standard output with the whole program behind it; the table alone is looked at here. */
void output_json_string(const char *text);
void output_json_string(const char *text)
{
	printf("\"%s\"", text);
}

static void look(struct top *top, uint64_t now_us, const char *text)
{
	json_error_t complaint;
	json_t *shows = json_loads(text, 0, &complaint);

	ck_assert_msg(shows != NULL, "%s", complaint.text);
	ck_assert_int_eq(top_take(top, shows, now_us), 0);
	json_decref(shows);
}

static char state_of(const char *members)
{
	struct top top = {0};
	char text[1024], letter;

	snprintf(text, sizeof(text), "[{\"model\":\"m\",\"world\":2,\"version\":3,\"last_update_us\":1000000%s%s}]",
	         *members ? "," : "", members);
	look(&top, 2 * SECOND_US, text);
	ck_assert_uint_eq(top.count, 1);
	letter = top_state_letter(top.rows[0].state);
	top_finish(&top);
	return letter;
}

START_TEST(the_first_state_that_holds_is_shown)
{
	ck_assert_int_eq(state_of(""), 'R');
	ck_assert_int_eq(state_of("\"ranks_attached\":2"), 'R');
	ck_assert_int_eq(state_of("\"ranks_attached\":1"), 'W');
	ck_assert_int_eq(state_of("\"version\":0"), 'N');
	ck_assert_int_eq(state_of("\"last_update_us\":0,\"version\":3,\"x\":0"), 'R');
	ck_assert_int_eq(state_of("\"ranks\":[{\"stages\":[{\"state\":\"ready\"},{\"state\":\"free\"}]}]"), 'R');
	ck_assert_int_eq(state_of("\"ranks\":[{\"stages\":[{\"state\":\"ready\"},{\"state\":\"applying\"}]}]"), 'L');
	ck_assert_int_eq(state_of("\"ranks_attached\":1,\"checkpoint\":{\"error\":\"no space\"}"), 'E');
	ck_assert_int_eq(state_of("\"checkpoint\":{\"error\":null}"), 'R');
	ck_assert_int_eq(state_of("\"profiles\":[{\"nonfinite\":1}]"), 'E');
	ck_assert_int_eq(state_of("\"profiles\":[{\"snapshot_error\":\"no\"}]"), 'E');
}
END_TEST

START_TEST(a_model_without_news_becomes_idle_and_a_refusal_is_shown_for_a_while)
{
	static const char QUIET[] = "[{\"model\":\"m\",\"version\":3,\"step\":9,\"last_update_us\":1000000,\"refused\":%d}]";
	struct top top = {0};
	char text[256];

	snprintf(text, sizeof(text), QUIET, 4);
	look(&top, 2 * SECOND_US, text);
	ck_assert_int_eq(top_state_letter(top.rows[0].state), 'R');
	look(&top, 60 * (uint64_t)SECOND_US, text);
	ck_assert_int_eq(top_state_letter(top.rows[0].state), 'I');
	snprintf(text, sizeof(text), QUIET, 5);
	look(&top, 61 * (uint64_t)SECOND_US, text);
	ck_assert_int_eq(top_state_letter(top.rows[0].state), 'E');
	look(&top, 68 * (uint64_t)SECOND_US, text);
	ck_assert_int_eq(top_state_letter(top.rows[0].state), 'E');
	look(&top, 72 * (uint64_t)SECOND_US, text);
	ck_assert_int_eq(top_state_letter(top.rows[0].state), 'I');
	top_finish(&top);
}
END_TEST

START_TEST(rates_come_of_two_looks_and_survive_no_step_back)
{
	struct top top = {0};

	look(&top, SECOND_US, "[{\"model\":\"m\",\"version\":1,\"step\":100}]");
	ck_assert(!top.rows[0].has_rate);
	look(&top, 3 * (uint64_t)SECOND_US, "[{\"model\":\"m\",\"version\":2,\"step\":140}]");
	ck_assert(top.rows[0].has_rate);
	ck_assert_double_eq(top.rows[0].rate, 20);
	look(&top, 4 * (uint64_t)SECOND_US, "[{\"model\":\"m\",\"version\":3,\"step\":200}]");
	ck_assert_double_eq(top.rows[0].rate, 40);
	look(&top, 5 * (uint64_t)SECOND_US, "[{\"model\":\"m\",\"version\":4,\"step\":10}]");
	ck_assert(!top.rows[0].has_rate);
	top_finish(&top);
}
END_TEST

static void check_order(struct top *top, const char *key, bool is_reversed, const char *expected)
{
	enum top_key parsed;
	char order[8] = "";

	ck_assert(top_key_parse(key, &parsed));
	top_sort(top, parsed, is_reversed);
	for (size_t i = 0; i < top->count; i++)
		order[i] = top->rows[i].model[0];
	ck_assert_str_eq(order, expected);
}

START_TEST(numbers_are_sorted_from_the_largest_and_ties_by_name)
{
	struct top top = {0};
	enum top_key key;

	look(&top, SECOND_US, "[{\"model\":\"b\",\"step\":5,\"lag\":1,\"version\":1},{\"model\":\"a\",\"step\":5,\"version\":1},"
	                      "{\"model\":\"c\",\"step\":9,\"version\":0}]");
	check_order(&top, "model", false, "abc");
	check_order(&top, "model", true, "cba");
	check_order(&top, "step", false, "cab");
	check_order(&top, "lag", false, "bac");
	check_order(&top, "state", false, "cab");
	ck_assert(!top_key_parse("nosuch", &key));
	top_finish(&top);
}
END_TEST

START_TEST(the_table_is_filtered_and_safe_for_a_terminal)
{
	struct top top = {0};
	char *text = NULL;
	size_t bytes;
	FILE *stream = open_memstream(&text, &bytes);

	look(&top, SECOND_US,
	     "[{\"model\":\"run1/net\",\"version\":1,\"ranks\":[{\"refusal\":\"\\u001b[2J NaN\"}]},{\"model\":\"other\"}]");
	ck_assert_int_eq(top_print(&top, "run1", false, stream), 0);
	fclose(stream);
	ck_assert_ptr_nonnull(strstr(text, "run1/net"));
	ck_assert_ptr_nonnull(strstr(text, "?[2J NaN"));
	ck_assert_ptr_null(strstr(text, "other"));
	ck_assert_ptr_null(strchr(text, '\033'));
	free(text);
	top_finish(&top);
}
END_TEST

START_TEST(answers_that_lack_everything_are_shown_as_well)
{
	struct top top = {0};
	FILE *stream = fopen("/dev/null", "w");

	look(&top, SECOND_US, "[{\"model\":\"m\",\"profiles\":5,\"ranks\":{},\"slots\":null,\"step\":\"x\"},{},7]");
	ck_assert_uint_eq(top.count, 1);
	ck_assert_int_eq(top_print(&top, NULL, true, stream), 0);
	fclose(stream);
	top_finish(&top);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("top_rows");
	TCase *tests = tcase_create("rows");
	SRunner *runner;
	int failures;

	tcase_add_test(tests, the_first_state_that_holds_is_shown);
	tcase_add_test(tests, a_model_without_news_becomes_idle_and_a_refusal_is_shown_for_a_while);
	tcase_add_test(tests, rates_come_of_two_looks_and_survive_no_step_back);
	tcase_add_test(tests, numbers_are_sorted_from_the_largest_and_ties_by_name);
	tcase_add_test(tests, the_table_is_filtered_and_safe_for_a_terminal);
	tcase_add_test(tests, answers_that_lack_everything_are_shown_as_well);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
