/*
 * The sockets of trainers and readers: emad.sock, attach.sock and the addresses for other hosts. What comes from them
 * goes to the service.
 */
#pragma once

#include "daemon/parts.h"

/* From now on there are clients. When that fails, the daemon's error says so and the loop ends. */
void sockets_open(struct daemon *daemon);

/*
 * Puts the daemon's configuration and what was read for the network in force, peers are judged anew. -ENOMEM: all stays
 * as it was.
 */
int sockets_reconfigure(struct daemon *daemon);

/* Certificate and key for connections that come from now on. */
int sockets_secure(struct daemon *daemon, const struct network_files *network, struct reason *reason);

/* Closes the connections; the loop still runs once. */
void sockets_close(struct daemon *daemon, uint32_t timeout_ms);

/* The loop has run for the last time. */
void sockets_finish(struct daemon *daemon);
