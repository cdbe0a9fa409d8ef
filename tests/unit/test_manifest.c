/*
 * The manifest: what may be in it, where the pieces lie, its bytes, comparing, and whether the ranks tile the model.
 */
#include "proto/manifest.h"

#include "proto/pack.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SHAPE(...) (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t)
#define BOX(...) (const uint64_t[]){__VA_ARGS__}
#define SCALAR NULL, 0

static struct manifest *manifest_new(void)
{
	struct manifest *manifest;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	return manifest;
}

static void add(struct manifest *manifest, const char *name, enum dtype dtype, const uint64_t *extents,
                uint32_t dimension_count)
{
	struct reason reason = {""};

	ck_assert_msg(manifest_add_tensor(manifest, name, strlen(name), dtype, false, extents, dimension_count,
	                                  &reason) == 0,
	              "%s: %s", name, reason.text);
}

static void add_whole(struct manifest *manifest, const char *name, enum dtype dtype, const uint64_t *extents,
                      uint32_t dimension_count)
{
	add(manifest, name, dtype, extents, dimension_count);
	ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
}

static void finish(struct manifest *manifest)
{
	struct reason reason = {""};

	ck_assert_msg(manifest_finish(manifest, &reason) == 0, "%s", reason.text);
}

/* Every form that the encoding has: whole, pieces, no pieces, no dimensions, no elements, a buffer. */
static struct manifest *sample(void)
{
	struct manifest *manifest = manifest_new();

	add_whole(manifest, "module.head.weight", DTYPE_F32, SHAPE(10, 64));
	add(manifest, "body.weight", DTYPE_BF16, SHAPE(8, 6));
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(0, 0), BOX(2, 6), NULL), 0);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(6, 3), BOX(2, 3), NULL), 0);
	add(manifest, "elsewhere", DTYPE_F64, SHAPE(3));
	add_whole(manifest, "scale", DTYPE_F64, SCALAR);
	add_whole(manifest, "empty", DTYPE_I8, SHAPE(4, 0));
	ck_assert_int_eq(manifest_add_tensor(manifest, "steps\xc3\xa9", 7, DTYPE_I64, true, SHAPE(1), NULL), 0);
	ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	finish(manifest);
	return manifest;
}

START_TEST(makes_names_canonical)
{
	struct manifest *manifest = sample();

	ck_assert_str_eq(manifest->tensors[0].name, "head.weight");
	ck_assert_int_eq(manifest_find(manifest, "head.weight"), 0);
	ck_assert_int_eq(manifest_find(manifest, "module.head.weight"), -1);
	ck_assert_int_eq(manifest_find(manifest, "scale"), 3);
	ck_assert_int_eq(manifest_find(manifest, ""), -1);
	manifest_destroy(manifest);
}
END_TEST

struct tensor_case {
	const char *name;
	int dtype;
	uint32_t dimension_count;
	uint64_t extents[DIMENSION_COUNT_MAX];
	int code;
	const char *part; /* of the sentence */
};

static const struct tensor_case bad_tensors[] = {
	{"", DTYPE_F32, 1, {1}, STATUS_ENAME, "empty"},
	{"a\nb", DTYPE_F32, 1, {1}, STATUS_ENAME, "control"},
	{"__metadata__", DTYPE_F32, 1, {1}, STATUS_ENAME, "__metadata__"},
	{"module.__metadata__", DTYPE_F32, 1, {1}, STATUS_ENAME, "__metadata__"},
	{"w", DTYPE_F32, 17, {1}, STATUS_ELIMIT, "17 dimensions, at most 16"},
	{"w", DTYPE_COUNT, 1, {1}, STATUS_EMANIFEST, "dtype number 12"},
	{"w", -1, 1, {1}, STATUS_EMANIFEST, "dtype number"},
	{"w", DTYPE_F64, 1, {UINT64_C(1) << 60}, STATUS_EMANIFEST, "'w': shape [1152921504606846976] of F64"},
	{"w", DTYPE_I8, 1, {UINT64_C(1) << 63}, STATUS_EMANIFEST, "9223372036854775807"},
	{"w", DTYPE_I8, 2, {UINT64_C(1) << 32, UINT64_C(1) << 32}, STATUS_EMANIFEST, "[4294967296,4294967296]"},
};

START_TEST(refuses_a_bad_tensor_and_stays_as_it_was)
{
	const struct tensor_case *bad = &bad_tensors[_i];
	uint64_t extents[DIMENSION_COUNT_MAX + 1] = {0};
	struct manifest *manifest = manifest_new();
	struct reason reason = {""};

	memcpy(extents, bad->extents, sizeof(bad->extents));
	ck_assert_int_eq(manifest_add_tensor(manifest, bad->name, strlen(bad->name), (enum dtype)bad->dtype, false,
	                                     extents, bad->dimension_count, &reason),
	                 bad->code);
	ck_assert_msg(strstr(reason.text, bad->part) != NULL, "%s", reason.text);
	ck_assert_uint_eq(manifest->tensor_count, 0);
	add_whole(manifest, "w", DTYPE_F32, SHAPE(1));
	finish(manifest);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(the_number_of_tensors_ends_at_its_limit)
{
	struct manifest *manifest = manifest_new();
	struct reason reason;
	char name[32];

	for (int i = 0; i < TENSOR_COUNT_MAX; i++) {
		snprintf(name, sizeof(name), "t%d", i);
		add_whole(manifest, name, DTYPE_F32, SHAPE(1));
	}
	ck_assert_int_eq(manifest_add_tensor(manifest, "one", 3, DTYPE_F32, false, SHAPE(1), &reason), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "more than 100000 tensors");
	finish(manifest);
	ck_assert_int_eq(manifest_find(manifest, "t77777"), 77777);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(refuses_a_piece_that_sticks_out)
{
	struct manifest *manifest = manifest_new();
	struct reason reason;

	add(manifest, "w", DTYPE_F32, SHAPE(10, 4));
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(8, 0), BOX(3, 4), &reason), STATUS_EMANIFEST);
	ck_assert_str_eq(reason.text,
	                 "tensor 'w': a piece has offset 8 and extent 3 in dimension 0, where the tensor has 10");
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(0, 5), BOX(1, 0), NULL), STATUS_EMANIFEST);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(0, 4), BOX(1, UINT64_MAX), NULL), STATUS_EMANIFEST);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(UINT64_MAX, 0), BOX(2, 1), NULL), STATUS_EMANIFEST);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(10, 4), BOX(0, 0), NULL), 0);
	ck_assert_uint_eq(manifest->pieces[0].element_count, 0);
	manifest_destroy(manifest);
}
END_TEST

START_TEST(the_pieces_of_a_tensor_end_at_their_limit)
{
	struct manifest *manifest = manifest_new();
	struct reason reason;

	add_whole(manifest, "first", DTYPE_F32, SHAPE(100));
	add(manifest, "w", DTYPE_F32, SHAPE(100));
	for (uint64_t i = 0; i < TENSOR_PIECE_COUNT_MAX; i++)
		ck_assert_int_eq(manifest_add_piece(manifest, BOX(i), BOX(1), NULL), 0);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(90), BOX(1), &reason), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "tensor 'w' has more than 32 pieces in one rank");
	manifest_destroy(manifest);
}
END_TEST

START_TEST(lays_the_stage_out_widest_first_then_by_dtype_then_by_manifest)
{
	static const struct {
		enum dtype dtype;
		uint64_t elements, stage_offset;
	} rows[] = {
		{DTYPE_BOOL, 3, 83}, {DTYPE_F32, 5, 40},  {DTYPE_BF16, 3, 70}, {DTYPE_I64, 1, 32}, {DTYPE_F64, 2, 0},
		{DTYPE_F32, 1, 60},  {DTYPE_F16, 3, 64},  {DTYPE_F64, 2, 16},  {DTYPE_BF16, 2, 76}, {DTYPE_U8, 3, 80},
	};
	const unsigned count = sizeof(rows) / sizeof(rows[0]);
	struct manifest *manifest = manifest_new();
	char name[8];

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		add_whole(manifest, name, rows[i].dtype, SHAPE(rows[i].elements));
	}
	finish(manifest);
	ck_assert_uint_eq(manifest->stage_bytes, 86);
	for (unsigned i = 0; i < count; i++) {
		ck_assert_msg(manifest->pieces[i].stage_offset == rows[i].stage_offset, "%u at %" PRIu64, i,
		              manifest->pieces[i].stage_offset);
		ck_assert_uint_eq(manifest->pieces[i].stage_offset % dtype_bytes(rows[i].dtype), 0);
	}
	manifest_destroy(manifest);
}
END_TEST

START_TEST(refuses_pieces_whose_bytes_together_overflow)
{
	struct manifest *manifest = manifest_new();
	struct reason reason;

	add_whole(manifest, "a", DTYPE_I8, SHAPE(INT64_MAX));
	add_whole(manifest, "b", DTYPE_I8, SHAPE(1));
	ck_assert_int_eq(manifest_finish(manifest, &reason), STATUS_EMANIFEST);
	ck_assert_ptr_nonnull(strstr(reason.text, "'b'"));
	manifest_destroy(manifest);
}
END_TEST

START_TEST(refuses_no_tensors_and_one_name_twice)
{
	struct manifest *manifest = manifest_new();
	struct reason reason;

	ck_assert_int_eq(manifest_finish(manifest, NULL), STATUS_EMANIFEST);
	add_whole(manifest, "x", DTYPE_F32, SHAPE(1));
	add_whole(manifest, "w", DTYPE_F32, SHAPE(1));
	add_whole(manifest, "module.x", DTYPE_F32, SHAPE(1));
	ck_assert_int_eq(manifest_finish(manifest, &reason), STATUS_EMANIFEST);
	ck_assert_ptr_nonnull(strstr(reason.text, "tensors 0 and 2 have the same name 'x'"));
	ck_assert_ptr_nonnull(strstr(reason.text, "module"));
	manifest_destroy(manifest);
}
END_TEST

static void assert_manifests_equal(const struct manifest *a, const struct manifest *b)
{
	ck_assert_int_eq(manifest_compare(a, b, NULL), 0);
	ck_assert_uint_eq(a->piece_count, b->piece_count);
	ck_assert_uint_eq(a->stage_bytes, b->stage_bytes);
	for (uint32_t i = 0; i < a->piece_count; i++)
		ck_assert_mem_eq(&a->pieces[i], &b->pieces[i], sizeof(a->pieces[i]));
}

START_TEST(comes_back_from_its_bytes)
{
	struct manifest *manifest = sample(), *decoded;
	struct reason reason = {""};
	uint8_t *bytes;
	size_t count;

	ck_assert_int_eq(manifest_encode(manifest, &bytes, &count, NULL), 0);
	ck_assert_msg(manifest_decode(bytes, count, &decoded, &reason) == 0, "%s", reason.text);
	assert_manifests_equal(manifest, decoded);
	manifest_destroy(decoded);
	manifest_destroy(manifest);
	free(bytes);
}
END_TEST

START_TEST(a_rank_may_hold_nothing)
{
	struct manifest *manifest = manifest_new(), *decoded;
	uint8_t *bytes;
	size_t count;

	add(manifest, "w", DTYPE_F32, SHAPE(4));
	finish(manifest);
	ck_assert_uint_eq(manifest->stage_bytes, 0);
	ck_assert_int_eq(manifest_encode(manifest, &bytes, &count, NULL), 0);
	ck_assert_int_eq(manifest_decode(bytes, count, &decoded, NULL), 0);
	ck_assert_uint_eq(decoded->piece_count, 0);
	manifest_destroy(decoded);
	manifest_destroy(manifest);
	free(bytes);
}
END_TEST

START_TEST(has_the_documented_bytes)
{
	static const uint8_t expected[] = {
		0x92,                                                                  /* two tensors */
		0x95, 0xa1, 'w', 0x01, 0x00, 0x92, 0x02, 0x03, 0xc0,                   /* F32 [2,3], whole */
		0x95, 0xa1, 'b', 0x06, 0x01, 0x91, 0x05,                               /* I64 [5], buffer */
		0x91, 0x92, 0x91, 0x01, 0x91, 0x04,                                    /* one piece, [1], [4] */
	};
	struct manifest *manifest = manifest_new();
	uint8_t *bytes;
	size_t count;

	add_whole(manifest, "w", DTYPE_F32, SHAPE(2, 3));
	ck_assert_int_eq(manifest_add_tensor(manifest, "b", 1, DTYPE_I64, true, SHAPE(5), NULL), 0);
	ck_assert_int_eq(manifest_add_piece(manifest, BOX(1), BOX(4), NULL), 0);
	finish(manifest);
	ck_assert_int_eq(manifest_encode(manifest, &bytes, &count, NULL), 0);
	ck_assert_uint_eq(count, sizeof(expected));
	ck_assert_mem_eq(bytes, expected, sizeof(expected));
	manifest_destroy(manifest);
	free(bytes);
}
END_TEST

START_TEST(refuses_every_prefix_and_survives_every_flipped_bit_of_its_bytes)
{
	struct manifest *manifest = sample(), *decoded;
	uint8_t *bytes;
	size_t count;

	ck_assert_int_eq(manifest_encode(manifest, &bytes, &count, NULL), 0);
	for (size_t i = 0; i < count; i++) {
		/* Memory of its own, so that a sanitizer sees reads beyond it. */
		uint8_t *prefix = malloc(i + 1);

		memcpy(prefix, bytes, i);
		ck_assert_int_eq(manifest_decode(prefix, i, &decoded, NULL), STATUS_EPROTOCOL);
		free(prefix);
	}
	for (size_t bit = 0; bit < 8 * count; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (manifest_decode(bytes, count, &decoded, NULL) == 0)
			manifest_destroy(decoded);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	manifest_destroy(manifest);
	free(bytes);
}
END_TEST

#define B(literal) literal, sizeof(literal) - 1

static const struct {
	const char *bytes;
	size_t count;
	int code;
	const char *part; /* of the sentence */
} bad_bytes[] = {
	{B("\xc0"), STATUS_EPROTOCOL, "not an array"},
	{B("\x80"), STATUS_EPROTOCOL, "not an array"},
	{B("\x90"), STATUS_EMANIFEST, "no tensors"},
	{B("\x91\xa1w"), STATUS_EPROTOCOL, "not an array of 5"},
	{B("\x91\x94\xa1w\x01\x00\x90"), STATUS_EPROTOCOL, "not an array of 5"},
	{B("\x91\x96\xa1w\x01\x00\x90\xc0\xc0"), STATUS_EPROTOCOL, "not an array of 5"},
	{B("\x91\x95\x01\x01\x00\x90\xc0"), STATUS_EPROTOCOL, "name"},
	{B("\x91\x95\xa0\x01\x00\x90\xc0"), STATUS_ENAME, "empty"},
	{B("\x91\x95\xa1w\x0c\x00\x90\xc0"), STATUS_EPROTOCOL, "dtype"},
	{B("\x91\x95\xa1w\xff\x00\x90\xc0"), STATUS_EPROTOCOL, "dtype"},
	{B("\x91\x95\xa1w\xa3" "F32\x00\x90\xc0"), STATUS_EPROTOCOL, "dtype"},
	{B("\x91\x95\xa1w\x01\x02\x90\xc0"), STATUS_EPROTOCOL, "flags"},
	{B("\x91\x95\xa1w\x01\xc3\x90\xc0"), STATUS_EPROTOCOL, "flags"},
	{B("\x91\x95\xa1w\x01\x00\x01\xc0"), STATUS_EPROTOCOL, "extents"},
	{B("\x91\x95\xa1w\x01\x00\x91\xff\xc0"), STATUS_EPROTOCOL, "extents"},
	{B("\x91\x95\xa1w\x01\x00\xdc\x00\x11\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\xc0"), STATUS_ELIMIT, "17"},
	{B("\x91\x95\xa1w\x01\x00\x91\x05\x05"), STATUS_EPROTOCOL, "pieces"},
	{B("\x91\x95\xa1w\x01\x00\x91\x05\x91\x91\x91\x00"), STATUS_EPROTOCOL, "[offsets, extents]"},
	{B("\x91\x95\xa1w\x01\x00\x91\x05\x91\x92\x90\x91\x01"), STATUS_EPROTOCOL, "0 offsets and 1 extents"},
	{B("\x91\x95\xa1w\x01\x00\x91\x05\x91\x92\x91\x00\x92\x01\x01"), STATUS_EPROTOCOL, "1 offsets and 2 extents"},
	{B("\x91\x95\xa1w\x01\x00\x91\x05\x91\x92\x91\x04\x91\x02"), STATUS_EMANIFEST, "offset 4 and extent 2"},
	{B("\x92\x95\xa1w\x01\x00\x90\xc0\x95\xa1w\x01\x00\x90\xc0"), STATUS_EMANIFEST, "same name"},
	{B("\x91\x95\xa1w\x01\x00\x90\xc0\xc0"), STATUS_EPROTOCOL, ""},
	{B("\xdd\x20\x00\x00\x00"), STATUS_EPROTOCOL, ""},
};

START_TEST(refuses_hostile_bytes_with_a_sentence)
{
	struct manifest *manifest = NULL;
	struct reason reason = {""};

	ck_assert_int_eq(manifest_decode((const uint8_t *)bad_bytes[_i].bytes, bad_bytes[_i].count, &manifest, &reason),
	                 bad_bytes[_i].code);
	ck_assert_msg(reason.text[0] != '\0' && strstr(reason.text, bad_bytes[_i].part), "%s", reason.text);
	ck_assert_ptr_null(manifest);
}
END_TEST

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

START_TEST(decodes_as_many_tensors_as_allowed_without_comparing_each_with_each)
{
	struct manifest *manifest = manifest_new(), *decoded;
	double start, taken;
	uint8_t *bytes;
	char name[64];
	size_t count;

	for (int i = 0; i < TENSOR_COUNT_MAX; i++) {
		snprintf(name, sizeof(name), "encoder.layers.%d.attention.q_proj.weight", i);
		add_whole(manifest, name, DTYPE_BF16, SHAPE(12, 64));
	}
	finish(manifest);
	ck_assert_int_eq(manifest_encode(manifest, &bytes, &count, NULL), 0);
	start = seconds();
	ck_assert_int_eq(manifest_decode(bytes, count, &decoded, NULL), 0);
	taken = seconds() - start;
	ck_assert_int_eq(manifest_compare(manifest, decoded, NULL), 0);
	ck_assert_int_eq(manifest_find(decoded, name), TENSOR_COUNT_MAX - 1);
	/* A hundred times what it takes, and a hundredth of what comparing each with each would. */
	ck_assert_msg(taken < 10, "%.3f s", taken);
	if (getenv("MANIFEST_TIMES"))
		fprintf(stderr, "decoded %zu bytes in %.1f ms\n", count, 1e3 * taken);
	manifest_destroy(decoded);
	manifest_destroy(manifest);
	free(bytes);
}
END_TEST

/* A manifest of two tensors that differs from the model in one thing. */
struct compare_case {
	const char *name;
	enum dtype dtype;
	bool is_buffer;
	uint64_t rows;
	uint32_t dimension_count;
	const char *sentence; /* "" for equal */
};

static const struct compare_case compare_cases[] = {
	{"head.weight", DTYPE_F32, false, 12, 2, ""},
	{"tail.weight", DTYPE_F32, false, 12, 2, "tensor 1: name 'tail.weight' here, 'head.weight' in the model"},
	{"head.weight", DTYPE_BF16, false, 12, 2, "tensor 1 'head.weight': dtype BF16 here, F32 in the model"},
	{"head.weight", DTYPE_F32, true, 12, 2, "tensor 1 'head.weight': a buffer here, a parameter in the model"},
	{"head.weight", DTYPE_F32, false, 10, 2, "tensor 1 'head.weight': shape [10,64] here, [12,64] in the model"},
	{"head.weight", DTYPE_F32, false, 12, 1, "tensor 1 'head.weight': shape [12] here, [12,64] in the model"},
	{"head.weight", DTYPE_F32, false, 12, 0, "tensor 1 'head.weight': shape [] here, [12,64] in the model"},
};

static struct manifest *compared(const struct compare_case *row)
{
	struct manifest *manifest = manifest_new();

	add_whole(manifest, "first", DTYPE_F32, SHAPE(3));
	ck_assert_int_eq(manifest_add_tensor(manifest, row->name, strlen(row->name), row->dtype, row->is_buffer,
	                                     BOX(row->rows, 64), row->dimension_count, NULL),
	                 0);
	finish(manifest);
	return manifest;
}

START_TEST(names_the_first_difference)
{
	struct manifest *model = compared(&compare_cases[0]), *here = compared(&compare_cases[_i]);
	const char *sentence = compare_cases[_i].sentence;
	struct reason reason = {""};

	ck_assert_int_eq(manifest_compare(here, model, &reason), *sentence ? STATUS_EMANIFEST : 0);
	ck_assert_str_eq(reason.text, sentence);
	manifest_destroy(here);
	manifest_destroy(model);
}
END_TEST

START_TEST(names_the_tensor_that_only_one_side_has)
{
	struct manifest *longer = compared(&compare_cases[0]), *shorter = manifest_new();
	struct reason reason;

	add_whole(shorter, "first", DTYPE_F32, SHAPE(3));
	finish(shorter);
	ck_assert_int_eq(manifest_compare(longer, shorter, &reason), STATUS_EMANIFEST);
	ck_assert_str_eq(reason.text, "tensor 1 'head.weight' is only here: 2 tensors here, 1 in the model");
	ck_assert_int_eq(manifest_compare(shorter, longer, &reason), STATUS_EMANIFEST);
	ck_assert_str_eq(reason.text, "tensor 1 'head.weight' is only in the model: 1 tensors here, 2 in the model");
	manifest_destroy(longer);
	manifest_destroy(shorter);
}
END_TEST

START_TEST(long_names_and_shapes_leave_room_for_what_follows)
{
	static const uint64_t huge[DIMENSION_COUNT_MAX] = {INT64_MAX, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
	struct manifest *here = manifest_new(), *model = manifest_new();
	char name[TENSOR_NAME_BYTES_MAX + 1];
	struct reason reason;

	for (size_t i = 0; i < TENSOR_NAME_BYTES_MAX; i += 2)
		memcpy(name + i, "\xc3\xa9", 2);
	name[TENSOR_NAME_BYTES_MAX] = '\0';
	add(here, name, DTYPE_I8, huge, DIMENSION_COUNT_MAX);
	add(model, name, DTYPE_I8, huge, 1);
	finish(here);
	finish(model);
	ck_assert_int_eq(manifest_compare(here, model, &reason), STATUS_EMANIFEST);
	ck_assert_ptr_nonnull(strstr(reason.text, "\xc3\xa9': shape [9223372036854775807,1,1"));
	ck_assert_ptr_nonnull(strstr(reason.text, "[9223372036854775807] in the model"));
	manifest_destroy(here);
	manifest_destroy(model);
}
END_TEST

enum { MESH_RANKS = 8 };

struct mesh_box {
	unsigned rank;
	uint64_t offsets[2], extents[2];
};

/* One 8 x 6 tensor 'w' behind a whole one that rank 0 holds. */
static int mesh_check(const struct mesh_box *boxes, unsigned box_count, unsigned rank_count, struct reason *reason)
{
	struct manifest *ranks[MESH_RANKS] = {NULL};
	int r;

	for (unsigned rank = 0; rank < rank_count; rank++) {
		ranks[rank] = manifest_new();
		add(ranks[rank], "first", DTYPE_F32, SCALAR);
		if (rank == 0)
			ck_assert_int_eq(manifest_add_piece(ranks[rank], NULL, NULL, NULL), 0);
		add(ranks[rank], "w", DTYPE_F32, SHAPE(8, 6));
		for (unsigned i = 0; i < box_count; i++) {
			if (boxes[i].rank == rank)
				ck_assert_int_eq(
					manifest_add_piece(ranks[rank], boxes[i].offsets, boxes[i].extents, NULL), 0);
		}
		finish(ranks[rank]);
	}
	r = manifest_tiling_check((const struct manifest *const *)ranks, rank_count, reason);
	for (unsigned rank = 0; rank < rank_count; rank++)
		manifest_destroy(ranks[rank]);
	return r;
}

static const struct {
	unsigned rank_count, box_count;
	struct mesh_box boxes[6];
	const char *sentence; /* "" for a tiling */
} tilings[] = {
	{1, 1, {{0, {0, 0}, {8, 6}}}, ""},
	{2, 2, {{1, {0, 0}, {4, 6}}, {0, {4, 0}, {4, 6}}}, ""},
	{3, 3, {{0, {0, 0}, {3, 6}}, {1, {3, 0}, {3, 6}}, {2, {6, 0}, {2, 6}}}, ""},
	{4, 4, {{0, {0, 0}, {4, 3}}, {1, {0, 3}, {4, 3}}, {2, {4, 0}, {4, 3}}, {3, {4, 3}, {4, 3}}}, ""},
	{2, 3, {{0, {0, 0}, {8, 3}}, {1, {0, 3}, {8, 3}}, {1, {8, 6}, {0, 0}}}, ""},
	/* A pinwheel: no straight cut divides it. */
	{2,
         5,
         {{0, {0, 0}, {5, 2}}, {1, {5, 0}, {3, 4}}, {0, {2, 4}, {6, 2}}, {1, {0, 2}, {2, 4}}, {0, {2, 2}, {3, 2}}},
         ""},
	{1, 0, {{0}}, "tensor 'w': 48 of 48 elements are held by none of the 1 ranks"},
	{2,
         2,
         {{1, {0, 0}, {4, 6}}, {0, {4, 0}, {4, 5}}},
         "tensor 'w': 4 of 48 elements are held by none of the 2 ranks"},
	{2,
         2,
         {{0, {0, 0}, {8, 6}}, {1, {7, 5}, {1, 1}}},
         "tensor 'w': ranks 0 and 1 overlap: [8,6] at [0,0], and [1,1] at [7,5]; each element must have one owner"},
	{2,
         2,
         {{0, {0, 0}, {8, 6}}, {1, {0, 0}, {8, 6}}},
         "tensor 'w': ranks 0 and 1 overlap: [8,6] at [0,0], and [8,6] at [0,0]; each element must have one owner"},
	/* As many elements as there are, but not the right ones. */
	{2,
         2,
         {{1, {0, 0}, {4, 6}}, {0, {3, 0}, {4, 6}}},
         "tensor 'w': ranks 0 and 1 overlap: [4,6] at [3,0], and [4,6] at [0,0]; each element must have one owner"},
	{1, 2, {{0, {0, 0}, {8, 6}}, {0, {1, 1}, {1, 1}}}, "tensor 'w': rank 0 holds some elements twice"},
};

START_TEST(accepts_tilings_and_names_overlaps_and_gaps)
{
	struct reason reason = {""};
	int r = mesh_check(tilings[_i].boxes, tilings[_i].box_count, tilings[_i].rank_count, &reason);

	ck_assert_str_eq(reason.text, tilings[_i].sentence);
	ck_assert_int_eq(r, *tilings[_i].sentence ? STATUS_EMANIFEST : 0);
}
END_TEST

START_TEST(a_scalar_has_one_owner)
{
	struct manifest *ranks[2] = {manifest_new(), manifest_new()};
	struct reason reason;

	for (int i = 0; i < 2; i++) {
		add_whole(ranks[i], "scale", DTYPE_F32, SCALAR);
		finish(ranks[i]);
	}
	ck_assert_int_eq(manifest_tiling_check((const struct manifest *const *)ranks, 1, NULL), 0);
	ck_assert_int_eq(manifest_tiling_check((const struct manifest *const *)ranks, 2, &reason), STATUS_EMANIFEST);
	ck_assert_str_eq(reason.text,
	                 "tensor 'scale': ranks 0 and 1 overlap: [] at [], and [] at []; each element must "
	                 "have one owner");
	manifest_destroy(ranks[0]);
	manifest_destroy(ranks[1]);
}
END_TEST

/* Cuts a box at random places along random dimensions until there are count; boxes has room. */
static void random_cuts(uint64_t (*boxes)[2][3], unsigned count, const uint64_t extents[3])
{
	memset(boxes[0][0], 0, sizeof(boxes[0][0]));
	memcpy(boxes[0][1], extents, sizeof(boxes[0][1]));
	for (unsigned made = 1; made < count;) {
		unsigned which = (unsigned)random() % made, dimension = (unsigned)random() % 3;
		uint64_t extent = boxes[which][1][dimension], cut;

		if (extent < 2)
			continue;
		cut = 1 + (uint64_t)random() % (extent - 1);
		memcpy(boxes[made], boxes[which], sizeof(boxes[made]));
		boxes[which][1][dimension] = cut;
		boxes[made][0][dimension] += cut;
		boxes[made][1][dimension] -= cut;
		made++;
	}
}

/* Rank i holds box i. */
static int cuts_check(uint64_t (*boxes)[2][3], unsigned count, const uint64_t extents[3], struct reason *reason)
{
	struct manifest *ranks[64] = {NULL};
	int r;

	for (unsigned i = 0; i < count; i++) {
		ranks[i] = manifest_new();
		add(ranks[i], "w", DTYPE_F32, extents, 3);
		ck_assert_int_eq(manifest_add_piece(ranks[i], boxes[i][0], boxes[i][1], NULL), 0);
		finish(ranks[i]);
	}
	r = manifest_tiling_check((const struct manifest *const *)ranks, count, reason);
	for (unsigned i = 0; i < count; i++)
		manifest_destroy(ranks[i]);
	return r;
}

START_TEST(random_tilings_are_accepted_and_refused_after_the_smallest_change)
{
	const uint64_t extents[3] = {40, 30, 20};
	const char *given = getenv("MANIFEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
	uint64_t boxes[64][2][3];
	struct reason reason;

	srandom(seed);
	for (int round = 0; round < 300; round++) {
		unsigned count = 2 + (unsigned)random() % 63, which = (unsigned)random() % count;
		unsigned dimension = (unsigned)random() % 3;

		random_cuts(boxes, count, extents);
		reason.text[0] = '\0';
		ck_assert_msg(cuts_check(boxes, count, extents, &reason) == 0, "seed %u: %s", seed, reason.text);
		boxes[which][1][dimension]--;
		ck_assert_msg(cuts_check(boxes, count, extents, &reason) == STATUS_EMANIFEST, "seed %u: gap", seed);
		ck_assert_ptr_nonnull(strstr(reason.text, "none of"));
		boxes[which][1][dimension]++;
		if (boxes[which][0][dimension] == 0)
			continue;
		boxes[which][0][dimension]--;
		ck_assert_msg(cuts_check(boxes, count, extents, &reason) == STATUS_EMANIFEST, "seed %u: overlap", seed);
		ck_assert_ptr_nonnull(strstr(reason.text, "overlap"));
	}
}
END_TEST

static int sample_build(void *context)
{
	struct manifest *manifest = NULL;
	int r = manifest_create(&manifest);

	(void)context;
	for (int i = 0; i < 20 && r == 0; i++) {
		char name[] = {'t', (char)('a' + i), '\0'};

		r = manifest_add_tensor(manifest, name, 2, DTYPE_F32, false, SHAPE(4, 4), NULL);
		for (uint64_t row = 0; row < 4 && r == 0; row++)
			r = manifest_add_piece(manifest, BOX(row, 0), BOX(1, 4), NULL);
	}
	if (r == 0)
		r = manifest_finish(manifest, NULL);
	if (r == 0)
		r = manifest_tiling_check((const struct manifest *const *)&manifest, 1, NULL);
	manifest_destroy(manifest);
	return r;
}

static int sample_encode(void *context)
{
	uint8_t *bytes = NULL;
	size_t count;
	int r = manifest_encode(context, &bytes, &count, NULL);

	free(bytes);
	return r;
}

struct encoded {
	uint8_t *bytes;
	size_t count;
};

static int sample_decode(void *context)
{
	const struct encoded *encoded = context;
	struct manifest *manifest = NULL;
	int r = manifest_decode(encoded->bytes, encoded->count, &manifest, NULL);

	manifest_destroy(manifest);
	return r;
}

START_TEST(every_allocation_may_fail)
{
	struct manifest *manifest = sample();
	struct encoded encoded;

	ck_assert_uint_ge(failing_heap_sweep(sample_build, NULL), 25);
	ck_assert_uint_ge(failing_heap_sweep(sample_encode, manifest), 1);
	ck_assert_int_eq(manifest_encode(manifest, &encoded.bytes, &encoded.count, NULL), 0);
	ck_assert_uint_ge(failing_heap_sweep(sample_decode, &encoded), 10);
	free(encoded.bytes);
	manifest_destroy(manifest);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static void bytes_cases_add(TCase *tcase)
{
	tcase_add_test(tcase, comes_back_from_its_bytes);
	tcase_add_test(tcase, a_rank_may_hold_nothing);
	tcase_add_test(tcase, has_the_documented_bytes);
	tcase_add_test(tcase, refuses_every_prefix_and_survives_every_flipped_bit_of_its_bytes);
	tcase_add_loop_test(tcase, refuses_hostile_bytes_with_a_sentence, 0, COUNT(bad_bytes));
	tcase_add_test(tcase, decodes_as_many_tensors_as_allowed_without_comparing_each_with_each);
}

int main(void)
{
	Suite *suite = suite_create("manifest");
	TCase *tcase = tcase_create("manifest");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, makes_names_canonical);
	tcase_add_loop_test(tcase, refuses_a_bad_tensor_and_stays_as_it_was, 0, COUNT(bad_tensors));
	tcase_add_test(tcase, the_number_of_tensors_ends_at_its_limit);
	tcase_add_test(tcase, refuses_a_piece_that_sticks_out);
	tcase_add_test(tcase, the_pieces_of_a_tensor_end_at_their_limit);
	tcase_add_test(tcase, lays_the_stage_out_widest_first_then_by_dtype_then_by_manifest);
	tcase_add_test(tcase, refuses_pieces_whose_bytes_together_overflow);
	tcase_add_test(tcase, refuses_no_tensors_and_one_name_twice);
	bytes_cases_add(tcase);
	tcase_add_loop_test(tcase, names_the_first_difference, 0, COUNT(compare_cases));
	tcase_add_test(tcase, names_the_tensor_that_only_one_side_has);
	tcase_add_test(tcase, long_names_and_shapes_leave_room_for_what_follows);
	tcase_add_loop_test(tcase, accepts_tilings_and_names_overlaps_and_gaps, 0, COUNT(tilings));
	tcase_add_test(tcase, a_scalar_has_one_owner);
	tcase_add_test(tcase, random_tilings_are_accepted_and_refused_after_the_smallest_change);
	tcase_add_test(tcase, every_allocation_may_fail);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
