/*
 * The sockets that HTTP is listened at.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/core/address.h"
#include "proto/status.h"

/* -errno with a sentence. */
int http_socket_listen(const struct address *address, int waiting_count_max, int *ret_fd, struct reason *reason);

/* Where a socket is, for people, and whether only processes of this host can connect to it as to their own. */
void http_socket_name(int fd, char *name, size_t capacity, bool *ret_is_loopback);
