/*
 * Counting and naming. See registration_report.h.
 */
#include "daemon/core/registration_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum difference { NEW, GONE, OTHER_SHAPE, OTHER_DTYPE, SAME };

/* How a tensor that both have differs. */
static enum difference tensor_compare(const struct tensor *here, const struct tensor *there)
{
	if (here->dimension_count != there->dimension_count ||
	    memcmp(here->extents, there->extents, here->dimension_count * sizeof here->extents[0]) != 0)
		return OTHER_SHAPE;
	return here->dtype == there->dtype ? SAME : OTHER_DTYPE;
}

void registration_difference(const struct manifest *here, const struct manifest *model, char *text, size_t capacity)
{
	static const char *const words[SAME] = { "new", "gone", "of another shape", "of another dtype" };
	char names[SAME][160] = { "" };
	uint32_t counts[SAME] = { 0 };
	size_t used = 0;

	for (uint32_t i = 0; i < here->tensor_count + model->tensor_count; i++) {
		bool is_here = i < here->tensor_count;
		const struct tensor *tensor = is_here ? &here->tensors[i] : &model->tensors[i - here->tensor_count];
		int64_t index = manifest_find(is_here ? model : here, tensor->name);
		enum difference kind = is_here ? NEW : GONE;

		if (index >= 0)
			kind = is_here ? tensor_compare(tensor, &model->tensors[index]) : SAME;
		if (kind != SAME && counts[kind]++ < 3) {
			size_t at = strlen(names[kind]);

			snprintf(names[kind] + at, sizeof names[kind] - at, "%s'%.40s'", at ? ", " : "", tensor->name);
		}
	}
	text[0] = '\0';
	for (int kind = 0; kind < SAME; kind++) {
		if (counts[kind] == 0 || used >= capacity)
			continue;
		used += (size_t)snprintf(text + used, capacity - used, "%s%" PRIu32 " %s (%s%s)", used ? ", " : "",
		                         counts[kind], words[kind], names[kind], counts[kind] > 3 ? ", ..." : "");
	}
}

/* "ema: 2 averaged, 1 frozen, 3 by copy=*.running_*, NO TENSOR matches drop=head.*" */
static void profile_report(const struct model *model, const struct profile *profile, FILE *file)
{
	static const char *const words[] = { "averaged", "copied", "frozen", "dropped", "kept from the first call" };
	uint32_t entries[5] = { 0 }, rules[RULE_COUNT_MAX] = { 0 };
	const char *separator = ": ";

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		struct profile_choice choice = profile_choose(profile, &model->manifest->tensors[t]);

		entries[choice.entry]++;
		if (choice.rule >= 0)
			rules[choice.rule]++;
	}
	fputs(profile->name, file);
	for (int i = 0; i < 5; i++) {
		if (entries[i] == 0)
			continue;
		fprintf(file, "%s%" PRIu32 " %s", separator, entries[i], words[i]);
		separator = ", ";
	}
	for (uint32_t i = 0; i < profile->rule_count; i++) {
		const struct profile_rule *rule = &profile->rules[i];

		if (rules[i] > 0)
			fprintf(file, ", %" PRIu32 " by %s=%s", rules[i], schedule_entry_name(rule->entry),
			        rule->pattern);
		else
			fprintf(file, ", NO TENSOR matches %s=%s", schedule_entry_name(rule->entry), rule->pattern);
	}
}

void registration_report(const struct model *model, char *text, size_t capacity)
{
	FILE *file = fmemopen(text, capacity, "w");

	text[0] = '\0';
	if (!file)
		return;
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		fputs(p ? "; " : "", file);
		profile_report(model, &model->geometry->profiles[p], file);
	}
	if (model->changes)
		fprintf(file, "; since the registration before: %s", model->changes);
	fclose(file);
	/* fmemopen ends a full buffer without its NUL. */
	text[capacity - 1] = '\0';
}

