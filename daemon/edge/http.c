/*
 * libmicrohttpd's callbacks, and the two lists between its threads and the loop. See http.h.
 *
 * A request whose answer is not there yet is `suspended`: the library does not touch it, and its texts stay where they
 * are, until it is resumed.
 */
#include "daemon/edge/http.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/core/exchange.h"
#include "daemon/edge/http_socket.h"
#include "proto/counters.h"
#include "proto/layout.h"

enum {
	LISTENER_COUNT_MAX = 2 * ADDRESS_COUNT_MAX,
	REQUEST_BYTES_MAX = 16384, /* all of its head */
	PIECE_BYTES = 256 * 1024,  /* of a download: what is copied at once */
	WAITING_COUNT_MAX = 128,   /* connections that have not been accepted */
	NICENESS = 10,             /* of the threads that send */
	ANSWERS_AT_ONCE = 4,       /* before the loop looks after everybody else */
};

/* What is sent. Made by the loop, then the library's thread's, then in the list of what has ended. */
struct download {
	struct download *next;
	struct http *http;
	uint64_t peer;
	int fd;                        /* owned */
	const struct slot_header *slot; /* owned; the first page of the segment */
	uint64_t fence;
	uint64_t offset, byte_count;
	uint64_t since_ms;
	uint64_t sent_bytes;
	bool is_cut;
};

/* One connection; guarded by the lock. */
struct connection {
	struct connection *next, **link;
	int fd; /* the library's, open as long as the connection is in the list */
	bool is_busy; /* a whole request is there and not yet answered to its end */
	uint64_t since_ms; /* since when not */
	uint64_t peer; /* of the download that is being sent; 0: none */
	uint64_t peer_since_ms;
	bool is_shut;
};

struct query {
	struct query *next;
	struct http *http;
	struct MHD_Connection *handle;
	struct connection *connection;
	struct web_request web;
	char *password; /* owned; the library's */
	bool is_asked;
	bool is_answered;
	struct web_answer answer;
	struct download *download; /* owned until it is sent */
};

struct listener {
	struct http *http;
	struct MHD_Daemon *daemon;
	bool is_loopback;
	char name[HTTP_NAME_BYTES_MAX];
};

struct http {
	struct http_options options;
	uint32_t listener_count;
	struct listener listeners[LISTENER_COUNT_MAX];
	uint64_t peer_next;
	pthread_mutex_t lock;
	/* Guarded by the lock. */
	bool stopping;
	struct query *asked; /* oldest first */
	struct query **asked_end;
	struct download *ended;
	struct connection *connections;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- downloads --------------------------------------------------------------------------------------------------- */

/* Loop thread. The descriptor stays readable when the model is gone, and the first page says when the slot is. NULL. */
static struct download *download_make(struct http *http, const struct web_answer *answer, uint64_t peer)
{
	struct download *download = calloc(1, sizeof *download);
	void *page;

	if (!download)
		return NULL;
	download->fd = fcntl(answer->fd, F_DUPFD_CLOEXEC, 0);
	page = download->fd < 0 ? MAP_FAILED
	                        : mmap(NULL, LAYOUT_PAGE_BYTES, PROT_READ, MAP_SHARED, download->fd, 0);
	if (page == MAP_FAILED) {
		if (download->fd >= 0)
			close(download->fd);
		free(download);
		return NULL;
	}
	download->http = http;
	download->peer = peer;
	download->slot = page;
	download->fence = answer->fence;
	download->offset = answer->offset;
	download->byte_count = answer->byte_count;
	download->since_ms = now_ms();
	return download;
}

static void download_free(struct download *download)
{
	(void)munmap((void *)(uintptr_t)download->slot, LAYOUT_PAGE_BYTES);
	close(download->fd);
	free(download);
}

/* The next piece, copied and then found to be of the version that was announced. */
static ssize_t download_read(void *context, uint64_t position, char *buffer, size_t capacity)
{
	struct download *download = context;
	ssize_t count = pread(download->fd, buffer, capacity, (off_t)(download->offset + position));

	/* Pairs with the fence of versions.c's slot_open: new bytes are not seen without the new number. */
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&download->slot->fence, memory_order_relaxed) != download->fence) {
		download->is_cut = true;
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	if (count <= 0)
		return count < 0 && errno == EINTR ? 0 : MHD_CONTENT_READER_END_WITH_ERROR;
	download->sent_bytes += (uint64_t)count;
	return count;
}

/* The library has sent it, or cannot. */
static void download_end(void *context)
{
	struct download *download = context;
	struct http *http = download->http;

	pthread_mutex_lock(&http->lock);
	download->next = http->ended;
	http->ended = download;
	pthread_mutex_unlock(&http->lock);
	http->options.wake(http->options.context);
}

/* To HEAD the length is told and nothing is read. */
static ssize_t nothing_read(void *context, uint64_t position, char *buffer, size_t capacity)
{
	(void)context;
	(void)position;
	(void)buffer;
	(void)capacity;
	return MHD_CONTENT_READER_END_WITH_ERROR;
}

/* ---- the library's threads --------------------------------------------------------------------------------------- */

/* What is said where there may be no memory to say anything else. */
static struct MHD_Response *unavailable_make(void)
{
	static char text[] = "{\"error\":\"busy\",\"message\":\"the daemon has no memory or descriptors left for this, or is "
	                     "stopping: try again\"}";
	struct MHD_Response *response = MHD_create_response_from_buffer(sizeof text - 1, text, MHD_RESPMEM_PERSISTENT);

	if (response && MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") != MHD_YES) {
		MHD_destroy_response(response);
		return NULL;
	}
	return response;
}

static struct MHD_Response *response_make(struct query *request)
{
	struct web_answer *answer = &request->answer;
	struct MHD_Response *response;

	if (answer->is_download && request->download)
		response = MHD_create_response_from_callback(answer->byte_count, PIECE_BYTES, download_read,
		                                             request->download, download_end);
	else if (answer->is_download)
		response = MHD_create_response_from_callback(answer->byte_count, 1, nothing_read, NULL, NULL);
	else if (answer->body || answer->code != MHD_HTTP_SERVICE_UNAVAILABLE)
		response = MHD_create_response_from_buffer(answer->body_bytes, answer->body, answer->body ?
		                                           MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	else
		response = unavailable_make();
	if (!response)
		return NULL;
	if (!answer->is_download && !answer->body && answer->code == MHD_HTTP_SERVICE_UNAVAILABLE)
		answer->header_count = 0; /* it has its own */
	/* From here on they are the response's. */
	answer->body = NULL;
	request->download = NULL;
	for (uint32_t i = 0; i < answer->header_count; i++)
		if (MHD_add_response_header(response, answer->headers[i].name, answer->headers[i].value) != MHD_YES) {
			MHD_destroy_response(response);
			return NULL;
		}
	return response;
}

/* MHD_NO closes the connection. */
static enum MHD_Result answer_send(struct query *request)
{
	struct MHD_Response *response = response_make(request);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	result = MHD_queue_response(request->handle, (unsigned int)request->answer.code, response);
	MHD_destroy_response(response);
	return result;
}

static const char *header_of(const struct query *request, const char *name)
{
	return MHD_lookup_connection_value(request->handle, MHD_HEADER_KIND, name);
}

static void request_read(struct query *request, const char *method, const char *path)
{
	struct web_request *web = &request->web;
	const char *authorization = header_of(request, MHD_HTTP_HEADER_AUTHORIZATION);
	char *user;

	web->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	web->path = path;
	web->tensors = MHD_lookup_connection_value(request->handle, MHD_GET_ARGUMENT_KIND, "tensors");
	web->host = header_of(request, MHD_HTTP_HEADER_HOST);
	web->accept = header_of(request, MHD_HTTP_HEADER_ACCEPT);
	web->conditions = (struct web_conditions){
		.if_match = header_of(request, MHD_HTTP_HEADER_IF_MATCH),
		.if_none_match = header_of(request, MHD_HTTP_HEADER_IF_NONE_MATCH),
		.if_range = header_of(request, MHD_HTTP_HEADER_IF_RANGE),
		.range = header_of(request, MHD_HTTP_HEADER_RANGE),
	};
	if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0) {
		web->token = authorization + 7 + strspn(authorization + 7, " ");
	} else if (authorization) {
		user = MHD_basic_auth_get_username_password(request->handle, &request->password);
		MHD_free(user);
		web->token = request->password;
	}
}

/* Hands the request to the loop. */
static enum MHD_Result ask(struct query *request)
{
	struct http *http = request->http;
	bool stopping;

	pthread_mutex_lock(&http->lock);
	stopping = http->stopping;
	if (!stopping) {
		request->is_asked = true;
		request->connection->is_busy = true;
		request->next = NULL;
		*http->asked_end = request;
		http->asked_end = &request->next;
		MHD_suspend_connection(request->handle);
	}
	pthread_mutex_unlock(&http->lock);
	if (stopping)
		return MHD_NO;
	http->options.wake(http->options.context);
	return MHD_YES;
}

static struct query *request_make(struct listener *listener, struct MHD_Connection *handle)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct query *request = info && info->socket_context ? calloc(1, sizeof *request) : NULL;

	if (!request)
		return NULL;
	request->http = listener->http;
	request->handle = handle;
	request->connection = info->socket_context;
	request->web.is_loopback = listener->is_loopback;
	return request;
}

/* Called once when the head is there, once for every part of a body, when all is there, and after a resume. */
static enum MHD_Result on_access(void *context, struct MHD_Connection *handle, const char *path, const char *method,
                                 const char *version, const char *upload, size_t *upload_bytes, void **place)
{
	bool is_read = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	struct query *request = *place;

	(void)version;
	(void)upload;
	if (!request) {
		request = request_make(context, handle);
		*place = request;
		if (!request)
			return MHD_NO;
		if (is_read)
			return MHD_YES;
		/* Answered before a body is received. */
		web_refuse_method(method, &request->answer);
		return answer_send(request);
	}
	/* What comes along with GET means nothing. */
	if (*upload_bytes > 0) {
		*upload_bytes = 0;
		return MHD_YES;
	}
	if (request->is_answered)
		return answer_send(request);
	request_read(request, method, path);
	return ask(request);
}

static void on_completed(void *context, struct MHD_Connection *handle, void **place,
                         enum MHD_RequestTerminationCode how)
{
	struct listener *listener = context;
	struct query *request = *place;

	(void)handle;
	(void)how;
	*place = NULL;
	if (!request)
		return;
	pthread_mutex_lock(&listener->http->lock);
	request->connection->is_busy = false;
	request->connection->since_ms = now_ms();
	request->connection->peer = 0;
	pthread_mutex_unlock(&listener->http->lock);
	if (request->download)
		download_end(request->download);
	free(request->answer.body);
	MHD_free(request->password);
	free(request);
}

static void on_connection(void *context, struct MHD_Connection *handle, void **place,
                          enum MHD_ConnectionNotificationCode what)
{
	struct listener *listener = context;
	struct http *http = listener->http;
	struct connection *connection = *place;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(handle,
		                                                               MHD_CONNECTION_INFO_CONNECTION_FD);

		connection = info ? calloc(1, sizeof *connection) : NULL;
		*place = connection;
		if (!connection)
			return;
		connection->fd = info->connect_fd;
		/* Updates come first where processors are short. Nobody tells when the thread begins. */
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
		connection->since_ms = now_ms();
		pthread_mutex_lock(&http->lock);
		connection->next = http->connections;
		connection->link = &http->connections;
		if (connection->next)
			connection->next->link = &connection->next;
		http->connections = connection;
		pthread_mutex_unlock(&http->lock);
	} else if (connection) {
		pthread_mutex_lock(&http->lock);
		*connection->link = connection->next;
		if (connection->next)
			connection->next->link = connection->link;
		pthread_mutex_unlock(&http->lock);
		*place = NULL;
		free(connection);
	}
}

/* Paths are the core's to read: their escapes come after their slashes. */
static size_t on_escapes(void *context, struct MHD_Connection *handle, char *text)
{
	(void)context;
	(void)handle;
	return strlen(text);
}

/* ---- the loop thread --------------------------------------------------------------------------------------------- */

static void request_answer(struct http *http, struct query *request)
{
	request->web.peer = http->peer_next++;
	http->options.request(http->options.context, &request->web, &request->answer);
	if (request->answer.fd >= 0) {
		request->download = download_make(http, &request->answer, request->web.peer);
		if (!request->download) {
			http->options.gone(http->options.context, request->web.peer);
			/* No memory or descriptors. */
			request->answer = (struct web_answer){ .code = MHD_HTTP_SERVICE_UNAVAILABLE, .fd = -1 };
		}
	}
	pthread_mutex_lock(&http->lock);
	if (request->download) {
		request->connection->peer = request->web.peer;
		request->connection->peer_since_ms = now_ms();
	}
	request->is_answered = true;
	MHD_resume_connection(request->handle);
	pthread_mutex_unlock(&http->lock);
}

/* Takes it. */
static void download_ended(struct http *http, struct download *download)
{
	const struct http_options *options = &http->options;
	bool is_cut = download->is_cut || (download->sent_bytes < download->byte_count &&
	                                   options->is_over(options->context, download->peer, download->since_ms));

	options->counters->downloads_ended++;
	options->counters->downloads_cut += is_cut;
	options->counters->download_bytes += download->sent_bytes;
	options->gone(options->context, download->peer);
	download_free(download);
}

void http_poll(struct http *http)
{
	struct query *asked[ANSWERS_AT_ONCE];
	struct download *ended;
	uint32_t count = 0;
	bool more;

	pthread_mutex_lock(&http->lock);
	for (; count < ANSWERS_AT_ONCE && http->asked; count++) {
		asked[count] = http->asked;
		http->asked = http->asked->next;
	}
	more = http->asked != NULL;
	if (!more)
		http->asked_end = &http->asked;
	ended = http->ended;
	http->ended = NULL;
	pthread_mutex_unlock(&http->lock);
	while (ended) {
		struct download *next = ended->next;

		download_ended(http, ended);
		ended = next;
	}
	for (uint32_t i = 0; i < count; i++)
		request_answer(http, asked[i]);
	if (more)
		http->options.wake(http->options.context);
}

void http_sweep(struct http *http)
{
	uint64_t now = now_ms(), idle_ms_max = 2 * (uint64_t)http->options.timeout_ms;

	pthread_mutex_lock(&http->lock);
	for (struct connection *connection = http->connections; connection; connection = connection->next) {
		bool is_late = !connection->is_busy && now - connection->since_ms > idle_ms_max;
		bool is_over = connection->peer && http->options.is_over(http->options.context, connection->peer,
		                                                         connection->peer_since_ms);

		if (connection->is_shut || (!is_late && !is_over))
			continue;
		connection->is_shut = true;
		http->options.counters->http_timeouts += is_late;
		(void)shutdown(connection->fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&http->lock);
}

bool http_name(const struct http *http, uint32_t index, char ret_name[HTTP_NAME_BYTES_MAX], bool *ret_is_loopback)
{
	if (index >= http->listener_count)
		return false;
	strcpy(ret_name, http->listeners[index].name);
	*ret_is_loopback = http->listeners[index].is_loopback;
	return true;
}

/* ---- starting and ending ----------------------------------------------------------------------------------------- */

/* Takes the socket. */
static int listener_add(struct http *http, int fd, struct reason *reason)
{
	struct listener *listener = &http->listeners[http->listener_count];
	const struct http_options *options = &http->options;
	unsigned int timeout_s = (options->timeout_ms + 999) / 1000;

	listener->http = http;
	http_socket_name(fd, listener->name, sizeof listener->name, &listener->is_loopback);
	listener->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, listener,
		MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)options->connection_count_max,
		MHD_OPTION_CONNECTION_TIMEOUT, timeout_s,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES_MAX,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, listener,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, listener,
		MHD_OPTION_UNESCAPE_CALLBACK, on_escapes, listener,
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_END);
	if (!listener->daemon) {
		close(fd);
		return reason_set(reason, -EAGAIN, "the thread for HTTP at %s cannot be made (see the limits on tasks and "
		                  "memory)", listener->name);
	}
	http->listener_count++;
	return 0;
}

static int listeners_add(struct http *http, struct reason *reason)
{
	const struct http_options *options = &http->options;
	int error = 0, fd;

	for (uint32_t i = 0; i < options->listener_count; i++) {
		if (error)
			close(options->listeners[i]);
		else
			error = listener_add(http, options->listeners[i], reason);
	}
	for (uint32_t i = 0; i < options->address_count && !error; i++) {
		error = http_socket_listen(&options->addresses[i], WAITING_COUNT_MAX, &fd, reason);
		if (!error)
			error = listener_add(http, fd, reason);
	}
	return error;
}

int http_start(const struct http_options *options, struct http **ret_http, struct reason *reason)
{
	struct http *http = calloc(1, sizeof *http);
	sigset_t all, before;
	int error;

	if (!http)
		return reason_set(reason, -ENOMEM, "not enough memory for HTTP");
	http->options = *options;
	http->peer_next = PEER_DOWNLOAD_FIRST;
	http->asked_end = &http->asked;
	pthread_mutex_init(&http->lock, NULL);
	/* Signals are for the loop thread alone. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = listeners_add(http, reason);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	http->options.addresses = NULL;
	http->options.listeners = NULL;
	if (error) {
		http_stop(http);
		return error;
	}
	*ret_http = http;
	return 0;
}

void http_stop(struct http *http)
{
	struct query *asked;

	if (!http)
		return;
	/* The library does not end with suspended requests. */
	pthread_mutex_lock(&http->lock);
	http->stopping = true;
	asked = http->asked;
	http->asked = NULL;
	http->asked_end = &http->asked;
	while (asked) {
		struct query *next = asked->next;

		asked->answer = (struct web_answer){ .code = MHD_HTTP_SERVICE_UNAVAILABLE, .fd = -1 };
		asked->is_answered = true;
		MHD_resume_connection(asked->handle);
		asked = next;
	}
	pthread_mutex_unlock(&http->lock);
	for (uint32_t i = 0; i < http->listener_count; i++)
		MHD_stop_daemon(http->listeners[i].daemon);
	while (http->ended) {
		struct download *next = http->ended->next;

		download_free(http->ended);
		http->ended = next;
	}
	pthread_mutex_destroy(&http->lock);
	free(http);
}
