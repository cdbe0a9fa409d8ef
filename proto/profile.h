/*
 * A profile: one averaged copy of a model, with a name and a schedule.
 */
#pragma once

#include "proto/limits.h"
#include "proto/manifest.h"
#include "proto/schedule.h"
#include "proto/status.h"

struct profile {
	char name[PROFILE_NAME_BYTES_MAX + 1];
	struct schedule schedule;
};

/* Parses "name=schedule" ("ema=yolo:decay=0.999"). Sentences as schedule_parse; STATUS_ENAME for the name. */
int profile_parse(const char *specification, size_t bytes, struct profile *ret_profile, struct reason *reason);

/* The canonical "name=schedule". */
int profile_format(const struct profile *profile, char *text, size_t text_capacity);

/*
 * 0 when both lists name the same profiles with the same schedules in the same order, else STATUS_EPROFILE with the
 * first difference.
 */
int profile_compare(const struct profile *here, uint32_t here_count, const struct profile *model,
                    uint32_t model_count, struct reason *reason);

/* What the profile does with a tensor: the default of the schedule's library for that kind of entry. */
enum schedule_entry profile_entry(const struct profile *profile, const struct tensor *tensor);
