/*
 * Waiting with a deadline, and threads that leave the host program's signals alone.
 *
 * Deadlines are points on the monotonic clock in milliseconds; every call turns its timeout into one at its start and
 * hands it down, so that several waits inside one call share the time.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdint.h>

/* How much longer than the asked time the library waits for the daemon's own answer "timeout". */
enum { WAIT_MARGIN_MS = 1000 };

int64_t wait_now_ms(void);

/* timeout_ms >= 0 from now. */
int64_t wait_deadline(int timeout_ms);

/* Milliseconds until the deadline, 0 when it has passed; never more than INT_MAX. */
int wait_left_ms(int64_t deadline_ms);

/* A condition variable on the monotonic clock. -errno. */
int wait_condition_init(pthread_cond_t *condition);

/* Waits for a signal until the deadline; 0, or -ETIMEDOUT. Spurious wake-ups are passed on. */
int wait_condition(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline_ms);

/*
 * Blocks every signal in the calling thread, so that threads created meanwhile inherit the mask: signals are the
 * business of the host program's own threads. Faults stay deliverable.
 */
void wait_signals_block(sigset_t *ret_before);
void wait_signals_restore(const sigset_t *before);

/* Starts a thread with all signals blocked. -errno. */
int wait_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *argument);
