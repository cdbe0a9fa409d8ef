/*
 * The workers: threads that do the blocks of updates.
 *
 * While one update is under way, every worker takes blocks off its counter and no lock is taken. As soon as there are
 * several, a worker chooses anew after each block: the update of the model that has been served least. So every model
 * has the same share of the workers, however large others are, and one that uses less than its share, because it is
 * small, is done at once. What is counted is what the pass moves, not blocks: those of many profiles take longer. A
 * finished update comes back by workers_poll on the loop thread, in the order in which they were finished. Workers touch
 * no other state.
 *
 * A block is some hundred microseconds of streaming through memory that nobody looks at again, so that changing between
 * updates costs nothing, and an update that has come waits for the blocks that are in hand.
 */
#pragma once

#include <stdbool.h>

#include "daemon/core/apply.h"

struct workers;

/* wake is called from a worker's thread when workers_poll has something to do. -EAGAIN when threads cannot be made. */
int workers_start(uint32_t count, void (*wake)(void *context), void *context, struct workers **ret_workers);

/* Ends the threads after the block that each has in hand. */
void workers_stop(struct workers *workers);

/*
 * Adds an update to those under way; it is the workers' until workers_poll hands it back. The same struct apply is the
 * same model, which is what is shared between.
 */
void workers_submit(struct workers *workers, struct apply *apply);

/* Calls done for every update that is finished, oldest first. Loop thread. */
void workers_poll(struct workers *workers, void (*done)(void *context, struct apply *apply), void *context);

/*
 * Asks every worker for a sign of life: each gives it between two blocks, or at once when it has nothing to do. wake is
 * called when the last has given it. Does nothing while signs are still missing. Loop thread.
 */
void workers_pulse_begin(struct workers *workers);

/* True once after each workers_pulse_begin, as soon as all workers have given their sign. Loop thread. */
bool workers_pulse_end(struct workers *workers);
