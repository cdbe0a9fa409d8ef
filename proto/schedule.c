/*
 * Parsing, printing and evaluating schedules.
 *
 * Everything here is driven by the rows of schedule_table.c; no schedule is named in this file. Numbers are read by a
 * grammar of our own and handed to strtod without a decimal point ("0.9999" as "9999e-4"), because the host program of
 * the library may have set a locale whose point is a comma; printing puts the point back for the same reason. Error
 * sentences name the nearest known word, so that a typing mistake at the start of a month of training is found at once.
 */
#include "proto/schedule.h"

#include "proto/limits.h"
#include "proto/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WORD_BYTES_MAX = 40,   /* of a name or key: longer ones are cut in sentences and comparisons */
	NUMBER_BYTES_MAX = 40, /* of a number as we print it: at most "-1.2345678901234567e-308" */
	LIST_BYTES_MAX = 300,  /* a list of known words in a sentence */
};

static const char *const ACTION_NAMES[] = {
        [ACTION_COPY] = "copy",
        [ACTION_LERP] = "lerp",
        [ACTION_NOOP] = "noop",
};

static const char *const FORM_NAMES[] = {
        [FORM_LERP] = "lerp",
        [FORM_MUL_ADD] = "mul-add",
        [FORM_SUB] = "sub",
};

static const size_t FORM_COUNT = sizeof(FORM_NAMES) / sizeof(*FORM_NAMES);

const char *schedule_action_name(enum schedule_action action)
{
	return ACTION_NAMES[action];
}

const char *schedule_form_name(enum schedule_form form)
{
	return FORM_NAMES[form];
}

struct schedule_result schedule_at(const struct schedule *schedule, const struct schedule_call *call)
{
	struct schedule_result result = schedule->kind->at(schedule->values, call);

	if (result.action == ACTION_LERP && result.decay == 0)
		result.action = ACTION_COPY;
	return result;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A JSON-like decimal number that fills the text, also with a bare leading point: .9999; nothing else. */
static bool number_parse(const char *text, double *ret_number)
{
	char plain[SCHEDULE_BYTES_MAX + 16];
	size_t digits = 0, used = 0;
	long exponent = 0, fraction_digits = 0;
	const char *c = text;

	if (strlen(text) > SCHEDULE_BYTES_MAX)
		return false;
	if (*c == '-')
		plain[used++] = *c++;
	for (; is_digit(*c); digits++)
		plain[used++] = *c++;
	if (*c == '.') {
		for (c++; is_digit(*c); fraction_digits++, digits++)
			plain[used++] = *c++;
		if (fraction_digits == 0)
			return false;
	}
	if (digits == 0)
		return false;
	if (*c == 'e' || *c == 'E') {
		bool is_negative = c[1] == '-';

		c += c[1] == '-' || c[1] == '+' ? 2 : 1;
		if (!is_digit(*c))
			return false;
		for (; is_digit(*c); c++)
			exponent = exponent < 100000 ? exponent * 10 + (*c - '0') : exponent;
		if (is_negative)
			exponent = -exponent;
	}
	if (*c != '\0')
		return false;
	snprintf(plain + used, sizeof(plain) - used, "e%ld", exponent - fraction_digits);
	/* Too large a number becomes infinity here, and is out of every range. + 0.0 turns -0 into 0. */
	*ret_number = strtod(plain, NULL) + 0.0;
	return true;
}

/* The fewest digits that parse back to the same double; whole numbers in full. "inf" for infinity. */
static void number_format(double number, char text[static NUMBER_BYTES_MAX])
{
	char *target = text;
	double again;

	if (number == floor(number) && fabs(number) <= 1e15) {
		snprintf(text, NUMBER_BYTES_MAX, "%.0f", number);
		return;
	}
	for (int precision = 1; precision <= 17; precision++) {
		bool is_after_point = false;

		snprintf(text, NUMBER_BYTES_MAX, "%.*g", precision, number);
		/* Whatever is no digit, sign or exponent is the locale's decimal point, perhaps of several bytes. */
		target = text;
		for (const char *c = text; *c; c++) {
			if (is_digit(*c) || strchr("+-einf", *c)) {
				*target++ = *c;
			} else if (!is_after_point) {
				is_after_point = true;
				*target++ = '.';
			}
		}
		*target = '\0';
		if (number_parse(text, &again) && again == number)
			return;
	}
}

/* The best match for a word so far, and the list of all canonical ones, for an error sentence. */
struct suggestion {
	char list[LIST_BYTES_MAX];
	char nearest[WORD_BYTES_MAX + 1];
	unsigned distance;
};

static void suggestion_consider(struct suggestion *suggestion, const char *word, const char *candidate)
{
	unsigned distance = edit_distance(word, candidate);

	if (suggestion->nearest[0] == '\0' || distance < suggestion->distance) {
		suggestion->distance = distance;
		snprintf(suggestion->nearest, sizeof(suggestion->nearest), "%s", candidate);
	}
}

static void suggestion_list(struct suggestion *suggestion, const char *word, const char *candidate)
{
	size_t used = strlen(suggestion->list);

	snprintf(suggestion->list + used, sizeof(suggestion->list) - used, "%s%s", used ? ", " : "", candidate);
	suggestion_consider(suggestion, word, candidate);
}

/* Copies the next of space-separated words; false at the end. A NULL list is empty. */
static bool word_next(const char **list, char word[static WORD_BYTES_MAX + 1])
{
	size_t bytes;

	if (!*list)
		return false;
	*list += strspn(*list, " ");
	bytes = strcspn(*list, " ");
	snprintf(word, WORD_BYTES_MAX + 1, "%.*s", (int)bytes, *list);
	*list += bytes;
	return bytes > 0;
}

static int fail_name(const char *name, struct reason *reason)
{
	struct suggestion suggestion = {.list = ""};
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++)
		suggestion_list(&suggestion, name, kinds[i].name);
	if (name[0] == '\0')
		return reason_set(reason, STATUS_ESCHEDULE, "the schedule has no name; known: %s", suggestion.list);
	return reason_set(reason, STATUS_ESCHEDULE, "schedule '%.*s' is unknown; did you mean '%s'? known: %s",
	                  WORD_BYTES_MAX, name, suggestion.nearest, suggestion.list);
}

static int fail_key(const struct schedule_kind *kind, const char *key, struct reason *reason)
{
	struct suggestion suggestion = {.list = ""};
	char alias[WORD_BYTES_MAX + 1];

	for (uint32_t i = 0; i < kind->key_count; i++) {
		const char *aliases = kind->keys[i].aliases;

		suggestion_list(&suggestion, key, kind->keys[i].name);
		while (word_next(&aliases, alias))
			suggestion_consider(&suggestion, key, alias);
	}
	suggestion_list(&suggestion, key, "form");
	return reason_set(reason, STATUS_ESCHEDULE, "schedule '%s' has no key '%.*s'; did you mean '%s'? known: %s",
	                  kind->name, WORD_BYTES_MAX, key, suggestion.nearest, suggestion.list);
}

static int fail_form(const char *form, struct reason *reason)
{
	struct suggestion suggestion = {.list = ""};

	for (size_t i = 0; i < FORM_COUNT; i++)
		suggestion_list(&suggestion, form, FORM_NAMES[i]);
	return reason_set(reason, STATUS_ESCHEDULE, "form '%.*s' is unknown; did you mean '%s'? known: %s",
	                  WORD_BYTES_MAX, form, suggestion.nearest, suggestion.list);
}

static const struct schedule_kind *kind_find(const char *name)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++) {
		if (strcmp(name, kinds[i].name) == 0)
			return &kinds[i];
	}
	return NULL;
}

/* The index of the key of that name or alias; key_count when there is none. */
static uint32_t key_find(const struct schedule_kind *kind, const char *name)
{
	char alias[WORD_BYTES_MAX + 1];

	for (uint32_t i = 0; i < kind->key_count; i++) {
		const char *aliases = kind->keys[i].aliases;

		if (strcmp(name, kind->keys[i].name) == 0)
			return i;
		while (word_next(&aliases, alias)) {
			if (strcmp(name, alias) == 0)
				return i;
		}
	}
	return kind->key_count;
}

static int form_parse(const char *text, enum schedule_form *ret_form, struct reason *reason)
{
	for (size_t i = 0; i < FORM_COUNT; i++) {
		if (strcmp(text, FORM_NAMES[i]) == 0) {
			*ret_form = (enum schedule_form)i;
			return 0;
		}
	}
	return fail_form(text, reason);
}

static int value_parse(const struct schedule_kind *kind, const struct schedule_key *key, const char *text,
                       double *ret_value, struct reason *reason)
{
	char minimum[NUMBER_BYTES_MAX], maximum[NUMBER_BYTES_MAX];
	double value;

	number_format(key->minimum, minimum);
	number_format(key->maximum, maximum);
	if (!number_parse(text, &value))
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "%s=%.*s is not a decimal number for schedule '%s'; write one in [%s, %s]", key->name,
		                  WORD_BYTES_MAX, text, kind->name, minimum, maximum);
	if (!(value >= key->minimum && value <= key->maximum))
		return reason_set(reason, STATUS_ESCHEDULE, "%s=%.*s is outside [%s, %s] for schedule '%s'", key->name,
		                  WORD_BYTES_MAX, text, minimum, maximum, kind->name);
	if (key->is_integer && value != floor(value))
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "%s=%.*s is not a whole number for schedule '%s'; write one in [%s, %s]", key->name,
		                  WORD_BYTES_MAX, text, kind->name, minimum, maximum);
	*ret_value = value;
	return 0;
}

/* One `key=value`. *given gathers a bit for each key that was named; the one behind the last key stands for form. */
static int pair_parse(struct schedule *schedule, char *pair, uint32_t *given, struct reason *reason)
{
	const struct schedule_kind *kind = schedule->kind;
	char *value = strchr(pair, '=');
	uint32_t index;

	if (pair[0] == '\0' || value == pair)
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "schedule '%s' has an empty key; write %s:key=value,key=value, no comma at the end",
		                  kind->name, kind->name);
	if (value)
		*value++ = '\0';
	index = key_find(kind, pair);
	if (index == kind->key_count && strcmp(pair, "form") != 0)
		return fail_key(kind, pair, reason);
	if (!value || value[0] == '\0')
		return reason_set(reason, STATUS_ESCHEDULE, "key '%s' of schedule '%s' has no value; write %s=VALUE",
		                  pair, kind->name, pair);
	if (*given >> index & 1)
		return reason_set(reason, STATUS_ESCHEDULE, "key '%s' of schedule '%s' is given twice",
		                  index == kind->key_count ? "form" : kind->keys[index].name, kind->name);
	*given |= UINT32_C(1) << index;
	if (index == kind->key_count)
		return form_parse(value, &schedule->form, reason);
	for (uint32_t i = 1; i < kind->key_count; i++) {
		if (kind->keys[i].is_alternative && (*given & 1) && (*given >> i & 1))
			return reason_set(reason, STATUS_ESCHEDULE, "schedule '%s' takes either %s or %s, not both",
			                  kind->name, kind->keys[0].name, kind->keys[i].name);
	}
	return value_parse(kind, &kind->keys[index], value, &schedule->values[index], reason);
}

int schedule_parse(const char *specification, struct schedule *ret_schedule, struct reason *reason)
{
	char text[SCHEDULE_BYTES_MAX + 1];
	struct schedule schedule = {.kind = NULL};
	size_t bytes = strlen(specification);
	uint32_t given = 0;
	char *next;
	int r;

	if (bytes > SCHEDULE_BYTES_MAX)
		return reason_set(reason, STATUS_ESCHEDULE, "the schedule has %zu bytes; the limit is %d", bytes,
		                  SCHEDULE_BYTES_MAX);
	for (size_t i = 0; i < bytes; i++) {
		if (specification[i] <= 0x20 || specification[i] >= 0x7f)
			return reason_set(reason, STATUS_ESCHEDULE,
			                  "the schedule has a space, control or non-ASCII character at byte %zu; write "
			                  "name:key=value,key=value",
			                  i + 1);
	}
	memcpy(text, specification, bytes + 1);
	next = strchr(text, ':');
	if (next)
		*next++ = '\0';
	schedule.kind = kind_find(text);
	if (!schedule.kind)
		return fail_name(text, reason);
	schedule.form = schedule.kind->form;
	for (uint32_t i = 0; i < schedule.kind->key_count; i++)
		schedule.values[i] = schedule.kind->keys[i].fallback;
	while (next) {
		char *pair = next;

		next = strchr(pair, ',');
		if (next)
			*next++ = '\0';
		r = pair_parse(&schedule, pair, &given, reason);
		if (r < 0)
			return r;
	}
	*ret_schedule = schedule;
	return 0;
}

/* Appends `:key=value` or `,key=value`; STATUS_ELIMIT when it does not fit. */
static int pair_append(char *text, size_t text_capacity, const char *key, const char *value)
{
	size_t used = strlen(text);
	int chars = snprintf(text + used, text_capacity - used, "%c%s=%s", strchr(text, ':') ? ',' : ':', key, value);

	return chars < 0 || (size_t)chars >= text_capacity - used ? STATUS_ELIMIT : 0;
}

int schedule_format(const struct schedule *schedule, char *text, size_t text_capacity)
{
	const struct schedule_kind *kind = schedule->kind;
	char built[SCHEDULE_BYTES_MAX + 1], number[NUMBER_BYTES_MAX];
	int r = 0;

	snprintf(built, sizeof(built), "%s", kind->name);
	for (uint32_t i = 0; r == 0 && i < kind->key_count; i++) {
		if (schedule->values[i] == kind->keys[i].fallback)
			continue;
		number_format(schedule->values[i], number);
		r = pair_append(built, sizeof(built), kind->keys[i].name, number);
	}
	if (r == 0 && schedule->form != kind->form)
		r = pair_append(built, sizeof(built), "form", FORM_NAMES[schedule->form]);
	if (r < 0)
		return r;
	if (strlen(built) >= text_capacity)
		return STATUS_ELIMIT;
	memcpy(text, built, strlen(built) + 1);
	return 0;
}
