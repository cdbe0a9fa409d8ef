/*
 * Operations on their way from NNG's threads to the loop. See transport_pending.h.
 */
#include "daemon/edge/transport_pending.h"

#include <errno.h>

#include "proto/status.h"

void pending_list_init(struct pending_list *list, void (*wake)(void *context), void *context)
{
	*list = (struct pending_list){ .wake = wake, .wake_context = context };
	pthread_mutex_init(&list->lock, NULL);
}

void pending_list_finish(struct pending_list *list)
{
	pthread_mutex_destroy(&list->lock);
}

void pending_list_silence(struct pending_list *list)
{
	pthread_mutex_lock(&list->lock);
	list->silent = true;
	pthread_mutex_unlock(&list->lock);
}

static struct pending *list_take(struct pending_list *list)
{
	struct pending *pending;

	pthread_mutex_lock(&list->lock);
	pending = list->first;
	if (pending)
		list->first = pending->next;
	pthread_mutex_unlock(&list->lock);
	return pending;
}

void pending_list_poll(struct pending_list *list)
{
	struct pending *pending;

	while ((pending = list_take(list))) {
		pending->under_way = false;
		pending->ended(pending);
	}
}

int pending_init(struct pending *pending, struct pending_list *list, void (*callback)(void *argument),
                   void *argument)
{
	pending->list = list;
	return nng_aio_alloc(&pending->aio, callback, argument);
}

void pending_finish(struct pending *pending)
{
	nng_aio_free(pending->aio);
	pending->aio = NULL;
}

void pending_end(struct pending *pending)
{
	struct pending_list *list = pending->list;
	bool wakes;

	pthread_mutex_lock(&list->lock);
	pending->next = list->first;
	list->first = pending;
	wakes = !list->silent;
	pthread_mutex_unlock(&list->lock);
	if (wakes)
		list->wake(list->wake_context);
}

int pending_error(int code)
{
	switch (code) {
	case 0:
		return 0;
	case NNG_ENOMEM:
		return -ENOMEM;
	case NNG_EADDRINUSE:
		return -EADDRINUSE;
	case NNG_EPERM:
		return -EACCES;
	case NNG_EADDRINVAL:
	case NNG_EINVAL:
		return -EINVAL;
	case NNG_ENOTSUP:
		return -EPROTONOSUPPORT;
	case NNG_ETIMEDOUT:
		return STATUS_ETIMEOUT;
	case NNG_ECLOSED:
	case NNG_ECONNSHUT:
	case NNG_ECONNRESET:
		return -ECONNRESET;
	default:
		return code & NNG_ESYSERR ? -(code & ~NNG_ESYSERR) : -EIO;
	}
}
