/*
 * Generations on a real disk: whichever call fails, the generation before is whole, and the next try succeeds.
 */
#include "daemon/edge/files_generation.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/core/host.h"
#include "proto/layout.h"

enum { BYTES = 70000, KILLED = 77 };

static char root[80], command[200];
static atomic_bool abandons;
static uint8_t images[3][BYTES], target[BYTES];

/* Every call counts down, and the one that gets to zero fails. */
static struct {
	int countdown; /* 0: none fails */
	int error;
	const char *failed_at;
	size_t chunk_bytes_max; /* 0: any */
	bool kills;             /* the process ends in the place of the call */
} fault;

static bool fails(const char *name)
{
	if (fault.countdown == 0 || --fault.countdown > 0)
		return false;
	if (fault.kills)
		_exit(KILLED);
	fault.failed_at = name;
	errno = fault.error;
	return true;
}

static size_t chunk(size_t count)
{
	return fault.chunk_bytes_max > 0 && count > fault.chunk_bytes_max ? fault.chunk_bytes_max : count;
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

static ssize_t faulty_read(int fd, void *bytes, size_t count)
{
	return fails("read") ? -1 : files_system.read(fd, bytes, chunk(count));
}

static ssize_t faulty_write(int fd, const void *bytes, size_t count)
{
	return fails("write") ? -1 : files_system.write(fd, bytes, chunk(count));
}

static int faulty_fsync(int fd)
{
	return fails("fsync") ? -1 : files_system.fsync(fd);
}

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

static const struct files_calls faulty = {
	.open = faulty_open,
	.mkdir = faulty_mkdir,
	.openat = faulty_openat,
	.mkdirat = faulty_mkdirat,
	.fstat = faulty_fstat,
	.flock = faulty_flock,
	.fdopendir = faulty_fdopendir,
	.readdir = faulty_readdir,
	.read = faulty_read,
	.write = faulty_write,
	.fsync = faulty_fsync,
	.close = faulty_close,
	.renameat = faulty_renameat,
	.unlinkat = faulty_unlinkat,
};

static const struct files_place place = {
	.state_dir = root,
	.calls = &faulty,
	.abandons = &abandons,
	.space_hint = "; make room",
};

static void setup(void)
{
	strcpy(root, "/tmp/emad-test-generation-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	memset(&fault, 0, sizeof fault);
	atomic_store(&abandons, false);
	for (int v = 0; v < 3; v++)
		memset(images[v], 'a' + v, BYTES);
}

static void teardown(void)
{
	snprintf(command, sizeof command, "rm -rf '%s'", root);
	ck_assert_int_eq(system(command), 0);
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

static struct file_order *order_make(enum file_work work, uint64_t version)
{
	struct file_order *order = calloc(1, sizeof *order);

	ck_assert_ptr_nonnull(order);
	order->work = work;
	order->wall_us = 1790000000000000;
	strcpy(order->directory, "run42%net");
	order->generation = (struct generation_name){ 10 * version, version };
	order->keep_count = 2;
	order->count = 1;
	strcpy(order->items[0].profile, "ema");
	order->items[0].byte_count = BYTES;
	return order;
}

static int order_do(struct file_order *order)
{
	int status;

	files_generation_do(&place, order);
	status = order->status;
	ck_assert(status == 0 || order->reason.text[0]);
	free(order->text);
	free(order);
	return status;
}

static struct file_order *write_order(uint64_t version, bool starts)
{
	static const char begin[] = "{\"format\":1";
	struct file_order *order = order_make(FILE_CHECKPOINT, version);

	order->starts = starts;
	order->items[0].bytes = images[version % 3];
	order->text = malloc(sizeof begin + GENERATION_END_BYTES_MAX);
	ck_assert_ptr_nonnull(order->text);
	memcpy(order->text, begin, sizeof begin);
	order->text_bytes = sizeof begin - 1;
	return order;
}

static void write_whole(uint64_t version)
{
	ck_assert_int_eq(order_do(write_order(version, version == 1)), 0);
}

/* The newest version that is found and whose file is as it was written; 0: none; or a failure. */
static int64_t look(void)
{
	struct file_order *order = order_make(FILE_FIND, 1), *fill;
	int64_t version;
	int status;

	order->directory[0] = '\0';
	files_generation_do(&place, order);
	status = order->status;
	version = order->text ? (int64_t)order->generation.version : 0;
	free(order->text);
	free(order);
	if (status != 0 || version == 0)
		return status;
	fill = order_make(FILE_FILL, (uint64_t)version);
	fill->items[0].target = target;
	fill->items[0].checksum = layout_checksum(images[version % 3], BYTES);
	memset(target, 0, sizeof target);
	status = order_do(fill);
	if (status != 0)
		return status;
	ck_assert_mem_eq(target, images[version % 3], BYTES);
	return version;
}

static int64_t look_unharmed(void)
{
	fault.countdown = 0;
	return look();
}

/* What the newest manifest says: 1 or 2, as facts_order has it; 0: as it was written first. */
static int facts_look(void)
{
	struct file_order *order = order_make(FILE_FIND, 1);
	int facts = 0;

	fault.countdown = 0;
	order->directory[0] = '\0';
	files_generation_do(&place, order);
	ck_assert_int_eq(order->status, 0);
	ck_assert_ptr_nonnull(order->text);
	if (strstr(order->text, "\"facts\":"))
		facts = atoi(strstr(order->text, "\"facts\":") + 8);
	free(order->text);
	free(order);
	return facts;
}

static struct file_order *facts_order(uint64_t version, int facts)
{
	struct file_order *order = order_make(FILE_FACTS, version);

	order->items[0].checksum = layout_checksum(images[version % 3], BYTES);
	order->text = malloc(64 + GENERATION_END_BYTES_MAX);
	ck_assert_ptr_nonnull(order->text);
	order->text_bytes = (size_t)sprintf(order->text, "{\"format\":1,\"facts\":%d", facts);
	return order;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(whichever_call_fails_the_generation_before_is_whole)
{
	static const int errors[] = { EIO, ENOSPC, EDQUOT, EROFS, ENOMEM };
	uint64_t version = 3;
	int count = 0;

	fault.error = errors[_i];
	write_whole(1);
	write_whole(2);
	for (int n = 1;; n++, version++) {
		int status;

		fault.countdown = n;
		fault.failed_at = NULL;
		status = order_do(write_order(version, false));
		if (!fault.failed_at) {
			ck_assert_int_eq(status, 0);
			break;
		}
		count++;
		ck_assert_msg(status == 0 || status == -errors[_i], "%s: %d", fault.failed_at, status);
		ck_assert_msg(look_unharmed() == (int64_t)(status == 0 ? version : version - 1), "call %d, %s", n,
		              fault.failed_at);
		if (status != 0)
			write_whole(version);
		ck_assert_int_eq(look_unharmed(), (int64_t)version);
	}
	ck_assert_int_gt(count, 40);
}
END_TEST

/* Writes in a process that ends before its n-th call; true when it did. */
static bool write_killed(uint64_t version, int n)
{
	pid_t child = fork();
	int state;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		fault.countdown = n;
		fault.kills = true;
		_exit(order_do(write_order(version, false)) == 0 ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &state, 0), child);
	ck_assert(WIFEXITED(state) && (WEXITSTATUS(state) == KILLED || WEXITSTATUS(state) == 0));
	return WEXITSTATUS(state) == KILLED;
}

START_TEST(killed_before_any_call_a_whole_generation_is_there)
{
	uint64_t version = 3;
	bool renamed_before = false;
	int n = 1;

	write_whole(1);
	write_whole(2);
	for (; write_killed(version, n); n++, version++) {
		int64_t there = look_unharmed();
		bool renamed = there == (int64_t)version;

		ck_assert_msg(renamed || there == (int64_t)version - 1, "call %d: version %d", n, (int)there);
		/* From one call on it is there. */
		ck_assert(renamed || !renamed_before);
		renamed_before = renamed;
		/* The next one also ends what was begun: the removal of old ones. */
		if (renamed)
			version++;
		write_whole(version);
		ck_assert_int_eq(look_unharmed(), (int64_t)version);
	}
	ck_assert(renamed_before);
	ck_assert_int_gt(n, 40);
}
END_TEST

START_TEST(another_manifest_takes_the_place_of_the_one_that_is_there)
{
	write_whole(1);
	write_whole(2);
	for (int facts = 1; facts <= 2; facts++) {
		ck_assert_int_eq(order_do(facts_order(2, facts)), 0);
		ck_assert_int_eq(facts_look(), facts);
		ck_assert_int_eq(look_unharmed(), 2);
	}
	snprintf(command, sizeof command, "test $(ls -A '%s/checkpoints/run42%%net/00000000000000000020-00000000000000000002'"
	         " | wc -l) = 2", root);
	ck_assert_int_eq(system(command), 0);
	/* One that has been removed meanwhile is not made by halves. */
	ck_assert_int_eq(order_do(facts_order(3, 1)), -ENOENT);
	ck_assert_int_eq(look_unharmed(), 2);
}
END_TEST

START_TEST(whichever_call_fails_the_manifest_is_the_one_or_the_other)
{
	static const int errors[] = { EIO, ENOSPC, EDQUOT, EROFS, ENOMEM };

	fault.error = errors[_i];
	write_whole(1);
	write_whole(2);
	for (int n = 1;; n++) {
		int status, facts;

		ck_assert_int_eq(order_do(facts_order(2, 1)), 0);
		fault.countdown = n;
		fault.failed_at = NULL;
		status = order_do(facts_order(2, 2));
		if (!fault.failed_at) {
			ck_assert_int_eq(status, 0);
			break;
		}
		facts = facts_look();
		ck_assert_msg(status == 0 ? facts == 2 : status == -errors[_i] && facts > 0, "%s: %d, %d", fault.failed_at,
		              status, facts);
		ck_assert_int_eq(look_unharmed(), 2);
	}
	ck_assert_int_eq(facts_look(), 2);
}
END_TEST

START_TEST(killed_before_any_call_the_manifest_is_the_one_or_the_other)
{
	bool renamed = false;
	int state = KILLED << 8;

	write_whole(1);
	write_whole(2);
	ck_assert_int_eq(order_do(facts_order(2, 1)), 0);
	for (int n = 1; WEXITSTATUS(state) == KILLED; n++) {
		pid_t child = fork();

		ck_assert_int_ge(child, 0);
		if (child == 0) {
			fault.countdown = n;
			fault.kills = true;
			_exit(order_do(facts_order(2, 2)) == 0 ? 0 : 1);
		}
		ck_assert_int_eq(waitpid(child, &state, 0), child);
		ck_assert(WIFEXITED(state) && WEXITSTATUS(state) != 1);
		ck_assert(facts_look() == 2 || (facts_look() == 1 && !renamed));
		renamed = facts_look() == 2;
		ck_assert_int_eq(look_unharmed(), 2);
	}
	ck_assert(renamed);
	/* What was left half-written is in nobody's way. */
	ck_assert_int_eq(order_do(facts_order(2, 1)), 0);
	ck_assert_int_eq(facts_look(), 1);
}
END_TEST

START_TEST(whichever_call_fails_what_is_read_is_right_and_stays_where_it_is)
{
	fault.error = EIO;
	write_whole(1);
	write_whole(2);
	for (int n = 1;; n++) {
		int64_t version;

		fault.countdown = n;
		fault.failed_at = NULL;
		version = look();
		if (!fault.failed_at)
			break;
		ck_assert_msg(version == 2 || version == -EIO, "%s: %d", fault.failed_at, (int)version);
		ck_assert_int_eq(look_unharmed(), 2);
	}
	ck_assert_int_eq(look_unharmed(), 2);
}
END_TEST

START_TEST(a_few_bytes_at_a_time_are_enough)
{
	fault.chunk_bytes_max = 777;
	write_whole(1);
	ck_assert_int_eq(look_unharmed(), 1);
}
END_TEST

START_TEST(another_average_of_the_same_name_moves_the_old_one_aside)
{
	write_whole(1);
	write_whole(2);
	ck_assert_int_eq(order_do(write_order(1, true)), 0);
	ck_assert_int_eq(look_unharmed(), 1);
	snprintf(command, sizeof command, "test -d '%s/checkpoints/run42%%net%%%%old-1790000000/"
	         "00000000000000000020-00000000000000000002'", root);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(what_is_discarded_is_not_found)
{
	write_whole(1);
	ck_assert_int_eq(order_do(order_make(FILE_DISCARD, 1)), 0);
	ck_assert_int_eq(look_unharmed(), 0);
	ck_assert_int_eq(order_do(order_make(FILE_DISCARD, 1)), 0);
}
END_TEST

START_TEST(what_was_abandoned_leaves_nothing)
{
	write_whole(1);
	atomic_store(&abandons, true);
	ck_assert_int_eq(order_do(write_order(2, false)), STATUS_ESHUTDOWN);
	atomic_store(&abandons, false);
	ck_assert_int_eq(look_unharmed(), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("files_generation");
	TCase *tcase = tcase_create("files_generation");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, whichever_call_fails_the_generation_before_is_whole, 0, 5);
	tcase_add_test(tcase, killed_before_any_call_a_whole_generation_is_there);
	tcase_add_test(tcase, another_manifest_takes_the_place_of_the_one_that_is_there);
	tcase_add_loop_test(tcase, whichever_call_fails_the_manifest_is_the_one_or_the_other, 0, 5);
	tcase_add_test(tcase, killed_before_any_call_the_manifest_is_the_one_or_the_other);
	tcase_add_test(tcase, whichever_call_fails_what_is_read_is_right_and_stays_where_it_is);
	tcase_add_test(tcase, a_few_bytes_at_a_time_are_enough);
	tcase_add_test(tcase, another_average_of_the_same_name_moves_the_old_one_aside);
	tcase_add_test(tcase, what_is_discarded_is_not_found);
	tcase_add_test(tcase, what_was_abandoned_leaves_nothing);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
