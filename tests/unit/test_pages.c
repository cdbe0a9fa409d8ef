/*
 * Huge pages made under memory that is being filled.
 */
#include "client/pages.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

static void fill_and_compare(size_t bytes)
{
	int fd = memfd_create("pages", MFD_CLOEXEC);
	uint8_t *expected = malloc(bytes), *memory;
	struct pages pages;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	ck_assert_ptr_nonnull(expected);
	for (size_t i = 0; i < bytes; i++)
		expected[i] = (uint8_t)(i * 37 % 253 + 1);
	memory = mmap(pages_place(bytes), bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	pages_begin(&pages, memory, bytes);
	for (size_t at = 0; at < bytes; at += 10007)
		memcpy(memory + at, expected + at, bytes - at < 10007 ? bytes - at : 10007);
	pages_end(&pages);
	ck_assert_mem_eq(memory, expected, bytes);
	munmap(memory, bytes);
	free(expected);
	close(fd);
}

START_TEST(what_is_filled_meanwhile_stays)
{
	const size_t sizes[] = {1, 4096, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 4097, 20 * HUGE_PAGE_BYTES};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		for (int round = 0; round < 10; round++)
			fill_and_compare(sizes[i]);
}
END_TEST

START_TEST(nothing_else_is_made)
{
	const size_t bytes = 40 * HUGE_PAGE_BYTES;
	int fd = memfd_create("pages", MFD_CLOEXEC);
	uint8_t *memory;
	struct pages pages;

	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	memory = mmap(pages_place(bytes), bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	pages_begin(&pages, memory, bytes);
	pages_end(&pages);
	/* Whatever was made by then is zeros, and the file has not grown. */
	for (size_t i = 0; i < bytes; i += 4096)
		ck_assert_uint_eq(memory[i], 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), (off_t)bytes);
	munmap(memory, bytes);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pages");
	TCase *tests = tcase_create("pages");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, what_is_filled_meanwhile_stays);
	tcase_add_test(tests, nothing_else_is_made);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_VERBOSE);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
