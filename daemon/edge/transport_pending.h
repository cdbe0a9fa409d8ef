/*
 * An asynchronous operation of NNG: it ends on one of NNG's threads, which puts it into a list and wakes the loop; the loop
 * takes it out and goes on with it. The transport's only file that includes NNG's headers.
 */
#pragma once

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdbool.h>

struct pending {
	struct pending *next; /* guarded by the list's lock */
	struct pending_list *list;
	nng_aio *aio;   /* owned */
	bool under_way; /* loop thread: begun, and what it ended with has not been looked at */
	/* Loop thread: it has ended. */
	void (*ended)(struct pending *pending);
};

/* Those that have ended. */
struct pending_list {
	pthread_mutex_t lock;
	struct pending *first; /* guarded by lock */
	bool silent;             /* guarded by lock: nobody is woken, the loop looks by itself */
	void (*wake)(void *context);
	void *wake_context;
};

void pending_list_init(struct pending_list *list, void (*wake)(void *context), void *context);
void pending_list_finish(struct pending_list *list);

/* From now on nobody is woken: who would be may soon be gone. */
void pending_list_silence(struct pending_list *list);

/* Calls ended for each operation that has. Loop thread. */
void pending_list_poll(struct pending_list *list);

/* callback is called with argument on NNG's threads; it ends with pending_end, or begins again. NNG's codes. */
int pending_init(struct pending *pending, struct pending_list *list, void (*callback)(void *argument),
                   void *argument);

/* Waits until it has ended. */
void pending_finish(struct pending *pending);

/* NNG's threads: hands it to the loop. */
void pending_end(struct pending *pending);

/* The one place where NNG's codes become ours. */
int pending_error(int code);
