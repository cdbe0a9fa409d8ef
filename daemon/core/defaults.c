/*
 * Defaults by name. See defaults.h.
 */
#include "daemon/core/defaults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/guards.h"
#include "proto/profile.h"

const struct defaults *defaults_find(const struct defaults *all, uint32_t count, const char *model)
{
	for (uint32_t i = 0; i < count; i++)
		if (pattern_matches(all[i].pattern, model))
			return &all[i];
	return NULL;
}

int defaults_profiles(const char *profiles, struct text_list *ret_list, struct reason *reason)
{
	struct text_list list = { .count = 0 };

	while (*profiles) {
		size_t count = strcspn(profiles, " ");

		if (list.count == PROFILE_COUNT_MAX)
			return reason_set(reason, STATUS_ELIMIT, "a model has at most %d profiles", PROFILE_COUNT_MAX);
		list.items[list.count++] = (struct text){ profiles, count };
		profiles += count + (profiles[count] == ' ');
	}
	*ret_list = list;
	return 0;
}

int defaults_profiles_check(const char *profiles, struct reason *reason)
{
	struct profile *parsed = calloc(PROFILE_COUNT_MAX, sizeof *parsed);
	struct text_list list = { .count = 0 };
	int error = parsed ? defaults_profiles(profiles, &list, reason) : -ENOMEM;

	for (uint32_t i = 0; !error && i < list.count; i++) {
		error = profile_parse(list.items[i].bytes, list.items[i].count, &parsed[i], reason);
		for (uint32_t j = 0; !error && j < i; j++)
			if (strcmp(parsed[i].name, parsed[j].name) == 0)
				error = reason_set(reason, STATUS_EPROFILE, "two profiles have the name '%s'", parsed[i].name);
	}
	free(parsed);
	return error;
}

int defaults_guards_check(const char *guards, struct reason *reason)
{
	struct guards parsed;

	return guards_parse(text_of(guards), &parsed, reason);
}
