/*
 * Token buckets by origin. See throttle.h.
 */
#include "daemon/core/throttle.h"

#include <inttypes.h>
#include <stdio.h>

static struct throttle_bucket *bucket_of(struct throttle *throttle, const void *origin, uint64_t now_ms)
{
	struct throttle_bucket *bucket;

	for (uint32_t i = 0; i < throttle->origin_count; i++)
		if (throttle->buckets[i].origin == origin)
			return &throttle->buckets[i];
	if (throttle->origin_count == THROTTLE_ORIGIN_COUNT_MAX)
		return &throttle->buckets[THROTTLE_ORIGIN_COUNT_MAX - 1];
	bucket = &throttle->buckets[throttle->origin_count++];
	*bucket = (struct throttle_bucket){ .origin = origin, .tokens = THROTTLE_BURST, .refilled_ms = now_ms };
	return bucket;
}

static void refill(struct throttle_bucket *bucket, uint64_t now_ms)
{
	uint64_t count = now_ms > bucket->refilled_ms ? (now_ms - bucket->refilled_ms) / THROTTLE_REFILL_MS : 0;

	if (count >= THROTTLE_BURST - bucket->tokens) {
		bucket->tokens = THROTTLE_BURST;
		bucket->refilled_ms = now_ms;
	} else {
		bucket->tokens += (uint32_t)count;
		bucket->refilled_ms += count * THROTTLE_REFILL_MS;
	}
}

bool throttle_admit(struct throttle *throttle, const void *origin, const char *text, uint64_t now_ms)
{
	struct throttle_bucket *bucket = bucket_of(throttle, origin, now_ms);

	refill(bucket, now_ms);
	/* The next token tells of what has been left out already. */
	if (bucket->tokens > 0 && bucket->left_out_count == 0) {
		bucket->tokens--;
		return true;
	}
	bucket->left_out_count++;
	snprintf(bucket->left_out_text, sizeof bucket->left_out_text, "%s", text);
	return false;
}

bool throttle_take(struct throttle *throttle, uint64_t now_ms, char *text, size_t text_capacity)
{
	for (uint32_t i = 0; i < throttle->origin_count; i++) {
		struct throttle_bucket *bucket = &throttle->buckets[i];

		refill(bucket, now_ms);
		if (bucket->left_out_count == 0 || bucket->tokens == 0)
			continue;
		snprintf(text, text_capacity, "%" PRIu64 " similar message%s left out, the last: %s",
		         bucket->left_out_count, bucket->left_out_count == 1 ? " was" : "s were", bucket->left_out_text);
		bucket->tokens--;
		bucket->left_out_count = 0;
		return true;
	}
	return false;
}
