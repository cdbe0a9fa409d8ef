/*
 * The client: one connection to one daemon, and the questions that concern no trainer and no view.
 */
#include "client/client.h"

#include "client/error.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef EMAD_VERSION
#define EMAD_VERSION "0.1.0"
#endif

static const char URL_DEFAULT[] = "ipc:///run/emad/emad.sock";
static const char URL_IPC[] = "ipc://";
static const char ATTACH_NAME[] = "attach.sock";

enum { TIMEOUT_DEFAULT_MS = 10000 };

const char *emad_version(void)
{
	return EMAD_VERSION;
}

/* Sets url, and for ipc the two paths behind it. */
static int client_locate(struct emad_client *client, const char *url, struct reason *reason)
{
	const size_t path_bytes_max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	const char *prefix, *path;
	size_t directory_bytes;

	if (!url || !*url)
		url = secure_getenv("EMAD_SOCKET");
	if (!url || !*url)
		url = URL_DEFAULT;
	prefix = strstr(url, "://") ? "" : URL_IPC;
	if (asprintf(&client->url, "%s%s", prefix, url) < 0) {
		client->url = NULL;
		return -ENOMEM;
	}
	if (strncmp(client->url, URL_IPC, strlen(URL_IPC)) != 0)
		return 0;

	path = client->url + strlen(URL_IPC);
	directory_bytes = strrchr(path, '/') ? (size_t)(strrchr(path, '/') + 1 - path) : 0;
	if (strlen(path) > path_bytes_max || directory_bytes + strlen(ATTACH_NAME) > path_bytes_max)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "the socket path %s has %zu bytes, with %s beside it; %zu are possible", path, strlen(path),
		                  ATTACH_NAME, path_bytes_max);
	client->socket_path = strdup(path);
	if (asprintf(&client->attach_path, "%.*s%s", (int)directory_bytes, path, ATTACH_NAME) < 0)
		client->attach_path = NULL;
	return client->socket_path && client->attach_path ? 0 : -ENOMEM;
}

static void client_destroy(struct emad_client *client)
{
	if (!client)
		return;
	link_close(client->link);
	identity_finish(&client->identity);
	free(client->greeting);
	free(client->url);
	free(client->socket_path);
	free(client->attach_path);
	free(client);
}

static void hello_request(const struct emad_client *client, struct request *request)
{
	*request = (struct request){.operation = OP_HELLO};
	request_set(request, client, client->id);
	request_set(request, agent, text_of("libemad " EMAD_VERSION));
	if (client->identity.token)
		request_set(request, token, text_of(client->identity.token));
}

/* What every connection begins with where a token must be shown. */
static int greeting_make(struct emad_client *client, struct reason *reason)
{
	const size_t capacity = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX;
	struct request request;

	if (!client->identity.token)
		return 0;
	client->greeting = malloc(capacity);
	if (!client->greeting)
		return -ENOMEM;
	hello_request(client, &request);
	return request_encode(&request, client->greeting, capacity, &client->greeting_bytes, reason);
}

static int client_connect(struct emad_client *client, const struct emad_client_options *options, struct reason *reason)
{
	struct link_options link = {.url = client->url, .socket_path = client->socket_path, .identity = &client->identity};
	int code = identity_init(&client->identity, client->url, options, reason);

	if (code == 0)
		code = greeting_make(client, reason);
	if (code)
		return code;
	link.greeting = client->greeting;
	link.greeting_bytes = client->greeting_bytes;
	link.greeted = client_greeted;
	return link_open(&link, &client->link, reason);
}

static int client_open(const char *url, int timeout_ms, const struct emad_client_options *options,
                       struct emad_client **ret_client, struct reason *reason)
{
	struct emad_client *client = calloc(1, sizeof(*client));
	int64_t deadline_ms;
	int code;

	if (!client)
		return -ENOMEM;
	client->pid = getpid();
	client->timeout_ms = timeout_ms < 0 ? TIMEOUT_DEFAULT_MS : timeout_ms;
	client->header_bytes_max = MESSAGE_HEADER_BYTES_MAX;
	client->body_bytes_max = MESSAGE_BODY_BYTES_MAX;
	deadline_ms = client_deadline(client->timeout_ms);
	while (client->id == 0) {
		if (getrandom(&client->id, sizeof(client->id), 0) != sizeof(client->id) && errno != EINTR) {
			code = reason_set(reason, -errno, "no random numbers: %s", strerrordesc_np(errno));
			goto fail;
		}
	}
	code = client_locate(client, url, reason);
	if (code)
		goto fail;
	code = client_connect(client, options, reason);
	if (code)
		goto fail;
	code = link_wait(client->link, deadline_ms, reason);
	if (code)
		goto fail;
	code = client_hello(client, deadline_ms, NULL, reason);
	if (code)
		goto fail;
	*ret_client = client;
	return 0;
fail:
	client_destroy(client);
	return code;
}

int emad_client_open(const char *url, int timeout_ms, struct emad_client **ret_client)
{
	return emad_client_open_with(url, timeout_ms, NULL, ret_client);
}

int emad_client_open_with(const char *url, int timeout_ms, const struct emad_client_options *options,
                          struct emad_client **ret_client)
{
	struct reason reason = {.text = ""};

	if (!ret_client)
		return error_report(reason_set(&reason, STATUS_EARGUMENT, "ret_client is NULL"), &reason);
	return error_report(client_open(url, timeout_ms, options, ret_client, &reason), &reason);
}

int emad_client_progress(struct emad_client *client, emad_progress *progress, void *context)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0) {
		client->progress = progress;
		client->progress_context = context;
	}
	return error_report(code, &reason);
}

void emad_client_close(struct emad_client *client)
{
	struct reason reason;

	if (client && client_check(client, &reason) == 0)
		client_destroy(client);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void hello_learn(struct emad_client *client, const struct reply *reply)
{
	if (reply->present & REPLY_HAS(header_bytes_max))
		atomic_store_explicit(&client->header_bytes_max, reply->header_bytes_max, memory_order_relaxed);
	if (reply->present & REPLY_HAS(body_bytes_max))
		atomic_store_explicit(&client->body_bytes_max, reply->body_bytes_max, memory_order_relaxed);
	atomic_store_explicit(&client->instance, reply->instance, memory_order_relaxed);
}

int client_hello(struct emad_client *client, int64_t deadline_ms, struct emad_daemon *ret_daemon,
                 struct reason *reason)
{
	struct request request;
	struct client_answer answer;
	uint64_t begin_us = now_us();
	int code;

	hello_request(client, &request);
	code = client_call(client, &request, NULL, 0, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && answer.reply.v != PROTOCOL_VERSION)
		code = reason_set(reason, STATUS_EVERSION,
		                  "the daemon at %s speaks protocol version %" PRIu64 ", this library %d: install the same "
		                  "version of both",
		                  client->url, answer.reply.v, PROTOCOL_VERSION);
	if (code == 0) {
		hello_learn(client, &answer.reply);
		if (ret_daemon) {
			*ret_daemon = (struct emad_daemon){
				.instance = answer.reply.instance,
				.pid = answer.reply.pid,
				.uptime_ms = answer.reply.uptime_ms,
				.round_trip_us = now_us() - begin_us,
			};
			client_text_copy(answer.reply.agent, ret_daemon->agent, sizeof(ret_daemon->agent));
		}
	}
	client_answer_finish(&answer);
	return code;
}

int emad_hello(struct emad_client *client, int timeout_ms, struct emad_daemon *ret_daemon)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0 && !ret_daemon)
		code = reason_set(&reason, STATUS_EARGUMENT, "ret_daemon is NULL");
	if (code == 0)
		code = client_hello(client, client_deadline(client_timeout(client, timeout_ms)), ret_daemon, &reason);
	return error_report(code, &reason);
}

/* A request whose answer is JSON in the body. */
static int client_json(struct emad_client *client, const struct request *request, int timeout_ms, char **ret_json,
                       struct reason *reason)
{
	struct client_answer answer;
	char *json;
	int code;

	if (!ret_json)
		return reason_set(reason, STATUS_EARGUMENT, "ret_json is NULL");
	code = client_call(client, request, NULL, 0, client_deadline(client_timeout(client, timeout_ms)), &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && (answer.body_bytes == 0 || memchr(answer.body, 0, answer.body_bytes)))
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer holds no JSON");
	if (code == 0) {
		json = strndup((const char *)answer.body, answer.body_bytes);
		if (json)
			*ret_json = json;
		else
			code = -ENOMEM;
	}
	client_answer_finish(&answer);
	return code;
}

int emad_status_json(struct emad_client *client, int timeout_ms, char **ret_json)
{
	struct request request = {.operation = OP_STATUS};
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = client_json(client, &request, timeout_ms, ret_json, &reason);
	return error_report(code, &reason);
}

int emad_list_json(struct emad_client *client, int timeout_ms, char **ret_json)
{
	struct request request = {.operation = OP_LIST};
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = client_json(client, &request, timeout_ms, ret_json, &reason);
	return error_report(code, &reason);
}

static int model_json(struct emad_client *client, struct request *request, const char *model, int timeout_ms,
                      char **ret_json)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = client_model_check(model, &reason);
	if (code == 0) {
		request_set(request, model, text_of(model));
		code = client_json(client, request, timeout_ms, ret_json, &reason);
	}
	return error_report(code, &reason);
}

int emad_show_json(struct emad_client *client, const char *model, int timeout_ms, char **ret_json)
{
	struct request request = {.operation = OP_SHOW};

	return model_json(client, &request, model, timeout_ms, ret_json);
}

int emad_history_json(struct emad_client *client, const char *model, int timeout_ms, char **ret_json)
{
	struct request request = {.operation = OP_HISTORY};

	/* The disk is looked at for it. */
	if (client)
		request_set(&request, timeout_ms, (uint64_t)client_timeout(client, timeout_ms));
	return model_json(client, &request, model, timeout_ms, ret_json);
}

static int client_remove(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_freed_bytes,
                         struct reason *reason)
{
	struct request request = {.operation = OP_REMOVE};
	struct client_answer answer;
	int code = client_model_check(model, reason);

	if (code)
		return code;
	request_set(&request, model, text_of(model));
	request_set(&request, client, client->id);
	code = client_call(client, &request, NULL, 0, client_deadline(client_timeout(client, timeout_ms)), &answer,
	                   reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && ret_freed_bytes)
		*ret_freed_bytes = answer.reply.freed_bytes;
	client_answer_finish(&answer);
	return code;
}

int emad_remove(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_freed_bytes)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = client_remove(client, model, timeout_ms, ret_freed_bytes, &reason);
	return error_report(code, &reason);
}
