/*
 * Any text as a profile: it is refused with a sentence, or its canonical text parses back to the same profile, and
 * every tensor is given something to become.
 */
#include "proto/profile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_choices(const struct profile *profile)
{
	static const char *const NAMES[] = {
		"", "w", "layer.0.bias", "model.[3].running_mean", "sch\xc3\xb6n", "aaaaaaaaaaaab"};

	for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
		for (int kind = 0; kind < DTYPE_COUNT * 2; kind++) {
			char name[32];
			struct tensor tensor = {
				.name = name, .dtype = (enum dtype)(kind / 2), .is_buffer = kind % 2 == 1};
			struct profile_choice choice;
			struct schedule schedule;

			strcpy(name, NAMES[i]);
			choice = profile_choose(profile, &tensor);
			require(choice.rule >= -1 && choice.rule < (int32_t)profile->rule_count);
			require(choice.rule < 0 || pattern_matches(profile->rules[choice.rule].pattern, name));
			require(choice.entry != ENTRY_AVERAGE || dtype_is_float(tensor.dtype));
			require(choice.entry == ENTRY_AVERAGE || choice.dtype == tensor.dtype);
			schedule = profile_schedule(profile, choice.rule);
			require(schedule.kind == profile->schedule.kind);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct profile profile, again;
	struct reason reason = {""};
	char canonical[PROFILE_BYTES_MAX + 1], text[PROFILE_BYTES_MAX + 1];
	char *exact = malloc(size ? size : 1); /* so that reading one byte too many is seen */
	int r;

	if (!exact)
		return 0;
	if (size > 0)
		memcpy(exact, data, size);
	r = profile_parse(exact, size, &profile, &reason);
	free(exact);
	if (r < 0) {
		require(reason.text[0] != '\0' && strlen(reason.text) < sizeof(reason.text) - 1);
		return 0;
	}
	require(profile_format(&profile, canonical, sizeof(canonical)) == 0);
	require(profile_parse(canonical, strlen(canonical), &again, NULL) == 0);
	require(profile_compare(&profile, 1, &again, 1, NULL) == 0);
	require(profile_format(&again, text, sizeof(text)) == 0 && strcmp(text, canonical) == 0);
	check_choices(&profile);
	return 0;
}
