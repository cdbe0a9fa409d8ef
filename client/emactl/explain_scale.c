/*
 * explain --scale-batch: what to write for another batch size, and why.
 *
 * All arithmetic is schedule_scale_batch's; here each key of the answer is set beside what it was, so that it can be
 * followed with a pencil.
 */
#include "client/emactl/explain.h"

#include "client/emactl/figure.h"
#include "proto/schedule_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *explain_scale_reason(const struct schedule_kind *kind, const struct schedule_key *key)
{
	switch (key->scale) {
	case SCALE_NONE:
		break;
	case SCALE_DECAY:
		return "weight of the old average: K small steps in one are value^K";
	case SCALE_WEIGHT:
		return "weight of the new value: K small steps in one are 1-(1-value)^K";
	case SCALE_LENGTH:
		return "a length in calls or steps: a K-th";
	case SCALE_RAMP:
		return "length of a warm-up by a power: value*K^(1/power-1)";
	}
	if (kind->spans_steps)
		return "stays: a part of the run, or in the unit of the step, which is samples";
	if (key->words || (key->is_integer && key->minimum == 0 && key->maximum == 1))
		return "stays: a choice";
	if (key->is_integer)
		return key->minimum > 0 ? "stays: what happens every so often is scaled instead"
					: "stays: no part of the average";
	return "stays: it is no length and no weight";
}

/* A profile with its schedule and the decays of its rules scaled. */
static int profile_scale(const struct profile *profile, double factor, struct profile *ret_scaled,
			 struct reason *reason)
{
	struct profile scaled = *profile;
	int code = schedule_scale_batch(&profile->schedule, factor, &scaled.schedule, reason);

	for (uint32_t i = 0; i < profile->rule_count && !code; i++) {
		struct schedule before = profile_schedule(profile, (int32_t)i), after;

		code = schedule_scale_batch(&before, factor, &after, reason);
		for (uint32_t j = 0; j < before.kind->key_count && !code; j++) {
			if (profile->rules[i].has_decay && schedule_key_is(&before.kind->keys[j], "decay"))
				scaled.rules[i].decay = after.values[j];
		}
	}
	if (!code)
		*ret_scaled = scaled;
	return code;
}

/* "name=schedule;rules", or the schedule alone. */
static int specification_format(const struct profile *profile, char text[static PROFILE_BYTES_MAX + 1])
{
	return profile->name[0] ? profile_format(profile, text, PROFILE_BYTES_MAX + 1)
				: schedule_format(&profile->schedule, text, PROFILE_BYTES_MAX + 1);
}

/* One key, before and after. */
struct change {
	const struct schedule_key *key;
	double before, after;
	char name[NUMBER_BYTES_MAX + 16];
	const char *why;
};

/* The changes of a profile by index; false behind the last. Common keys are among them where they are set. */
static bool change_of(const struct profile *before, const struct profile *after, size_t index, struct change *change)
{
	static const struct schedule_key RULE = {.name = "average@", .maximum = 1, .scale = SCALE_DECAY};
	const struct schedule_kind *kind = before->schedule.kind;
	size_t common_count, i;
	const struct schedule_key *common = schedule_common_keys(&common_count);

	if (index < kind->key_count) {
		*change = (struct change){.key = &kind->keys[index],
					  .before = before->schedule.values[index],
					  .after = after->schedule.values[index]};
	} else if (index < kind->key_count + common_count) {
		i = index - kind->key_count;
		*change = (struct change){.key = &common[i],
					  .before = schedule_common_value(&before->schedule, i),
					  .after = schedule_common_value(&after->schedule, i)};
		/* What is not set is not told, and the form has a default of its own. */
		if (change->before == (i == 0 ? (double)kind->form : common[i].fallback))
			change->key = NULL;
	} else if (index < kind->key_count + common_count + before->rule_count) {
		i = index - kind->key_count - common_count;
		*change = (struct change){.key = before->rules[i].has_decay ? &RULE : NULL,
					  .before = before->rules[i].decay,
					  .after = after->rules[i].decay};
	} else {
		return false;
	}
	if (change->key) {
		snprintf(change->name, sizeof(change->name), "%s", change->key->name);
		change->why = explain_scale_reason(kind, change->key);
	}
	return true;
}

/* null for one that is not given. */
static struct figure value_json(const struct schedule_key *key, double value)
{
	return figure_json_real(value >= key->minimum && value <= key->maximum ? value : (double)NAN);
}

static void scale_print_json(const struct profile *before, const struct profile *after, double factor,
			     const char *before_text, const char *after_text)
{
	const char *separator = "";
	struct change change;

	printf("{\"specification\":");
	output_json_string(before_text);
	printf(",\"factor\":%s,\"scaled\":", figure_json_real(factor).text);
	output_json_string(after_text);
	printf(",\"keys\":[");
	for (size_t i = 0; change_of(before, after, i, &change); i++) {
		if (!change.key)
			continue;
		printf("%s{\"key\":\"%s\",\"before\":", separator, change.name);
		if (change.key->words)
			printf("\"%s\",\"after\":\"%s\"", explain_value(change.key, change.before).text,
			       explain_value(change.key, change.after).text);
		else
			printf("%s,\"after\":%s", value_json(change.key, change.before).text,
			       value_json(change.key, change.after).text);
		printf(",\"why\":\"%s\"}", change.why);
		separator = ",";
	}
	printf("]}\n");
}

static int changes_print(const struct emactl *emactl, const struct profile *before, const struct profile *after)
{
	static const struct table_column COLUMNS[] = {
		{"KEY", false}, {"BEFORE", false}, {"AFTER", false}, {"WHY", false}};
	struct table *table = table_create(COLUMNS, 4);
	struct change change;
	int code;

	for (size_t i = 0; change_of(before, after, i, &change); i++) {
		if (!change.key)
			continue;
		table_cell(table, TABLE_PLAIN, "%s", change.name);
		table_cell(table, TABLE_PLAIN, "%s", explain_value(change.key, change.before).text);
		table_cell(table, change.before == change.after ? TABLE_PLAIN : TABLE_GOOD, "%s",
			   explain_value(change.key, change.after).text);
		table_cell(table, TABLE_PLAIN, "%s", change.why);
	}
	putchar('\n');
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

int explain_scale(const struct emactl *emactl, const struct profile *profile, double factor)
{
	static const struct table_column COLUMNS[2] = {{0}};
	char before[PROFILE_BYTES_MAX + 1], after[PROFILE_BYTES_MAX + 1];
	struct reason reason = {""};
	struct profile scaled;
	struct table *table;
	int code = profile_scale(profile, factor, &scaled, &reason);

	if (code)
		return output_error(emactl, code, "%s", reason.text);
	code = specification_format(profile, before);
	if (!code)
		code = specification_format(&scaled, after);
	if (code)
		return output_error(emactl, code, "the scaled profile has more than the %d bytes that are allowed",
				    PROFILE_BYTES_MAX);
	if (emactl->is_json) {
		scale_print_json(profile, &scaled, factor, before, after);
		return 0;
	}
	if (emactl->is_quiet) {
		puts(after);
		return 0;
	}
	table = table_create(COLUMNS, 2);
	table_cell(table, TABLE_HEAD, "before");
	table_cell(table, TABLE_PLAIN, "%s", before);
	table_cell(table, TABLE_HEAD, "scaled");
	table_cell(table, TABLE_GOOD, "%s", after);
	table_cell(table, TABLE_HEAD, "K");
	table_cell(table, TABLE_PLAIN, "%s: each call stands for that many times the samples",
		   figure_real(factor, 12).text);
	if (strcmp(before, after) == 0) {
		table_cell(table, TABLE_HEAD, "%s", "");
		table_cell(table, TABLE_PLAIN, "nothing changes: the average reaches as far back in samples as it is");
	}
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	if (!code)
		code = changes_print(emactl, profile, &scaled);
	return code ? output_error(emactl, code, "not enough memory to print the keys") : 0;
}
