/*
 * Connections over NNG 1.5's streams: see link.h.
 *
 * Everything of NNG aborts in a forked child, hence link_process below.
 */
#include "client/link.h"

#include "client/identity.h"
#include "client/threads.h"
#include "client/wait.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "proto/sp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	RETRY_MS = 50, /* between attempts to connect */
	ANSWER_FIRST_BYTES = 4096, /* of an answer, received at once; at least what is in front of its header */
	MESSAGE_BYTES_MAX = MESSAGE_BODY_BYTES_MAX + MESSAGE_HEADER_BYTES_MAX + 4096,
};

/* One request at a time goes over it. */
struct connection {
	struct connection *next; /* guarded by the link's lock */
	nng_stream *stream;
	nng_aio *aio;
};

struct link {
	struct link_options options; /* borrowed until link_close */
	const char *url;         /* of the options */
	const char *socket_path; /* of the options */
	enum sp_wire wire;
	nng_tls_config *tls; /* owned; NULL: without */
	_Atomic uint32_t request_id;
	pthread_mutex_t lock;
	struct connection *idle; /* guarded by lock; owned */
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

/* Whether there is room for the threads of NNG, which it makes at its first use. */
static int link_threads_check(struct reason *reason)
{
	enum { TASK_MAX = 16, RESOLVER = 4, OTHERS = 3 };
	static _Atomic bool passed;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t cpu_count = cpus > 0 ? (uint32_t)cpus : 1, made_count = 0;
	uint32_t count = (cpu_count > TASK_MAX / 2 ? TASK_MAX : 2 * cpu_count) + cpu_count + RESOLVER + OTHERS;
	int code = atomic_load(&passed) ? 0 : threads_try(count, &made_count);

	if (code)
		return reason_set(reason, code,
		                  "of %" PRIu32 " threads that connections need only %" PRIu32
		                  " can be made: %s: raise the limit on tasks (ulimit -u, docker run --pids-limit)",
		                  count, made_count, strerror(-code));
	atomic_store(&passed, true);
	return 0;
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

/* What a daemon that speaks TLS may not like about us. Some versions of TLS tell it only by hanging up. */
static const char *identity_doubt(const struct identity *identity)
{
	if (!identity->authority)
		return "";
	return identity->certificate ? ", and takes our certificate (EMAD_TLS_CERTIFICATE) and its key (EMAD_TLS_KEY)"
	                             : ", and wants no certificate of ours (EMAD_TLS_CERTIFICATE)";
}

/* Why there is no connection, and what to do about it. */
static int link_away(const struct link *link, struct reason *reason)
{
	const char *slash = link->socket_path ? strrchr(link->socket_path, '/') : NULL;

	if (!link->socket_path)
		return reason_set(reason, STATUS_EAWAY,
		                  "no daemon answers at %s: see that emad runs there and listens at that address%s, or set "
		                  "EMAD_SOCKET",
		                  link->url, identity_doubt(link->options.identity));
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

/* Nobody has answered so far: neither has a connection come about, or (greeted) it has, and that is all. */
static int link_late(const struct link *link, bool greeted, struct reason *reason)
{
	if (greeted)
		return reason_set(reason, STATUS_ETIMEOUT,
		                  "the daemon at %s takes connections but did not answer in time: it may be stopped, or "
		                  "have too much to do",
		                  link->url);
	return reason_set(reason, STATUS_ETIMEOUT, "%s: %s before there was a connection: see that the address is right and "
	                  "its name known, and that no firewall is in the way (at the daemon's host: IPAddressAllow= of its unit)", link->url,
	                  nng_strerror(NNG_ETIMEDOUT));
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void connection_close(struct connection *connection)
{
	if (!connection)
		return;
	if (connection->stream)
		nng_stream_close(connection->stream);
	nng_aio_free(connection->aio);
	nng_stream_free(connection->stream);
	free(connection);
}

/* NNG's code. */
static int dialer_make(const struct link *link, nng_stream_dialer **ret_dialer)
{
	nng_stream_dialer *dialer;
	int code = nng_stream_dialer_alloc(&dialer, link->url);

	if (code)
		return code;
	if (link->tls)
		code = nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, link->tls); /* which it holds */
	/* A request goes in several parts, which must not wait for each other: behind TLS that is not NNG's default. */
	if (code == 0 && link->wire == SP_WIRE_TCP)
		code = nng_stream_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true);
	if (code) {
		nng_stream_dialer_free(dialer);
		return code;
	}
	*ret_dialer = dialer;
	return 0;
}

/* Waits for the operation that has begun on the aio. NNG's code. */
static int operation_wait(nng_aio *aio)
{
	nng_aio_wait(aio);
	return nng_aio_result(aio);
}

/* 0 at the deadline would be NNG's "do not wait": the operation then still gets a moment. */
static void deadline_set(nng_aio *aio, int64_t deadline_ms)
{
	int left_ms = wait_left_ms(deadline_ms);

	nng_aio_set_timeout(aio, left_ms > 0 ? left_ms : 1);
}

/*
 * NNG's code. A dialer dials once: NNG 1.5 looks names and numbers up in a thread of its own, with one aio of the dialer,
 * and what a deadline has left behind of that is still under way when the next attempt on the same dialer begins. It
 * uses the aio again all the same, and finding that out it aborts the process.
 */
static int stream_dial(const struct link *link, int64_t deadline_ms, nng_stream **ret_stream)
{
	nng_stream_dialer *dialer;
	nng_aio *aio = NULL;
	int code = dialer_make(link, &dialer);

	if (code)
		return code;
	code = nng_aio_alloc(&aio, NULL, NULL);
	if (code == 0) {
		deadline_set(aio, deadline_ms);
		nng_stream_dialer_dial(dialer, aio);
		code = operation_wait(aio);
	}
	if (code == 0)
		*ret_stream = nng_aio_get_output(aio, 0);
	/* The aio goes first: that waits for the thread of the deadline, which has not done with the dialer yet. */
	nng_aio_free(aio);
	nng_stream_dialer_free(dialer);
	return code;
}

/* Sends all parts; they are consumed. NNG's code. */
static int send_all(struct connection *connection, nng_iov *parts, unsigned count, int64_t deadline_ms)
{
	while (count > 0) {
		size_t sent;
		int code;

		deadline_set(connection->aio, deadline_ms);
		code = nng_aio_set_iov(connection->aio, count, parts);
		if (code)
			return code;
		nng_stream_send(connection->stream, connection->aio);
		code = operation_wait(connection->aio);
		if (code)
			return code;
		sent = nng_aio_count(connection->aio);
		while (count > 0 && sent >= parts->iov_len) {
			sent -= parts->iov_len;
			parts++;
			count--;
		}
		if (count > 0) {
			parts->iov_buf = (uint8_t *)parts->iov_buf + sent;
			parts->iov_len -= sent;
		}
	}
	return 0;
}

/* Receives at least so many bytes, as many as come with them up to the capacity. NNG's code. */
static int receive_some(struct connection *connection, uint8_t *bytes, size_t least, size_t capacity,
                        int64_t deadline_ms, size_t *ret_count)
{
	size_t count = 0;

	while (count < least) {
		nng_iov part = {bytes + count, capacity - count};
		int code;

		deadline_set(connection->aio, deadline_ms);
		code = nng_aio_set_iov(connection->aio, 1, &part);
		if (code)
			return code;
		nng_stream_recv(connection->stream, connection->aio);
		code = operation_wait(connection->aio);
		if (code)
			return code;
		count += nng_aio_count(connection->aio);
	}
	*ret_count = count;
	return 0;
}

/* Receives exactly that many bytes. NNG's code. */
static int receive_all(struct connection *connection, uint8_t *bytes, size_t count, int64_t deadline_ms)
{
	size_t received;

	return receive_some(connection, bytes, count, count, deadline_ms, &received);
}

static int handshake(struct connection *connection, int64_t deadline_ms)
{
	uint8_t own[SP_HANDSHAKE_BYTES], expected[SP_HANDSHAKE_BYTES], received[SP_HANDSHAKE_BYTES];
	nng_iov part = {own, sizeof(own)};
	int code;

	sp_handshake(SP_ROLE_REQ, own);
	sp_handshake(SP_ROLE_REP, expected);
	code = send_all(connection, &part, 1, deadline_ms);
	if (code == 0)
		code = receive_all(connection, received, sizeof(received), deadline_ms);
	if (code == 0 && memcmp(received, expected, sizeof(expected)) != 0)
		code = NNG_EPROTO;
	return code;
}

/* NNG's code. */
static int request_send(struct link *link, struct connection *connection, const struct link_request *request,
                        const uint8_t id[SP_ID_BYTES], int64_t deadline_ms)
{
	uint8_t prefix[SP_PREFIX_BYTES_MAX];
	size_t prefix_bytes = sp_prefix(link->wire, id, SP_ID_BYTES, request->head_bytes + request->body_bytes, prefix);
	nng_iov parts[] = {
		{prefix, prefix_bytes},
		{(void *)(uintptr_t)request->head, request->head_bytes},
		{(void *)(uintptr_t)request->body, request->body_bytes},
	};

	return send_all(connection, parts, request->body_bytes > 0 ? 3 : 2, deadline_ms);
}

/* An answer that is coming in. */
struct arrival {
	uint8_t first[ANSWER_FIRST_BYTES]; /* which most answers are no longer than */
	size_t count;                      /* of these that are here */
	size_t prefix_bytes;               /* in front of the message */
	size_t message_bytes;
};

/* NNG's code. */
static int answer_begin(struct link *link, struct connection *connection, const uint8_t id[SP_ID_BYTES],
                        int64_t deadline_ms, struct arrival *arrival)
{
	uint8_t prefix[SP_PREFIX_BYTES_MAX];
	size_t prefix_bytes = sp_prefix(link->wire, id, SP_ID_BYTES, 0, prefix), more;
	uint64_t message_bytes;
	int code = receive_some(connection, arrival->first, prefix_bytes, sizeof(arrival->first), deadline_ms, &arrival->count);

	if (code)
		return code;
	if (sp_prefix_read(link->wire, arrival->first, &message_bytes, NULL) != 0 ||
	    memcmp(arrival->first + prefix_bytes - SP_ID_BYTES, id, SP_ID_BYTES) != 0 ||
	    message_bytes < MESSAGE_PREFIX_BYTES || message_bytes > MESSAGE_BYTES_MAX ||
	    arrival->count - prefix_bytes > message_bytes)
		return NNG_EPROTO;
	arrival->prefix_bytes = prefix_bytes;
	arrival->message_bytes = message_bytes;
	prefix_bytes += MESSAGE_PREFIX_BYTES;
	if (arrival->count >= prefix_bytes)
		return 0;
	code = receive_some(connection, arrival->first + arrival->count, prefix_bytes - arrival->count,
	                    prefix_bytes - arrival->count, deadline_ms, &more);
	arrival->count = prefix_bytes;
	return code;
}

/* Bytes of the answer that go on being received from *from, of which some are here. NNG's code. */
static int answer_take(struct connection *connection, struct arrival *arrival, size_t *from, uint8_t *bytes, size_t count,
                       int64_t deadline_ms)
{
	size_t here = arrival->count - *from;

	if (here > count)
		here = count;
	memcpy(bytes, arrival->first + *from, here);
	*from += here;
	return here == count ? 0 : receive_all(connection, bytes + here, count - here, deadline_ms);
}

/* NNG's code. */
static int answer_receive(struct link *link, struct connection *connection, const struct link_request *request,
                          const uint8_t id[SP_ID_BYTES], int64_t deadline_ms, struct link_answer *ret_answer)
{
	struct arrival arrival;
	struct link_answer answer;
	size_t head_bytes, from;
	int code = answer_begin(link, connection, id, deadline_ms, &arrival);

	if (code)
		return code;
	from = arrival.prefix_bytes;
	head_bytes = MESSAGE_PREFIX_BYTES + message_header_bytes(arrival.first + from);
	answer.is_placed = request->place && head_bytes + request->place_bytes == arrival.message_bytes;
	answer.count = answer.is_placed ? head_bytes : arrival.message_bytes;
	answer.bytes = malloc(answer.count);
	if (!answer.bytes)
		return NNG_ENOMEM;
	code = answer_take(connection, &arrival, &from, answer.bytes, answer.count, deadline_ms);
	if (code == 0 && answer.is_placed)
		code = answer_take(connection, &arrival, &from, request->place, request->place_bytes, deadline_ms);
	if (code) {
		free(answer.bytes);
		return code;
	}
	*ret_answer = answer;
	return 0;
}

/* Shows who asks, on a connection that is new. NNG's code; *ret_code is the daemon's. */
static int greet(struct link *link, struct connection *connection, int64_t deadline_ms, int *ret_code,
                 struct reason *reason)
{
	static const uint8_t id[SP_ID_BYTES] = {0x80, 0, 0, 0};
	const struct link_request request = {.head = link->options.greeting, .head_bytes = link->options.greeting_bytes};
	struct link_answer answer;
	int code = request_send(link, connection, &request, id, deadline_ms);

	if (code == 0)
		code = answer_receive(link, connection, &request, id, deadline_ms, &answer);
	if (code)
		return code;
	*ret_code = link->options.greeted(answer.bytes, answer.count, reason);
	free(answer.bytes);
	return 0;
}

/* STATUS_EAWAY or -EACCES when nobody listens, or (*ret_broke) somebody did and hung up; STATUS_ETIMEOUT. */
static int connection_open(struct link *link, int64_t deadline_ms, struct connection **ret_connection,
                           bool *ret_broke, struct reason *reason)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int code, refusal = 0;

	if (!connection)
		return -ENOMEM;
	code = nng_aio_alloc(&connection->aio, NULL, NULL);
	if (code == 0)
		code = stream_dial(link, deadline_ms, &connection->stream);
	if (code == 0)
		code = handshake(connection, deadline_ms);
	if (code == 0 && link->options.greeting)
		code = greet(link, connection, deadline_ms, &refusal, reason);
	if (code == 0 && refusal) {
		connection_close(connection);
		return refusal;
	}
	if (code == 0) {
		*ret_connection = connection;
		return 0;
	}
	*ret_broke = connection->stream;
	connection_close(connection);
	if (link_code(code) == STATUS_ETIMEOUT)
		return link_late(link, *ret_broke, reason);
	if (code == NNG_EPEERAUTH || code == NNG_ECRYPTO)
		return reason_set(reason, -EACCES,
		                  "%s: TLS came to nothing: %s (is the daemon's certificate valid, from an authority in EMAD_TLS_CA, and "
		                  "for this name, or that in EMAD_TLS_NAME%s?)",
		                  link->url, nng_strerror(code),
		                  link->options.identity->certificate ? ", and ours from an authority that it knows" : "");
	if (code == NNG_EPROTO)
		return reason_set(reason, STATUS_EPROTOCOL, "what answers at %s is not emad", link->url);
	if (code == NNG_EADDRINVAL)
		return reason_set(reason, STATUS_EAWAY, "no address is known for the name, or no such port, in %s: see DNS, /etc/hosts, "
		                  "or EMAD_SOCKET", link->url);
	if (link_code(code) == -ENOMEM || link_code(code) == -EMFILE)
		return link_fault(link, code, reason);
	return link_away(link, reason);
}

static struct connection *idle_take(struct link *link)
{
	struct connection *connection;

	pthread_mutex_lock(&link->lock);
	connection = link->idle;
	if (connection)
		link->idle = connection->next;
	pthread_mutex_unlock(&link->lock);
	return connection;
}

static void idle_put(struct link *link, struct connection *connection)
{
	pthread_mutex_lock(&link->lock);
	connection->next = link->idle;
	link->idle = connection;
	pthread_mutex_unlock(&link->lock);
}

/* After one has broken the others are of the same daemon that is gone. */
static void idle_drop(struct link *link)
{
	struct connection *connection;

	while ((connection = idle_take(link)))
		connection_close(connection);
}

/* The name in a url's address, without port and brackets. */
static int host_of(const char *url, char *host, size_t capacity)
{
	const char *begin = strstr(url, "://") + 3, *end = strrchr(begin, ':');

	if (!end)
		end = begin + strlen(begin);
	if (*begin == '[' && end[-1] == ']') {
		begin++;
		end--;
	}
	if (end <= begin || (size_t)(end - begin) >= capacity)
		return NNG_EADDRINVAL;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = '\0';
	return 0;
}

/* NNG's code. */
static int tls_set(struct link *link)
{
	const struct identity *identity = link->options.identity;
	nng_tls_config *config;
	char host[256];
	int code = nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT);

	if (code)
		return code;
	code = host_of(link->url, host, sizeof(host));
	if (code == 0)
		code = nng_tls_config_server_name(config, identity->name ? identity->name : host);
	if (code == 0)
		code = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
	if (code == 0)
		code = nng_tls_config_ca_chain(config, identity->authority, NULL);
	if (code == 0 && identity->certificate)
		code = nng_tls_config_own_cert(config, identity->certificate, identity->key, NULL);
	if (code) {
		nng_tls_config_free(config);
		return code;
	}
	link->tls = config;
	return 0;
}

/* NNG's code, also where no dialer can be made. Its first use of NNG starts NNG's threads, which take no signals. */
static int link_prepare(struct link *link)
{
	nng_stream_dialer *dialer;
	sigset_t before;
	int code = 0;

	wait_signals_block(&before);
	if (strncmp(link->url, "tls+tcp://", strlen("tls+tcp://")) == 0)
		code = tls_set(link);
	if (code == 0)
		code = dialer_make(link, &dialer);
	if (code == 0)
		nng_stream_dialer_free(dialer);
	wait_signals_restore(&before);
	return code;
}

int link_open(const struct link_options *options, struct link **ret_link, struct reason *reason)
{
	struct link *link;
	int code;

	code = link_process_check(reason);
	if (!code)
		code = link_threads_check(reason);
	if (code)
		return code;
	link = calloc(1, sizeof(*link));
	if (!link)
		return -ENOMEM;
	link->options = *options;
	link->url = options->url;
	link->socket_path = options->socket_path;
	link->wire = strncmp(link->url, "ipc://", strlen("ipc://")) == 0 ? SP_WIRE_IPC : SP_WIRE_TCP;
	pthread_mutex_init(&link->lock, NULL);
	code = link_prepare(link);
	if (code == NNG_ECRYPTO || code == NNG_EINVAL) {
		code = reason_set(reason, STATUS_EARGUMENT, "%s: %s: see the files in EMAD_TLS_CA, EMAD_TLS_CERTIFICATE and EMAD_TLS_KEY",
		                  link->url, nng_strerror(code));
		link_close(link);
		return code;
	}
	if (code) {
		code = link_fault(link, code, reason);
		link_close(link);
		return code;
	}
	*ret_link = link;
	return 0;
}

void link_close(struct link *link)
{
	if (!link)
		return;
	idle_drop(link);
	if (link->tls)
		nng_tls_config_free(link->tls);
	pthread_mutex_destroy(&link->lock);
	free(link);
}

static void pause_ms(int64_t deadline_ms)
{
	int left_ms = wait_left_ms(deadline_ms);
	struct timespec pause = {.tv_nsec = (left_ms < RETRY_MS ? left_ms : RETRY_MS) * 1000000L};

	(void)nanosleep(&pause, NULL);
}

/*
 * Connects; where nobody listens tries again until patience_ms. When the last attempt runs out of time, why those before
 * it came to nothing says more.
 */
static int connect_patiently(struct link *link, int64_t deadline_ms, int64_t patience_ms,
                             struct connection **ret_connection, struct reason *reason)
{
	int64_t grace_ms = wait_now_ms() + LINK_GRACE_MS;
	int code = 0;

	for (;;) {
		struct reason latest = {.text = ""};
		bool broke = false;
		int before = code;

		code = connection_open(link, deadline_ms, ret_connection, &broke, &latest);
		if (before && code == STATUS_ETIMEOUT)
			return before;
		if (code && reason && latest.text[0])
			*reason = latest;
		/* The way there is made of more than the daemon: it may work at the next try. */
		if (broke && link->wire == SP_WIRE_TCP && patience_ms < grace_ms)
			patience_ms = grace_ms;
		if (code != STATUS_EAWAY || wait_left_ms(patience_ms) == 0 || wait_left_ms(deadline_ms) == 0)
			return code;
		pause_ms(patience_ms);
	}
}

int link_wait(struct link *link, int64_t deadline_ms, struct reason *reason)
{
	struct connection *connection;
	int code = connect_patiently(link, deadline_ms, deadline_ms, &connection, reason);

	if (code == 0)
		idle_put(link, connection);
	return code;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

/* What a failed exchange means to the caller. */
static int exchange_fault(const struct link *link, int code, struct reason *reason)
{
	if (code == NNG_EPROTO)
		return reason_set(reason, STATUS_EPROTOCOL, "%s: the answer is not one to this request", link->url);
	if (link_code(code) == STATUS_ETIMEOUT)
		return reason_set(reason, STATUS_ETIMEOUT, "the daemon at %s is connected but did not answer in time",
		                  link->url);
	return link_fault(link, code, reason);
}

int link_call(struct link *link, const struct link_request *request, int64_t deadline_ms, struct link_answer *ret_answer,
              struct reason *reason)
{
	uint32_t number = atomic_fetch_add(&link->request_id, 1) | UINT32_C(0x80000000);
	const uint8_t id[SP_ID_BYTES] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8),
	                                 (uint8_t)number};
	struct connection *connection = idle_take(link);
	int64_t patience_ms = wait_now_ms(); /* how long to wait for a daemon: at first not at all */

	for (;;) {
		bool sent;
		int code = 0;

		if (!connection)
			code = connect_patiently(link, deadline_ms, patience_ms, &connection, reason);
		if (code)
			return code;
		code = request_send(link, connection, request, id, deadline_ms);
		sent = code == 0;
		if (code == 0)
			code = answer_receive(link, connection, request, id, deadline_ms, ret_answer);
		if (code == 0) {
			idle_put(link, connection);
			return 0;
		}
		connection_close(connection);
		connection = NULL;
		if (link_code(code) != STATUS_EAWAY || wait_left_ms(deadline_ms) == 0)
			return exchange_fault(link, code, reason);
		/* It broke: the daemon has ended, or does so. What it may have got is worth waiting for its return. */
		idle_drop(link);
		if (sent || link->wire == SP_WIRE_TCP)
			patience_ms = wait_now_ms() + LINK_GRACE_MS;
	}
}

const char *link_nng_version(void)
{
	return nng_version();
}
