/*
 * Schedules as texts: parsing and printing.
 *
 * Everything here is driven by the rows of schedule_table.c and the keys that all schedules share; no schedule is named
 * in this file. Error sentences name the nearest known word, so that a typing mistake at the start of a month of
 * training is found at once.
 */
#include "proto/schedule_text.h"

#include "proto/limits.h"
#include "proto/nearest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
	WORD_BYTES_MAX = NUMBER_BYTES_MAX - 1, /* of a name, key or word: longer ones are cut in sentences */
	LIST_BYTES_MAX = 320,                  /* a list of known words in a sentence */
	CANONICAL_BYTES_MAX = 1024,            /* any schedule written out, also those that are too long to be one */
};

/* The keys that every schedule takes. In words the first stands for 0; one below the minimum cannot be written. */
enum { COMMON_FORM, COMMON_PRECISION, COMMON_BEGIN, COMMON_CADENCE, COMMON_SNAPSHOT, COMMON_KEEP, COMMON_COUNT };

#define WHOLE_MAX 9e15 /* below 2^53: every whole number up to here is a double */

static const struct schedule_key COMMON_KEYS[] = {
	[COMMON_FORM] = {
		.name = "form",
		.maximum = FORM_SUB,
		.is_integer = true,
		.words = "lerp mul-add sub",
		.text = "order of the floating-point operations; each schedule has its own default",
	},
	[COMMON_PRECISION] = {
		.name = "precision",
		.minimum = PRECISION_F32,
		.maximum = PRECISION_F64,
		.is_integer = true,
		.words = "auto f32 f64",
		.text = "type of the average; unless given, f64 for float64 tensors and f32 for all others",
	},
	[COMMON_BEGIN] = {
		.name = "begin",
		.maximum = WHOLE_MAX,
		.is_integer = true,
		.text = "the average follows the weights up to this step; the first call behind it is number 1",
		.scale = SCALE_LENGTH,
	},
	[COMMON_CADENCE] = {
		.name = "cadence",
		.fallback = 1,
		.minimum = 1,
		.maximum = WHOLE_MAX,
		.is_integer = true,
		.text = "each so many calls one counts; those between leave the average as it is",
	},
	[COMMON_SNAPSHOT] = {
		.name = "snapshot",
		.maximum = WHOLE_MAX,
		.is_integer = true,
		.text = "keep the average on disk whenever its step passes a multiple of this; 0: never",
	},
	[COMMON_KEEP] = {
		.name = "keep",
		.maximum = WHOLE_MAX,
		.is_integer = true,
		.text = "at most so many of them on disk, thinned evenly; 0: all",
	},
};

const struct schedule_key *schedule_common_keys(size_t *ret_count)
{
	*ret_count = COMMON_COUNT;
	return COMMON_KEYS;
}

double schedule_common_value(const struct schedule *schedule, size_t index)
{
	const double values[] = {
		[COMMON_FORM] = schedule->form,
		[COMMON_PRECISION] = schedule->precision,
		[COMMON_BEGIN] = (double)schedule->begin,
		[COMMON_CADENCE] = (double)schedule->cadence,
		[COMMON_SNAPSHOT] = (double)schedule->snapshot,
		[COMMON_KEEP] = (double)schedule->keep,
	};

	return values[index];
}

static void common_set(struct schedule *schedule, const double *values)
{
	schedule->form = (enum schedule_form)values[COMMON_FORM];
	schedule->precision = (enum schedule_precision)values[COMMON_PRECISION];
	schedule->begin = (uint64_t)values[COMMON_BEGIN];
	schedule->cadence = (uint64_t)values[COMMON_CADENCE];
	schedule->snapshot = (uint64_t)values[COMMON_SNAPSHOT];
	schedule->keep = (uint64_t)values[COMMON_KEEP];
}

/* What a common key is where it is not written. */
static double common_fallback(const struct schedule_kind *kind, size_t index)
{
	return index == COMMON_FORM ? (double)kind->form : COMMON_KEYS[index].fallback;
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
	for (size_t i = 0; i < COMMON_COUNT; i++)
		suggestion_list(&suggestion, key, COMMON_KEYS[i].name);
	return reason_set(reason, STATUS_ESCHEDULE, "schedule '%s' has no key '%.*s'; did you mean '%s'? known: %s",
			  kind->name, WORD_BYTES_MAX, key, suggestion.nearest, suggestion.list);
}

static int fail_word(const struct schedule_key *key, const char *text, struct reason *reason)
{
	struct suggestion suggestion = {.list = ""};
	const char *words = key->words;
	char word[WORD_BYTES_MAX + 1];

	for (double value = 0; word_next(&words, word); value++) {
		if (value >= key->minimum)
			suggestion_list(&suggestion, text, word);
	}
	return reason_set(reason, STATUS_ESCHEDULE, "%s '%.*s' is unknown; did you mean '%s'? known: %s", key->name,
			  WORD_BYTES_MAX, text, suggestion.nearest, suggestion.list);
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

bool schedule_key_is(const struct schedule_key *key, const char *name)
{
	const char *aliases = key->aliases;
	char alias[WORD_BYTES_MAX + 1];

	if (strcmp(name, key->name) == 0)
		return true;
	while (word_next(&aliases, alias)) {
		if (strcmp(name, alias) == 0)
			return true;
	}
	return false;
}

static int word_parse(const struct schedule_key *key, const char *text, double *ret_value, struct reason *reason)
{
	const char *words = key->words;
	char word[WORD_BYTES_MAX + 1];

	for (double value = 0; word_next(&words, word); value++) {
		if (value >= key->minimum && strcmp(text, word) == 0) {
			*ret_value = value;
			return 0;
		}
	}
	return fail_word(key, text, reason);
}

static int value_parse(const struct schedule_kind *kind, const struct schedule_key *key, const char *text,
		       double *ret_value, struct reason *reason)
{
	char minimum[NUMBER_BYTES_MAX], maximum[NUMBER_BYTES_MAX];
	double value;

	if (key->words)
		return word_parse(key, text, ret_value, reason);
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

void schedule_value_format(const struct schedule_key *key, double value, char text[static NUMBER_BYTES_MAX])
{
	const char *words = key->words;

	if (!words) {
		number_format(value, text);
		return;
	}
	for (double at = 0; word_next(&words, text) && at < value; at++)
		;
}

/* A schedule that is being read: the keys of its kind, then the common ones. */
struct parse {
	const struct schedule_kind *kind;
	double values[SCHEDULE_KEY_COUNT_MAX + COMMON_COUNT];
	uint32_t given; /* a bit for each key that was named */
};

static const struct schedule_key *parse_key(const struct parse *parse, uint32_t index)
{
	return index < parse->kind->key_count ? &parse->kind->keys[index]
					      : &COMMON_KEYS[index - parse->kind->key_count];
}

static void parse_init(struct parse *parse, const struct schedule_kind *kind)
{
	*parse = (struct parse){.kind = kind};
	for (uint32_t i = 0; i < kind->key_count; i++)
		parse->values[i] = kind->keys[i].fallback;
	for (uint32_t i = 0; i < COMMON_COUNT; i++)
		parse->values[kind->key_count + i] = common_fallback(kind, i);
}

/* One `key=value`. */
static int pair_parse(struct parse *parse, char *pair, struct reason *reason)
{
	const struct schedule_kind *kind = parse->kind;
	const uint32_t count = kind->key_count + COMMON_COUNT;
	char *value = strchr(pair, '=');
	uint32_t index = 0;

	if (pair[0] == '\0' || value == pair)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "schedule '%s' has an empty key; write %s:key=value,key=value, no comma at the end",
				  kind->name, kind->name);
	if (value)
		*value++ = '\0';
	while (index < count && !schedule_key_is(parse_key(parse, index), pair))
		index++;
	if (index == count)
		return fail_key(kind, pair, reason);
	if (!value || value[0] == '\0')
		return reason_set(reason, STATUS_ESCHEDULE, "key '%s' of schedule '%s' has no value; write %s=VALUE",
				  pair, kind->name, pair);
	if (parse->given >> index & 1)
		return reason_set(reason, STATUS_ESCHEDULE, "key '%s' of schedule '%s' is given twice",
				  parse_key(parse, index)->name, kind->name);
	parse->given |= UINT32_C(1) << index;
	for (uint32_t i = 1; i < kind->key_count; i++) {
		if (kind->keys[i].is_alternative && (parse->given & 1) && (parse->given >> i & 1))
			return reason_set(reason, STATUS_ESCHEDULE, "schedule '%s' takes either %s or %s, not both",
					  kind->name, kind->keys[0].name, kind->keys[i].name);
	}
	return value_parse(kind, parse_key(parse, index), value, &parse->values[index], reason);
}

/* Appends `:key=value` or `,key=value`. */
static void pair_append(char text[static CANONICAL_BYTES_MAX], const struct schedule_key *key, double value)
{
	char value_text[NUMBER_BYTES_MAX];
	size_t used = strlen(text);

	schedule_value_format(key, value, value_text);
	snprintf(text + used, CANONICAL_BYTES_MAX - used, "%c%s=%s", strchr(text, ':') ? ',' : ':', key->name,
		 value_text);
}

/* The canonical text, however long. */
static void canonical_build(const struct schedule *schedule, char text[static CANONICAL_BYTES_MAX])
{
	const struct schedule_kind *kind = schedule->kind;

	snprintf(text, CANONICAL_BYTES_MAX, "%s", kind->name);
	for (uint32_t i = 0; i < kind->key_count; i++) {
		if (schedule->values[i] != kind->keys[i].fallback)
			pair_append(text, &kind->keys[i], schedule->values[i]);
	}
	for (size_t i = 0; i < COMMON_COUNT; i++) {
		double value = schedule_common_value(schedule, i);

		if (value != common_fallback(kind, i))
			pair_append(text, &COMMON_KEYS[i], value);
	}
}

int schedule_check(const struct schedule *schedule, struct reason *reason)
{
	char text[CANONICAL_BYTES_MAX];

	canonical_build(schedule, text);
	if (strlen(text) <= SCHEDULE_BYTES_MAX)
		return 0;
	return reason_set(reason, STATUS_ESCHEDULE,
			  "written out, the schedule '%s' has %zu bytes; the limit is %d: leave out a key, or give "
			  "values of fewer digits",
			  schedule->kind->name, strlen(text), SCHEDULE_BYTES_MAX);
}

int schedule_parse(const char *specification, struct schedule *ret_schedule, struct reason *reason)
{
	char text[SCHEDULE_BYTES_MAX + 1];
	struct schedule schedule = {.kind = NULL};
	size_t bytes = strlen(specification);
	struct parse parse;
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
	parse_init(&parse, schedule.kind);
	while (next) {
		char *pair = next;

		next = strchr(pair, ',');
		if (next)
			*next++ = '\0';
		r = pair_parse(&parse, pair, reason);
		if (r < 0)
			return r;
	}
	memcpy(schedule.values, parse.values, schedule.kind->key_count * sizeof(parse.values[0]));
	common_set(&schedule, parse.values + schedule.kind->key_count);
	r = schedule_check(&schedule, reason);
	if (r < 0)
		return r;
	*ret_schedule = schedule;
	return 0;
}

int schedule_format(const struct schedule *schedule, char *text, size_t text_capacity)
{
	char built[CANONICAL_BYTES_MAX];

	canonical_build(schedule, built);
	if (strlen(built) >= text_capacity)
		return STATUS_ELIMIT;
	memcpy(text, built, strlen(built) + 1);
	return 0;
}
