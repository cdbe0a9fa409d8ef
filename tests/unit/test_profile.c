/*
 * Profiles: their text form, and what each schedule's library does with each sort of tensor.
 */
#include "proto/profile.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
	char text[PROFILE_BYTES_MAX + 1];

	ck_assert_str_eq(profile.name, "ema-1");
	ck_assert_str_eq(profile.schedule.kind->name, "yolo");
	ck_assert_int_eq(profile_format(&profile, text, sizeof(text)), 0);
	ck_assert_str_eq(text, "ema-1=yolo:decay=0.5,tau=10");
	ck_assert_uint_eq(profile.rule_count, 0);
}
END_TEST

START_TEST(parses_and_writes_rules)
{
	struct profile profile =
	        profile_of("ema=yolo:decay=.5;copy=*.running_*;average@.990=lora_*;drop=head.*;freeze=a=b;average=*");
	char text[PROFILE_BYTES_MAX + 1];

	ck_assert_uint_eq(profile.rule_count, 5);
	ck_assert_int_eq(profile.rules[0].entry, ENTRY_COPY);
	ck_assert_str_eq(profile.rules[0].pattern, "*.running_*");
	ck_assert(!profile.rules[0].has_decay);
	ck_assert_int_eq(profile.rules[1].entry, ENTRY_AVERAGE);
	ck_assert(profile.rules[1].has_decay);
	ck_assert_double_eq(profile.rules[1].decay, .99);
	ck_assert_int_eq(profile.rules[2].entry, ENTRY_DROP);
	ck_assert_int_eq(profile.rules[3].entry, ENTRY_FREEZE);
	ck_assert_str_eq(profile.rules[3].pattern, "a=b");
	ck_assert_int_eq(profile_format(&profile, text, sizeof(text)), 0);
	ck_assert_str_eq(text,
	                 "ema=yolo:decay=0.5;copy=*.running_*;average@0.99=lora_*;drop=head.*;freeze=a=b;average=*");
	ck_assert_int_eq(profile_format(&profile, text, strlen(text)), STATUS_ELIMIT);
}
END_TEST

/* "ema=constant" and rules of patterns of that many bytes each. */
static size_t many_rules(char *text, size_t rule_count, size_t pattern_bytes)
{
	size_t used = (size_t)sprintf(text, "ema=constant");

	for (size_t i = 0; i < rule_count; i++) {
		used += (size_t)sprintf(text + used, ";drop=");
		memset(text + used, 'x', pattern_bytes);
		used += pattern_bytes;
	}
	text[used] = '\0';
	return used;
}

START_TEST(rules_have_limits)
{
	char text[2 * PROFILE_BYTES_MAX], again[PROFILE_BYTES_MAX + 1];
	struct profile profile = {.name = "before"};
	struct reason reason;

	ck_assert_int_eq(profile_parse(text, many_rules(text, 17, 1), &profile, &reason), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "profile 'ema' has more than 16 rules; let one pattern match more tensors");
	ck_assert_int_eq(profile_parse(text, many_rules(text, 1, 129), &profile, &reason), STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "rule 1: the pattern has 129 bytes, at most 128 are allowed"));
	ck_assert_str_eq(profile.name, "before");
	ck_assert_int_eq(profile_parse(text, many_rules(text, 16, 128), &profile, &reason), 0);
	ck_assert_uint_eq(profile.rule_count, 16);
	ck_assert_int_eq(profile_format(&profile, again, sizeof(again)), 0);
	ck_assert_str_eq(again, text);
	/* What is longer written out than given. */
	strcpy(text, "ema=constant:decay=.12345");
	for (int i = 0; i < 16; i++) {
		strcat(text, ";average@.5234567890123456e-4=");
		memset(text + strlen(text), 0, 200);
		memset(text + strlen(text), 'x', 128);
	}
	ck_assert_int_eq(profile_parse(text, strlen(text), &profile, &reason), STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "2560 bytes"));
}
END_TEST

struct pattern_case {
	const char *pattern, *name;
	bool matches;
};

static const struct pattern_case pattern_cases[] = {
	{"", "", true},
	{"", "a", false},
	{"a", "", false},
	{"abc", "abc", true},
	{"abc", "abcd", false},
	{"abcd", "abc", false},
	{"*", "", true},
	{"*", "any.thing", true},
	{"**", "a", true},
	{"*.bias", "layer.0.bias", true},
	{"*.bias", "bias", false},
	{"layer.*.bias", "layer.0.1.bias", true},
	{"layer.*.bias", "layer..bias", true},
	{"layer.*.bias", "layer.bias", false},
	{"*ab*ab", "xabyabab", true},
	{"*ab*abc", "abab", false},
	{"a?c", "abc", true},
	{"a?c", "ac", false},
	{"???", "ab", false},
	{"?", "\xc3\xa4", false}, /* bytes */
	{"??", "\xc3\xa4", true},
	{"sch\xc3\xb6n*", "sch\xc3\xb6n.bias", true},
	{"layer.[0-3].*", "layer.2.bias", true},
	{"layer.[0-3].*", "layer.4.bias", false},
	{"[abc]", "b", true},
	{"[abc]", "d", false},
	{"[!abc]", "d", true},
	{"[!a-c]", "b", false},
	{"[!a-c]", "", false},
	{"[a-cx-z]", "y", true},
	{"[a-]", "-", true},
	{"[-a]", "-", true},
	{"[c-a]", "b", false},
	{"[]a]", "]", true},
	{"[]a]", "a", true},
	{"[!]]", "a", true},
	{"[!]]", "]", false},
	{"[", "[", true},
	{"a[b", "a[b", true},
	{"[!", "[!", true},
	{"[]", "[]", true},
	{"[!]", "[!]", true},
	{"[]", "a", false},
	{"[a-", "[a-", true},
	{"[*", "[rest", true},
	{"x[a]*[b", "xa..[b", true},
	{"[!a]", "\xff", true},
	{"[\x80-\xff]", "\xc3", true},
	{"*[0-9]", "layer.12", true},
	{"*[0-9]", "layer.12x", false},
};

START_TEST(a_pattern_matches_as_a_glob)
{
	const struct pattern_case *expected = &pattern_cases[_i];

	ck_assert_msg(pattern_matches(expected->pattern, expected->name) == expected->matches, "'%s' '%s'",
	              expected->pattern, expected->name);
}
END_TEST

START_TEST(no_pattern_takes_long)
{
	char pattern[PATTERN_BYTES_MAX + 1], name[TENSOR_NAME_BYTES_MAX + 1];
	clock_t began = clock();

	memset(name, 'a', TENSOR_NAME_BYTES_MAX);
	name[TENSOR_NAME_BYTES_MAX] = '\0';
	for (int round = 0; round < 100; round++) {
		for (int i = 0; i < PATTERN_BYTES_MAX; i++)
			pattern[i] = "*a"[i % 2];
		pattern[PATTERN_BYTES_MAX - 1] = 'b';
		pattern[PATTERN_BYTES_MAX] = '\0';
		ck_assert(!pattern_matches(pattern, name));
		memset(pattern, '[', PATTERN_BYTES_MAX);
		pattern[0] = '*';
		ck_assert(!pattern_matches(pattern, name));
		memset(pattern + 1, 'a', PATTERN_BYTES_MAX - 1);
		memcpy(pattern + 1, "[a-z]", 5);
		pattern[PATTERN_BYTES_MAX - 1] = 'b';
		ck_assert(!pattern_matches(pattern, name));
	}
	/* 300 matches of at most 128 * 256 steps: milliseconds. */
	ck_assert(clock() - began < CLOCKS_PER_SEC);
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
	{T("ema=yolo;"), STATUS_ESCHEDULE, "profile 'ema', rule 1 is empty"},
	{T("ema=yolo;copy=a;"), STATUS_ESCHEDULE, "profile 'ema', rule 2 is empty"},
	{T("ema=yolo;;copy=a"), STATUS_ESCHEDULE, "no ';' at the end"},
	{T("ema=yolo;copy"), STATUS_ESCHEDULE, "rule 1: 'copy' has no '='; write ACTION=PATTERN"},
	{T("ema=yolo;copy="), STATUS_ESCHEDULE, "rule 1 has no pattern"},
	{T("ema=yolo;=a"), STATUS_ESCHEDULE, "action '' is unknown"},
	{T("ema=yolo;freez=a"), STATUS_ESCHEDULE,
	 "action 'freez' is unknown; did you mean 'freeze'? known: average, average@DECAY, copy, freeze, drop"},
	{T("ema=yolo;first=a"), STATUS_ESCHEDULE, "action 'first' is unknown"},
	{T("ema=yolo;" LONG_64 "=a"), STATUS_ESCHEDULE, "is unknown; known: average"},
	{T("ema=yolo;copy@.5=a"), STATUS_ESCHEDULE, "only 'average' takes a decay"},
	{T("ema=yolo;average@=a"), STATUS_ESCHEDULE, "'' is not a decimal number"},
	{T("ema=yolo;average@0.9x=a"), STATUS_ESCHEDULE, "'0.9x' is not a decimal number"},
	{T("ema=yolo;average@1.5=a"), STATUS_ESCHEDULE, "rule 1: decay 1.5 is outside [0, 1] for schedule 'yolo'"},
	{T("ema=power;average@0.5=a"), STATUS_ESCHEDULE, "schedule 'power' has no key 'decay'"},
	{T("ema=optax;average@0.5=a"), STATUS_ESCHEDULE, "with debias=0 some may have another"},
	{T("ema=yolo;copy=\xff"), STATUS_ESCHEDULE, "not UTF-8"},
	{T("ema=yolo;copy=a\nb"), STATUS_ESCHEDULE, "control characters"},
	{T("ema=yolo;copy=a\0b"), STATUS_ESCHEDULE, "control characters"},
	{T("ema=yolo;co\0py=a"), STATUS_ESCHEDULE, "is unknown"},
	{T(";copy=a"), STATUS_ESCHEDULE, "name=schedule"},
	{T("ema;copy=a"), STATUS_ESCHEDULE, "name=schedule"},
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

START_TEST(compares_the_common_keys_and_the_rules)
{
	static const char *const OTHERS[] = {
		"a=yolo:precision=f64", "a=yolo:begin=1", "a=yolo:cadence=2", "a=yolo:snapshot=1", "a=yolo:keep=1",
		"a=yolo;copy=x",
	};
	struct profile here = profile_of("a=yolo"), model;
	struct reason reason;

	for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++) {
		model = profile_of(OTHERS[i]);
		ck_assert_int_eq(profile_compare(&model, 1, &model, 1, NULL), 0);
		ck_assert_int_eq(profile_compare(&here, 1, &model, 1, &reason), STATUS_EPROFILE);
	}
	ck_assert_str_eq(reason.text, "profile 0 'a': 0 rules here, 1 in the model");
	here = profile_of("a=yolo;copy=x;average@0.5=y");
	model = profile_of("a=yolo;copy=x;average@0.25=y");
	ck_assert_int_eq(profile_compare(&here, 1, &model, 1, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text, "profile 0 'a': rule 2 is average@0.5=y here, average@0.25=y in the model");
	model = profile_of("a=yolo;freeze=x;average@0.5=y");
	ck_assert_int_eq(profile_compare(&here, 1, &model, 1, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text, "profile 0 'a': rule 1 is copy=x here, freeze=x in the model");
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

	struct profile_choice choice = profile_choose(&profile, &tensor);

	ck_assert_msg(choice.entry == expected->entry, "%s %s %d", expected->schedule, dtype_name(expected->dtype),
	              expected->is_buffer);
	ck_assert_int_eq(choice.rule, -1);
	ck_assert_int_eq(choice.dtype,
	                 expected->entry == ENTRY_AVERAGE ? dtype_shadow(expected->dtype) : expected->dtype);
}
END_TEST

START_TEST(float_parameters_are_averaged_and_integers_never_by_any_schedule)
{
	size_t count;
	const struct schedule_kind *kinds = schedule_kinds(&count);

	for (size_t i = 0; i < count; i++) {
		struct profile profile = {.schedule.kind = &kinds[i]};
		struct tensor parameter = {.dtype = DTYPE_F32}, integer = {.dtype = DTYPE_I8, .is_buffer = true};

		ck_assert_int_eq(profile_choose(&profile, &parameter).entry, ENTRY_AVERAGE);
		ck_assert_int_ne(profile_choose(&profile, &integer).entry, ENTRY_AVERAGE);
	}
}
END_TEST

static struct profile_choice chosen(const char *specification, const char *name, enum dtype dtype, bool is_buffer)
{
	struct profile profile = profile_of(specification);
	struct tensor tensor = {.dtype = dtype, .is_buffer = is_buffer};
	char text[TENSOR_NAME_BYTES_MAX + 1];

	strcpy(text, name);
	tensor.name = text;
	return profile_choose(&profile, &tensor);
}

static void assert_choice(struct profile_choice choice, enum schedule_entry entry, enum dtype dtype, int32_t rule)
{
	ck_assert_str_eq(schedule_entry_name(choice.entry), schedule_entry_name(entry));
	ck_assert_str_eq(dtype_name(choice.dtype), dtype_name(dtype));
	ck_assert_int_eq(choice.rule, rule);
}

START_TEST(the_first_rule_that_matches_decides)
{
	const char *text = "p=yolo;copy=a*;drop=ab;freeze=*.n;average=b";

	assert_choice(chosen(text, "ab", DTYPE_F32, false), ENTRY_COPY, DTYPE_F32, 0);
	assert_choice(chosen(text, "x.n", DTYPE_BF16, false), ENTRY_FREEZE, DTYPE_BF16, 2);
	assert_choice(chosen(text, "b", DTYPE_BF16, true), ENTRY_AVERAGE, DTYPE_F32, 3);
	assert_choice(chosen(text, "c", DTYPE_F16, false), ENTRY_AVERAGE, DTYPE_F32, -1);
	assert_choice(chosen("p=diffusers;average=*.running_*;copy=*.n", "a.running_mean", DTYPE_F32, true), ENTRY_AVERAGE,
	              DTYPE_F32, 0);
	assert_choice(chosen("p=diffusers;average=*.running_*;copy=*.n", "a.n", DTYPE_I64, true), ENTRY_COPY, DTYPE_I64, 1);
	assert_choice(chosen("p=diffusers;average=x", "a.n", DTYPE_F32, true), ENTRY_DROP, DTYPE_F32, -1);
}
END_TEST

START_TEST(rules_that_average_skip_integers)
{
	assert_choice(chosen("p=yolo;average=*;copy=*", "n", DTYPE_I64, true), ENTRY_COPY, DTYPE_I64, 1);
	assert_choice(chosen("p=yolo;average@0.5=*", "n", DTYPE_BOOL, false), ENTRY_FREEZE, DTYPE_BOOL, -1);
	assert_choice(chosen("p=mmengine:update_buffers=1;average=*", "n", DTYPE_I64, true), ENTRY_FIRST, DTYPE_I64, -1);
}
END_TEST

START_TEST(the_precision_is_that_of_averaged_tensors)
{
	assert_choice(chosen("p=yolo:precision=f64", "w", DTYPE_BF16, false), ENTRY_AVERAGE, DTYPE_F64, -1);
	assert_choice(chosen("p=yolo:precision=f32", "w", DTYPE_F64, false), ENTRY_AVERAGE, DTYPE_F32, -1);
	assert_choice(chosen("p=yolo", "w", DTYPE_F64, false), ENTRY_AVERAGE, DTYPE_F64, -1);
	assert_choice(chosen("p=yolo:precision=f64;copy=*", "w", DTYPE_BF16, false), ENTRY_COPY, DTYPE_BF16, 0);
	assert_choice(chosen("p=yolo:precision=f64", "n", DTYPE_I32, true), ENTRY_FREEZE, DTYPE_I32, -1);
}
END_TEST

START_TEST(a_rule_may_have_a_decay_of_its_own)
{
	struct profile profile = profile_of("p=yolo:tau=7,form=sub,begin=3;copy=a;average@0.5=b;average=c");
	struct schedule schedule = profile_schedule(&profile, 1);

	ck_assert_double_eq(schedule.values[0], .5);
	ck_assert_double_eq(schedule.values[1], 7);
	ck_assert_int_eq(schedule.form, FORM_SUB);
	ck_assert_uint_eq(schedule.begin, 3);
	ck_assert_double_eq(profile_schedule(&profile, -1).values[0], .9999);
	ck_assert_double_eq(profile_schedule(&profile, 2).values[0], .9999);
	profile = profile_of("p=torchtitan:fraction=0.1;average@0.5=b");
	schedule = profile_schedule(&profile, 0);
	ck_assert_double_eq(schedule_at(&schedule, &(struct schedule_call){5, 5, 4}).decay, .5);
	profile = profile_of("p=optax:debias=0;average@0.5=b");
	ck_assert_double_eq(profile_schedule(&profile, 0).values[0], .5);
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
	tcase_add_test(tcase, parses_and_writes_rules);
	tcase_add_test(tcase, rules_have_limits);
	tcase_add_loop_test(tcase, a_pattern_matches_as_a_glob, 0, COUNT(pattern_cases));
	tcase_add_test(tcase, no_pattern_takes_long);
	tcase_add_test(tcase, compares_the_common_keys_and_the_rules);
	tcase_add_test(tcase, the_first_rule_that_matches_decides);
	tcase_add_test(tcase, rules_that_average_skip_integers);
	tcase_add_test(tcase, the_precision_is_that_of_averaged_tensors);
	tcase_add_test(tcase, a_rule_may_have_a_decay_of_its_own);
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
