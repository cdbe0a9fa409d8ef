/*
 * The ledger: what a process of a crash test has done and been told, in a file that both it and the test have mapped,
 * so that it is there whoever dies.
 *
 * A trainer writes what it tries before it tries, and what it was told as soon as it knows: a step that is `tried` may
 * be in the average or not; one that is `taken` must be, once and whole.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	LEDGER_STEP_MAX = 1 << 23,
	LEDGER_PATH_BYTES = 128,
	LEDGER_TEXT_BYTES = 400,
};

enum ledger_entry {
	LEDGER_NONE,
	LEDGER_TRIED,   /* no answer yet, or none at all: the trainer has gone on without one */
	LEDGER_TAKEN,   /* accepted, applied, or found to be there already */
	LEDGER_REFUSED, /* answered, and not taken */
	LEDGER_LOST,    /* whatever was answered: it went with the host */
};

/* What a process that is no trainer is at. */
enum ledger_phase {
	LEDGER_IDLE,
	LEDGER_REGISTERING,
	LEDGER_PUSHING,
	LEDGER_REMOVING,
	LEDGER_CHANGING,
	LEDGER_PHASE_COUNT,
};

struct ledger {
	_Atomic uint32_t stop;  /* the test wants the process to end */
	_Atomic uint32_t paused;
	_Atomic uint32_t phase; /* enum ledger_phase */
	_Atomic uint64_t pause; /* the step behind which the test wants no other; 0: none */
	_Atomic uint64_t tried; /* newest step */
	_Atomic uint64_t taken; /* newest step */
	_Atomic uint64_t stored; /* newest step that is known to be on disk */
	_Atomic uint64_t rounds; /* steps taken, versions read, models made, profiles changed */
	_Atomic uint64_t errors; /* calls that failed on the way */
	_Atomic uint64_t left;   /* steps that were left without an answer */
	_Atomic uint64_t duplicates; /* answers that said so */
	_Atomic uint64_t revoked; /* views that were taken back */
	_Atomic uint64_t again;   /* times that a trainer had to register again */
	_Atomic uint32_t failed;  /* `text` says what must not happen and did */
	char text[LEDGER_TEXT_BYTES];
	_Atomic uint8_t entries[LEDGER_STEP_MAX]; /* enum ledger_entry by step */
	uint8_t found[LEDGER_STEP_MAX]; /* of rank 0: what versions have shown, by step; the inspector's */
};

/* Maps the file, which is made if need be; ends the process where that is not possible. */
struct ledger *ledger_open(const char *path);
/* For another process that goes on: only the steps stay. */
void ledger_restart(struct ledger *ledger);

void ledger_close(struct ledger *ledger);

/* The first thing that must not have happened. */
__attribute__((format(printf, 2, 3))) void ledger_fail(struct ledger *ledger, const char *format, ...);

/* All ranks of a model together. */
enum ledger_verdict { LEDGER_OUT, LEDGER_PERHAPS, LEDGER_IN };

enum ledger_verdict ledger_judge(struct ledger *const *ranks, uint32_t world, uint64_t step);

/* What came behind the step is in no average, and will not be: nobody has it any more. */
void ledger_lose(struct ledger *const *ranks, uint32_t world, uint64_t step);

/* The newest step that every rank was told to be taken, and all steps before which were tried. */
uint64_t ledger_taken(struct ledger *const *ranks, uint32_t world);
