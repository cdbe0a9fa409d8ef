/*
 * Threads that all wait at a gate until the last of them is there. See threads.h.
 */
#include "client/threads.h"

#include "client/wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static void *pass(void *argument)
{
	pthread_mutex_t *gate = argument;

	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

int threads_try(uint32_t count, uint32_t *ret_made_count)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t *threads = calloc(count, sizeof(*threads));
	uint32_t made_count = 0;
	int code = threads ? 0 : -ENOMEM;

	pthread_mutex_lock(&gate);
	while (!code && made_count < count) {
		code = wait_thread_start(&threads[made_count], "emad-room", pass, &gate);
		made_count += code == 0;
	}
	pthread_mutex_unlock(&gate);
	for (uint32_t i = 0; i < made_count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	if (code)
		*ret_made_count = made_count;
	return code;
}
