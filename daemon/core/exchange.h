/*
 * Who asks, and where the answer goes: plain values, so that an answer may come later than the question.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { EXCHANGE_TAG_BYTES = 32 };

/* Peers from here up are downloads by HTTP. They only hold leases, and never ask for anything else. */
#define PEER_DOWNLOAD_FIRST (UINT64_C(3) << 62)

/* Stands for whoever had something of an earlier daemon and may come back for it. No connection has this number. */
#define PEER_AWAITED (UINT64_MAX - 1)

/* The other end of a connection. */
struct peer {
	uint64_t id;   /* never used twice */
	bool attach;   /* on the attach socket: can be sent file descriptors, can hold leases */
	int64_t uid;   /* -1: not known (tcp) */
	uint32_t refused; /* classes of requests that it is not let into, as bits: access.h */
	int64_t pid;   /* -1: not known; for logs only: pids do not cross containers */
};

/* One request that waits for its reply. The peer may be gone when it comes; then it is dropped. */
struct exchange {
	struct peer peer;
	uint32_t tag_bytes;
	uint8_t tag[EXCHANGE_TAG_BYTES]; /* the transport's own: what it needs to address the reply */
};
