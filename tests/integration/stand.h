/*
 * The stand of a crash test: a daemon whose memory outlives it in files, a crew that loads it, an inspector that
 * compares its averages with the reference, and what becomes of all that when a test fails.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/integration/crew.h"
#include "tests/integration/harness.h"
#include "tests/integration/inspector.h"

enum { STAND_CALL_MAX_MS = 20000 };

struct stand {
	struct harness harness;
	struct crew crew;
	struct inspector inspector;
	char memory[64];   /* a directory on a tmpfs */
	char segments[80]; /* in it */
	char configuration[80];
	const char *arguments[5];
	bool good; /* nothing needs to be kept */
};

/* Starts the daemon; checkpoints: further lines of its settings. */
void stand_open(struct stand *stand, const char *checkpoints);

/* Ends all of it. What fails leaves its directories behind and says where they are. */
void stand_close(struct stand *stand);

/* Writes the settings anew, with those further lines, for the next start or reload. */
void stand_configure(struct stand *stand, const char *checkpoints);

/* The memory is gone, as when the host has been switched off. No daemon runs. */
void stand_forget(struct stand *stand);

/* A crew at work at that url, and somebody who looks at what they do. */
void stand_load_begin(struct stand *stand, const char *url, uint64_t seed, unsigned which);
void stand_load_end(struct stand *stand);

/* What is wrong, or NULL. The daemon is there, or comes. */
const char *stand_mistake(struct stand *stand);

void stand_totals_print(const struct stand *stand);
