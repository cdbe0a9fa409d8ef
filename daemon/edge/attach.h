/*
 * The attach socket: AF_UNIX, SOCK_SEQPACKET, one message a datagram. It passes file descriptors, which NNG cannot, and
 * its connections are what leases and attached trainers live by: when one ends, by whatever death, so do they.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "daemon/core/exchange.h"
#include "proto/counters.h"
#include "proto/message.h"
#include "proto/status.h"

struct attach;

struct attach_options {
	uv_loop_t *loop;
	uint32_t connection_count_max;
	uint32_t socket_mode; /* of a socket that is made here */
	int listener_fd;      /* already listening; owned from here on, also on failure; -1: none */
	struct counters *counters;
	void *context; /* for the functions below */
	/* What a peer is not let into (struct peer's refused). groups: its further ones; NULL: not known. */
	uint32_t (*classify)(void *context, int64_t uid, int64_t gid, const uint32_t *groups, size_t group_count);
	void (*request)(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
	                const uint8_t *body, size_t body_bytes);
	void (*gone)(void *context, uint64_t peer);
};

/* Peers of the attach socket have ids from here up, so that they never meet those of the transport. */
#define ATTACH_PEER_FIRST (UINT64_C(1) << 63)

/*
 * Listens at path; a stale socket is replaced (the runtime directory's lock is held). With a listener that somebody else
 * has made, path becomes a link to it, unless it is there anyway. -errno with a sentence.
 */
int attach_start(const struct attach_options *options, const char *path, struct attach **ret_attach,
                 struct reason *reason);

/* Another limit; what each peer is let into is asked for anew. */
void attach_reconfigure(struct attach *attach, uint32_t connection_count_max);

/* Sends a reply, with a file descriptor unless fd is -1. A peer that does not take it is closed. */
void attach_reply(struct attach *attach, const struct exchange *exchange, const struct reply *reply, const void *body,
                  size_t body_bytes, int fd);

/* Closes everything and removes the socket. The loop must run once more before attach_finish. */
void attach_stop(struct attach *attach);
void attach_finish(struct attach *attach);
