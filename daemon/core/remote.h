/*
 * Remote: trainers that share no memory with the daemon, and what they have in common with such readers (loan.h).
 *
 * A trainer claims its stages, sends a snapshot in chunks, each of which the host receives straight into its place, and
 * then pushes as any other. Chunks may say that wider weights travel in a shorter dtype (proto/runs.h).
 *
 * Neither claim nor lease is a matter of one connection, which may break at any time: they end when nothing was heard of
 * their holder for as long as the settings say, or when he says so.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/call.h"
#include "proto/runs.h"

int claim_handle(struct call *call);
int chunk_handle(struct call *call);
int release_handle(struct call *call);

/*
 * The dtype in which a request wants elements to travel, or RUNS_AS_KEPT. What a snapshot loses is lost for good, so that
 * the smallest are for readers alone. STATUS_EARGUMENT with those that there are.
 */
int remote_wire(struct call *call, enum dtype *ret_wire);

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
