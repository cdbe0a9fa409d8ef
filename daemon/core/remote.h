/*
 * Remote: trainers and readers that share no memory with the daemon.
 *
 * A trainer claims its stages, sends a snapshot in chunks, each of which the host receives straight into its place, and
 * then pushes as any other. A reader leases a version and fetches its image in parts, which may be all of it or those of
 * the tensors that it wants; what it fetches is copied, or converted, while the lease holds and within the request, so
 * that a part is of that version or not there at all.
 *
 * Either may say that wider weights travel in a shorter dtype (proto/runs.h).
 *
 * Neither is a matter of one connection, which may break at any time: a claim and a lease end when nothing was heard of
 * their holder for as long as the settings say, or when he says so.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/call.h"
#include "proto/runs.h"

enum { LOAN_COUNT_MAX = 1024 }; /* leases of remote readers at once */

/* A lease of a remote reader. */
struct loan {
	struct loan *next;
	uint64_t number; /* that the reader has drawn */
	uint64_t peer;   /* stands for it among the leases; no connection has this number */
	uint64_t model;  /* id */
	uint32_t slot;
	uint32_t profile;
	uint64_t version;
	uint64_t region_offset, region_bytes;
	uint64_t data_offset; /* where the tensors begin in the region */
	struct runs runs;     /* of the tensors */
	uint64_t due_ms; /* when it ends unless something is heard */
};

int claim_handle(struct call *call);
int chunk_handle(struct call *call);
int lease_handle(struct call *call);
int fetch_handle(struct call *call);
int release_handle(struct call *call);

/* Whether a snapshot whose push says that it came in chunks is there; else the answer has been sent: CALL_ANSWERED. */
enum { CALL_ANSWERED = 2 };
int remote_arrived(struct call *call, struct model *model, uint32_t rank);

/* The stage's snapshot is taken: nothing may be received there any more. */
void remote_settle(const struct service *service, struct model *model, uint32_t rank, uint32_t stage);

/* A connection has ended, on which the rank's remote trainer was heard last. */
void remote_gone(struct service *service, const struct instant *now, struct rank *rank);

/* Ends what was not heard of for too long. */
void remote_tick(struct service *service, const struct instant *now);
uint64_t remote_due_ms(const struct service *service);

/* Ends all leases. */
void remote_finish(struct service *service);
