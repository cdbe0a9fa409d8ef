/*
 * Filling in the pairs. See version_metadata.h.
 */
#include "daemon/core/version_metadata.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct decimal {
	char text[32];
};

static struct decimal decimal(uint64_t number)
{
	struct decimal decimal;

	snprintf(decimal.text, sizeof decimal.text, "%" PRIu64, number);
	return decimal;
}

static void pair_add(struct image_metadata *metadata, size_t *count, const char *key, const char *value)
{
	metadata[(*count)++] = (struct image_metadata){ key, value, strlen(value) };
}

/* The image's metadata, strings all, as safetensors wants them. */
static void header_write(const struct model *model, const struct slot_header *target, uint32_t p, uint64_t version,
                         const char *user_metadata)
{
	const struct slot_profile *facts = &target->profiles[p];
	const struct profile *profile = &model->geometry->profiles[p];
	const char *history = model->histories[p];
	struct decimal step = decimal(target->step), updates = decimal(facts->updates), number = decimal(version);
	struct decimal nonfinite = decimal(facts->nonfinite), decay;
	char schedule[SCHEDULE_BYTES_MAX + 1], rules[PROFILE_BYTES_MAX + 1];
	int error = schedule_format(&profile->schedule, schedule, sizeof schedule);
	struct image_metadata metadata[16];
	size_t count = 0;

	snprintf(decay.text, sizeof decay.text, "%.17g", facts->decay);
	if (!error)
		error = profile_format(profile, rules, sizeof rules);
	pair_add(metadata, &count, "format", "pt");
	pair_add(metadata, &count, "emad.model", model->name);
	pair_add(metadata, &count, "emad.profile", profile->name);
	pair_add(metadata, &count, "emad.schedule", schedule);
	if (profile->rule_count > 0)
		pair_add(metadata, &count, "emad.rules", strchr(rules, ';') + 1);
	pair_add(metadata, &count, "emad.version", number.text);
	pair_add(metadata, &count, "emad.step", step.text);
	pair_add(metadata, &count, "emad.updates", updates.text);
	pair_add(metadata, &count, "emad.decay", decay.text);
	if (facts->nonfinite > 0)
		pair_add(metadata, &count, "emad.nonfinite", nonfinite.text);
	pair_add(metadata, &count, "emad.attributes", model->attributes);
	if (user_metadata)
		pair_add(metadata, &count, "emad.metadata", user_metadata);
	if (history && strlen(history) <= HISTORY_BYTES_MAX)
		pair_add(metadata, &count, "emad.history", history);
	if (!error)
		error = image_header_write(model->geometry->images[p],
		                           (uint8_t *)(uintptr_t)target + model->geometry->region_offsets[p], metadata,
		                           count, NULL);
	assert(!error); /* model_create reserves room for the largest metadata */
}

void version_metadata_write(const struct model *model, const struct slot_header *target, const char *user_metadata)
{
	for (uint32_t p = 0; p < model->geometry->profile_count; p++)
		header_write(model, target, p, model->version_next, user_metadata);
}
