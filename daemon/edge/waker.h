/*
 * Wakes the loop from other threads: an eventfd that it polls.
 *
 * Not uv_async_send. While a thread is inside that, the loop that it has woken spins, and then yields its core. Where the
 * two share one the thread cannot go on before that, and a busy core is not given back for as long as a tick of the
 * scheduler: 4 ms, several times what an update of a small model takes.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

struct waker {
	uv_poll_t poll;
	int fd;
	_Atomic bool awake; /* someone has woken the loop, and it has not run since */
	void (*run)(void *context);
	void *context;
};

/* run is called on the loop's thread, once for all wake-ups before it. -errno. */
int waker_init(struct waker *waker, uv_loop_t *loop, void (*run)(void *context), void *context);

/* Any thread. What it has done before is seen by run. */
void waker_wake(struct waker *waker);

/* When the poll handle has been closed, with the others of the loop. */
void waker_finish(struct waker *waker);
