/*
 * One connection: its requests come in one direction, its replies go in the other. It is looked after by the loop thread;
 * NNG's threads move its bytes (transport_flow.h).
 */
#pragma once

#include "daemon/core/exchange.h"
#include "daemon/edge/transport_flow.h"
#include "daemon/edge/transport_inner.h"
#include "daemon/edge/transport_replies.h"
#include "proto/sp.h"

enum { CONNECTION_ORIGIN_BYTES = 56 }; /* [IPv6]:port */

struct connection {
	struct flow receiving, sending;
	struct transport *transport;
	uint64_t id; /* generation << 16 | index in the table */
	enum sp_wire wire;
	nng_stream *stream; /* owned */
	bool closing;
	bool secret; /* TLS */
	bool asked;  /* for a certificate */
	bool placed; /* the body lies where the core wants it, in memory that is not ours */
	bool ending; /* nothing more is read; closed when the replies are sent */
	char origin[CONNECTION_ORIGIN_BYTES]; /* the address of a peer that speaks TLS, for people */
	bool handshake_sent;
	uint64_t message_due_ms; /* deadline of the message being received; 0: none has begun */
	struct peer peer;
	int64_t gid; /* of the peer; -1: not known */
	struct replies replies;
	uint8_t handshake[SP_HANDSHAKE_BYTES];
	struct sp_parser parser;
};

/* Takes a stream that a listener has accepted, or closes it when there is no room. */
void connection_begin(struct transport *transport, nng_stream *stream, const struct listener *listener);

/* NULL when the peer is gone. */
struct connection *connection_find(const struct transport *transport, uint64_t id);

/* Asks anew what the peer is let into. */
void connection_classify(struct connection *connection);

/* Whoever has sent the request in hand, and what its answer must be addressed with. */
struct exchange connection_exchange(const struct connection *connection);

void connection_reply(struct connection *connection, const struct exchange *exchange, const struct reply *reply,
                      const void *body, size_t body_bytes);

/*
 * Ends a connection. It is freed when its operations have ended, in transport_poll; only then is it reported as gone,
 * because this may be called in the middle of a reply.
 */
void connection_close(struct connection *connection);

/* Whether nothing of it is in NNG's hands. */
bool connection_is_idle(const struct connection *connection);

/* Of one that is idle. */
void connection_free(struct connection *connection);
