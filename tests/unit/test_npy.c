/* NumPy's header, against what NumPy 2 itself writes. */
#include "client/emactl/npy.h"

#include "proto/limits.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static void check_text(enum dtype dtype, const uint64_t *extents, uint32_t dimension_count, const char *expected)
{
	char header[NPY_HEADER_BYTES_MAX];
	const size_t bytes = npy_header(dtype, extents, dimension_count, header);
	const size_t said = (size_t)(uint8_t)header[8] | (size_t)(uint8_t)header[9] << 8;

	ck_assert_uint_eq(bytes % 64, 0);
	ck_assert_uint_eq(said, bytes - 10);
	ck_assert_mem_eq(header, "\x93NUMPY\x01\x00", 8);
	ck_assert_mem_eq(header + 10, expected, strlen(expected));
	for (size_t i = 10 + strlen(expected); i + 1 < bytes; i++)
		ck_assert_int_eq(header[i], ' ');
	ck_assert_int_eq(header[bytes - 1], '\n');
}

START_TEST(shapes_are_tuples_of_python)
{
	check_text(DTYPE_F32, NULL, 0, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
	check_text(DTYPE_I64, (uint64_t[]){5}, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }");
	check_text(DTYPE_BOOL, (uint64_t[]){64, 3}, 2, "{'descr': '|b1', 'fortran_order': False, 'shape': (64, 3), }");
}
END_TEST

START_TEST(what_numpy_lacks_becomes_float32)
{
	check_text(DTYPE_BF16, (uint64_t[]){1}, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }");
	for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
		const bool is_lacking = dtype == DTYPE_BF16 || dtype == DTYPE_F8_E4M3 || dtype == DTYPE_F8_E5M2;

		ck_assert_int_eq(npy_dtype((enum dtype)dtype), is_lacking ? DTYPE_F32 : (enum dtype)dtype);
	}
}
END_TEST

START_TEST(the_longest_shape_has_room)
{
	uint64_t extents[DIMENSION_COUNT_MAX];
	char header[NPY_HEADER_BYTES_MAX];
	size_t bytes;

	for (int i = 0; i < DIMENSION_COUNT_MAX; i++)
		extents[i] = UINT64_MAX;
	bytes = npy_header(DTYPE_F64, extents, DIMENSION_COUNT_MAX, header);
	ck_assert_uint_le(bytes, sizeof(header));
	ck_assert_ptr_nonnull(memmem(header, bytes, "18446744073709551615), }", 24));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("npy");
	TCase *tests = tcase_create("header");
	SRunner *runner;
	int failures;

	tcase_add_test(tests, shapes_are_tuples_of_python);
	tcase_add_test(tests, what_numpy_lacks_becomes_float32);
	tcase_add_test(tests, the_longest_shape_has_room);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
