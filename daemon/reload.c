/*
 * Comparing two configurations. See reload.h.
 */
#include "daemon/reload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/config_text.h"

struct speaker {
	void (*say)(void *context, enum event_severity severity, const char *text);
	void *context;
};

static void faults_say(const struct config_faults *faults, const struct speaker *speaker)
{
	char text[160];
	uint32_t shown = faults->count < CONFIG_FAULT_COUNT_MAX ? faults->count : CONFIG_FAULT_COUNT_MAX;

	for (uint32_t i = 0; i < shown; i++)
		speaker->say(speaker->context, EVENT_ERROR, faults->reasons[i].text);
	snprintf(text, sizeof text, "the configuration stays as it was: %" PRIu32 " fault%s in the new one%s", faults->count,
	         faults->count == 1 ? "" : "s", shown < faults->count ? ", the first of which are above" : "");
	speaker->say(speaker->context, EVENT_ERROR, text);
}

static void difference_say(const struct config *before, const struct config *after, int index,
                           const struct speaker *speaker)
{
	const struct config_key *key = &config_keys[index];
	char was[200], is[200], origin[CONFIG_PATH_BYTES_MAX + 32], text[760];

	(void)config_format(key, before, was, sizeof was);
	(void)config_format(key, after, is, sizeof is);
	config_text_origin(after, &after->origins[index], origin, sizeof origin);
	if (key->reloads)
		snprintf(text, sizeof text, "%s=%s now, '%s' before (%s)", key->name, is, was, origin);
	else
		snprintf(text, sizeof text, "%s=%s (%s) takes effect at the next start; until then it stays '%s'", key->name, is,
		         origin, was);
	speaker->say(speaker->context, key->reloads ? EVENT_NOTICE : EVENT_WARNING, text);
}

static void differences_say(const struct config *before, const struct config *after, const struct speaker *speaker)
{
	uint32_t changed = 0;
	char text[160];

	for (int i = 0; i < config_key_count; i++) {
		if (config_is_default(&config_keys[i]) || !config_differs(&config_keys[i], before, after))
			continue;
		difference_say(before, after, i, speaker);
		changed++;
	}
	if (before->default_count != after->default_count ||
	    memcmp(before->defaults, after->defaults, sizeof before->defaults) != 0) {
		snprintf(text, sizeof text, "%" PRIu32 " [model PATTERN] sections now, %" PRIu32
		         " before, for models that are registered from now on", after->default_count, before->default_count);
		speaker->say(speaker->context, EVENT_NOTICE, text);
		changed++;
	}
	snprintf(text, sizeof text, "the configuration was read again: %" PRIu32 " difference%s", changed,
	         changed == 1 ? "" : "s");
	speaker->say(speaker->context, EVENT_NOTICE, text);
}

struct config *reload_read(const struct options *options, const struct config *current,
                           void (*say)(void *context, enum event_severity severity, const char *text), void *context)
{
	const struct speaker speaker = { say, context };
	struct config *config = calloc(1, sizeof *config);
	struct config_faults *faults = calloc(1, sizeof *faults);

	if (!config || !faults) {
		say(context, EVENT_ERROR, "the configuration stays as it was: not enough memory to read it again");
		goto fail;
	}
	options_configure(options, config, faults);
	if (faults->count > 0) {
		faults_say(faults, &speaker);
		goto fail;
	}
	differences_say(current, config, &speaker);
	config_keep(config, current);
	free(faults);
	return config;
fail:
	free(faults);
	free(config);
	return NULL;
}
