/*
 * Reading and printing guards. See guards.h.
 */
#include "daemon/core/guards.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/nearest.h"

static const char *const NONFINITE_NAMES[] = {
	[NONFINITE_REFUSE] = "refuse",
	[NONFINITE_SKIP_TENSOR] = "skip-tensor",
	[NONFINITE_APPLY] = "apply",
};

static const char *const KEYS[] = { "nonfinite", "loss_max", "norm_jump" };

enum { NONFINITE_COUNT = 3, KEY_COUNT = 3, TEXT_BYTES_MAX = 256 };

struct guards guards_default(void)
{
	return (struct guards){ .nonfinite = NONFINITE_REFUSE, .loss_max = INFINITY, .norm_jump = INFINITY };
}

static int nonfinite_parse(const char *value, enum guard_nonfinite *ret_nonfinite, struct reason *reason)
{
	for (int i = 0; i < NONFINITE_COUNT; i++) {
		if (strcmp(value, NONFINITE_NAMES[i]) != 0)
			continue;
		*ret_nonfinite = (enum guard_nonfinite)i;
		return 0;
	}
	return reason_set(reason, STATUS_EARGUMENT, "guard nonfinite=%.40s: it must be refuse, skip-tensor or apply",
	                  value);
}

static int number_parse(const char *key, const char *value, double minimum, double *ret_number, struct reason *reason)
{
	char *end;
	double number = strtod(value, &end);

	if (end == value || *end != '\0' || !isfinite(number) || !(number >= minimum))
		return reason_set(reason, STATUS_EARGUMENT, "guard %s=%.40s: it must be a number%s", key, value,
		                  minimum >= 0 ? " that is not negative" : "");
	*ret_number = number;
	return 0;
}

static int key_fail(const char *key, struct reason *reason)
{
	int best = 0;

	for (int i = 1; i < KEY_COUNT; i++)
		if (edit_distance(key, KEYS[i]) < edit_distance(key, KEYS[best]))
			best = i;
	return reason_set(reason, STATUS_EARGUMENT,
	                  "guard '%.40s' is unknown; did you mean '%s'? known: nonfinite, loss_max, norm_jump", key,
	                  KEYS[best]);
}

static int pair_parse(struct guards *guards, char *pair, struct reason *reason)
{
	char *value = strchr(pair, '=');

	if (!value || value[1] == '\0')
		return reason_set(reason, STATUS_EARGUMENT, "guard '%.40s' has no value: write %.40s=VALUE", pair,
		                  pair);
	*value++ = '\0';
	if (strcmp(pair, "nonfinite") == 0)
		return nonfinite_parse(value, &guards->nonfinite, reason);
	if (strcmp(pair, "loss_max") == 0)
		return number_parse(pair, value, -INFINITY, &guards->loss_max, reason);
	if (strcmp(pair, "norm_jump") == 0)
		return number_parse(pair, value, 0, &guards->norm_jump, reason);
	return key_fail(pair, reason);
}

int guards_parse(struct text text, struct guards *ret_guards, struct reason *reason)
{
	struct guards guards = guards_default();
	char copy[TEXT_BYTES_MAX + 1], *rest = copy, *pair;

	if (text.count > TEXT_BYTES_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "the guards have %zu bytes, at most %d are allowed",
		                  (size_t)text.count, TEXT_BYTES_MAX);
	if (text.count > 0 && memchr(text.bytes, '\0', text.count))
		return reason_set(reason, STATUS_EARGUMENT, "the guards contain a NUL");
	(void)text_copy(text, copy, sizeof copy);
	while (text.count > 0 && (pair = strsep(&rest, ","))) {
		int error = pair_parse(&guards, pair, reason);

		if (error)
			return error;
	}
	*ret_guards = guards;
	return 0;
}

void guards_format(const struct guards *guards, char *text, size_t text_capacity)
{
	size_t used;

	snprintf(text, text_capacity, "nonfinite=%s", NONFINITE_NAMES[guards->nonfinite]);
	if (isfinite(guards->loss_max)) {
		used = strlen(text);
		snprintf(text + used, text_capacity - used, ",loss_max=%.15g", guards->loss_max);
	}
	if (isfinite(guards->norm_jump)) {
		used = strlen(text);
		snprintf(text + used, text_capacity - used, ",norm_jump=%.15g", guards->norm_jump);
	}
}
