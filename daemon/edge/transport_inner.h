/*
 * What the transport's connections share: its limits and functions, the connections by their numbers, and what all of them
 * together use up. Loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/edge/transport.h"
#include "daemon/edge/transport_listener.h"
#include "daemon/edge/transport_pending.h"

enum { TRANSPORT_LISTENER_COUNT_MAX = 8 };

struct connection;

struct transport {
	struct transport_options options;
	struct pending_list ended;
	struct connection **table; /* owned; by index; NULL entries are free */
	uint32_t table_count;      /* at least as many as may be connected */
	uint64_t generation;
	uint32_t connection_count;
	uint64_t body_bytes;  /* being received, in large bodies */
	uint64_t reply_bytes; /* unsent */
	uint32_t listener_count;
	struct listener listeners[TRANSPORT_LISTENER_COUNT_MAX];
	const struct connection *in_hand; /* whose request is being handled; NULL: nobody's */
	bool stopping;
};
