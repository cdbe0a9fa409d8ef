/*
 * Segments: whole from the start, of a fixed size, nobody else's to write, and all given back.
 */
#include "daemon/edge/memory.h"

#include "daemon/edge/memory_group.h"

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
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 * 1024 * 1024 };

static void wake(void *context);

static sem_t woken;
static struct memory_maker *maker;
static const struct memory_options options = { .wake = wake };
static struct segment_order *made[32]; /* in the order in which they came back */
static int made_count;

static void wake(void *context)
{
	(void)context;
	sem_post(&woken);
}

static void take(void *context, struct segment_order *order)
{
	(void)context;
	made[made_count++] = order;
}

static void setup(void)
{
	ck_assert_int_eq(sem_init(&woken, 0, 0), 0);
	made_count = 0;
	ck_assert_int_eq(memory_start(&options, &maker, NULL), 0);
}

static void teardown(void)
{
	memory_stop(maker);
	for (int i = 0; i < made_count; i++)
		free(made[i]);
	sem_destroy(&woken);
}

static struct segment_order *order_of(uint32_t count, uint64_t bytes)
{
	struct segment_order *order = calloc(1, sizeof *order);

	order->count = count;
	for (uint32_t i = 0; i < count; i++)
		order->memory[i] = (struct memory){ .bytes = bytes, .segment = i + 1 };
	snprintf(order->label, sizeof order->label, "emad:test");
	return order;
}

/* Waits until so many orders have come back. */
static void await(int count)
{
	while (made_count < count) {
		sem_wait(&woken);
		memory_poll(maker, take, NULL);
	}
}

/* Makes segments; the order stays in made[]. */
static struct memory *make(uint32_t count, uint64_t bytes)
{
	memory_make(maker, order_of(count, bytes));
	await(made_count + 1);
	ck_assert_msg(made[made_count - 1]->status == 0, "%s", made[made_count - 1]->reason.text);
	return made[made_count - 1]->memory;
}

static int fd_count(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static bool is_mapped(const uint8_t *base)
{
	unsigned char resident;

	return mincore((void *)(uintptr_t)base, PAGE, &resident) == 0;
}

START_TEST(a_segment_is_whole_and_zero)
{
	static const uint64_t sizes[] = { PAGE, 3 * PAGE, HUGE_PAGE - PAGE, HUGE_PAGE, 3 * HUGE_PAGE + 5 * PAGE };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		struct memory *memory = make(1, sizes[i]);
		struct stat facts;
		uint64_t sum = 0;

		ck_assert_int_eq(fstat(memory->fd, &facts), 0);
		ck_assert_uint_eq((uint64_t)facts.st_size, sizes[i]);
		ck_assert_uint_eq((uint64_t)facts.st_blocks * 512, sizes[i]);
		ck_assert_uint_eq((uintptr_t)memory->base % HUGE_PAGE, 0);
		for (uint64_t b = 0; b < sizes[i]; b++)
			sum += memory->base[b];
		ck_assert_uint_eq(sum, 0);
		memset(memory->base, 1, sizes[i]);
		memory_drop(maker, memory);
		ck_assert_ptr_null(memory->base);
		ck_assert_int_eq(memory->fd, -1);
		ck_assert_int_eq(memory->fd_read_only, -1);
	}
}
END_TEST

START_TEST(the_mapping_and_both_descriptors_show_the_same_bytes)
{
	struct memory *memory = make(1, 2 * PAGE);
	uint8_t *other = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, memory->fd_read_only, 0);

	ck_assert_ptr_ne(other, MAP_FAILED);
	memory->base[PAGE + 5] = 77;
	ck_assert_uint_eq(other[PAGE + 5], 77);
	ck_assert_int_eq(pwrite(memory->fd, "x", 1, 9), 1);
	ck_assert_uint_eq(memory->base[9], 'x');
	munmap(other, 2 * PAGE);
	memory_drop(maker, memory);
}
END_TEST

START_TEST(its_size_is_sealed_and_its_descriptors_are_not_inherited)
{
	struct memory *memory = make(1, 2 * PAGE);
	char path[64], label[64] = "";
	struct stat facts;

	ck_assert_int_eq(fcntl(memory->fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	ck_assert_int_eq(ftruncate(memory->fd, PAGE), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(ftruncate(memory->fd, 3 * PAGE), -1);
	ck_assert_int_eq(fcntl(memory->fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	ck_assert_int_eq(fcntl(memory->fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(memory->fd_read_only, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(memory->fd_read_only, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(fstat(memory->fd, &facts), 0);
	ck_assert_uint_eq(facts.st_mode & 07777, 0600);
	snprintf(path, sizeof path, "/proc/self/fd/%d", memory->fd);
	ck_assert_int_gt(readlink(path, label, sizeof label - 1), 0);
	ck_assert_msg(strstr(label, "memfd:emad:test") != NULL, "%s", label);
	memory_drop(maker, memory);
}
END_TEST

START_TEST(a_reader_cannot_write)
{
	struct memory *memory = make(1, PAGE);

	ck_assert_ptr_eq(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd_read_only, 0), MAP_FAILED);
	ck_assert_int_eq(errno, EACCES);
	ck_assert_int_eq(write(memory->fd_read_only, "x", 1), -1);
	ck_assert_int_eq(ftruncate(memory->fd_read_only, 0), -1);
	memory_drop(maker, memory);
}
END_TEST

/* In a child of another uid: how far it gets with a reader's descriptor. 0 when nowhere. */
static int intrude(int fd)
{
	char path[64];
	uint8_t *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (setgid(65534) != 0 || setuid(65534) != 0)
		return 1;
	if (open(path, O_RDWR) >= 0)
		return 2;
	if (open(path, O_WRONLY | O_TRUNC) >= 0)
		return 3;
	if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
		return 4;
	if (fchmod(fd, 0666) == 0)
		return 5;
	if (map == MAP_FAILED || mprotect(map, PAGE, PROT_READ | PROT_WRITE) == 0)
		return 6;
	return 0;
}

START_TEST(a_reader_of_another_uid_cannot_open_it_for_writing)
{
	struct memory *memory = make(1, PAGE);
	int status;
	pid_t child;

	if (getuid() != 0) {
		memory_drop(maker, memory);
		return; /* only root can become another */
	}
	child = fork();
	if (child == 0)
		_exit(intrude(memory->fd_read_only));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	memory_drop(maker, memory);
}
END_TEST

START_TEST(orders_come_back_in_their_turn)
{
	for (uint64_t i = 0; i < 20; i++) {
		struct segment_order *order = order_of(1 + (uint32_t)i % 3, PAGE);

		order->model = i;
		memory_make(maker, order);
	}
	await(20);
	for (int i = 0; i < 20; i++) {
		ck_assert_uint_eq(made[i]->model, (uint64_t)i);
		ck_assert_int_eq(made[i]->status, 0);
		for (uint32_t m = 0; m < made[i]->count; m++)
			memory_drop(maker, &made[i]->memory[m]);
	}
}
END_TEST

START_TEST(more_than_there_is_is_refused_with_both_numbers)
{
	int before = fd_count();
	uint64_t available = memory_available_bytes(), need;
	struct segment_order *order = order_of(2, PAGE);
	char part[64];

	ck_assert_uint_gt(available, 0);
	order->memory[1].bytes = UINT64_C(1) << 50;
	need = order->memory[0].bytes + order->memory[1].bytes;
	memory_make(maker, order);
	await(1);
	ck_assert_int_eq(order->status, STATUS_EMEMORY);
	snprintf(part, sizeof part, "%lu bytes are needed and ", (unsigned long)need);
	ck_assert_msg(strncmp(order->reason.text, part, strlen(part)) == 0 && strstr(order->reason.text, "are available"),
	              "%s", order->reason.text);
	ck_assert_int_eq(fd_count(), before);
}
END_TEST

START_TEST(what_was_made_of_an_order_that_fails_is_given_back)
{
	int before = fd_count();
	struct rlimit limit;
	struct segment_order *order;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	/* Room for one segment and a half; what `before` counts are "." and ".." and the directory itself as well. */
	limit.rlim_cur = (rlim_t)before - 3 + 3;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	order = order_of(4, PAGE);
	memory_make(maker, order);
	await(1);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(order->status, -EMFILE);
	ck_assert_msg(strstr(order->reason.text, "a segment of 4096 bytes could not be made") != NULL, "%s",
	              order->reason.text);
	ck_assert_int_eq(fd_count(), before);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_ptr_null(order->memory[i].base);
}
END_TEST

START_TEST(everything_is_given_back)
{
	int before = fd_count();
	const uint8_t *bases[8];
	struct memory *memory = make(8, 3 * HUGE_PAGE);

	for (int i = 0; i < 8; i++) {
		bases[i] = memory[i].base;
		ck_assert(is_mapped(bases[i]));
	}
	for (int i = 0; i < 8; i++)
		memory_drop(maker, &memory[i]);
	/* Orders of any kind are done in their turn. */
	memory = make(1, PAGE);
	memory_drop(maker, memory);
	make(0, 0);
	for (int i = 0; i < 8; i++)
		ck_assert(!is_mapped(bases[i]));
	ck_assert_int_eq(fd_count(), before);
}
END_TEST

START_TEST(stopping_finishes_what_is_queued_and_gives_back_what_nobody_took)
{
	int before = fd_count();
	struct memory *memory = make(1, PAGE), held = *memory;

	for (int i = 0; i < 10; i++)
		memory_make(maker, order_of(2, HUGE_PAGE));
	memory_drop(maker, &held);
	memory_stop(maker);
	ck_assert_int_eq(fd_count(), before);
	ck_assert_int_eq(memory_start(&options, &maker, NULL), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memory");
	TCase *tcase = tcase_create("memory");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_segment_is_whole_and_zero);
	tcase_add_test(tcase, the_mapping_and_both_descriptors_show_the_same_bytes);
	tcase_add_test(tcase, its_size_is_sealed_and_its_descriptors_are_not_inherited);
	tcase_add_test(tcase, a_reader_cannot_write);
	tcase_add_test(tcase, a_reader_of_another_uid_cannot_open_it_for_writing);
	tcase_add_test(tcase, orders_come_back_in_their_turn);
	tcase_add_test(tcase, more_than_there_is_is_refused_with_both_numbers);
	tcase_add_test(tcase, what_was_made_of_an_order_that_fails_is_given_back);
	tcase_add_test(tcase, everything_is_given_back);
	tcase_add_test(tcase, stopping_finishes_what_is_queued_and_gives_back_what_nobody_took);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
