/*
 * Gathering: whatever is wanted of an image, in whatever dtype, the parts that are asked for are its bytes and no others,
 * and what is made of them is what a conversion of each tensor would make.
 */
#include "client/gather.h"

#include "client/served.h"
#include "proto/convert.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_COUNT_MAX_HERE = 3000, JSON_BYTES = 400000, ROUND_COUNT = 60 };

static uint64_t state;

static uint64_t random_below(uint64_t limit)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (state >> 33) % limit;
}

/* An image elsewhere. */
struct there {
	struct safetensors *tensors;
	uint8_t *file;
	struct runs runs;
};

/* Tensors of every dtype, widest first; sizes by the round: few large ones, or many small ones. */
static struct there there_make(uint32_t count, uint64_t extent_max)
{
	struct there there = {.file = NULL};
	uint8_t *header = malloc(JSON_BYTES);
	size_t used = SAFETENSORS_SIZE_BYTES;
	uint64_t at = 0, index = 0;

	ck_assert_ptr_nonnull(header);
	for (uint64_t width = 8; width > 0; width /= 2) {
		for (enum dtype dtype = 0; dtype < DTYPE_COUNT; dtype++) {
			for (uint32_t i = 0; dtype_bytes(dtype) == width && i < count / DTYPE_COUNT; i++) {
				const uint64_t extent = random_below(extent_max), end = at + extent * width;

				used += (size_t)snprintf((char *)header + used, JSON_BYTES - used,
				                         "%s\"%llu\":{\"dtype\":\"%s\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}",
				                         index ? "," : "{", (unsigned long long)index, dtype_name(dtype),
				                         (unsigned long long)extent, (unsigned long long)at, (unsigned long long)end);
				index++;
				there.runs.bytes[dtype] += end - at;
				at = end;
			}
		}
	}
	header[used++] = '}';
	/* The tensors begin at a page, as in an image. */
	while (used % 4096 != 0)
		header[used++] = ' ';
	for (int i = 0; i < 8; i++)
		header[i] = (uint8_t)((used - 8) >> 8 * i);
	there.file = malloc(used + at + 1);
	ck_assert_ptr_nonnull(there.file);
	memcpy(there.file, header, used);
	for (uint64_t i = 0; i < at; i++)
		there.file[used + i] = (uint8_t)random_below(256);
	ck_assert_int_eq(safetensors_parse(header, used, used + at, &there.tensors, NULL), 0);
	free(header);
	return there;
}

static void there_finish(struct there *there)
{
	safetensors_destroy(there->tensors);
	free(there->file);
}

static uint64_t number_of(const uint8_t *bytes)
{
	uint64_t number = 0;

	for (int i = 0; i < 8; i++)
		number = number << 8 | bytes[i];
	return number;
}

/* Answers a part's request as the daemon does; returns the bytes that were asked for. */
static uint64_t part_answer(const struct there *there, enum dtype wire, const uint8_t *ranges, size_t range_bytes,
                            uint8_t *body, uint64_t body_bytes)
{
	const uint64_t data = there->tensors->data_offset;
	uint64_t used = 0, sum = 0;

	ck_assert_uint_le(range_bytes, FETCH_RANGE_COUNT_MAX * FETCH_RANGE_BYTES);
	for (size_t i = 0; i < range_bytes; i += FETCH_RANGE_BYTES) {
		const uint64_t offset = number_of(ranges + i), bytes = number_of(ranges + i + 8);

		ck_assert_uint_gt(bytes, 0);
		ck_assert_uint_ge(offset, data);
		ck_assert_uint_le(offset + bytes, there->tensors->file_bytes);
		ck_assert(runs_is_boundary(&there->runs, offset - data) && runs_is_boundary(&there->runs, offset + bytes - data));
		runs_narrow(&there->runs, wire, offset - data, bytes, there->file + offset, body + used);
		used += runs_wire_bytes(&there->runs, wire, offset - data, bytes);
		sum += bytes;
	}
	ck_assert_uint_eq(used, body_bytes);
	ck_assert_uint_le(sum, CHUNK_BYTES_MAX);
	return sum;
}

static void file_compare(const struct there *there, const struct gather *gather, enum emad_served_dtype served,
                         const uint8_t *file)
{
	uint64_t at = gather->recast->header_bytes;

	for (uint32_t i = 0; i < gather->recast->tensor_count; i++) {
		const struct recast_tensor *tensor = &gather->recast->tensors[i];
		const struct safetensors_entry *entry = &there->tensors->entries[tensor->index];
		uint8_t *expected = malloc(tensor->bytes + 1);

		ck_assert_ptr_nonnull(expected);
		convert_elements(entry->dtype, there->file + entry->offset, served_dtype(served, entry->dtype), expected,
		                 tensor->element_count);
		ck_assert_msg(memcmp(file + at, expected, tensor->bytes) == 0, "tensor %u, %s as %u", tensor->index,
		              dtype_name(entry->dtype), (unsigned)served);
		at += tensor->bytes;
		free(expected);
	}
	ck_assert_uint_eq(at, gather->recast->file_bytes);
}

static void gathered_compare(const struct there *there, enum emad_served_dtype served, const bool *chosen)
{
	static uint8_t ranges[FETCH_RANGE_COUNT_MAX * FETCH_RANGE_BYTES], body[CHUNK_BYTES_MAX];
	uint64_t sum = 0, wanted = 0;
	struct reason reason = {""};
	struct gather gather;
	uint8_t *file;

	ck_assert_msg(gather_plan(there->tensors, served, chosen, &gather, &reason) == 0, "%s", reason.text);
	file = malloc(gather.recast->file_bytes);
	ck_assert_ptr_nonnull(file);
	for (uint64_t i = 0; i < gather.count; i++) {
		const struct gather_part *part = &gather.parts[i];
		size_t range_bytes = gather_ranges(&gather, part, ranges);

		ck_assert_uint_eq(part_answer(there, gather.wire, ranges, range_bytes, body, part->wire_bytes), part->bytes);
		gather_spread(&gather, part, body, file);
		sum += part->bytes;
	}
	for (uint32_t i = 0; i < there->tensors->entry_count; i++)
		wanted += !chosen || chosen[i] ? there->tensors->entries[i].bytes : 0;
	ck_assert_uint_eq(sum, wanted);
	/* No more requests than are needed: each but the last of its kind is full. */
	ck_assert_uint_le(gather.count, sum / CHUNK_BYTES_MAX + gather.span_count / FETCH_RANGE_COUNT_MAX + 2);
	file_compare(there, &gather, served, file);
	gather_finish(&gather);
	free(file);
}

START_TEST(every_selection_in_every_dtype_is_what_a_conversion_makes)
{
	const char *seed = getenv("EMAD_TEST_SEED");

	state = seed ? strtoull(seed, NULL, 0) : 20261124;
	printf("EMAD_TEST_SEED=%llu\n", (unsigned long long)state);
	for (int round = 0; round < ROUND_COUNT; round++) {
		static const struct {
			uint32_t count;
			uint64_t extent_max;
		} SIZES[] = {{24, 200000}, {TENSOR_COUNT_MAX_HERE, 20}, {120, 3000}};
		struct there there = there_make(SIZES[round % 3].count, SIZES[round % 3].extent_max);
		const uint64_t most = 1 + random_below(4);
		bool *chosen = calloc(there.tensors->entry_count, sizeof(*chosen));

		ck_assert_ptr_nonnull(chosen);
		for (uint32_t i = 0; i < there.tensors->entry_count; i++)
			chosen[i] = random_below(most) == 0;
		gathered_compare(&there, (enum emad_served_dtype)random_below(EMAD_AS_F8_E5M2 + 1), round % 5 ? chosen : NULL);
		free(chosen);
		there_finish(&there);
	}
}
END_TEST

START_TEST(of_nothing_there_is_nothing_to_ask_for)
{
	struct there there = there_make(24, 10);
	bool *chosen = calloc(there.tensors->entry_count, sizeof(*chosen));
	struct gather gather;

	ck_assert_ptr_nonnull(chosen);
	ck_assert_int_eq(gather_plan(there.tensors, EMAD_AS_BF16, chosen, &gather, NULL), 0);
	ck_assert_uint_eq(gather.count, 0);
	ck_assert_uint_eq(gather.recast->tensor_count, 0);
	gather_finish(&gather);
	free(chosen);
	there_finish(&there);
}
END_TEST

static int attempt(void *context)
{
	struct gather gather;
	int code = gather_plan(context, EMAD_AS_BF16, NULL, &gather, NULL);

	if (code == 0)
		gather_finish(&gather);
	return code;
}

START_TEST(every_allocation_may_fail)
{
	struct there there = there_make(240, 10);

	ck_assert_uint_ge(failing_heap_sweep(attempt, there.tensors), 6);
	there_finish(&there);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gather");
	TCase *cases = tcase_create("gather");
	SRunner *runner;
	int failed;

	tcase_add_test(cases, every_selection_in_every_dtype_is_what_a_conversion_makes);
	tcase_add_test(cases, of_nothing_there_is_nothing_to_ask_for);
	tcase_add_test(cases, every_allocation_may_fail);
	suite_add_tcase(suite, cases);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
