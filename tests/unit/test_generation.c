/*
 * Names of generations, and the end of a manifest.
 */
#include "proto/generation.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(a_name_is_step_and_version_and_comes_back)
{
	static const struct generation_name names[] = { { 0, 1 }, { 1200, 1187 }, { UINT64_MAX, UINT64_MAX } };
	char text[GENERATION_NAME_BYTES];

	for (size_t i = 0; i < 3; i++) {
		struct generation_name back = { 7, 7 };

		generation_name_write(&names[i], text);
		ck_assert_uint_eq(strlen(text), GENERATION_NAME_BYTES - 1);
		ck_assert(generation_name_parse(text, &back));
		ck_assert_uint_eq(back.step, names[i].step);
		ck_assert_uint_eq(back.version, names[i].version);
	}
}
END_TEST

START_TEST(other_names_are_not_taken)
{
	static const char *const others[] = {
		"", ".", "..", "keep", "00000000000000001200", "00000000000000001200-0000000000000000118",
		"00000000000000001200-00000000000000001187.bad-1790000000", "99999999999999999999-00000000000000000001",
		"00000000000000001200_00000000000000001187", ".00000000000000001200-00000000000000001187.tmp",
		"-0000000000000001200-00000000000000001187",
	};
	struct generation_name name;

	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		ck_assert(!generation_name_parse(others[i], &name));
}
END_TEST

START_TEST(a_later_version_is_newer_also_at_an_earlier_step)
{
	struct generation_name before = { 100, 9 }, after = { 40, 10 };

	ck_assert_int_lt(generation_compare(&before, &after), 0);
	ck_assert_int_gt(generation_compare(&after, &before), 0);
	ck_assert_int_eq(generation_compare(&after, &after), 0);
}
END_TEST

START_TEST(a_directory_names_one_model_and_nothing_outside)
{
	static const char *const bad[] = {
		"..", ".", "", "a%%old-1790000000", "%a", "a%", "a/b", "..%x", ".x y", "a%..",
	};
	char directory[GENERATION_DIRECTORY_BYTES], model[MODEL_NAME_BYTES_MAX + 1];

	generation_directory_write("run42/net", directory);
	ck_assert_str_eq(directory, "run42%net");
	ck_assert(generation_directory_parse(directory, model));
	ck_assert_str_eq(model, "run42/net");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ck_assert(!generation_directory_parse(bad[i], model));
	ck_assert_str_eq(model, "run42/net");
}
END_TEST

START_TEST(an_end_is_found_whole_and_every_change_of_a_byte_is_seen)
{
	static const char begin[] = "{\"format\":1,\"model\":\"net\"";
	const struct generation_file files[] = { { "ema", 4096, 0x1234 }, { "slow", 8192, UINT64_MAX } };
	char text[sizeof begin + GENERATION_END_BYTES_MAX];
	size_t bytes;

	memcpy(text, begin, sizeof begin);
	bytes = generation_text_end(text, sizeof begin - 1, files, 2);
	ck_assert(generation_text_check(text, bytes));
	ck_assert_ptr_nonnull(strstr(text, "{\"profile\":\"ema\",\"bytes\":4096,\"xxh3\":\"0000000000001234\"}"));
	for (size_t i = 0; i < bytes; i++) {
		ck_assert(!generation_text_check(text, i));
		for (int bit = 0; bit < 8; bit++) {
			text[i] = (char)(text[i] ^ 1 << bit);
			ck_assert(!generation_text_check(text, bytes));
			text[i] = (char)(text[i] ^ 1 << bit);
		}
	}
}
END_TEST

START_TEST(there_is_room_for_the_longest_end)
{
	char name[PROFILE_NAME_BYTES_MAX + 1], text[2 + GENERATION_END_BYTES_MAX] = "{";
	struct generation_file files[PROFILE_COUNT_MAX];
	size_t bytes;

	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	for (int i = 0; i < PROFILE_COUNT_MAX; i++)
		files[i] = (struct generation_file){ name, UINT64_MAX, UINT64_MAX };
	bytes = generation_text_end(text, 1, files, PROFILE_COUNT_MAX);
	ck_assert_uint_lt(bytes, sizeof text);
	ck_assert(generation_text_check(text, bytes));
}
END_TEST

/* A whole manifest, to be freed. */
static char *manifest_make(const char *facts, size_t *ret_bytes)
{
	static const struct generation_file files[] = { { "ema", 8421376, 0x0123456789abcdef }, { "slow", 7, 0 } };
	char *text = malloc(strlen(facts) + 1 + GENERATION_END_BYTES_MAX);

	ck_assert_ptr_nonnull(text);
	strcpy(text, facts);
	*ret_bytes = generation_text_end(text, strlen(facts), files, 2);
	return text;
}

START_TEST(a_summary_is_read_past_all_that_is_not_its_own)
{
	struct generation_summary summary;
	struct reason reason = { "" };
	size_t bytes;
	char *text = manifest_make("{\"format\":1,\"agent\":\"a \\\"}],[{\",\"model\":\"run42/net\",\"version\":1187,\"step\":-1,"
	                           "\"updates\":12,\"published_us\":99,\"has_step\":true,\"metadata\":null,\"profiles\":[{\"x\":"
	                           "[1,-2.5e3,\"]\"],\"step\":7}],\"tensors\":[[\"head.weight\",\"F32\",[4,8],false],[]]", &bytes);

	ck_assert_msg(generation_summary_read(text, bytes, &summary, &reason) == 0, "%s", reason.text);
	ck_assert_str_eq(summary.model, "run42/net");
	ck_assert_uint_eq(summary.name.version, 1187);
	ck_assert_uint_eq(summary.name.step, UINT64_MAX);
	ck_assert_uint_eq(summary.updates, 12);
	ck_assert_uint_eq(summary.published_us, 99);
	ck_assert_uint_eq(summary.file_count, 2);
	ck_assert_str_eq(summary.files[0].profile, "ema");
	ck_assert_uint_eq(summary.files[0].bytes, 8421376);
	ck_assert_uint_eq(summary.files[0].checksum, 0x0123456789abcdef);
	ck_assert_str_eq(summary.files[1].profile, "slow");
	/* Every prefix is refused, and so is any other byte. */
	for (size_t i = 0; i < bytes; i++)
		ck_assert_int_eq(generation_summary_read(text, i, &summary, &reason), STATUS_ECORRUPT);
	for (size_t i = 0; i < bytes; i++) {
		text[i] ^= 1;
		ck_assert_int_eq(generation_summary_read(text, bytes, &summary, &reason), STATUS_ECORRUPT);
		text[i] ^= 1;
	}
	free(text);
}
END_TEST

START_TEST(a_manifest_with_a_right_checksum_is_not_believed_either)
{
	static const char *const bad[] = {
		"{\"a\":1", "[\"a\"", "{", "", "{\"model\":\"../x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1",
		"{\"model\":\"x\",\"version\":1.5,\"step\":1,\"updates\":1,\"published_us\":1",
		"{\"model\":\"x\",\"version\":\"1\",\"step\":1,\"updates\":1,\"published_us\":1",
		"{\"model\":\"x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1,\"files\":[]",
		"{\"model\":\"x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1,\"files\":[{\"profile\":\"../e\","
		"\"bytes\":1,\"xxh3\":\"0123456789abcdef\"}]",
		"{\"model\":\"x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1,\"x\":[",
		"{\"model\":\"x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1,\"x\":",
		"{\"model\":\"x\",\"version\":1,\"step\":1,\"updates\":1,\"published_us\":1,\"x\":\"",
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct generation_summary summary;
		struct reason reason = { "" };
		size_t bytes;
		char *text = manifest_make(bad[i], &bytes);

		ck_assert_msg(generation_summary_read(text, bytes, &summary, &reason) == STATUS_ECORRUPT, "%s", bad[i]);
		ck_assert(reason.text[0]);
		free(text);
	}
}
END_TEST

START_TEST(what_was_set_aside_is_known_by_its_name)
{
	static const char *const others[] = {
		"00000000000000001200-00000000000000001187", "00000000000000001200-00000000000000001187.bad-",
		"00000000000000001200-00000000000000001187.bad-1x", "00000000000000001200-00000000000000001187.old-17",
		"0000000000000000120-00000000000000001187.bad-1790000000",
		"00000000000000001200-00000000000000001187.bad-99999999999999999999", ".bad-1790000000", "",
	};
	struct generation_name name;
	uint64_t wall_s;

	ck_assert(generation_aside_parse("00000000000000001200-00000000000000001187.bad-1790000000", &name, &wall_s));
	ck_assert_uint_eq(name.step, 1200);
	ck_assert_uint_eq(name.version, 1187);
	ck_assert_uint_eq(wall_s, 1790000000);
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		ck_assert_msg(!generation_aside_parse(others[i], &name, &wall_s), "%s", others[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("generation");
	TCase *tcase = tcase_create("generation");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, a_name_is_step_and_version_and_comes_back);
	tcase_add_test(tcase, other_names_are_not_taken);
	tcase_add_test(tcase, a_later_version_is_newer_also_at_an_earlier_step);
	tcase_add_test(tcase, a_directory_names_one_model_and_nothing_outside);
	tcase_add_test(tcase, an_end_is_found_whole_and_every_change_of_a_byte_is_seen);
	tcase_add_test(tcase, there_is_room_for_the_longest_end);
	tcase_add_test(tcase, a_summary_is_read_past_all_that_is_not_its_own);
	tcase_add_test(tcase, a_manifest_with_a_right_checksum_is_not_believed_either);
	tcase_add_test(tcase, what_was_set_aside_is_known_by_its_name);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
