/*
 * A queue and its thread. See scribe.h.
 */
#include "daemon/edge/scribe.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A message that waits, with all its strings behind it. */
struct entry {
	struct entry *next;
	struct event event;
	char strings[];
};

struct scribe {
	void (*write)(const struct event *event);
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;         /* its clock is the monotonic one */
	struct entry *first, **end;  /* guarded by lock, like all below */
	uint32_t count;
	uint64_t lost_count;         /* since the log last said so */
	bool writing, stopping, ended;
};

/* Copies a string behind the others. */
static const char *copy(char **end, const char *text)
{
	const char *begin = *end;

	if (!text)
		return NULL;
	*end = stpcpy(*end, text) + 1;
	return begin;
}

static size_t bytes_of(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

static struct entry *entry_make(const struct event *event)
{
	struct entry *entry = malloc(sizeof *entry + bytes_of(event->model) + bytes_of(event->error) +
	                             bytes_of(event->text));
	char *end;

	if (!entry)
		return NULL;
	end = entry->strings;
	entry->next = NULL;
	entry->event = *event;
	entry->event.origin = NULL;
	entry->event.model = copy(&end, event->model);
	entry->event.error = copy(&end, event->error);
	entry->event.text = copy(&end, event->text);
	return entry;
}

static void lost_write(const struct scribe *scribe, uint64_t count)
{
	char text[128];
	const struct event event = {
		.severity = EVENT_WARNING, .text = text, .step = UINT64_MAX, .pid = -1,
	};

	snprintf(text, sizeof text, "%" PRIu64 " messages before this one are lost: whoever reads this log did not take them",
	         count);
	scribe->write(&event);
}

static void *run(void *context)
{
	struct scribe *scribe = context;

	pthread_mutex_lock(&scribe->lock);
	while (scribe->first || scribe->lost_count > 0 || !scribe->stopping) {
		struct entry *entry = scribe->first;
		/* Those that were lost came behind all that waited. */
		uint64_t lost_count = entry ? 0 : scribe->lost_count;

		if (!entry && lost_count == 0) {
			pthread_cond_wait(&scribe->cond, &scribe->lock);
			continue;
		}
		if (entry) {
			scribe->first = entry->next;
			if (!scribe->first)
				scribe->end = &scribe->first;
			scribe->count--;
		} else {
			scribe->lost_count = 0;
		}
		scribe->writing = true;
		pthread_mutex_unlock(&scribe->lock);
		if (entry)
			scribe->write(&entry->event);
		else
			lost_write(scribe, lost_count);
		free(entry);
		pthread_mutex_lock(&scribe->lock);
		scribe->writing = false;
		if (!scribe->first)
			pthread_cond_broadcast(&scribe->cond);
	}
	scribe->ended = true;
	pthread_cond_broadcast(&scribe->cond);
	pthread_mutex_unlock(&scribe->lock);
	return NULL;
}

int scribe_start(void (*write)(const struct event *event), struct scribe **ret_scribe)
{
	struct scribe *scribe = calloc(1, sizeof *scribe);
	pthread_condattr_t attributes;
	int error;

	if (!scribe)
		return -ENOMEM;
	scribe->write = write;
	scribe->end = &scribe->first;
	pthread_mutex_init(&scribe->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&scribe->cond, &attributes);
	pthread_condattr_destroy(&attributes);
	error = pthread_create(&scribe->thread, NULL, run, scribe);
	if (error) {
		free(scribe);
		return -error;
	}
	*ret_scribe = scribe;
	return 0;
}

void scribe_tell(struct scribe *scribe, const struct event *event)
{
	struct entry *entry = entry_make(event);

	pthread_mutex_lock(&scribe->lock);
	/* While some are lost that the log has not spoken of, all are: it stays in order. */
	if (!entry || scribe->lost_count > 0 || scribe->count >= SCRIBE_WAITING_MAX) {
		scribe->lost_count++;
		free(entry);
	} else {
		*scribe->end = entry;
		scribe->end = &entry->next;
		scribe->count++;
	}
	pthread_cond_broadcast(&scribe->cond);
	pthread_mutex_unlock(&scribe->lock);
}

/* The time after that many milliseconds from now. */
static struct timespec time_after(uint32_t timeout_ms)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_sec += timeout_ms / 1000;
	time.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (time.tv_nsec >= 1000000000L) {
		time.tv_sec++;
		time.tv_nsec -= 1000000000L;
	}
	return time;
}

void scribe_settle(struct scribe *scribe, uint32_t timeout_ms)
{
	struct timespec until = time_after(timeout_ms);

	pthread_mutex_lock(&scribe->lock);
	while ((scribe->first || scribe->writing || scribe->lost_count > 0) &&
	       pthread_cond_timedwait(&scribe->cond, &scribe->lock, &until) == 0)
		;
	pthread_mutex_unlock(&scribe->lock);
}

bool scribe_stop(struct scribe *scribe, uint32_t timeout_ms)
{
	struct timespec until = time_after(timeout_ms);
	bool ended;

	pthread_mutex_lock(&scribe->lock);
	scribe->stopping = true;
	pthread_cond_broadcast(&scribe->cond);
	while (!scribe->ended && pthread_cond_timedwait(&scribe->cond, &scribe->lock, &until) == 0)
		;
	ended = scribe->ended;
	pthread_mutex_unlock(&scribe->lock);
	if (!ended)
		return false;
	pthread_join(scribe->thread, NULL);
	pthread_cond_destroy(&scribe->cond);
	pthread_mutex_destroy(&scribe->lock);
	free(scribe);
	return true;
}
