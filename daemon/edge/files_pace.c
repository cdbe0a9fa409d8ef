/*
 * A bucket that fills with the limit, kept as the time at which it would be full of what was taken. See files_pace.h.
 */
#include "daemon/edge/files_pace.h"

#include <time.h>

#include "daemon/edge/files_place.h"

enum {
	PAGE_BYTES = 4096,
	CHUNKS_PER_S = 20,
	SAVED_NS_MAX = 100000000, /* what was not used for longer than this is lost */
};

static const uint64_t NS_PER_S = 1000000000;

void files_pace_init(struct files_pace *pace)
{
	pthread_condattr_t attributes;

	*pace = (struct files_pace){ .bytes_per_s = 0 };
	pthread_mutex_init(&pace->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&pace->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

void files_pace_finish(struct files_pace *pace)
{
	pthread_cond_destroy(&pace->changed);
	pthread_mutex_destroy(&pace->lock);
}

void files_pace_set(struct files_pace *pace, uint64_t bytes_per_s)
{
	pthread_mutex_lock(&pace->lock);
	if (bytes_per_s != pace->bytes_per_s)
		pace->paid_ns = 0;
	pace->bytes_per_s = bytes_per_s;
	pthread_cond_broadcast(&pace->changed);
	pthread_mutex_unlock(&pace->lock);
}

void files_pace_end(struct files_pace *pace)
{
	pthread_mutex_lock(&pace->lock);
	pace->ends = true;
	pthread_cond_broadcast(&pace->changed);
	pthread_mutex_unlock(&pace->lock);
}

static size_t chunk_of(uint64_t bytes_per_s, size_t wanted_bytes)
{
	uint64_t chunk = bytes_per_s / CHUNKS_PER_S / PAGE_BYTES * PAGE_BYTES;

	if (chunk < PAGE_BYTES)
		chunk = PAGE_BYTES;
	return chunk < wanted_bytes ? (size_t)chunk : wanted_bytes;
}

size_t files_pace_wait(struct files_pace *pace, const struct files_calls *calls, size_t wanted_bytes)
{
	size_t bytes = wanted_bytes;
	uint64_t now_ns = 0;

	if (!pace)
		return bytes;
	pthread_mutex_lock(&pace->lock);
	while (!pace->ends && pace->bytes_per_s > 0 && (now_ns = calls->clock_ns()) < pace->paid_ns)
		calls->wait(&pace->changed, &pace->lock, pace->paid_ns);
	if (!pace->ends && pace->bytes_per_s > 0) {
		bytes = chunk_of(pace->bytes_per_s, wanted_bytes);
		if (pace->paid_ns + SAVED_NS_MAX < now_ns)
			pace->paid_ns = now_ns - SAVED_NS_MAX;
		pace->paid_ns += (uint64_t)((double)bytes / (double)pace->bytes_per_s * (double)NS_PER_S);
	}
	pthread_mutex_unlock(&pace->lock);
	return bytes;
}
