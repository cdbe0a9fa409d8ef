/*
 * The link: requests to the daemon over NNG's streams, and the only file of the library that knows NNG.
 *
 * It speaks REQ of the scalability protocols by itself (proto/sp.h) instead of using an nng_req0 socket, because NNG
 * 1.5.2 can hang for ever in the background when a req socket's peer dies, and then neither reconnects nor closes. A
 * call takes a connection that rests, or makes one, has it for itself until the answer is there, and puts it back: so
 * calls of several threads are under way at once, and no thread waits in the background.
 *
 * When a connection breaks under a request the request is sent again over a new one (requests are idempotent); when
 * none can be had within LINK_GRACE_MS the call fails. A call that finds no daemon at all fails at once.
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

struct identity;

/* Borrowed until link_close, with all that it points to. */
struct link_options {
	const char *url;
	const char *socket_path;         /* the file behind an ipc url, else NULL */
	const struct identity *identity; /* for tls+tcp */
	const uint8_t *greeting;         /* a message that goes first on each connection; NULL: none */
	size_t greeting_bytes;
	/* Reads the answer to it: a code with a sentence where the connection is of no use. */
	int (*greeted)(const uint8_t *bytes, size_t count, struct reason *reason);
};

/*
 * Does not connect yet. STATUS_EARGUMENT: NNG cannot use the url, or a certificate. STATUS_EFORKED: a parent of this
 * process has used NNG, which cannot be used again before exec.
 */
int link_open(const struct link_options *options, struct link **ret_link, struct reason *reason);

/* Nothing may be under way. */
void link_close(struct link *link);

/* Waits until a connection can be made. -EACCES when this user may not connect, else STATUS_EAWAY, with what to do. */
int link_wait(struct link *link, int64_t deadline_ms, struct reason *reason);

/* A message to the daemon, of two parts; nothing of it is copied. */
struct link_request {
	const uint8_t *head;
	size_t head_bytes;
	const uint8_t *body; /* NULL for none */
	size_t body_bytes;
	uint8_t *place; /* where the body of the answer is received that has place_bytes; NULL: nowhere else */
	size_t place_bytes;
};

struct link_answer {
	uint8_t *bytes; /* of the whole message, or of what is in front of its body; free */
	size_t count;
	bool is_placed; /* the body is in the request's place */
};

/*
 * Sends a message and waits for the answer. What is in the place is of no meaning where the answer is not placed.
 * STATUS_EAWAY, -EACCES: no connection. STATUS_ETIMEOUT: no answer; the request may have been carried out.
 */
int link_call(struct link *link, const struct link_request *request, int64_t deadline_ms, struct link_answer *ret_answer,
              struct reason *reason);

/* "1.5.2" */
const char *link_nng_version(void);
