/*
 * Who asks, and where the answer goes: plain values, so that an answer may come later than the question.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { EXCHANGE_TAG_BYTES = 32, PEER_NAME_BYTES_MAX = 32 };

/* Peers from here up are downloads by HTTP. They only hold leases, and never ask for anything else. */
#define PEER_DOWNLOAD_FIRST (UINT64_C(3) << 62)

/* Stands for whoever had something of an earlier daemon and may come back for it. No connection has this number. */
#define PEER_AWAITED (UINT64_MAX - 1)

/* Stands for a remote trainer whose connection has ended. No connection has this number. */
#define PEER_AWAY (UINT64_MAX - 2)

/* Those from here up to PEER_DOWNLOAD_FIRST stand for leases of remote readers, which no connection holds. */
#define PEER_LOAN_FIRST (UINT64_C(5) << 61)

/* The other end of a connection. */
struct peer {
	uint64_t id;   /* never used twice */
	bool attach;   /* on the attach socket: can be sent file descriptors, can hold leases */
	bool remote;   /* came over tcp: nothing is known of it but what it says */
	int64_t uid;   /* -1: not known (tcp) */
	uint32_t refused; /* classes of requests that it is not let into, as bits: access.h */
	char name[PEER_NAME_BYTES_MAX + 1]; /* of the token that a remote one has shown; "": none */
	int64_t pid;   /* -1: not known; for logs only: pids do not cross containers */
};

/* One request that waits for its reply. The peer may be gone when it comes; then it is dropped. */
struct exchange {
	struct peer peer;
	uint32_t tag_bytes;
	uint8_t tag[EXCHANGE_TAG_BYTES]; /* the transport's own: what it needs to address the reply */
};
