/*
 * The inspector: asks a daemon under the load of a crew for its averages and compares them with the reference.
 *
 * A version of step S must hold each snapshot up to S that was acknowledged, once, and none that was refused. One that
 * was never answered may be in it or not: whichever of these possibilities the first profile with a memory agrees with
 * is the truth from then on, for all profiles, and the reference goes on from there. Nobody has to stand still for
 * that: what is compared is the step that the version is of.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/integration/crew.h"
#include "tests/integration/reference.h"

enum {
	INSPECTOR_TEXT_BYTES = 1200,
	INSPECTOR_HELD_MAX = SAMPLE_KIND_COUNT * SAMPLE_PROFILE_COUNT_MAX,
};

/* What a version has shown of a step that was not answered. */
enum inspector_found { FOUND_NOTHING, FOUND_PRESENT, FOUND_ABSENT };

struct inspector {
	struct crew *crew;
	struct emad_client *client;
	struct sample wholes[SAMPLE_KIND_COUNT];
	struct reference references[SAMPLE_KIND_COUNT][SAMPLE_PROFILE_COUNT_MAX];
	uint64_t versions[SAMPLE_KIND_COUNT]; /* newest that was seen */
	uint8_t *found[SAMPLE_KIND_COUNT];    /* borrowed; enum inspector_found by step, of the ledger of rank 0 */
	struct emad_view *held[INSPECTOR_HELD_MAX];
	struct sample_values held_values[INSPECTOR_HELD_MAX];
	uint64_t compared_count;  /* versions */
	uint64_t present_count; /* pushes without an answer that a version was found to hold */
	uint64_t absent_count;  /* and not to hold */
	uint64_t kept_count;    /* views that were held and are still whole */
	uint64_t revoked_count; /* and that were taken back */
	char text[INSPECTOR_TEXT_BYTES]; /* what was found */
};

/* 0, or a code of the library with its sentence in emad_error. */
int inspector_init(struct inspector *inspector, struct crew *crew, const char *url);
void inspector_finish(struct inspector *inspector);

/* Waits until a daemon with that process id answers. */
bool inspector_meets(struct inspector *inspector, pid_t pid, int timeout_ms);

/*
 * Compares every profile of every model with the reference, at a step that is not before any that was acknowledged when
 * this was called. False: `text` says what is wrong, in which model, at which step.
 */
bool inspector_check(struct inspector *inspector, int timeout_ms);

/*
 * The same for what a host has on disk that came back: it must be at a step that is not before any that was acknowledged,
 * or behind a power cut any that was known to be on disk. What the ledgers have behind it is lost.
 */
bool inspector_recover(struct inspector *inspector, bool was_cut, int timeout_ms);

/* Has a checkpoint written, of all that was acknowledged until now. False as above. */
bool inspector_store(struct inspector *inspector, int timeout_ms);

/* Opens views of every profile, for later. Those that cannot be opened are left out. */
void inspector_hold(struct inspector *inspector);

/* Reads them again and closes them: each holds what it held, or has been taken back. False as above. */
bool inspector_release(struct inspector *inspector);

/*
 * Whether a version with these facts and values is what the ledgers say; goes on with the reference if it is. For
 * inspector_check, and for tests of the inspector.
 */
bool inspector_compare(struct inspector *inspector, uint32_t kind, uint32_t profile, const struct emad_view_info *info,
                       const struct sample_values *values);
