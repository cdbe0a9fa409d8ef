/*
 * One file on a real disk: every byte and the checksum are right whether it goes past the page cache or through it and
 * wherever a call fails, and a limit is kept, by a clock of the test's own.
 */
#include "daemon/edge/files_write.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/edge/files_pace.h"
#include "proto/layout.h"

enum { MEBI = 1024 * 1024, IMAGE_BYTES = 40 * MEBI, DIRECT_UNIT = 4096 };

static const uint64_t SECOND_NS = 1000000000;

static char root[80];
static uint8_t *image; /* at a page */
static int directory;
static atomic_bool abandons;
static struct files_pace pace;

static struct {
	const char *fails; /* this call, from its n-th time on */
	int from, error, count;
	size_t write_bytes_max;
	size_t largest_write;
	uint64_t direct_bytes, cached_bytes;
	uint64_t synced_end; /* the first byte behind what was waited for */
	uint64_t dirty_bytes_max;
	uint64_t now_ns;
	uint64_t written_at_s[64]; /* bytes, by the second */
	int wait_count;
	bool ends_in_wait;
} fake;

static bool fails(const char *name)
{
	if (!fake.fails || strcmp(fake.fails, name) != 0 || ++fake.count < fake.from)
		return false;
	errno = fake.error;
	return true;
}

static int fake_openat(int parent, const char *name, int flags, mode_t mode)
{
	int fd;

	if ((flags & O_DIRECT) == 0 || !fails("open direct"))
		return files_system.openat(parent, name, flags, mode);
	/* As Linux does it: the file is there all the same. */
	fd = files_system.openat(parent, name, flags & ~O_DIRECT, mode);
	if (fd >= 0)
		close(fd);
	errno = fake.error;
	return -1;
}

static ssize_t fake_write(int fd, const void *bytes, size_t count)
{
	bool direct = (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
	uint64_t second = fake.now_ns / SECOND_NS;
	ssize_t done;

	if ((direct && fails("write direct")) || fails("write"))
		return -1;
	if (fake.write_bytes_max > 0 && count > fake.write_bytes_max)
		count = fake.write_bytes_max;
	if (count > fake.largest_write)
		fake.largest_write = count;
	done = write(fd, bytes, count);
	if (done > 0)
		*(direct ? &fake.direct_bytes : &fake.cached_bytes) += (uint64_t)done;
	if (done > 0 && second < 64)
		fake.written_at_s[second] += (uint64_t)done;
	if (fake.cached_bytes - fake.synced_end > fake.dirty_bytes_max)
		fake.dirty_bytes_max = fake.cached_bytes - fake.synced_end;
	return done;
}

static int fake_flags_set(int fd, int flags)
{
	return fails("flags") ? -1 : files_system.flags_set(fd, flags);
}

static int fake_sync_range(int fd, off_t offset, off_t bytes, unsigned int flags)
{
	if (fails("sync_range"))
		return -1;
	if (flags & SYNC_FILE_RANGE_WAIT_AFTER)
		fake.synced_end = (uint64_t)(offset + bytes);
	return files_system.sync_range(fd, offset, bytes, flags);
}

static uint64_t fake_clock_ns(void)
{
	return fake.now_ns;
}

static void fake_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
	(void)cond;
	fake.wait_count++;
	ck_assert_uint_gt(until_ns, fake.now_ns);
	if (fake.ends_in_wait) {
		pthread_mutex_unlock(lock);
		files_pace_end(&pace);
		pthread_mutex_lock(lock);
	} else {
		fake.now_ns = until_ns;
	}
}

static struct files_calls calls;
static struct files_place place = {
	.state_dir = root,
	.calls = &calls,
	.abandons = &abandons,
	.space_hint = "; make room",
	.pace = &pace,
};

static void setup(void)
{
	strcpy(root, "/tmp/emad-test-write-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	directory = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(directory, 0);
	image = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(image != MAP_FAILED);
	for (int i = 0; i < IMAGE_BYTES; i++)
		image[i] = (uint8_t)((uint32_t)i * 2654435761U >> 24);
	memset(&fake, 0, sizeof fake);
	fake.now_ns = 5 * SECOND_NS;
	calls = files_system;
	calls.openat = fake_openat;
	calls.write = fake_write;
	calls.flags_set = fake_flags_set;
	calls.sync_range = fake_sync_range;
	calls.clock_ns = fake_clock_ns;
	calls.wait = fake_wait;
	atomic_store(&abandons, false);
	files_pace_init(&pace);
}

static void teardown(void)
{
	unlinkat(directory, "file", 0);
	close(directory);
	rmdir(root);
	munmap(image, IMAGE_BYTES);
	files_pace_finish(&pace);
}

static uint64_t checksum;

static int file_write(uint64_t from, uint64_t byte_count)
{
	const struct files_content content = { "file", image + from, byte_count, &checksum, NULL };
	struct reason reason = { "" };
	int status;

	unlinkat(directory, "file", 0);
	checksum = 4711;
	status = files_file_write(&place, directory, "file", &content, &reason);
	ck_assert(status == 0 || status == -ENOMEM || reason.text[0]);
	return status;
}

/* Every byte, and the checksum. */
static void file_check(uint64_t from, uint64_t byte_count)
{
	static uint8_t bytes[IMAGE_BYTES + 1];
	char path[100];
	FILE *file;

	snprintf(path, sizeof path, "%s/file", root);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fread(bytes, 1, sizeof bytes, file), byte_count);
	fclose(file);
	ck_assert_int_eq(memcmp(bytes, image + from, byte_count), 0);
	ck_assert_uint_eq(checksum, layout_checksum(image + from, byte_count));
}

/* Whether the disk under /tmp takes files past the page cache at all: a tmpfs of an old kernel does not. */
static bool has_direct(void)
{
	int fd = openat(directory, "file", O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);

	unlinkat(directory, "file", 0);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* ---- past the page cache, and through it ------------------------------------------------------------------------- */

START_TEST(a_file_of_any_size_is_whole)
{
	static const uint64_t sizes[] = { 0, 1, 4095, 4096, 65535, 65536, 65537, 4 * MEBI - 1, 4 * MEBI, 4 * MEBI + 4097,
	                                  IMAGE_BYTES - 4096 };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		ck_assert_int_eq(file_write(0, sizes[i]), 0);
		file_check(0, sizes[i]);
		/* Not at a page: through the page cache. */
		ck_assert_int_eq(file_write(16, sizes[i]), 0);
		file_check(16, sizes[i]);
	}
}
END_TEST

START_TEST(a_large_file_goes_past_the_page_cache_but_for_its_end)
{
	if (!has_direct())
		return;
	ck_assert_int_eq(file_write(0, 20 * MEBI + 100), 0);
	file_check(0, 20 * MEBI + 100);
	ck_assert_uint_eq(fake.direct_bytes, 20 * MEBI);
	ck_assert_uint_eq(fake.cached_bytes, 100);
}
END_TEST

START_TEST(where_the_file_system_refuses_it_goes_through_the_page_cache)
{
	if (!has_direct())
		return;
	fake.error = EINVAL;
	fake.fails = "open direct";
	ck_assert_int_eq(file_write(0, 9 * MEBI), 0);
	file_check(0, 9 * MEBI);
	ck_assert_uint_eq(fake.direct_bytes, 0);
	/* Some say so only when it comes to writing, or at a later write. */
	fake.fails = "write direct";
	for (fake.from = 1; fake.from <= 3; fake.from++) {
		fake.count = 0;
		fake.direct_bytes = 0;
		ck_assert_int_eq(file_write(0, 9 * MEBI), 0);
		file_check(0, 9 * MEBI);
		ck_assert_uint_eq(fake.direct_bytes, (uint64_t)(fake.from - 1) * 4 * MEBI);
	}
}
END_TEST

START_TEST(writes_that_are_cut_anywhere_go_on)
{
	fake.write_bytes_max = 3 * DIRECT_UNIT;
	ck_assert_int_eq(file_write(0, MEBI + 5), 0);
	file_check(0, MEBI + 5);
	fake.write_bytes_max = 10007;
	ck_assert_int_eq(file_write(0, MEBI + 5), 0);
	file_check(0, MEBI + 5);
}
END_TEST

START_TEST(what_is_another_failure_is_one)
{
	static const char *const names[] = { "open direct", "write direct", "write" };

	if (!has_direct())
		return;
	for (size_t i = 0; i < 3; i++) {
		fake.fails = names[i];
		fake.count = 0;
		fake.error = ENOSPC;
		ck_assert_int_eq(file_write(0, MEBI), -ENOSPC);
		ck_assert_uint_eq(checksum, 4711);
	}
	fake.fails = "flags";
	fake.error = EPERM;
	ck_assert_int_eq(file_write(0, MEBI + 1), -EPERM);
}
END_TEST

START_TEST(a_table_without_the_calls_for_speed_will_do)
{
	calls.flags_set = NULL;
	calls.sync_range = NULL;
	ck_assert_int_eq(file_write(0, IMAGE_BYTES - 1), 0);
	file_check(0, IMAGE_BYTES - 1);
	ck_assert_uint_eq(fake.direct_bytes, 0);
}
END_TEST

START_TEST(the_page_cache_does_not_fill_with_what_is_to_be_written)
{
	calls.flags_set = NULL;
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	file_check(0, IMAGE_BYTES);
	ck_assert_uint_le(fake.dirty_bytes_max, 16 * MEBI);
	ck_assert_uint_ge(fake.synced_end, IMAGE_BYTES - 16 * MEBI);
}
END_TEST

START_TEST(the_disks_failures_on_the_way_are_the_files)
{
	static const struct {
		int error, status;
	} rows[] = { { EIO, -EIO }, { ENOSPC, -ENOSPC }, { EDQUOT, -EDQUOT }, { ENOSYS, 0 }, { EINVAL, 0 }, { EPERM, 0 } };

	calls.flags_set = NULL;
	fake.fails = "sync_range";
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (fake.from = 1; fake.from <= 3; fake.from++) {
			fake.count = 0;
			fake.error = rows[i].error;
			ck_assert_int_eq(file_write(0, IMAGE_BYTES), rows[i].status);
			if (rows[i].status == 0)
				file_check(0, IMAGE_BYTES);
		}
	}
}
END_TEST

/* ---- the limit --------------------------------------------------------------------------------------------------- */

static void limit_check(uint64_t bytes_per_s, uint64_t byte_count)
{
	uint64_t chunk_bytes = bytes_per_s / 20 > DIRECT_UNIT ? bytes_per_s / 20 : DIRECT_UNIT;
	uint64_t before_ns = fake.now_ns, spent_ns;

	files_pace_set(&pace, bytes_per_s);
	memset(fake.written_at_s, 0, sizeof fake.written_at_s);
	fake.largest_write = 0;
	ck_assert_int_eq(file_write(0, byte_count), 0);
	file_check(0, byte_count);
	spent_ns = fake.now_ns - before_ns;
	/* A tenth of a second's worth at once, and the last chunk is paid for by whoever comes next. */
	ck_assert_uint_ge(spent_ns + 101000000, (byte_count - chunk_bytes) * SECOND_NS / bytes_per_s);
	ck_assert_uint_le(spent_ns, byte_count * SECOND_NS / bytes_per_s);
	for (size_t s = 0; s < 64; s++)
		ck_assert_uint_le(fake.written_at_s[s], bytes_per_s + bytes_per_s / 10 + 2 * chunk_bytes);
	ck_assert_uint_le(fake.largest_write, chunk_bytes);
}

START_TEST(a_limit_is_kept_in_every_second)
{
	limit_check(MEBI, 20 * MEBI);
	limit_check(10 * MEBI, IMAGE_BYTES);
	limit_check(3000000, 7654321);
	calls.flags_set = NULL;
	limit_check(10 * MEBI, IMAGE_BYTES);
	limit_check(10000, 200000);
}
END_TEST

START_TEST(small_files_one_after_the_other_are_limited_too)
{
	uint64_t before_ns = fake.now_ns;

	files_pace_set(&pace, MEBI);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(file_write(0, 40 * 1024), 0);
	ck_assert_uint_ge(fake.now_ns - before_ns, 100 * 40 * SECOND_NS / 1024 - SECOND_NS / 5);
}
END_TEST

START_TEST(time_in_which_nothing_was_written_is_not_saved_up)
{
	uint64_t before_ns;

	files_pace_set(&pace, MEBI);
	ck_assert_int_eq(file_write(0, MEBI), 0);
	fake.now_ns += 3600 * SECOND_NS;
	before_ns = fake.now_ns;
	ck_assert_int_eq(file_write(0, 2 * MEBI), 0);
	ck_assert_uint_ge(fake.now_ns - before_ns, 1800000000);
}
END_TEST

START_TEST(without_a_limit_nobody_waits)
{
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	files_pace_set(&pace, 1);
	files_pace_set(&pace, 0);
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	ck_assert_int_eq(fake.wait_count, 0);
	place.pace = NULL;
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	place.pace = &pace;
}
END_TEST

START_TEST(another_limit_counts_from_now_on)
{
	uint64_t before_ns = fake.now_ns;

	files_pace_set(&pace, 1);
	ck_assert_int_eq(file_write(0, 4096), 0);
	files_pace_set(&pace, 10 * MEBI);
	ck_assert_int_eq(file_write(0, 10 * MEBI), 0);
	ck_assert_uint_le(fake.now_ns - before_ns, SECOND_NS);
}
END_TEST

START_TEST(at_the_end_who_waits_goes_on_and_nobody_waits_any_more)
{
	files_pace_set(&pace, 1);
	fake.ends_in_wait = true;
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	file_check(0, IMAGE_BYTES);
	ck_assert_int_eq(fake.wait_count, 1);
	files_pace_set(&pace, 1);
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), 0);
	ck_assert_int_eq(fake.wait_count, 1);
}
END_TEST

START_TEST(a_write_under_way_is_given_up)
{
	atomic_store(&abandons, true);
	ck_assert_int_eq(file_write(0, IMAGE_BYTES), STATUS_ESHUTDOWN);
	ck_assert_uint_eq(fake.direct_bytes + fake.cached_bytes, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("files_write");
	TCase *tcase = tcase_create("files_write");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_file_of_any_size_is_whole);
	tcase_add_test(tcase, a_large_file_goes_past_the_page_cache_but_for_its_end);
	tcase_add_test(tcase, where_the_file_system_refuses_it_goes_through_the_page_cache);
	tcase_add_test(tcase, writes_that_are_cut_anywhere_go_on);
	tcase_add_test(tcase, what_is_another_failure_is_one);
	tcase_add_test(tcase, a_table_without_the_calls_for_speed_will_do);
	tcase_add_test(tcase, the_page_cache_does_not_fill_with_what_is_to_be_written);
	tcase_add_test(tcase, the_disks_failures_on_the_way_are_the_files);
	tcase_add_test(tcase, a_limit_is_kept_in_every_second);
	tcase_add_test(tcase, small_files_one_after_the_other_are_limited_too);
	tcase_add_test(tcase, time_in_which_nothing_was_written_is_not_saved_up);
	tcase_add_test(tcase, without_a_limit_nobody_waits);
	tcase_add_test(tcase, another_limit_counts_from_now_on);
	tcase_add_test(tcase, at_the_end_who_waits_goes_on_and_nobody_waits_any_more);
	tcase_add_test(tcase, a_write_under_way_is_given_up);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
