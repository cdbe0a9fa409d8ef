/* Values in shell commands: what the shell makes of them is asked of the shell itself. */
#include "client/emactl/placeholders.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_filled(const char *command, const char *value, const char *expected)
{
	const struct placeholder placeholders[] = {{"file", value}, {"step", "12"}, {0}};
	char *filled = placeholders_fill(command, placeholders);

	ck_assert_ptr_nonnull(filled);
	ck_assert_str_eq(filled, expected);
	free(filled);
}

START_TEST(each_place_becomes_one_quoted_word)
{
	check_filled("run {file} --step={step}", "a b", "run 'a b' --step='12'");
	check_filled("{file}{file}", "x", "'x''x'");
	check_filled("", "x", "");
}
END_TEST

START_TEST(what_is_the_shells_own_stays)
{
	check_filled("echo ${file} {nope} {} { file } {filed} {fil", "x", "echo ${file} {nope} {} { file } {filed} {fil");
	check_filled("f() { echo {step}; }; f", "x", "f() { echo '12'; }; f");
}
END_TEST

START_TEST(the_shell_reads_any_value_as_it_was)
{
	static const char *const VALUES[] = {
		"plain", "", "two words", "it's", "''", "$(exit 3)", "`exit 3`", "; exit 3", "\\", "\"", "\n", "*", "$HOME", "-n",
		"a\tb", "\xc3\xa4", "&& exit 3 ||", "'; exit 3; '",
	};
	char expected[64], script[256];

	for (size_t i = 0; i < sizeof(VALUES) / sizeof(VALUES[0]); i++) {
		const struct placeholder placeholders[] = {{"value", VALUES[i]}, {0}};
		char *filled = placeholders_fill("test {value} = \"$EXPECTED\" && test $# = 0", placeholders);

		snprintf(expected, sizeof(expected), "%s", VALUES[i]);
		setenv("EXPECTED", expected, 1);
		snprintf(script, sizeof(script), "%s", filled);
		free(filled);
		ck_assert_msg(system(script) == 0, "%s", script);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("placeholders");
	TCase *tests = tcase_create("filling in");
	SRunner *runner;
	int failures;

	tcase_add_test(tests, each_place_becomes_one_quoted_word);
	tcase_add_test(tests, what_is_the_shells_own_stays);
	tcase_add_test(tests, the_shell_reads_any_value_as_it_was);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
