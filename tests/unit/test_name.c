/*
 * Names: the alphabet of models and profiles, the freedom of tensors, UTF-8 against its definition, and that the
 * canonical form is one.
 */
#include "proto/name.h"

#include "proto/limits.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A literal with its size: names may hold NUL. */
#define N(literal) literal, sizeof(literal) - 1

struct name_case {
	const char *name;
	size_t bytes;
};

static const struct name_case good_models[] = {
	{N("a")},
	{N("run42/net")},
	{N("A.b_c@d+e=f-0/x/y/z")},
	{N("...")},
	{N("..a/.b/c..")},
	{N("-")},
};

static const struct name_case bad_models[] = {
	{N("")},       {N("/")},        {N("/a")},     {N("a/")},      {N("a//b")},     {N(".")},
	{N("..")},     {N("a/../b")},   {N("./a")},    {N("a/.")},     {N("../../etc")}, {N("a b")},
	{N("a\0b")},   {N("a\nb")},     {N("a\x1b[2J")}, {N("a\\b")},  {N("a:b")},      {N("a%2fb")},
	{N("\xc3\xa9")}, {N("a\xff")},  {N("a~")},     {N("a*")},      {N("$HOME")},    {N("a\x7f")},
};

START_TEST(accepts_every_good_model_name)
{
	struct reason reason;

	ck_assert_int_eq(model_name_check(good_models[_i].name, good_models[_i].bytes, &reason), 0);
}
END_TEST

START_TEST(refuses_every_bad_model_name_with_a_printable_sentence)
{
	struct reason reason = {""};

	ck_assert_int_eq(model_name_check(bad_models[_i].name, bad_models[_i].bytes, &reason), STATUS_ENAME);
	ck_assert_uint_gt(strlen(reason.text), 10);
	for (const char *c = reason.text; *c; c++)
		ck_assert(*c >= ' ' && *c < 0x7f);
	ck_assert_int_eq(model_name_check(bad_models[_i].name, bad_models[_i].bytes, NULL), STATUS_ENAME);
}
END_TEST

START_TEST(accepts_only_the_alphabet_in_one_byte_names)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@+=-";

	for (int c = 0; c < 256; c++) {
		char name = (char)c;
		int expected = c != 0 && strchr(alphabet, c) ? 0 : STATUS_ENAME;

		ck_assert_msg(model_name_check(&name, 1, NULL) == expected, "model, byte %d", c);
		if (name == '=')
			expected = STATUS_ENAME; /* it divides name and schedule */
		ck_assert_msg(profile_name_check(&name, 1, NULL) == expected, "profile, byte %d", c);
	}
}
END_TEST

START_TEST(model_names_end_at_their_limit)
{
	char name[65536];
	struct reason reason;

	memset(name, 'a', sizeof(name));
	ck_assert_int_eq(model_name_check(name, MODEL_NAME_BYTES_MAX, NULL), 0);
	ck_assert_int_eq(model_name_check(name, MODEL_NAME_BYTES_MAX + 1, &reason), STATUS_ENAME);
	ck_assert_ptr_nonnull(strstr(reason.text, "has 201 bytes, at most 200"));
	ck_assert_int_eq(model_name_check(name, sizeof(name), &reason), STATUS_ENAME);
	ck_assert_ptr_nonnull(strstr(reason.text, "has 65536 bytes, at most 200"));
}
END_TEST

START_TEST(shows_the_refused_name_and_the_offending_byte)
{
	struct reason reason;

	ck_assert_int_eq(model_name_check(N("a/b\0c"), &reason), STATUS_ENAME);
	ck_assert_str_eq(reason.text, "model name 'a/b\\x00c': '\\x00' at offset 3 is not one of "
	                              "A-Z a-z 0-9 . _ @ + = -");
}
END_TEST

START_TEST(profile_names_have_one_part)
{
	char name[PROFILE_NAME_BYTES_MAX + 1];

	memset(name, 'p', sizeof(name));
	ck_assert_int_eq(profile_name_check(N("ema"), NULL), 0);
	ck_assert_int_eq(profile_name_check(N("ema_0.9999"), NULL), 0);
	ck_assert_int_eq(profile_name_check(N(""), NULL), STATUS_ENAME);
	ck_assert_int_eq(profile_name_check(N(".."), NULL), STATUS_ENAME);
	ck_assert_int_eq(profile_name_check(N("a/b"), NULL), STATUS_ENAME);
	ck_assert_int_eq(profile_name_check(N("a=b"), NULL), STATUS_ENAME);
	ck_assert_int_eq(profile_name_check(name, sizeof(name) - 1, NULL), 0);
	ck_assert_int_eq(profile_name_check(name, sizeof(name), NULL), STATUS_ENAME);
}
END_TEST

START_TEST(tensor_names_are_free_text_without_control_characters)
{
	char name[TENSOR_NAME_BYTES_MAX + 1];

	memset(name, 'w', sizeof(name));
	ck_assert_int_eq(tensor_name_check(N("encoder.layers.0.attn.q_proj.weight"), NULL), 0);
	ck_assert_int_eq(tensor_name_check(N("a b/c\\\"{}"), NULL), 0);
	ck_assert_int_eq(tensor_name_check(N("\xc3\xa9t\xc3\xa9.\xe5\xb1\xa4.\xf0\x9f\xa6\x86"), NULL), 0);
	ck_assert_int_eq(tensor_name_check(N("\xc2\xa0"), NULL), 0);
	ck_assert_int_eq(tensor_name_check(N("__metadata__x"), NULL), 0);
	ck_assert_int_eq(tensor_name_check(name, sizeof(name) - 1, NULL), 0);
	ck_assert_int_eq(tensor_name_check(name, sizeof(name), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N(""), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("__metadata__"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\0b"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\tb"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\x7f"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\xc2\x80"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\xc2\x9f"), NULL), STATUS_ENAME);
	ck_assert_int_eq(tensor_name_check(N("a\xff"), NULL), STATUS_ENAME);
}
END_TEST

static const struct {
	const char *name, *canonical;
} canonical_cases[] = {
	{"weight", "weight"},
	{"module.weight", "weight"},
	{"module._orig_mod.layer.0.weight", "layer.0.weight"},
	{"a._fsdp_wrapped_module.b._checkpoint_wrapped_module.c", "a.b.c"},
	{"a.module.b", "a.b"},
	{"a.module", "a"},
	{"module", "module"},
	{"module._orig_mod", "module._orig_mod"},
	{"modules.weight", "modules.weight"},
	{"my_module.module_.weight", "my_module.module_.weight"},
	{"module.module.module.w", "w"},
	{"module.", "module."},
	{"a..b", "a..b"},
	{".", "."},
	{"", ""},
};

START_TEST(canonical_names_leave_out_wrappers_and_nothing_else)
{
	const char *name = canonical_cases[_i].name, *canonical = canonical_cases[_i].canonical;
	char once[600], twice[600];
	size_t bytes = tensor_name_canonical(name, strlen(name), once, strlen(name) + 1);

	ck_assert_str_eq(once, canonical);
	ck_assert_uint_eq(bytes, strlen(canonical));
	ck_assert_uint_eq(tensor_name_canonical(once, bytes, twice, sizeof(twice)), bytes);
	ck_assert_str_eq(twice, canonical);
}
END_TEST

/* Encodes any number as UTF-8 would, in the fewest bytes or in one more. */
static size_t utf8_put(unsigned code, size_t bytes, char *text)
{
	static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};

	if (bytes == 1) {
		text[0] = (char)code;
		return 1;
	}
	for (size_t i = bytes - 1; i > 0; i--) {
		text[i] = (char)(0x80 | (code & 0x3f));
		code >>= 6;
	}
	text[0] = (char)(leads[bytes] | code);
	return bytes;
}

START_TEST(utf8_accepts_every_character_in_its_shortest_form_only)
{
	/* Counted, not asserted one by one: Check writes to a pipe at each assertion. */
	unsigned wrong_count = 0, wrong_last = 0;
	char text[4];

	for (unsigned code = 0; code <= 0x10ffff; code++) {
		size_t bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
		bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
		bool is_right = true;

		utf8_put(code, bytes, text);
		is_right = utf8_check(text, bytes) == !is_surrogate;
		for (size_t cut = 1; cut < bytes; cut++)
			is_right = is_right && !utf8_check(text, cut);
		if (bytes < 4) {
			utf8_put(code, bytes + 1, text);
			is_right = is_right && !utf8_check(text, bytes + 1);
		}
		wrong_count += !is_right;
		wrong_last = is_right ? wrong_last : code;
	}
	ck_assert_msg(wrong_count == 0, "%u characters wrong, the last U+%04X", wrong_count, wrong_last);
	utf8_put(0x110000, 4, text);
	ck_assert(!utf8_check(text, 4));
	ck_assert(utf8_check("", 0));
	ck_assert(!utf8_check("\x80", 1));
	ck_assert(!utf8_check("\xf8\x88\x80\x80\x80", 5));
}
END_TEST

START_TEST(utf8_finds_one_bad_byte_anywhere_among_ascii)
{
	for (size_t bytes = 1; bytes < 40; bytes++) {
		for (size_t bad = 0; bad < bytes; bad++) {
			char ascii[40];

			memset(ascii, 'a', sizeof(ascii));
			ck_assert(utf8_check(ascii, bytes));
			ascii[bad] = (char)0x80;
			ck_assert(!utf8_check(ascii, bytes));
		}
	}
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *suite = suite_create("name");
	TCase *tcase = tcase_create("name");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, accepts_every_good_model_name, 0, COUNT(good_models));
	tcase_add_loop_test(tcase, refuses_every_bad_model_name_with_a_printable_sentence, 0, COUNT(bad_models));
	tcase_add_test(tcase, accepts_only_the_alphabet_in_one_byte_names);
	tcase_add_test(tcase, model_names_end_at_their_limit);
	tcase_add_test(tcase, shows_the_refused_name_and_the_offending_byte);
	tcase_add_test(tcase, profile_names_have_one_part);
	tcase_add_test(tcase, tensor_names_are_free_text_without_control_characters);
	tcase_add_loop_test(tcase, canonical_names_leave_out_wrappers_and_nothing_else, 0, COUNT(canonical_cases));
	tcase_add_test(tcase, utf8_accepts_every_character_in_its_shortest_form_only);
	tcase_add_test(tcase, utf8_finds_one_bad_byte_anywhere_among_ascii);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
