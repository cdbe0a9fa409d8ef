/*
 * The transport and the attach socket, and the way from them to the service. See sockets.h.
 */
#include "daemon/sockets.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/admission.h"
#include "daemon/clocks.h"
#include "daemon/core/network.h"
#include "daemon/edge/attach.h"
#include "daemon/edge/thread_room.h"
#include "daemon/edge/transport.h"
#include "daemon/signals.h"
#include "daemon/threads.h"

static void on_request(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
                       const uint8_t *body, size_t body_bytes)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	service_request(daemon->service, &now, exchange, header, header_bytes, body, body_bytes);
	clocks_rearm(daemon);
}

static uint8_t *on_place(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
                         uint64_t body_bytes)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	return service_body_place(daemon->service, &now, exchange, header, header_bytes, body_bytes);
}

static void on_gone(void *context, uint64_t peer)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	service_peer_gone(daemon->service, &now, peer);
	clocks_rearm(daemon);
}

/* Whoever can connect can cause it, and as often as he likes. */
static void on_trouble(void *context, const char *text)
{
	struct daemon *daemon = context;
	const struct event event = { .severity = EVENT_WARNING, .text = text, .origin = "network", .step = UINT64_MAX,
	                             .pid = -1 };

	voice_event(&daemon->voice, &event, clocks_now().monotonic_ms);
}

static struct transport_options transport_options(struct daemon *daemon)
{
	const struct config *config = daemon->config;

	return (struct transport_options){
		.connection_count_max = (uint32_t)config->connection_count_max,
		.socket_mode = (uint32_t)config->socket_mode,
		.handshake_timeout_ms = (uint32_t)config->handshake_timeout_ms,
		.message_timeout_ms = (uint32_t)config->message_timeout_ms,
		.keepalive_ms = (uint32_t)config->keepalive_ms,
		.body_bytes_max = config->body_bytes_max,
		.bodies_bytes_max = config->receiving_bytes_max,
		.reply_bytes_max = config->reply_bytes_max,
		.replies_bytes_max = config->replies_bytes_max,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.classify = admission_classify_peer,
		.wake = threads_wake,
		.request = on_request,
		.say = on_trouble,
		.place = on_place,
		.gone = on_gone,
	};
}

static struct transport_tls tls_of(const struct network_files *network)
{
	return (struct transport_tls){ network->certificate, network->key, network->authority };
}

/* The addresses for other hosts. */
static int network_start(struct daemon *daemon, struct reason *reason)
{
	const struct transport_tls tls = tls_of(daemon->network);
	char url[CONFIG_PATH_BYTES_MAX], text[CONFIG_PATH_BYTES_MAX + 64];
	int error = 0;

	for (uint32_t i = 0; !error && network_url(daemon->config->listen, i, url, sizeof url); i++) {
		error = transport_listen(daemon->transport, url, &tls, reason);
		snprintf(text, sizeof text, "serves at %s", url);
		if (!error)
			voice_say(&daemon->voice, EVENT_NOTICE, text);
	}
	return error;
}

static int transport_begin(struct daemon *daemon, struct reason *reason)
{
	const struct transport_options options = transport_options(daemon);
	int error = thread_room_try(transport_thread_count(), reason);

	if (error)
		return error;
	error = transport_start(&options, &daemon->transport);
	return error ? reason_set(reason, error, "the threads for sockets cannot be made: %s (see connections-max= and the "
	                          "limits on tasks and memory)", status_text(error)) : 0;
}

static int start(struct daemon *daemon, struct reason *reason)
{
	const struct config *config = daemon->config;
	const struct attach_options attach = {
		.loop = &daemon->loop,
		.connection_count_max = (uint32_t)config->connection_count_max,
		.socket_mode = (uint32_t)config->socket_mode,
		.listener_fd = daemon->attach_listener_fd,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.classify = admission_classify,
		.request = on_request,
		.gone = on_gone,
	};
	char path[CONFIG_PATH_BYTES_MAX + 32];
	int error;

	snprintf(path, sizeof path, "%s/attach.sock", daemon->runtime.path);
	daemon->attach_listener_fd = -1;
	error = attach_start(&attach, path, &daemon->attach, reason);
	if (!error)
		error = transport_begin(daemon, reason);
	snprintf(path, sizeof path, "ipc://%s/emad.sock", daemon->runtime.path);
	if (!error)
		error = transport_listen(daemon->transport, path, NULL, reason);
	return error ? error : network_start(daemon, reason);
}

void sockets_open(struct daemon *daemon)
{
	const struct counters *counters = service_counters(daemon->service);
	char text[CONFIG_PATH_BYTES_MAX + CLOCKS_SUMMARY_BYTES_MAX];
	struct instant now = clocks_now();

	daemon->listening = true;
	daemon->error = service_recovery_error(daemon->service);
	if (daemon->error)
		reason_set(daemon->reason, daemon->error, "not enough memory to recover every model from its checkpoints: nothing was "
		           "changed on disk; start it again when there is more");
	signals_limit_sockets(true);
	if (!daemon->error)
		daemon->error = start(daemon, daemon->reason);
	signals_limit_sockets(false);
	if (daemon->error) {
		uv_stop(&daemon->loop);
		return;
	}
	snprintf(text, sizeof text, "emad " EMAD_VERSION " serves at ipc://%s/emad.sock: %" PRIu64 " workers, %s kernels, "
	         "at most %.1f GiB of shared memory", daemon->runtime.path, daemon->config->worker_count,
	         kernel_best()->name, (double)daemon->config->memory_bytes_max / (double)(UINT64_C(1) << 30));
	voice_say_of(&daemon->voice, EVENT_STARTED, EVENT_NOTICE, text);
	service_summary(daemon->service, &now, text, sizeof text);
	voice_ready(&daemon->voice, counters->models_recovered + counters->models_adopted > 0 ? text : "no models");
}

int sockets_reconfigure(struct daemon *daemon)
{
	const struct transport_options transport = transport_options(daemon);
	int error = transport_reconfigure(daemon->transport, &transport);

	if (!error)
		attach_reconfigure(daemon->attach, (uint32_t)daemon->config->connection_count_max);
	return error;
}

int sockets_secure(struct daemon *daemon, const struct network_files *network, struct reason *reason)
{
	const struct transport_tls tls = tls_of(network);

	return transport_secure(daemon->transport, &tls, reason);
}

void sockets_close(struct daemon *daemon, uint32_t timeout_ms)
{
	transport_stop(daemon->transport, timeout_ms);
	daemon->transport = NULL;
	attach_stop(daemon->attach);
}

void sockets_finish(struct daemon *daemon)
{
	attach_finish(daemon->attach);
	if (daemon->attach_listener_fd >= 0)
		close(daemon->attach_listener_fd);
}
