/*
 * The worker threads. See workers.h.
 */
#include "daemon/edge/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct apply *queue; /* guarded by lock; the first is being done */
	struct apply *done;  /* guarded by lock */
	bool stopping;       /* guarded by lock */
	_Atomic uint32_t pulse;     /* number of the sign of life that is asked for; written with lock */
	uint32_t pulse_given_count; /* guarded by lock; workers that have given it */
	bool pulse_ended;           /* guarded by lock; the loop has seen that all have */
	void (*wake)(void *context);
	void *wake_context;
	uint32_t thread_count;
	pthread_t threads[];
};

/* The first update that has blocks left for another worker. With the lock. */
static struct apply *find_work(const struct workers *workers)
{
	struct apply *apply = workers->queue;

	while (apply && atomic_load_explicit(&apply->block_next, memory_order_relaxed) >= apply->plan->block_count)
		apply = apply->next;
	return apply;
}

/* Leaves an update; the last to leave a finished one hands it back. With the lock. True when it did. */
static bool leave(struct workers *workers, struct apply *apply)
{
	struct apply **link = &workers->queue;

	apply->user_count--;
	if (apply->user_count > 0 || atomic_load(&apply->block_next) < apply->plan->block_count)
		return false;
	while (*link != apply)
		link = &(*link)->next;
	*link = apply->next;
	apply->next = workers->done;
	workers->done = apply;
	return true;
}

/* Gives the sign of life that is asked for, unless this worker has. With the lock. */
static void pulse_give(struct workers *workers, uint32_t *pulse_given)
{
	if (*pulse_given == workers->pulse)
		return;
	*pulse_given = workers->pulse;
	workers->pulse_given_count++;
	if (workers->pulse_given_count == workers->thread_count)
		workers->wake(workers->wake_context);
}

/* Does blocks of an update until there are none left. A large update takes longer than a sign of life may. */
static void blocks_do(struct workers *workers, struct apply *apply, uint32_t *pulse_given)
{
	uint32_t block;

	while ((block = atomic_fetch_add(&apply->block_next, 1)) < apply->plan->block_count) {
		apply_block(apply, block);
		if (atomic_load_explicit(&workers->pulse, memory_order_relaxed) == *pulse_given)
			continue;
		pthread_mutex_lock(&workers->lock);
		pulse_give(workers, pulse_given);
		pthread_mutex_unlock(&workers->lock);
	}
}

static void *run(void *context)
{
	struct workers *workers = context;
	uint32_t pulse_given = 0;

	pthread_mutex_lock(&workers->lock);
	while (!workers->stopping) {
		struct apply *apply = find_work(workers);

		pulse_give(workers, &pulse_given);
		if (!apply) {
			pthread_cond_wait(&workers->cond, &workers->lock);
			continue;
		}
		apply->user_count++;
		pthread_mutex_unlock(&workers->lock);
		blocks_do(workers, apply, &pulse_given);
		pthread_mutex_lock(&workers->lock);
		if (leave(workers, apply))
			workers->wake(workers->wake_context);
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
	struct apply **end = &workers->queue;
	bool empty = apply->plan->block_count == 0;

	apply->next = NULL;
	apply->user_count = 0;
	atomic_store(&apply->block_next, 0);
	pthread_mutex_lock(&workers->lock);
	while (!empty && *end)
		end = &(*end)->next;
	if (empty) {
		apply->next = workers->done;
		workers->done = apply;
	} else {
		*end = apply;
	}
	pthread_cond_broadcast(&workers->cond);
	pthread_mutex_unlock(&workers->lock);
	if (empty)
		workers->wake(workers->wake_context);
}

void workers_poll(struct workers *workers, void (*done)(void *context, struct apply *apply), void *context)
{
	struct apply *apply;

	pthread_mutex_lock(&workers->lock);
	apply = workers->done;
	workers->done = NULL;
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
