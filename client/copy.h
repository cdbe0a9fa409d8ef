/*
 * Copying into shared memory without reading the target first.
 *
 * An ordinary store loads the cache line that it overwrites: a copy of n bytes then moves 3n. Non-temporal stores skip
 * that load. glibc's memcpy uses them only for pieces larger than most of the last-level cache, which on servers
 * (hundreds of MiB) is never; a snapshot is written once and read by another core, so it gains nothing from the cache.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum copy_kind {
	COPY_PORTABLE, /* memcpy */
	COPY_SSE2,
	COPY_AVX2,
	COPY_AVX512,
	COPY_KIND_COUNT,
};

/* Below this, memcpy: too little of it is whole cache lines. */
enum { COPY_STREAM_BYTES_MIN = 1024 };

bool copy_kind_supported(enum copy_kind kind);
const char *copy_kind_name(enum copy_kind kind);

/* The fastest kind on this processor. */
enum copy_kind copy_kind_best(void);

/*
 * Copies by one kind, which must be supported. Any alignment, any size; the ranges must not overlap. This thread sees
 * the bytes at once, others only after copy_fence.
 */
void copy_by_kind(enum copy_kind kind, void *target, const void *source, size_t bytes);

/* Whoever sees a later store or message of this thread sees all bytes copied before. */
void copy_fence(void);

/* Copies by the kind that fits the size. */
static inline void copy_bytes(enum copy_kind best, void *target, const void *source, size_t bytes)
{
	copy_by_kind(bytes < COPY_STREAM_BYTES_MIN ? COPY_PORTABLE : best, target, source, bytes);
}
