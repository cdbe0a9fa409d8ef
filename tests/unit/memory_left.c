/*
 * Memory that was left. See memory_left.h.
 */
#include "tests/unit/memory_left.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

void memory_left_take(struct memory_left *left, struct fake_host *host)
{
	left->total_bytes = 0;
	left->count = fake_host_segments(host, left->segments);
	ck_assert_uint_le(left->count, MEMORY_LEFT_SEGMENTS_MOST);
	for (uint32_t i = 0; i < left->count; i++) {
		const struct memory *at = &left->segments[i];

		left->bytes[i] = malloc(at->bytes);
		memcpy(left->bytes[i], at->base, at->bytes);
		left->total_bytes += at->bytes;
	}
}

void memory_left_finish(struct memory_left *left)
{
	for (uint32_t i = 0; i < left->count; i++)
		free(left->bytes[i]);
	left->count = 0;
}

void memory_left_lay_out(const struct memory_left *left, struct fake_host *host)
{
	for (int i = 0; i < FAKE_SEGMENT_COUNT_MAX; i++) {
		free(host->segments[i].base);
		host->segments[i] = (struct fake_segment){ NULL, 0, 0 };
	}
	for (uint32_t i = 0; i < left->count; i++) {
		const struct memory *at = &left->segments[i];
		uint8_t *base = aligned_alloc(LAYOUT_PAGE_BYTES, at->bytes);

		memcpy(base, left->bytes[i], at->bytes);
		*memory_left_segment(left, host, i) = (struct fake_segment){ base, at->bytes, at->segment };
	}
}

struct fake_segment *memory_left_segment(const struct memory_left *left, struct fake_host *host, uint32_t index)
{
	return &host->segments[left->segments[index].fd / 2];
}
