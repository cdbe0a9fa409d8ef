/*
 * Sums of files: the layout of the new file read back by the parser, files that are summed, and every allocation of a
 * whole synthesis failing in turn.
 */
#include "client/blend.h"

#include "client/emad.h"
#include "client/target.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/emad-blend-XXXXXX";

static void directory_make(void)
{
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
}

static int entry_remove(const char *path, const struct stat *facts, int kind, struct FTW *walk)
{
	(void)facts;
	(void)kind;
	(void)walk;
	return remove(path);
}

static void directory_remove(void)
{
	nftw(directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* A path in the directory, in static storage: sixteen at a time. */
static const char *path_of(const char *name)
{
	static char paths[16][256];
	static unsigned next;
	char *path = paths[next++ % 16];

	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

static void file_write(const char *path, const char *json, const void *data, size_t data_bytes)
{
	const uint64_t json_bytes = strlen(json);
	FILE *file = fopen(path, "wb");

	ck_assert_ptr_nonnull(file);
	fwrite(&json_bytes, sizeof(json_bytes), 1, file);
	fwrite(json, 1, json_bytes, file);
	fwrite(data, 1, data_bytes, file);
	ck_assert_int_eq(fclose(file), 0);
}

/* A snapshot with "w", three floats from value on, and "n", an I64 with the step. */
static void snapshot_write(const char *name, double std, uint64_t step, float value)
{
	char json[512];
	struct {
		int64_t n;
		float w[3];
	} data = {(int64_t)step, {value, value + 1, value + 2}};

	snprintf(json, sizeof(json),
	         "{\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
	         "\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[8,20]},"
	         "\"__metadata__\":{\"emad.model\":\"m\",\"emad.profile\":\"p\",\"emad.schedule\":\"power:std=%g\","
	         "\"emad.step\":\"%llu\",\"emad.updates\":\"7\",\"note\":\"\\\"\\u0001\\\\\\u00e9\"}}",
	         std, (unsigned long long)step);
	file_write(path_of(name), json, &data, 20);
}

/* Reads a file into memory; the caller frees both. */
static struct safetensors *file_read(const char *path, uint8_t **ret_bytes)
{
	struct safetensors *contents;
	struct reason reason = {""};
	struct stat facts;
	uint8_t *bytes;
	FILE *file = fopen(path, "rb");

	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fstat(fileno(file), &facts), 0);
	bytes = malloc((size_t)facts.st_size);
	ck_assert_uint_eq(fread(bytes, 1, (size_t)facts.st_size, file), (size_t)facts.st_size);
	fclose(file);
	ck_assert_msg(safetensors_parse(bytes, (uint64_t)facts.st_size, (uint64_t)facts.st_size, &contents,
	                                &reason) == 0,
	              "%s", reason.text);
	*ret_bytes = bytes;
	return contents;
}

static unsigned directory_count(void)
{
	unsigned count = 0;
	char command[512];
	FILE *listing;

	snprintf(command, sizeof(command), "ls -A %s", directory);
	listing = popen(command, "r");
	ck_assert_ptr_nonnull(listing);
	while (fgets(command, sizeof(command), listing))
		count++;
	pclose(listing);
	return count;
}

/* ---- the layout ----------------------------------------------------------------------------------------------- */

static const char LAYOUT_JSON[] =
	"{\"b\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]},"
	"\"h\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[3,7]},"
	"\"e\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[7,7]},"
	"\"i\\\"\\u00e9\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[7,11]},"
	"\"__metadata__\":{\"emad.step\":\"1\",\"emad.version\":\"2\",\"emad.model\":\"m\",\"emad.attributes\":\"{}\","
	"\"format\":\"pt\",\"line\":\"a\\nb\"}}";

static struct safetensors *layout_contents(void)
{
	const uint64_t json_bytes = strlen(LAYOUT_JSON);
	uint8_t bytes[8 + sizeof(LAYOUT_JSON)];
	struct safetensors *contents;
	struct reason reason = {""};

	memcpy(bytes, &json_bytes, 8);
	memcpy(bytes + 8, LAYOUT_JSON, json_bytes);
	ck_assert_msg(safetensors_parse(bytes, 8 + json_bytes, 8 + json_bytes + 11, &contents, &reason) == 0, "%s",
	              reason.text);
	return contents;
}

START_TEST(the_layout_is_a_header_that_the_parser_takes)
{
	const struct blend_pair pairs[] = {{"emad.step", "9"}, {"emad.profile", "x"}};
	struct safetensors *contents = layout_contents(), *parsed;
	struct blend_layout *layout;
	struct reason reason = {""};

	ck_assert_int_eq(blend_layout_create(contents, DTYPE_F64, pairs, 2, &layout, &reason), 0);
	ck_assert_uint_eq(layout->header_bytes % 4096, 0);
	ck_assert_uint_eq(layout->file_bytes, layout->header_bytes + 3 + 16 + 0 + 4);
	ck_assert_msg(safetensors_parse(layout->header, layout->header_bytes, layout->file_bytes, &parsed,
	                                &reason) == 0,
	              "%s", reason.text);
	ck_assert_uint_eq(parsed->entry_count, 4);
	ck_assert_int_eq(safetensors_find(parsed, "h")->dtype, DTYPE_F64);
	ck_assert_int_eq(safetensors_find(parsed, "e")->dtype, DTYPE_F64);
	ck_assert_int_eq(safetensors_find(parsed, "b")->dtype, DTYPE_BOOL);
	for (uint32_t i = 0; i < parsed->entry_count; i++)
		ck_assert_uint_eq(parsed->entries[i].offset % dtype_bytes(parsed->entries[i].dtype), 0);
	ck_assert_uint_eq(safetensors_find(parsed, "i\"\xc3\xa9")->dimension_count, 0);
	ck_assert_uint_eq(parsed->metadata_count, 6);
	ck_assert_str_eq(safetensors_metadata_get(parsed, "emad.step"), "9");
	ck_assert_str_eq(safetensors_metadata_get(parsed, "emad.profile"), "x");
	ck_assert_str_eq(safetensors_metadata_get(parsed, "emad.model"), "m");
	ck_assert_str_eq(safetensors_metadata_get(parsed, "emad.attributes"), "{}");
	ck_assert_str_eq(safetensors_metadata_get(parsed, "format"), "pt");
	ck_assert_str_eq(safetensors_metadata_get(parsed, "line"), "a\nb");
	safetensors_destroy(parsed);
	blend_layout_destroy(layout);
	safetensors_destroy(contents);
}
END_TEST

START_TEST(without_a_chosen_dtype_all_stay)
{
	struct safetensors *contents = layout_contents();
	struct blend_layout *layout;

	ck_assert_int_eq(blend_layout_create(contents, DTYPE_COUNT, NULL, 0, &layout, NULL), 0);
	ck_assert_uint_eq(layout->file_bytes, layout->header_bytes + 11);
	for (uint32_t i = 0; i < layout->tensor_count; i++)
		ck_assert_int_eq(layout->tensors[i].dtype, contents->entries[layout->tensors[i].entry].dtype);
	blend_layout_destroy(layout);
	safetensors_destroy(contents);
}
END_TEST

static int good_layout(void *context)
{
	struct blend_layout *layout;
	int r = blend_layout_create(context, DTYPE_F32, NULL, 0, &layout, NULL);

	if (r == 0)
		blend_layout_destroy(layout);
	return r;
}

START_TEST(every_allocation_of_the_layout_may_fail)
{
	struct safetensors *contents = layout_contents();

	ck_assert_uint_eq(failing_heap_sweep(good_layout, contents), 3);
	safetensors_destroy(contents);
}
END_TEST

/* ---- sums ----------------------------------------------------------------------------------------------------- */

START_TEST(adds_up_floats_and_takes_integers_from_the_newest)
{
	const struct blend_input inputs[] = {{path_of("a"), .25}, {path_of("b"), .75}, {path_of("c"), 0}};
	struct blend blend = {
		.inputs = inputs, .input_count = 3, .newest = 1, .twin = UINT32_MAX, .dtype = DTYPE_COUNT,
	};
	struct safetensors *contents;
	struct reason reason = {""};
	uint64_t file_bytes = 0;
	uint8_t *bytes;
	float w[3];
	int64_t n;

	snapshot_write("a", .05, 1, 1);
	snapshot_write("b", .05, 2, 5);
	snapshot_write("c", .05, 3, 1e30f);
	/* All files open, and but one. */
	for (blend.open_count = 1; blend.open_count < 4; blend.open_count += 2) {
		ck_assert_msg(blend_write(&blend, path_of("out"), &file_bytes, &reason) == 0, "%s", reason.text);
		contents = file_read(path_of("out"), &bytes);
		ck_assert_uint_eq(contents->file_bytes, file_bytes);
		memcpy(w, bytes + safetensors_find(contents, "w")->offset, sizeof(w));
		memcpy(&n, bytes + safetensors_find(contents, "n")->offset, sizeof(n));
		for (int i = 0; i < 3; i++)
			ck_assert_float_eq(w[i], (float)(4 + i));
		ck_assert_int_eq(n, 2);
		ck_assert_str_eq(safetensors_metadata_get(contents, "note"), "\"\x01\\\xc3\xa9");
		safetensors_destroy(contents);
		free(bytes);
	}
	ck_assert_uint_eq(directory_count(), 4);
}
END_TEST

/* A file that changes between the look at its header and the last chunk. */
static int exchange(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)done_bytes;
	(void)total_bytes;
	/* At the first call; later there is no other file any more. */
	ck_assert(rename(path_of("other"), context) == 0 || errno == ENOENT);
	return 0;
}

static int cut(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)done_bytes;
	(void)total_bytes;
	ck_assert_int_eq(truncate(context, 100), 0);
	return 0;
}

START_TEST(a_file_that_changes_under_the_sum_is_refused)
{
	emad_progress *const changes[] = {exchange, cut, cut};
	const uint32_t open_counts[] = {1, 1, 2};
	const struct blend_input inputs[] = {{path_of("a"), .5}, {path_of("b"), .5}};
	const struct blend blend = {
		.inputs = inputs, .input_count = 2, .twin = UINT32_MAX, .dtype = DTYPE_COUNT,
		.open_count = open_counts[_i], .progress = changes[_i], .context = (void *)(uintptr_t)inputs[1].path,
	};
	struct reason reason = {""};

	snapshot_write("a", .05, 1, 1);
	snapshot_write("b", .05, 2, 5);
	snapshot_write("other", .05, 3, 5);
	/* The first call of progress comes when all headers are read, and before any tensor is. */
	ck_assert_int_eq(blend_write(&blend, path_of("out"), NULL, &reason), STATUS_ECORRUPT);
	ck_assert_msg(strstr(reason.text, _i < 2 ? "changed while it was read" : "cut short"), "%s", reason.text);
	ck_assert_int_eq(access(path_of("out"), F_OK), -1);
	ck_assert_uint_eq(directory_count(), _i == 0 ? 2 : 3);
}
END_TEST

START_TEST(a_target_that_is_abandoned_leaves_nothing)
{
	struct target target;

	ck_assert_int_eq(target_open(path_of("out"), &target, NULL), 0);
	ck_assert_int_eq(target_begin(&target, NULL), 0);
	ck_assert_int_eq(target_write(&target, "x", 1, NULL), 0);
	ck_assert_uint_eq(directory_count(), 1);
	target_abandon(&target);
	target_close(&target);
	ck_assert_uint_eq(directory_count(), 0);
	ck_assert_int_eq(target_open(path_of("absent/out"), &target, NULL), -ENOENT);
	ck_assert_int_eq(target_open(directory, &target, NULL), -EISDIR);
	ck_assert_int_eq(target_open("", &target, NULL), -EISDIR);
}
END_TEST

/* ---- allocations ---------------------------------------------------------------------------------------------- */

static int good_posthoc(void *context)
{
	const struct emad_posthoc_options options = {.std = .15, .open_files_max = 1};
	const char *const paths[] = {directory};
	struct emad_sum *sum;
	int r = emad_posthoc(paths, 1, context, &options, &sum);

	if (r == 0)
		emad_sum_free(sum);
	return r;
}

START_TEST(every_allocation_of_a_synthesis_may_fail)
{
	char output[64];

	snapshot_write("1.safetensors", .05, 1000, 1);
	snapshot_write("2.safetensors", .1, 1000, 2);
	snapshot_write("3.safetensors", .05, 2000, 3);
	snapshot_write("4.safetensors", .1, 2000, 4);
	snprintf(output, sizeof(output), "%s/out", directory);
	ck_assert_uint_gt(failing_heap_sweep(good_posthoc, output), 50);
	ck_assert_uint_eq(directory_count(), 5);
}
END_TEST

static int good_merge(void *context)
{
	const char *const paths[] = {path_of("2"), path_of("1")};
	struct emad_sum *sum;
	int r = emad_merge(paths, 2, context, NULL, &sum);

	if (r == 0)
		emad_sum_free(sum);
	return r;
}

START_TEST(every_allocation_of_a_merge_may_fail)
{
	char output[64];

	snapshot_write("1", .05, 1000, 1);
	snapshot_write("2", .1, 1000, 2);
	snprintf(output, sizeof(output), "%s/out", directory);
	ck_assert_uint_gt(failing_heap_sweep(good_merge, output), 30);
	ck_assert_uint_eq(directory_count(), 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("blend");
	TCase *tcase = tcase_create("blend");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, directory_make, directory_remove);
	tcase_add_test(tcase, the_layout_is_a_header_that_the_parser_takes);
	tcase_add_test(tcase, without_a_chosen_dtype_all_stay);
	tcase_add_test(tcase, every_allocation_of_the_layout_may_fail);
	tcase_add_test(tcase, adds_up_floats_and_takes_integers_from_the_newest);
	tcase_add_loop_test(tcase, a_file_that_changes_under_the_sum_is_refused, 0, 3);
	tcase_add_test(tcase, a_target_that_is_abandoned_leaves_nothing);
	tcase_add_test(tcase, every_allocation_of_a_synthesis_may_fail);
	tcase_add_test(tcase, every_allocation_of_a_merge_may_fail);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
