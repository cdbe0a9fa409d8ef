/*
 * Profiles: their text form, and what each schedule's library does with each sort of tensor.
 */
#include "proto/profile.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct profile profile_of(const char *text)
{
	struct profile profile;
	struct reason reason = {""};

	ck_assert_msg(profile_parse(text, strlen(text), &profile, &reason) == 0, "%s: %s", text, reason.text);
	return profile;
}

START_TEST(parses_and_writes_the_canonical_form)
{
	struct profile profile = profile_of("ema-1=yolo:decay=0.5,tau=10");
	char text[PROFILE_NAME_BYTES_MAX + SCHEDULE_BYTES_MAX + 2];

	ck_assert_str_eq(profile.name, "ema-1");
	ck_assert_str_eq(profile.schedule.kind->name, "yolo");
	ck_assert_int_eq(profile_format(&profile, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "ema-1=yolo:decay=0.5,tau=10");
}
END_TEST

START_TEST(reads_only_as_many_bytes_as_it_is_given)
{
	struct profile profile;

	ck_assert_int_eq(profile_parse("a=yolo:decay=0.5garbage", strlen("a=yolo:decay=0.5"), &profile, NULL), 0);
	ck_assert_str_eq(profile.name, "a");
}
END_TEST

START_TEST(a_text_that_does_not_fit_is_refused_untouched)
{
	struct profile profile = profile_of("ema=yolo:decay=0.5");
	char text[] = "before before before";

	ck_assert_int_eq(profile_format(&profile, text, strlen("ema=yolo:decay=0.5")), STATUS_ELIMIT);
	ck_assert_str_eq(text, "before before before");
	ck_assert_int_eq(profile_format(&profile, text, strlen("ema=yolo:decay=0.5") + 1), 0);
	ck_assert_str_eq(text, "ema=yolo:decay=0.5");
}
END_TEST

#define LONG_64 "0123456789012345678901234567890123456789012345678901234567890123"

struct bad_case {
	const char *text;
	size_t bytes;
	int code;
	const char *part; /* of the sentence */
};

#define T(literal) literal, sizeof(literal) - 1

static const struct bad_case bad_cases[] = {
	{T(""), STATUS_ESCHEDULE, "name=schedule"},
	{T("yolo"), STATUS_ESCHEDULE, "name=schedule"},
	{T("=yolo"), STATUS_ENAME, "empty"},
	{T("a/b=yolo"), STATUS_ENAME, "a/b"},
	{T("..=yolo"), STATUS_ENAME, ".."},
	{T("yolo:decay=0.5"), STATUS_ENAME, "yolo:decay"},
	{T(LONG_64 "4=yolo"), STATUS_ENAME, "65"},
	{T("ema="), STATUS_ESCHEDULE, ""},
	{T("ema=nothing-like-it"), STATUS_ESCHEDULE, "nothing-like-it"},
	{T("ema=yolo\0:decay=0.5"), STATUS_ESCHEDULE, "NUL"},
	{T("ema=" LONG_64 LONG_64 LONG_64 LONG_64 "4"), STATUS_ESCHEDULE, "257 bytes"},
};

START_TEST(refuses_with_a_sentence_and_leaves_the_output)
{
	const struct bad_case *bad = &bad_cases[_i];
	struct profile profile = {.name = "before"};
	struct reason reason = {""};

	ck_assert_int_eq(profile_parse(bad->text, bad->bytes, &profile, &reason), bad->code);
	ck_assert_msg(reason.text[0] != '\0' && strstr(reason.text, bad->part), "%s: %s", bad->text, reason.text);
	ck_assert_str_eq(profile.name, "before");
}
END_TEST

START_TEST(compares_names_schedules_order_and_count)
{
	struct profile here[2] = {profile_of("a=yolo"), profile_of("b=yolo:decay=0.5")};
	struct profile model[2] = {profile_of("a=yolo"), profile_of("b=yolo:decay=0.25")};
	struct profile swapped[2] = {here[1], here[0]};
	struct reason reason;

	ck_assert_int_eq(profile_compare(here, 2, here, 2, NULL), 0);
	ck_assert_int_eq(profile_compare(here, 0, here, 0, NULL), 0);
	ck_assert_int_eq(profile_compare(here, 2, model, 2, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text, "profile 1 'b': schedule yolo:decay=0.5 here, yolo:decay=0.25 in the model");
	ck_assert_int_eq(profile_compare(here, 2, swapped, 2, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text, "profile 0: name 'a' here, 'b' in the model");
	ck_assert_int_eq(profile_compare(here, 2, here, 1, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text, "2 profiles here, 1 in the model");
	model[1] = here[1];
	model[1].schedule.form = model[1].schedule.form == FORM_LERP ? FORM_SUB : FORM_LERP;
	ck_assert_int_eq(profile_compare(here, 2, model, 2, NULL), STATUS_EPROFILE);
}
END_TEST

struct entry_case {
	const char *schedule;
	enum dtype dtype;
	bool is_buffer;
	enum schedule_entry entry;
};

/* As the libraries do it: see the sources in the schedule's table. */
static const struct entry_case entry_cases[] = {
	{"p=yolo", DTYPE_F32, false, ENTRY_AVERAGE},       {"p=yolo", DTYPE_BF16, true, ENTRY_AVERAGE},
	{"p=yolo", DTYPE_I64, true, ENTRY_FREEZE},         {"p=yolo", DTYPE_BOOL, false, ENTRY_FREEZE},
	{"p=timm", DTYPE_F16, true, ENTRY_AVERAGE},        {"p=timm", DTYPE_I64, true, ENTRY_COPY},
	{"p=k-diffusion", DTYPE_F32, false, ENTRY_AVERAGE}, {"p=k-diffusion", DTYPE_F32, true, ENTRY_COPY},
	{"p=k-diffusion", DTYPE_I32, true, ENTRY_COPY},    {"p=diffusers", DTYPE_F64, false, ENTRY_AVERAGE},
	{"p=diffusers", DTYPE_F64, true, ENTRY_DROP},      {"p=diffusers", DTYPE_I64, true, ENTRY_DROP},
	{"p=diffusers", DTYPE_F8_E4M3, false, ENTRY_AVERAGE},
};

START_TEST(treats_entries_as_the_library_of_the_schedule_does)
{
	const struct entry_case *expected = &entry_cases[_i];
	struct profile profile = profile_of(expected->schedule);
	struct tensor tensor = {.dtype = expected->dtype, .is_buffer = expected->is_buffer};

	ck_assert_msg(profile_entry(&profile, &tensor) == expected->entry, "%s %s %d", expected->schedule,
	              dtype_name(expected->dtype), expected->is_buffer);
}
END_TEST

START_TEST(float_parameters_are_averaged_and_integers_never_by_any_schedule)
{
	size_t count;
	const struct schedule_kind *kinds = schedule_kinds(&count);

	for (size_t i = 0; i < count; i++) {
		struct profile profile = {.schedule.kind = &kinds[i]};
		struct tensor parameter = {.dtype = DTYPE_F32}, integer = {.dtype = DTYPE_I8, .is_buffer = true};

		ck_assert_int_eq(profile_entry(&profile, &parameter), ENTRY_AVERAGE);
		ck_assert_int_ne(profile_entry(&profile, &integer), ENTRY_AVERAGE);
	}
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *suite = suite_create("profile");
	TCase *tcase = tcase_create("profile");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, parses_and_writes_the_canonical_form);
	tcase_add_test(tcase, reads_only_as_many_bytes_as_it_is_given);
	tcase_add_test(tcase, a_text_that_does_not_fit_is_refused_untouched);
	tcase_add_loop_test(tcase, refuses_with_a_sentence_and_leaves_the_output, 0, COUNT(bad_cases));
	tcase_add_test(tcase, compares_names_schedules_order_and_count);
	tcase_add_loop_test(tcase, treats_entries_as_the_library_of_the_schedule_does, 0, COUNT(entry_cases));
	tcase_add_test(tcase, float_parameters_are_averaged_and_integers_never_by_any_schedule);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
