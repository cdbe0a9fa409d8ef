/*
 * The eventfd. See waker.h.
 */
#include "daemon/edge/waker.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct waker *waker = poll->data;
	eventfd_t count;

	(void)status;
	(void)events;
	/* In this order: who comes between the two is seen by run, who comes later wakes again. */
	(void)eventfd_read(waker->fd, &count);
	(void)atomic_exchange(&waker->awake, false);
	waker->run(waker->context);
}

int waker_init(struct waker *waker, uv_loop_t *loop, void (*run)(void *context), void *context)
{
	int error;

	*waker = (struct waker){ .run = run, .context = context };
	waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (waker->fd < 0)
		return -errno;
	error = uv_poll_init(loop, &waker->poll, waker->fd);
	if (error) {
		waker_finish(waker);
		return error;
	}
	waker->poll.data = waker;
	(void)uv_poll_start(&waker->poll, UV_READABLE, on_readable);
	return 0;
}

void waker_wake(struct waker *waker)
{
	if (!atomic_exchange(&waker->awake, true))
		(void)eventfd_write(waker->fd, 1);
}

void waker_finish(struct waker *waker)
{
	if (waker->fd >= 0)
		close(waker->fd);
	waker->fd = -1;
}
