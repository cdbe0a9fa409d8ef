/*
 * The worker threads. See workers.h.
 */
#include "daemon/edge/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* What a model may have at once before those that were served all the while: 16 blocks of one profile. */
enum { SERVED_AHEAD = 16 * 3 };

struct apply_list {
	struct apply *first, *last;
};

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct apply_list queue; /* guarded by lock; updates that may have blocks left */
	struct apply_list done;  /* guarded by lock */
	uint64_t served;         /* guarded by lock; what whoever got the latest block had had before it */
	_Atomic uint32_t queued_count; /* in the queue; written with lock */
	bool stopping;                 /* guarded by lock */
	_Atomic uint32_t pulse;     /* number of the sign of life that is asked for; written with lock */
	uint32_t pulse_given_count; /* guarded by lock; workers that have given it */
	bool pulse_ended;           /* guarded by lock; the loop has seen that all have */
	void (*wake)(void *context);
	void *wake_context;
	uint32_t thread_count;
	pthread_t threads[];
};

static void list_append(struct apply_list *list, struct apply *apply)
{
	apply->next = NULL;
	apply->previous = list->last;
	if (list->last)
		list->last->next = apply;
	else
		list->first = apply;
	list->last = apply;
}

static void list_remove(struct apply_list *list, struct apply *apply)
{
	if (apply->previous)
		apply->previous->next = apply->next;
	else
		list->first = apply->next;
	if (apply->next)
		apply->next->previous = apply->previous;
	else
		list->last = apply->previous;
}

static bool has_blocks(const struct apply *apply)
{
	return atomic_load(&apply->block_next) < apply->plan->block_count;
}

static void queue_remove(struct workers *workers, struct apply *apply)
{
	list_remove(&workers->queue, apply);
	apply->queued = false;
	workers->queued_count--;
}

/* A block's cost: the snapshot is read, each profile's shadow read and written. */
static uint64_t block_cost(const struct apply *apply)
{
	return 1 + 2 * (uint64_t)apply->plan->geometry->profile_count;
}

/*
 * Whose block is next: that of the model that has been served least, as in start-time fair queueing (Goyal, Vin and
 * Cheng, 1996): `served` is their virtual time. With the lock.
 */
static struct apply *queue_next(struct workers *workers)
{
	struct apply *least = NULL, *next;

	for (struct apply *apply = workers->queue.first; apply; apply = next) {
		next = apply->next;
		/* Who was not there has saved up so much and no more. */
		if (apply->served + SERVED_AHEAD < workers->served)
			apply->served = workers->served - SERVED_AHEAD;
		/* Those that have its last blocks in hand hand it back. */
		if (!has_blocks(apply))
			queue_remove(workers, apply);
		else if (!least || apply->served < least->served)
			least = apply;
	}
	if (!least)
		return NULL;
	/* Alone it needs nothing that it has saved up. */
	if (workers->queued_count == 1 && least->served < workers->served)
		least->served = workers->served;
	if (least->served > workers->served)
		workers->served = least->served;
	least->served += block_cost(least);
	return least;
}

/*
 * Leaves an update of which so many blocks were done, one of them paid for; the last to leave a finished one hands it
 * back. With the lock. True when it did.
 */
static bool leave(struct workers *workers, struct apply *apply, uint32_t block_count)
{
	if (block_count > 1) {
		apply->served += (block_count - 1) * block_cost(apply);
		/* It was alone: time went on with it. */
		if (apply->served - block_cost(apply) > workers->served)
			workers->served = apply->served - block_cost(apply);
	}
	apply->user_count--;
	if (has_blocks(apply))
		return false;
	if (apply->queued)
		queue_remove(workers, apply);
	if (apply->user_count > 0)
		return false;
	list_append(&workers->done, apply);
	return true;
}

/* Gives the sign of life that is asked for, unless this worker has. With the lock. True when it was the last missing. */
static bool pulse_give(struct workers *workers, uint32_t *pulse_given)
{
	if (*pulse_given == workers->pulse)
		return false;
	*pulse_given = workers->pulse;
	workers->pulse_given_count++;
	return workers->pulse_given_count == workers->thread_count;
}

/*
 * Does blocks of an update until there are none left, or one when others are under way. A large update takes longer than
 * a sign of life may. How many it did.
 */
static uint32_t blocks_do(struct workers *workers, struct apply *apply, uint32_t *pulse_given)
{
	uint32_t block, count = 0;
	bool wakes;

	while ((block = atomic_fetch_add(&apply->block_next, 1)) < apply->plan->block_count) {
		apply_block(apply, block);
		count++;
		/* The sign of life is given on the way. */
		if (atomic_load_explicit(&workers->queued_count, memory_order_relaxed) > 1)
			break;
		if (atomic_load_explicit(&workers->pulse, memory_order_relaxed) == *pulse_given)
			continue;
		pthread_mutex_lock(&workers->lock);
		wakes = pulse_give(workers, pulse_given);
		pthread_mutex_unlock(&workers->lock);
		if (wakes)
			workers->wake(workers->wake_context);
	}
	return count;
}

static void *run(void *context)
{
	struct workers *workers = context;
	uint32_t pulse_given = 0;

	pthread_mutex_lock(&workers->lock);
	while (!workers->stopping) {
		bool wakes = pulse_give(workers, &pulse_given);
		struct apply *apply = queue_next(workers);

		if (apply) {
			uint32_t block_count;

			apply->user_count++;
			pthread_mutex_unlock(&workers->lock);
			block_count = blocks_do(workers, apply, &pulse_given);
			pthread_mutex_lock(&workers->lock);
			wakes |= leave(workers, apply, block_count);
		} else if (!wakes) {
			pthread_cond_wait(&workers->cond, &workers->lock);
		}
		if (!wakes)
			continue;
		/* Without the lock, which the loop takes at once, perhaps on this core. */
		pthread_mutex_unlock(&workers->lock);
		workers->wake(workers->wake_context);
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

int workers_start(uint32_t count, void (*wake)(void *context), void *context, struct workers **ret_workers)
{
	struct workers *workers = calloc(1, sizeof *workers + count * sizeof workers->threads[0]);
	char name[32];

	if (!workers)
		return -ENOMEM;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->cond, NULL);
	workers->pulse_ended = true;
	workers->served = SERVED_AHEAD;
	workers->wake = wake;
	workers->wake_context = context;
	while (workers->thread_count < count) {
		int error = pthread_create(&workers->threads[workers->thread_count], NULL, run, workers);

		if (error) {
			workers_stop(workers);
			return -error;
		}
		snprintf(name, sizeof name, "emad-worker-%u", workers->thread_count);
		(void)pthread_setname_np(workers->threads[workers->thread_count], name);
		workers->thread_count++;
	}
	*ret_workers = workers;
	return 0;
}

void workers_stop(struct workers *workers)
{
	if (!workers)
		return;
	pthread_mutex_lock(&workers->lock);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->cond);
	pthread_mutex_unlock(&workers->lock);
	for (uint32_t i = 0; i < workers->thread_count; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->cond);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

void workers_submit(struct workers *workers, struct apply *apply)
{
	bool empty = apply->plan->block_count == 0;

	apply->user_count = 0;
	apply->queued = !empty;
	atomic_store(&apply->block_next, 0);
	pthread_mutex_lock(&workers->lock);
	list_append(empty ? &workers->done : &workers->queue, apply);
	workers->queued_count += !empty;
	pthread_cond_broadcast(&workers->cond);
	pthread_mutex_unlock(&workers->lock);
	if (empty)
		workers->wake(workers->wake_context);
}

void workers_poll(struct workers *workers, void (*done)(void *context, struct apply *apply), void *context)
{
	struct apply *apply;

	pthread_mutex_lock(&workers->lock);
	apply = workers->done.first;
	workers->done = (struct apply_list){ NULL, NULL };
	pthread_mutex_unlock(&workers->lock);
	while (apply) {
		struct apply *next = apply->next;

		done(context, apply);
		apply = next;
	}
}

void workers_pulse_begin(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	if (workers->pulse_ended) {
		workers->pulse_ended = false;
		workers->pulse_given_count = 0;
		workers->pulse++;
		pthread_cond_broadcast(&workers->cond);
	}
	pthread_mutex_unlock(&workers->lock);
}

bool workers_pulse_end(struct workers *workers)
{
	bool ended;

	pthread_mutex_lock(&workers->lock);
	ended = !workers->pulse_ended && workers->pulse_given_count == workers->thread_count;
	if (ended)
		workers->pulse_ended = true;
	pthread_mutex_unlock(&workers->lock);
	return ended;
}
