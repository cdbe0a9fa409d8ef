/*
 * Loans: leases of readers that share no memory with the daemon.
 *
 * A reader leases a version and fetches its image in parts, which may be all of it or the places of the tensors that it
 * wants; what it fetches is copied, or converted (proto/runs.h), while the lease holds and within the request, so that a
 * part is of that version or not there at all. What one request may fetch is bounded, because the loop does it.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/call.h"
#include "proto/runs.h"

enum { LOAN_COUNT_MAX = 1024 }; /* at once */

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

int lease_handle(struct call *call);
int fetch_handle(struct call *call);

/* Ends the loan of that number, if there is one. */
void loan_release(struct service *service, uint64_t number);

/* Ends those that were not heard of for too long; when the next one ends; ends them all. */
void loan_tick(struct service *service, const struct instant *now);
uint64_t loan_due_ms(const struct service *service);
void loan_finish(struct service *service);
