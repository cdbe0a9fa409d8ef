/*
 * The replies that a connection's peer has not been sent yet, in their order, each one stretch of bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct outgoing;

struct replies {
	struct outgoing *first, *last; /* owned */
	struct outgoing *spare; /* owned; so that replies in step with requests allocate nothing */
	size_t bytes;           /* unsent */
	uint64_t *all_bytes;    /* borrowed: unsent, of all connections */
};

void replies_init(struct replies *replies, uint64_t *all_bytes);
void replies_finish(struct replies *replies);

/* Room for one more reply of so many bytes, to be filled at once. NULL: no memory. */
uint8_t *replies_append(struct replies *replies, size_t bytes);

/* What is to be sent next. False: nothing. */
bool replies_next(const struct replies *replies, uint8_t **ret_bytes, size_t *ret_byte_count);

/* So many bytes of that have been sent. */
void replies_sent(struct replies *replies, size_t byte_count);
