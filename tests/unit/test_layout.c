/*
 * The shared memory's layout: sizes, and that a header is believed only when every bit of it is as sealed.
 * The places of the members are asserted in layout.c itself.
 */
#include "proto/layout.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct segment_header sealed_header(void)
{
	struct segment_header header;

	memset(&header, 0, sizeof(header));
	header.kind = SEGMENT_SLOT;
	header.segment_bytes = 3 * LAYOUT_PAGE_BYTES;
	header.segment = 0x1122334455667788;
	header.model = 0x99aabbccddeeff00;
	header.geometry = 42;
	header.index = 1;
	segment_header_seal(&header);
	return header;
}

START_TEST(accepts_what_was_sealed)
{
	struct segment_header header = sealed_header();

	ck_assert_mem_eq(&header, "EMAD-SEG", 8);
	ck_assert_uint_eq(header.layout_version, LAYOUT_VERSION);
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, NULL), 0);
}
END_TEST

START_TEST(a_segment_that_is_not_complete_is_refused)
{
	struct segment_header header = sealed_header(), zeros;
	struct reason reason;

	header.layout_version = 0;
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, &reason), STATUS_ECORRUPT);
	ck_assert_ptr_nonnull(strstr(reason.text, "not complete"));
	memset(&zeros, 0, sizeof(zeros));
	ck_assert_int_eq(segment_header_check(&zeros, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, &reason), STATUS_ECORRUPT);
	ck_assert_ptr_nonnull(strstr(reason.text, "not complete"));
}
END_TEST

START_TEST(another_version_is_told_apart_from_damage)
{
	struct segment_header header = sealed_header();
	struct reason reason;

	header.layout_version = LAYOUT_VERSION + 1;
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, &reason), STATUS_EVERSION);
	ck_assert_str_eq(reason.text, "the segment's layout_version is 6, 5 expected");
}
END_TEST

START_TEST(every_flipped_bit_of_a_header_is_found)
{
	for (size_t bit = 0; bit < 8 * sizeof(struct segment_header); bit++) {
		struct segment_header header = sealed_header();
		uint8_t *bytes = (uint8_t *)&header;

		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_msg(segment_header_check(&header, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, NULL) != 0, "bit %zu",
		              bit);
	}
}
END_TEST

START_TEST(names_the_member_that_is_not_as_expected)
{
	struct segment_header header = sealed_header();
	struct reason reason;

	ck_assert_int_eq(segment_header_check(&header, SEGMENT_STAGE, 3 * LAYOUT_PAGE_BYTES, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "the segment's kind is 2, 3 expected");
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, 2 * LAYOUT_PAGE_BYTES, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "the segment's segment_bytes is 12288, 8192 expected");
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, sizeof(header) - 1, &reason), STATUS_ECORRUPT);
	ck_assert_str_eq(reason.text, "the segment has 63 bytes, fewer than the 64 of its header");
	header.magic++;
	ck_assert_int_eq(segment_header_check(&header, SEGMENT_SLOT, 3 * LAYOUT_PAGE_BYTES, &reason), STATUS_ECORRUPT);
	ck_assert_ptr_nonnull(strstr(reason.text, "magic"));
}
END_TEST

START_TEST(the_checksum_of_a_slot_is_over_its_facts_alone)
{
	const size_t begin = offsetof(struct slot_header, version), end = offsetof(struct slot_header, checksum);
	struct slot_header header;
	uint8_t *bytes = (uint8_t *)&header;
	uint64_t checksum;

	memset(&header, 0, sizeof(header));
	header.version = 7;
	header.profiles[0].decay = 0.999;
	checksum = slot_header_checksum(&header);
	for (size_t i = 0; i < sizeof(header); i++) {
		bytes[i] ^= 0x10;
		ck_assert_msg((slot_header_checksum(&header) != checksum) == (i >= begin && i < end), "byte %zu", i);
		bytes[i] ^= 0x10;
	}
}
END_TEST

START_TEST(the_checksum_of_a_head_is_over_what_stays_the_same)
{
	const size_t begin = offsetof(struct head_header, name), end = offsetof(struct head_header, gone);
	struct head_header header = { .name = "net", .world = 6 };
	uint8_t *bytes = (uint8_t *)&header;
	uint64_t checksum = head_header_checksum(&header);

	for (size_t bit = 0; bit < 8 * sizeof header; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_msg((head_header_checksum(&header) != checksum) == (bit / 8 >= begin && bit / 8 < end), "bit %zu",
		              bit);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}
END_TEST

START_TEST(the_checksum_is_xxh3)
{
	/* source: XXH3_64bits of no bytes, seed 0, as in the algorithm's specification */
	ck_assert_uint_eq(layout_checksum("", 0), UINT64_C(0x2d06800538d394c2));
}
END_TEST

START_TEST(a_checksum_in_pieces_is_that_of_the_whole)
{
	static uint8_t bytes[5000];
	struct layout_sum *sum;

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 131 + i / 7);
	for (size_t piece = 1; piece <= sizeof bytes; piece = piece * 3 + 1) {
		sum = layout_sum_begin();
		ck_assert_ptr_nonnull(sum);
		for (size_t at = 0; at < sizeof bytes; at += piece)
			layout_sum_add(sum, bytes + at, sizeof bytes - at < piece ? sizeof bytes - at : piece);
		ck_assert_uint_eq(layout_sum_end(sum), layout_checksum(bytes, sizeof bytes));
	}
	sum = layout_sum_begin();
	ck_assert_uint_eq(layout_sum_end(sum), layout_checksum(bytes, 0));
}
END_TEST

START_TEST(stages_begin_at_pages_behind_the_header)
{
	uint64_t stride, bytes;

	ck_assert_int_eq(layout_stage_bytes(10000, 3, &stride, &bytes), 0);
	ck_assert_uint_eq(stride, 12288);
	ck_assert_uint_eq(bytes, 4096 + 3 * 12288);
	ck_assert_int_eq(layout_stage_bytes(4096, 1, &stride, &bytes), 0);
	ck_assert_uint_eq(stride, 4096);
	ck_assert_uint_eq(bytes, 8192);
	/* A rank that holds nothing. */
	ck_assert_int_eq(layout_stage_bytes(0, 2, &stride, &bytes), 0);
	ck_assert_uint_eq(stride, 0);
	ck_assert_uint_eq(bytes, 4096);
}
END_TEST

START_TEST(images_begin_at_pages_behind_the_facts_and_the_rest_behind_them)
{
	const uint64_t images[3] = {4096, 5000, 1};
	struct slot_places places;

	ck_assert_int_eq(layout_slot(images, 3, 2, 4097, &places), 0);
	ck_assert_uint_eq(places.regions[0], 4096);
	ck_assert_uint_eq(places.regions[1], 8192);
	ck_assert_uint_eq(places.regions[2], 16384);
	ck_assert_uint_eq(places.notes, 20480);
	ck_assert_uint_eq(places.description, 20480 + 8192);
	ck_assert_uint_eq(places.end, 20480 + 2 * 8192);
}
END_TEST

START_TEST(sizes_that_overflow_are_refused_and_leave_the_outputs)
{
	const uint64_t wraps[2] = {4096, UINT64_MAX - 4096}, large[2] = {INT64_MAX / 2, INT64_MAX / 2 + 1};
	uint64_t stride = 5, bytes = 6;
	struct slot_places places = {.notes = 7, .end = 8};

	ck_assert_int_eq(layout_stage_bytes(UINT64_MAX, 1, &stride, &bytes), -EOVERFLOW);
	ck_assert_int_eq(layout_stage_bytes(INT64_MAX, 1, &stride, &bytes), -EOVERFLOW);
	ck_assert_int_eq(layout_stage_bytes(INT64_MAX / 2, 2, &stride, &bytes), -EOVERFLOW);
	ck_assert_int_eq(layout_slot(wraps, 2, 1, 1, &places), -EOVERFLOW);
	ck_assert_int_eq(layout_slot(large, 2, 1, 1, &places), -EOVERFLOW);
	ck_assert_int_eq(layout_slot(NULL, 0, 1, UINT64_MAX, &places), -EOVERFLOW);
	ck_assert_uint_eq(stride, 5);
	ck_assert_uint_eq(bytes, 6);
	ck_assert_uint_eq(places.notes, 7);
	ck_assert_uint_eq(places.end, 8);
}
END_TEST

START_TEST(a_head_has_room_for_every_rank_and_two_books)
{
	uint64_t exact = sizeof(struct head_header) + 5 * sizeof(struct rank_record);

	ck_assert_uint_eq(layout_metadata_offset(5, 0), exact);
	ck_assert_uint_eq(layout_metadata_offset(5, 2), exact + 2 * METADATA_BYTES_MAX);
	ck_assert_uint_eq(layout_book_offset(5, 2, 0) % LAYOUT_PAGE_BYTES, 0);
	ck_assert_uint_ge(layout_book_offset(5, 2, 0), layout_metadata_offset(5, 2));
	ck_assert_uint_eq(layout_book_offset(5, 2, 1), layout_book_offset(5, 2, 0) + BOOK_BYTES);
	ck_assert_uint_eq(layout_head_bytes(5, 2), layout_book_offset(5, 2, 1) + BOOK_BYTES);
	ck_assert_uint_eq(layout_head_bytes(5, 2) % LAYOUT_PAGE_BYTES, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("layout");
	TCase *tcase = tcase_create("layout");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, accepts_what_was_sealed);
	tcase_add_test(tcase, a_segment_that_is_not_complete_is_refused);
	tcase_add_test(tcase, another_version_is_told_apart_from_damage);
	tcase_add_test(tcase, every_flipped_bit_of_a_header_is_found);
	tcase_add_test(tcase, names_the_member_that_is_not_as_expected);
	tcase_add_test(tcase, the_checksum_of_a_slot_is_over_its_facts_alone);
	tcase_add_test(tcase, the_checksum_of_a_head_is_over_what_stays_the_same);
	tcase_add_test(tcase, the_checksum_is_xxh3);
	tcase_add_test(tcase, a_checksum_in_pieces_is_that_of_the_whole);
	tcase_add_test(tcase, stages_begin_at_pages_behind_the_header);
	tcase_add_test(tcase, images_begin_at_pages_behind_the_facts_and_the_rest_behind_them);
	tcase_add_test(tcase, sizes_that_overflow_are_refused_and_leave_the_outputs);
	tcase_add_test(tcase, a_head_has_room_for_every_rank_and_two_books);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
