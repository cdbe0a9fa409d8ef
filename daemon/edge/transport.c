/*
 * SP over NNG streams. See transport.h.
 */
#include "daemon/edge/transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/sp.h"

enum {
	LISTENER_COUNT_MAX = 8,
	REPLY_HEADER_BYTES_MAX = 4096,
	REPLY_SPARE_BYTES = 1024,         /* a reply's buffer that is kept for the next one */
	REPLY_LARGE_BYTES = 64 * 1024,
	BODY_SMALL_BYTES = 256 * 1024,    /* has room always, so that nobody waits behind the greedy */
	BODY_PAUSE_MS = 20,               /* between looks whether there is room for a body */
	ACCEPT_PAUSE_MS = 100,            /* after a failed accept, for want of file descriptors perhaps */
	ORIGIN_BYTES = 56,                /* [IPv6]:port */
};

/* A reply on its way. */
struct outgoing {
	struct outgoing *next;
	size_t capacity, bytes, sent;
	uint8_t data[];
};

/* Something with asynchronous operations; NNG's threads put it into the transport's ready list. */
struct source {
	struct source *ready_next; /* guarded by the transport's lock */
	bool ready;                /* guarded by the transport's lock */
	bool receive_ended, send_ended; /* guarded by the transport's lock */
	struct transport *transport;
	struct connection *connection; /* NULL: a listener */
	struct listener *listener;
};

struct connection {
	struct source source;
	uint64_t id; /* generation << 16 | index in the table */
	enum sp_wire wire;
	nng_stream *stream;
	nng_aio *receive_aio, *send_aio;
	bool receiving, sending;
	bool closing; /* written with the transport's lock, by the loop thread */
	/*
	 * What is still to come or to go of the operation under way, and the bytes done so far: of NNG's threads while it is
	 * under way, of the loop thread otherwise.
	 */
	nng_iov receive_rest, send_rest;
	size_t received_bytes, sent_bytes;
	uint64_t receive_due_ms, send_due_ms; /* 0: whenever */
	bool receives_whole; /* the rest is a body's: the loop need not see each part of it */
	bool secret;  /* TLS */
	bool asked;   /* for a certificate */
	bool placed;  /* the body lies where the core wants it, in memory that is not ours */
	bool pausing; /* what is under way is not receiving but waiting for room for a body */
	bool ending; /* nothing more is read; closed when the replies are sent */
	char origin[ORIGIN_BYTES]; /* the address of a peer that speaks TLS, for people */
	bool handshake_sent;
	uint64_t message_due_ms; /* deadline of the message being received; 0: none has begun */
	struct peer peer;
	int64_t gid; /* of the peer; -1: not known */
	struct outgoing *queue, **queue_end; /* owned */
	struct outgoing *spare; /* owned; so that replies in step with requests allocate nothing */
	size_t queued_bytes;
	uint8_t handshake[SP_HANDSHAKE_BYTES];
	struct sp_parser parser;
};

struct listener {
	struct source source;
	nng_stream_listener *stream;
	nng_aio *accept_aio;
	enum sp_wire wire;
	bool pausing; /* the operation under way is a pause, not an accept */
	bool renewing; /* it is made anew as soon as the operation has ended */
	nng_tls_config *tls; /* owned; of tls+tcp, else NULL */
	bool asks;           /* for clients' certificates */
	char url[256];
};

struct transport {
	struct transport_options options;
	pthread_mutex_t lock;
	struct source *ready; /* guarded by lock */
	struct connection **table; /* owned; by index; NULL entries are free */
	uint32_t table_count;      /* at least as many as may be connected */
	uint64_t generation;
	uint32_t connection_count;
	uint64_t body_bytes;   /* being received, in large bodies */
	uint64_t queued_bytes; /* of replies, unsent */
	uint32_t listener_count;
	struct listener listeners[LISTENER_COUNT_MAX];
	const struct connection *in_hand; /* whose request is being handled; NULL: nobody's */
	bool stopping; /* written with lock, by the loop thread */
};

/* The one place where NNG's codes become ours. */
static int error_from_nng(int code)
{
	switch (code) {
	case 0:
		return 0;
	case NNG_ENOMEM:
		return -ENOMEM;
	case NNG_EADDRINUSE:
		return -EADDRINUSE;
	case NNG_EPERM:
		return -EACCES;
	case NNG_EADDRINVAL:
	case NNG_EINVAL:
		return -EINVAL;
	case NNG_ENOTSUP:
		return -EPROTONOSUPPORT;
	case NNG_ETIMEDOUT:
		return STATUS_ETIMEOUT;
	case NNG_ECLOSED:
	case NNG_ECONNSHUT:
	case NNG_ECONNRESET:
		return -ECONNRESET;
	default:
		return code & NNG_ESYSERR ? -(code & ~NNG_ESYSERR) : -EIO;
	}
}

/* ---- NNG's threads ----------------------------------------------------------------------------------------------- */

static void source_ready(struct source *source, bool *ended)
{
	struct transport *transport = source->transport;
	bool wakes;

	pthread_mutex_lock(&transport->lock);
	*ended = true;
	if (!source->ready) {
		source->ready = true;
		source->ready_next = transport->ready;
		transport->ready = source;
	}
	/* A stopping transport polls by itself, and who would be woken may soon be gone. */
	wakes = !transport->stopping;
	pthread_mutex_unlock(&transport->lock);
	if (wakes)
		transport->options.wake(transport->options.context);
}

/* Begins the operation for what is left, within what is left of its time. */
static void rest_begin(nng_aio *aio, nng_iov *rest, uint64_t due_ms)
{
	uint64_t now_ms = nng_clock();

	if (due_ms == 0)
		nng_aio_set_timeout(aio, NNG_DURATION_INFINITE);
	else
		nng_aio_set_timeout(aio, due_ms > now_ms ? (nng_duration)(due_ms - now_ms) : 1);
	(void)nng_aio_set_iov(aio, 1, rest);
}

/*
 * NNG's code for an operation on a stream. Once an aio has slept NNG 1.5 takes the end of its time for a success, as for a
 * sleep: nothing was moved then, which does not happen otherwise.
 */
static int rest_result(nng_aio *aio)
{
	int code = nng_aio_result(aio);

	return code == 0 && nng_aio_count(aio) == 0 ? NNG_ETIMEDOUT : code;
}

/* Counts what an operation has done. True when there is more to do and nothing in the way. */
static bool rest_advance(nng_aio *aio, nng_iov *rest, size_t *done_bytes)
{
	size_t count;

	if (rest_result(aio) != 0)
		return false;
	count = nng_aio_count(aio);
	*done_bytes += count;
	rest->iov_buf = (uint8_t *)rest->iov_buf + count;
	rest->iov_len -= count;
	return rest->iov_len > 0;
}

/*
 * Goes on, unless the connection is being closed: an operation that begins on a closed stream may never end. Hence the
 * lock, with which that is decided.
 */
static bool rest_resume(struct connection *connection, bool sends)
{
	struct transport *transport = connection->source.transport;
	bool resumes;

	pthread_mutex_lock(&transport->lock);
	resumes = !connection->closing;
	if (resumes && sends) {
		rest_begin(connection->send_aio, &connection->send_rest, connection->send_due_ms);
		nng_stream_send(connection->stream, connection->send_aio);
	} else if (resumes) {
		rest_begin(connection->receive_aio, &connection->receive_rest, connection->receive_due_ms);
		nng_stream_recv(connection->stream, connection->receive_aio);
	}
	pthread_mutex_unlock(&transport->lock);
	return resumes;
}

/* Of a listener's operation. */
static void waiting_ended(void *context)
{
	struct source *source = context;

	source_ready(source, &source->receive_ended);
}

/* A body comes in many parts: the loop is woken for the last. */
static void receive_ended(void *context)
{
	struct source *source = context;
	struct connection *connection = source->connection;

	if (!connection->pausing &&
	    rest_advance(connection->receive_aio, &connection->receive_rest, &connection->received_bytes) &&
	    connection->receives_whole && rest_resume(connection, false))
		return;
	source_ready(source, &source->receive_ended);
}

/* So does a reply. */
static void send_ended(void *context)
{
	struct source *source = context;
	struct connection *connection = source->connection;

	if (rest_advance(connection->send_aio, &connection->send_rest, &connection->sent_bytes) &&
	    rest_resume(connection, true))
		return;
	source_ready(source, &source->send_ended);
}

/* ---- connections, loop thread ------------------------------------------------------------------------------------ */

static void body_free(struct connection *connection)
{
	struct sp_parser *parser = &connection->parser;

	if (!connection->placed) {
		if (parser->body && parser->body_bytes > BODY_SMALL_BYTES)
			connection->source.transport->body_bytes -= parser->body_bytes;
		free(parser->body);
	}
	connection->placed = false;
	parser->body = NULL;
}

static void connection_free(struct connection *connection)
{
	struct transport *transport = connection->source.transport;

	if (!transport->stopping)
		transport->options.gone(transport->options.context, connection->id);
	transport->table[connection->id & 0xffff] = NULL;
	transport->connection_count--;
	transport->queued_bytes -= connection->queued_bytes;
	while (connection->queue) {
		struct outgoing *next = connection->queue->next;

		free(connection->queue);
		connection->queue = next;
	}
	free(connection->spare);
	body_free(connection);
	nng_aio_free(connection->receive_aio);
	nng_aio_free(connection->send_aio);
	nng_stream_free(connection->stream);
	free(connection);
}

/*
 * Ends a connection. It is freed when its operations have ended, in transport_poll; only then is it reported as gone,
 * because this may be called in the middle of a reply.
 */
static void connection_close(struct connection *connection)
{
	struct transport *transport = connection->source.transport;

	if (connection->closing)
		return;
	pthread_mutex_lock(&transport->lock);
	connection->closing = true;
	pthread_mutex_unlock(&transport->lock);
	nng_stream_close(connection->stream);
}

static void send_next(struct connection *connection)
{
	nng_iov part;

	if (connection->sending || connection->closing)
		return;
	if (!connection->handshake_sent) {
		part = (nng_iov){ connection->handshake, SP_HANDSHAKE_BYTES };
	} else if (connection->queue) {
		part = (nng_iov){ connection->queue->data + connection->queue->sent,
			          connection->queue->bytes - connection->queue->sent };
	} else {
		return;
	}
	connection->sending = true;
	connection->send_rest = part;
	connection->sent_bytes = 0;
	connection->send_due_ms = nng_clock() + connection->source.transport->options.message_timeout_ms;
	rest_begin(connection->send_aio, &connection->send_rest, connection->send_due_ms);
	nng_stream_send(connection->stream, connection->send_aio);
}

static void receive_next(struct connection *connection)
{
	struct transport *transport = connection->source.transport;
	uint64_t now_ms = nng_clock();
	uint8_t *bytes;
	size_t capacity;

	if (connection->receiving || connection->closing || connection->ending)
		return;
	if (sp_idle(&connection->parser))
		connection->message_due_ms = 0;
	else if (connection->message_due_ms == 0)
		connection->message_due_ms = now_ms + transport->options.message_timeout_ms;
	connection->receive_due_ms = connection->message_due_ms;
	if (connection->message_due_ms == 0 && connection->peer.remote)
		connection->receive_due_ms = now_ms + transport->options.keepalive_ms;
	sp_window(&connection->parser, &bytes, &capacity);
	connection->receive_rest = (nng_iov){ bytes, capacity };
	connection->received_bytes = 0;
	connection->receives_whole = connection->parser.body != NULL;
	connection->receiving = true;
	rest_begin(connection->receive_aio, &connection->receive_rest, connection->receive_due_ms);
	nng_stream_recv(connection->stream, connection->receive_aio);
}

static struct exchange exchange_of(const struct connection *connection)
{
	const struct sp_parser *parser = &connection->parser;
	struct exchange exchange = { .peer = connection->peer, .tag_bytes = (uint32_t)parser->backtrace_bytes };

	memcpy(exchange.tag, parser->backtrace, parser->backtrace_bytes);
	return exchange;
}

static void hand_over(struct connection *connection)
{
	struct transport *transport = connection->source.transport;
	struct sp_parser *parser = &connection->parser;
	struct exchange exchange = exchange_of(connection);

	transport->in_hand = connection;
	transport->options.request(transport->options.context, &exchange, parser->header, parser->header_bytes,
	                           parser->body, (size_t)parser->body_bytes);
	transport->in_hand = NULL;
	body_free(connection);
	sp_request_done(parser);
	connection->message_due_ms = 0;
}

/* The answer to a peer whose body found no room in time; the connection ends with it. */
static void body_refuse(struct connection *connection)
{
	struct transport *transport = connection->source.transport;
	struct exchange exchange = exchange_of(connection);
	struct reply reply = { 0 };
	struct reason reason;

	reason_set(&reason, STATUS_EBUSY, "a message body of %" PRIu64 " bytes does not fit now: %" PRIu64 " of %" PRIu64
	           " bytes (receiving-max) are in use for other bodies; try again", connection->parser.body_bytes,
	           transport->body_bytes, transport->options.bodies_bytes_max);
	reply_set(&reply, status, STATUS_EBUSY);
	reply_set(&reply, error, text_of(reason.text));
	connection->ending = true;
	transport_reply(transport, &exchange, &reply, NULL, 0);
}

/* Makes room for a body, or waits for it: large ones take turns. */
static void body_begin(struct connection *connection)
{
	struct transport *transport = connection->source.transport;
	struct sp_parser *parser = &connection->parser;
	struct exchange exchange = exchange_of(connection);
	bool is_small = parser->body_bytes <= BODY_SMALL_BYTES;
	uint64_t now_ms = nng_clock();
	uint8_t *place = transport->options.place(transport->options.context, &exchange, parser->header,
	                                          parser->header_bytes, parser->body_bytes);

	if (place && !connection->closing) {
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
	if (connection->message_due_ms <= now_ms) {
		body_refuse(connection);
		return;
	}
	connection->pausing = true;
	connection->receiving = true;
	connection->receives_whole = false;
	nng_sleep_aio(BODY_PAUSE_MS, connection->receive_aio);
}

/* Handles what has arrived, then asks for more. A peer that does not take its replies is not listened to. */
static void connection_advance(struct connection *connection)
{
	struct transport *transport = connection->source.transport;

	while (!connection->closing && !connection->ending && !connection->receiving) {
		if (connection->queued_bytes > transport->options.reply_bytes_max) {
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
			transport->options.counters->violations++;
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
	const struct transport_options *options = &connection->source.transport->options;
	char text[320];

	if (!connection->secret || connection->closing || sp_greeted(&connection->parser))
		return;
	options->counters->violations++;
	snprintf(text, sizeof text, "a TLS connection from %s came to nothing: %s (%s)", connection->origin, nng_strerror(code),
	         secret_fault(connection, code));
	options->say(options->context, text);
}

static void on_received(struct connection *connection)
{
	int code = rest_result(connection->receive_aio), error = error_from_nng(code);

	connection->receiving = false;
	if (connection->pausing) {
		connection->pausing = false;
		connection_advance(connection);
		return;
	}
	/* A remote peer that rests for long is no violation, it may come back. */
	if (error == STATUS_ETIMEOUT && !sp_idle(&connection->parser))
		connection->source.transport->options.counters->violations++;
	if (error) {
		say_secret(connection, code);
		connection_close(connection);
		return;
	}
	sp_received(&connection->parser, connection->received_bytes);
	connection_advance(connection);
}

/* The first reply of the queue has been sent. */
static void outgoing_done(struct connection *connection)
{
	struct outgoing *outgoing = connection->queue;

	connection->queued_bytes -= outgoing->bytes;
	connection->source.transport->queued_bytes -= outgoing->bytes;
	connection->queue = outgoing->next;
	if (!connection->queue)
		connection->queue_end = &connection->queue;
	if (!connection->spare && outgoing->capacity == REPLY_SPARE_BYTES)
		connection->spare = outgoing;
	else
		free(outgoing);
}

/* A buffer for a reply, or NULL. */
static struct outgoing *outgoing_make(struct connection *connection, size_t bytes)
{
	struct outgoing *outgoing = connection->spare;
	size_t capacity = bytes > REPLY_SPARE_BYTES ? bytes : REPLY_SPARE_BYTES;

	if (outgoing && bytes <= outgoing->capacity)
		connection->spare = NULL;
	else
		outgoing = malloc(sizeof *outgoing + capacity);
	if (outgoing)
		*outgoing = (struct outgoing){ .capacity = capacity, .bytes = bytes };
	return outgoing;
}

static void on_sent(struct connection *connection)
{
	int code = rest_result(connection->send_aio), error = error_from_nng(code);

	connection->sending = false;
	if (error) {
		if (error == STATUS_ETIMEOUT && !connection->closing && sp_greeted(&connection->parser))
			connection->source.transport->options.counters->violations++;
		say_secret(connection, code);
		connection_close(connection);
		return;
	}
	if (!connection->handshake_sent) {
		connection->handshake_sent = true;
	} else {
		connection->queue->sent += connection->sent_bytes;
		if (connection->queue->sent == connection->queue->bytes)
			outgoing_done(connection);
	}
	send_next(connection);
	if (connection->ending && !connection->sending)
		connection_close(connection);
	else
		connection_advance(connection);
}

static struct connection *connection_find(const struct transport *transport, uint64_t id)
{
	uint64_t index = id & 0xffff;
	struct connection *connection = index < transport->table_count ? transport->table[index] : NULL;

	return connection && connection->id == id && !connection->closing ? connection : NULL;
}

void transport_reply(struct transport *transport, const struct exchange *exchange, const struct reply *reply,
                     const void *body, size_t body_bytes)
{
	struct connection *connection = connection_find(transport, exchange->peer.id);
	uint8_t header[REPLY_HEADER_BYTES_MAX];
	struct outgoing *outgoing;
	size_t header_bytes, prefix_bytes;
	uint8_t prefix[SP_PREFIX_BYTES_MAX];
	struct reply refusal = { 0 };

	if (!connection)
		return;
	if (body_bytes > REPLY_LARGE_BYTES && transport->queued_bytes + body_bytes > transport->options.replies_bytes_max) {
		reply_set(&refusal, status, STATUS_EBUSY);
		reply_set(&refusal, error, text_of("too many large replies wait for clients to read them: try again"));
		reply = &refusal;
		body_bytes = 0;
	}
	if (reply_encode(reply, header, sizeof header, &header_bytes, NULL) != 0) {
		connection_close(connection);
		return;
	}
	prefix_bytes = sp_prefix(connection->wire, exchange->tag, exchange->tag_bytes, header_bytes + body_bytes,
	                               prefix);
	outgoing = outgoing_make(connection, prefix_bytes + header_bytes + body_bytes);
	if (!outgoing) {
		connection_close(connection);
		return;
	}
	memcpy(outgoing->data, prefix, prefix_bytes);
	memcpy(outgoing->data + prefix_bytes, header, header_bytes);
	if (body_bytes > 0)
		memcpy(outgoing->data + prefix_bytes + header_bytes, body, body_bytes);
	*connection->queue_end = outgoing;
	connection->queue_end = &outgoing->next;
	connection->queued_bytes += outgoing->bytes;
	transport->queued_bytes += outgoing->bytes;
	send_next(connection);
}

/* ---- listeners --------------------------------------------------------------------------------------------------- */

static int listener_open(struct listener *listener, uint32_t socket_mode)
{
	bool is_ipc = listener->wire == SP_WIRE_IPC;
	nng_stream_listener *stream;
	int code = nng_stream_listener_alloc(&stream, listener->url);

	if (code)
		return code;
	if (is_ipc)
		code = nng_stream_listener_set_int(stream, NNG_OPT_IPC_PERMISSIONS, (int)socket_mode);
	/* Small answers must not wait for each other. */
	if (!code && !is_ipc)
		code = nng_stream_listener_set_bool(stream, NNG_OPT_TCP_NODELAY, true);
	if (!code && !is_ipc)
		code = nng_stream_listener_set_bool(stream, NNG_OPT_TCP_KEEPALIVE, true);
	if (!code && listener->tls)
		code = nng_stream_listener_set_ptr(stream, NNG_OPT_TLS_CONFIG, listener->tls);
	if (!code)
		code = nng_stream_listener_listen(stream);
	if (code) {
		nng_stream_listener_free(stream);
		return code;
	}
	listener->stream = stream;
	return 0;
}

static int tls_make(const struct transport_tls *tls, nng_tls_config **ret_config, struct reason *reason)
{
	const char *what = "not enough memory for TLS";
	nng_tls_config *config;
	int code = nng_tls_config_alloc(&config, NNG_TLS_MODE_SERVER);

	if (code)
		return reason_set(reason, error_from_nng(code), "TLS cannot be used: %s", nng_strerror(code));
	code = nng_tls_config_own_cert(config, tls->certificate, tls->key, NULL);
	if (code)
		what = "tls-certificate= and tls-key= cannot be used together";
	if (!code && tls->authority) {
		what = "tls-ca= cannot be used";
		code = nng_tls_config_ca_chain(config, tls->authority, NULL);
	}
	if (!code)
		code = nng_tls_config_auth_mode(config, tls->authority ? NNG_TLS_AUTH_MODE_REQUIRED : NNG_TLS_AUTH_MODE_NONE);
	if (code) {
		nng_tls_config_free(config);
		return reason_set(reason, code == NNG_ENOMEM ? -ENOMEM : STATUS_EARGUMENT, "%s: %s", what, nng_strerror(code));
	}
	*ret_config = config;
	return 0;
}

static void accept_next(struct listener *listener)
{
	listener->pausing = false;
	nng_stream_listener_accept(listener->stream, listener->accept_aio);
}

static struct connection *connection_make(struct transport *transport, nng_stream *stream, enum sp_wire wire)
{
	struct connection *connection = calloc(1, sizeof *connection);
	uint32_t index = 0;

	if (!connection)
		return NULL;
	connection->source.transport = transport;
	connection->source.connection = connection;
	if (nng_aio_alloc(&connection->receive_aio, receive_ended, &connection->source) != 0 ||
	    nng_aio_alloc(&connection->send_aio, send_ended, &connection->source) != 0) {
		nng_aio_free(connection->receive_aio);
		free(connection);
		return NULL;
	}
	while (transport->table[index])
		index++;
	transport->table[index] = connection;
	transport->connection_count++;
	connection->id = ++transport->generation << 16 | index;
	connection->stream = stream;
	connection->wire = wire;
	connection->queue_end = &connection->queue;
	sp_handshake(SP_ROLE_REP, connection->handshake);
	sp_parser_init(&connection->parser, wire, transport->options.body_bytes_max);
	return connection;
}

static void connection_classify(struct connection *connection)
{
	const struct transport_options *options = &connection->source.transport->options;

	connection->peer.refused = options->classify(options->context, &connection->peer, connection->gid);
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

static void connection_begin(struct transport *transport, nng_stream *stream, const struct listener *listener)
{
	struct connection *connection;
	enum sp_wire wire = listener->wire;
	uint64_t number;

	if (transport->stopping || transport->connection_count >= transport->options.connection_count_max ||
	    !(connection = connection_make(transport, stream, wire))) {
		transport->options.counters->connections_refused++;
		nng_stream_close(stream);
		nng_stream_free(stream);
		return;
	}
	transport->options.counters->connections_accepted++;
	connection->peer = (struct peer){ .id = connection->id, .remote = wire == SP_WIRE_TCP, .uid = -1, .pid = -1 };
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
	connection_classify(connection);
	connection->message_due_ms = nng_clock() + transport->options.handshake_timeout_ms;
	send_next(connection);
	connection_advance(connection);
}

static void listener_pause(struct listener *listener)
{
	listener->pausing = true;
	nng_sleep_aio(ACCEPT_PAUSE_MS, listener->accept_aio);
}

/* Its certificates are others. False when it could not be made anew yet. */
static bool listener_renew(struct listener *listener)
{
	struct transport *transport = listener->source.transport;
	char text[400];
	int code;

	if (listener->stream) {
		nng_stream_listener_close(listener->stream);
		nng_stream_listener_free(listener->stream);
		listener->stream = NULL;
	}
	code = listener_open(listener, transport->options.socket_mode);
	if (code) {
		snprintf(text, sizeof text, "cannot listen at %s: %s; trying again", listener->url, nng_strerror(code));
		transport->options.say(transport->options.context, text);
		return false;
	}
	listener->renewing = false;
	return true;
}

static void on_accepted(struct listener *listener)
{
	struct transport *transport = listener->source.transport;
	int error = error_from_nng(nng_aio_result(listener->accept_aio));

	if (transport->stopping)
		return;
	if (!listener->pausing && !error)
		connection_begin(transport, nng_aio_get_output(listener->accept_aio, 0), listener);
	if (listener->renewing && !listener_renew(listener)) {
		listener_pause(listener);
		return;
	}
	if (!listener->pausing && error && error != -ECONNRESET) {
		listener_pause(listener);
		return;
	}
	accept_next(listener);
}

int transport_listen(struct transport *transport, const char *url, const struct transport_tls *tls,
                     struct reason *reason)
{
	struct listener *listener = &transport->listeners[transport->listener_count];
	bool is_ipc = strncmp(url, "ipc://", 6) == 0;
	int code, error = 0;

	if (transport->listener_count == LISTENER_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "'%s' is one listener more than the limit of %d", url,
		                  LISTENER_COUNT_MAX);
	*listener = (struct listener){ .wire = is_ipc ? SP_WIRE_IPC : SP_WIRE_TCP };
	listener->source.transport = transport;
	listener->source.listener = listener;
	snprintf(listener->url, sizeof listener->url, "%s", url);
	if (strncmp(url, "tls+tcp://", 10) == 0)
		error = tls_make(tls, &listener->tls, reason);
	if (error)
		return error;
	listener->asks = listener->tls && tls->authority;
	code = listener_open(listener, transport->options.socket_mode);
	if (!code)
		code = nng_aio_alloc(&listener->accept_aio, waiting_ended, &listener->source);
	if (code) {
		if (listener->stream)
			nng_stream_listener_free(listener->stream);
		if (listener->tls)
			nng_tls_config_free(listener->tls);
		return reason_set(reason, error_from_nng(code), "cannot listen at %s: %s%s", url, nng_strerror(code),
		                  code == NNG_EADDRINUSE    ? " (another program does, or another emad)"
		                  : code == NNG_EADDRINVAL ? " (this host has no such address, or the name has none)"
		                                           : "");
	}
	transport->listener_count++;
	accept_next(listener);
	return 0;
}

int transport_secure(struct transport *transport, const struct transport_tls *tls, struct reason *reason)
{
	for (uint32_t i = 0; i < transport->listener_count; i++) {
		struct listener *listener = &transport->listeners[i];
		nng_tls_config *config;
		int error;

		if (!listener->tls)
			continue;
		error = tls_make(tls, &config, reason);
		if (error)
			return error;
		nng_tls_config_free(listener->tls);
		listener->tls = config;
		listener->asks = tls->authority;
		/* A listener takes none while it listens: it is made anew when what it does has come to an end. */
		listener->renewing = true;
		if (listener->stream)
			nng_stream_listener_close(listener->stream);
		nng_aio_abort(listener->accept_aio, NNG_ECANCELED);
	}
	return 0;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* As in NNG 1.5: the queue of tasks, the timers of operations, the resolver, and one each of three others. */
uint32_t transport_thread_count(void)
{
	enum { TASK_MAX = 16, RESOLVER = 4, OTHERS = 3 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t cpu_count = cpus > 0 ? (uint32_t)cpus : 1;

	return (cpu_count > TASK_MAX / 2 ? TASK_MAX : 2 * cpu_count) + cpu_count + RESOLVER + OTHERS;
}

int transport_start(const struct transport_options *options, struct transport **ret_transport)
{
	struct transport *transport = calloc(1, sizeof *transport);
	sigset_t all, before;
	nng_aio *first;
	int code;

	if (!transport)
		return -ENOMEM;
	transport->table = calloc(options->connection_count_max, sizeof transport->table[0]);
	if (!transport->table) {
		free(transport);
		return -ENOMEM;
	}
	transport->options = *options;
	transport->table_count = options->connection_count_max;
	pthread_mutex_init(&transport->lock, NULL);
	/* The first use of NNG starts its threads; signals are for the loop, but for that which ends a start that hangs. */
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	code = nng_aio_alloc(&first, NULL, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code) {
		transport_stop(transport, 0);
		return error_from_nng(code);
	}
	nng_aio_free(first);
	*ret_transport = transport;
	return 0;
}

int transport_reconfigure(struct transport *transport, const struct transport_options *options)
{
	struct transport_options *ours = &transport->options;
	uint32_t count = options->connection_count_max;

	if (count > transport->table_count) {
		struct connection **table = realloc(transport->table, count * sizeof *table);

		if (!table)
			return -ENOMEM;
		memset(table + transport->table_count, 0, (count - transport->table_count) * sizeof *table);
		transport->table = table;
		transport->table_count = count;
	}
	/* One by one: NNG's threads read `wake` and `context` meanwhile. */
	ours->connection_count_max = count;
	ours->handshake_timeout_ms = options->handshake_timeout_ms;
	ours->message_timeout_ms = options->message_timeout_ms;
	ours->keepalive_ms = options->keepalive_ms;
	ours->body_bytes_max = options->body_bytes_max;
	ours->bodies_bytes_max = options->bodies_bytes_max;
	ours->reply_bytes_max = options->reply_bytes_max;
	ours->replies_bytes_max = options->replies_bytes_max;
	for (uint32_t i = 0; i < transport->table_count; i++)
		if (transport->table[i])
			connection_classify(transport->table[i]);
	return 0;
}

static struct source *ready_take(struct transport *transport, bool *ret_receive, bool *ret_send)
{
	struct source *source;

	pthread_mutex_lock(&transport->lock);
	source = transport->ready;
	if (source) {
		transport->ready = source->ready_next;
		source->ready = false;
		*ret_receive = source->receive_ended;
		*ret_send = source->send_ended;
		source->receive_ended = false;
		source->send_ended = false;
	}
	pthread_mutex_unlock(&transport->lock);
	return source;
}

void transport_poll(struct transport *transport)
{
	struct source *source;
	bool received, sent;

	while ((source = ready_take(transport, &received, &sent))) {
		struct connection *connection = source->connection;

		if (!connection) {
			on_accepted(source->listener);
			continue;
		}
		if (received)
			on_received(connection);
		if (sent)
			on_sent(connection);
		if (connection->closing && !connection->receiving && !connection->sending)
			connection_free(connection);
	}
}

void transport_identify(struct transport *transport, uint64_t peer, const char *name)
{
	struct connection *connection = connection_find(transport, peer);

	if (!connection)
		return;
	snprintf(connection->peer.name, sizeof connection->peer.name, "%s", name);
	connection_classify(connection);
}

void transport_withdraw(struct transport *transport, const uint8_t *base, uint64_t bytes)
{
	for (uint32_t i = 0; i < transport->table_count; i++) {
		struct connection *connection = transport->table[i];
		const uint8_t *body = connection ? connection->parser.body : NULL;

		if (!body || !connection->placed || body < base || body >= base + bytes || connection == transport->in_hand)
			continue;
		connection_close(connection);
		if (!connection->receiving)
			continue;
		nng_aio_abort(connection->receive_aio, NNG_ECANCELED);
		nng_aio_wait(connection->receive_aio);
	}
}

static bool has_unsent(const struct transport *transport)
{
	for (uint32_t i = 0; i < transport->table_count; i++)
		if (transport->table[i] && transport->table[i]->queue && !transport->table[i]->closing)
			return true;
	return false;
}

void transport_stop(struct transport *transport, uint32_t deadline_ms)
{
	uint64_t due_ms;

	/* NNG may have no threads then, and not so much as its clock may be asked. */
	if (!transport)
		return;
	due_ms = nng_clock() + deadline_ms;
	pthread_mutex_lock(&transport->lock);
	transport->stopping = true;
	pthread_mutex_unlock(&transport->lock);
	for (uint32_t i = 0; i < transport->listener_count; i++)
		if (transport->listeners[i].stream)
			nng_stream_listener_close(transport->listeners[i].stream);
	while (has_unsent(transport) && nng_clock() < due_ms) {
		transport_poll(transport);
		nng_msleep(1);
	}
	for (uint32_t i = 0; i < transport->table_count; i++)
		if (transport->table[i])
			connection_close(transport->table[i]);
	while (transport->connection_count > 0 && nng_clock() < due_ms) {
		for (uint32_t i = 0; i < transport->table_count; i++) {
			struct connection *connection = transport->table[i];

			if (connection && !connection->receiving && !connection->sending)
				connection_free(connection);
		}
		transport_poll(transport);
		nng_msleep(1);
	}
	for (uint32_t i = 0; i < transport->listener_count; i++) {
		nng_aio_free(transport->listeners[i].accept_aio);
		nng_stream_listener_free(transport->listeners[i].stream);
		if (transport->listeners[i].tls)
			nng_tls_config_free(transport->listeners[i].tls);
	}
	if (transport->connection_count > 0)
		return; /* NNG still holds some: leak them rather than wait for it, the process is about to end */
	pthread_mutex_destroy(&transport->lock);
	free(transport->table);
	free(transport);
}
