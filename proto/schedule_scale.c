/*
 * Schedules made from schedules: for another batch size, and with another decay.
 *
 * An average over calls reaches K times as far back in samples when each call stands for K times as many. What keeps
 * its reach is the weight of K small steps in one: a decay d becomes d^K, a weight w of the new value 1-(1-w)^K, a
 * number of calls a K-th. Each key's row says which of these it is.
 */
#include "proto/schedule_text.h"

#include "proto/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FACTOR_MAX 1e9

/* The value of the key of that name; a fallback where the schedule has none. */
static double value_named(const struct schedule *schedule, const char *name, double fallback)
{
	for (uint32_t i = 0; i < schedule->kind->key_count; i++) {
		if (strcmp(schedule->kind->keys[i].name, name) == 0)
			return schedule->values[i];
	}
	return fallback;
}

static double value_scaled(const struct schedule *schedule, const struct schedule_key *key, double value, double factor)
{
	switch (key->scale) {
	case SCALE_NONE:
		break;
	case SCALE_DECAY:
		return pow(value, factor);
	case SCALE_WEIGHT:
		return -expm1(factor * log1p(-value));
	case SCALE_LENGTH:
		return key->is_integer ? nearbyint(value / factor) : value / factor;
	case SCALE_RAMP:
		/* Without the warm-up its length stands idle. */
		if (value_named(schedule, "warmup", 1) == 0)
			break;
		return value * pow(factor, 1 / value_named(schedule, "power", 1) - 1);
	}
	return value;
}

/* One key: its value for the larger batch, still inside of its range. */
static int key_scale(const struct schedule *schedule, const struct schedule_key *key, double factor, double *value,
		     struct reason *reason)
{
	char before[NUMBER_BYTES_MAX], after[NUMBER_BYTES_MAX], minimum[NUMBER_BYTES_MAX], maximum[NUMBER_BYTES_MAX];
	double scaled;

	/* Outside of its range a value stands for "not given". */
	if (key->scale == SCALE_NONE || !(*value >= key->minimum && *value <= key->maximum))
		return 0;
	scaled = value_scaled(schedule, key, *value, factor) + 0.0;
	if (scaled >= key->minimum && scaled <= key->maximum) {
		*value = scaled;
		return 0;
	}
	number_format(*value, before);
	number_format(scaled, after);
	number_format(key->minimum, minimum);
	number_format(key->maximum, maximum);
	return reason_set(reason, STATUS_ESCHEDULE,
			  "for this batch, %s=%s of schedule '%s' would have to be %s, which is outside [%s, %s]",
			  key->name, before, schedule->kind->name, after, minimum, maximum);
}

static int scalable_check(const struct schedule *schedule, struct reason *reason)
{
	const struct schedule_kind *kind = schedule->kind;

	if (kind->is_scalable && (kind->scale_key < 0 || schedule->values[kind->scale_key] == kind->scale_value))
		return 0;
	return reason_set(reason, STATUS_ESCHEDULE, "schedule '%s' cannot be scaled: %s", kind->name, kind->unscaled);
}

int schedule_scale_batch(const struct schedule *schedule, double factor, struct schedule *ret_scaled,
			 struct reason *reason)
{
	const struct schedule_kind *kind = schedule->kind;
	struct schedule scaled = *schedule;
	size_t common_count;
	const struct schedule_key *common = schedule_common_keys(&common_count);
	double begin = (double)schedule->begin;
	int r;

	if (!(factor > 0 && factor <= FACTOR_MAX))
		return reason_set(reason, STATUS_EARGUMENT,
				  "the batch cannot be %g times as large; give a factor above 0, at most %g", factor,
				  FACTOR_MAX);
	r = scalable_check(schedule, reason);
	for (uint32_t i = 0; r == 0 && i < kind->key_count; i++)
		r = key_scale(schedule, &kind->keys[i], factor, &scaled.values[i], reason);
	for (size_t i = 0; r == 0 && i < common_count; i++) {
		/* The steps of a schedule that spans them are samples, or of no unit: they stay. */
		if (common[i].scale != SCALE_NONE && !kind->spans_steps)
			r = key_scale(schedule, &common[i], factor, &begin, reason);
	}
	if (r != 0)
		return r;
	scaled.begin = (uint64_t)begin;
	r = schedule_check(&scaled, reason);
	if (r == 0)
		*ret_scaled = scaled;
	return r;
}

int schedule_with_decay(const struct schedule *schedule, double decay, struct schedule *ret_schedule,
			struct reason *reason)
{
	const struct schedule_kind *kind = schedule->kind;
	struct schedule changed = *schedule;
	char text[NUMBER_BYTES_MAX], minimum[NUMBER_BYTES_MAX], maximum[NUMBER_BYTES_MAX];
	uint32_t i = 0;

	while (i < kind->key_count && !schedule_key_is(&kind->keys[i], "decay"))
		i++;
	if (i == kind->key_count)
		return reason_set(reason, STATUS_ESCHEDULE,
				  "schedule '%s' has no key 'decay' that could be another for some tensors",
				  kind->name);
	if (kind->debias_key >= 0 && schedule->values[kind->debias_key] != 0)
		return reason_set(
			reason, STATUS_ESCHEDULE,
			"schedule '%s' divides its start out by one decay for all tensors; with %s=0 some may "
			"have another",
			kind->name, kind->keys[kind->debias_key].name);
	if (!(decay >= kind->keys[i].minimum && decay <= kind->keys[i].maximum)) {
		number_format(decay, text);
		number_format(kind->keys[i].minimum, minimum);
		number_format(kind->keys[i].maximum, maximum);
		return reason_set(reason, STATUS_ESCHEDULE, "decay %s is outside [%s, %s] for schedule '%s'", text,
				  minimum, maximum, kind->name);
	}
	changed.values[i] = decay;
	/* It is then what decides, instead of the first key. */
	if (kind->keys[i].is_alternative)
		changed.values[0] = kind->keys[0].fallback;
	*ret_schedule = changed;
	return 0;
}
