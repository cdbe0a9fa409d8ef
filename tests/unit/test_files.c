/*
 * Files on a real disk: whole or not there, whatever call fails; nothing outside of the state directory; and the loop
 * gets every order back.
 */
#include "daemon/edge/files.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "daemon/core/retention.h"

enum { BYTES = 300000, CALL_COUNT = 13 };

static char root[] = "/tmp/emad-test-files-XXXXXX";
static char state_dir[80];
static uint8_t *image;
static struct files *files;
static sem_t woken;
static struct file_order *written[16];
static int written_count;

/* ---- calls that fail --------------------------------------------------------------------------------------------- */

/*
 * Every call counts down, and the one that gets to zero fails with the error; `short_write_bytes` cuts writes.
 * Guarded by the handing over of orders: the thread looks at it only while it has one.
 */
static struct {
	int countdown; /* 0: none fails */
	int error;
	const char *only; /* NULL, or the name of the calls that count */
	size_t write_bytes_max;
	int call_count, fsync_count;
	int fsync_failed; /* which one */
	atomic_int write_count;
	const char *failed_at;
	int hold; /* a write waits for `released` */
} fault;
static sem_t held, released;

static bool fails(const char *name)
{
	fault.call_count++;
	if (fault.only && strcmp(fault.only, name) != 0)
		return false;
	if (fault.countdown == 0 || --fault.countdown > 0)
		return false;
	fault.failed_at = name;
	errno = fault.error;
	return true;
}

static int faulty_open(const char *path, int flags)
{
	return fails("open") ? -1 : files_system.open(path, flags);
}

static int faulty_mkdir(const char *path, mode_t mode)
{
	return fails("mkdir") ? -1 : files_system.mkdir(path, mode);
}

static int faulty_openat(int directory, const char *name, int flags, mode_t mode)
{
	return fails("openat") ? -1 : files_system.openat(directory, name, flags, mode);
}

static int faulty_mkdirat(int directory, const char *name, mode_t mode)
{
	return fails("mkdirat") ? -1 : files_system.mkdirat(directory, name, mode);
}

static int faulty_fstat(int fd, struct stat *ret_facts)
{
	return fails("fstat") ? -1 : files_system.fstat(fd, ret_facts);
}

static int faulty_flock(int fd, int operation)
{
	return fails("flock") ? -1 : files_system.flock(fd, operation);
}

static DIR *faulty_fdopendir(int fd)
{
	return fails("fdopendir") ? NULL : files_system.fdopendir(fd);
}

static struct dirent *faulty_readdir(DIR *stream)
{
	return fails("readdir") ? NULL : files_system.readdir(stream);
}

static ssize_t faulty_write(int fd, const void *bytes, size_t count)
{
	fault.write_count++;
	if (fault.hold) {
		sem_post(&held);
		sem_wait(&released);
	}
	if (fails("write"))
		return -1;
	if (fault.write_bytes_max > 0 && count > fault.write_bytes_max)
		count = fault.write_bytes_max;
	return files_system.write(fd, bytes, count);
}

static int faulty_fsync(int fd)
{
	fault.fsync_count++;
	if (!fails("fsync"))
		return files_system.fsync(fd);
	fault.fsync_failed = fault.fsync_count;
	return -1;
}

/* As the kernel does it: the descriptor is gone even where close says that something went wrong. */
static int faulty_close(int fd)
{
	bool wrong = fails("close");
	int result = files_system.close(fd);

	ck_assert_int_eq(result, 0);
	if (wrong)
		errno = fault.error;
	return wrong ? -1 : 0;
}

static int faulty_renameat(int from_directory, const char *from, int to_directory, const char *to)
{
	return fails("renameat") ? -1 : files_system.renameat(from_directory, from, to_directory, to);
}

static int faulty_unlinkat(int directory, const char *name, int flags)
{
	return fails("unlinkat") ? -1 : files_system.unlinkat(directory, name, flags);
}

static uint64_t clock_ns(void)
{
	return files_system.clock_ns();
}

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
	files_system.wait(cond, lock, until_ns);
}

static const struct files_calls faulty = {
	.open = faulty_open,
	.mkdir = faulty_mkdir,
	.openat = faulty_openat,
	.mkdirat = faulty_mkdirat,
	.fstat = faulty_fstat,
	.flock = faulty_flock,
	.fdopendir = faulty_fdopendir,
	.readdir = faulty_readdir,
	.closedir = closedir,
	.write = faulty_write,
	.fsync = faulty_fsync,
	.close = faulty_close,
	.renameat = faulty_renameat,
	.unlinkat = faulty_unlinkat,
	.clock_ns = clock_ns,
	.wait = wait_until,
};

/* ---- the way there and back -------------------------------------------------------------------------------------- */

static void wake(void *context)
{
	(void)context;
	sem_post(&woken);
}

static void take(void *context, struct file_order *order)
{
	(void)context;
	written[written_count++] = order;
}

static void setup(void)
{
	strcpy(root, "/tmp/emad-test-files-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(state_dir, sizeof state_dir, "%s/state", root);
	image = malloc(BYTES);
	ck_assert_ptr_nonnull(image);
	for (int i = 0; i < BYTES; i++)
		image[i] = (uint8_t)((uint32_t)i * 2654435761U >> 24);
	memset(&fault, 0, sizeof fault);
	written_count = 0;
	ck_assert_int_eq(sem_init(&woken, 0, 0) | sem_init(&held, 0, 0) | sem_init(&released, 0, 0), 0);
	ck_assert_int_eq(files_start(state_dir, &faulty, wake, NULL, &files), 0);
}

static int fd_count(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	ck_assert_ptr_nonnull(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void tree_remove(const char *path)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		char inner[600];
		struct stat facts;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(inner, sizeof inner, "%.300s/%.255s", path, entry->d_name);
		if (lstat(inner, &facts) == 0 && S_ISDIR(facts.st_mode))
			tree_remove(inner);
		else
			unlink(inner);
	}
	if (directory)
		closedir(directory);
	rmdir(path);
}

static void teardown(void)
{
	ck_assert(files_stop(files, 10000));
	tree_remove(root);
	free(image);
	sem_destroy(&woken);
	sem_destroy(&held);
	sem_destroy(&released);
}

static void item_init(struct file_item *item, const char *directory, bool starts)
{
	memset(item, 0, sizeof *item);
	snprintf(item->directory, sizeof item->directory, "%s", directory);
	item->bytes = image;
	item->byte_count = BYTES;
	item->starts = starts;
	item->interval = 10;
	item->status = 4711;
}

static void order_init(struct file_order *order, const char *directory, uint64_t step)
{
	memset(order, 0, sizeof *order);
	order->step = step;
	order->wall_us = 1790000000 * UINT64_C(1000000);
	order->count = 1;
	item_init(&order->items[0], directory, false);
}

static void await(int count)
{
	while (written_count < count) {
		sem_wait(&woken);
		files_poll(files, take, NULL);
	}
}

static int order_do(struct file_order *order)
{
	int before = written_count;

	files_write(files, order);
	await(before + 1);
	ck_assert_ptr_eq(written[before], order);
	written_count = 0;
	return order->items[0].status;
}

static int write_step(const char *directory, uint64_t step)
{
	struct file_order order;

	order_init(&order, directory, step);
	return order_do(&order);
}

/* The names of a directory below the state directory, in order and divided by blanks; "-" when it is not there. */
static const char *names(const char *directory)
{
	static char text[2000];
	struct dirent **entries;
	char path[300];
	int count;

	snprintf(path, sizeof path, "%s/%s", state_dir, directory);
	count = scandir(path, &entries, NULL, alphasort);
	text[0] = '\0';
	if (count < 0)
		return "-";
	for (int i = 0; i < count; i++) {
		size_t used = strlen(text);
		uint64_t step;

		if (retention_name_parse(entries[i]->d_name, &step))
			snprintf(text + used, sizeof text - used, "%s%" PRIu64, used ? " " : "", step);
		else if (strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0)
			snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "", entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return text;
}

/* Asserts that the file of that step is there to the last byte. */
static void file_check(const char *directory, uint64_t step)
{
	static uint8_t bytes[BYTES + 1];
	char name[RETENTION_NAME_BYTES], path[400];
	FILE *file;

	retention_name_write(step, name);
	snprintf(path, sizeof path, "%s/%s/%s", state_dir, directory, name);
	file = fopen(path, "re");
	ck_assert_msg(file != NULL, "%s", path);
	ck_assert_uint_eq(fread(bytes, 1, sizeof bytes, file), BYTES);
	ck_assert_int_eq(memcmp(bytes, image, BYTES), 0);
	fclose(file);
}

static void file_plant(const char *directory, const char *name)
{
	char path[400];
	int fd;

	snprintf(path, sizeof path, "%s/%s/%s", state_dir, directory, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void link_plant(const char *target, const char *path)
{
	char whole[400];

	snprintf(whole, sizeof whole, "%s/%s", state_dir, path);
	ck_assert_int_eq(symlink(target, whole), 0);
}

static void directory_plant(const char *path)
{
	char whole[400];

	snprintf(whole, sizeof whole, "%s%s%s", state_dir, *path ? "/" : "", path);
	ck_assert_int_eq(mkdir(whole, 0700), 0);
}

/* ---- what is written --------------------------------------------------------------------------------------------- */

START_TEST(a_file_is_whole_and_its_directories_are_made)
{
	ck_assert_int_eq(write_step("snapshots/run42/net/ema", 16), 0);
	ck_assert_str_eq(names("snapshots/run42/net/ema"), "16");
	file_check("snapshots/run42/net/ema", 16);
	/* The state directory and "checkpoints", four more, the file, and the directory that it is named in. */
	ck_assert_int_eq(fault.fsync_count, 8);
	ck_assert_int_eq(write_step("snapshots/run42/net/ema", 32), 0);
	ck_assert_str_eq(names("snapshots/run42/net/ema"), "16 32");
	/* All names on the way as well: who made them may have died. */
	ck_assert_int_eq(fault.fsync_count, 15);
}
END_TEST

START_TEST(a_file_of_the_same_step_is_replaced)
{
	ck_assert_int_eq(write_step("a/b", 16), 0);
	image[5] ^= 1;
	ck_assert_int_eq(write_step("a/b", 16), 0);
	ck_assert_str_eq(names("a/b"), "16");
	file_check("a/b", 16);
}
END_TEST

START_TEST(writes_that_are_cut_short_or_interrupted_go_on)
{
	fault.write_bytes_max = 777;
	fault.countdown = 200;
	fault.only = "write";
	fault.error = EINTR;
	ck_assert_int_eq(write_step("a/b", 16), 0);
	ck_assert_str_eq(fault.failed_at, "write");
	ck_assert_int_eq(fault.write_count, (BYTES + 776) / 777 + 1);
	file_check("a/b", 16);
}
END_TEST

START_TEST(several_files_of_an_order_fail_each_for_itself)
{
	struct file_order order;

	order_init(&order, "a/b", 16);
	order.count = 3;
	item_init(&order.items[1], "a/c", false);
	item_init(&order.items[2], "a/d", false);
	fault.countdown = 2;
	fault.only = "write";
	fault.error = ENOSPC;
	ck_assert_int_eq(order_do(&order), 0);
	ck_assert_int_eq(order.items[1].status, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(order.items[1].reason.text, "No space left"));
	ck_assert_int_eq(order.items[2].status, 0);
	ck_assert_str_eq(names("a/b"), "16");
	ck_assert_str_eq(names("a/c"), "");
	ck_assert_str_eq(names("a/d"), "16");
}
END_TEST

/* Every call in turn, with every error: a whole file or none, no descriptor lost, and the next order is well. */
static void fail_everywhere(int error, bool starts)
{
	char seen[CALL_COUNT][16] = { "" };
	int seen_count = 0, failures = 0, descriptors = fd_count();

	for (int n = 1;; n++) {
		struct file_order order;
		char directory[40];
		bool known = false;
		int status;

		snprintf(directory, sizeof directory, "run%d-%d/net/ema", error, n);
		ck_assert_int_eq(write_step(directory, 10), 0);
		ck_assert_int_eq(write_step(directory, 20), 0);
		file_plant(directory, ".00000000000000000015.safetensors.tmp");
		order_init(&order, directory, 30);
		order.items[0].starts = starts;
		order.items[0].keep_count = 2;
		fault.countdown = n;
		fault.error = error;
		fault.failed_at = NULL;
		fault.fsync_count = 0;
		status = order_do(&order);
		if (!fault.failed_at) {
			ck_assert_int_eq(status, 0);
			fault.countdown = 0;
			break;
		}
		ck_assert_int_eq(fd_count(), descriptors);
		for (int i = 0; i < seen_count; i++)
			known = known || strcmp(seen[i], fault.failed_at) == 0;
		if (!known)
			strcpy(seen[seen_count++], fault.failed_at);
		failures += status != 0;
		if (status == 0) {
			file_check(directory, 30);
		} else {
			ck_assert_int_eq(status, -error);
			ck_assert_ptr_nonnull(strstr(order.items[0].reason.text, strerror(error)));
			ck_assert_ptr_null(strstr(names(directory), "30.safetensors"));
			ck_assert_ptr_null(strstr(names(directory), " 30"));
		}
		/* What has failed to be synchronised is not synchronised again. */
		if (strcmp(fault.failed_at, "fsync") == 0)
			ck_assert_int_eq(fault.fsync_count, fault.fsync_failed);
		ck_assert_int_eq(write_step(directory, 40), 0);
		file_check(directory, 40);
		ck_assert_ptr_null(strstr(names(directory), "tmp"));
	}
	ck_assert_int_ge(failures, 12);
	ck_assert_int_ge(seen_count, 10);
}

START_TEST(any_call_may_fail)
{
	static const int errors[] = { ENOSPC, EIO, EROFS, EACCES, EDQUOT, ENOMEM };

	fail_everywhere(errors[_i], false);
	fail_everywhere(errors[_i], true);
}
END_TEST

START_TEST(a_failed_synchronisation_leaves_nothing_and_is_not_repeated)
{
	ck_assert_int_eq(write_step("a/b", 10), 0);
	/* Those before are of the directories on the way. */
	for (int n = 4; n <= 5; n++) {
		int writes = fault.write_count;

		fault.only = "fsync";
		fault.countdown = n;
		fault.error = EIO;
		fault.fsync_count = 0;
		ck_assert_int_eq(write_step("a/b", 20), -EIO);
		ck_assert_int_eq(fault.fsync_count, n);
		ck_assert_int_eq(fault.write_count, writes + 1);
		ck_assert_str_eq(names("a/b"), "10");
	}
	ck_assert_int_eq(write_step("a/b", 30), 0);
	ck_assert_str_eq(names("a/b"), "10 30");
}
END_TEST

START_TEST(what_a_crash_left_goes_when_its_directory_is_written_to)
{
	ck_assert_int_eq(write_step("a/b", 10), 0);
	file_plant("a/b", ".00000000000000000020.safetensors.tmp");
	file_plant("a/b", ".00000000000000000020.safetensors.tmp.mine");
	file_plant("a/b", "notes.txt");
	ck_assert_int_eq(write_step("a/b", 20), 0);
	ck_assert_str_eq(names("a/b"), ".00000000000000000020.safetensors.tmp.mine 10 20 notes.txt");
}
END_TEST

/* ---- what is there already --------------------------------------------------------------------------------------- */

START_TEST(files_are_thinned)
{
	for (uint64_t step = 10; step <= 90; step += 10) {
		struct file_order order;

		order_init(&order, "a/b", step);
		order.items[0].keep_count = 8;
		ck_assert_int_eq(order_do(&order), 0);
		ck_assert_str_eq(order.items[0].reason.text, "");
	}
	ck_assert_str_eq(names("a/b"), "10 20 40 60 80 90");
}
END_TEST

START_TEST(a_file_that_cannot_be_thinned_is_told_beside_one_that_is_there)
{
	struct file_order order;

	ck_assert_int_eq(write_step("a/b", 10), 0);
	ck_assert_int_eq(write_step("a/b", 20), 0);
	order_init(&order, "a/b", 30);
	order.items[0].keep_count = 2;
	fault.only = "unlinkat";
	fault.countdown = 1;
	fault.error = EIO;
	ck_assert_int_eq(order_do(&order), 0);
	ck_assert_ptr_nonnull(strstr(order.items[0].reason.text, "could not be removed"));
	ck_assert_str_eq(names("a/b"), "10 20 30");
}
END_TEST

START_TEST(another_average_starts_in_an_empty_directory)
{
	struct file_order order;

	ck_assert_int_eq(write_step("run/net/ema", 10), 0);
	ck_assert_int_eq(write_step("run/net/ema", 500), 0);
	/* A model of the name "run/net/ema" would have its profiles here. */
	ck_assert_int_eq(write_step("run/net/ema/long", 7), 0);
	order_init(&order, "run/net/ema", 20);
	order.items[0].starts = true;
	ck_assert_int_eq(order_do(&order), 0);
	ck_assert_str_eq(names("run/net/ema"), "20 long");
	ck_assert_str_eq(names("run/net/ema/long"), "7");
	ck_assert_str_eq(names("run/net"), "ema ema.old-1790000000");
	ck_assert_str_eq(names("run/net/ema.old-1790000000"), "10 500");
}
END_TEST

START_TEST(an_empty_directory_is_not_moved_aside)
{
	struct file_order order;

	order_init(&order, "run/net/ema", 20);
	order.items[0].starts = true;
	ck_assert_int_eq(order_do(&order), 0);
	ck_assert_str_eq(names("run/net"), "ema");
}
END_TEST

START_TEST(steps_that_were_taken_back_go_aside)
{
	for (uint64_t step = 10; step <= 50; step += 10)
		ck_assert_int_eq(write_step("a/ema", step), 0);
	ck_assert_int_eq(write_step("a/ema", 30), 0);
	ck_assert_str_eq(names("a/ema"), "10 20 30");
	ck_assert_str_eq(names("a/ema.old-1790000000"), "40 50");
}
END_TEST

START_TEST(a_thousand_files_are_listed_and_thinned)
{
	struct file_order order;
	char name[RETENTION_NAME_BYTES];

	ck_assert_int_eq(write_step("a/ema", 10), 0);
	for (uint64_t step = 20; step <= 10000; step += 10) {
		retention_name_write(step, name);
		file_plant("a/ema", name);
	}
	order_init(&order, "a/ema", 10010);
	order.items[0].keep_count = 4;
	ck_assert_int_eq(order_do(&order), 0);
	ck_assert_str_eq(names("a/ema"), "10 5120 10010");
}
END_TEST

/* ---- whose directories ------------------------------------------------------------------------------------------- */

START_TEST(no_link_leads_out_of_the_state_directory)
{
	static const char *const places[] = { "a", "a/b", "a/b/c" };

	directory_plant("");
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		struct file_order order;
		char path[200];

		link_plant(root, places[i]);
		order_init(&order, "a/b/c", 10);
		ck_assert_int_eq(order_do(&order), -ENOTDIR);
		ck_assert_ptr_nonnull(strstr(order.items[0].reason.text, "a link or a file"));
		snprintf(path, sizeof path, "%s/%s", state_dir, places[i]);
		ck_assert_int_eq(unlink(path), 0);
		directory_plant(places[i]);
	}
	ck_assert_int_eq(write_step("a/b/c", 10), 0);
}
END_TEST

START_TEST(a_planted_temporary_link_is_not_followed)
{
	char target[100];

	snprintf(target, sizeof target, "%s/victim", root);
	ck_assert_int_eq(write_step("a/b", 10), 0);
	link_plant(target, "a/b/.00000000000000000020.safetensors.tmp");
	link_plant(target, "a/b/00000000000000000020.safetensors");
	ck_assert_int_eq(write_step("a/b", 20), 0);
	ck_assert_int_eq(access(target, F_OK), -1);
	file_check("a/b", 20);
}
END_TEST

START_TEST(a_directory_of_somebody_else_is_refused)
{
	char path[200];

	if (geteuid() != 0)
		return; /* giving a directory away needs root */
	directory_plant("");
	directory_plant("a");
	snprintf(path, sizeof path, "%s/a", state_dir);
	ck_assert_int_eq(chown(path, 65534, 65534), 0);
	ck_assert_int_eq(write_step("a/b", 10), -EPERM);
	ck_assert_str_eq(names("a"), "");
}
END_TEST

START_TEST(the_state_directory_itself_may_be_a_link)
{
	char target[200];

	snprintf(target, sizeof target, "%s/private", root);
	ck_assert_int_eq(mkdir(target, 0700), 0);
	ck_assert_int_eq(symlink(target, state_dir), 0);
	ck_assert_int_eq(write_step("a/b", 10), 0);
	file_check("a/b", 10);
}
END_TEST

START_TEST(two_daemons_do_not_write_into_one_state_directory)
{
	struct file_order order;
	int fd;

	directory_plant("");
	fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	order_init(&order, "a/b", 10);
	ck_assert_int_eq(order_do(&order), -EBUSY);
	ck_assert_ptr_nonnull(strstr(order.items[0].reason.text, "another emad"));
	close(fd);
	ck_assert_int_eq(write_step("a/b", 10), 0);
}
END_TEST

static struct {
	int error, count;
} guard;

static int claim(void *context, struct reason *reason)
{
	ck_assert_ptr_eq(context, &guard);
	guard.count++;
	return reason_set(reason, guard.error, "used by another emad, pid 4711");
}

START_TEST(every_order_asks_whose_the_state_directory_is)
{
	struct file_order order;

	guard.error = guard.count = 0;
	files_guard(files, claim, &guard);
	ck_assert_int_eq(write_step("a/b", 10), 0);
	guard.error = -EEXIST;
	order_init(&order, "a/b", 20);
	ck_assert_int_eq(order_do(&order), -EBUSY);
	ck_assert_ptr_nonnull(strstr(order.items[0].reason.text, "pid 4711"));
	ck_assert_str_eq(names("a/b"), "10");
	/* No room for a lock is no reason not to try. */
	guard.error = -ENOSPC;
	ck_assert_int_eq(write_step("a/b", 30), 0);
	ck_assert_int_eq(guard.count, 3);
}
END_TEST

/* ---- the end ----------------------------------------------------------------------------------------------------- */

START_TEST(what_is_under_way_is_finished_and_nothing_new_begins)
{
	struct file_order first, second;

	order_init(&first, "a/b", 10);
	order_init(&second, "a/c", 10);
	fault.hold = 1;
	files_write(files, &first);
	files_write(files, &second);
	sem_wait(&held);
	files_drain(files);
	sem_post(&released);
	await(2);
	ck_assert_int_eq(first.items[0].status, 0);
	ck_assert_int_eq(second.items[0].status, STATUS_ESHUTDOWN);
	file_check("a/b", 10);
	ck_assert_str_eq(names("a"), "b");
}
END_TEST

static void *stop(void *context)
{
	*(bool *)context = files_stop(files, 10000);
	return NULL;
}

START_TEST(a_file_that_cannot_be_finished_is_removed)
{
	struct file_order order;
	pthread_t thread;
	bool stopped = false;

	ck_assert_int_eq(write_step("a/b", 10), 0);
	order_init(&order, "a/b", 20);
	fault.hold = 1;
	fault.write_bytes_max = 1000;
	files_write(files, &order);
	sem_wait(&held);
	ck_assert_int_eq(pthread_create(&thread, NULL, stop, &stopped), 0);
	/* As many writes as go through until the thread has seen that it is to stop. */
	for (int i = 0; i < BYTES / 1000; i++)
		sem_post(&released);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert(stopped);
	if (order.items[0].status != 0) {
		ck_assert_int_eq(order.items[0].status, STATUS_ESHUTDOWN);
		ck_assert_str_eq(names("a/b"), "10");
	}
	ck_assert_int_eq(files_start(state_dir, &faulty, wake, NULL, &files), 0);
}
END_TEST

START_TEST(a_disk_that_hangs_does_not_hold_the_end)
{
	static struct file_order order;
	int writes;

	order_init(&order, "a/b", 10);
	fault.hold = 1;
	files_write(files, &order);
	sem_wait(&held);
	ck_assert(!files_stop(files, 50));
	/* The thread comes back later, and finds nobody. */
	writes = fault.write_count;
	sem_post(&released);
	ck_assert_int_eq(writes, 1);
	fault.hold = 0;
	ck_assert(files_stop(files, 10000));
	ck_assert_int_eq(sem_trywait(&woken), -1);
	ck_assert_int_eq(files_start(state_dir, &faulty, wake, NULL, &files), 0);
}
END_TEST

/* Real time, and a file that would take hours: both ends are there at once. */
START_TEST(a_limit_does_not_hold_the_end)
{
	struct file_order order;

	files_limit(files, 4096);
	order_init(&order, "a/b", 10);
	files_write(files, &order);
	while (fault.write_count < 2)
		sched_yield();
	files_drain(files);
	await(1);
	ck_assert_int_eq(order.items[0].status, 0);
	file_check("a/b", 10);

	ck_assert(files_stop(files, 10000));
	ck_assert_int_eq(files_start(state_dir, &faulty, wake, NULL, &files), 0);
	files_limit(files, 4096);
	order_init(&order, "a/b", 20);
	fault.write_count = 0;
	files_write(files, &order);
	while (fault.write_count < 2)
		sched_yield();
	ck_assert(files_stop(files, 10000));
	ck_assert_int_eq(order.items[0].status, STATUS_ESHUTDOWN);
	ck_assert_str_eq(names("a/b"), "10");
	ck_assert_int_eq(files_start(state_dir, &faulty, wake, NULL, &files), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("files");
	TCase *tcase = tcase_create("files");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_file_is_whole_and_its_directories_are_made);
	tcase_add_test(tcase, a_file_of_the_same_step_is_replaced);
	tcase_add_test(tcase, writes_that_are_cut_short_or_interrupted_go_on);
	tcase_add_test(tcase, several_files_of_an_order_fail_each_for_itself);
	tcase_add_loop_test(tcase, any_call_may_fail, 0, 6);
	tcase_add_test(tcase, a_failed_synchronisation_leaves_nothing_and_is_not_repeated);
	tcase_add_test(tcase, what_a_crash_left_goes_when_its_directory_is_written_to);
	tcase_add_test(tcase, files_are_thinned);
	tcase_add_test(tcase, a_file_that_cannot_be_thinned_is_told_beside_one_that_is_there);
	tcase_add_test(tcase, another_average_starts_in_an_empty_directory);
	tcase_add_test(tcase, an_empty_directory_is_not_moved_aside);
	tcase_add_test(tcase, steps_that_were_taken_back_go_aside);
	tcase_add_test(tcase, a_thousand_files_are_listed_and_thinned);
	tcase_add_test(tcase, no_link_leads_out_of_the_state_directory);
	tcase_add_test(tcase, a_planted_temporary_link_is_not_followed);
	tcase_add_test(tcase, a_directory_of_somebody_else_is_refused);
	tcase_add_test(tcase, the_state_directory_itself_may_be_a_link);
	tcase_add_test(tcase, two_daemons_do_not_write_into_one_state_directory);
	tcase_add_test(tcase, every_order_asks_whose_the_state_directory_is);
	tcase_add_test(tcase, what_is_under_way_is_finished_and_nothing_new_begins);
	tcase_add_test(tcase, a_file_that_cannot_be_finished_is_removed);
	tcase_add_test(tcase, a_disk_that_hangs_does_not_hold_the_end);
	tcase_add_test(tcase, a_limit_does_not_hold_the_end);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
