/*
 * Geometries: where profiles and tensors lie, when slots of one can be taken for slots of another, and where one finds
 * what it goes on from in the other.
 */
#include "daemon/core/geometry.h"

#include "tests/unit/failing_heap.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct tensor_row ROWS[] = {
	{ "weight", DTYPE_F16, false, SHAPE(6, 2) },
	{ "running_mean", DTYPE_F32, true, SHAPE(3) },
	{ "batches", DTYPE_I64, true, SCALAR },
	{ "flag", DTYPE_BOOL, true, SHAPE(5) },
};
enum { ROW_COUNT = sizeof ROWS / sizeof ROWS[0] };

/* Profiles end with NULL. */
static struct geometry *geometry_of(struct manifest *manifest, const char *const *profiles)
{
	struct profile parsed[PROFILE_COUNT_MAX];
	struct geometry *geometry;
	struct reason reason = { "" };
	uint32_t count = 0;

	for (; profiles[count]; count++)
		ck_assert_msg(profile_parse(profiles[count], strlen(profiles[count]), &parsed[count], &reason) == 0,
		              "%s", reason.text);
	ck_assert_msg(geometry_create(manifest, parsed, count, 200, &geometry, &reason) == 0, "%s", reason.text);
	return geometry;
}
#define PROFILES(...) ((const char *const[]){ __VA_ARGS__, NULL })

START_TEST(profiles_lie_behind_one_another_and_tensors_where_the_image_has_them)
{
	struct manifest *manifest = manifest_of_rows(ROWS, ROW_COUNT);
	struct geometry *geometry = geometry_of(manifest,
	                                        PROFILES("a=diffusers", "b=yolo;average@0.9=run*", "c=k-diffusion"));
	uint64_t end = 0;

	manifest_destroy(manifest); /* it has a share */
	for (uint32_t p = 0; p < 3; p++) {
		const struct image *image = geometry->images[p];

		ck_assert_uint_ge(geometry->region_offsets[p], end);
		end = geometry->region_offsets[p] + image->image_bytes;
		for (uint32_t t = 0; t < ROW_COUNT; t++) {
			const struct placement *at = &geometry->placements[t * 3 + p];

			ck_assert_int_eq(at->entry == ENTRY_DROP, image->index_of[t] == UINT32_MAX);
			if (at->entry == ENTRY_DROP)
				continue;
			ck_assert_uint_eq(at->offset, geometry->region_offsets[p] + image->data_offset +
			                                      image->tensors[image->index_of[t]].offset);
			ck_assert_uint_eq(at->offset % dtype_bytes(at->dtype), 0);
		}
	}
	ck_assert_uint_le(end, geometry->slot_bytes);
	ck_assert_uint_eq(geometry->placements[1 * 3 + 1].group, 1);
	ck_assert_uint_eq(geometry->placements[0 * 3 + 1].group, 0);
	ck_assert_int_eq(geometry_profile(geometry, "b"), 1);
	ck_assert_int_eq(geometry_profile(geometry, "d"), -1);
	/* Counted from the first profile that holds the tensor. */
	ck_assert_uint_eq(geometry->origins[1] * sizeof(float), geometry->placements[1 * 3 + 1].offset);
	geometry_destroy(geometry);
}
END_TEST

START_TEST(the_last_holder_frees_it)
{
	struct manifest *manifest = manifest_of_rows(ROWS, ROW_COUNT);
	struct geometry *geometry = geometry_of(manifest, PROFILES("a=yolo"));
	struct geometry *shared = geometry_share(geometry);

	ck_assert_ptr_eq(shared, geometry);
	geometry_destroy(geometry);
	ck_assert_str_eq(shared->profiles[0].name, "a");
	geometry_destroy(shared);
	geometry_destroy(NULL);
	manifest_destroy(manifest);
}
END_TEST

struct fit {
	const char *const *before, *const *after;
	bool fits;
};

static const struct fit fits[] = {
	{ PROFILES("a=yolo"), PROFILES("a=yolo"), true },
	{ PROFILES("a=yolo"), PROFILES("a=yolo:decay=0.9"), true },
	{ PROFILES("a=yolo"), PROFILES("a=constant;freeze=batches;freeze=flag"), true },
	{ PROFILES("a=yolo"), PROFILES("a=yolo;average@0.9=w*"), true },
	{ PROFILES("a=yolo"), PROFILES("b=yolo"), false },
	{ PROFILES("a=yolo"), PROFILES("a=yolo", "b=yolo"), false },
	{ PROFILES("a=yolo", "b=yolo"), PROFILES("b=yolo", "a=yolo"), false },
	{ PROFILES("a=yolo"), PROFILES("a=yolo:precision=f64"), false },
	{ PROFILES("a=yolo"), PROFILES("a=yolo;copy=running*"), false },
	{ PROFILES("a=yolo"), PROFILES("a=yolo;drop=flag"), false },
	{ PROFILES("a=yolo"), PROFILES("a=yolo;freeze=weight"), false },
	{ PROFILES("a=yolo"), PROFILES("a=timm"), false }, /* copies integers, which yolo freezes */
};

START_TEST(slots_fit_where_the_same_bytes_mean_the_same)
{
	struct manifest *manifest = manifest_of_rows(ROWS, ROW_COUNT);

	for (size_t i = 0; i < sizeof fits / sizeof fits[0]; i++) {
		struct geometry *before = geometry_of(manifest, fits[i].before),
				*after = geometry_of(manifest, fits[i].after);

		ck_assert_msg(geometry_fits(after, before) == fits[i].fits, "case %zu", i);
		ck_assert_msg(geometry_fits(before, after) == fits[i].fits, "case %zu the other way round", i);
		ck_assert_msg((before->checksum == after->checksum) == (i == 0), "checksums of case %zu", i);
		geometry_destroy(before);
		geometry_destroy(after);
	}
	manifest_destroy(manifest);
}
END_TEST

/* The source that a tensor of the only profile has, when everything changes from one row to another. */
static struct placement source_of(const struct tensor_row *from, const char *profile_from, const struct tensor_row *to,
                                  const char *profile_to)
{
	const struct tensor_row rows_from[] = { { "t0", DTYPE_F32, false, SHAPE(4) }, *from };
	const struct tensor_row rows_to[] = { *to, { "t1", DTYPE_F32, false, SHAPE(4) } };
	struct manifest *before = manifest_of_rows(rows_from, 2), *after = manifest_of_rows(rows_to, 2);
	struct geometry *old = geometry_of(before, PROFILES("first=yolo", profile_from));
	struct geometry *new = geometry_of(after, PROFILES(profile_to));
	struct placement sources[2], expected = old->placements[1 * 2 + 1];

	geometry_sources(new, old, sources);
	ck_assert_int_eq(sources[1].entry, ENTRY_DROP);
	if (sources[0].entry != ENTRY_DROP) {
		ck_assert_int_eq(sources[0].entry, expected.entry);
		ck_assert_int_eq(sources[0].dtype, expected.dtype);
		ck_assert_uint_eq(sources[0].offset, expected.offset);
	}
	geometry_destroy(old);
	geometry_destroy(new);
	manifest_destroy(before);
	manifest_destroy(after);
	return sources[0];
}

START_TEST(goes_on_from_the_tensor_of_that_name_and_shape_in_the_profile_of_that_name)
{
	const struct tensor_row row = { "w", DTYPE_BF16, false, SHAPE(3, 2) };
	const struct tensor_row other_name = { "v", DTYPE_BF16, false, SHAPE(3, 2) };
	const struct tensor_row other_shape = { "w", DTYPE_BF16, false, SHAPE(2, 3) };
	const struct tensor_row flat = { "w", DTYPE_BF16, false, SHAPE(6) };
	const struct tensor_row wide = { "w", DTYPE_F64, false, SHAPE(3, 2) };
	const struct tensor_row integers = { "w", DTYPE_I32, false, SHAPE(3, 2) };

	ck_assert_int_eq(source_of(&row, "a=yolo", &row, "a=constant").dtype, DTYPE_F32);
	ck_assert_int_eq(source_of(&row, "a=yolo:precision=f64", &row, "a=yolo").dtype, DTYPE_F64);
	ck_assert_int_eq(source_of(&row, "a=yolo", &wide, "a=yolo").dtype, DTYPE_F32);
	ck_assert_int_eq(source_of(&row, "a=yolo", &row, "b=yolo").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&row, "a=yolo", &other_name, "a=yolo").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&row, "a=yolo", &other_shape, "a=yolo").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&row, "a=yolo", &flat, "a=yolo").entry, ENTRY_DROP);
	/* An average goes on from floats of any kind, an entry that is not averaged from the very same type. */
	ck_assert_int_eq(source_of(&row, "a=yolo;copy=w", &row, "a=yolo").dtype, DTYPE_BF16);
	ck_assert_int_eq(source_of(&integers, "a=yolo", &row, "a=yolo").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&row, "a=yolo", &integers, "a=yolo").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&integers, "a=yolo", &integers, "a=timm").entry, ENTRY_FREEZE);
	ck_assert_int_eq(source_of(&row, "a=yolo", &row, "a=yolo;freeze=w").entry, ENTRY_DROP);
	ck_assert_int_eq(source_of(&row, "a=yolo;drop=w", &row, "a=yolo").entry, ENTRY_DROP);
}
END_TEST

static int create(void *context)
{
	struct geometry *geometry = NULL;
	struct profile profiles[2];
	int error;

	(void)profile_parse("a=yolo", 6, &profiles[0], NULL);
	(void)profile_parse("b=timm", 6, &profiles[1], NULL);
	error = geometry_create(context, profiles, 2, 100, &geometry, NULL);
	geometry_destroy(geometry);
	return error;
}

START_TEST(every_allocation_may_fail)
{
	struct manifest *manifest = manifest_of_rows(ROWS, ROW_COUNT);

	ck_assert_uint_ge(failing_heap_sweep(create, manifest), 8);
	ck_assert_uint_eq(manifest->share_count, 0);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(profiles_that_hold_nothing_are_refused)
{
	const struct tensor_row row = { "n", DTYPE_I64, true, SHAPE(2) };
	struct manifest *manifest = manifest_of_rows(&row, 1);
	struct geometry *geometry = NULL;
	struct reason reason = { "" };
	struct profile profile;

	ck_assert_int_eq(profile_parse("a=diffusers", 11, &profile, NULL), 0);
	ck_assert_int_eq(geometry_create(manifest, &profile, 1, 100, &geometry, &reason), STATUS_EPROFILE);
	ck_assert_ptr_null(geometry);
	ck_assert_ptr_nonnull(strstr(reason.text, "'a'"));
	ck_assert_uint_eq(manifest->share_count, 0);
	manifest_destroy(manifest);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("geometry");
	TCase *tcase = tcase_create("geometry");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, profiles_lie_behind_one_another_and_tensors_where_the_image_has_them);
	tcase_add_test(tcase, the_last_holder_frees_it);
	tcase_add_test(tcase, slots_fit_where_the_same_bytes_mean_the_same);
	tcase_add_test(tcase, goes_on_from_the_tensor_of_that_name_and_shape_in_the_profile_of_that_name);
	tcase_add_test(tcase, every_allocation_may_fail);
	tcase_add_test(tcase, profiles_that_hold_nothing_are_refused);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
