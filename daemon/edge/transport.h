/*
 * The NNG socket: REQ/REP of the scalability protocols, served on NNG's streams with our own framing (proto/sp.h).
 *
 * Not nng_rep0, because in NNG 1.5.2 one connect() and close() stops such a listener for ever, because a stalled peer
 * has no time limit there, and because a stream receives straight to the place that we name. Any stock NNG `req` socket
 * is a client.
 *
 *     NNG's threads: an operation has ended -> put it into a list, wake the loop
 *     loop thread:   transport_poll -> parse, hand requests over, start the next operation
 *
 * transport_pending is how the first come to the second, transport_flow the bytes of one direction, transport_connection
 * the requests and replies made of them, transport_body where the large ones are received, transport_replies what is to be
 * sent, transport_listener where connections come from.
 *
 * Every connection has a deadline for its handshake and for each message, a budget of unsent reply bytes beyond which
 * nothing more is read from it, and a deadline for a peer that does not read its replies.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/exchange.h"
#include "proto/counters.h"
#include "proto/message.h"
#include "proto/status.h"

struct transport;

struct transport_options {
	uint32_t connection_count_max;
	uint32_t socket_mode;          /* permissions of an ipc socket */
	uint32_t handshake_timeout_ms; /* from accepting to the handshake */
	uint32_t message_timeout_ms;   /* from a message's first byte to its last, and for each reply */
	uint32_t keepalive_ms;         /* how long a peer behind tcp may say nothing */
	uint64_t body_bytes_max;       /* of one message */
	uint64_t bodies_bytes_max;     /* of larger bodies being received, all connections together */
	uint64_t reply_bytes_max;      /* unsent replies beyond which a peer is no longer read */
	uint64_t replies_bytes_max;    /* unsent replies of all peers together beyond which large ones are refused */
	struct counters *counters;     /* loop thread; outlives the transport */
	void *context;                 /* for the functions below */
	/* What a peer is not let into (struct peer's refused): one on this host by its user and group, -1: not known. */
	uint32_t (*classify)(void *context, const struct peer *peer, int64_t gid);
	void (*wake)(void *context);   /* from any thread: transport_poll has something to do */
	void (*request)(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
	                const uint8_t *body, size_t body_bytes);
	/* What went wrong with a peer before it could say anything: TLS, mostly. */
	void (*say)(void *context, const char *text);
	/* Where a body is to be received; NULL: where the transport likes. It then comes with request at that place. */
	uint8_t *(*place)(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
	                  uint64_t body_bytes);
	void (*gone)(void *context, uint64_t peer);
};

/* How many threads transport_start makes. Where only some of them can be made NNG crashes, or hangs. */
uint32_t transport_thread_count(void);

/* Starts NNG's threads, with all signals blocked in them. */
int transport_start(const struct transport_options *options, struct transport **ret_transport);

/*
 * Other limits; socket_mode and what is below counters are not looked at. Connections that are there stay, and what each is
 * let into is asked for anew. -ENOMEM: everything is as before.
 */
int transport_reconfigure(struct transport *transport, const struct transport_options *options);

/* For tls+tcp://, in PEM format. */
struct transport_tls {
	const char *certificate, *key;
	const char *authority; /* that clients' certificates must be from; NULL: they need none */
};

/*
 * Listens at a url: ipc://PATH, tcp://ADDRESS:PORT, tls+tcp://ADDRESS:PORT. tls is looked at for the last alone. Our codes
 * or -errno, with a sentence.
 */
int transport_listen(struct transport *transport, const char *url, const struct transport_tls *tls,
                     struct reason *reason);

/*
 * Other certificates from now on, for connections that are made from now on. STATUS_EARGUMENT: they cannot be used, and all
 * is as before.
 */
int transport_secure(struct transport *transport, const struct transport_tls *tls, struct reason *reason);

/* A remote peer is known by that name from now on. */
void transport_identify(struct transport *transport, uint64_t peer, const char *name);

/* Does what NNG's threads have left to do. Loop thread; may call request and gone. */
void transport_poll(struct transport *transport);

/* Sends a reply; dropped when the peer is gone. Body bytes are copied. */
void transport_reply(struct transport *transport, const struct exchange *exchange, const struct reply *reply,
                     const void *body, size_t body_bytes);

/*
 * Ends connections that receive a body into those bytes: when this returns nothing is written there any more. Not the
 * one whose request is in hand.
 */
void transport_withdraw(struct transport *transport, const uint8_t *base, uint64_t bytes);

/* Closes listeners, sends what is queued, closes connections; waits at most deadline_ms for all that. */
void transport_stop(struct transport *transport, uint32_t deadline_ms);
