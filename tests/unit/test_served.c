/*
 * The dtypes that averages can be asked for: names, numbers, and what becomes of integers.
 */
#include "client/served.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(knows_the_names_of_safetensors_and_of_pytorch_in_any_case)
{
	static const struct {
		const char *name;
		enum emad_served_dtype dtype;
	} NAMES[] = {
		{"F64", EMAD_AS_F64},         {"float64", EMAD_AS_F64},           {"double", EMAD_AS_F64},
		{"f32", EMAD_AS_F32},         {"Float32", EMAD_AS_F32},           {"float", EMAD_AS_F32},
		{"F16", EMAD_AS_F16},         {"float16", EMAD_AS_F16},           {"half", EMAD_AS_F16},
		{"bF16", EMAD_AS_BF16},       {"BFLOAT16", EMAD_AS_BF16},         {"F8_E4M3", EMAD_AS_F8_E4M3},
		{"f8_e4m3", EMAD_AS_F8_E4M3}, {"float8_e4m3fn", EMAD_AS_F8_E4M3}, {"f8_e5m2", EMAD_AS_F8_E5M2},
		{"float8_e5m2", EMAD_AS_F8_E5M2},
	};

	for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
		enum emad_served_dtype dtype = EMAD_DTYPE_KEPT;

		ck_assert_int_eq(emad_dtype_parse(NAMES[i].name, &dtype), 0);
		ck_assert_msg(dtype == NAMES[i].dtype, "%s is %d", NAMES[i].name, (int)dtype);
	}
}
END_TEST

START_TEST(every_dtype_is_known_by_its_own_name)
{
	for (enum dtype dtype = 0; dtype < DTYPE_COUNT; dtype++) {
		enum emad_served_dtype served = EMAD_DTYPE_KEPT;
		int code = emad_dtype_parse(dtype_name(dtype), &served);

		ck_assert_int_eq(code, dtype_is_float(dtype) ? 0 : STATUS_EARGUMENT);
		if (code == 0)
			ck_assert_int_eq(served_dtype(served, DTYPE_F32), dtype);
	}
}
END_TEST

START_TEST(a_wrong_name_is_told_the_nearest_and_all)
{
	static const char *const wrong[] = {
		"", "bf15", "bfloat", "I64", "float16 ", "bfloat16bfloat16bfloat16bfloat16",
		"bfloat16bfloat16bfloat16bfloat16?",
	};
	static const char *const all[] = {"f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "bfloat16", "half"};
	enum emad_served_dtype dtype = EMAD_AS_F16;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		ck_assert_int_eq(emad_dtype_parse(wrong[i], &dtype), EMAD_EARGUMENT);
		ck_assert_int_eq(dtype, EMAD_AS_F16);
		for (size_t name = 0; name < sizeof(all) / sizeof(all[0]); name++)
			ck_assert_ptr_nonnull(strstr(emad_error(), all[name]));
	}
	ck_assert_int_eq(emad_dtype_parse("bf15", &dtype), EMAD_EARGUMENT);
	ck_assert_ptr_nonnull(strstr(emad_error(), "'bf15'; the nearest is 'bf16'"));
	ck_assert_int_eq(emad_dtype_parse("bfloat", &dtype), EMAD_EARGUMENT);
	ck_assert_ptr_nonnull(strstr(emad_error(), "the nearest is 'bfloat16'"));
	ck_assert_int_eq(emad_dtype_parse(NULL, &dtype), EMAD_EARGUMENT);
	ck_assert_int_eq(emad_dtype_parse("f16", NULL), EMAD_EARGUMENT);
}
END_TEST

START_TEST(snapshots_travel_as_nothing_shorter_than_sixteen_bits)
{
	struct reason reason;
	enum dtype dtype = DTYPE_COUNT;

	ck_assert_int_eq(served_parse_wire("bfloat16", &dtype, &reason), 0);
	ck_assert_int_eq(dtype, DTYPE_BF16);
	ck_assert_int_eq(served_parse_wire("HALF", &dtype, &reason), 0);
	ck_assert_int_eq(dtype, DTYPE_F16);
	ck_assert_int_eq(served_parse_wire("f32", &dtype, &reason), 0);
	ck_assert_int_eq(dtype, DTYPE_F32);
	ck_assert_int_eq(served_parse_wire("f64", &dtype, &reason), STATUS_EARGUMENT);
	ck_assert_int_eq(served_parse_wire("f8_e5m2", &dtype, &reason), STATUS_EARGUMENT);
	ck_assert_int_eq(dtype, DTYPE_F32);
	ck_assert_str_eq(reason.text, "snapshots do not travel as 'f8_e5m2'; the nearest is 'f32', all are f32, float32, "
	                              "float, f16, float16, half, bf16, bfloat16");
}
END_TEST

START_TEST(integers_and_bools_are_served_as_they_are)
{
	for (enum emad_served_dtype served = EMAD_DTYPE_KEPT; served <= EMAD_AS_F8_E5M2; served++) {
		ck_assert_int_eq(served_check(served, NULL), 0);
		for (enum dtype kept = 0; kept < DTYPE_COUNT; kept++) {
			bool is_kept = served == EMAD_DTYPE_KEPT || !dtype_is_float(kept);

			ck_assert_int_eq(served_dtype(served, kept), is_kept ? (int)kept : (int)served - 1);
		}
	}
	ck_assert_int_eq(served_check(EMAD_AS_F8_E5M2 + 1, NULL), STATUS_EARGUMENT);
	ck_assert_int_eq(served_check((enum emad_served_dtype)-1, NULL), STATUS_EARGUMENT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("served");
	TCase *cases = tcase_create("served");
	SRunner *runner;
	int failed;

	tcase_add_test(cases, knows_the_names_of_safetensors_and_of_pytorch_in_any_case);
	tcase_add_test(cases, every_dtype_is_known_by_its_own_name);
	tcase_add_test(cases, a_wrong_name_is_told_the_nearest_and_all);
	tcase_add_test(cases, snapshots_travel_as_nothing_shorter_than_sixteen_bits);
	tcase_add_test(cases, integers_and_bools_are_served_as_they_are);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
