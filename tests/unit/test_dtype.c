/* Element types and the sizes of shapes. */
#include "proto/dtype.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

static const struct {
	const char *name;
	enum dtype dtype, shadow;
	uint64_t bytes;
	bool is_float;
} TYPES[] = {
        {"F64", DTYPE_F64, DTYPE_F64, 8, true},          {"F32", DTYPE_F32, DTYPE_F32, 4, true},
        {"F16", DTYPE_F16, DTYPE_F32, 2, true},          {"BF16", DTYPE_BF16, DTYPE_F32, 2, true},
        {"F8_E4M3", DTYPE_F8_E4M3, DTYPE_F32, 1, true},  {"F8_E5M2", DTYPE_F8_E5M2, DTYPE_F32, 1, true},
        {"I64", DTYPE_I64, DTYPE_I64, 8, false},         {"I32", DTYPE_I32, DTYPE_I32, 4, false},
        {"I16", DTYPE_I16, DTYPE_I16, 2, false},         {"I8", DTYPE_I8, DTYPE_I8, 1, false},
        {"U8", DTYPE_U8, DTYPE_U8, 1, false},            {"BOOL", DTYPE_BOOL, DTYPE_BOOL, 1, false},
};

START_TEST(every_dtype_has_its_name_size_and_shadow)
{
	ck_assert_uint_eq(sizeof(TYPES) / sizeof(*TYPES), DTYPE_COUNT);
	for (size_t i = 0; i < DTYPE_COUNT; i++) {
		enum dtype dtype = DTYPE_COUNT;

		ck_assert_int_eq(TYPES[i].dtype, (int)i); /* the wire order */
		ck_assert_str_eq(dtype_name(TYPES[i].dtype), TYPES[i].name);
		ck_assert_uint_eq(dtype_bytes(TYPES[i].dtype), TYPES[i].bytes);
		ck_assert_int_eq(dtype_is_float(TYPES[i].dtype), TYPES[i].is_float);
		ck_assert_int_eq(dtype_shadow(TYPES[i].dtype), TYPES[i].shadow);
		ck_assert(dtype_parse(TYPES[i].name, &dtype));
		ck_assert_int_eq(dtype, TYPES[i].dtype);
	}
}
END_TEST

START_TEST(refuses_names_that_are_not_of_safetensors)
{
	static const char *const NAMES[] = {"", "f32", "F", "F3", "F320", " F32", "float32", "F8", "U16", "C64"};

	for (size_t i = 0; i < sizeof(NAMES) / sizeof(*NAMES); i++) {
		enum dtype dtype = DTYPE_I16;

		ck_assert(!dtype_parse(NAMES[i], &dtype));
		ck_assert_int_eq(dtype, DTYPE_I16);
	}
}
END_TEST

START_TEST(counts_the_elements_of_a_shape)
{
	static const uint64_t SHAPE[] = {3, 224, 7, 1};
	uint64_t elements;

	ck_assert_int_eq(shape_elements(SHAPE, 4, DTYPE_F32, &elements), 0);
	ck_assert_uint_eq(elements, 3 * 224 * 7);
	ck_assert_int_eq(shape_elements(NULL, 0, DTYPE_F64, &elements), 0);
	ck_assert_uint_eq(elements, 1);
}
END_TEST

START_TEST(a_shape_with_a_zero_extent_has_no_elements_however_large_the_others)
{
	static const uint64_t SHAPE[] = {UINT64_MAX, UINT64_MAX, 0, 5};
	uint64_t elements = 1;

	ck_assert_int_eq(shape_elements(SHAPE, 4, DTYPE_F64, &elements), 0);
	ck_assert_uint_eq(elements, 0);
}
END_TEST

START_TEST(rejects_a_shape_whose_elements_overflow)
{
	static const uint64_t SHAPES[][3] = {
	        {UINT64_MAX, 1, 1},
	        {UINT64_C(1) << 63, 1, 1},
	        {UINT64_C(1) << 32, UINT64_C(1) << 31, 1},
	        {UINT64_C(1) << 32, UINT64_C(1) << 32, 1}, /* 2^64: zero if it wrapped */
	        {UINT64_C(1) << 22, UINT64_C(1) << 22, UINT64_C(1) << 22},
	        {3, UINT64_MAX / 3 + 1, 1},
	};
	uint64_t elements = 42;

	for (size_t i = 0; i < sizeof(SHAPES) / sizeof(*SHAPES); i++)
		ck_assert_int_eq(shape_elements(SHAPES[i], 3, DTYPE_U8, &elements), -EOVERFLOW);
	ck_assert_uint_eq(elements, 42);
}
END_TEST

START_TEST(rejects_a_shape_whose_bytes_overflow)
{
	for (size_t i = 0; i < DTYPE_COUNT; i++) {
		uint64_t most = (uint64_t)INT64_MAX / TYPES[i].bytes, over = most + 1, elements = 42;

		ck_assert_int_eq(shape_elements(&over, 1, TYPES[i].dtype, &elements), -EOVERFLOW);
		ck_assert_uint_eq(elements, 42);
		ck_assert_int_eq(shape_elements(&most, 1, TYPES[i].dtype, &elements), 0);
		ck_assert_uint_eq(elements, most);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dtype");
	TCase *tcase = tcase_create("dtype");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, every_dtype_has_its_name_size_and_shadow);
	tcase_add_test(tcase, refuses_names_that_are_not_of_safetensors);
	tcase_add_test(tcase, counts_the_elements_of_a_shape);
	tcase_add_test(tcase, a_shape_with_a_zero_extent_has_no_elements_however_large_the_others);
	tcase_add_test(tcase, rejects_a_shape_whose_elements_overflow);
	tcase_add_test(tcase, rejects_a_shape_whose_bytes_overflow);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
