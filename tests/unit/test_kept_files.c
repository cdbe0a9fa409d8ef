/* Which files stay, in a real directory. */
#include "client/emactl/kept_files.h"

#include <check.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[] = "/tmp/emad-kept-XXXXXX";

static void file_make(const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static bool file_is_there(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return access(path, F_OK) == 0;
}

static void step_make(uint64_t step)
{
	char name[KEPT_NAME_BYTES];

	kept_files_name("run42/net", "ema", &step, name);
	file_make(name);
}

static bool step_is_there(uint64_t step)
{
	char name[KEPT_NAME_BYTES];

	kept_files_name("run42/net", "ema", &step, name);
	return file_is_there(name);
}

START_TEST(names_have_no_slashes_and_sort_by_step)
{
	char early[KEPT_NAME_BYTES], late[KEPT_NAME_BYTES], next[KEPT_NAME_BYTES];

	kept_files_name("run42/net", "ema", &(uint64_t){999}, early);
	kept_files_name("run42/net", "ema", &(uint64_t){UINT64_MAX}, late);
	kept_files_name("run42/net", "ema", NULL, next);
	ck_assert_str_eq(early, "run42%net.ema.00000000000000000999.safetensors");
	ck_assert_str_eq(next, "run42%net.ema.next.safetensors");
	ck_assert_int_lt(strcmp(early, late), 0);
}
END_TEST

START_TEST(the_newest_stay_and_nothing_of_others_goes)
{
	static const char *const FOREIGN[] = {
		"run42%net.slow.00000000000000000001.safetensors", "run42%net.ema.1.safetensors", "notes",
		"run42%net.ema.00000000000000000001.safetensors.bak", "xrun42%net.ema.00000000000000000001.safetensors",
	};
	struct reason reason;

	for (size_t i = 0; i < sizeof(FOREIGN) / sizeof(FOREIGN[0]); i++)
		file_make(FOREIGN[i]);
	for (uint64_t step = 8; step < 13; step++)
		step_make(step);
	ck_assert_int_eq(kept_files_trim(directory, "run42/net", "ema", 2, "", &reason), 0);
	for (uint64_t step = 8; step < 13; step++)
		ck_assert_int_eq(step_is_there(step), step >= 11);
	for (size_t i = 0; i < sizeof(FOREIGN) / sizeof(FOREIGN[0]); i++)
		ck_assert_msg(file_is_there(FOREIGN[i]), "%s", FOREIGN[i]);
}
END_TEST

START_TEST(the_one_just_written_stays_though_training_went_back)
{
	char kept[KEPT_NAME_BYTES];
	struct reason reason;

	kept_files_name("run42/net", "ema", &(uint64_t){5}, kept);
	step_make(5);
	step_make(11);
	step_make(12);
	ck_assert_int_eq(kept_files_trim(directory, "run42/net", "ema", 2, kept, &reason), 0);
	ck_assert(step_is_there(5) && !step_is_there(11) && step_is_there(12));
}
END_TEST

START_TEST(a_directory_that_is_gone_is_an_error)
{
	struct reason reason = {""};

	ck_assert_int_lt(kept_files_trim("/nonexistent", "m", "p", 1, "", &reason), 0);
	ck_assert_ptr_nonnull(strstr(reason.text, "/nonexistent"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kept_files");
	TCase *tests = tcase_create("files");
	char command[64];
	SRunner *runner;
	int failures;

	if (!mkdtemp(directory))
		return EXIT_FAILURE;
	tcase_add_test(tests, names_have_no_slashes_and_sort_by_step);
	tcase_add_test(tests, the_newest_stay_and_nothing_of_others_goes);
	tcase_add_test(tests, the_one_just_written_stays_though_training_went_back);
	tcase_add_test(tests, a_directory_that_is_gone_is_an_error);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command) || failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
