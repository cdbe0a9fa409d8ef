/*
 * Helpers for large copies: see team.h.
 */
#include "client/team.h"

#include "client/wait.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { HELPER_COUNT_MAX = 3 };

struct team {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* pairs with lock */

	/* Guarded by lock. */
	uint64_t job;          /* counts them; a helper does each once */
	unsigned busy_count;   /* helpers that have not come back from the job */
	bool stop;
	void (*work)(void *context);
	void *context;

	int caller_processor; /* where team_run was called last; -1 for never */
	unsigned helper_count;
	pthread_t helpers[HELPER_COUNT_MAX];
};

unsigned team_helper_count(void)
{
	cpu_set_t processors;
	int count;

	if (sched_getaffinity(0, sizeof(processors), &processors) != 0)
		return 0;
	count = CPU_COUNT(&processors) - 1;
	return count > HELPER_COUNT_MAX ? HELPER_COUNT_MAX : (unsigned)count;
}

static void *helper(void *argument)
{
	struct team *team = argument;
	uint64_t done = 0;

	pthread_mutex_lock(&team->lock);
	for (;;) {
		while (team->job == done && !team->stop)
			pthread_cond_wait(&team->changed, &team->lock);
		if (team->stop)
			break;
		done = team->job;
		pthread_mutex_unlock(&team->lock);
		team->work(team->context);
		pthread_mutex_lock(&team->lock);
		if (--team->busy_count == 0)
			pthread_cond_broadcast(&team->changed);
	}
	pthread_mutex_unlock(&team->lock);
	return NULL;
}

int team_create(unsigned helper_count, struct team **ret_team)
{
	struct team *team = calloc(1, sizeof(*team));
	int code = 0;

	if (!team)
		return -ENOMEM;
	team->caller_processor = -1;
	pthread_mutex_init(&team->lock, NULL);
	pthread_cond_init(&team->changed, NULL);
	while (code == 0 && team->helper_count < helper_count && team->helper_count < HELPER_COUNT_MAX) {
		code = wait_thread_start(&team->helpers[team->helper_count], "emad-copy", helper, team);
		team->helper_count += code == 0;
	}
	if (code) {
		team_destroy(team);
		return code;
	}
	*ret_team = team;
	return 0;
}

void team_destroy(struct team *team)
{
	if (!team)
		return;
	pthread_mutex_lock(&team->lock);
	team->stop = true;
	pthread_cond_broadcast(&team->changed);
	pthread_mutex_unlock(&team->lock);
	for (unsigned i = 0; i < team->helper_count; i++)
		pthread_join(team->helpers[i], NULL);
	pthread_cond_destroy(&team->changed);
	pthread_mutex_destroy(&team->lock);
	free(team);
}

/*
 * Keeps helpers off the processor that the caller runs on: the kernel likes to wake a thread where its waker runs, and
 * there it would wait for the copy that it is to help with.
 */
static void helpers_place(struct team *team)
{
	int here = sched_getcpu();
	cpu_set_t processors;

	if (here < 0 || here == team->caller_processor || sched_getaffinity(0, sizeof(processors), &processors) != 0)
		return;
	team->caller_processor = here;
	CPU_CLR((unsigned)here, &processors);
	for (unsigned i = 0; i < team->helper_count && CPU_COUNT(&processors) > 0; i++)
		(void)pthread_setaffinity_np(team->helpers[i], sizeof(processors), &processors);
}

void team_run(struct team *team, void (*work)(void *context), void *context)
{
	helpers_place(team);
	pthread_mutex_lock(&team->lock);
	team->work = work;
	team->context = context;
	team->busy_count = team->helper_count;
	team->job++;
	pthread_cond_broadcast(&team->changed);
	pthread_mutex_unlock(&team->lock);
	work(context);
	pthread_mutex_lock(&team->lock);
	while (team->busy_count > 0)
		pthread_cond_wait(&team->changed, &team->lock);
	pthread_mutex_unlock(&team->lock);
}
