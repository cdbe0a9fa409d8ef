/*
 * Reading safetensors: what the format allows is read, everything else is refused with a sentence.
 */
#include "proto/safetensors.h"

#include "tests/unit/failing_heap.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A file: the size, the JSON, data_bytes zeros behind. */
struct file {
	uint8_t *bytes;
	size_t header_bytes; /* with the size */
	uint64_t file_bytes;
};

static struct file file_make(const char *json, size_t json_bytes, uint64_t data_bytes)
{
	struct file file = {.header_bytes = 8 + json_bytes, .file_bytes = 8 + json_bytes + data_bytes};

	/* Only the header is there, so that a sanitizer sees reads beyond it. */
	file.bytes = malloc(file.header_bytes);
	ck_assert_ptr_nonnull(file.bytes);
	for (int i = 0; i < 8; i++)
		file.bytes[i] = (uint8_t)((uint64_t)json_bytes >> 8 * i);
	memcpy(file.bytes + 8, json, json_bytes);
	return file;
}

static int file_parse(const struct file *file, struct safetensors **ret_safetensors, struct reason *reason)
{
	return safetensors_parse(file->bytes, file->header_bytes, file->file_bytes, ret_safetensors, reason);
}

/* Any order of members, white space and escapes. */
static const char good[] =
	"{\"head.weight\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[8,20]},"
	"\"__metadata__\":{\"step\":\"17\",\"format\":\"pt\","
	"\"note\":\"caf\\u00e9 \\ud83d\\ude00 \\\"q\\\" \\\\ \\n\"},"
	"\n\t\"scale\" : { \"shape\" : [ ] , \"data_offsets\":[0,8],\"dtype\":\"F64\" } ,\r"
	"\"empty\":{\"dtype\":\"U8\",\"shape\":[5,0],\"data_offsets\":[8,8]},"
	"\"\\u0061\\/b\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[20,21]}}   ";

START_TEST(reads_what_the_format_allows)
{
	struct file file = file_make(good, strlen(good), 21);
	const struct safetensors_entry *entry;
	struct safetensors *safetensors;
	struct reason reason = {""};

	ck_assert_msg(file_parse(&file, &safetensors, &reason) == 0, "%s", reason.text);
	ck_assert_uint_eq(safetensors->data_offset, file.header_bytes);
	ck_assert_uint_eq(safetensors->file_bytes, file.file_bytes);
	ck_assert_uint_eq(safetensors->entry_count, 4);
	ck_assert_str_eq(safetensors->entries[0].name, "scale");
	ck_assert_str_eq(safetensors->entries[1].name, "empty");
	ck_assert_str_eq(safetensors->entries[2].name, "head.weight");
	ck_assert_str_eq(safetensors->entries[3].name, "a/b");
	entry = safetensors_find(safetensors, "head.weight");
	ck_assert_ptr_nonnull(entry);
	ck_assert_int_eq(entry->dtype, DTYPE_BF16);
	ck_assert_uint_eq(entry->dimension_count, 2);
	ck_assert_uint_eq(entry->extents[0], 3);
	ck_assert_uint_eq(entry->extents[1], 2);
	ck_assert_uint_eq(entry->offset, file.header_bytes + 8);
	ck_assert_uint_eq(entry->bytes, 12);
	ck_assert_uint_eq(safetensors_find(safetensors, "empty")->bytes, 0);
	ck_assert_uint_eq(safetensors_find(safetensors, "scale")->dimension_count, 0);
	ck_assert_ptr_null(safetensors_find(safetensors, "head"));
	ck_assert_ptr_null(safetensors_find(safetensors, "__metadata__"));
	ck_assert_uint_eq(safetensors->metadata_count, 3);
	ck_assert_str_eq(safetensors_metadata_get(safetensors, "step"), "17");
	ck_assert_str_eq(safetensors_metadata_get(safetensors, "format"), "pt");
	ck_assert_str_eq(safetensors_metadata_get(safetensors, "note"), "caf\xc3\xa9 \xf0\x9f\x98\x80 \"q\" \\ \n");
	ck_assert_ptr_null(safetensors_metadata_get(safetensors, "none"));
	safetensors_destroy(safetensors);
	free(file.bytes);
}
END_TEST

START_TEST(reads_a_file_without_tensors)
{
	static const char *const headers[] = {"{}", "{ }  ", "{\"__metadata__\":{}}",
	                                      "{\"__metadata__\":{\"a\":\"\"}}"};

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		struct file file = file_make(headers[i], strlen(headers[i]), 0);
		struct safetensors *safetensors;

		ck_assert_int_eq(file_parse(&file, &safetensors, NULL), 0);
		ck_assert_uint_eq(safetensors->entry_count, 0);
		ck_assert_ptr_null(safetensors_find(safetensors, "a"));
		safetensors_destroy(safetensors);
		free(file.bytes);
	}
}
END_TEST

#define J(literal) literal, sizeof(literal) - 1
/* One tensor 'w' with such members. */
#define W(members) J("{\"w\":{" members "}}")
#define F32_4(offsets) "\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":" offsets
#define LONG_50 "12345678901234567890123456789012345678901234567890"

static const struct {
	const char *json;
	size_t json_bytes;
	uint64_t data_bytes;
	const char *part; /* of the sentence */
} bad_headers[] = {
	/* Not the format. */
	{J(""), 0, "begin with '{'"},
	{J("[]"), 0, "begin with '{'"},
	{J(" {}"), 0, "begin with '{'"},
	{J("null"), 0, "begin with '{'"},
	{J("{"), 0, "a string expected at byte 1"},
	{J("{}\n"), 0, "byte 2 of the header, behind the JSON, is not a space"},
	{J("{}{}"), 0, "behind the JSON"},
	{J("{} \0"), 0, "behind the JSON"},
	{J("{,}"), 0, "a string expected"},
	{J("{\"w\"}"), 0, "':' expected"},
	{J("{\"w\":1}"), 0, "'{' expected"},
	{J("{\"w\":null}"), 0, "'{' expected"},
	{J("{\"w\":[]}"), 0, "'{' expected"},
	{J("{\"w\":{}}"), 0, "a string expected"},
	{J("{w:1}"), 0, "a string expected"},
	{J("{\"w"), 0, "does not end"},
	{J("{\"w\\"), 0, "does not end"},
	{W(F32_4("[0,16],")), 16, "a string expected"},
	{J("{\"w\":{" F32_4("[0,16]") "},}"), 16, "a string expected"},
	{J("{\"w\":{" F32_4("[0,16]") "}"), 16, "where it ends"},
	/* Members. */
	{W("\"dtype\":\"F32\",\"shape\":[4]"), 16, "tensor 'w' has no 'data_offsets'"},
	{W("\"dtype\":\"F32\",\"data_offsets\":[0,16]"), 16, "tensor 'w' has no 'shape'"},
	{W("\"shape\":[4],\"data_offsets\":[0,16]"), 16, "tensor 'w' has no 'dtype'"},
	{W(F32_4("[0,16]") ",\"shape\":[4]"), 16, "tensor 'w': 'shape' occurs twice"},
	{W(F32_4("[0,16]") ",\"extra\":[4]"), 16, "tensor 'w': 'extra' is not part of the format"},
	{W("\"dtype\":4"), 16, "a string expected"},
	{W("\"dtype\":\"" LONG_50 "\""), 16, "has 50 bytes, at most 31"},
	{W("\"dtype\":\"F32\",\"shape\":4"), 16, "'[' expected"},
	{W("\"dtype\":\"F32\",\"shape\":[[4]]"), 16, "a whole number expected"},
	{W("\"dtype\":\"F32\",\"shape\":{\"a\":4}"), 16, "'[' expected"},
	{W("\"dtype\":\"F32\",\"shape\":[4"), 16, "']' expected"},
	{W("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), 4, "more than 16 numbers"},
	/* Dtypes that the format has and we do not, and such that nobody has. */
	{W("\"dtype\":\"U16\",\"shape\":[4],\"data_offsets\":[0,8]"), 8,
         "tensor 'w' has dtype 'U16', which is not supported"},
	{W("\"dtype\":\"U32\",\"shape\":[4],\"data_offsets\":[0,16]"), 16, "'U32'"},
	{W("\"dtype\":\"U64\",\"shape\":[4],\"data_offsets\":[0,32]"), 32, "'U64'"},
	{W("\"dtype\":\"C64\",\"shape\":[4],\"data_offsets\":[0,32]"), 32, "'C64'"},
	{W("\"dtype\":\"F8_E8M0\",\"shape\":[4],\"data_offsets\":[0,4]"), 4, "'F8_E8M0'"},
	{W("\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]"), 2, "'F4'"},
	{W("\"dtype\":\"f32\",\"shape\":[4],\"data_offsets\":[0,16]"), 16, "'f32'"},
	{W("\"dtype\":\"\",\"shape\":[4],\"data_offsets\":[0,16]"), 16, "''"},
	/* Numbers. */
	{W(F32_4("[-0,16]")), 16, "a whole number expected"},
	{W(F32_4("[0,-16]")), 16, "a whole number expected"},
	{W(F32_4("[0.0,16]")), 16, "not a whole number"},
	{W(F32_4("[0,16.0]")), 16, "not a whole number"},
	{W(F32_4("[0,16e0]")), 16, "not a whole number"},
	{W(F32_4("[0,1E1]")), 16, "not a whole number"},
	{W(F32_4("[0,016]")), 16, "begins with a zero"},
	{W(F32_4("[0,0x10]")), 16, "']' expected at byte 51 of the header, found 'x'"},
	{W(F32_4("[0,\"16\"]")), 16, "a whole number expected"},
	{W(F32_4("[true,16]")), 16, "a whole number expected"},
	{W(F32_4("[0,NaN]")), 16, "a whole number expected"},
	{W(F32_4("[0,18446744073709551616]")), 16, "larger than 18446744073709551615"},
	{W(F32_4("[0,99999999999999999999999]")), 16, "larger than"},
	{W(F32_4("[]")), 16, "tensor 'w': data_offsets"},
	{W(F32_4("[16]")), 16, "tensor 'w': data_offsets"},
	{W(F32_4("[0,8,16]")), 16, "more than 2 numbers"},
	{W(F32_4("[16,0]")), 16, "tensor 'w': data_offsets"},
	/* Sizes. */
	{W(F32_4("[0,12]")), 12, "tensor 'w': shape [4] of F32 has 16 bytes, its data_offsets span 12"},
	{W("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"), 0, "than can be addressed"},
	{W("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0, "than can be addressed"},
	{W("\"dtype\":\"U8\",\"shape\":[18446744073709551615],\"data_offsets\":[0,18446744073709551615]"), 0,
         "addressed"},
	/* Places. */
	{W(F32_4("[0,16]")), 15, "tensor 'w' ends at byte 16 of the data, of which there are 15"},
	{W(F32_4("[0,16]")), 17, "the tensors end at byte 16 of the data, of which there are 17"},
	{W(F32_4("[4,20]")), 20, "tensor 'w' begins at byte 4 of the data, where 0 is expected: there is a hole"},
	{W("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[18446744073709551613,18446744073709551615]"), 2, "a hole"},
	{J("{}"), 1, "the tensors end at byte 0"},
	{J("{\"a\":{" F32_4("[0,16]") "},\"b\":{" F32_4("[12,28]") "}}"), 28,
         "tensor 'b' begins at byte 12 of the data, "
         "where 16 is expected: tensors overlap"},
	{J("{\"a\":{" F32_4("[0,16]") "},\"b\":{" F32_4("[0,16]") "}}"), 16, "overlap"},
	{J("{\"a\":{" F32_4("[20,36]") "},\"b\":{" F32_4("[0,16]") "}}"), 36, "tensor 'a' begins at byte 20"},
	/* Names. */
	{J("{\"a\":{" F32_4("[0,16]") "},\"a\":{" F32_4("[16,32]") "}}"), 32, "tensor 'a' occurs twice"},
	{J("{\"a\":{" F32_4("[0,16]") "},\"\\u0061\":{" F32_4("[16,32]") "}}"), 32, "tensor 'a' occurs twice"},
	{J("{\"\":{" F32_4("[0,16]") "}}"), 16, "empty"},
	{J("{\"a\\u0000b\":{" F32_4("[0,16]") "}}"), 16, "control character"},
	{J("{\"a\0b\":{" F32_4("[0,16]") "}}"), 16, "control character"},
	{J("{\"a\\nb\":{" F32_4("[0,16]") "}}"), 16, "control character"},
	{J("{\"a\nb\":{" F32_4("[0,16]") "}}"), 16, "control character"},
	{J("{\"a\xff\":{" F32_4("[0,16]") "}}"), 16, "not UTF-8"},
	{J("{\"a\\ud800\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	{J("{\"a\\udc00\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	{J("{\"a\\ud800\\u0041\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	{J("{\"a\\u00g0\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	{J("{\"a\\u00\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	{J("{\"a\\x41\":{" F32_4("[0,16]") "}}"), 16, "escape"},
	/* Metadata. */
	{J("{\"__metadata__\":[]}"), 0, "'{' expected"},
	{J("{\"__metadata__\":null}"), 0, "'{' expected"},
	{J("{\"__metadata__\":{\"a\":1}}"), 0, "a string expected"},
	{J("{\"__metadata__\":{\"a\":null}}"), 0, "a string expected"},
	{J("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}"), 0, "a string expected"},
	{J("{\"__metadata__\":{\"a\"}}"), 0, "':' expected"},
	{J("{\"__metadata__\":{\"a\":\"b\",}}"), 0, "a string expected"},
	{J("{\"__metadata__\":{\"a\":\"b\""), 0, "'}' expected"},
	{J("{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}"), 0, "the key 'a' of __metadata__ occurs twice"},
	{J("{\"__metadata__\":{\"a\":\"\\u0000\"}}"), 0, "control character"},
	{J("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, "__metadata__ occurs twice"},
	{J("{\"__metadata__\":{},\"__metadata\\u005f_\":{}}"), 0, "__metadata__ occurs twice"},
};

START_TEST(refuses_a_bad_header_with_a_sentence)
{
	struct file file = file_make(bad_headers[_i].json, bad_headers[_i].json_bytes, bad_headers[_i].data_bytes);
	struct safetensors *safetensors = NULL;
	struct reason reason = {""};

	ck_assert_int_eq(file_parse(&file, &safetensors, &reason), STATUS_ECORRUPT);
	ck_assert_msg(strstr(reason.text, bad_headers[_i].part) != NULL, "%s: %s", bad_headers[_i].json, reason.text);
	ck_assert_ptr_null(safetensors);
	free(file.bytes);
}
END_TEST

START_TEST(believes_no_header_size_beyond_the_file_or_the_limit)
{
	static const uint8_t large[8] = {0x01, 0xe1, 0xf5, 0x05}, huge[8] = {255, 255, 255, 255, 255, 255, 255, 255};
	static const uint8_t two[10] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
	struct safetensors *safetensors = NULL;
	struct reason reason;
	uint64_t bytes = 5;

	ck_assert_int_eq(safetensors_header_bytes(large, UINT64_MAX, &bytes, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "the header claims 100000001 bytes, at most 100000000 are allowed");
	ck_assert_int_eq(safetensors_header_bytes(huge, UINT64_MAX, &bytes, NULL), STATUS_ECORRUPT);
	ck_assert_int_eq(safetensors_header_bytes(two, 9, &bytes, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "the header claims 2 bytes, but the file has 9");
	ck_assert_int_eq(safetensors_header_bytes(two, 7, &bytes, NULL), STATUS_ECORRUPT);
	ck_assert_uint_eq(bytes, 5);
	ck_assert_int_eq(safetensors_header_bytes(two, 10, &bytes, NULL), 0);
	ck_assert_uint_eq(bytes, 10);
	for (uint64_t available = 0; available < 10; available++)
		ck_assert_int_eq(safetensors_parse(two, available, 10, &safetensors, NULL), STATUS_ECORRUPT);
	ck_assert_int_eq(safetensors_parse(two, 10, 10, &safetensors, NULL), 0);
	safetensors_destroy(safetensors);
}
END_TEST

START_TEST(refuses_every_prefix_and_survives_every_flipped_bit)
{
	struct safetensors *safetensors;

	for (size_t bytes = 0; bytes < strlen(good) - 3; bytes++) {
		struct file file = file_make(good, bytes, 21);

		ck_assert_int_eq(file_parse(&file, &safetensors, NULL), STATUS_ECORRUPT);
		free(file.bytes);
	}
	for (size_t bit = 0; bit < 8 * (8 + strlen(good)); bit++) {
		struct file file = file_make(good, strlen(good), 21);

		file.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (file_parse(&file, &safetensors, NULL) == 0)
			safetensors_destroy(safetensors);
		free(file.bytes);
	}
}
END_TEST

START_TEST(deep_nesting_is_refused_where_it_begins)
{
	enum { DEPTH = 1000000 };
	char *json = malloc(DEPTH);
	struct safetensors *safetensors;
	struct reason reason;
	struct file file;

	ck_assert_ptr_nonnull(json);
	memset(json, '[', DEPTH);
	memcpy(json, "{\"w\":{\"shape\":", strlen("{\"w\":{\"shape\":"));
	file = file_make(json, DEPTH, 0);
	ck_assert_int_eq(file_parse(&file, &safetensors, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "a whole number expected at byte 15 of the header, found '['");
	free(file.bytes);
	free(json);
}
END_TEST

START_TEST(names_and_metadata_end_at_their_limits)
{
	size_t capacity = 64 * (TENSOR_COUNT_MAX + 2), used;
	char *json = malloc(capacity);
	struct safetensors *safetensors;
	struct reason reason;
	struct file file;

	ck_assert_ptr_nonnull(json);
	used = (size_t)snprintf(json, capacity, "{\"%0600d\":{" F32_4("[0,16]") "}}", 1);
	file = file_make(json, used, 16);
	ck_assert_int_eq(file_parse(&file, &safetensors, &reason), STATUS_ECORRUPT);
	ck_assert_ptr_nonnull(strstr(reason.text, "600 bytes, at most 512"));
	free(file.bytes);
	used = (size_t)snprintf(json, capacity, "{\"__metadata__\":{\"k\":\"v\"");
	for (int i = 0; i < SAFETENSORS_METADATA_COUNT_MAX; i++)
		used += (size_t)snprintf(json + used, capacity - used, ",\"%d\":\"\"", i);
	file = file_make(json, used, 0);
	ck_assert_int_eq(file_parse(&file, &safetensors, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "more than 10000 keys in __metadata__");
	free(file.bytes);
	used = (size_t)snprintf(json, capacity, "{\"__metadata__\":{}");
	for (int i = 0; i <= TENSOR_COUNT_MAX; i++)
		used += (size_t)snprintf(json + used, capacity - used,
		                         ",\"%d\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}", i);
	file = file_make(json, used, 0);
	ck_assert_int_eq(file_parse(&file, &safetensors, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "more than 100000 tensors");
	free(file.bytes);
	free(json);
}
END_TEST

START_TEST(reads_ten_thousand_tensors_in_no_time)
{
	size_t capacity = 10000 * 200, used = 1;
	struct safetensors *safetensors;
	char *json = malloc(capacity);
	clock_t start, taken;
	struct file file;

	ck_assert_ptr_nonnull(json);
	json[0] = '{';
	for (int i = 0; i < 10000; i++)
		used += (size_t)snprintf(
			json + used, capacity - used,
			"%s\"encoder.layers.%d.attention.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[16,64],"
			"\"data_offsets\":[%d,%d]}",
			i > 0 ? "," : "", i, 4096 * i, 4096 * (i + 1));
	json[used++] = '}';
	file = file_make(json, used, 10000 * 4096);
	start = clock();
	ck_assert_int_eq(file_parse(&file, &safetensors, NULL), 0);
	taken = clock() - start;
	ck_assert_uint_eq(safetensors->entry_count, 10000);
	ck_assert_ptr_nonnull(safetensors_find(safetensors, "encoder.layers.9999.attention.q_proj.weight"));
	/* A hundred times what it takes. */
	ck_assert_msg(taken < CLOCKS_PER_SEC, "%ld us", (long)(taken * 1000000 / CLOCKS_PER_SEC));
	if (getenv("SAFETENSORS_TIMES"))
		fprintf(stderr, "%zu bytes in %ld us\n", used, (long)(taken * 1000000 / CLOCKS_PER_SEC));
	safetensors_destroy(safetensors);
	free(file.bytes);
	free(json);
}
END_TEST

static int good_parse(void *context)
{
	struct safetensors *safetensors = NULL;
	int r = file_parse(context, &safetensors, NULL);

	safetensors_destroy(safetensors);
	return r;
}

START_TEST(every_allocation_may_fail)
{
	struct file file = file_make(good, strlen(good), 21);

	ck_assert_uint_ge(failing_heap_sweep(good_parse, &file), 14);
	free(file.bytes);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *suite = suite_create("safetensors");
	TCase *tcase = tcase_create("safetensors");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, reads_what_the_format_allows);
	tcase_add_test(tcase, reads_a_file_without_tensors);
	tcase_add_loop_test(tcase, refuses_a_bad_header_with_a_sentence, 0, COUNT(bad_headers));
	tcase_add_test(tcase, believes_no_header_size_beyond_the_file_or_the_limit);
	tcase_add_test(tcase, refuses_every_prefix_and_survives_every_flipped_bit);
	tcase_add_test(tcase, deep_nesting_is_refused_where_it_begins);
	tcase_add_test(tcase, names_and_metadata_end_at_their_limits);
	tcase_add_test(tcase, reads_ten_thousand_tensors_in_no_time);
	tcase_add_test(tcase, every_allocation_may_fail);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
