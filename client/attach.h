/*
 * The attach socket: the daemon's AF_UNIX SOCK_SEQPACKET listener, which passes file descriptors and ends what belongs
 * to a connection when the connection ends (a lease, a trainer's claim on its stages).
 *
 * One datagram is one message (proto/message.h). A connection is a file descriptor, which attach_close ends. Used by
 * one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/message.h"
#include "proto/status.h"

enum { ATTACH_REPLY_BYTES_MAX = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX };

/* Connects. -EACCES, STATUS_EAWAY, STATUS_ETIMEOUT with a sentence. */
int attach_open(const char *path, int64_t deadline_ms, int *ret_connection, struct reason *reason);

/*
 * Sends a message and waits for its answer, which is written to reply (ATTACH_REPLY_BYTES_MAX bytes) with its size.
 * *ret_fd receives the descriptor that came along, or -1; it belongs to the caller.
 * STATUS_EAWAY: the daemon hung up. STATUS_ETIMEOUT. STATUS_EPROTOCOL.
 */
struct attach_answer {
	uint8_t *bytes; /* borrowed from the caller */
	size_t count;
	int fd;
};
int attach_call(int connection, const uint8_t *message, size_t message_bytes, int64_t deadline_ms,
                struct attach_answer *answer, struct reason *reason);

/* The other side has ended the connection. Does not wait. */
bool attach_hung_up(int connection);

/* Ends a connection, or nothing (-1). close() alone would leave it to a forked child that has inherited it. */
void attach_close(int connection);
