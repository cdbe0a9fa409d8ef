/*
 * HTTP, by libmicrohttpd. What is asked and answered is the core's (core/web.h).
 *
 *     a thread for each address                    loop thread
 *     reads a request, puts it into [asked]  -- wake -->  http_poll: answers it
 *     sends the answer                       <- resume --
 *     sends a download, piece by piece
 *     puts what has ended into [ended]       -- wake -->  http_poll: its lease ends
 *
 * So slow clients, hostile bytes and downloads of gibibytes never take the loop's time, and the core's state is the
 * loop thread's alone.
 *
 * A download is copied twice, from the slot into a buffer and from there into the socket, though sendfile would save
 * the first copy. But sendfile sends the slot's pages themselves: they stay in the socket's queue, and on the same host in
 * the queue of the receiver, until it has read them, and nobody is told when that is. An update that takes the slot in
 * the meantime would change what is received, of a body that is complete by its length. Copied first, a piece is looked
 * at (the fence) after it was copied and before it is sent.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/address.h"
#include "daemon/core/web.h"
#include "proto/status.h"

enum { HTTP_NAME_BYTES_MAX = 80 };

struct http;

struct http_options {
	uint32_t connection_count_max; /* for each address */
	uint32_t timeout_ms;
	const struct address *addresses;
	uint32_t address_count;
	const int *listeners; /* sockets that listen already; owned from here on, also on failure */
	uint32_t listener_count;
	struct counters *counters;
	void *context; /* for the functions below */
	void (*wake)(void *context); /* any thread: http_poll is to be called */
	/* The rest on the loop thread. */
	void (*request)(void *context, const struct web_request *request, struct web_answer *ret_answer);
	void (*gone)(void *context, uint64_t peer); /* a download has ended */
	bool (*is_over)(void *context, uint64_t peer, uint64_t since_ms); /* web_is_over */
};

/* Listens, and starts the threads. -errno with a sentence. */
int http_start(const struct http_options *options, struct http **ret_http, struct reason *reason);

/* Answers what was asked, and lets go of what has ended. */
void http_poll(struct http *http);

/* Closes connections whose time is over; to be called every few seconds. */
void http_sweep(struct http *http);

/*
 * The name of the n-th address that is listened at, as it is in fact, "127.0.0.1:9464", and whether this host alone can
 * reach it. False: there are no more.
 */
bool http_name(const struct http *http, uint32_t index, char ret_name[HTTP_NAME_BYTES_MAX], bool *ret_is_loopback);

/* Closes everything; nothing more is reported. NULL is allowed. */
void http_stop(struct http *http);
