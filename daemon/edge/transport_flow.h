/*
 * One direction of a connection's stream: so many bytes from or to a place in memory, until a deadline. A large body comes
 * in many parts; NNG's threads go on from one to the next, and the loop hears of the last.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/edge/transport_pending.h"

struct flow {
	struct pending pending; /* under_way: bytes are moved, or it rests */
	nng_stream *stream;         /* borrowed from the connection */
	bool sends;
	bool closed; /* guarded by the list's lock; written by the loop thread */
	bool rests;  /* what is under way is not moving bytes but waiting */
	bool whole;  /* the loop need not see each part of it */
	/*
	 * What is still to come or to go, and the bytes done so far: of NNG's threads while it is under way, of the loop thread
	 * otherwise.
	 */
	nng_iov rest, more;
	size_t done_bytes;
	uint64_t due_ms; /* 0: whenever */
};

/* NNG's codes. */
int flow_init(struct flow *flow, struct pending_list *list, nng_stream *stream, bool sends);

/* Waits until what was under way has ended. */
void flow_finish(struct flow *flow);

/*
 * Moves some bytes, or all where whole is set, and with the last of them as many more as there are at once. Nothing must be
 * under way.
 */
void flow_begin(struct flow *flow, nng_iov bytes, nng_iov more, uint64_t due_ms, bool whole);

/* Ends after so long. Nothing must be under way. */
void flow_rest(struct flow *flow, uint32_t ms);

/* Nothing begins from now on; what is under way is ended by closing the stream. Loop thread. */
void flow_close(struct flow *flow);

/* Ends what is under way; when this returns nothing is written to its place any more. */
void flow_abort(struct flow *flow);

/*
 * What moving bytes ended with: NNG's codes. Once an aio has slept NNG 1.5 takes the end of its time for a success, as for a
 * sleep: nothing was moved then, which does not happen otherwise.
 */
int flow_result(const struct flow *flow);
