/*
 * Copying: every kind that this processor has copies exactly the bytes it was given, from and to every alignment, and
 * touches nothing beside them.
 */
#include "client/copy.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
	MARGIN_BYTES = 128,
	BLOCK_BYTES = 8 * 4096, /* what is walked side by side */
	TARGET_FILL = 0xa5,
};

static const size_t sizes[] = {
	0, 1, 7, 63, 64, 65, 127, 128, 129, 511, 512, 513, COPY_STREAM_BYTES_MIN - 1, COPY_STREAM_BYTES_MIN, 4095, 4096, 4097,
	BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES + 63, BLOCK_BYTES + 64, BLOCK_BYTES + 4096 + 65,
	3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 127,
};

static const size_t offsets[] = {0, 1, 2, 4, 8, 15, 16, 31, 32, 33, 48, 63};

enum {
	SIZE_COUNT = sizeof(sizes) / sizeof(sizes[0]),
	OFFSET_COUNT = sizeof(offsets) / sizeof(offsets[0]),
	BUFFER_BYTES = 3 * BLOCK_BYTES + 128 + 2 * MARGIN_BYTES,
};

/* Bytes that repeat with no power of two, so that a line from the wrong place is seen. */
static uint8_t *pattern(void)
{
	uint8_t *bytes = aligned_alloc(4096, (BUFFER_BYTES + 4095) / 4096 * 4096);

	ck_assert_ptr_nonnull(bytes);
	for (size_t i = 0; i < BUFFER_BYTES; i++)
		bytes[i] = (uint8_t)(i % 251 + i / 8191);
	return bytes;
}

static void check_copy(enum copy_kind kind, uint8_t *target, size_t target_offset, const uint8_t *source,
                       size_t source_offset, size_t bytes)
{
	uint8_t *to = target + MARGIN_BYTES / 2 + target_offset;
	const uint8_t *from = source + source_offset;

	memset(target, TARGET_FILL, BUFFER_BYTES);
	copy_by_kind(kind, to, from, bytes);
	copy_fence();
	ck_assert_msg(memcmp(to, from, bytes) == 0, "%s: %zu bytes from +%zu to +%zu differ", copy_kind_name(kind), bytes,
	              source_offset, target_offset);
	for (const uint8_t *byte = target; byte < to; byte++)
		ck_assert_uint_eq(*byte, TARGET_FILL);
	for (const uint8_t *byte = to + bytes; byte < to + bytes + MARGIN_BYTES / 2; byte++)
		ck_assert_uint_eq(*byte, TARGET_FILL);
}

START_TEST(copies_exactly_from_and_to_every_alignment)
{
	enum copy_kind kind = (enum copy_kind)_i;
	uint8_t *source = pattern(), *target = pattern();

	if (copy_kind_supported(kind)) {
		for (size_t s = 0; s < SIZE_COUNT; s++) {
			for (size_t o = 0; o < OFFSET_COUNT; o++) {
				check_copy(kind, target, offsets[o], source, 0, sizes[s]);
				check_copy(kind, target, 0, source, offsets[o], sizes[s]);
				check_copy(kind, target, offsets[o], source, offsets[OFFSET_COUNT - 1 - o], sizes[s]);
			}
		}
	}
	free(source);
	free(target);
}
END_TEST

START_TEST(takes_memcpy_for_little_and_the_best_kind_for_much)
{
	uint8_t *source = pattern(), *target = pattern();

	for (size_t s = 0; s < SIZE_COUNT; s++) {
		memset(target, TARGET_FILL, BUFFER_BYTES);
		copy_bytes(copy_kind_best(), target, source, sizes[s]);
		ck_assert_mem_eq(target, source, sizes[s]);
		ck_assert_uint_eq(target[sizes[s]], TARGET_FILL);
	}
	free(source);
	free(target);
}
END_TEST

START_TEST(chooses_a_supported_kind_and_names_every_kind)
{
	ck_assert(copy_kind_supported(copy_kind_best()));
	ck_assert(copy_kind_supported(COPY_PORTABLE));
	ck_assert(!copy_kind_supported(COPY_KIND_COUNT));
	for (int kind = 0; kind < COPY_KIND_COUNT; kind++)
		ck_assert_str_ne(copy_kind_name((enum copy_kind)kind), "?");
	ck_assert_str_eq(copy_kind_name(COPY_KIND_COUNT), "?");
}
END_TEST

START_TEST(copies_nothing_from_null)
{
	for (int kind = 0; kind < COPY_KIND_COUNT; kind++) {
		if (copy_kind_supported((enum copy_kind)kind))
			copy_by_kind((enum copy_kind)kind, NULL, NULL, 0);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("copy");
	TCase *cases = tcase_create("copy");
	SRunner *runner;
	int failed;

	tcase_set_timeout(cases, 60);
	tcase_add_loop_test(cases, copies_exactly_from_and_to_every_alignment, 0, COPY_KIND_COUNT);
	tcase_add_test(cases, takes_memcpy_for_little_and_the_best_kind_for_much);
	tcase_add_test(cases, chooses_a_supported_kind_and_names_every_kind);
	tcase_add_test(cases, copies_nothing_from_null);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
