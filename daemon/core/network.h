/*
 * The network: at which addresses the daemon listens besides its sockets, and what a remote peer is let into.
 *
 * Over tcp nobody is known by a user. A peer is what its token says, and without one what `anonymous` leaves to
 * everybody. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"
#include "proto/status.h"

enum { NETWORK_URL_COUNT_MAX = 7 };

/* Urls divided by one blank each: "tcp://HOST:PORT" or "tls+tcp://HOST:PORT". STATUS_EARGUMENT with what is wrong. */
int network_urls_check(const char *urls, struct reason *reason);

/* Copies the url with that number; false when there is none. */
bool network_url(const char *urls, uint32_t index, char *url, size_t url_capacity);

/* Whether only processes of this host can reach it. */
bool network_url_is_local(const char *url);

/* Whether it is a tls+tcp:// url. */
bool network_url_is_secret(const char *url);

/* The classes that a peer is not let into when the highest it is granted is that one. */
uint32_t network_refused(enum access granted);
