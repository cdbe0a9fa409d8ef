/*
 * The image: the order of the tensors, the header as bytes, and that our own reader reads it.
 */
#include "proto/image.h"

#include "proto/safetensors.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
	const char *name;
	enum dtype dtype;
	bool is_buffer;
	uint64_t elements;
};

static struct manifest *manifest_of(const struct row *rows, uint32_t count)
{
	struct manifest *manifest;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	for (uint32_t i = 0; i < count; i++) {
		ck_assert_int_eq(manifest_add_tensor(manifest, rows[i].name, strlen(rows[i].name), rows[i].dtype,
		                                     rows[i].is_buffer, &rows[i].elements, 1, NULL),
		                 0);
		ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	return manifest;
}

static struct profile profile_of(const char *text)
{
	struct profile profile;

	ck_assert_int_eq(profile_parse(text, strlen(text), &profile, NULL), 0);
	return profile;
}

static struct image *image_of(const struct manifest *manifest, const char *schedule, size_t metadata_capacity)
{
	struct profile profile = profile_of(schedule);
	struct reason reason = {""};
	struct image *image;

	ck_assert_msg(image_create(manifest, &profile, metadata_capacity, &image, &reason) == 0, "%s", reason.text);
	return image;
}

static const struct row mixed[] = {
	{"bool", DTYPE_BOOL, true, 3},  {"half", DTYPE_F16, false, 5}, {"single", DTYPE_F32, false, 2},
	{"count", DTYPE_I64, true, 1},  {"mean", DTYPE_F32, true, 4},  {"double", DTYPE_F64, false, 1},
	{"brain", DTYPE_BF16, false, 3}, {"mean2", DTYPE_BF16, true, 2}, {"other", DTYPE_F32, false, 1},
	{"none", DTYPE_F32, false, 0},
};

enum { MIXED_COUNT = sizeof(mixed) / sizeof(mixed[0]) };

struct place {
	const char *name;
	enum dtype dtype;
	enum schedule_entry entry;
	uint64_t offset, bytes;
};

/* k-diffusion copies buffers, and keeps their dtype: F32 averaged before copied, and BF16 at two bytes. */
static const struct place copied[MIXED_COUNT] = {
	{"double", DTYPE_F64, ENTRY_AVERAGE, 0, 8},   {"count", DTYPE_I64, ENTRY_COPY, 8, 8},
	{"single", DTYPE_F32, ENTRY_AVERAGE, 16, 8},  {"other", DTYPE_F32, ENTRY_AVERAGE, 24, 4},
	{"none", DTYPE_F32, ENTRY_AVERAGE, 28, 0},    {"mean", DTYPE_F32, ENTRY_COPY, 28, 16},
	{"half", DTYPE_F32, ENTRY_AVERAGE, 44, 20},   {"brain", DTYPE_F32, ENTRY_AVERAGE, 64, 12},
	{"mean2", DTYPE_BF16, ENTRY_COPY, 76, 4},     {"bool", DTYPE_BOOL, ENTRY_COPY, 80, 3},
};

/* yolo averages float buffers and freezes integers. */
static const struct place averaged[MIXED_COUNT] = {
	{"double", DTYPE_F64, ENTRY_AVERAGE, 0, 8},   {"count", DTYPE_I64, ENTRY_FREEZE, 8, 8},
	{"single", DTYPE_F32, ENTRY_AVERAGE, 16, 8},  {"mean", DTYPE_F32, ENTRY_AVERAGE, 24, 16},
	{"other", DTYPE_F32, ENTRY_AVERAGE, 40, 4},   {"none", DTYPE_F32, ENTRY_AVERAGE, 44, 0},
	{"half", DTYPE_F32, ENTRY_AVERAGE, 44, 20},   {"brain", DTYPE_F32, ENTRY_AVERAGE, 64, 12},
	{"mean2", DTYPE_F32, ENTRY_AVERAGE, 76, 8},   {"bool", DTYPE_BOOL, ENTRY_FREEZE, 84, 3},
};

/* diffusers holds parameters only. */
static const struct place parameters[] = {
	{"double", DTYPE_F64, ENTRY_AVERAGE, 0, 8},  {"single", DTYPE_F32, ENTRY_AVERAGE, 8, 8},
	{"other", DTYPE_F32, ENTRY_AVERAGE, 16, 4},  {"none", DTYPE_F32, ENTRY_AVERAGE, 20, 0},
	{"half", DTYPE_F32, ENTRY_AVERAGE, 20, 20},  {"brain", DTYPE_F32, ENTRY_AVERAGE, 40, 12},
};

static const struct {
	const char *schedule;
	const struct place *places;
	uint32_t count;
} orders[] = {
	{"p=k-diffusion", copied, MIXED_COUNT},
	{"p=yolo", averaged, MIXED_COUNT},
	{"p=diffusers", parameters, sizeof(parameters) / sizeof(parameters[0])},
};

START_TEST(a_dtype_s_tensors_lie_together_in_the_order_that_runs_are_known_by)
{
	struct manifest *manifest = manifest_of(mixed, sizeof(mixed) / sizeof(mixed[0]));
	struct image *image = image_of(manifest, "ema=constant:decay=0.5;copy=mean*;copy=half", 0);
	uint64_t at = 0;
	uint32_t i = 0;

	for (uint64_t width = 8; width > 0; width /= 2) {
		for (enum dtype dtype = 0; dtype < DTYPE_COUNT; dtype++) {
			if (dtype_bytes(dtype) != width)
				continue;
			at += image->runs.bytes[dtype];
			while (i < image->tensor_count && image->tensors[i].offset + image->tensors[i].bytes <= at &&
			       image->tensors[i].dtype == dtype)
				i++;
		}
	}
	ck_assert_uint_eq(i, image->tensor_count);
	ck_assert_uint_eq(at, image->data_bytes);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(orders_by_width_dtype_pushed_dtype_entry_and_manifest)
{
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);
	struct image *image = image_of(manifest, orders[_i].schedule, 0);
	uint32_t held = 0;

	ck_assert_uint_eq(image->tensor_count, orders[_i].count);
	for (uint32_t i = 0; i < image->tensor_count; i++) {
		const struct image_tensor *tensor = &image->tensors[i];
		const struct place *place = &orders[_i].places[i];

		ck_assert_str_eq(manifest->tensors[tensor->tensor].name, place->name);
		ck_assert_int_eq(tensor->dtype, place->dtype);
		ck_assert_int_eq(tensor->entry, place->entry);
		ck_assert_uint_eq(tensor->offset, place->offset);
		ck_assert_uint_eq(tensor->bytes, place->bytes);
		ck_assert_uint_eq(tensor->offset % dtype_bytes(tensor->dtype), 0);
		ck_assert_uint_eq(image->index_of[tensor->tensor], i);
	}
	for (uint32_t i = 0; i < MIXED_COUNT; i++)
		held += image->index_of[i] != UINT32_MAX;
	ck_assert_uint_eq(held, image->tensor_count);
	ck_assert_uint_eq(image->data_offset % IMAGE_PAGE_BYTES, 0);
	ck_assert_uint_eq(image->image_bytes, image->data_offset + image->data_bytes);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(writes_this_header)
{
	static const char expected[] =
		"{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
		"\"q\\\"\\\\\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[12,12]},"
		"\"__metadata__\":{\"format\":\"pt\",\"note\":\"a\\u0009\\u001f\\\"\\\\/b\x7f\xc3\xa9\"}}";
	static const struct row rows[] = {{"q\"\\\xc3\xa9", DTYPE_U8, false, 0}, {"w", DTYPE_BF16, false, 3}};
	static const char note[] = "a\t\x1f\"\\/b\x7f\xc3\xa9";
	const struct image_metadata metadata[] = {{"format", "pt", 2}, {"note", note, sizeof(note) - 1}};
	struct manifest *manifest = manifest_of(rows, 2);
	struct image *image = image_of(manifest, "p=timm", 100);
	uint8_t *region = malloc(image->image_bytes);

	ck_assert_ptr_nonnull(region);
	memset(region, 0xaa, image->image_bytes);
	ck_assert_uint_eq(image->data_offset, IMAGE_PAGE_BYTES);
	ck_assert_int_eq(image_header_write(image, region, metadata, 2, NULL), 0);
	ck_assert_mem_eq(region, "\xf8\x0f\0\0\0\0\0\0", 8);
	ck_assert_mem_eq(region + 8, expected, strlen(expected));
	for (size_t i = 8 + strlen(expected); i < image->data_offset; i++)
		ck_assert_uint_eq(region[i], ' ');
	for (size_t i = image->data_offset; i < image->image_bytes; i++)
		ck_assert_uint_eq(region[i], 0xaa);
	free(region);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

static void assert_reads_back(const struct image *image, const struct manifest *manifest, const uint8_t *region)
{
	struct safetensors *safetensors;
	struct reason reason = {""};

	ck_assert_msg(safetensors_parse(region, image->data_offset, image->image_bytes, &safetensors, &reason) == 0,
	              "%s", reason.text);
	ck_assert_uint_eq(safetensors->data_offset, image->data_offset);
	ck_assert_uint_eq(safetensors->entry_count, image->tensor_count);
	for (uint32_t i = 0; i < image->tensor_count; i++) {
		const struct image_tensor *tensor = &image->tensors[i];
		const struct tensor *origin = &manifest->tensors[tensor->tensor];
		const struct safetensors_entry *entry = safetensors_find(safetensors, origin->name);

		ck_assert_ptr_nonnull(entry);
		ck_assert_int_eq(entry->dtype, tensor->dtype);
		ck_assert_uint_eq(entry->offset, image->data_offset + tensor->offset);
		ck_assert_uint_eq(entry->bytes, tensor->bytes);
		ck_assert_uint_eq(entry->dimension_count, origin->dimension_count);
		ck_assert_mem_eq(entry->extents, origin->extents, sizeof(entry->extents));
	}
	ck_assert_uint_eq(safetensors->metadata_count, 1);
	ck_assert_str_eq(safetensors_metadata_get(safetensors, "emad.step"), "17\n");
	safetensors_destroy(safetensors);
}

START_TEST(is_read_back_by_our_own_reader)
{
	const struct image_metadata metadata = {"emad.step", "17\n", 3};
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);
	struct image *image = image_of(manifest, orders[_i].schedule, 1000);
	uint8_t *region = malloc(image->data_offset);

	ck_assert_ptr_nonnull(region);
	ck_assert_int_eq(image_header_write(image, region, &metadata, 1, NULL), 0);
	assert_reads_back(image, manifest, region);
	free(region);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(a_new_version_rewrites_all_of_the_old_metadata)
{
	const struct image_metadata first = {"a long key that is gone afterwards", "and its value", 13};
	const struct image_metadata second = {"emad.step", "17\n", 3};
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);
	struct image *image = image_of(manifest, "p=yolo", 1000);
	uint8_t *region = malloc(image->data_offset);

	ck_assert_ptr_nonnull(region);
	ck_assert_int_eq(image_header_write(image, region, &first, 1, NULL), 0);
	ck_assert_int_eq(image_header_write(image, region, &second, 1, NULL), 0);
	assert_reads_back(image, manifest, region);
	free(region);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(metadata_that_do_not_fit_leave_the_region_untouched)
{
	static char value[IMAGE_PAGE_BYTES];
	struct image_metadata metadata = {"k", value, sizeof(value)};
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);
	struct image *image = image_of(manifest, "p=yolo", 10);
	size_t room = image->data_offset - 8 - image->header_fixed_bytes;
	size_t fits = room - strlen(",\"__metadata__\":{\"k\":\"\"}}");
	uint8_t *region = malloc(image->data_offset);
	struct reason reason;
	char expected[100];

	ck_assert_ptr_nonnull(region);
	memset(value, 'v', sizeof(value));
	memset(region, 0xaa, image->data_offset);
	metadata.value_bytes = fits + 1;
	ck_assert_int_eq(image_header_write(image, region, &metadata, 1, &reason), STATUS_ELIMIT);
	snprintf(expected, sizeof(expected), "the metadata have %zu bytes as JSON, there is room for %zu", room + 1,
	         room);
	ck_assert_str_eq(reason.text, expected);
	for (size_t i = 0; i < image->data_offset; i++)
		ck_assert_uint_eq(region[i], 0xaa);
	metadata.value_bytes = fits;
	ck_assert_int_eq(image_header_write(image, region, &metadata, 1, NULL), 0);
	ck_assert_mem_eq(region + image->data_offset - 3, "\"}}", 3);
	free(region);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(metadata_that_no_reader_takes_are_refused)
{
	static const struct image_metadata bad[] = {{"k", "a\0b", 3}, {"k", "\xff", 1}, {"\xc3", "v", 1}};
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);
	struct image *image = image_of(manifest, "p=yolo", 100);
	uint8_t *region = calloc(1, image->data_offset);

	ck_assert_ptr_nonnull(region);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(image_header_write(image, region, &bad[i], 1, NULL), STATUS_EARGUMENT);
	ck_assert_uint_eq(region[0], 0);
	free(region);
	image_destroy(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(has_room_for_the_metadata_that_were_asked_for)
{
	static char value[20000];
	struct manifest *manifest = manifest_of(mixed, MIXED_COUNT);

	memset(value, 'v', sizeof(value));
	for (size_t capacity = 6; capacity < sizeof(value); capacity += 61) {
		struct image *image = image_of(manifest, "p=yolo", capacity);
		/* "k":"v..." */
		struct image_metadata metadata = {"k", value, capacity - 6};
		uint8_t *region = malloc(image->data_offset);

		ck_assert_ptr_nonnull(region);
		ck_assert_int_eq(image_header_write(image, region, &metadata, 1, NULL), 0);
		free(region);
		image_destroy(image);
	}
	manifest_destroy(manifest);
}
END_TEST

START_TEST(refuses_a_profile_that_drops_every_tensor)
{
	static const struct row buffers[] = {{"mean", DTYPE_F32, true, 3}, {"count", DTYPE_I64, true, 1}};
	struct manifest *manifest = manifest_of(buffers, 2);
	struct profile profile = profile_of("only=diffusers");
	struct image *image = NULL;
	struct reason reason;

	ck_assert_int_eq(image_create(manifest, &profile, 0, &image, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text,
	                 "profile 'only' holds none of the 2 tensors: its schedule diffusers keeps parameters only");
	profile = profile_of("only=yolo;drop=count;drop=m*");
	ck_assert_int_eq(image_create(manifest, &profile, 0, &image, &reason), STATUS_EPROFILE);
	ck_assert_str_eq(reason.text,
	                 "profile 'only' holds none of the 2 tensors: its rules and its schedule yolo drop them all");
	ck_assert_ptr_null(image);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(refuses_averages_and_headers_beyond_the_limits)
{
	static const struct row wide[] = {{"w", DTYPE_F8_E4M3, false, INT64_MAX / 2}};
	static const struct row two[] = {{"a", DTYPE_F32, false, INT64_MAX / 16},
	                                 {"b", DTYPE_F32, false, INT64_MAX / 16 + 9}};
	struct manifest *manifest = manifest_of(wide, 1);
	struct profile profile = profile_of("p=yolo");
	struct image *image = NULL;
	struct reason reason;

	/* A byte as pushed, four in the average. */
	ck_assert_int_eq(image_create(manifest, &profile, 0, &image, &reason), STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "'w'"));
	manifest_destroy(manifest);
	manifest = manifest_of(two, 2);
	ck_assert_int_eq(image_create(manifest, &profile, 0, &image, &reason), STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "'b'"));
	manifest_destroy(manifest);
	manifest = manifest_of(mixed, MIXED_COUNT);
	ck_assert_int_eq(image_create(manifest, &profile, 100000000, &image, &reason), STATUS_ELIMIT);
	ck_assert_int_eq(image_create(manifest, &profile, SIZE_MAX, &image, &reason), STATUS_ELIMIT);
	ck_assert_ptr_null(image);
	manifest_destroy(manifest);
}
END_TEST

struct ingredients {
	struct manifest *manifest;
	struct profile profile;
};

static int mixed_create(void *context)
{
	const struct ingredients *ingredients = context;
	const struct image_metadata metadata = {"emad.step", "17", 2};
	static uint8_t region[2 * IMAGE_PAGE_BYTES];
	struct image *image = NULL;
	int r = image_create(ingredients->manifest, &ingredients->profile, 100, &image, NULL);

	if (r == 0)
		r = image_header_write(image, region, &metadata, 1, NULL);
	image_destroy(image);
	return r;
}

START_TEST(every_allocation_may_fail_and_writing_the_header_makes_none)
{
	struct ingredients ingredients = {manifest_of(mixed, MIXED_COUNT), profile_of("p=yolo")};

	/* The image, its keys, tensors, index and header. */
	ck_assert_uint_eq(failing_heap_sweep(mixed_create, &ingredients), 5);
	manifest_destroy(ingredients.manifest);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *suite = suite_create("image");
	TCase *tcase = tcase_create("image");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, orders_by_width_dtype_pushed_dtype_entry_and_manifest, 0, COUNT(orders));
	tcase_add_test(tcase, a_dtype_s_tensors_lie_together_in_the_order_that_runs_are_known_by);
	tcase_add_test(tcase, writes_this_header);
	tcase_add_loop_test(tcase, is_read_back_by_our_own_reader, 0, COUNT(orders));
	tcase_add_test(tcase, a_new_version_rewrites_all_of_the_old_metadata);
	tcase_add_test(tcase, metadata_that_do_not_fit_leave_the_region_untouched);
	tcase_add_test(tcase, metadata_that_no_reader_takes_are_refused);
	tcase_add_test(tcase, has_room_for_the_metadata_that_were_asked_for);
	tcase_add_test(tcase, refuses_a_profile_that_drops_every_tensor);
	tcase_add_test(tcase, refuses_averages_and_headers_beyond_the_limits);
	tcase_add_test(tcase, every_allocation_may_fail_and_writing_the_header_makes_none);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
