/*
 * The scalability protocols' REQ/REP framing, seen from the REP side: bytes in, requests out.
 *
 * A connection begins with an 8-byte handshake each way (0 'S' 'P' 0, protocol, 0 0). Then every message has a length
 * (8 bytes big-endian; on ipc preceded by one byte 1), a backtrace (4-byte words up to and including the first with
 * its high bit set: the request id, and hops if devices stand between), and our message (message.h).
 *
 * The parser asks for bytes where it wants them: small messages arrive many at a time in its own buffer; the body of
 * a large one is asked for at the place that the caller names, so that weights go from the socket to their place in
 * shared memory without a copy between. It never allocates and never reads past what it was given.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/status.h"

enum sp_wire {
	SP_WIRE_TCP, /* tcp and tls+tcp */
	SP_WIRE_IPC,
};

enum {
	SP_HANDSHAKE_BYTES = 8,
	SP_ID_BYTES = 4, /* of a request */
	SP_BACKTRACE_BYTES_MAX = 32, /* request id and up to 7 hops */
	SP_PREFIX_BYTES_MAX = 9 + SP_BACKTRACE_BYTES_MAX,
	SP_MORE_BYTES = 4096, /* of what follows a body, received with it: some heads, and little of a body to be copied */
	SP_BUFFER_BYTES = 9 + SP_BACKTRACE_BYTES_MAX + 4 + MESSAGE_HEADER_BYTES_MAX,
};

enum sp_event {
	SP_NEED_BYTES, /* receive into sp_window, then sp_received */
	SP_NEED_BODY,  /* the header is whole and a body follows: sp_body_place (or give up on the connection) */
	SP_REQUEST,    /* a whole request: handle it, then sp_request_done; body is NULL when it has none */
	SP_VIOLATION,  /* not our protocol, or over a limit: close the connection; never ends */
};

struct sp_parser {
	enum sp_wire wire;
	uint64_t body_bytes_max;
	int state;               /* enum sp_state of sp.c */
	uint64_t message_left;   /* bytes of the message in hand that are not read yet */
	struct reason violation; /* why, for ever after */
	size_t begin, end;       /* unread bytes of the buffer */

	/* The request in hand, valid from SP_NEED_BODY until sp_request_done. */
	uint8_t backtrace[SP_BACKTRACE_BYTES_MAX];
	size_t backtrace_bytes;
	const uint8_t *header; /* inside the buffer */
	size_t header_bytes;
	uint8_t *body; /* borrowed from the caller of sp_body_place */
	uint64_t body_bytes;
	uint64_t body_received;

	uint8_t buffer[SP_BUFFER_BYTES];
};

void sp_parser_init(struct sp_parser *parser, enum sp_wire wire, uint64_t body_bytes_max);

/* What to do next; the same answer until it is done. At SP_VIOLATION reason says why. */
enum sp_event sp_next(struct sp_parser *parser, struct reason *reason);

/* Whether the connection rests between two messages: the handshake is done and no byte of a message has arrived. */
bool sp_idle(const struct sp_parser *parser);

/* Whether the peer's handshake is done. */
bool sp_greeted(const struct sp_parser *parser);

/* Where the next bytes go; never empty after SP_NEED_BYTES. */
void sp_window(struct sp_parser *parser, uint8_t **ret_bytes, size_t *ret_capacity);

/*
 * Where more bytes may go once the window is full: what follows a body, so that the end of one message and the head of the
 * next come together. The capacity is 0 when there is no such place.
 */
void sp_window_more(struct sp_parser *parser, uint8_t **ret_bytes, size_t *ret_capacity);

/* That many bytes were put into the window, and beyond it into the other one. */
void sp_received(struct sp_parser *parser, size_t bytes);

/* Answers SP_NEED_BODY: body_bytes bytes at place, valid until sp_request_done. */
void sp_body_place(struct sp_parser *parser, uint8_t *place);

/* The request's header may be overwritten from now on. */
void sp_request_done(struct sp_parser *parser);

/* The ends of a connection, by their protocol numbers. */
enum sp_role {
	SP_ROLE_REQ = 0x30, /* a client */
	SP_ROLE_REP = 0x31, /* the daemon */
};

/* The handshake that this end sends first. */
void sp_handshake(enum sp_role role, uint8_t handshake[SP_HANDSHAKE_BYTES]);

/*
 * Writes what goes in front of a message of message_bytes: a reply with the backtrace of its request, or a request,
 * whose backtrace is its id alone (4 bytes, the high bit of the first set). Returns the bytes written, at most
 * SP_PREFIX_BYTES_MAX.
 */
size_t sp_prefix(enum sp_wire wire, const uint8_t *backtrace, size_t backtrace_bytes, uint64_t message_bytes,
                 uint8_t prefix[SP_PREFIX_BYTES_MAX]);

/* The message_bytes in a prefix with a backtrace of SP_ID_BYTES, as a client receives it. STATUS_EPROTOCOL. */
int sp_prefix_read(enum sp_wire wire, const uint8_t *prefix, uint64_t *ret_message_bytes, struct reason *reason);
