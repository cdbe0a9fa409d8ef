/*
 * SP over an NNG stream. See transport_connection.h.
 */
#include "daemon/edge/transport_connection.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/edge/transport_body.h"

enum {
	REPLY_HEADER_BYTES_MAX = 4096,
	REPLY_LARGE_BYTES = 64 * 1024,
};

static struct connection *connection_of(struct pending *pending, size_t offset)
{
	return (struct connection *)(void *)((uint8_t *)pending - offset);
}

bool connection_is_idle(const struct connection *connection)
{
	return !connection->receiving.pending.under_way && !connection->sending.pending.under_way;
}

void connection_free(struct connection *connection)
{
	struct transport *transport = connection->transport;

	if (!transport->stopping)
		transport->options.gone(transport->options.context, connection->id);
	transport->table[connection->id & 0xffff] = NULL;
	transport->connection_count--;
	replies_finish(&connection->replies);
	body_free(connection);
	flow_finish(&connection->receiving);
	flow_finish(&connection->sending);
	nng_stream_free(connection->stream);
	free(connection);
}

void connection_close(struct connection *connection)
{
	if (connection->closing)
		return;
	connection->closing = true;
	flow_close(&connection->receiving);
	flow_close(&connection->sending);
	nng_stream_close(connection->stream);
}

struct connection *connection_find(const struct transport *transport, uint64_t id)
{
	uint64_t index = id & 0xffff;
	struct connection *connection = index < transport->table_count ? transport->table[index] : NULL;

	return connection && connection->id == id && !connection->closing ? connection : NULL;
}

void connection_classify(struct connection *connection)
{
	const struct transport_options *options = &connection->transport->options;

	connection->peer.refused = options->classify(options->context, &connection->peer, connection->gid);
}

struct exchange connection_exchange(const struct connection *connection)
{
	const struct sp_parser *parser = &connection->parser;
	struct exchange exchange = { .peer = connection->peer, .tag_bytes = (uint32_t)parser->backtrace_bytes };

	memcpy(exchange.tag, parser->backtrace, parser->backtrace_bytes);
	return exchange;
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

static void send_next(struct connection *connection)
{
	uint8_t *bytes = connection->handshake;
	size_t byte_count = SP_HANDSHAKE_BYTES;

	if (connection->sending.pending.under_way || connection->closing)
		return;
	if (connection->handshake_sent && !replies_next(&connection->replies, &bytes, &byte_count))
		return;
	flow_begin(&connection->sending, (nng_iov){ bytes, byte_count }, (nng_iov){ 0 },
	           nng_clock() + connection->transport->options.message_timeout_ms, true);
}

void connection_reply(struct connection *connection, const struct exchange *exchange, const struct reply *reply,
                      const void *body, size_t body_bytes)
{
	const struct transport *transport = connection->transport;
	uint8_t header[REPLY_HEADER_BYTES_MAX], prefix[SP_PREFIX_BYTES_MAX], *bytes;
	size_t header_bytes, prefix_bytes;
	struct reply refusal = { 0 };

	if (body_bytes > REPLY_LARGE_BYTES && transport->reply_bytes + body_bytes > transport->options.replies_bytes_max) {
		reply_set(&refusal, status, STATUS_EBUSY);
		reply_set(&refusal, error, text_of("too many large replies wait for clients to read them: try again"));
		reply = &refusal;
		body_bytes = 0;
	}
	if (reply_encode(reply, header, sizeof header, &header_bytes, NULL) != 0) {
		connection_close(connection);
		return;
	}
	prefix_bytes = sp_prefix(connection->wire, exchange->tag, exchange->tag_bytes, header_bytes + body_bytes, prefix);
	bytes = replies_append(&connection->replies, prefix_bytes + header_bytes + body_bytes);
	if (!bytes) {
		connection_close(connection);
		return;
	}
	memcpy(bytes, prefix, prefix_bytes);
	memcpy(bytes + prefix_bytes, header, header_bytes);
	if (body_bytes > 0)
		memcpy(bytes + prefix_bytes + header_bytes, body, body_bytes);
	send_next(connection);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void receive_next(struct connection *connection)
{
	const struct transport_options *options = &connection->transport->options;
	uint64_t now_ms = nng_clock(), due_ms;
	uint8_t *bytes, *more;
	size_t capacity, more_capacity;

	if (sp_idle(&connection->parser))
		connection->message_due_ms = 0;
	else if (connection->message_due_ms == 0)
		connection->message_due_ms = now_ms + options->message_timeout_ms;
	due_ms = connection->message_due_ms;
	if (due_ms == 0 && connection->peer.remote)
		due_ms = now_ms + options->keepalive_ms;
	sp_window(&connection->parser, &bytes, &capacity);
	sp_window_more(&connection->parser, &more, &more_capacity);
	flow_begin(&connection->receiving, (nng_iov){ bytes, capacity }, (nng_iov){ more, more_capacity }, due_ms,
	           connection->parser.body != NULL);
}

static void hand_over(struct connection *connection)
{
	struct transport *transport = connection->transport;
	struct sp_parser *parser = &connection->parser;
	struct exchange exchange = connection_exchange(connection);

	transport->in_hand = connection;
	transport->options.request(transport->options.context, &exchange, parser->header, parser->header_bytes,
	                           parser->body, (size_t)parser->body_bytes);
	transport->in_hand = NULL;
	body_free(connection);
	sp_request_done(parser);
	connection->message_due_ms = 0;
}

/* Handles what has arrived, then asks for more. A peer that does not take its replies is not listened to. */
static void connection_advance(struct connection *connection)
{
	const struct transport_options *options = &connection->transport->options;

	while (!connection->closing && !connection->ending && !connection->receiving.pending.under_way) {
		if (connection->replies.bytes > options->reply_bytes_max) {
			connection->message_due_ms = 0;
			return;
		}
		switch (sp_next(&connection->parser, NULL)) {
		case SP_NEED_BYTES:
			receive_next(connection);
			break;
		case SP_NEED_BODY:
			body_begin(connection);
			break;
		case SP_REQUEST:
			hand_over(connection);
			break;
		case SP_VIOLATION:
			options->counters->violations++;
			connection_close(connection);
			break;
		}
	}
}

/* What a TLS handshake that failed may have failed of: NNG tells little, and most as the same code. */
static const char *secret_fault(const struct connection *connection, int code)
{
	if (code == NNG_ETIMEDOUT)
		return "handshake-timeout";
	if (code == NNG_EPEERAUTH)
		return "its certificate is missing, expired, or of another authority than tls-ca=";
	if (code == NNG_ECRYPTO && connection->asked)
		return "its certificate is expired, of another authority than tls-ca=, or not that of its key; or it gave up because of "
		       "our certificate, or does not speak TLS 1.2";
	if (code == NNG_ECRYPTO)
		return "it gave up because of our certificate, or does not speak TLS 1.2";
	return "it hung up in the middle, perhaps because of our certificate";
}

/* Why nobody could be spoken to, whether it showed when receiving or when sending. */
static void say_secret(const struct connection *connection, int code)
{
	const struct transport_options *options = &connection->transport->options;
	char text[320];

	if (!connection->secret || connection->closing || sp_greeted(&connection->parser))
		return;
	options->counters->violations++;
	snprintf(text, sizeof text, "a TLS connection from %s came to nothing: %s (%s)", connection->origin, nng_strerror(code),
	         secret_fault(connection, code));
	options->say(options->context, text);
}

/* ---- when something has ended ------------------------------------------------------------------------------------ */

static void received_handle(struct connection *connection)
{
	int code = flow_result(&connection->receiving), error = pending_error(code);

	if (connection->receiving.rests) {
		connection_advance(connection);
		return;
	}
	/* A remote peer that rests for long is no violation, it may come back. */
	if (error == STATUS_ETIMEOUT && !sp_idle(&connection->parser))
		connection->transport->options.counters->violations++;
	if (error) {
		say_secret(connection, code);
		connection_close(connection);
		return;
	}
	sp_received(&connection->parser, connection->receiving.done_bytes);
	connection_advance(connection);
}

static void sent_handle(struct connection *connection)
{
	int code = flow_result(&connection->sending), error = pending_error(code);

	if (error) {
		if (error == STATUS_ETIMEOUT && !connection->closing && sp_greeted(&connection->parser))
			connection->transport->options.counters->violations++;
		say_secret(connection, code);
		connection_close(connection);
		return;
	}
	if (connection->handshake_sent)
		replies_sent(&connection->replies, connection->sending.done_bytes);
	connection->handshake_sent = true;
	send_next(connection);
	if (connection->ending && !connection->sending.pending.under_way)
		connection_close(connection);
	else
		connection_advance(connection);
}

static void on_received(struct pending *pending)
{
	struct connection *connection = connection_of(pending, offsetof(struct connection, receiving.pending));

	received_handle(connection);
	if (connection->closing && connection_is_idle(connection))
		connection_free(connection);
}

static void on_sent(struct pending *pending)
{
	struct connection *connection = connection_of(pending, offsetof(struct connection, sending.pending));

	sent_handle(connection);
	if (connection->closing && connection_is_idle(connection))
		connection_free(connection);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

static struct connection *connection_make(struct transport *transport, nng_stream *stream)
{
	struct connection *connection = calloc(1, sizeof *connection);
	uint32_t index = 0;

	if (!connection)
		return NULL;
	if (flow_init(&connection->receiving, &transport->ended, stream, false) != 0 ||
	    flow_init(&connection->sending, &transport->ended, stream, true) != 0) {
		flow_finish(&connection->receiving);
		free(connection);
		return NULL;
	}
	connection->receiving.pending.ended = on_received;
	connection->sending.pending.ended = on_sent;
	while (transport->table[index])
		index++;
	transport->table[index] = connection;
	transport->connection_count++;
	connection->transport = transport;
	connection->id = ++transport->generation << 16 | index;
	connection->stream = stream;
	replies_init(&connection->replies, &transport->reply_bytes);
	return connection;
}

static void origin_set(struct connection *connection)
{
	char number[INET6_ADDRSTRLEN] = "an unknown address";
	nng_sockaddr address;
	uint16_t port = 0;

	if (nng_stream_get_addr(connection->stream, NNG_OPT_REMADDR, &address) != 0)
		address.s_family = NNG_AF_UNSPEC;
	if (address.s_family == NNG_AF_INET) {
		(void)inet_ntop(AF_INET, &address.s_in.sa_addr, number, sizeof number);
		port = address.s_in.sa_port;
	} else if (address.s_family == NNG_AF_INET6) {
		(void)inet_ntop(AF_INET6, &address.s_in6.sa_addr, number, sizeof number);
		port = address.s_in6.sa_port;
	}
	snprintf(connection->origin, sizeof connection->origin, strchr(number, ':') ? "[%s]:%d" : "%s:%d", number, ntohs(port));
}

/* What can be known of who is there. */
static void peer_find(struct connection *connection, const struct listener *listener)
{
	nng_stream *stream = connection->stream;
	uint64_t number;

	connection->peer = (struct peer){
		.id = connection->id, .remote = listener->wire == SP_WIRE_TCP, .uid = -1, .pid = -1,
	};
	connection->gid = -1;
	connection->secret = listener->tls;
	connection->asked = listener->asks;
	if (connection->secret)
		origin_set(connection);
	if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_UID, &number) == 0)
		connection->peer.uid = (int64_t)number;
	if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_PID, &number) == 0)
		connection->peer.pid = (int64_t)number;
	if (nng_stream_get_uint64(stream, NNG_OPT_IPC_PEER_GID, &number) == 0)
		connection->gid = (int64_t)number;
}

void connection_begin(struct transport *transport, nng_stream *stream, const struct listener *listener)
{
	struct connection *connection;

	if (transport->stopping || transport->connection_count >= transport->options.connection_count_max ||
	    !(connection = connection_make(transport, stream))) {
		transport->options.counters->connections_refused++;
		nng_stream_close(stream);
		nng_stream_free(stream);
		return;
	}
	transport->options.counters->connections_accepted++;
	connection->wire = listener->wire;
	sp_handshake(SP_ROLE_REP, connection->handshake);
	sp_parser_init(&connection->parser, listener->wire, transport->options.body_bytes_max);
	peer_find(connection, listener);
	connection_classify(connection);
	connection->message_due_ms = nng_clock() + transport->options.handshake_timeout_ms;
	send_next(connection);
	connection_advance(connection);
}
