/*
 * Profiles: "name=schedule;rule;rule", and what a profile does with each tensor.
 *
 * A specification is read left to right into fixed room, and everything that is accepted can be written out again
 * inside PROFILE_BYTES_MAX. A tensor is decided on by the first rule that matches its name, else by what the schedule's
 * library does with entries of its kind.
 */
#include "proto/profile.h"

#include "proto/name.h"
#include "proto/nearest.h"
#include "proto/number.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
	ACTION_BYTES_MAX = 48, /* of what stands before the '=' of a rule, "average@" and a number */
	SHOWN_BYTES_MAX = 60,  /* of what is shown in a sentence */
	RULE_BYTES_MAX = ACTION_BYTES_MAX + 1 + PATTERN_BYTES_MAX,
};

static const struct {
	const char *name;
	enum schedule_entry entry;
} ACTIONS[] = {
	{"average", ENTRY_AVERAGE},
	{"copy", ENTRY_COPY},
	{"freeze", ENTRY_FREEZE},
	{"drop", ENTRY_DROP},
};

static const size_t ACTION_COUNT = sizeof(ACTIONS) / sizeof(*ACTIONS);

/* ---- patterns ------------------------------------------------------------------------------------------------- */

/* The byte behind the set that begins at `set`, which is closed; *ret_holds: whether the byte is one of it. */
static const char *set_match(const char *set, unsigned char byte, bool *ret_holds)
{
	bool is_outside = set[1] == '!', holds = false;
	const char *first = set + 1 + is_outside, *c = first;

	do {
		unsigned char low = (unsigned char)*c, high = low;

		if (c[1] == '-' && c[2] != ']') {
			high = (unsigned char)c[2];
			c += 2;
		}
		holds |= byte >= low && byte <= high;
		c++;
	} while (*c != ']');
	*ret_holds = holds != is_outside;
	return c + 1;
}

/* The pattern behind its first element if that matches the byte, else NULL. last: the last ']' of the pattern or NULL.
 */
static const char *element_match(const char *pattern, const char *last, char byte)
{
	bool holds;

	/* A set holds something: "[]" begins a set with ']' in it. An unclosed one is a bracket. */
	if (*pattern == '[' && last && last > pattern + 1 + (pattern[1] == '!')) {
		const char *next = set_match(pattern, (unsigned char)byte, &holds);

		return holds ? next : NULL;
	}
	return *pattern == '?' || *pattern == byte ? pattern + 1 : NULL;
}

bool pattern_matches(const char *pattern, const char *name)
{
	const char *last = strrchr(pattern, ']'), *behind_star = NULL, *retry = NULL;

	/* Only the latest star is ever tried again: what an earlier one took more of, it can take instead. */
	while (*name) {
		const char *next;

		if (*pattern == '*') {
			behind_star = ++pattern;
			retry = name;
			continue;
		}
		next = *pattern ? element_match(pattern, last, *name) : NULL;
		if (next) {
			pattern = next;
			name++;
		} else if (behind_star) {
			pattern = behind_star;
			name = ++retry;
		} else {
			return false;
		}
	}
	return pattern[strspn(pattern, "*")] == '\0';
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

/* Where in a specification something is wrong. */
struct place {
	const char *profile;
	uint32_t rule; /* counted from 1 */
};

static int action_parse(const char *action, const struct place *place, enum schedule_entry *ret_entry,
			struct reason *reason)
{
	const char *names[sizeof(ACTIONS) / sizeof(*ACTIONS) + 1] = {NULL};

	for (size_t i = 0; i < ACTION_COUNT; i++) {
		names[i] = ACTIONS[i].name;
		if (strcmp(action, ACTIONS[i].name) == 0) {
			*ret_entry = ACTIONS[i].entry;
			return 0;
		}
	}
	return reason_set(reason, STATUS_ESCHEDULE,
			  "profile '%s', rule %u: action '%s' is unknown; did you mean '%s'? known: average, "
			  "average@DECAY, copy, freeze, drop",
			  place->profile, place->rule, action, nearest_name(action, names));
}

/* The DECAY of average@DECAY: one that the schedule can take. */
static int rule_decay_parse(const char *text, const struct schedule *schedule, const struct place *place,
			    struct profile_rule *rule, struct reason *reason)
{
	struct schedule changed;
	struct reason inner = {""};
	int r;

	if (rule->entry != ENTRY_AVERAGE)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "profile '%s', rule %u: only 'average' takes a decay, as in "
				  "average@0.99=PATTERN",
				  place->profile, place->rule);
	if (!number_parse(text, &rule->decay))
		return reason_set(reason, STATUS_ESCHEDULE,
				  "profile '%s', rule %u: '%s' is not a decimal number; write average@0.99=PATTERN",
				  place->profile, place->rule, text);
	r = schedule_with_decay(schedule, rule->decay, &changed, &inner);
	if (r != 0)
		return reason_set(reason, r, "profile '%s', rule %u: %s", place->profile, place->rule, inner.text);
	rule->has_decay = true;
	return 0;
}

static int pattern_parse(const char *text, size_t bytes, const struct place *place, struct profile_rule *rule,
			 struct reason *reason)
{
	if (bytes == 0)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "profile '%s', rule %u has no pattern; write ACTION=PATTERN, for example copy=*.bias",
				  place->profile, place->rule);
	if (bytes > PATTERN_BYTES_MAX)
		return reason_set(
			reason, STATUS_ELIMIT,
			"profile '%s', rule %u: the pattern has %zu bytes, at most %d are allowed; shorten it "
			"with *",
			place->profile, place->rule, bytes, PATTERN_BYTES_MAX);
	/* What no tensor's name can hold is a mistake, and would reach logs and JSON. */
	if (tensor_name_check(text, bytes, NULL) != 0)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "profile '%s', rule %u: the pattern is not UTF-8 without control characters",
				  place->profile, place->rule);
	memcpy(rule->pattern, text, bytes);
	rule->pattern[bytes] = '\0';
	return 0;
}

static int rule_parse(const char *text, size_t bytes, const struct profile *profile, struct profile_rule *ret_rule,
		      struct reason *reason)
{
	const struct place place = {.profile = profile->name, .rule = profile->rule_count + 1};
	const char *equals = bytes > 0 ? memchr(text, '=', bytes) : NULL;
	struct profile_rule rule = {.pattern = ""};
	char action[ACTION_BYTES_MAX + 1];
	char *at;
	int r;

	if (bytes == 0)
		return reason_set(
			reason, STATUS_ESCHEDULE,
			"profile '%s', rule %u is empty; write name=schedule;ACTION=PATTERN, no ';' at the end",
			place.profile, place.rule);
	if (!equals)
		return reason_set(
			reason, STATUS_ESCHEDULE,
			"profile '%s', rule %u: '%.*s' has no '='; write ACTION=PATTERN, for example copy=*.bias",
			place.profile, place.rule, bytes < SHOWN_BYTES_MAX ? (int)bytes : SHOWN_BYTES_MAX, text);
	if (equals - text > ACTION_BYTES_MAX)
		return reason_set(
			reason, STATUS_ESCHEDULE,
			"profile '%s', rule %u: action '%.*s...' is unknown; known: average, average@DECAY, copy, "
			"freeze, drop",
			place.profile, place.rule, ACTION_BYTES_MAX, text);
	memcpy(action, text, (size_t)(equals - text));
	action[equals - text] = '\0';
	at = strchr(action, '@');
	if (at)
		*at++ = '\0';
	r = action_parse(action, &place, &rule.entry, reason);
	if (r == 0 && at)
		r = rule_decay_parse(at, &profile->schedule, &place, &rule, reason);
	if (r == 0)
		r = pattern_parse(equals + 1, bytes - (size_t)(equals + 1 - text), &place, &rule, reason);
	if (r == 0)
		*ret_rule = rule;
	return r;
}

static int rules_parse(const char *text, size_t bytes, struct profile *profile, struct reason *reason)
{
	for (;;) {
		const char *end = bytes > 0 ? memchr(text, ';', bytes) : NULL;
		size_t rule_bytes = end ? (size_t)(end - text) : bytes;
		int r;

		if (profile->rule_count == RULE_COUNT_MAX)
			return reason_set(reason, STATUS_ELIMIT,
					  "profile '%s' has more than %d rules; let one pattern match more tensors",
					  profile->name, RULE_COUNT_MAX);
		r = rule_parse(text, rule_bytes, profile, &profile->rules[profile->rule_count], reason);
		if (r != 0)
			return r;
		profile->rule_count++;
		if (!end)
			return 0;
		text = end + 1;
		bytes -= rule_bytes + 1;
	}
}

/* The name and the schedule, from the text before the first ';'. */
static int head_parse(const char *text, size_t bytes, struct profile *profile, struct reason *reason)
{
	const char *equals = bytes > 0 ? memchr(text, '=', bytes) : NULL;
	char schedule[SCHEDULE_BYTES_MAX + 1];
	size_t name_bytes, schedule_bytes;
	int r;

	if (!equals)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "a profile is written name=schedule (for example ema=yolo:decay=0.9999), "
				  "but there is no '=' in its %zu bytes",
				  bytes);
	name_bytes = (size_t)(equals - text);
	schedule_bytes = bytes - name_bytes - 1;
	r = profile_name_check(text, name_bytes, reason);
	if (r != 0)
		return r;
	memcpy(profile->name, text, name_bytes);
	if (schedule_bytes > SCHEDULE_BYTES_MAX)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "profile '%s': the schedule has %zu bytes, at most %d are allowed", profile->name,
				  schedule_bytes, SCHEDULE_BYTES_MAX);
	if (memchr(equals + 1, '\0', schedule_bytes))
		return reason_set(reason, STATUS_ESCHEDULE, "profile '%s': the schedule contains a NUL", profile->name);
	memcpy(schedule, equals + 1, schedule_bytes);
	schedule[schedule_bytes] = '\0';
	return schedule_parse(schedule, &profile->schedule, reason);
}

int profile_parse(const char *specification, size_t bytes, struct profile *ret_profile, struct reason *reason)
{
	const char *rules = bytes > 0 ? memchr(specification, ';', bytes) : NULL;
	size_t head_bytes = rules ? (size_t)(rules - specification) : bytes;
	char canonical[PROFILE_BYTES_MAX + 1];
	struct profile profile = {0};
	int r;

	r = head_parse(specification, head_bytes, &profile, reason);
	if (r == 0 && rules)
		r = rules_parse(rules + 1, bytes - head_bytes - 1, &profile, reason);
	if (r != 0)
		return r;
	/* What is accepted can be written: the text is what slots, files and answers carry. */
	if (profile_format(&profile, canonical, sizeof(canonical)) != 0)
		return reason_set(
			reason, STATUS_ELIMIT,
			"written out, profile '%s' with its %u rules has more than the %d bytes that are allowed; "
			"shorten its patterns with *",
			profile.name, profile.rule_count, PROFILE_BYTES_MAX);
	*ret_profile = profile;
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static void rule_format(const struct profile_rule *rule, char text[static RULE_BYTES_MAX + 1])
{
	char number[NUMBER_BYTES_MAX] = "";

	assert(rule->entry != ENTRY_FIRST);
	if (rule->has_decay)
		number_format(rule->decay, number);
	snprintf(text, RULE_BYTES_MAX + 1, "%s%s%s=%s", schedule_entry_name(rule->entry), rule->has_decay ? "@" : "",
		 number, rule->pattern);
}

int profile_format(const struct profile *profile, char *text, size_t text_capacity)
{
	char built[PROFILE_NAME_BYTES_MAX + 1 + SCHEDULE_BYTES_MAX + RULE_COUNT_MAX * (1 + RULE_BYTES_MAX) + 1];
	char schedule[SCHEDULE_BYTES_MAX + 1], rule[RULE_BYTES_MAX + 1];
	int r = schedule_format(&profile->schedule, schedule, sizeof(schedule));
	size_t used;

	if (r != 0)
		return r;
	used = (size_t)snprintf(built, sizeof(built), "%s=%s", profile->name, schedule);
	for (uint32_t i = 0; i < profile->rule_count; i++) {
		rule_format(&profile->rules[i], rule);
		used += (size_t)snprintf(built + used, sizeof(built) - used, ";%s", rule);
	}
	/* Built first, so that the text is untouched where it does not fit. */
	if (used >= text_capacity)
		return STATUS_ELIMIT;
	memcpy(text, built, used + 1);
	return 0;
}

/* ---- comparing ------------------------------------------------------------------------------------------------ */

static bool schedules_equal(const struct schedule *a, const struct schedule *b)
{
	if (a->kind != b->kind || a->form != b->form || a->precision != b->precision || a->begin != b->begin ||
	    a->cadence != b->cadence || a->snapshot != b->snapshot || a->keep != b->keep)
		return false;
	for (uint32_t i = 0; i < a->kind->key_count; i++) {
		if (a->values[i] != b->values[i])
			return false;
	}
	return true;
}

static bool rules_equal(const struct profile_rule *a, const struct profile_rule *b)
{
	return a->entry == b->entry && a->has_decay == b->has_decay && (!a->has_decay || a->decay == b->decay) &&
	       strcmp(a->pattern, b->pattern) == 0;
}

static int rules_compare(const struct profile *here, const struct profile *model, uint32_t index, struct reason *reason)
{
	char ours[RULE_BYTES_MAX + 1], theirs[RULE_BYTES_MAX + 1];

	for (uint32_t i = 0; i < here->rule_count && i < model->rule_count; i++) {
		if (rules_equal(&here->rules[i], &model->rules[i]))
			continue;
		rule_format(&here->rules[i], ours);
		rule_format(&model->rules[i], theirs);
		return reason_set(reason, STATUS_EPROFILE, "profile %u '%s': rule %u is %s here, %s in the model",
				  index, here->name, i + 1, ours, theirs);
	}
	if (here->rule_count != model->rule_count)
		return reason_set(reason, STATUS_EPROFILE, "profile %u '%s': %u rules here, %u in the model", index,
				  here->name, here->rule_count, model->rule_count);
	return 0;
}

static int profile_compare_one(const struct profile *here, const struct profile *model, uint32_t index,
			       struct reason *reason)
{
	char ours[SCHEDULE_BYTES_MAX + 1] = "?", theirs[SCHEDULE_BYTES_MAX + 1] = "?";

	if (strcmp(here->name, model->name) != 0)
		return reason_set(reason, STATUS_EPROFILE, "profile %u: name '%s' here, '%s' in the model", index,
				  here->name, model->name);
	if (schedules_equal(&here->schedule, &model->schedule))
		return rules_compare(here, model, index, reason);
	schedule_format(&here->schedule, ours, sizeof(ours));
	schedule_format(&model->schedule, theirs, sizeof(theirs));
	return reason_set(reason, STATUS_EPROFILE, "profile %u '%s': schedule %s here, %s in the model", index,
			  here->name, ours, theirs);
}

int profile_compare(const struct profile *here, uint32_t here_count, const struct profile *model, uint32_t model_count,
		    struct reason *reason)
{
	for (uint32_t i = 0; i < here_count && i < model_count; i++) {
		int r = profile_compare_one(&here[i], &model[i], i, reason);

		if (r != 0)
			return r;
	}
	if (here_count != model_count)
		return reason_set(reason, STATUS_EPROFILE, "%u profiles here, %u in the model", here_count,
				  model_count);
	return 0;
}

/* ---- choosing ------------------------------------------------------------------------------------------------- */

static enum dtype shadow_dtype(const struct schedule *schedule, enum dtype dtype)
{
	switch (schedule->precision) {
	case PRECISION_AUTO:
		return dtype_shadow(dtype);
	case PRECISION_F32:
		return DTYPE_F32;
	case PRECISION_F64:
		return DTYPE_F64;
	}
	return dtype;
}

struct profile_choice profile_choose(const struct profile *profile, const struct tensor *tensor)
{
	const bool is_float = dtype_is_float(tensor->dtype);
	struct profile_choice choice = {
		.entry = schedule_entry_default(&profile->schedule, is_float, tensor->is_buffer),
		.dtype = tensor->dtype,
		.rule = -1,
	};

	for (uint32_t i = 0; i < profile->rule_count && choice.rule < 0; i++) {
		const struct profile_rule *rule = &profile->rules[i];

		if ((is_float || rule->entry != ENTRY_AVERAGE) && pattern_matches(rule->pattern, tensor->name)) {
			choice.entry = rule->entry;
			choice.rule = (int32_t)i;
		}
	}
	if (choice.entry == ENTRY_AVERAGE)
		choice.dtype = shadow_dtype(&profile->schedule, tensor->dtype);
	return choice;
}

struct schedule profile_schedule(const struct profile *profile, int32_t rule)
{
	struct schedule schedule = profile->schedule;
	int r = 0;

	if (rule >= 0 && profile->rules[rule].has_decay)
		r = schedule_with_decay(&profile->schedule, profile->rules[rule].decay, &schedule, NULL);
	assert(r == 0); /* the parser accepts only decays that the schedule can take */
	return schedule;
}
