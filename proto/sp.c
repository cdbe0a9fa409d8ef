/*
 * The scalability protocols' REQ/REP framing, seen from the REP side: bytes in, requests out.
 *
 * One state for each thing that is read next; sp_next advances through them as far as the bytes in the buffer reach.
 * A message's head (length, backtrace, our header) always fits into the buffer, so unread bytes are moved to its start
 * only when the piece wanted next would not fit behind them. They are never moved while a request is in hand: its
 * header lies in the buffer.
 */
#include "proto/sp.h"

#include "proto/message.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum sp_state {
	SP_READ_HANDSHAKE,
	SP_READ_TYPE, /* ipc only */
	SP_READ_LENGTH,
	SP_READ_BACKTRACE,
	SP_READ_HEADER_SIZE,
	SP_READ_HEADER,
	SP_PLACE_BODY, /* the caller's turn: sp_body_place */
	SP_READ_BODY,
	SP_HAND_OVER, /* the caller's turn: sp_request_done */
	SP_VIOLATED,
};

enum {
	SP_LENGTH_BYTES = 8,
	SP_IPC_TYPE = 1, /* the only kind of message that ipc has */
	SP_MESSAGE_BYTES_MIN = SP_ID_BYTES + MESSAGE_PREFIX_BYTES,
};

void sp_parser_init(struct sp_parser *parser, enum sp_wire wire, uint64_t body_bytes_max)
{
	/* The buffer stays as it is: clearing 64 KiB for each connection would be for nothing. */
	memset(parser, 0, offsetof(struct sp_parser, buffer));
	parser->wire = wire;
	parser->body_bytes_max = body_bytes_max;
	parser->state = SP_READ_HANDSHAKE;
}

void sp_handshake(enum sp_role role, uint8_t handshake[SP_HANDSHAKE_BYTES])
{
	const uint8_t own[SP_HANDSHAKE_BYTES] = {0, 'S', 'P', 0, 0, (uint8_t)role, 0, 0};

	memcpy(handshake, own, sizeof(own));
}

static uint64_t big_endian(const uint8_t *bytes, size_t count)
{
	uint64_t number = 0;

	for (size_t i = 0; i < count; i++)
		number = number << 8 | bytes[i];
	return number;
}

static size_t sp_unread(const struct sp_parser *parser)
{
	return parser->end - parser->begin;
}

/* The next count bytes once they are all there, else NULL; then there is room for them behind begin. */
static const uint8_t *sp_take(struct sp_parser *parser, size_t count)
{
	const uint8_t *bytes = parser->buffer + parser->begin;

	assert(count <= SP_BUFFER_BYTES);
	if (sp_unread(parser) >= count) {
		parser->begin += count;
		return bytes;
	}
	if (sp_unread(parser) == 0 || SP_BUFFER_BYTES - parser->begin < count) {
		memmove(parser->buffer, bytes, sp_unread(parser));
		parser->end -= parser->begin;
		parser->begin = 0;
	}
	return NULL;
}

/* Both return false, as the steps below do when they stay where they are. */
static bool sp_violate(struct sp_parser *parser, const char *text)
{
	parser->state = SP_VIOLATED;
	reason_set(&parser->violation, STATUS_EPROTOCOL, "%s", text);
	return false;
}

static bool sp_violate_limit(struct sp_parser *parser, const char *what, uint64_t bytes, uint64_t bytes_max)
{
	parser->state = SP_VIOLATED;
	reason_set(&parser->violation, STATUS_ELIMIT, "a %s of %llu bytes, at most %llu are allowed", what,
	           (unsigned long long)bytes, (unsigned long long)bytes_max);
	return false;
}

/*
 * One step for each state. They return true when the state was left, false when bytes are missing or the peer broke
 * the protocol.
 */

static bool sp_read_handshake(struct sp_parser *parser)
{
	static const uint8_t expected[SP_HANDSHAKE_BYTES] = {0, 'S', 'P', 0, 0, SP_ROLE_REQ, 0, 0};
	const uint8_t *here = parser->buffer + parser->begin;
	size_t here_bytes = sp_unread(parser) < SP_HANDSHAKE_BYTES ? sp_unread(parser) : SP_HANDSHAKE_BYTES;

	/* Byte by byte: who speaks HTTP or TLS may wait for us before sending eight. */
	for (size_t i = 0; i < here_bytes; i++) {
		if (here[i] == expected[i])
			continue;
		reason_set(&parser->violation, STATUS_EPROTOCOL,
		           "the peer %s (byte %zu of the handshake is 0x%02x, not 0x%02x)",
		           i == 4 || i == 5 ? "is not a 'req' socket" : "does not speak the scalability protocols", i,
		           here[i], expected[i]);
		parser->state = SP_VIOLATED;
		return false;
	}
	if (!sp_take(parser, SP_HANDSHAKE_BYTES))
		return false;
	parser->state = SP_READ_TYPE;
	return true;
}

static bool sp_read_type(struct sp_parser *parser)
{
	const uint8_t *type;

	if (parser->wire == SP_WIRE_IPC) {
		type = sp_take(parser, 1);
		if (!type)
			return false;
		if (*type != SP_IPC_TYPE)
			return sp_violate(parser, "an ipc message does not begin with the byte 1");
	}
	parser->state = SP_READ_LENGTH;
	return true;
}

static bool sp_read_length(struct sp_parser *parser)
{
	const uint8_t *bytes = sp_take(parser, SP_LENGTH_BYTES);
	uint64_t message_bytes, message_bytes_max;

	if (!bytes)
		return false;
	message_bytes = big_endian(bytes, SP_LENGTH_BYTES);
	if (message_bytes < SP_MESSAGE_BYTES_MIN)
		return sp_violate(parser, "a message of less than 8 bytes: no room for request id and header size");
	if (__builtin_add_overflow(parser->body_bytes_max,
	                           SP_BACKTRACE_BYTES_MAX + MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX,
	                           &message_bytes_max))
		message_bytes_max = UINT64_MAX;
	if (message_bytes > message_bytes_max)
		return sp_violate_limit(parser, "message", message_bytes, message_bytes_max);
	parser->message_left = message_bytes;
	parser->backtrace_bytes = 0;
	parser->state = SP_READ_BACKTRACE;
	return true;
}

/* One word of it. */
static bool sp_read_backtrace(struct sp_parser *parser)
{
	const uint8_t *word = sp_take(parser, SP_ID_BYTES);

	if (!word)
		return false;
	memcpy(parser->backtrace + parser->backtrace_bytes, word, SP_ID_BYTES);
	parser->backtrace_bytes += SP_ID_BYTES;
	parser->message_left -= SP_ID_BYTES;
	if (word[0] & 0x80)
		parser->state = SP_READ_HEADER_SIZE;
	else if (parser->backtrace_bytes == SP_BACKTRACE_BYTES_MAX)
		return sp_violate(parser, "no request id in the first 8 words of a message");
	if (parser->message_left < SP_ID_BYTES)
		return sp_violate(parser, "a message ends before its header size");
	return true;
}

static bool sp_read_header_size(struct sp_parser *parser)
{
	const uint8_t *bytes = sp_take(parser, MESSAGE_PREFIX_BYTES);
	uint64_t header_bytes, body_bytes;

	if (!bytes)
		return false;
	parser->message_left -= MESSAGE_PREFIX_BYTES;
	header_bytes = big_endian(bytes, MESSAGE_PREFIX_BYTES);
	if (header_bytes > MESSAGE_HEADER_BYTES_MAX)
		return sp_violate_limit(parser, "message header", header_bytes, MESSAGE_HEADER_BYTES_MAX);
	if (header_bytes > parser->message_left)
		return sp_violate(parser, "a message header is larger than its message");
	body_bytes = parser->message_left - header_bytes;
	if (body_bytes > parser->body_bytes_max)
		return sp_violate_limit(parser, "message body", body_bytes, parser->body_bytes_max);
	parser->header_bytes = (size_t)header_bytes;
	parser->body_bytes = body_bytes;
	parser->state = SP_READ_HEADER;
	return true;
}

static bool sp_read_header(struct sp_parser *parser)
{
	const uint8_t *bytes = sp_take(parser, parser->header_bytes);

	if (!bytes)
		return false;
	parser->message_left -= parser->header_bytes;
	parser->header = bytes;
	parser->body = NULL;
	parser->body_received = 0;
	parser->state = parser->body_bytes > 0 ? SP_PLACE_BODY : SP_HAND_OVER;
	return true;
}

/* Does the step that is possible; false when the answer to the caller is found. */
static bool sp_step(struct sp_parser *parser, enum sp_event *ret_event)
{
	*ret_event = SP_NEED_BYTES;
	switch ((enum sp_state)parser->state) {
	case SP_READ_HANDSHAKE:
		return sp_read_handshake(parser);
	case SP_READ_TYPE:
		return sp_read_type(parser);
	case SP_READ_LENGTH:
		return sp_read_length(parser);
	case SP_READ_BACKTRACE:
		return sp_read_backtrace(parser);
	case SP_READ_HEADER_SIZE:
		return sp_read_header_size(parser);
	case SP_READ_HEADER:
		return sp_read_header(parser);
	case SP_PLACE_BODY:
		*ret_event = SP_NEED_BODY;
		return false;
	case SP_READ_BODY:
		if (parser->body_received < parser->body_bytes)
			return false;
		parser->state = SP_HAND_OVER;
		return true;
	case SP_HAND_OVER:
		*ret_event = SP_REQUEST;
		return false;
	case SP_VIOLATED:
		break;
	}
	*ret_event = SP_VIOLATION;
	return false;
}

enum sp_event sp_next(struct sp_parser *parser, struct reason *reason)
{
	enum sp_event event;

	while (sp_step(parser, &event))
		;
	if (parser->state != SP_VIOLATED)
		return event;
	if (reason)
		*reason = parser->violation;
	return SP_VIOLATION;
}

bool sp_idle(const struct sp_parser *parser)
{
	enum sp_state state = (enum sp_state)parser->state;

	/* On tcp there is no type byte: that state is left as soon as it is entered. */
	return sp_unread(parser) == 0 &&
	       (state == SP_READ_TYPE || (parser->wire == SP_WIRE_TCP && state == SP_READ_LENGTH));
}

bool sp_greeted(const struct sp_parser *parser)
{
	return parser->state != SP_READ_HANDSHAKE && parser->state != SP_VIOLATED;
}

void sp_window(struct sp_parser *parser, uint8_t **ret_bytes, size_t *ret_capacity)
{
	if (parser->state == SP_READ_BODY) {
		*ret_bytes = parser->body + parser->body_received;
		*ret_capacity = (size_t)(parser->body_bytes - parser->body_received);
	} else {
		*ret_bytes = parser->buffer + parser->end;
		*ret_capacity = SP_BUFFER_BYTES - parser->end;
	}
}

void sp_window_more(struct sp_parser *parser, uint8_t **ret_bytes, size_t *ret_capacity)
{
	size_t room = SP_BUFFER_BYTES - parser->end;

	*ret_bytes = parser->buffer + parser->end;
	*ret_capacity = parser->state != SP_READ_BODY ? 0 : room < SP_MORE_BYTES ? room : SP_MORE_BYTES;
}

void sp_received(struct sp_parser *parser, size_t bytes)
{
	uint64_t body_left = parser->body_bytes - parser->body_received;

	if (parser->state == SP_READ_BODY) {
		size_t taken = bytes < body_left ? bytes : (size_t)body_left;

		parser->body_received += taken;
		bytes -= taken;
	}
	assert(bytes <= SP_BUFFER_BYTES - parser->end);
	parser->end += bytes;
}

void sp_body_place(struct sp_parser *parser, uint8_t *place)
{
	size_t here = sp_unread(parser);

	assert(parser->state == SP_PLACE_BODY);
	if (here > parser->body_bytes)
		here = (size_t)parser->body_bytes;
	memcpy(place, parser->buffer + parser->begin, here);
	/* Behind the header there is room again for what follows the body. */
	if (here == sp_unread(parser))
		parser->end = parser->begin;
	else
		parser->begin += here;
	parser->body = place;
	parser->body_received = here;
	parser->state = SP_READ_BODY;
}

void sp_request_done(struct sp_parser *parser)
{
	assert(parser->state == SP_HAND_OVER);
	parser->header = NULL;
	parser->header_bytes = 0;
	parser->body = NULL;
	parser->body_bytes = 0;
	parser->state = SP_READ_TYPE;
}

size_t sp_prefix(enum sp_wire wire, const uint8_t *backtrace, size_t backtrace_bytes, uint64_t message_bytes,
                 uint8_t prefix[SP_PREFIX_BYTES_MAX])
{
	uint64_t length = backtrace_bytes + message_bytes;
	size_t used = 0;

	assert(backtrace_bytes <= SP_BACKTRACE_BYTES_MAX);
	if (wire == SP_WIRE_IPC)
		prefix[used++] = SP_IPC_TYPE;
	for (int i = SP_LENGTH_BYTES - 1; i >= 0; i--)
		prefix[used++] = (uint8_t)(length >> (8 * i));
	memcpy(prefix + used, backtrace, backtrace_bytes);
	return used + backtrace_bytes;
}

int sp_prefix_read(enum sp_wire wire, const uint8_t *prefix, uint64_t *ret_message_bytes, struct reason *reason)
{
	uint64_t bytes;

	if (wire == SP_WIRE_IPC && *prefix++ != SP_IPC_TYPE)
		return reason_set(reason, STATUS_EPROTOCOL, "the message has type %u, not %u", prefix[-1], SP_IPC_TYPE);
	bytes = big_endian(prefix, SP_LENGTH_BYTES);
	if (bytes < SP_ID_BYTES)
		return reason_set(reason, STATUS_EPROTOCOL, "the message of %" PRIu64 " bytes has no request id", bytes);
	*ret_message_bytes = bytes - SP_ID_BYTES;
	return 0;
}
