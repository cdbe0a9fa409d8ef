/*
 * Segments that outlive a daemon: kept by somebody under their names, or as files of a directory, and found again by the
 * next one, which takes nothing that anybody else could have had a hand in.
 */
#include "daemon/edge/memory.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 * 1024 * 1024, KEPT_MAX = 64 };

static sem_t woken;
static struct memory_maker *maker;
static struct segment_order *made; /* owned; the latest that came back, with those before behind it */

/* What is kept beyond the daemon, as a service manager does it. Written by the maker's thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	char name[64];
	int fd; /* owned; -1: it was let go */
} kept[KEPT_MAX];
static int kept_count; /* also those that were let go */
static int keep_status;
static int made_when_kept; /* orders that had come back at the latest keeping */
static int made_count;

static int said_count;
static char said[8192]; /* one sentence a line */
static char scratch[64];  /* on a tmpfs */
static char directory[80]; /* in it; not there at first */

static void wake(void *context)
{
	ck_assert_ptr_eq(context, &woken);
	sem_post(&woken);
}

static int keep(void *context, const char *name, int fd)
{
	ck_assert_ptr_eq(context, &woken);
	if (keep_status)
		return keep_status;
	pthread_mutex_lock(&lock);
	snprintf(kept[kept_count].name, sizeof kept[0].name, "%s", name);
	kept[kept_count].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	kept_count++;
	made_when_kept = made_count;
	pthread_mutex_unlock(&lock);
	return 0;
}

static void forget(void *context, const char *name)
{
	ck_assert_ptr_eq(context, &woken);
	pthread_mutex_lock(&lock);
	for (int i = 0; i < kept_count; i++) {
		if (kept[i].fd < 0 || strcmp(kept[i].name, name) != 0)
			continue;
		close(kept[i].fd);
		kept[i].fd = -1;
	}
	pthread_mutex_unlock(&lock);
}

static void say(void *context, enum event_severity severity, const char *text)
{
	ck_assert_ptr_eq(context, &woken);
	ck_assert_int_eq(severity, EVENT_WARNING);
	said_count++;
	snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

static void take(void *context, struct segment_order *order)
{
	(void)context;
	order->next = made;
	made = order;
	made_count++;
}

static int start(const char *path, struct reason *reason)
{
	const struct memory_options options = {
		.directory = path,
		.context = &woken,
		.wake = wake,
		.keep = keep,
		.forget = forget,
		.say = say,
	};

	return memory_start(&options, &maker, reason);
}

/* In a directory of its own, which goes when the test does. */
static void started_in_directory(void)
{
	struct reason reason = { "" };

	ck_assert_msg(start(directory, &reason) == 0, "%s", reason.text);
}

static void setup(void)
{
	ck_assert_int_eq(sem_init(&woken, 0, 0), 0);
	snprintf(scratch, sizeof scratch, "/dev/shm/emad-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(directory, sizeof directory, "%s/segments", scratch);
}

static void empty(const char *path)
{
	DIR *stream = opendir(path);
	struct dirent *entry;

	while (stream && (entry = readdir(stream)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(stream), entry->d_name, entry->d_type == DT_DIR ? AT_REMOVEDIR : 0);
	if (stream)
		closedir(stream);
}

static void teardown(void)
{
	memory_stop(maker);
	empty(directory);
	empty(scratch);
	ck_assert_int_eq(rmdir(scratch), 0);
	while (made) {
		struct segment_order *next = made->next;

		free(made);
		made = next;
	}
	sem_destroy(&woken);
}

/* Makes segments with the identities first, first + 1, ...; they stay in made. */
static struct memory *make(uint64_t first, uint32_t count, uint64_t bytes)
{
	struct segment_order *order = calloc(1, sizeof *order);
	int before = made_count;

	order->count = count;
	for (uint32_t i = 0; i < count; i++)
		order->memory[i] = (struct memory){ .bytes = bytes, .segment = first + i };
	snprintf(order->label, sizeof order->label, "emad:test");
	memory_make(maker, order);
	while (made_count == before) {
		sem_wait(&woken);
		memory_poll(maker, take, NULL);
	}
	return made->memory;
}

static struct memory *made_well(uint64_t first, uint32_t count, uint64_t bytes)
{
	struct memory *memory = make(first, count, bytes);

	ck_assert_msg(made->status == 0 && !made->reason.text[0], "%s", made->reason.text);
	return memory;
}

/* Waits until everything queued is done. */
static void drain(void)
{
	make(0, 0, 0);
}

static int kept_now(void)
{
	int count = 0;

	for (int i = 0; i < kept_count; i++)
		count += kept[i].fd >= 0;
	return count;
}

/* What the next daemon finds, with what is kept handed over to it. */
static struct memory_found find(void)
{
	struct memory_kept handed[KEPT_MAX];
	struct memory_found found = { .count = 0 };
	struct reason reason = { "" };
	uint32_t count = 0;

	/* Backwards, as the service manager hands them over. */
	for (int i = kept_count; i-- > 0;)
		if (kept[i].fd >= 0)
			handed[count++] = (struct memory_kept){ kept[i].name, fcntl(kept[i].fd, F_DUPFD_CLOEXEC, 0) };
	ck_assert_msg(memory_find(maker, handed, count, &found, &reason) == 0, "%s", reason.text);
	return found;
}

static struct memory *found_as(struct memory_found *found, uint64_t segment)
{
	for (uint32_t i = 0; i < found->count; i++)
		if (found->segments[i].segment == segment)
			return &found->segments[i];
	ck_abort_msg("segment %lx was not found; said was: %s", (unsigned long)segment, said);
}

static void drop_all(struct memory_found *found)
{
	for (uint32_t i = 0; i < found->count; i++)
		memory_drop(maker, &found->segments[i]);
	free(found->segments);
	drain();
}

/* The daemon ends, and what it had stays for the next one. */
static void end(struct memory *memory, uint32_t count)
{
	memory_leave(maker);
	for (uint32_t i = 0; i < count; i++)
		memory_drop(maker, &memory[i]);
	memory_stop(maker);
	maker = NULL;
}

static char *path_of(uint64_t segment)
{
	static char path[160];

	snprintf(path, sizeof path, "%s/emad-%016lx", directory, (unsigned long)segment);
	return path;
}

static bool is_there(const char *path)
{
	struct stat facts;

	return lstat(path, &facts) == 0;
}

static void says(const char *text)
{
	ck_assert_msg(strstr(said, text) != NULL, "'%s' is not in: %s", text, said);
}

/* ---- kept by somebody -------------------------------------------------------------------------------------------- */

START_TEST(segments_are_kept_by_their_names_before_their_order_is_done)
{
	struct memory *memory;
	struct stat ours, theirs;

	ck_assert_int_eq(start(NULL, NULL), 0);
	memory = made_well(0xabc, 3, 2 * PAGE);
	ck_assert_int_eq(kept_count, 3);
	ck_assert_int_eq(made_when_kept, 0);
	ck_assert_str_eq(kept[0].name, "emad-0000000000000abc");
	ck_assert_str_eq(kept[2].name, "emad-0000000000000abe");
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(fstat(memory[i].fd, &ours) | fstat(kept[i].fd, &theirs), 0);
		ck_assert_uint_eq(ours.st_ino, theirs.st_ino);
		ck_assert_int_eq(fcntl(kept[i].fd, F_GETFL) & O_ACCMODE, O_RDWR);
	}
	memory_drop(maker, &memory[1]);
	drain();
	ck_assert_int_eq(kept_now(), 2);
	ck_assert_int_eq(kept[1].fd, -1);
	for (int i = 0; i < 3; i += 2)
		memory_drop(maker, &memory[i]);
	drain();
	ck_assert_int_eq(kept_now(), 0);
}
END_TEST

START_TEST(the_next_daemon_finds_them_as_they_were)
{
	struct memory_found found;
	struct memory *memory;
	char text[8] = "";

	ck_assert_int_eq(start(NULL, NULL), 0);
	memory = made_well(0xffffffffffffff00, 2, 3 * HUGE_PAGE + PAGE);
	strcpy((char *)memory[0].base + HUGE_PAGE, "first");
	strcpy((char *)memory[1].base + HUGE_PAGE, "second");
	end(memory, 2);
	ck_assert_int_eq(kept_now(), 2);
	ck_assert_int_eq(start(NULL, NULL), 0);
	found = find();
	ck_assert_uint_eq(found.count, 2);
	ck_assert_uint_eq(found.file_count, 0);
	ck_assert_uint_eq(found.bytes, 2 * (3 * HUGE_PAGE + PAGE));
	ck_assert_int_eq(said_count, 0);
	memory = found_as(&found, 0xffffffffffffff00);
	ck_assert_uint_eq(memory->bytes, 3 * HUGE_PAGE + PAGE);
	ck_assert_uint_eq((uintptr_t)memory->base % HUGE_PAGE, 0);
	ck_assert_str_eq((char *)memory->base + HUGE_PAGE, "first");
	ck_assert_str_eq((char *)found_as(&found, 0xffffffffffffff01)->base + HUGE_PAGE, "second");
	ck_assert_int_eq(fcntl(memory->fd_read_only, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(fcntl(memory->fd_read_only, F_GETFD) & fcntl(memory->fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(pread(memory->fd_read_only, text, 5, HUGE_PAGE), 5);
	ck_assert_str_eq(text, "first");
	memory->base[7] = 7;
	/* They are not kept a second time, and go like any other. */
	drain();
	ck_assert_int_eq(kept_count, 2);
	drop_all(&found);
	ck_assert_int_eq(kept_now(), 0);
}
END_TEST

START_TEST(what_cannot_be_kept_is_there_all_the_same_and_told)
{
	struct memory *memory;

	ck_assert_int_eq(start(NULL, NULL), 0);
	keep_status = -ECONNREFUSED;
	memory = make(5, 2, PAGE);
	ck_assert_int_eq(made->status, 0);
	ck_assert_ptr_nonnull(memory[1].base);
	ck_assert_msg(strstr(made->reason.text, "emad-0000000000000005 (4096 bytes) could not be stored for a restart") != NULL,
	              "%s", made->reason.text);
	memory_drop(maker, &memory[0]);
	memory_drop(maker, &memory[1]);
}
END_TEST

START_TEST(orders_that_nobody_took_are_not_left_behind)
{
	ck_assert_int_eq(start(NULL, NULL), 0);
	for (uint64_t i = 0; i < 5; i++) {
		struct segment_order *order = calloc(1, sizeof *order);

		order->count = 1;
		order->memory[0] = (struct memory){ .bytes = PAGE, .segment = i + 1 };
		memory_make(maker, order);
	}
	memory_leave(maker);
	memory_stop(maker);
	maker = NULL;
	ck_assert_int_eq(kept_count, 5);
	ck_assert_int_eq(kept_now(), 0);
}
END_TEST

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static const struct {
	const char *name;
	off_t bytes;
	mode_t mode;
	int seals;
	uid_t uid;
	bool is_sparse, is_read_only, stays;
	const char *says;
} bad[] = {
	{ "emad-00000000000000ff", 0, 0600, SEALS, 0, false, false, false, "it has 0 bytes" },
	{ "emad-00000000000000ff", 5000, 0600, SEALS, 0, false, false, false, "it has 5000 bytes, and whole pages of 4096" },
	{ "emad-00000000000000ff", PAGE, 0640, SEALS, 0, false, false, false, "its permissions are 0640" },
	{ "emad-00000000000000ff", PAGE, 0602, SEALS, 0, false, false, false, "its permissions are 0602" },
	{ "emad-00000000000000ff", PAGE, 0600, F_SEAL_SHRINK, 0, false, false, false, "its size is not sealed (seals 0x2" },
	{ "emad-00000000000000ff", PAGE, 0600, SEALS | F_SEAL_WRITE, 0, false, false, false, "cannot be mapped" },
	{ "emad-00000000000000ff", 4 * PAGE, 0600, SEALS, 0, true, false, false, "only 0 of its 16384 bytes are there" },
	{ "emad-00000000000000ff", PAGE, 0600, SEALS, 0, false, true, false, "not open for reading and writing" },
	{ "emad-00000000000000ff", PAGE, 0600, SEALS, 65534, false, false, false, "it belongs to uid 65534" },
	{ "emad-00000000000000FF", PAGE, 0600, SEALS, 0, false, false, true, "'emad-00000000000000FF' was handed over" },
	{ "emad-ff", PAGE, 0600, SEALS, 0, false, false, true, "'emad-ff' was handed over" },
	{ "emad-0000000000000000", PAGE, 0600, SEALS, 0, false, false, true, "is nothing that emad knows" },
	{ "emad-00000000000000ff1", PAGE, 0600, SEALS, 0, false, false, true, "is nothing that emad knows" },
	{ "stored", PAGE, 0600, SEALS, 0, false, false, true, "is nothing that emad knows" },
};

START_TEST(a_descriptor_that_is_not_what_it_must_be_is_refused)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct memory_found found;
	char path[64];

	if (bad[_i].uid && getuid() != 0) {
		close(fd);
		return; /* only root can give files away */
	}
	ck_assert_int_eq(fchmod(fd, bad[_i].mode), 0);
	ck_assert_int_eq(bad[_i].is_sparse || bad[_i].bytes == 0 ? ftruncate(fd, bad[_i].bytes)
	                                                        : posix_fallocate(fd, 0, bad[_i].bytes), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, bad[_i].seals), 0);
	ck_assert_int_eq(bad[_i].uid ? fchown(fd, bad[_i].uid, bad[_i].uid) : 0, 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	kept[0].fd = bad[_i].is_read_only ? open(path, O_RDONLY | O_CLOEXEC) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	ck_assert_int_ge(kept[0].fd, 0);
	snprintf(kept[0].name, sizeof kept[0].name, "%s", bad[_i].name);
	kept_count = 1;
	close(fd);
	ck_assert_int_eq(start(NULL, NULL), 0);
	found = find();
	ck_assert_uint_eq(found.count, 0);
	ck_assert_int_eq(said_count, 1);
	says(bad[_i].says);
	says(bad[_i].name);
	/* What has another name was not kept by us. */
	ck_assert_int_eq(kept_now(), bad[_i].stays);
	free(found.segments);
}
END_TEST

START_TEST(a_bad_one_does_not_spoil_the_others)
{
	struct memory_found found;
	struct memory *memory;

	ck_assert_int_eq(start(NULL, NULL), 0);
	memory = made_well(1, 3, PAGE);
	fchmod(memory[1].fd, 0666);
	end(memory, 3);
	ck_assert_int_eq(start(NULL, NULL), 0);
	found = find();
	ck_assert_uint_eq(found.count, 2);
	says("emad-0000000000000002, left by an earlier daemon, cannot be used and is removed: its permissions are 0666");
	found_as(&found, 1);
	found_as(&found, 3);
	drop_all(&found);
}
END_TEST

START_TEST(too_few_open_files_lose_nothing)
{
	struct memory_kept handed[3];
	struct memory_found found;
	struct reason reason = { "" };
	struct memory *memory;
	int spare[256], count = 0;

	ck_assert_int_eq(start(NULL, NULL), 0);
	memory = made_well(1, 3, PAGE);
	end(memory, 3);
	ck_assert_int_eq(start(NULL, NULL), 0);
	for (int i = 0; i < 3; i++)
		handed[i] = (struct memory_kept){ kept[i].name, fcntl(kept[i].fd, F_DUPFD_CLOEXEC, 0) };
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 128, 128 }), 0);
	while (count < 256 && (spare[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		count++;
	close(spare[--count]);
	ck_assert_int_eq(memory_find(maker, handed, 3, &found, &reason), -EMFILE);
	ck_assert_msg(strstr(reason.text, "left by an earlier daemon, cannot be taken over: its 4096 bytes cannot be mapped: "
	                     "Too many open files") != NULL, "%s", reason.text);
	while (count > 0)
		close(spare[--count]);
	drain();
	ck_assert_int_eq(kept_now(), 3);
	found = find();
	ck_assert_uint_eq(found.count, 3);
	drop_all(&found);
}
END_TEST

/* ---- files of a directory ---------------------------------------------------------------------------------------- */

START_TEST(a_segment_is_a_file_of_the_directory)
{
	struct memory *memory;
	struct stat facts;

	started_in_directory();
	ck_assert_int_eq(stat(directory, &facts), 0);
	ck_assert_uint_eq(facts.st_mode & 07777, 0700);
	memory = made_well(0xfedcba9876543210, 2, 3 * PAGE);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(lstat(path_of(0xfedcba9876543210 + (uint64_t)i), &facts), 0);
		ck_assert(S_ISREG(facts.st_mode));
		ck_assert_uint_eq(facts.st_mode & 07777, 0600);
		ck_assert_int_eq(facts.st_size, 3 * PAGE);
		ck_assert_int_eq(facts.st_blocks * 512, 3 * PAGE);
		ck_assert_uint_eq(facts.st_uid, geteuid());
	}
	ck_assert_int_eq(fcntl(memory[0].fd_read_only, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(kept_count, 0);
	ck_assert_int_eq(said_count, 0);
	memory_drop(maker, &memory[0]);
	drain();
	ck_assert(!is_there(path_of(0xfedcba9876543210)));
	ck_assert(is_there(path_of(0xfedcba9876543211)));
	memory_drop(maker, &memory[1]);
	drain();
	ck_assert(!is_there(path_of(0xfedcba9876543211)));
}
END_TEST

START_TEST(the_next_daemon_finds_the_files)
{
	struct memory_found found;
	struct memory *memory;

	started_in_directory();
	memory = made_well(0x10, 3, PAGE);
	strcpy((char *)memory[2].base, "third");
	end(memory, 3);
	started_in_directory();
	found = find();
	ck_assert_uint_eq(found.count, 3);
	ck_assert_uint_eq(found.file_count, 3);
	ck_assert_uint_eq(found.bytes, 3 * PAGE);
	ck_assert_str_eq((char *)found_as(&found, 0x12)->base, "third");
	ck_assert_msg(said_count == 0, "%s", said);
	/* The name is taken, and what is behind it is left alone. */
	make(0x12, 1, PAGE);
	ck_assert_int_eq(made->status, -EEXIST);
	ck_assert_str_eq((char *)found_as(&found, 0x12)->base, "third");
	drop_all(&found);
	ck_assert(!is_there(path_of(0x10)));
}
END_TEST

START_TEST(both_places_are_looked_at)
{
	struct memory_found found;
	struct memory *memory;

	ck_assert_int_eq(start(NULL, NULL), 0);
	memory = made_well(1, 2, PAGE);
	end(memory, 2);
	started_in_directory();
	memory = made_well(3, 1, PAGE);
	end(memory, 1);
	ck_assert_int_eq(kept_now(), 2);
	started_in_directory();
	found = find();
	ck_assert_uint_eq(found.count, 3);
	ck_assert_uint_eq(found.file_count, 1);
	drop_all(&found);
	ck_assert_int_eq(kept_now(), 0);
	ck_assert(!is_there(path_of(3)));
}
END_TEST

START_TEST(files_that_are_not_ours_stay_and_bad_ones_of_ours_go)
{
	struct memory_found found;
	char path[128], link[160];
	int fd;

	started_in_directory();
	snprintf(path, sizeof path, "%s/precious", directory);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(posix_fallocate(fd, 0, PAGE), 0);
	close(fd);
	ck_assert_int_eq(symlink(path, path_of(1)), 0);
	ck_assert_int_eq(mkdir(path_of(2), 0700), 0);
	ck_assert_int_eq(mkfifo(path_of(3), 0600), 0);
	close(open(path_of(4), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	fd = open(path_of(5), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(fchmod(fd, 0604), 0);
	ck_assert_int_eq(posix_fallocate(fd, 0, PAGE), 0);
	close(fd);
	fd = open(path_of(6), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(posix_fallocate(fd, 0, PAGE), 0);
	ck_assert(getuid() != 0 || fchown(fd, 65534, 65534) == 0);
	close(fd);
	found = find();
	ck_assert_uint_eq(found.count, getuid() == 0 ? 0 : 1);
	says("/precious' is left alone: it is not the name of a segment");
	says("emad-0000000000000001' is left alone: it is not a regular file");
	says("emad-0000000000000002' is left alone: it is not a regular file");
	says("emad-0000000000000003' is left alone: it is not a regular file");
	says("emad-0000000000000004, left by an earlier daemon in ");
	says("cannot be used and is removed: it has 0 bytes");
	says("cannot be used and is removed: its permissions are 0604");
	if (getuid() == 0)
		says("emad-0000000000000006' is left alone: it belongs to uid 65534");
	ck_assert(is_there(path));
	for (uint64_t i = 1; i <= 6; i++)
		ck_assert_int_eq(is_there(path_of(i)), i != 4 && i != 5);
	ck_assert_int_gt(readlink(path_of(1), link, sizeof link), 0);
	drop_all(&found);
	(void)rmdir(path_of(2));
}
END_TEST

START_TEST(one_daemon_has_the_directory)
{
	struct memory_options options = { .directory = directory, .context = &woken, .wake = wake, .say = say };
	struct memory_maker *second;
	struct reason reason;
	char pid[32];

	started_in_directory();
	snprintf(pid, sizeof pid, "another emad, pid %d:", (int)getpid());
	ck_assert_int_eq(memory_start(&options, &second, &reason), -EEXIST);
	ck_assert_msg(strstr(reason.text, pid) && strstr(reason.text, directory) && strstr(reason.text, "--segments-dir"), "%s",
	              reason.text);
	memory_stop(maker);
	started_in_directory();
}
END_TEST

static void refused(int status, const char *text)
{
	struct reason reason = { "" };

	ck_assert_int_eq(start(directory, &reason), status);
	ck_assert_msg(strstr(reason.text, text) && strstr(reason.text, directory), "%s", reason.text);
}

START_TEST(a_directory_that_others_may_write_into_is_refused)
{
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	ck_assert_int_eq(chmod(directory, 0770), 0);
	refused(-EPERM, "has the permissions 0770");
	ck_assert_int_eq(chmod(directory, 01777), 0);
	refused(-EPERM, "has the permissions 1777");
	if (getuid() == 0) {
		ck_assert_int_eq(chmod(directory, 0700) | chown(directory, 65534, 65534), 0);
		refused(-EPERM, "belongs to uid 65534, and the daemon is uid 0");
	}
	ck_assert_int_eq(rmdir(directory), 0);
	ck_assert_int_eq(symlink("/tmp", directory), 0);
	refused(-ENOTDIR, "a link or a file is in its place");
	ck_assert_int_eq(unlink(directory), 0);
	close(open(directory, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	refused(-ENOTDIR, "a link or a file is in its place");
}
END_TEST

START_TEST(a_planted_pid_file_is_not_followed)
{
	char path[160], target[160];
	struct stat facts;

	snprintf(path, sizeof path, "%s/emad.pid", directory);
	snprintf(target, sizeof target, "%s/precious", scratch);
	close(open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	ck_assert_int_eq(mkdir(directory, 0700) | symlink(target, path), 0);
	refused(-ELOOP, "emad.pid' cannot be written");
	ck_assert_int_eq(stat(target, &facts), 0);
	ck_assert_int_eq(facts.st_size, 0);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(a_full_file_system_is_an_error_with_both_numbers)
{
	struct statvfs system;
	char part[64];

	started_in_directory();
	ck_assert_int_eq(statvfs(directory, &system), 0);
	if (system.f_blocks == 0)
		return; /* a tmpfs without a size */
	make(1, 2, (uint64_t)(system.f_blocks + 1) * system.f_frsize / 2 / PAGE * PAGE + PAGE);
	ck_assert_int_eq(made->status, STATUS_EMEMORY);
	snprintf(part, sizeof part, "%lu bytes are needed and ", 2 * (unsigned long)made->memory[0].bytes);
	ck_assert_msg(strncmp(made->reason.text, part, strlen(part)) == 0, "%s", made->reason.text);
	ck_assert(!is_there(path_of(1)));
}
END_TEST

START_TEST(a_disk_is_warned_of)
{
	char path[] = "/var/tmp/emad-test-XXXXXX";
	struct memory *memory;

	ck_assert_ptr_nonnull(mkdtemp(path));
	ck_assert_int_eq(start(path, NULL), 0);
	if (said_count == 0)
		printf("skipped: /var/tmp is a tmpfs here\n");
	else
		says("is not on a tmpfs: the kernel writes");
	memory = made_well(1, 1, PAGE);
	memory_drop(maker, memory);
	memory_stop(maker);
	maker = NULL;
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memory_kept");
	TCase *tcase = tcase_create("memory_kept");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, segments_are_kept_by_their_names_before_their_order_is_done);
	tcase_add_test(tcase, the_next_daemon_finds_them_as_they_were);
	tcase_add_test(tcase, what_cannot_be_kept_is_there_all_the_same_and_told);
	tcase_add_test(tcase, orders_that_nobody_took_are_not_left_behind);
	tcase_add_loop_test(tcase, a_descriptor_that_is_not_what_it_must_be_is_refused, 0, sizeof bad / sizeof bad[0]);
	tcase_add_test(tcase, a_bad_one_does_not_spoil_the_others);
	tcase_add_test(tcase, too_few_open_files_lose_nothing);
	tcase_add_test(tcase, a_segment_is_a_file_of_the_directory);
	tcase_add_test(tcase, the_next_daemon_finds_the_files);
	tcase_add_test(tcase, both_places_are_looked_at);
	tcase_add_test(tcase, files_that_are_not_ours_stay_and_bad_ones_of_ours_go);
	tcase_add_test(tcase, one_daemon_has_the_directory);
	tcase_add_test(tcase, a_directory_that_others_may_write_into_is_refused);
	tcase_add_test(tcase, a_planted_pid_file_is_not_followed);
	tcase_add_test(tcase, a_full_file_system_is_an_error_with_both_numbers);
	tcase_add_test(tcase, a_disk_is_warned_of);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
