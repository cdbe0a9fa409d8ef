/*
 * Bounded msgpack: what is written comes back, whatever is hostile is refused with its offset, and neither costs more
 * than it should.
 */
#include "proto/pack.h"

#include "proto/limits.h"
#include "tests/unit/heap_count.h"

#include <check.h>
#include <errno.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define B(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static struct unpacked *unpacked_new(void)
{
	struct unpacked *unpacked = NULL;

	ck_assert_int_eq(unpacked_create(&unpacked), 0);
	return unpacked;
}

START_TEST(what_is_packed_is_unpacked)
{
	static const uint64_t u64s[] = {0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX,
	                                UINT64_C(1) << 32, UINT64_MAX};
	static const int64_t i64s[] = {0, -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN, INT64_MIN, INT64_MAX};
	struct unpacked *unpacked = unpacked_new();
	const struct value *root, *value;
	struct packer packer;
	uint8_t bytes[1024];
	size_t count = 0;
	struct text text;
	uint64_t u64;
	int64_t i64;
	double f64;
	bool flag;

	pack_begin(&packer, bytes, sizeof(bytes));
	pack_map(&packer, 7);
	pack_text(&packer, "u64s", 4);
	pack_array(&packer, COUNT(u64s));
	for (int i = 0; i < COUNT(u64s); i++)
		pack_u64(&packer, u64s[i]);
	pack_text(&packer, "i64s", 4);
	pack_array(&packer, COUNT(i64s));
	for (int i = 0; i < COUNT(i64s); i++)
		pack_i64(&packer, i64s[i]);
	pack_text(&packer, "f64", 3);
	pack_f64(&packer, 0.1);
	pack_text(&packer, "true", 4);
	pack_bool(&packer, true);
	pack_text(&packer, "nil", 3);
	pack_nil(&packer);
	pack_text(&packer, "empty", 5);
	pack_map(&packer, 0);
	pack_text(&packer, "", 0);
	pack_text(&packer, "t\xc3\xa9xt", 5);
	ck_assert_int_eq(pack_finish(&packer, &count, NULL), 0);

	ck_assert_int_eq(unpack(unpacked, bytes, count, &root, NULL), 0);
	ck_assert(value_is_map(root) && value_count(root) == 7);
	value = value_get(root, "u64s");
	ck_assert(value_is_array(value) && value_count(value) == (size_t)COUNT(u64s));
	for (size_t i = 0; i < value_count(value); i++) {
		ck_assert(value_u64(value_item(value, i), &u64));
		ck_assert_uint_eq(u64, u64s[i]);
	}
	value = value_get(root, "i64s");
	for (size_t i = 0; i < value_count(value); i++) {
		ck_assert(value_i64(value_item(value, i), &i64));
		ck_assert_int_eq(i64, i64s[i]);
	}
	ck_assert(value_f64(value_get(root, "f64"), &f64) && f64 == 0.1);
	ck_assert(value_bool(value_get(root, "true"), &flag) && flag);
	ck_assert(value_is_nil(value_get(root, "nil")));
	ck_assert(value_is_map(value_get(root, "empty")) && value_count(value_get(root, "empty")) == 0);
	ck_assert(value_text(value_get(root, ""), &text) && text_equal(text, "t\xc3\xa9xt"));
	ck_assert_ptr_null(value_get(root, "u64"));
	ck_assert_ptr_null(value_get(value_get(root, "nil"), "u64"));
	value = value_pair(root, 3, &text);
	ck_assert(text_equal(text, "true") && value_bool(value, &flag));
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(numbers_that_do_not_fit_are_refused_and_leave_the_output)
{
	struct unpacked *unpacked = unpacked_new();
	const struct value *root;
	uint64_t u64 = 7;
	int64_t i64 = 7;
	double f64 = 7;
	bool flag = true;
	struct text text = {"seven", 5};

	/* [-1, 2^64-1, 1.5 (float 32), "1", 3] */
	ck_assert_int_eq(unpack(unpacked, B("\x95\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff" "\xca\x3f\xc0\x00\x00"
	                                    "\xa1\x31\x03"), &root, NULL), 0);
	ck_assert(!value_u64(value_item(root, 0), &u64));
	ck_assert(!value_i64(value_item(root, 1), &i64));
	ck_assert(!value_u64(value_item(root, 2), &u64));
	ck_assert(!value_i64(value_item(root, 2), &i64));
	ck_assert(!value_f64(value_item(root, 3), &f64));
	ck_assert(!value_bool(value_item(root, 4), &flag));
	ck_assert(!value_text(value_item(root, 4), &text));
	ck_assert(u64 == 7 && i64 == 7 && f64 == 7 && flag && text.count == 5);
	ck_assert(value_f64(value_item(root, 0), &f64) && f64 == -1);
	ck_assert(value_f64(value_item(root, 1), &f64) && f64 == 0x1p64);
	ck_assert(value_f64(value_item(root, 2), &f64) && f64 == 1.5);
	ck_assert_uint_eq(value_count(value_item(root, 0)), 0);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(an_overflow_of_the_packer_reports_both_numbers_and_writes_nothing_beyond)
{
	uint8_t bytes[32];
	struct reason reason;

	for (size_t capacity = 0; capacity <= 16; capacity++) {
		struct packer packer;
		size_t count = 99;
		char expected[80];
		int r;

		memset(bytes, 0xaa, sizeof(bytes));
		pack_begin(&packer, bytes, capacity);
		pack_array(&packer, 2);
		pack_text(&packer, "0123456789", 10);
		pack_u64(&packer, 1000);
		r = pack_finish(&packer, &count, &reason);
		for (size_t i = capacity; i < sizeof(bytes); i++)
			ck_assert_uint_eq(bytes[i], 0xaa);
		if (capacity >= 15) {
			ck_assert_int_eq(r, 0);
			ck_assert_uint_eq(count, 15);
			continue;
		}
		snprintf(expected, sizeof(expected), "the message needs 15 bytes, there is room for %zu", capacity);
		ck_assert_int_eq(r, STATUS_ELIMIT);
		ck_assert_str_eq(reason.text, expected);
		ck_assert_uint_eq(count, 99);
	}
}
END_TEST

START_TEST(counts_beyond_32_bits_overflow_the_packer)
{
	uint8_t bytes[32];
	struct packer packer;
	size_t count = 99;

	pack_begin(&packer, bytes, sizeof(bytes));
	pack_array(&packer, (size_t)UINT32_MAX + 1);
	ck_assert_int_eq(pack_finish(&packer, &count, NULL), STATUS_ELIMIT);
	pack_begin(&packer, bytes, sizeof(bytes));
	pack_text(&packer, (const char *)bytes, SIZE_MAX);
	pack_text(&packer, "ab", 2);
	ck_assert_int_eq(pack_finish(&packer, &count, NULL), STATUS_ELIMIT);
	ck_assert_uint_eq(count, 99);
}
END_TEST

static const struct {
	const char *what;
	const uint8_t *bytes;
	size_t count;
	const char *sentence;
} hostile[] = {
	{"nothing", B(""), "no bytes at all"},
	{"an array of 2^29 items", B("\xdd\x20\x00\x00\x00"), "offset 5: needs 536870912 more bytes, only 0 are left"},
	{"an array of 2^32-1 items", B("\xdd\xff\xff\xff\xff"), "offset 5: needs 4294967295 more bytes"},
	{"a map of 2^32-1 pairs", B("\xdf\xff\xff\xff\xff"), "a map of 4294967295 pairs, at most 64"},
	{"a map of 65 pairs", B("\xde\x00\x41"), "a map of 65 pairs, at most 64"},
	{"a map longer than the bytes", B("\x83\xa1" "a\x01\xa1"), "offset 1: needs 6 more bytes, only 4"},
	{"a text of 2^32-1 bytes", B("\xdb\xff\xff\xff\xff" "a"),
	 "offset 5: needs 4294967295 more bytes, only 1 are left"},
	{"a text cut short", B("\xa3" "ab"), "offset 1: needs 3 more bytes, only 2"},
	{"a count cut short", B("\xdd\x00\x00"), "offset 1: needs 4 more bytes, only 2"},
	{"a number cut short", B("\xcf\x00\x00"), "offset 1: needs 8 more bytes, only 2"},
	{"arrays that promise the same bytes twice", B("\x92\x92\x92\x01\x01"), "needs 4 more bytes, only 2"},
	{"nine levels", B("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01"), "offset 9: nested deeper than 8 levels"},
	{"the reserved byte", B("\xc1"), "offset 0: the reserved byte 0xc1 is not allowed"},
	{"bin 8", B("\xc4\x01\x00"), "binary data is not allowed"},
	{"bin 16", B("\xc5\x00\x01\x00"), "binary data is not allowed"},
	{"bin 32", B("\xc6\x00\x00\x00\x01\x00"), "binary data is not allowed"},
	{"ext 8", B("\xc7\x01\x05\x00"), "an extension type is not allowed"},
	{"ext 16", B("\xc8\x00\x01\x05\x00"), "an extension type is not allowed"},
	{"ext 32 of 4 GiB", B("\xc9\xff\xff\xff\xff\x05"), "an extension type is not allowed"},
	{"fixext 1", B("\xd4\x05\x00"), "an extension type is not allowed"},
	{"fixext 16", B("\xd8\x05" "0123456789abcdef"), "an extension type is not allowed"},
	{"timestamp 32", B("\xd6\xff\x00\x00\x00\x00"), "an extension type is not allowed"},
	{"timestamp 96", B("\xc7\x0c\xff" "0123456789ab"), "an extension type is not allowed"},
	{"a number as key", B("\x81\x01\x02"), "offset 1: a map's key is not text"},
	{"nil as key", B("\x81\xc0\x02"), "offset 1: a map's key is not text"},
	{"a map as key", B("\x81\x80\x02"), "offset 1: a map's key is not text"},
	{"a bin as key", B("\x81\xc4\x01" "a\x02"), "binary data is not allowed"},
	{"a key twice", B("\x82\xa1" "a\x01\xa1" "a\x02"), "offset 5: the key 'a' comes twice"},
	{"a key twice, written in two ways", B("\x82\xa1" "a\x01\xd9\x01" "a\x02"), "the key 'a' comes twice"},
	{"the empty key twice", B("\x82\xa0\x01\xa0\x02"), "the key '' comes twice"},
	{"a key twice inside", B("\x91\x82\xa1" "a\x90\xa1" "a\x90"), "the key 'a' comes twice"},
	{"a lone continuation byte", B("\xa1\x80"), "offset 1: the text is not UTF-8"},
	{"an overlong slash", B("\xa2\xc0\xaf"), "the text is not UTF-8"},
	{"a surrogate", B("\xa3\xed\xa0\x80"), "the text is not UTF-8"},
	{"a character cut by its text's end", B("\x92\xa1\xc3\xa1\xa9"), "the text is not UTF-8"},
	{"a key that is not UTF-8", B("\x81\xa1\xff\x01"), "the text is not UTF-8"},
	{"two values", B("\x01\x02"), "offset 1: 1 bytes behind the message"},
	{"a byte behind a map", B("\x80\xc0"), "offset 1: 1 bytes behind the message"},
};

START_TEST(hostile_bytes_are_refused_with_their_offset)
{
	struct unpacked *unpacked = unpacked_new();
	const struct value *root = NULL;
	struct reason reason = {""};
	size_t heap_count = heap.count;
	int r = unpack(unpacked, hostile[_i].bytes, hostile[_i].count, &root, &reason);

	heap_count = heap.count - heap_count;
	ck_assert_uint_eq(heap_count, 0);
	ck_assert_msg(r == STATUS_EPROTOCOL || r == STATUS_ELIMIT, "%s: %d", hostile[_i].what, r);
	ck_assert_msg(strstr(reason.text, hostile[_i].sentence) != NULL, "%s: '%s' lacks '%s'", hostile[_i].what,
	              reason.text, hostile[_i].sentence);
	ck_assert_ptr_null(root);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(every_first_byte_is_either_read_or_refused)
{
	struct unpacked *unpacked = unpacked_new();
	uint8_t bytes[64] = {0};
	int whole_count = 0;

	for (int first = 0; first < 256; first++) {
		const struct value *root;

		bytes[0] = (uint8_t)first;
		for (size_t count = 1; count <= sizeof(bytes); count++)
			whole_count += unpack(unpacked, bytes, count, &root, NULL) == 0;
	}
	/*
	 * Each of the 256 is whole at exactly one size (arrays hold zeros, which are numbers, and counts of zero are
	 * empty), but c1, the 3 bin, 3 ext and 5 fixext types, and the 15 fixmaps that would need texts as keys.
	 */
	ck_assert_int_eq(whole_count, 256 - 1 - 3 - 3 - 5 - 15);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(eight_levels_and_sixty_four_pairs_are_allowed)
{
	struct unpacked *unpacked = unpacked_new();
	const struct value *root;
	struct packer packer;
	uint8_t bytes[1024];
	size_t count = 0;

	ck_assert_int_eq(unpack(unpacked, B("\x91\x91\x91\x91\x91\x91\x91\x91\x01"), &root, NULL), 0);
	pack_begin(&packer, bytes, sizeof(bytes));
	pack_map(&packer, PACK_PAIR_COUNT_MAX);
	for (int i = 0; i < PACK_PAIR_COUNT_MAX; i++) {
		char key[8];

		pack_text(&packer, key, (size_t)snprintf(key, sizeof(key), "k%d", i));
		pack_u64(&packer, (uint64_t)i);
	}
	ck_assert_int_eq(pack_finish(&packer, &count, NULL), 0);
	ck_assert_int_eq(unpack(unpacked, bytes, count, &root, NULL), 0);
	ck_assert_uint_eq(value_count(root), PACK_PAIR_COUNT_MAX);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(a_key_shown_in_a_sentence_is_cut_between_characters)
{
	/* 1 + 2 * 40 bytes: byte 64 lies inside a character. */
	struct text text = {"a" "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
	                    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
	                    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
	                    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 81};

	ck_assert_int_eq(text_shown_bytes(text), 63);
	text.count = 64;
	ck_assert_int_eq(text_shown_bytes(text), 64);
	text.count = 0;
	ck_assert_int_eq(text_shown_bytes(text), 0);
}
END_TEST

START_TEST(texts_are_copied_whole_or_not_at_all)
{
	char target[4] = "xyz";

	ck_assert_int_eq(text_copy((struct text){"abcd", 4}, target, sizeof(target)), STATUS_ELIMIT);
	ck_assert_str_eq(target, "xyz");
	ck_assert_int_eq(text_copy((struct text){"abcd", 3}, target, sizeof(target)), 0);
	ck_assert_str_eq(target, "abc");
	ck_assert_int_eq(text_copy((struct text){NULL, 0}, target, sizeof(target)), 0);
	ck_assert_str_eq(target, "");
	ck_assert_int_eq(text_copy((struct text){NULL, 0}, target, 0), STATUS_ELIMIT);
}
END_TEST

/* As manifests are: an array of [name, dtype, flags, [extents], nil]. */
static uint8_t *manifest_like(uint32_t tensor_count, size_t *ret_count)
{
	size_t capacity = 64 + (size_t)tensor_count * 64;
	uint8_t *bytes = malloc(capacity);
	struct packer packer;

	ck_assert_ptr_nonnull(bytes);
	pack_begin(&packer, bytes, capacity);
	pack_array(&packer, tensor_count);
	for (uint32_t i = 0; i < tensor_count; i++) {
		char name[40];

		pack_array(&packer, 5);
		pack_text(&packer, name, (size_t)snprintf(name, sizeof(name), "layers.%u.attention.weight", i));
		pack_u64(&packer, 1);
		pack_u64(&packer, 0);
		pack_array(&packer, 2);
		pack_u64(&packer, 4096);
		pack_u64(&packer, 4096);
		pack_nil(&packer);
	}
	ck_assert_int_eq(pack_finish(&packer, ret_count, NULL), 0);
	return bytes;
}

START_TEST(a_hundred_thousand_tensors_are_unpacked_in_no_time)
{
	struct unpacked *unpacked = unpacked_new();
	const struct value *root;
	struct timespec begin, end;
	size_t count = 0;
	uint8_t *bytes = manifest_like(TENSOR_COUNT_MAX, &count);
	double best_ms = 1e9;

	for (int round = 0; round < 5; round++) {
		double ms;

		clock_gettime(CLOCK_MONOTONIC, &begin);
		ck_assert_int_eq(unpack(unpacked, bytes, count, &root, NULL), 0);
		clock_gettime(CLOCK_MONOTONIC, &end);
		ms = (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
		best_ms = ms < best_ms ? ms : best_ms;
	}
	ck_assert_uint_eq(value_count(root), TENSOR_COUNT_MAX);
	ck_assert_uint_eq(value_count(value_item(root, TENSOR_COUNT_MAX - 1)), 5);
	printf("%zu bytes, %d tensors: %.1f ms\n", count, TENSOR_COUNT_MAX, best_ms);
	/* Far above what it takes, far below what anything worse than linear would. */
	ck_assert_double_lt(best_ms, 500);
	free(bytes);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(more_values_than_allowed_are_refused_before_they_are_unpacked)
{
	struct unpacked *unpacked = unpacked_new();
	size_t count = (size_t)PACK_VALUE_COUNT_MAX + 1024;
	uint8_t *bytes = calloc(1, count);
	const struct value *root;
	struct reason reason;
	size_t heap_count;
	int r;

	ck_assert_ptr_nonnull(bytes);
	memcpy(bytes, "\xdd\x00\x80\x00\x00", 5); /* with the array itself one too many */
	heap_count = heap.count;
	r = unpack(unpacked, bytes, count, &root, &reason);
	heap_count = heap.count - heap_count;
	ck_assert_int_eq(r, STATUS_ELIMIT);
	ck_assert_ptr_nonnull(strstr(reason.text, "8388609 values, at most 8388608"));
	ck_assert_uint_eq(heap_count, 0);
	free(bytes);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(hostile_bytes_do_no_harm_in_one_gibibyte_of_address_space)
{
	struct rlimit limit = {UINT64_C(1) << 30, UINT64_C(1) << 30};
	struct unpacked *unpacked = unpacked_new();
	size_t count = (size_t)MESSAGE_BODY_BYTES_MAX;
	uint8_t *bytes = malloc(count);
	const struct value *root;

	ck_assert_ptr_nonnull(bytes);
	if (HEAP_IS_COUNTED) /* a sanitizer has reserved more than that */
		ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
	for (int i = 0; i < COUNT(hostile); i++)
		ck_assert_int_ne(unpack(unpacked, hostile[i].bytes, hostile[i].count, &root, NULL), 0);
	/* Whole bodies of one byte: every kind of container, number and refused type, as deep as it gets. */
	for (int first = 0; first < 256; first++) {
		memset(bytes, first, count);
		ck_assert_int_ne(unpack(unpacked, bytes, count, &root, NULL), 0);
	}
	/* The most values that are allowed, then the same again. */
	for (int round = 0; round < 3; round++) {
		memset(bytes, 0xc0, count);
		memcpy(bytes, "\xdd\x00\x7f\xff\xff", 5);
		ck_assert_int_eq(unpack(unpacked, bytes, 5 + 0x7fffff, &root, NULL), 0);
		ck_assert_uint_eq(value_count(root), 0x7fffff);
	}
	free(bytes);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(every_prefix_and_every_changed_byte_of_a_message_is_survived)
{
	static const uint8_t message[] = "\x84\xa2op\xa4push\xa1v\x01\xa5lists\x92\xa1" "a\xcd\x01\x00\xa1m\x81\xa1k"
	                                 "\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00";
	struct unpacked *unpacked = unpacked_new();
	size_t count = sizeof(message) - 1;
	uint8_t bytes[sizeof(message)];
	const struct value *root;

	ck_assert_int_eq(unpack(unpacked, message, count, &root, NULL), 0);
	for (size_t cut = 0; cut < count; cut++) {
		/* Exactly that many bytes on the heap: a sanitizer sees any read behind them. */
		uint8_t *prefix = malloc(cut ? cut : 1);

		memcpy(prefix, message, cut);
		ck_assert_int_eq(unpack(unpacked, prefix, cut, &root, NULL), STATUS_EPROTOCOL);
		free(prefix);
	}
	for (size_t at = 0; at < count; at++) {
		for (int change = 1; change < 256; change++) {
			memcpy(bytes, message, count);
			bytes[at] ^= (uint8_t)change;
			(void)unpack(unpacked, bytes, count, &root, NULL);
		}
	}
	unpacked_destroy(unpacked);
}
END_TEST

#if HEAP_IS_COUNTED

/* Allocations of many rounds; Check's own assertions allocate, so none stands inside. */
static size_t unpack_allocations(struct unpacked *unpacked, const uint8_t *bytes, size_t count, int rounds)
{
	size_t heap_count = heap.count;
	const struct value *root;
	int failures = 0;

	for (int i = 0; i < rounds; i++)
		failures += unpack(unpacked, bytes, count, &root, NULL) != 0;
	heap_count = heap.count - heap_count;
	ck_assert_int_eq(failures, 0);
	return heap_count;
}

START_TEST(small_messages_are_unpacked_without_allocation)
{
	struct unpacked *unpacked = unpacked_new();
	size_t large_bytes = 0, small_bytes = 0;
	uint8_t *large = manifest_like(5000, &large_bytes), *small = manifest_like(40, &small_bytes);

	ck_assert_uint_eq(unpack_allocations(unpacked, small, small_bytes, 1000), 0);
	/* Nor after a large one, whose memory is given back. */
	ck_assert_uint_gt(unpack_allocations(unpacked, large, large_bytes, 1), 0);
	ck_assert_uint_eq(unpack_allocations(unpacked, small, small_bytes, 1000), 0);
	free(large);
	free(small);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(every_allocation_that_fails_is_reported_and_the_next_call_works)
{
	size_t count = 0, failures = 0;
	uint8_t *bytes = manifest_like(3000, &count);

	for (size_t n = 0;; n++) {
		struct unpacked *unpacked = NULL;
		const struct value *root = NULL;
		int r;

		heap.until_failure = n;
		r = unpacked_create(&unpacked);
		if (r == 0) {
			r = unpack(unpacked, bytes, count, &root, NULL);
			if (r != 0) {
				ck_assert_ptr_null(root);
				heap.until_failure = SIZE_MAX;
				ck_assert_int_eq(unpack(unpacked, bytes, count, &root, NULL), 0);
			}
		}
		heap.until_failure = SIZE_MAX;
		unpacked_destroy(unpacked);
		if (r == 0)
			break;
		ck_assert_int_eq(r, -ENOMEM);
		failures++;
	}
	ck_assert_uint_gt(failures, 10);
	free(bytes);
}
END_TEST

#endif

int main(void)
{
	Suite *suite = suite_create("pack");
	TCase *tcase = tcase_create("pack");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, what_is_packed_is_unpacked);
	tcase_add_test(tcase, numbers_that_do_not_fit_are_refused_and_leave_the_output);
	tcase_add_test(tcase, an_overflow_of_the_packer_reports_both_numbers_and_writes_nothing_beyond);
	tcase_add_test(tcase, counts_beyond_32_bits_overflow_the_packer);
	tcase_add_loop_test(tcase, hostile_bytes_are_refused_with_their_offset, 0, COUNT(hostile));
	tcase_add_test(tcase, every_first_byte_is_either_read_or_refused);
	tcase_add_test(tcase, eight_levels_and_sixty_four_pairs_are_allowed);
	tcase_add_test(tcase, a_key_shown_in_a_sentence_is_cut_between_characters);
	tcase_add_test(tcase, texts_are_copied_whole_or_not_at_all);
	tcase_add_test(tcase, a_hundred_thousand_tensors_are_unpacked_in_no_time);
	tcase_add_test(tcase, more_values_than_allowed_are_refused_before_they_are_unpacked);
	tcase_add_test(tcase, hostile_bytes_do_no_harm_in_one_gibibyte_of_address_space);
	tcase_add_test(tcase, every_prefix_and_every_changed_byte_of_a_message_is_survived);
#if HEAP_IS_COUNTED
	tcase_add_test(tcase, small_messages_are_unpacked_without_allocation);
	tcase_add_test(tcase, every_allocation_that_fails_is_reported_and_the_next_call_works);
#endif
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
