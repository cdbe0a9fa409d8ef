/*
 * The limit on open files: raised as far as it may be, and compared with what the settings need.
 */
#include "daemon/edge/descriptors.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void limit_set(rlim_t soft, rlim_t hard)
{
	const struct rlimit limit = { soft, hard };

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

START_TEST(the_limit_is_raised_as_far_as_it_may_be)
{
	struct rlimit limit;

	limit_set(256, 512);
	descriptors_raise();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_uint_eq(limit.rlim_cur, 512);
	descriptors_raise();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_uint_eq(limit.rlim_cur, 512);
}
END_TEST

START_TEST(a_limit_that_is_too_low_is_told_with_both_numbers)
{
	struct reason reason;

	/* Two a segment, as many connections of two sockets, and 64. */
	limit_set(2 * 100 + 2 * 10 + 64, 512);
	ck_assert_int_eq(descriptors_check(100, 10, &reason), 0);
	ck_assert_int_eq(descriptors_check(101, 10, &reason), -EMFILE);
	ck_assert_msg(strncmp(reason.text, "284 files may be open, and 286 are needed for segments-max=101 and "
	                      "connections-max=10: raise LimitNOFILE=", 100) == 0, "%s", reason.text);
	ck_assert_int_eq(descriptors_check(100, 11, &reason), -EMFILE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("descriptors");
	TCase *tcase = tcase_create("descriptors");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, the_limit_is_raised_as_far_as_it_may_be);
	tcase_add_test(tcase, a_limit_that_is_too_low_is_told_with_both_numbers);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
