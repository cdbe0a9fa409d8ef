/*
 * Listening and accepting. See transport_listener.h.
 */
#include "daemon/edge/transport_listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/edge/transport_connection.h"
#include "daemon/edge/transport_inner.h"

enum { ACCEPT_PAUSE_MS = 100 }; /* after a failed accept, for want of file descriptors perhaps */

static int stream_open(struct listener *listener)
{
	bool is_ipc = listener->wire == SP_WIRE_IPC;
	nng_stream_listener *stream;
	int code = nng_stream_listener_alloc(&stream, listener->url);

	if (code)
		return code;
	if (is_ipc)
		code = nng_stream_listener_set_int(stream, NNG_OPT_IPC_PERMISSIONS, (int)listener->transport->options.socket_mode);
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
		return reason_set(reason, pending_error(code), "TLS cannot be used: %s", nng_strerror(code));
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
	listener->accepting.under_way = true;
	nng_stream_listener_accept(listener->stream, listener->accepting.aio);
}

static void accept_later(struct listener *listener)
{
	listener->pausing = true;
	listener->accepting.under_way = true;
	nng_sleep_aio(ACCEPT_PAUSE_MS, listener->accepting.aio);
}

/* Its certificates are others. False when it could not be made anew yet. */
static bool listener_renew(struct listener *listener)
{
	const struct transport_options *options = &listener->transport->options;
	char text[400];
	int code;

	if (listener->stream) {
		nng_stream_listener_close(listener->stream);
		nng_stream_listener_free(listener->stream);
		listener->stream = NULL;
	}
	code = stream_open(listener);
	if (code) {
		snprintf(text, sizeof text, "cannot listen at %s: %s; trying again", listener->url, nng_strerror(code));
		options->say(options->context, text);
		return false;
	}
	listener->renewing = false;
	return true;
}

/* Who came while we were about to go is ours to send away. */
static void accepted_drop(struct listener *listener)
{
	nng_stream *stream;

	if (listener->pausing || nng_aio_result(listener->accepting.aio))
		return;
	stream = nng_aio_get_output(listener->accepting.aio, 0);
	nng_stream_close(stream);
	nng_stream_free(stream);
}

static void on_accepted(struct pending *pending)
{
	struct listener *listener = (struct listener *)(void *)pending;
	int error = pending_error(nng_aio_result(pending->aio));

	if (listener->transport->stopping) {
		accepted_drop(listener);
		return;
	}
	if (!listener->pausing && !error)
		connection_begin(listener->transport, nng_aio_get_output(pending->aio, 0), listener);
	if (listener->renewing && !listener_renew(listener))
		accept_later(listener);
	else if (!listener->pausing && error && error != -ECONNRESET)
		accept_later(listener);
	else
		accept_next(listener);
}

/* NNG's threads. */
static void accepting_ended(void *argument)
{
	pending_end(argument);
}

int listener_init(struct listener *listener, struct transport *transport, const char *url,
                  const struct transport_tls *tls, struct reason *reason)
{
	bool is_ipc = strncmp(url, "ipc://", 6) == 0;
	int code, error = 0;

	*listener = (struct listener){ .transport = transport, .wire = is_ipc ? SP_WIRE_IPC : SP_WIRE_TCP };
	listener->accepting.ended = on_accepted;
	snprintf(listener->url, sizeof listener->url, "%s", url);
	if (strncmp(url, "tls+tcp://", 10) == 0)
		error = tls_make(tls, &listener->tls, reason);
	if (error)
		return error;
	listener->asks = listener->tls && tls->authority;
	code = stream_open(listener);
	if (!code)
		code = pending_init(&listener->accepting, &transport->ended, accepting_ended, &listener->accepting);
	if (code) {
		listener_finish(listener);
		return reason_set(reason, pending_error(code), "cannot listen at %s: %s%s", url, nng_strerror(code),
		                  code == NNG_EADDRINUSE    ? " (another program does, or another emad)"
		                  : code == NNG_EADDRINVAL ? " (this host has no such address, or the name has none)"
		                                           : "");
	}
	accept_next(listener);
	return 0;
}

int listener_secure(struct listener *listener, const struct transport_tls *tls, struct reason *reason)
{
	nng_tls_config *config;
	int error;

	if (!listener->tls)
		return 0;
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
	nng_aio_abort(listener->accepting.aio, NNG_ECANCELED);
	return 0;
}

void listener_close(struct listener *listener)
{
	if (listener->stream)
		nng_stream_listener_close(listener->stream);
}

void listener_finish(struct listener *listener)
{
	if (listener->accepting.under_way) {
		nng_aio_stop(listener->accepting.aio);
		accepted_drop(listener);
	}
	pending_finish(&listener->accepting);
	if (listener->stream)
		nng_stream_listener_free(listener->stream);
	if (listener->tls)
		nng_tls_config_free(listener->tls);
}
