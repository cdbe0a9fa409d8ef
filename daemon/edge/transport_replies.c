/*
 * A queue of buffers. See transport_replies.h.
 */
#include "daemon/edge/transport_replies.h"

#include <stdlib.h>

enum { SPARE_BYTES = 1024 }; /* of a buffer that is kept for the next reply */

/* A reply on its way. */
struct outgoing {
	struct outgoing *next;
	size_t capacity, bytes, sent;
	uint8_t data[];
};

void replies_init(struct replies *replies, uint64_t *all_bytes)
{
	*replies = (struct replies){ .all_bytes = all_bytes };
}

void replies_finish(struct replies *replies)
{
	*replies->all_bytes -= replies->bytes;
	while (replies->first) {
		struct outgoing *next = replies->first->next;

		free(replies->first);
		replies->first = next;
	}
	free(replies->spare);
}

uint8_t *replies_append(struct replies *replies, size_t bytes)
{
	struct outgoing *outgoing = replies->spare;
	size_t capacity = bytes > SPARE_BYTES ? bytes : SPARE_BYTES;

	if (outgoing && bytes <= outgoing->capacity)
		replies->spare = NULL;
	else
		outgoing = malloc(sizeof *outgoing + capacity);
	if (!outgoing)
		return NULL;
	*outgoing = (struct outgoing){ .capacity = capacity, .bytes = bytes };
	if (replies->first)
		replies->last->next = outgoing;
	else
		replies->first = outgoing;
	replies->last = outgoing;
	replies->bytes += bytes;
	*replies->all_bytes += bytes;
	return outgoing->data;
}

bool replies_next(const struct replies *replies, uint8_t **ret_bytes, size_t *ret_byte_count)
{
	struct outgoing *outgoing = replies->first;

	if (!outgoing)
		return false;
	*ret_bytes = outgoing->data + outgoing->sent;
	*ret_byte_count = outgoing->bytes - outgoing->sent;
	return true;
}

void replies_sent(struct replies *replies, size_t byte_count)
{
	struct outgoing *outgoing = replies->first;

	outgoing->sent += byte_count;
	if (outgoing->sent < outgoing->bytes)
		return;
	replies->bytes -= outgoing->bytes;
	*replies->all_bytes -= outgoing->bytes;
	replies->first = outgoing->next;
	if (!replies->spare && outgoing->capacity == SPARE_BYTES)
		replies->spare = outgoing;
	else
		free(outgoing);
}
