/*
 * The workers: threads that do the blocks of updates.
 *
 * Updates wait in one queue; every worker takes blocks of the first one off its counter until there are none left, then
 * goes on to the next, so that all workers share one large update and several small ones alike. A finished update comes
 * back by workers_poll on the loop thread. Workers touch no other state.
 */
#pragma once

#include "daemon/core/apply.h"

struct workers;

/* wake is called from a worker's thread when workers_poll has something to do. -EAGAIN when threads cannot be made. */
int workers_start(uint32_t count, void (*wake)(void *context), void *context, struct workers **ret_workers);

/* Ends the threads after the block that each has in hand. */
void workers_stop(struct workers *workers);

/* Queues an update; it is the workers' until workers_poll hands it back. */
void workers_submit(struct workers *workers, struct apply *apply);

/* Calls done for every update that is finished. Loop thread. */
void workers_poll(struct workers *workers, void (*done)(void *context, struct apply *apply), void *context);
