/*
 * What `emactl top` shows of each model, made of two looks at the daemon. Pure: JSON and times in, rows out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client/emactl/facts.h"
#include "proto/limits.h"

/* X(NAME, letter, what it means); the first that holds is shown. */
#define TOP_STATES(X)                                                                                                 \
	X(ERROR, 'E', "snapshots are refused, values are not finite, or a file could not be written")                 \
	X(WAITING, 'W', "a rank is missing: the others wait for it")                                                  \
	X(LAGGING, 'L', "every stage of a rank is full: the daemon is slower than its trainer")                       \
	X(NEW, 'N', "no snapshot has been applied yet")                                                               \
	X(RUNNING, 'R', "versions come")                                                                              \
	X(IDLE, 'I', "no version for ten seconds")

enum top_state {
#define X(name, letter, text) TOP_##name,
	TOP_STATES(X)
#undef X
	TOP_STATE_COUNT
};

/* X(NAME, key, title, is a number): what rows can be sorted by, and the key that does it. */
#define TOP_KEYS(X)                                                                                                   \
	X(MODEL, 'm', "model")                                                                                        \
	X(STATE, 's', "state")                                                                                        \
	X(STEP, 't', "step")                                                                                          \
	X(RATE, 'r', "rate")                                                                                          \
	X(LAG, 'l', "lag")                                                                                            \
	X(DRIFT, 'd', "drift")                                                                                        \
	X(READERS, 'v', "readers")                                                                                    \
	X(MEMORY, 'y', "memory")                                                                                      \
	X(CHECKPOINT, 'c', "checkpoint")

enum top_key {
#define X(name, key, title) TOP_BY_##name,
	TOP_KEYS(X)
#undef X
	TOP_KEY_COUNT
};

struct top_row {
	char model[MODEL_NAME_BYTES_MAX + 1];
	enum top_state state;
	bool has_step, has_rate, has_facts, has_checkpoint;
	uint64_t step, version, lag, refused, readers, versions, memory_bytes;
	double rate; /* steps a second */
	double decay, drift; /* of the first profile; has_facts */
	uint64_t published_us, checkpoint_us; /* wall clock */
	uint64_t refused_at_us; /* when `refused` was seen to grow */
	char refusal[256];      /* the latest, or the error of a file; "" */
};

struct top {
	struct top_row *rows; /* owned */
	size_t count;
	uint64_t taken_us; /* wall clock; 0 before the first look */
};

char top_state_letter(enum top_state state);
const char *top_state_text(enum top_state state);

/* The key of a title; false when there is none. titles, for suggestions: ended by NULL. */
bool top_key_parse(const char *title, enum top_key *ret_key);
const char *const *top_key_titles(void);

/*
 * Takes a look: shows is an array of the daemon's answers to show. Rates come of the differences to the look before.
 * -ENOMEM, and everything is as it was.
 */
int top_take(struct top *top, const json_t *shows, uint64_t now_us);
void top_finish(struct top *top);

/* Numbers the largest first, names and states in their order; is_reversed turns it around. */
void top_sort(struct top *top, enum top_key key, bool is_reversed);

/* A table with a line of titles, of the rows whose model holds the filter (NULL: all). 0 or -ENOMEM. */
int top_print(const struct top *top, const char *filter, bool is_colour, FILE *stream);

/* One object a line. */
void top_json(const struct top *top, const char *filter);
