/*
 * Room for bodies. See transport_body.h.
 */
#include "daemon/edge/transport_body.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
	BODY_SMALL_BYTES = 256 * 1024, /* has room always, so that nobody waits behind the greedy */
	BODY_PAUSE_MS = 20,            /* between looks whether there is room for a body */
};

/* The answer to a peer whose body found no room in time; the connection ends with it. */
static void body_refuse(struct connection *connection)
{
	const struct transport *transport = connection->transport;
	struct exchange exchange = connection_exchange(connection);
	struct reply reply = { 0 };
	struct reason reason;

	reason_set(&reason, STATUS_EBUSY, "a message body of %" PRIu64 " bytes does not fit now: %" PRIu64 " of %" PRIu64
	           " bytes (receiving-max) are in use for other bodies; try again", connection->parser.body_bytes,
	           transport->body_bytes, transport->options.bodies_bytes_max);
	reply_set(&reply, status, STATUS_EBUSY);
	reply_set(&reply, error, text_of(reason.text));
	connection->ending = true;
	connection_reply(connection, &exchange, &reply, NULL, 0);
}

void body_begin(struct connection *connection)
{
	struct transport *transport = connection->transport;
	struct sp_parser *parser = &connection->parser;
	struct exchange exchange = connection_exchange(connection);
	bool is_small = parser->body_bytes <= BODY_SMALL_BYTES;
	uint64_t now_ms = nng_clock();
	uint8_t *place = transport->options.place(transport->options.context, &exchange, parser->header,
	                                          parser->header_bytes, parser->body_bytes);

	if (connection->closing)
		return;
	if (place) {
		connection->placed = true;
		sp_body_place(parser, place);
		return;
	}
	if (is_small || parser->body_bytes + transport->body_bytes <= transport->options.bodies_bytes_max)
		place = malloc(parser->body_bytes);
	if (place) {
		transport->body_bytes += is_small ? 0 : parser->body_bytes;
		sp_body_place(parser, place);
		connection->message_due_ms = 0; /* what was spent on waiting for room is not lost to the peer */
		return;
	}
	if (connection->message_due_ms == 0)
		connection->message_due_ms = now_ms + transport->options.message_timeout_ms;
	if (connection->message_due_ms <= now_ms)
		body_refuse(connection);
	else
		flow_rest(&connection->receiving, BODY_PAUSE_MS);
}

void body_free(struct connection *connection)
{
	struct sp_parser *parser = &connection->parser;

	if (!connection->placed) {
		if (parser->body && parser->body_bytes > BODY_SMALL_BYTES)
			connection->transport->body_bytes -= parser->body_bytes;
		free(parser->body);
	}
	connection->placed = false;
	parser->body = NULL;
}
