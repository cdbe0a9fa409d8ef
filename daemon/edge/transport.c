/*
 * The transport as a whole. See transport.h.
 */
#include "daemon/edge/transport.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/edge/transport_connection.h"
#include "daemon/edge/transport_inner.h"
#include "daemon/edge/transport_listener.h"

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
	pending_list_init(&transport->ended, options->wake, options->context);
	/* The first use of NNG starts its threads; signals are for the loop, but for that which ends a start that hangs. */
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	code = nng_aio_alloc(&first, NULL, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code) {
		transport_stop(transport, 0);
		return pending_error(code);
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

int transport_listen(struct transport *transport, const char *url, const struct transport_tls *tls,
                     struct reason *reason)
{
	int error;

	if (transport->listener_count == TRANSPORT_LISTENER_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "'%s' is one listener more than the limit of %d", url,
		                  TRANSPORT_LISTENER_COUNT_MAX);
	error = listener_init(&transport->listeners[transport->listener_count], transport, url, tls, reason);
	if (!error)
		transport->listener_count++;
	return error;
}

int transport_secure(struct transport *transport, const struct transport_tls *tls, struct reason *reason)
{
	int error = 0;

	for (uint32_t i = 0; i < transport->listener_count && !error; i++)
		error = listener_secure(&transport->listeners[i], tls, reason);
	return error;
}

void transport_poll(struct transport *transport)
{
	pending_list_poll(&transport->ended);
}

void transport_identify(struct transport *transport, uint64_t peer, const char *name)
{
	struct connection *connection = connection_find(transport, peer);

	if (!connection)
		return;
	snprintf(connection->peer.name, sizeof connection->peer.name, "%s", name);
	connection_classify(connection);
}

void transport_reply(struct transport *transport, const struct exchange *exchange, const struct reply *reply,
                     const void *body, size_t body_bytes)
{
	struct connection *connection = connection_find(transport, exchange->peer.id);

	if (connection)
		connection_reply(connection, exchange, reply, body, body_bytes);
}

void transport_withdraw(struct transport *transport, const uint8_t *base, uint64_t bytes)
{
	for (uint32_t i = 0; i < transport->table_count; i++) {
		struct connection *connection = transport->table[i];
		const uint8_t *body = connection ? connection->parser.body : NULL;

		if (!body || !connection->placed || body < base || body >= base + bytes || connection == transport->in_hand)
			continue;
		connection_close(connection);
		flow_abort(&connection->receiving);
	}
}

static bool has_unsent(const struct transport *transport)
{
	for (uint32_t i = 0; i < transport->table_count; i++)
		if (transport->table[i] && transport->table[i]->replies.first && !transport->table[i]->closing)
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
	pending_list_silence(&transport->ended);
	transport->stopping = true;
	for (uint32_t i = 0; i < transport->listener_count; i++)
		listener_close(&transport->listeners[i]);
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

			if (connection && connection_is_idle(connection))
				connection_free(connection);
		}
		transport_poll(transport);
		nng_msleep(1);
	}
	for (uint32_t i = 0; i < transport->listener_count; i++)
		listener_finish(&transport->listeners[i]);
	if (transport->connection_count > 0)
		return; /* NNG still holds some: leak them rather than wait for it, the process is about to end */
	pending_list_finish(&transport->ended);
	free(transport->table);
	free(transport);
}
