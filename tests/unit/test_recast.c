/*
 * The layout of a converted image: the header that is made is read again by our own reader, which refuses holes,
 * overlaps and sizes that do not fit.
 */
#include "client/recast.h"

#include "proto/image.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct safetensors *parsed(const uint8_t *header, uint64_t header_bytes, uint64_t file_bytes)
{
	struct safetensors *safetensors;
	struct reason reason = {""};

	ck_assert_msg(safetensors_parse(header, header_bytes, file_bytes, &safetensors, &reason) == 0, "%s",
	              reason.text);
	return safetensors;
}

static struct safetensors *parsed_json(const char *json, uint64_t data_bytes)
{
	size_t json_bytes = strlen(json);
	uint8_t *header = malloc(8 + json_bytes);
	struct safetensors *safetensors;

	ck_assert_ptr_nonnull(header);
	for (unsigned i = 0; i < 8; i++)
		header[i] = (uint8_t)((uint64_t)json_bytes >> 8 * i);
	memcpy(header + 8, json, json_bytes);
	safetensors = parsed(header, 8 + json_bytes, 8 + json_bytes + data_bytes);
	free(header);
	return safetensors;
}

/* As an image lies in a slot: doubles, counters, averages, a copied buffer that kept its two bytes, flags. */
static const char mixed[] =
	"{\"double\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]},"
	"\"count\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[16,24]},"
	"\"w\\\"1\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[24,48]},"
	"\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[48,48]},"
	"\"index\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[48,52]},"
	"\"brain\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[52,58]},"
	"\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[58,59]},"
	"\"__metadata__\":{\"format\":\"pt\","
	"\"emad.attributes\":\"{\\\"nc\\\": \\\"caf\\u00e9\\\"}\",\"emad.dtype\":\"F64\"}}";

enum { MIXED_DATA_BYTES = 59, MIXED_COUNT = 7 };

static struct recast *recast_of(const struct safetensors *image, enum dtype dtype)
{
	struct reason reason = {""};
	struct recast *recast;

	ck_assert_msg(recast_create(image, dtype, NULL, &recast, &reason) == 0, "%s", reason.text);
	return recast;
}

START_TEST(orders_the_tensors_by_their_new_size_and_keeps_integers)
{
	static const struct {
		enum dtype dtype;
		const char *names[MIXED_COUNT];
	} CASES[] = {
		/* I64 is behind F64, I32 behind F32, as in the order of the dtypes. */
		{DTYPE_F64, {"double", "w\"1", "none", "brain", "count", "index", "flag"}},
		{DTYPE_F32, {"count", "double", "w\"1", "none", "brain", "index", "flag"}},
		{DTYPE_BF16, {"count", "index", "double", "w\"1", "none", "brain", "flag"}},
		{DTYPE_F8_E4M3, {"count", "index", "double", "w\"1", "none", "brain", "flag"}},
	};
	struct safetensors *image = parsed_json(mixed, MIXED_DATA_BYTES), *file;
	struct recast *recast;

	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
		uint64_t at;

		recast = recast_of(image, CASES[i].dtype);
		file = parsed(recast->header, recast->header_bytes, recast->file_bytes);
		at = recast->header_bytes;
		ck_assert_uint_eq(recast->tensor_count, MIXED_COUNT);
		ck_assert_uint_eq(file->entry_count, MIXED_COUNT);
		for (uint32_t t = 0; t < MIXED_COUNT; t++) {
			const struct recast_tensor *tensor = &recast->tensors[t];
			const struct safetensors_entry *before = &image->entries[tensor->index];
			const struct safetensors_entry *after = safetensors_find(file, CASES[i].names[t]);

			ck_assert_ptr_nonnull(after);
			ck_assert_str_eq(before->name, CASES[i].names[t]);
			ck_assert_int_eq(after->dtype, dtype_is_float(before->dtype) ? CASES[i].dtype : before->dtype);
			ck_assert_int_eq(after->dtype, tensor->dtype);
			ck_assert_uint_eq(after->dimension_count, before->dimension_count);
			ck_assert_mem_eq(after->extents, before->extents, sizeof(after->extents));
			ck_assert_uint_eq(after->offset, at);
			ck_assert_uint_eq(after->bytes, tensor->bytes);
			ck_assert_uint_eq(tensor->bytes, tensor->element_count * dtype_bytes(tensor->dtype));
			at += after->bytes;
		}
		ck_assert_uint_eq(at, recast->file_bytes);
		safetensors_destroy(file);
		recast_destroy(recast);
	}
	safetensors_destroy(image);
}
END_TEST

START_TEST(tensors_begin_on_a_page_and_metadata_are_kept_with_the_dtype)
{
	struct safetensors *image = parsed_json(mixed, MIXED_DATA_BYTES), *file;
	struct recast *recast = recast_of(image, DTYPE_F8_E5M2);

	ck_assert_uint_eq(recast->header_bytes, IMAGE_PAGE_BYTES);
	file = parsed(recast->header, recast->header_bytes, recast->file_bytes);
	ck_assert_uint_eq(file->metadata_count, 3);
	ck_assert_str_eq(safetensors_metadata_get(file, "format"), "pt");
	ck_assert_str_eq(safetensors_metadata_get(file, "emad.attributes"), "{\"nc\": \"caf\u00e9\"}");
	ck_assert_str_eq(safetensors_metadata_get(file, "emad.dtype"), "F8_E5M2");
	safetensors_destroy(file);
	recast_destroy(recast);
	safetensors_destroy(image);
}
END_TEST

START_TEST(some_tensors_alone_keep_order_dtype_and_metadata)
{
	static const char *const names[] = {"double", "w\"1", "index", "flag"};
	const bool chosen[MIXED_COUNT] = {true, false, true, false, true, false, true};
	struct safetensors *image = parsed_json(mixed, MIXED_DATA_BYTES), *file;
	struct reason reason = {""};
	struct recast *recast;

	ck_assert_int_eq(recast_create(image, RUNS_AS_KEPT, chosen, &recast, &reason), 0);
	file = parsed(recast->header, recast->header_bytes, recast->file_bytes);
	ck_assert_uint_eq(file->entry_count, 4);
	ck_assert_uint_eq(recast->file_bytes, recast->header_bytes + 16 + 24 + 4 + 1);
	for (int i = 0; i < 4; i++) {
		const struct safetensors_entry *before = safetensors_find(image, names[i]);

		ck_assert_str_eq(file->entries[i].name, names[i]);
		ck_assert_int_eq(file->entries[i].dtype, before->dtype);
		ck_assert_str_eq(image->entries[recast->tensors[i].index].name, names[i]);
	}
	/* What the image says of itself goes on to hold. */
	ck_assert_str_eq(safetensors_metadata_get(file, "emad.dtype"), "F64");
	ck_assert_uint_eq(file->metadata_count, 3);
	safetensors_destroy(file);
	recast_destroy(recast);
	safetensors_destroy(image);
}
END_TEST

START_TEST(a_header_of_any_length_ends_on_a_page)
{
	for (unsigned padding = 0; padding < 200; padding++) {
		struct safetensors *image, *file;
		struct recast *recast;
		char json[4500];

		snprintf(json, sizeof(json),
		         "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		         "\"__metadata__\":{\"%0*d\":\"\"}}",
		         (int)(3900 + padding), 0);
		image = parsed_json(json, 4);
		recast = recast_of(image, DTYPE_F16);
		ck_assert_uint_eq(recast->header_bytes % IMAGE_PAGE_BYTES, 0);
		ck_assert_uint_ge(recast->header_bytes, IMAGE_PAGE_BYTES);
		ck_assert_uint_le(recast->header_bytes, 2 * IMAGE_PAGE_BYTES);
		ck_assert_uint_eq(recast->file_bytes, recast->header_bytes + 2);
		file = parsed(recast->header, recast->header_bytes, recast->file_bytes);
		safetensors_destroy(file);
		recast_destroy(recast);
		safetensors_destroy(image);
	}
}
END_TEST

START_TEST(a_file_without_tensors_or_metadata_has_a_header_too)
{
	struct safetensors *image = parsed_json("{}", 0), *file;
	struct recast *recast = recast_of(image, DTYPE_F16);

	file = parsed(recast->header, recast->header_bytes, recast->file_bytes);
	ck_assert_uint_eq(file->entry_count, 0);
	ck_assert_str_eq(safetensors_metadata_get(file, "emad.dtype"), "F16");
	safetensors_destroy(file);
	recast_destroy(recast);
	safetensors_destroy(image);
}
END_TEST

START_TEST(refuses_what_could_not_be_addressed)
{
	const uint64_t elements = (uint64_t)INT64_MAX / 4;
	struct safetensors *image;
	struct reason reason = {""};
	struct recast *recast = NULL;
	char json[256];

	snprintf(json, sizeof(json), "{\"huge\":{\"dtype\":\"F8_E5M2\",\"shape\":[%llu],\"data_offsets\":[0,%llu]}}",
	         (unsigned long long)elements, (unsigned long long)elements);
	image = parsed_json(json, elements);
	ck_assert_int_eq(recast_create(image, DTYPE_F64, NULL, &recast, &reason), STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "'huge' as F64"));
	ck_assert_ptr_null(recast);
	recast_destroy(recast_of(image, DTYPE_F8_E4M3));
	recast_destroy(NULL);
	safetensors_destroy(image);
}
END_TEST

static int mixed_recast(void *context)
{
	struct recast *recast = NULL;
	int code = recast_create(context, DTYPE_F16, NULL, &recast, NULL);

	recast_destroy(recast);
	return code;
}

START_TEST(every_allocation_may_fail)
{
	struct safetensors *image = parsed_json(mixed, MIXED_DATA_BYTES);

	ck_assert_uint_eq(failing_heap_sweep(mixed_recast, image), 3);
	safetensors_destroy(image);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recast");
	TCase *cases = tcase_create("recast");
	SRunner *runner;
	int failed;

	tcase_add_test(cases, orders_the_tensors_by_their_new_size_and_keeps_integers);
	tcase_add_test(cases, tensors_begin_on_a_page_and_metadata_are_kept_with_the_dtype);
	tcase_add_test(cases, some_tensors_alone_keep_order_dtype_and_metadata);
	tcase_add_test(cases, a_header_of_any_length_ends_on_a_page);
	tcase_add_test(cases, a_file_without_tensors_or_metadata_has_a_header_too);
	tcase_add_test(cases, refuses_what_could_not_be_addressed);
	tcase_add_test(cases, every_allocation_may_fail);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
