/*
 * What the daemon has still to write, of what it had to when that was most. See checkpoint_watch.h.
 */
#include "client/emactl/checkpoint_watch.h"

#include "client/emactl/facts.h"

#include <signal.h>
#include <string.h>
#include <time.h>

enum { ASK_EVERY_MS = 100, ANSWER_MS_MAX = 1000 };

/* False when it is time to end. */
static bool pause_wait(struct checkpoint_watch *watch)
{
	struct timespec until;
	bool is_ended;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ASK_EVERY_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&watch->lock);
	while (!watch->is_ended && pthread_cond_timedwait(&watch->ended, &watch->lock, &until) == 0)
		;
	is_ended = watch->is_ended;
	pthread_mutex_unlock(&watch->lock);
	return !is_ended;
}

/* Bytes of what is being written that are not on disk yet; *most_bytes grows to all of them, with those that are. */
static uint64_t left_find(const json_t *status, const char *model, uint64_t *most_bytes)
{
	const json_t *row, *rows = json_object_get(json_object_get(status, "checkpoint"), "writing");
	uint64_t left_bytes = 0, all_bytes = 0;
	size_t index;

	json_array_foreach(rows, index, row) {
		const char *name = json_string_value(json_object_get(row, "model"));
		const json_int_t bytes = json_integer_value(json_object_get(row, "bytes"));
		const json_int_t written = json_integer_value(json_object_get(row, "written_bytes"));

		if (!name || (model && strcmp(name, model) != 0) || written > bytes)
			continue;
		left_bytes += (uint64_t)(bytes - written);
		all_bytes += (uint64_t)bytes;
	}
	if (all_bytes > *most_bytes)
		*most_bytes = all_bytes;
	return left_bytes;
}

static void *run(void *argument)
{
	struct checkpoint_watch *watch = argument;
	struct emad_client *client;
	uint64_t most_bytes = 0;
	json_error_t complaint;

	if (emad_client_open(watch->emactl->url, ANSWER_MS_MAX, &client))
		return NULL;
	while (pause_wait(watch)) {
		char *json = NULL;
		json_t *status;
		uint64_t left_bytes;

		if (emad_status_json(client, ANSWER_MS_MAX, &json))
			continue;
		status = facts_parse(json, &complaint);
		emad_free(json);
		left_bytes = left_find(status, watch->model, &most_bytes);
		json_decref(status);
		progress_update(&watch->progress, most_bytes - left_bytes, most_bytes);
	}
	emad_client_close(client);
	return NULL;
}

void checkpoint_watch_begin(struct checkpoint_watch *watch, const struct emactl *emactl, const char *model)
{
	pthread_condattr_t attributes;
	sigset_t all, before;

	*watch = (struct checkpoint_watch){.emactl = emactl, .model = model};
	progress_begin(&watch->progress, !emactl->is_json && !emactl->is_quiet);
	if (!watch->progress.is_shown)
		return;
	pthread_mutex_init(&watch->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&watch->ended, &attributes);
	pthread_condattr_destroy(&attributes);
	/* Signals are for the thread that waits. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	watch->is_running = pthread_create(&watch->thread, NULL, run, watch) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void checkpoint_watch_end(struct checkpoint_watch *watch)
{
	if (!watch->progress.is_shown)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->is_ended = true;
	pthread_cond_signal(&watch->ended);
	pthread_mutex_unlock(&watch->lock);
	if (watch->is_running)
		pthread_join(watch->thread, NULL);
	pthread_cond_destroy(&watch->ended);
	pthread_mutex_destroy(&watch->lock);
	progress_end(&watch->progress);
}
