/*
 * Events: what a person may want to know. Those that people search for bear an id, the same in every version, which is
 * MESSAGE_ID= in the journal: `journalctl MESSAGE_ID=...`, or a catalogue entry, finds them however they are worded.
 */
#pragma once

#include <stdint.h>

enum event_severity {
	EVENT_ERROR,
	EVENT_WARNING,
	EVENT_NOTICE,
	EVENT_DEBUG,
};

/*
 * X(KIND, id, when). Ids are random (systemd-id128 new) and never change; a kind that is no longer used keeps its row,
 * so that its id is not used again. systemd/emad.catalog explains each at length.
 */
#define EVENT_KINDS(X)                                                                                                 \
	X(STARTED, "11696c93ec3c4ebd988adeb7665f2b68", "requests are answered from now on")                            \
	X(STOPPING, "fd914515c58f4d009bc1aea98b579e50", "told to end: new work is refused")                            \
	X(MODEL_REGISTERED, "86f8190985db44ec839addf3e5814fac", "a rank of a trainer has registered a model")          \
	X(MODEL_REMOVED, "08eb5f7f4f934951b19adaaa20ef1938", "a model and all its averages are gone")                  \
	X(MODEL_RESUMED, "ec4c2fcab231f90cb307c787c6e31eb8", "after a start a model goes on where it was")             \
	X(SNAPSHOT_REFUSED, "81bdfccf117e4bbe86351c69aa5a4d6e", "a step is not in the average, or only in part")       \
	X(SNAPSHOT_LEFT, "8e92b591b5894d76b967ac090d043f8b", "at the end an accepted step is in no average yet")               \
	X(VIEWS_REVOKED, "9c7a014d00ff429c9753a66ff2493b5f", "readers held updates up for longer than they may")       \
	X(CONFIGURATION_RELOADED, "3a44d9a5057547a1b4ab51d86cd7a996", "settings were read anew, with what came of it")

enum event_kind {
	EVENT_OTHER, /* no id */
#define X(kind, id, text) EVENT_##kind,
	EVENT_KINDS(X)
#undef X
	EVENT_KIND_COUNT
};

struct event {
	enum event_severity severity;
	enum event_kind kind;
	const char *origin; /* the same pointer for all events that say the same of different things: their format */
	const char *model;  /* NULL: none, like the others */
	const char *error;  /* status_name */
	const char *text;
	uint64_t step; /* UINT64_MAX: none */
	int64_t pid;   /* of the client; -1: none */
};

/* 32 hexadecimal digits, NULL for EVENT_OTHER. */
const char *event_id(enum event_kind kind);
