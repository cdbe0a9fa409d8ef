/*
 * Defaults: what a registration gets that does not say so itself, by the name of its model. The sections
 * [model PATTERN] of the configuration fill them in; the first whose pattern matches counts, alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/message.h"
#include "proto/status.h"

enum {
	DEFAULTS_COUNT_MAX = 64,
	DEFAULTS_PATTERN_BYTES_MAX = 128,
	DEFAULTS_PROFILES_BYTES_MAX = 2560, /* of all specifications together */
	DEFAULTS_GUARDS_BYTES_MAX = 128,
};

struct defaults {
	char pattern[DEFAULTS_PATTERN_BYTES_MAX + 1];
	char profiles[DEFAULTS_PROFILES_BYTES_MAX + 1]; /* specifications, divided by one blank each; "": none */
	char guards[DEFAULTS_GUARDS_BYTES_MAX + 1];     /* "": refuse what is not finite */
	uint64_t coalesces;   /* policy: 0 block, 1 coalesce */
	uint64_t stride;      /* steps from one call of the schedules to the next */
	uint64_t slot_count;  /* 0: that of the settings */
	uint64_t stage_count; /* 0: that of the settings, like the following */
	uint64_t checkpoint_keep_count;
	uint64_t checkpoint_keep_steps;
};

/* The first of them whose pattern matches the name, NULL for none. */
const struct defaults *defaults_find(const struct defaults *all, uint32_t count, const char *model);

/* The specifications one by one, as a request would bring them; they point into profiles. STATUS_ELIMIT: too many. */
int defaults_profiles(const char *profiles, struct text_list *ret_list, struct reason *reason);

/* Whether these texts can be used: profiles divided by one blank each, and guards. Sentences as for a registration. */
int defaults_profiles_check(const char *profiles, struct reason *reason);
int defaults_guards_check(const char *guards, struct reason *reason);
