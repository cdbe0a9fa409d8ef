/*
 * What HTTP's threads ask, answered by the service. See http_server.h.
 */
#include "daemon/http_server.h"

#include <stdio.h>
#include <sys/socket.h>

#include "daemon/admission.h"
#include "daemon/clocks.h"
#include "daemon/core/access.h"
#include "daemon/edge/http.h"
#include "daemon/edge/token.h"
#include "daemon/threads.h"

static void on_request(void *context, const struct web_request *request, struct web_answer *ret_answer)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();
	const struct web_rules rules = {
		.token = daemon->http_token,
		.is_ready = daemon->listening && !daemon->error,
		.is_unread = admission_classify(daemon, -1, -1, NULL, 0) & UINT32_C(1) << ACCESS_READ,
	};

	web_handle(daemon->service, &now, request, &rules, ret_answer);
}

static void on_gone(void *context, uint64_t peer)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	service_peer_gone(daemon->service, &now, peer);
	clocks_rearm(daemon);
}

static bool on_over(void *context, uint64_t peer, uint64_t since_ms)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	return web_is_over(daemon->service, &now, peer, since_ms);
}

int http_server_start(struct daemon *daemon, struct reason *reason)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	int listeners[ADDRESS_COUNT_MAX];
	char name[HTTP_NAME_BYTES_MAX], text[HTTP_NAME_BYTES_MAX + 160];
	bool is_loopback;
	struct http_options options = {
		.connection_count_max = (uint32_t)daemon->config->http_connection_count_max,
		.timeout_ms = (uint32_t)daemon->config->http_timeout_ms,
		.addresses = addresses,
		.listeners = listeners,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.wake = threads_wake,
		.request = on_request,
		.gone = on_gone,
		.is_over = on_over,
	};
	int error = address_list_parse(daemon->config->http_listen, addresses, &options.address_count, reason), fd;

	while (options.listener_count < ADDRESS_COUNT_MAX &&
	       (fd = systemd_listener(&daemon->handed, "http", SOCK_STREAM)) >= 0)
		listeners[options.listener_count++] = fd;
	if (error || options.address_count + options.listener_count == 0)
		return error;
	error = token_read(daemon->config->http_token_file, daemon->http_token, reason);
	if (!error)
		error = http_start(&options, &daemon->http, reason);
	for (uint32_t i = 0; !error && http_name(daemon->http, i, name, &is_loopback); i++) {
		snprintf(text, sizeof text, "HTTP at %s, %s", name, daemon->http_token[0]
		         ? "for whoever bears the token"
		         : "where everybody who reaches it may read (http-token-file= is not set)");
		voice_say(&daemon->voice, daemon->http_token[0] || is_loopback ? EVENT_NOTICE : EVENT_WARNING, text);
	}
	return error;
}

void http_server_reconfigure(struct daemon *daemon, const struct config *config)
{
	struct reason reason;

	if (!daemon->http || token_read(config->http_token_file, daemon->http_token, &reason) == 0)
		return;
	voice_say(&daemon->voice, EVENT_ERROR, reason.text);
	voice_say(&daemon->voice, EVENT_ERROR, "the token for HTTP stays as it was");
}

void http_server_stop(struct daemon *daemon)
{
	http_stop(daemon->http);
	daemon->http = NULL;
}
