/*
 * The workers: threads that do the blocks of updates.
 *
 * Updates wait in one queue; every worker takes blocks of the first one off its counter until there are none left, then
 * goes on to the next, so that all workers share one large update and several small ones alike. A finished update comes
 * back by workers_poll on the loop thread. Workers touch no other state.
 */
#pragma once

#include <stdbool.h>

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

/*
 * Asks every worker for a sign of life: each gives it between two blocks, or at once when it has nothing to do. wake is
 * called when the last has given it. Does nothing while signs are still missing. Loop thread.
 */
void workers_pulse_begin(struct workers *workers);

/* True once after each workers_pulse_begin, as soon as all workers have given their sign. Loop thread. */
bool workers_pulse_end(struct workers *workers);
