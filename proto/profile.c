/*
 * Profiles: "name=schedule", and what a profile does with each tensor.
 */
#include "proto/profile.h"

#include "proto/name.h"

#include <stdio.h>
#include <string.h>

int profile_parse(const char *specification, size_t bytes, struct profile *ret_profile, struct reason *reason)
{
	const char *equals = bytes > 0 ? memchr(specification, '=', bytes) : NULL;
	char schedule[SCHEDULE_BYTES_MAX + 1];
	struct profile profile = {0};
	size_t name_bytes, schedule_bytes;
	int r;

	if (!equals)
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "a profile is written name=schedule (for example ema=yolo:decay=0.9999), "
		                  "but there is no '=' in its %zu bytes",
		                  bytes);
	name_bytes = (size_t)(equals - specification);
	schedule_bytes = bytes - name_bytes - 1;
	r = profile_name_check(specification, name_bytes, reason);
	if (r != 0)
		return r;
	memcpy(profile.name, specification, name_bytes);
	if (schedule_bytes > SCHEDULE_BYTES_MAX)
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "profile '%s': the schedule has %zu bytes, at most %d are allowed", profile.name,
		                  schedule_bytes, SCHEDULE_BYTES_MAX);
	if (memchr(equals + 1, '\0', schedule_bytes))
		return reason_set(reason, STATUS_ESCHEDULE, "profile '%s': the schedule contains a NUL", profile.name);
	memcpy(schedule, equals + 1, schedule_bytes);
	schedule[schedule_bytes] = '\0';
	r = schedule_parse(schedule, &profile.schedule, reason);
	if (r != 0)
		return r;
	*ret_profile = profile;
	return 0;
}

int profile_format(const struct profile *profile, char *text, size_t text_capacity)
{
	char schedule[SCHEDULE_BYTES_MAX + 1];
	int r = schedule_format(&profile->schedule, schedule, sizeof(schedule));

	if (r != 0)
		return r;
	/* Measured first, so that the text is untouched where it does not fit. */
	if (strlen(profile->name) + 1 + strlen(schedule) >= text_capacity)
		return STATUS_ELIMIT;
	snprintf(text, text_capacity, "%s=%s", profile->name, schedule);
	return 0;
}

static bool schedules_equal(const struct schedule *a, const struct schedule *b)
{
	if (a->kind != b->kind || a->form != b->form)
		return false;
	for (uint32_t i = 0; i < a->kind->key_count; i++) {
		if (a->values[i] != b->values[i])
			return false;
	}
	return true;
}

int profile_compare(const struct profile *here, uint32_t here_count, const struct profile *model,
                    uint32_t model_count, struct reason *reason)
{
	for (uint32_t i = 0; i < here_count && i < model_count; i++) {
		char ours[SCHEDULE_BYTES_MAX + 1] = "?", theirs[SCHEDULE_BYTES_MAX + 1] = "?";

		if (strcmp(here[i].name, model[i].name) != 0)
			return reason_set(reason, STATUS_EPROFILE, "profile %u: name '%s' here, '%s' in the model", i,
			                  here[i].name, model[i].name);
		if (schedules_equal(&here[i].schedule, &model[i].schedule))
			continue;
		schedule_format(&here[i].schedule, ours, sizeof(ours));
		schedule_format(&model[i].schedule, theirs, sizeof(theirs));
		return reason_set(reason, STATUS_EPROFILE, "profile %u '%s': schedule %s here, %s in the model", i,
		                  here[i].name, ours, theirs);
	}
	if (here_count != model_count)
		return reason_set(reason, STATUS_EPROFILE, "%u profiles here, %u in the model", here_count,
		                  model_count);
	return 0;
}

enum schedule_entry profile_entry(const struct profile *profile, const struct tensor *tensor)
{
	const struct schedule_kind *kind = profile->schedule.kind;

	/* Libraries that hold parameters only hold no integer buffers either. */
	if (tensor->is_buffer && kind->float_buffer == ENTRY_DROP)
		return ENTRY_DROP;
	if (!dtype_is_float(tensor->dtype))
		return kind->integer;
	return tensor->is_buffer ? kind->float_buffer : ENTRY_AVERAGE;
}
