/*
 * The link to the daemon over NNG 1.5: see link.h.
 *
 * Facts of that version which shape this file: a dial that waits and fails is never tried again, so the dial does not
 * wait and connections are learnt from pipe events; a message over the limit is a silent disconnect, so a limit is set
 * here and the daemon's own is checked by the caller; nng_close may hang, so it gets a thread and a time limit; and
 * everything aborts in a forked child, hence link_process below.
 */
#include "client/link.h"

#include "client/wait.h"
#include "proto/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	RECONNECT_MIN_MS = 50,
	RECONNECT_MAX_MS = 1000,
	RESEND_MS = 24 * 3600 * 1000, /* never inside a call: NNG sends again by itself when a connection breaks */
	CLOSE_MAX_MS = 1000,
	MESSAGE_BYTES_MAX = MESSAGE_BODY_BYTES_MAX + MESSAGE_HEADER_BYTES_MAX + 4096,
};

struct link {
	nng_socket socket;
	const char *url;         /* borrowed until link_close */
	const char *socket_path; /* the same; NULL unless ipc */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* pairs with lock; broadcast when anything guarded by it changes */
	unsigned pipe_count;    /* guarded by lock */
	int64_t down_since_ms;  /* guarded by lock; meaningful while pipe_count is 0 */
	bool closed;            /* guarded by lock */
	bool abandoned;         /* guarded by lock; the closing thread frees the link */
};

/* One request under way; lives on the caller's stack. */
struct call {
	struct link *link;
	nng_aio *aio;
	bool done; /* guarded by link->lock */
};

/*
 * The process that uses NNG. NNG's state belongs to the process too, and its first call in a child aborts the program;
 * only remembering it here lets a child be told so instead.
 */
static _Atomic pid_t link_process;

static int link_process_check(struct reason *reason)
{
	pid_t here = getpid(), before = 0;

	if (atomic_compare_exchange_strong(&link_process, &before, here) || before == here)
		return 0;
	return reason_set(reason, STATUS_EFORKED,
	                  "process %d was forked from process %d, which has used emad: a child must call exec first "
	                  "(in Python: multiprocessing's 'spawn' or 'forkserver')",
	                  (int)here, (int)before);
}

/* NNG's codes are positive and its own. */
static int link_code(int code)
{
	switch (code) {
	case 0:
		return 0;
	case NNG_ENOMEM:
		return -ENOMEM;
	case NNG_ETIMEDOUT:
	case NNG_ECANCELED:
		return STATUS_ETIMEOUT;
	case NNG_EADDRINVAL:
	case NNG_EINVAL:
	case NNG_ENOTSUP:
		return STATUS_EARGUMENT;
	case NNG_EPERM:
		return -EACCES;
	case NNG_ENOFILES:
		return -EMFILE;
	case NNG_ECLOSED:
	case NNG_ECONNREFUSED:
	case NNG_ECONNRESET:
	case NNG_ECONNABORTED:
	case NNG_ECONNSHUT:
	case NNG_EUNREACHABLE:
	case NNG_EPEERAUTH:
		return STATUS_EAWAY;
	}
	if (code & NNG_ESYSERR)
		return -(code & ~NNG_ESYSERR);
	return STATUS_EINTERNAL;
}

static int link_fault(const struct link *link, int code, struct reason *reason)
{
	return reason_set(reason, link_code(code), "%s: %s", link->url, nng_strerror(code));
}

/* Why there is no connection, and what to do about it. */
static int link_away(const struct link *link, struct reason *reason)
{
	const char *slash = link->socket_path ? strrchr(link->socket_path, '/') : NULL;

	if (!link->socket_path)
		return reason_set(reason, STATUS_EAWAY,
		                  "no daemon answers at %s: see that emad runs there and listens at that address, or set "
		                  "EMAD_SOCKET",
		                  link->url);
	if (faccessat(AT_FDCWD, link->socket_path, W_OK, AT_EACCESS) < 0 && errno == EACCES)
		return reason_set(reason, -EACCES,
		                  "uid %u may not connect to %s: join the socket's group, or set EMAD_SOCKET to a daemon "
		                  "of your own",
		                  (unsigned)geteuid(), link->socket_path);
	return reason_set(reason, STATUS_EAWAY,
	                  "no daemon answers at %s: start one with 'emad --runtime-dir %.*s' or 'systemctl start emad', "
	                  "or set EMAD_SOCKET",
	                  link->url, slash ? (int)(slash - link->socket_path) : 1, slash ? link->socket_path : ".");
}

/* Called by NNG's threads. */
static void pipe_event(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
	struct link *link = argument;

	(void)pipe;
	pthread_mutex_lock(&link->lock);
	if (event == NNG_PIPE_EV_ADD_POST) {
		link->pipe_count++;
	} else if (link->pipe_count > 0 && --link->pipe_count == 0) {
		link->down_since_ms = wait_now_ms();
	}
	pthread_cond_broadcast(&link->changed);
	pthread_mutex_unlock(&link->lock);
}

static int link_configure(struct link *link)
{
	int code = 0;

	code = code ? code : nng_socket_set_ms(link->socket, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS);
	code = code ? code : nng_socket_set_ms(link->socket, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS);
	code = code ? code : nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, RESEND_MS);
	code = code ? code : nng_socket_set_size(link->socket, NNG_OPT_RECVMAXSZ, MESSAGE_BYTES_MAX);
	code = code ? code : nng_pipe_notify(link->socket, NNG_PIPE_EV_ADD_POST, pipe_event, link);
	code = code ? code : nng_pipe_notify(link->socket, NNG_PIPE_EV_REM_POST, pipe_event, link);
	code = code ? code : nng_dial(link->socket, link->url, NULL, NNG_FLAG_NONBLOCK);
	return code;
}

static void link_free(struct link *link)
{
	pthread_cond_destroy(&link->changed);
	pthread_mutex_destroy(&link->lock);
	free(link);
}

int link_open(const char *url, const char *socket_path, struct link **ret_link, struct reason *reason)
{
	struct link *link;
	sigset_t before;
	int code;

	code = link_process_check(reason);
	if (code)
		return code;
	link = calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->url = url;
	link->socket_path = socket_path;
	link->down_since_ms = wait_now_ms();
	code = wait_condition_init(&link->changed);
	if (code) {
		free(link);
		return code;
	}
	pthread_mutex_init(&link->lock, NULL);

	wait_signals_block(&before);
	code = nng_req0_open(&link->socket);
	if (code) {
		code = link_fault(link, code, reason);
		link_free(link);
	} else {
		code = link_configure(link);
		if (code) {
			code = link_fault(link, code, reason);
			link_close(link);
		}
	}
	wait_signals_restore(&before);
	if (code == 0)
		*ret_link = link;
	return code;
}

static void *link_close_run(void *argument)
{
	struct link *link = argument;
	bool abandoned;

	nng_close(link->socket);
	pthread_mutex_lock(&link->lock);
	link->closed = true;
	abandoned = link->abandoned;
	pthread_cond_broadcast(&link->changed);
	pthread_mutex_unlock(&link->lock);
	if (abandoned)
		link_free(link);
	return NULL;
}

void link_close(struct link *link)
{
	int64_t deadline_ms = wait_deadline(CLOSE_MAX_MS);
	pthread_t thread;
	bool closed;

	if (!link)
		return;
	if (wait_thread_start(&thread, "emad-close", link_close_run, link)) {
		link_close_run(link);
		link_free(link);
		return;
	}
	pthread_mutex_lock(&link->lock);
	while (!link->closed && wait_left_ms(deadline_ms) > 0)
		wait_condition(&link->changed, &link->lock, deadline_ms);
	closed = link->closed;
	link->abandoned = !closed;
	pthread_mutex_unlock(&link->lock);
	if (!closed) {
		pthread_detach(thread);
		return;
	}
	pthread_join(thread, NULL);
	link_free(link);
}

int link_wait(struct link *link, int64_t deadline_ms, struct reason *reason)
{
	struct reason away;
	bool up;

	/* A wait for permission would be in vain. */
	if (link_away(link, &away) == -EACCES)
		return reason_set(reason, -EACCES, "%s", away.text);
	pthread_mutex_lock(&link->lock);
	while (link->pipe_count == 0 && wait_left_ms(deadline_ms) > 0)
		wait_condition(&link->changed, &link->lock, deadline_ms);
	up = link->pipe_count > 0;
	pthread_mutex_unlock(&link->lock);
	return up ? 0 : link_away(link, reason);
}

static void call_done(void *argument)
{
	struct call *call = argument;

	pthread_mutex_lock(&call->link->lock);
	call->done = true;
	pthread_cond_broadcast(&call->link->changed);
	pthread_mutex_unlock(&call->link->lock);
}

/*
 * Waits for the operation of call->aio, and cancels it when the deadline passes or the connection stays away.
 * 0 or STATUS_...; the operation has ended either way.
 */
static int call_wait(struct call *call, int64_t deadline_ms, struct reason *reason)
{
	struct link *link = call->link;
	int64_t limit_ms = deadline_ms;
	bool away = false, done;
	int code;

	pthread_mutex_lock(&link->lock);
	while (!call->done) {
		away = link->pipe_count == 0;
		limit_ms = deadline_ms;
		if (away && link->down_since_ms + LINK_GRACE_MS < limit_ms)
			limit_ms = link->down_since_ms + LINK_GRACE_MS;
		if (wait_left_ms(limit_ms) == 0)
			break;
		wait_condition(&link->changed, &link->lock, limit_ms);
	}
	done = call->done;
	pthread_mutex_unlock(&link->lock);

	if (!done)
		nng_aio_cancel(call->aio);
	nng_aio_wait(call->aio);
	code = nng_aio_result(call->aio);
	if (code == 0)
		return 0; /* it may have ended just before it was cancelled */
	if (done)
		return link_fault(link, code, reason);
	if (away)
		return link_away(link, reason);
	return reason_set(reason, STATUS_ETIMEOUT, "the daemon at %s is connected but did not answer in time", link->url);
}

static int call_message(const struct link_request *request, nng_msg **ret_message)
{
	nng_msg *message = NULL;
	int code;

	code = nng_msg_alloc(&message, request->head_bytes + request->body_bytes);
	if (code)
		return code;
	memcpy(nng_msg_body(message), request->head, request->head_bytes);
	if (request->body_bytes > 0)
		memcpy((uint8_t *)nng_msg_body(message) + request->head_bytes, request->body, request->body_bytes);
	*ret_message = message;
	return 0;
}

/* Takes the message over. */
static int call_exchange(struct call *call, nng_ctx context, nng_msg *message, int64_t deadline_ms,
                         struct reason *reason)
{
	int code;

	nng_aio_set_timeout(call->aio, NNG_DURATION_INFINITE);
	nng_aio_set_msg(call->aio, message);
	nng_ctx_send(context, call->aio);
	code = call_wait(call, deadline_ms, reason);
	if (code) {
		nng_msg_free(nng_aio_get_msg(call->aio)); /* what was not sent stays ours */
		return code;
	}
	call->done = false; /* nothing is under way, so nobody else looks at it */
	nng_aio_set_msg(call->aio, NULL);
	nng_ctx_recv(context, call->aio);
	return call_wait(call, deadline_ms, reason);
}

static bool link_is_up(struct link *link)
{
	bool up;

	pthread_mutex_lock(&link->lock);
	up = link->pipe_count > 0;
	pthread_mutex_unlock(&link->lock);
	return up;
}

int link_call(struct link *link, const struct link_request *request, int64_t deadline_ms,
              struct link_message *ret_message, struct reason *reason)
{
	struct call call = {.link = link};
	nng_msg *message = NULL;
	nng_ctx context;
	int code;

	if (!link_is_up(link))
		return link_away(link, reason);
	code = nng_ctx_open(&context, link->socket);
	if (code)
		return link_fault(link, code, reason);
	code = nng_aio_alloc(&call.aio, call_done, &call);
	if (code == 0)
		code = call_message(request, &message);
	if (code)
		code = link_fault(link, code, reason);
	else
		code = call_exchange(&call, context, message, deadline_ms, reason);
	if (code == 0) {
		message = nng_aio_get_msg(call.aio);
		*ret_message = (struct link_message){message, nng_msg_body(message), nng_msg_len(message)};
	}
	nng_ctx_close(context);
	if (call.aio)
		nng_aio_free(call.aio);
	return code;
}

void link_message_finish(struct link_message *message)
{
	if (message->owned)
		nng_msg_free(message->owned);
	*message = (struct link_message){0};
}
