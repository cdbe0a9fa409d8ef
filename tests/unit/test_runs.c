/*
 * Runs: the dtype at a place of a stage follows from a few sums, for every manifest; what is narrowed and widened is
 * rounded once, and every way of cutting a stage into parts gives the same bytes.
 */
#include "proto/runs.h"

#include "proto/convert.h"
#include "proto/manifest.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_COUNT = 60, EXTENT_MAX = 40, ROUND_COUNT = 200 };

static uint64_t state;

static uint64_t random_below(uint64_t limit)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (state >> 33) % limit;
}

static void setup(void)
{
	const char *seed = getenv("EMAD_TEST_SEED");

	state = seed ? strtoull(seed, NULL, 0) : 20261123;
	printf("EMAD_TEST_SEED=%llu\n", (unsigned long long)state);
}

static struct manifest *random_manifest(void)
{
	struct manifest *manifest;
	char name[32];

	ck_assert_int_eq(manifest_create(&manifest), 0);
	for (int i = 0; i < TENSOR_COUNT; i++) {
		const uint64_t extent = random_below(EXTENT_MAX);

		snprintf(name, sizeof(name), "t%d", i);
		ck_assert_int_eq(manifest_add_tensor(manifest, name, strlen(name), (enum dtype)random_below(DTYPE_COUNT), false,
		                                     &extent, 1, NULL),
		                 0);
		ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	return manifest;
}

/* What a stage holds: floats near 1, and bytes in everything else. */
static uint8_t *random_stage(const struct manifest *manifest)
{
	uint8_t *stage = malloc(manifest->stage_bytes + 1);

	ck_assert_ptr_nonnull(stage);
	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];
		const enum dtype dtype = manifest->tensors[piece->tensor].dtype;
		uint8_t *at = stage + piece->stage_offset;

		for (uint64_t e = 0; e < piece->element_count; e++, at += dtype_bytes(dtype)) {
			const double value = 1 + (double)random_below(1 << 30) / (1 << 30);

			if (dtype_is_float(dtype))
				convert_elements(DTYPE_F64, &value, dtype, at, 1);
			else
				memset(at, (int)random_below(256), dtype_bytes(dtype));
		}
	}
	return stage;
}

START_TEST(only_wider_floats_travel_in_another_dtype)
{
	ck_assert_int_eq(runs_wire_dtype(DTYPE_BF16, DTYPE_F64), DTYPE_BF16);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_BF16, DTYPE_F32), DTYPE_BF16);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_BF16, DTYPE_F16), DTYPE_F16);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_BF16, DTYPE_F8_E5M2), DTYPE_F8_E5M2);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_BF16, DTYPE_I64), DTYPE_I64);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_F32, DTYPE_F32), DTYPE_F32);
	ck_assert_int_eq(runs_wire_dtype(DTYPE_F32, DTYPE_F64), DTYPE_F32);
	for (enum dtype kept = 0; kept < DTYPE_COUNT; kept++)
		ck_assert_int_eq(runs_wire_dtype(RUNS_AS_KEPT, kept), kept);
}
END_TEST

START_TEST(between_the_elements_of_a_stage_are_boundaries_and_nowhere_else)
{
	for (int round = 0; round < ROUND_COUNT; round++) {
		struct manifest *manifest = random_manifest();
		bool *expected = calloc(manifest->stage_bytes + 2, sizeof(*expected));

		ck_assert_ptr_nonnull(expected);
		expected[manifest->stage_bytes] = expected[manifest->stage_bytes + 1] = true;
		for (uint32_t i = 0; i < manifest->piece_count; i++) {
			const struct piece *piece = &manifest->pieces[i];

			for (uint64_t e = 0; e < piece->element_count; e++)
				expected[piece->stage_offset + e * dtype_bytes(manifest->tensors[piece->tensor].dtype)] = true;
		}
		for (uint64_t at = 0; at < manifest->stage_bytes + 2; at++)
			ck_assert_int_eq(runs_is_boundary(&manifest->runs, at), expected[at]);
		free(expected);
		manifest_destroy(manifest);
	}
}
END_TEST

/* What comes out at the other end, tensor by tensor. */
static void stage_compare(const struct manifest *manifest, enum dtype wire, const uint8_t *stage, const uint8_t *arrived)
{
	uint8_t short_[EXTENT_MAX * 8], expected[EXTENT_MAX * 8];

	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];
		const enum dtype kept = manifest->tensors[piece->tensor].dtype, dtype = runs_wire_dtype(wire, kept);

		convert_elements(kept, stage + piece->stage_offset, dtype, short_, piece->element_count);
		convert_elements(dtype, short_, kept, expected, piece->element_count);
		ck_assert_mem_eq(arrived + piece->stage_offset, expected, piece->element_count * dtype_bytes(kept));
	}
}

START_TEST(a_stage_that_travels_in_parts_of_any_size_is_rounded_once)
{
	static const enum dtype WIRES[] = {RUNS_AS_KEPT, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3};

	for (int round = 0; round < ROUND_COUNT; round++) {
		struct manifest *manifest = random_manifest();
		const enum dtype wire = WIRES[random_below(sizeof(WIRES) / sizeof(WIRES[0]))];
		uint8_t *stage = random_stage(manifest), *arrived = malloc(manifest->stage_bytes + 1);
		uint8_t *body = malloc(manifest->stage_bytes + 1);
		uint64_t sum = 0, begin = 0;

		ck_assert(arrived && body);
		while (begin < manifest->stage_bytes) {
			uint64_t end = begin + 1 + random_below(manifest->stage_bytes - begin), bytes;

			while (!runs_is_boundary(&manifest->runs, end))
				end++;
			bytes = runs_wire_bytes(&manifest->runs, wire, begin, end - begin);
			ck_assert_uint_le(bytes, end - begin);
			runs_narrow(&manifest->runs, wire, begin, end - begin, stage + begin, body);
			runs_widen(&manifest->runs, wire, begin, end - begin, body, arrived + begin);
			sum += bytes;
			begin = end;
		}
		ck_assert_uint_eq(sum, runs_wire_bytes(&manifest->runs, wire, 0, manifest->stage_bytes));
		stage_compare(manifest, wire, stage, arrived);
		free(stage);
		free(arrived);
		free(body);
		manifest_destroy(manifest);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("runs");
	TCase *tests = tcase_create("runs");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, only_wider_floats_travel_in_another_dtype);
	tcase_add_test(tests, between_the_elements_of_a_stage_are_boundaries_and_nowhere_else);
	tcase_add_test(tests, a_stage_that_travels_in_parts_of_any_size_is_rounded_once);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
