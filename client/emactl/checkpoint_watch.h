/*
 * The progress bar of a checkpoint: while one call waits for the daemon to have written it, a thread with a connection
 * of its own asks how far it is.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "client/emactl/emactl.h"
#include "client/emactl/progress.h"

struct checkpoint_watch {
	const struct emactl *emactl; /* borrowed until checkpoint_watch_end, like the model */
	const char *model;           /* NULL: all */
	struct progress progress;    /* the thread's while it runs */
	bool is_running;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool is_ended; /* guarded by lock */
};

/* Where there is no terminal, or no thread, nothing is shown. */
void checkpoint_watch_begin(struct checkpoint_watch *watch, const struct emactl *emactl, const char *model);

/* Wipes the bar. */
void checkpoint_watch_end(struct checkpoint_watch *watch);
