/*
 * The thread for asynchronous pushes: one job deep.
 *
 *   idle --begin--> copying --pusher_copied--> sending --run returns--> idle
 *
 * The job's function belongs to the trainer; the pusher knows only when it copies and when it sends. A failure is kept
 * until somebody asks for it: pusher_fence, pusher_drain, or pusher_begin, which then begins nothing.
 *
 * Used by one thread at a time beside its own.
 */
#pragma once

#include <stdint.h>

#include "proto/status.h"

struct pusher;

struct enclosure;

/* Runs in the pusher's thread; calls pusher_copied when the data are read. Takes the enclosure, which may be NULL. */
typedef int pusher_run(void *context, struct pusher *pusher, uint64_t step, const void *const *data,
                       struct enclosure *enclosure, struct reason *reason);

/* pointer_count: how many pointers a job's data have. */
int pusher_create(uint32_t pointer_count, pusher_run *run, void *context, struct pusher **ret_pusher);

/* Waits for the job under way. NULL is allowed. */
void pusher_destroy(struct pusher *pusher);

/* Called by the job: what data points to may be changed from now on. */
void pusher_copied(struct pusher *pusher);

/*
 * Waits for an earlier job, then begins one; the pointers are copied, the enclosure is taken. The kept failure if there
 * is one: nothing was begun then. STATUS_EBUSY when the earlier job did not end in time.
 */
int pusher_begin(struct pusher *pusher, uint64_t step, const void *const *data, struct enclosure *enclosure,
                 int64_t deadline_ms, struct reason *reason);

/* Waits until no job is copying. The kept failure, STATUS_ETIMEOUT, or 0. */
int pusher_fence(struct pusher *pusher, int64_t deadline_ms, struct reason *reason);

/* Waits until no job is under way. The kept failure, STATUS_ETIMEOUT, or 0. */
int pusher_drain(struct pusher *pusher, int64_t deadline_ms, struct reason *reason);

/* The same, but a failure stays kept. */
int pusher_settle(struct pusher *pusher, int64_t deadline_ms, struct reason *reason);
