/*
 * The memory that a daemon of a fake host has left when it died, to be laid out for the next one again and again.
 */
#pragma once

#include "tests/unit/fake_host.h"

enum { MEMORY_LEFT_SEGMENTS_MOST = 16 };

struct memory_left {
	uint32_t count;
	struct memory segments[MEMORY_LEFT_SEGMENTS_MOST];
	uint8_t *bytes[MEMORY_LEFT_SEGMENTS_MOST]; /* owned */
	uint64_t total_bytes;
};

/* As it is now. */
void memory_left_take(struct memory_left *left, struct fake_host *host);
void memory_left_finish(struct memory_left *left);

/* Puts everything back as it was, in memory of its own. */
void memory_left_lay_out(const struct memory_left *left, struct fake_host *host);

/* A segment that was laid out. */
struct fake_segment *memory_left_segment(const struct memory_left *left, struct fake_host *host, uint32_t index);
