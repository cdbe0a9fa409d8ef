/*
 * A profile: one averaged copy of a model. It has a name, a schedule, and rules for the tensors that are to be treated
 * otherwise than the schedule's library does:
 *
 *     name=schedule[;rule]...      ema=yolo:decay=0.9999;copy=*.running_*;average@0.99=lora_*;drop=head.*
 *
 * A rule is `action=pattern`: average, copy (the latest value), freeze (the value at the start), drop (not held), or
 * average@DECAY for a decay of their own. Patterns are globs over canonical names: * any characters, ? one, [a-z] one of
 * a set, [!a-z] one outside of it. The first rule that matches wins. Integers are never averaged: `average` skips them.
 */
#pragma once

#include "proto/dtype.h"
#include "proto/limits.h"
#include "proto/manifest.h"
#include "proto/schedule.h"
#include "proto/status.h"

struct profile_rule {
	char pattern[PATTERN_BYTES_MAX + 1];
	enum schedule_entry entry;
	bool has_decay;
	double decay;
};

struct profile {
	char name[PROFILE_NAME_BYTES_MAX + 1];
	struct schedule schedule;
	uint32_t rule_count;
	struct profile_rule rules[RULE_COUNT_MAX];
};

/* Parses a specification. Sentences as schedule_parse; STATUS_ENAME for the name, STATUS_ELIMIT, STATUS_ESCHEDULE. */
int profile_parse(const char *specification, size_t bytes, struct profile *ret_profile, struct reason *reason);

/* The canonical specification; PROFILE_BYTES_MAX + 1 bytes always suffice. */
int profile_format(const struct profile *profile, char *text, size_t text_capacity);

/*
 * 0 when both lists name the same profiles with the same schedules and rules in the same order, else STATUS_EPROFILE
 * with the first difference.
 */
int profile_compare(const struct profile *here, uint32_t here_count, const struct profile *model,
                    uint32_t model_count, struct reason *reason);

/* What a profile does with one tensor. */
struct profile_choice {
	enum schedule_entry entry;
	enum dtype dtype; /* as kept: the shadow's type where it is averaged, else the tensor's own */
	int32_t rule;     /* index of the rule that decided; -1: the default of the schedule's library */
};

struct profile_choice profile_choose(const struct profile *profile, const struct tensor *tensor);

/* The schedule by which tensors of a choice are averaged: the profile's, with the rule's decay if it has one. */
struct schedule profile_schedule(const struct profile *profile, int32_t rule);

/* Whether a name matches a pattern. At most pattern bytes * name bytes steps. */
bool pattern_matches(const char *pattern, const char *name);
