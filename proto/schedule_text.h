/*
 * Schedules as texts, beyond schedule_parse and schedule_format: the keys that all schedules share, and single values.
 * For the rest of the schedule module, and for those who list and explain schedules.
 */
#pragma once

#include "proto/number.h"
#include "proto/schedule.h"

/*
 * The keys that every schedule takes, in the order in which they are printed. Static storage. The fallback of the first,
 * `form`, depends on the schedule: kind->form.
 */
const struct schedule_key *schedule_common_keys(size_t *ret_count);

/* The value of a common key, by its index. */
double schedule_common_value(const struct schedule *schedule, size_t index);

/* Whether a key has this name or alias. */
bool schedule_key_is(const struct schedule_key *key, const char *name);

/* A value as it is written: the fewest digits, or the word that stands for it. */
void schedule_value_format(const struct schedule_key *key, double value, char text[static NUMBER_BYTES_MAX]);

/* STATUS_ESCHEDULE with a sentence when the canonical text is longer than SCHEDULE_BYTES_MAX. */
int schedule_check(const struct schedule *schedule, struct reason *reason);
