/*
 * Guards as text: every key, every mistake, and what is printed is what was read.
 */
#include "daemon/core/guards.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct text text(const char *string)
{
	return (struct text){ string, (uint32_t)strlen(string) };
}

static struct guards parsed(const char *string)
{
	struct guards guards;
	struct reason reason = { "" };

	ck_assert_msg(guards_parse(text(string), &guards, &reason) == 0, "%s: %s", string, reason.text);
	return guards;
}

START_TEST(nothing_is_the_default)
{
	struct guards none = parsed(""), fallback = guards_default();
	char format[GUARDS_BYTES_MAX];

	ck_assert_int_eq(none.nonfinite, NONFINITE_REFUSE);
	ck_assert(isinf(none.loss_max) && isinf(none.norm_jump));
	ck_assert(isinf(fallback.loss_max) && isinf(fallback.norm_jump));
	guards_format(&none, format, sizeof format);
	ck_assert_str_eq(format, "nonfinite=refuse");
}
END_TEST

START_TEST(each_key_is_read)
{
	struct guards guards = parsed("nonfinite=skip-tensor,loss_max=10.5,norm_jump=0");

	ck_assert_int_eq(guards.nonfinite, NONFINITE_SKIP_TENSOR);
	ck_assert_double_eq(guards.loss_max, 10.5);
	ck_assert_double_eq(guards.norm_jump, 0);
	guards = parsed("norm_jump=5e-1");
	ck_assert_double_eq(guards.norm_jump, 0.5);
	ck_assert_int_eq(guards.nonfinite, NONFINITE_REFUSE);
	/* A loss may be a log-likelihood. */
	ck_assert_double_eq(parsed("loss_max=-3").loss_max, -3);
	ck_assert_int_eq(parsed("nonfinite=apply").nonfinite, NONFINITE_APPLY);
}
END_TEST

START_TEST(what_is_printed_reads_back)
{
	static const char *const texts[] = {
		"nonfinite=refuse",
		"nonfinite=skip-tensor,loss_max=-1.5e+300,norm_jump=0.25",
		"nonfinite=apply,norm_jump=1e-300",
		"nonfinite=refuse,loss_max=0",
	};

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct guards guards = parsed(texts[i]);
		char format[GUARDS_BYTES_MAX];

		guards_format(&guards, format, sizeof format);
		ck_assert_str_eq(format, texts[i]);
	}
}
END_TEST

struct bad_guard {
	const char *text, *part;
};

static const struct bad_guard bad_guards[] = {
	{ "nonfinite", "'nonfinite' has no value: write nonfinite=VALUE" },
	{ "nonfinite=", "has no value" },
	{ "nonfinite=drop", "nonfinite=drop: it must be refuse, skip-tensor or apply" },
	{ "nonfinit=refuse", "'nonfinit' is unknown; did you mean 'nonfinite'? known: nonfinite, loss_max, norm_jump" },
	{ "norm_jumps=1", "did you mean 'norm_jump'" },
	{ "loss_max=ten", "loss_max=ten: it must be a number" },
	{ "loss_max=1x", "must be a number" },
	{ "loss_max=nan", "must be a number" },
	{ "loss_max=inf", "must be a number" },
	{ "norm_jump=-1", "norm_jump=-1: it must be a number that is not negative" },
	{ "norm_jump=1e999", "must be a number" },
	{ "nonfinite=apply,,loss_max=1", "has no value" },
	{ "nonfinite=apply,", "has no value" },
	{ ",", "has no value" },
};

START_TEST(mistakes_say_what_would_be_right)
{
	const struct bad_guard *bad = &bad_guards[_i];
	struct guards guards = { .loss_max = 77 };
	struct reason reason = { "" };

	ck_assert_int_eq(guards_parse(text(bad->text), &guards, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, bad->part) != NULL, "%s", reason.text);
	ck_assert_double_eq(guards.loss_max, 77);
}
END_TEST

START_TEST(texts_that_are_long_or_hold_nul_are_refused)
{
	struct guards guards;
	struct reason reason = { "" };
	char long_text[300];

	memset(long_text, ',', sizeof long_text);
	ck_assert_int_eq(guards_parse((struct text){ long_text, sizeof long_text }, &guards, &reason),
	                 STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "300 bytes, at most 256") != NULL, "%s", reason.text);
	ck_assert_int_eq(guards_parse((struct text){ "loss_max=1\0002", 12 }, &guards, &reason), STATUS_EARGUMENT);
	ck_assert_ptr_nonnull(strstr(reason.text, "NUL"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guards");
	TCase *tcase = tcase_create("guards");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, nothing_is_the_default);
	tcase_add_test(tcase, each_key_is_read);
	tcase_add_test(tcase, what_is_printed_reads_back);
	tcase_add_loop_test(tcase, mistakes_say_what_would_be_right, 0, sizeof bad_guards / sizeof bad_guards[0]);
	tcase_add_test(tcase, texts_that_are_long_or_hold_nul_are_refused);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
