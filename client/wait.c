/*
 * Deadlines and threads: see wait.h.
 */
#include "client/wait.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

int64_t wait_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t wait_deadline(int timeout_ms)
{
	return wait_now_ms() + timeout_ms;
}

int wait_left_ms(int64_t deadline_ms)
{
	int64_t left = deadline_ms - wait_now_ms();

	if (left < 0)
		return 0;
	return left > INT_MAX ? INT_MAX : (int)left;
}

int wait_condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;
	int code;

	code = pthread_condattr_init(&attributes);
	if (code)
		return -code;
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	code = pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
	return -code;
}

int wait_condition(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline_ms)
{
	struct timespec until = {.tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000};

	return -pthread_cond_timedwait(condition, lock, &until);
}

void wait_signals_block(sigset_t *ret_before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_BLOCK, &all, ret_before);
}

void wait_signals_restore(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

int wait_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *argument)
{
	sigset_t before;
	int code;

	wait_signals_block(&before);
	code = pthread_create(ret_thread, NULL, run, argument);
	wait_signals_restore(&before);
	if (code == 0)
		pthread_setname_np(*ret_thread, name);
	return -code;
}
