/*
 * Limits how often the same is said, so that a trainer whose every step is refused does not fill the log.
 *
 * Events of one origin share a token bucket: BURST may come at once, and one more every REFILL_MS. What comes when the
 * bucket is empty is left out and counted, and the count is told as soon as there is a token again, also when nothing
 * more of that origin comes. Origins beyond the table's size share its last bucket.
 *
 * Loop thread only; time comes in as an argument.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	THROTTLE_BURST = 64,
	THROTTLE_REFILL_MS = 1000,
	THROTTLE_ORIGIN_COUNT_MAX = 64,
	THROTTLE_TEXT_BYTES_MAX = 256,
};

struct throttle_bucket {
	const void *origin;
	uint32_t tokens;
	uint64_t refilled_ms;    /* monotonic; up to when tokens have been given */
	uint64_t left_out_count; /* since the last one that was said */
	char left_out_text[THROTTLE_TEXT_BYTES_MAX]; /* of the last one left out, cut to fit */
};

/* All zero at first. */
struct throttle {
	struct throttle_bucket buckets[THROTTLE_ORIGIN_COUNT_MAX];
	uint32_t origin_count;
};

/* Whether something of that origin may be said now. If not, it counts as left out. */
bool throttle_admit(struct throttle *throttle, const void *origin, const char *text, uint64_t now_ms);

/*
 * Takes the next line that tells how many events were left out, "12 similar messages were left out, the last: ...".
 * False when there is none to be said now.
 */
bool throttle_take(struct throttle *throttle, uint64_t now_ms, char *text, size_t text_capacity);
