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

static char root[80], command[400];
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

static int faulty_closedir(DIR *stream)
{
	int result = files_system.closedir(stream);

	ck_assert_int_eq(result, 0);
	return fails("closedir") ? -1 : 0;
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

static int faulty_exchange(int directory, const char *name, const char *other)
{
	return fails("exchange") ? -1 : files_system.exchange(directory, name, other);
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
	.closedir = faulty_closedir,
	.read = faulty_read,
	.write = faulty_write,
	.fsync = faulty_fsync,
	.close = faulty_close,
	.renameat = faulty_renameat,
	.exchange = faulty_exchange,
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
	free(order->listing);
	free(order);
	return status;
}

static struct file_order *write_order(uint64_t version, bool starts)
{
	struct file_order *order = order_make(FILE_CHECKPOINT, version);

	order->starts = starts;
	order->founds = true;
	order->items[0].bytes = images[version % 3];
	order->text = malloc(256 + GENERATION_END_BYTES_MAX);
	ck_assert_ptr_nonnull(order->text);
	order->text_bytes = (size_t)snprintf(
		order->text, 256,
		"{\"format\":1,\"model\":\"run42/net\",\"version\":%lu,\"step\":%lu,\"updates\":%lu,\"published_us\":5,\"tensors\":[]",
		(unsigned long)version, (unsigned long)(10 * version), (unsigned long)(100 * version));
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

/* The version that a seek for a step finds below a bound; 0: none, with what there is in *ret_reason; or a failure. */
static int64_t seek(uint64_t step, uint64_t bound, struct reason *ret_reason)
{
	struct file_order *order = order_make(FILE_SEEK, bound);
	int64_t version;

	order->step = step;
	files_generation_do(&place, order);
	version = order->status ? order->status : order->text ? (int64_t)order->generation.version : 0;
	*ret_reason = order->reason;
	free(order->text);
	free(order);
	return version;
}

static int mark(uint64_t step, bool marks, struct reason *ret_reason)
{
	struct file_order *order = order_make(FILE_MARK, 1);
	int status;

	order->step = step;
	order->marks = marks;
	files_generation_do(&place, order);
	status = order->status;
	if (ret_reason)
		*ret_reason = order->reason;
	ck_assert(status != 0 || order->generation.step == step);
	free(order);
	return status;
}

/* To be freed with listing_free; NULL on failure, which there must be a sentence for. */
static struct file_order *list(void)
{
	struct file_order *order = order_make(FILE_LIST, 1);

	strcpy(order->items[0].directory, "snapshots/run42/net/ema");
	files_generation_do(&place, order);
	if (order->status == 0)
		return order;
	ck_assert(order->reason.text[0]);
	free(order->listing);
	free(order);
	return NULL;
}

static void list_free(struct file_order *order)
{
	free(order->listing);
	free(order);
}

static void damage(const char *name)
{
	snprintf(command, sizeof command, "printf x | dd of='%s/checkpoints/run42%%net/'%s conv=notrunc status=none", root,
	         name);
	ck_assert_int_eq(system(command), 0);
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

START_TEST(what_goes_aside_in_the_same_second_takes_the_next_name)
{
	for (int i = 0; i < 3; i++) {
		write_whole(1);
		ck_assert_int_eq(order_do(order_make(FILE_DISCARD, 1)), 0);
		ck_assert_int_eq(look_unharmed(), 0);
	}
	snprintf(command, sizeof command, "test -d '%s/checkpoints/run42%%net%%%%old-1790000000-3/"
	         "00000000000000000010-00000000000000000001'", root);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(names_of_a_second_are_many)
{
	for (int i = 0; i < 300; i++) {
		write_whole(1);
		ck_assert_int_eq(order_do(order_make(FILE_DISCARD, 1)), 0);
	}
	ck_assert_int_eq(look_unharmed(), 0);
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

/* ---- going back, listing, marking -------------------------------------------------------------------------------- */

START_TEST(a_seek_finds_the_newest_of_a_step_or_before_below_its_bound)
{
	struct reason reason;

	ck_assert_int_eq(seek(100, UINT64_MAX / 10, &reason), 0);
	ck_assert_str_eq(reason.text, "nothing");
	write_whole(1);
	ck_assert_int_eq(mark(10, true, NULL), 0);
	write_whole(2);
	write_whole(3);
	ck_assert_int_eq(seek(UINT64_MAX, UINT64_MAX / 10, &reason), 3);
	ck_assert_int_eq(seek(29, UINT64_MAX / 10, &reason), 2);
	ck_assert_int_eq(seek(29, 2, &reason), 1);
	ck_assert_int_eq(seek(10, UINT64_MAX / 10, &reason), 1);
	ck_assert_int_eq(seek(9, UINT64_MAX / 10, &reason), 0);
	ck_assert_str_eq(reason.text, "steps 30, 20, 10");
	ck_assert_int_eq(seek(UINT64_MAX, 1, &reason), 0);
}
END_TEST

START_TEST(a_seek_sets_aside_what_is_damaged_and_says_why_beside_it)
{
	struct file_order *order;
	struct reason reason;

	write_whole(1);
	write_whole(2);
	damage("00000000000000000020-00000000000000000002/manifest.json");
	ck_assert_int_eq(seek(25, UINT64_MAX / 10, &reason), STATUS_ECORRUPT);
	ck_assert_int_eq(seek(25, UINT64_MAX / 10, &reason), 1);
	order = list();
	ck_assert_uint_eq(order->listing->generation_count, 2);
	ck_assert_uint_eq(order->listing->generations[0].aside_s, 1790000000);
	ck_assert(!order->listing->generations[0].whole);
	ck_assert_ptr_nonnull(strstr(order->listing->generations[0].reason, "manifest.json is cut off or damaged"));
	ck_assert(order->listing->generations[1].whole);
	list_free(order);
}
END_TEST

START_TEST(a_marked_generation_stays_until_the_mark_is_taken_away)
{
	struct reason reason;

	write_whole(1);
	ck_assert_int_eq(mark(11, true, &reason), STATUS_ENOVERSION);
	ck_assert_str_eq(reason.text, "step 10");
	ck_assert_int_eq(mark(10, true, NULL), 0);
	ck_assert_int_eq(mark(10, true, NULL), 0);
	for (uint64_t version = 2; version < 6; version++)
		write_whole(version);
	ck_assert_int_eq(seek(15, UINT64_MAX / 10, &reason), 1);
	ck_assert_int_eq(mark(10, false, NULL), 0);
	ck_assert_int_eq(mark(10, false, NULL), 0);
	write_whole(6);
	ck_assert_int_eq(seek(15, UINT64_MAX / 10, &reason), 0);
	ck_assert_str_eq(reason.text, "steps 60, 50");
}
END_TEST

START_TEST(the_first_after_each_multiple_of_steps_stays)
{
	/* Steps 10, 20 ... 120. */
	for (uint64_t version = 1; version <= 12; version++) {
		struct file_order *order = write_order(version, false);

		order->keep_steps = 40;
		ck_assert_int_eq(order_do(order), 0);
	}
	for (uint64_t version = 1; version <= 12; version++) {
		snprintf(command, sizeof command, "test -d '%s/checkpoints/run42%%net/%020d-%020d'", root,
		         (int)(10 * version), (int)version);
		ck_assert_msg((system(command) == 0) == (version == 4 || version == 8 || version >= 11), "%d", (int)version);
	}
}
END_TEST

START_TEST(a_list_has_all_that_there_is_newest_first)
{
	struct file_order *order = list();
	const struct listed_generation *at;

	ck_assert_uint_eq(order->listing->generation_count + order->listing->snapshot_count, 0);
	list_free(order);
	write_whole(1);
	ck_assert_int_eq(mark(10, true, NULL), 0);
	write_whole(2);
	write_whole(3);
	snprintf(command, sizeof command,
	         "mkdir -p '%s/snapshots/run42/net/ema' && cd '%s/snapshots/run42/net/ema' && "
	         "printf abc >00000000000000000016.safetensors && touch 00000000000000000032.safetensors other", root, root);
	ck_assert_int_eq(system(command), 0);
	snprintf(command, sizeof command, "printf x >>\"$(ls -d '%s/checkpoints/run42%%net/'*30-*)/ema.safetensors\"", root);
	ck_assert_int_eq(system(command), 0);
	order = list();
	ck_assert_uint_eq(order->listing->generation_count, 3);
	at = order->listing->generations;
	for (uint64_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(at[i].name.version, 3 - i);
		ck_assert_uint_eq(at[i].name.step, 10 * (3 - i));
		ck_assert_uint_eq(at[i].updates, 100 * (3 - i));
		ck_assert_uint_gt(at[i].bytes, BYTES);
		ck_assert_uint_gt(at[i].wall_us, 0);
		ck_assert(at[i].keeps == (i == 2));
		ck_assert(at[i].whole == (i > 0));
	}
	ck_assert_ptr_nonnull(strstr(at[0].reason, "70001 bytes, its manifest says 70000"));
	ck_assert_uint_eq(order->listing->snapshot_count, 2);
	ck_assert_uint_eq(order->listing->snapshots[0].step, 32);
	ck_assert_uint_eq(order->listing->snapshots[1].step, 16);
	ck_assert_uint_eq(order->listing->snapshots[1].bytes, 3);
	list_free(order);
}
END_TEST

START_TEST(of_very_many_the_newest_are_listed_and_the_others_counted)
{
	struct file_order *order;

	write_whole(1);
	snprintf(command, sizeof command,
	         "cd '%s/checkpoints/run42%%net' && for i in $(seq 1000 1299); do mkdir $(printf %%020d-%%020d $i $i); done",
	         root);
	ck_assert_int_eq(system(command), 0);
	order = list();
	ck_assert_uint_eq(order->listing->generation_count, LISTING_GENERATION_COUNT_MAX);
	ck_assert_uint_eq(order->listing->generations_left_out, 301 - LISTING_GENERATION_COUNT_MAX);
	ck_assert_uint_eq(order->listing->generations[0].name.step, 1299);
	ck_assert_ptr_nonnull(strstr(order->listing->generations[0].reason, "manifest.json is missing"));
	list_free(order);
}
END_TEST

START_TEST(whichever_call_fails_a_list_is_right_or_a_failure_and_a_mark_is_set_or_not)
{
	int count = 0;

	fault.error = EIO;
	write_whole(1);
	write_whole(2);
	for (int n = 1;; n++) {
		struct file_order *order;

		fault.countdown = n;
		fault.failed_at = NULL;
		order = list();
		fault.countdown = 0;
		if (order) {
			/* What cannot be looked into is listed as damaged, with the reason. */
			ck_assert_uint_eq(order->listing->generation_count, 2);
			for (uint32_t i = 0; i < 2; i++)
				ck_assert(order->listing->generations[i].whole || order->listing->generations[i].reason[0]);
			list_free(order);
		}
		if (!fault.failed_at)
			break;
		count++;
	}
	ck_assert_int_gt(count, 20);
	for (int n = 1;; n++) {
		int status;

		fault.countdown = n;
		fault.failed_at = NULL;
		status = mark(10, n % 2, NULL);
		fault.countdown = 0;
		ck_assert(status == 0 || status == -EIO);
		ck_assert_int_eq(look_unharmed(), 2);
		if (!fault.failed_at)
			break;
	}
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
	tcase_add_test(tcase, what_goes_aside_in_the_same_second_takes_the_next_name);
	tcase_add_test(tcase, names_of_a_second_are_many);
	tcase_add_test(tcase, what_was_abandoned_leaves_nothing);
	tcase_add_test(tcase, a_seek_finds_the_newest_of_a_step_or_before_below_its_bound);
	tcase_add_test(tcase, a_seek_sets_aside_what_is_damaged_and_says_why_beside_it);
	tcase_add_test(tcase, a_marked_generation_stays_until_the_mark_is_taken_away);
	tcase_add_test(tcase, the_first_after_each_multiple_of_steps_stays);
	tcase_add_test(tcase, a_list_has_all_that_there_is_newest_first);
	tcase_add_test(tcase, of_very_many_the_newest_are_listed_and_the_others_counted);
	tcase_add_test(tcase, whichever_call_fails_a_list_is_right_or_a_failure_and_a_mark_is_set_or_not);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
