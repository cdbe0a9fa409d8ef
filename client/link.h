/*
 * The link: one NNG `req` socket to the daemon, and the only file of the library that knows NNG.
 *
 * Every call runs in a context of its own, so calls of several threads are under way at once. The socket connects by
 * itself, again and again; the link counts its connections, so that a call while there is none fails at once instead
 * of queueing. A request that is under way when the connection breaks is sent again over the next one (requests are
 * idempotent); when none comes within LINK_GRACE_MS the call fails.
 *
 * May be used by several threads, except open and close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

enum { LINK_GRACE_MS = 2000 }; /* longer than a restart of the daemon takes */

struct link;

/* A received message; its bytes live until link_message_finish. */
struct link_message {
	void *owned; /* owned; NNG's */
	const uint8_t *bytes;
	size_t count;
};

/*
 * Begins to connect; does not wait. socket_path: the file behind an ipc url, else NULL; borrowed until link_close,
 * like url. STATUS_EARGUMENT: NNG cannot use the url. STATUS_EFORKED: a parent of this process has used NNG, which
 * cannot be used again before exec.
 */
int link_open(const char *url, const char *socket_path, struct link **ret_link, struct reason *reason);

/* Nothing may be under way. Gives up waiting for NNG after a second: its close can hang. */
void link_close(struct link *link);

/* Waits for a connection. -EACCES when this user may not connect, else STATUS_EAWAY, with what to do about it. */
int link_wait(struct link *link, int64_t deadline_ms, struct reason *reason);

/*
 * Sends head and body as one message and waits for the answer.
 * STATUS_EAWAY, -EACCES: no connection. STATUS_ETIMEOUT: no answer; the request may have been carried out.
 */
struct link_request {
	const uint8_t *head;
	size_t head_bytes;
	const uint8_t *body; /* NULL for none */
	size_t body_bytes;
};
int link_call(struct link *link, const struct link_request *request, int64_t deadline_ms,
              struct link_message *ret_message, struct reason *reason);

void link_message_finish(struct link_message *message);
