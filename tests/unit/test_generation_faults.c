/*
 * Every call for a generation fails in turn, with every error that a disk has: what is there stays whole and where it
 * is, the error is told, nothing stays open, and the next try succeeds. And every bit of a generation is turned, and
 * every file cut off everywhere: that is damage, which is set aside.
 */
#include "tests/unit/disk_generations.h"
#include "tests/unit/disk_model.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MODEL[] = "run42%net";
static const char DIRECTORY[] = "/state/checkpoints/run42%net";

static const int errors[] = { EIO, EROFS, ENOSPC, EDQUOT, EMFILE, EACCES, ENOMEM };

enum { ERROR_COUNT = sizeof errors / sizeof errors[0] };

static struct disk *disk;

static struct generation_name name_of(uint64_t version)
{
	return (struct generation_name){ 10 * version, version };
}

static int put(uint64_t version, uint64_t serial, bool starts)
{
	const struct generation_name name = name_of(version);

	return generation_put(MODEL, &name, serial, starts);
}

static int take(enum file_work work, uint64_t version)
{
	const struct generation_name name = name_of(version);

	return generation_take(work, MODEL, &name);
}

/* A disk with the generations 1 and 2, of these serials, and another model. */
static void setup(void)
{
	const struct generation_name other = { 1, 1 };

	disk = disk_create();
	disk_use(disk);
	ck_assert_int_eq(generation_put("other", &other, 100, true), 0);
	ck_assert_int_eq(put(1, 1, true), 0);
	ck_assert_int_eq(put(2, 2, false), 0);
}

static void teardown(void)
{
	disk_destroy(disk);
}

static void again(void)
{
	teardown();
	setup();
}

static void faults_set(uint64_t countdown, int error, bool for_ever)
{
	const struct disk_faults faults = { .countdown = countdown, .error = error, .for_ever = for_ever };

	disk_faults_set(disk, &faults);
}

static void faults_end(void)
{
	disk_faults_set(disk, &(struct disk_faults){ 0 });
}

static void whole_check(uint64_t serial, uint64_t or_serial, const char *failed_at)
{
	struct found found = generation_look_for(MODEL);

	ck_assert_msg(found.serial == serial || found.serial == or_serial, "%s failed: generation %lu is found",
	              failed_at, (unsigned long)found.serial);
	ck_assert_int_eq(found.status, 0);
	ck_assert_uint_eq(disk_open_count(disk), 0);
	ck_assert(!disk_has(disk, DIRECTORY, "00000000000000000020-00000000000000000002.bad"));
}

static uint64_t everything_old(void *context, uint64_t bound)
{
	(void)context;
	(void)bound;
	return 0;
}

/* The power goes as well, and takes all that was not synchronised. */
static void outlives_check(uint64_t serial, uint64_t or_serial, const char *failed_at)
{
	struct disk *left = disk_copy(disk), *kept = disk;

	disk_use(left);
	disk = left;
	disk_lose(left, everything_old, NULL);
	whole_check(serial, or_serial, failed_at);
	disk = kept;
	disk_use(disk);
	disk_destroy(left);
}

/* Writes with each call failing; the version that is written and whether it is another average's. */
static void write_everywhere(int error, bool for_ever, uint64_t version, bool starts)
{
	int count = 0, refused = 0;

	for (uint64_t n = 1;; n++, count++) {
		const char *failed_at;
		int status;

		again();
		faults_set(n, error, for_ever);
		status = put(version, 3, starts);
		failed_at = disk_failed_at(disk);
		if (!failed_at) {
			ck_assert_int_eq(status, 0);
			break;
		}
		ck_assert_uint_eq(disk_open_count(disk), 0);
		refused += status != 0;
		if (status != 0) {
			ck_assert_msg(status == -error, "%s: %d", failed_at, status);
			ck_assert_msg(strstr(generation_sentence(), strerror(error)) != NULL, "%s: %s", failed_at,
			              generation_sentence());
		}
		faults_end();
		/* One that is there although it failed is as good. */
		whole_check(3, status == 0 ? 3 : 2, failed_at);
		outlives_check(3, status == 0 ? 3 : 2, failed_at);
		ck_assert_int_eq(put(status == 0 ? version + 1 : version, 4, starts && status != 0), 0);
		ck_assert_str_eq(generation_sentence(), "");
		whole_check(4, 4, failed_at);
		outlives_check(4, 4, failed_at);
	}
	ck_assert_int_gt(count, 50);
	ck_assert_int_gt(refused, 30);
}

START_TEST(whichever_call_of_a_checkpoint_fails_the_one_before_is_whole_and_the_next_try_succeeds)
{
	for (int for_ever = 0; for_ever < 2; for_ever++)
		write_everywhere(errors[_i], for_ever, 3, false);
}
END_TEST

START_TEST(whichever_call_of_another_averages_first_checkpoint_fails_the_one_before_stays)
{
	for (int for_ever = 0; for_ever < 2; for_ever++)
		write_everywhere(errors[_i], for_ever, 1, true);
}
END_TEST

START_TEST(whichever_call_of_a_recovery_fails_nothing_is_set_aside)
{
	uint64_t none_count = 0, older_count = 0;

	for (int for_ever = 0; for_ever < 2; for_ever++) {
		for (uint64_t n = 1;; n++) {
			struct found found;
			const char *failed_at;

			again();
			faults_set(n, errors[_i], for_ever);
			found = generation_look_for(MODEL);
			failed_at = disk_failed_at(disk);
			faults_end();
			if (!failed_at)
				break;
			ck_assert_uint_eq(disk_open_count(disk), 0);
			ck_assert_int_eq(found.count_bad, 0);
			ck_assert_msg(found.serial == 2 || found.status == -errors[_i], "%s: %d", failed_at,
			              found.status);
			none_count += found.serial == 0;
			older_count += found.serial == 1;
			whole_check(2, 2, failed_at);
			/* A training that goes on from the one before leaves the other one behind. */
			if (found.serial == 1) {
				ck_assert_int_eq(put(2, 3, false), 0);
				whole_check(3, 3, failed_at);
				outlives_check(3, 3, failed_at);
				ck_assert(disk_has(disk, DIRECTORY,
				                   "00000000000000000020-00000000000000000002.old-1790000000"));
			}
		}
	}
	ck_assert_uint_gt(none_count, 5);
	ck_assert_uint_gt(older_count, 5);
}
END_TEST

START_TEST(whichever_call_of_setting_aside_fails_the_next_try_succeeds)
{
	for (int discards = 0; discards < 2; discards++) {
		enum file_work work = discards ? FILE_DISCARD : FILE_BAD;

		for (uint64_t n = 1;; n++) {
			int status;

			again();
			faults_set(n, errors[_i], false);
			status = take(work, 2);
			ck_assert_uint_eq(disk_open_count(disk), 0);
			if (!disk_failed_at(disk)) {
				ck_assert_int_eq(status, 0);
				break;
			}
			ck_assert_msg(status == 0 || status == -errors[_i], "%s: %d", disk_failed_at(disk), status);
			faults_end();
			if (generation_look_for(MODEL).serial == 2)
				ck_assert_int_eq(take(work, 2), 0);
			ck_assert_uint_eq(generation_look_for(MODEL).serial, discards ? 0 : 1);
		}
	}
}
END_TEST

START_TEST(a_few_bytes_at_a_time_and_interruptions_are_enough)
{
	static const size_t chunks[] = { 1, 7, 511, 0 };

	for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
		const struct disk_faults faults = { .chunk_bytes_max = chunks[i], .interrupts = true };

		again();
		disk_faults_set(disk, &faults);
		ck_assert_int_eq(put(3, 3, false), 0);
		whole_check(3, 3, "nothing");
	}
}
END_TEST

START_TEST(a_file_system_without_exchange_takes_another_average_too)
{
	const struct disk_faults faults = { .lacks_exchange = true };

	disk_faults_set(disk, &faults);
	ck_assert_int_eq(put(1, 3, true), 0);
	whole_check(3, 3, "exchange");
	outlives_check(3, 3, "exchange");
	ck_assert(disk_has(disk, "/state/checkpoints", "run42%net%%old-1790000000"));
	ck_assert(!disk_has(disk, "/state/checkpoints", "run42%net%%new"));
}
END_TEST

START_TEST(what_goes_aside_in_the_same_second_gets_another_name)
{
	for (uint64_t serial = 3; serial < 6; serial++) {
		ck_assert_int_eq(put(1, serial, true), 0);
		ck_assert_int_eq(take(FILE_BAD, 1), 0);
		ck_assert_int_eq(put(1, serial, false), 0);
		ck_assert_int_eq(take(FILE_BAD, 1), 0);
		ck_assert_int_eq(put(1, serial, false), 0);
		whole_check(serial, serial, "nothing");
		ck_assert_int_eq(take(FILE_DISCARD, 1), 0);
	}
	ck_assert(disk_has(disk, "/state/checkpoints", "run42%net%%old-1790000000-4"));
}
END_TEST

START_TEST(a_state_directory_that_was_unmounted_is_not_written_to)
{
	ck_assert_int_eq(put(3, 3, false), 0);
	/* One that is gone altogether was moved, and is made anew. */
	generation_founds(false);
	disk_remove(disk, "/state");
	ck_assert_int_eq(put(4, 4, false), 0);
	whole_check(4, 4, "nothing");
	outlives_check(4, 4, "nothing");
	/* As a file system that is not mounted leaves it. */
	disk_remove(disk, "/state/checkpoints");
	ck_assert_int_eq(put(5, 5, false), -ENOENT);
	ck_assert_ptr_nonnull(strstr(generation_sentence(), "mount it again"));
	ck_assert(!disk_has(disk, "/state", "checkpoints"));
	generation_founds(true);
}
END_TEST

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static const char *const files[] = { "ema.safetensors", "slow.safetensors", "manifest.json" };

static void path_of(const char *file, char ret_path[160])
{
	snprintf(ret_path, 160, "%s/00000000000000000020-00000000000000000002/%s", DIRECTORY, file);
}

/* One look at a disk that is damaged. */
static void damaged_check(struct disk *damaged, const char *what, uint64_t at)
{
	struct found found;

	disk_use(damaged);
	found = generation_look_for(MODEL);
	if (found.serial != 1 || found.status != STATUS_ECORRUPT || found.count_bad != 1 ||
	    disk_has(damaged, DIRECTORY, "00000000000000000010-00000000000000000001.bad-") ||
	    !disk_has(damaged, DIRECTORY, "00000000000000000020-00000000000000000002.bad-1790000000"))
		ck_abort_msg("%s %lu: generation %lu, status %d, %d set aside", what, (unsigned long)at,
		             (unsigned long)found.serial, found.status, found.count_bad);
	disk_destroy(damaged);
	disk_use(disk);
}

START_TEST(every_bit_that_is_turned_is_found)
{
	char path[160];
	uint64_t bytes;

	path_of(files[_i], path);
	ck_assert_ptr_nonnull(disk_file(disk, path, &bytes));
	ck_assert_uint_gt(bytes, 100);
	for (uint64_t bit = 0; bit < 8 * bytes; bit++) {
		struct disk *damaged = disk_copy(disk);

		disk_file(damaged, path, &bytes)[bit / 8] ^= (uint8_t)(1 << bit % 8);
		damaged_check(damaged, "bit", bit);
	}
	whole_check(2, 2, "nothing");
}
END_TEST

START_TEST(a_file_that_is_cut_off_anywhere_is_found)
{
	char path[160];
	uint64_t bytes;

	path_of(files[_i], path);
	ck_assert_ptr_nonnull(disk_file(disk, path, &bytes));
	for (uint64_t left = 0; left < bytes; left++) {
		struct disk *damaged = disk_copy(disk);

		disk_file_cut(damaged, path, left);
		damaged_check(damaged, "cut off after", left);
	}
	whole_check(2, 2, "nothing");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("generation_faults");
	TCase *tcase = tcase_create("generation_faults");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, whichever_call_of_a_checkpoint_fails_the_one_before_is_whole_and_the_next_try_succeeds,
	                    0, ERROR_COUNT);
	tcase_add_loop_test(tcase, whichever_call_of_another_averages_first_checkpoint_fails_the_one_before_stays, 0,
	                    ERROR_COUNT);
	tcase_add_loop_test(tcase, whichever_call_of_a_recovery_fails_nothing_is_set_aside, 0, ERROR_COUNT);
	tcase_add_loop_test(tcase, whichever_call_of_setting_aside_fails_the_next_try_succeeds, 0, ERROR_COUNT);
	tcase_add_test(tcase, a_few_bytes_at_a_time_and_interruptions_are_enough);
	tcase_add_test(tcase, a_file_system_without_exchange_takes_another_average_too);
	tcase_add_test(tcase, what_goes_aside_in_the_same_second_gets_another_name);
	tcase_add_test(tcase, a_state_directory_that_was_unmounted_is_not_written_to);
	tcase_add_loop_test(tcase, every_bit_that_is_turned_is_found, 0, 3);
	tcase_add_loop_test(tcase, a_file_that_is_cut_off_anywhere_is_found, 0, 3);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
