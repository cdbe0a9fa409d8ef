/*
 * Threads that all wait at a gate until the last of them is there. See thread_room.h.
 */
#include "daemon/edge/thread_room.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void *pass(void *argument)
{
	pthread_mutex_t *gate = argument;

	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

int thread_room_try(uint32_t count, struct reason *reason)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t *threads = calloc(count, sizeof *threads);
	uint32_t made_count = 0;
	sigset_t all, before;
	int error = threads ? 0 : ENOMEM;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&gate);
	while (!error && made_count < count) {
		error = pthread_create(&threads[made_count], NULL, pass, &gate);
		made_count += error == 0;
	}
	pthread_mutex_unlock(&gate);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	for (uint32_t i = 0; i < made_count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return error ? reason_set(reason, -error,
	                          "of %" PRIu32 " threads that connections need only %" PRIu32 " can be made: %s: raise "
	                          "TasksMax= of the unit (docker run --pids-limit; in a shell ulimit -u)",
	                          count, made_count, strerror(error)) : 0;
}
