/*
 * What the daemon says: to the log by the scribe, a thread that nobody waits for, and to the service manager. What
 * clients can cause is throttled, each origin by itself; what the daemon says of itself is rare, and is not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/event.h"
#include "daemon/core/throttle.h"

struct scribe;

struct voice {
	enum event_severity severity_max; /* what is less severe is not said */
	bool journal;                     /* to the journal, with all fields */
	struct scribe *scribe;            /* NULL: not yet, and events are written at once */
	struct throttle throttle;
};

void voice_init(struct voice *voice, enum event_severity severity_max);

/* From now on a thread writes. -errno. */
int voice_start(struct voice *voice);

/* A log that nobody reads is left alone after that time, with its thread. */
void voice_stop(struct voice *voice, uint32_t timeout_ms);

/* Throttled. */
void voice_event(struct voice *voice, const struct event *event, uint64_t now_ms);

/* What the daemon says of itself. */
void voice_say_of(struct voice *voice, enum event_kind kind, enum event_severity severity, const char *text);

/* The same of no kind; a callback of those who say things. */
void voice_say(void *voice, enum event_severity severity, const char *text);

/* Says how much was left out, where that is due. */
void voice_say_left_out(struct voice *voice, uint64_t now_ms);

/* Tells the service manager that requests are answered. Who waits for that finds in the log what came before. */
void voice_ready(const struct voice *voice, const char *text);

/* The same of settings that were read again. False: the service manager must be told once more later. */
bool voice_reloaded(const struct voice *voice, const char *text);
