/*
 * Comparing two configurations, and going from one to the other. See reload.h.
 */
#include "daemon/reload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clocks.h"
#include "daemon/core/config_text.h"
#include "daemon/edge/descriptors.h"
#include "daemon/edge/files.h"
#include "daemon/http_server.h"
#include "daemon/sockets.h"

static void faults_say(const struct config_faults *faults, struct voice *voice)
{
	char text[160];
	uint32_t shown = faults->count < CONFIG_FAULT_COUNT_MAX ? faults->count : CONFIG_FAULT_COUNT_MAX;

	for (uint32_t i = 0; i < shown; i++)
		voice_say(voice, EVENT_ERROR, faults->reasons[i].text);
	snprintf(text, sizeof text, "the configuration stays as it was: %" PRIu32 " fault%s in the new one%s", faults->count,
	         faults->count == 1 ? "" : "s", shown < faults->count ? ", the first of which are above" : "");
	voice_say(voice, EVENT_ERROR, text);
}

static void difference_say(const struct config *before, const struct config *after, int index,
                           struct voice *voice)
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
	voice_say(voice, key->reloads ? EVENT_NOTICE : EVENT_WARNING, text);
}

static void differences_say(const struct config *before, const struct config *after, struct voice *voice)
{
	uint32_t changed = 0;
	char text[160];

	for (int i = 0; i < config_key_count; i++) {
		if (config_is_default(&config_keys[i]) || !config_differs(&config_keys[i], before, after))
			continue;
		difference_say(before, after, i, voice);
		changed++;
	}
	if (before->default_count != after->default_count ||
	    memcmp(before->defaults, after->defaults, sizeof before->defaults) != 0) {
		snprintf(text, sizeof text, "%" PRIu32 " [model PATTERN] sections now, %" PRIu32
		         " before, for models that are registered from now on", after->default_count, before->default_count);
		voice_say(voice, EVENT_NOTICE, text);
		changed++;
	}
	snprintf(text, sizeof text, "the configuration was read again: %" PRIu32 " difference%s", changed,
	         changed == 1 ? "" : "s");
	voice_say(voice, EVENT_NOTICE, text);
}

/* NULL when something is wrong with it. */
static struct config *config_read(const struct options *options, const struct config *current, struct voice *voice)
{
	struct config *config = calloc(1, sizeof *config);
	struct config_faults *faults = calloc(1, sizeof *faults);

	if (!config || !faults) {
		voice_say(voice, EVENT_ERROR, "the configuration stays as it was: not enough memory to read it again");
		goto fail;
	}
	options_configure(options, config, faults);
	if (faults->count > 0) {
		faults_say(faults, voice);
		goto fail;
	}
	differences_say(current, config, voice);
	config_keep(config, current);
	free(faults);
	return config;
fail:
	free(faults);
	free(config);
	return NULL;
}

/* The files that the configuration names, in force as far as TLS is concerned; NULL: all stays as it was. */
static struct network_files *network_read(struct daemon *daemon, struct config *config)
{
	struct network_files *network;
	struct reason reason = { "" };
	char text[600];

	if (network_files_read(config, &network, &reason) == 0) {
		if (!daemon->listening || network_files_same(network, daemon->network) ||
		    sockets_secure(daemon, network, &reason) == 0)
			return network;
		network_files_free(network);
	}
	snprintf(text, sizeof text, "the configuration stays as it was: %s", reason.text);
	voice_say(&daemon->voice, EVENT_ERROR, text);
	return NULL;
}

void reload_warn_of_descriptors(struct daemon *daemon)
{
	struct reason reason;

	if (descriptors_check(daemon->config->segment_count_max, daemon->config->connection_count_max, &reason) != 0)
		voice_say(&daemon->voice, EVENT_WARNING, reason.text);
}

/* Takes the config. */
static void reconfigure(struct daemon *daemon, struct config *config)
{
	struct network_files *network_before = daemon->network;
	struct config *before = daemon->config;
	struct settings settings = config_settings(config);
	struct network_files *network = network_read(daemon, config);
	struct instant now = clocks_now();

	if (!network) {
		free(config);
		return;
	}
	settings.tokens = &network->tokens;
	http_server_reconfigure(daemon, config);
	daemon->config = config;
	/* Users may be in other groups meanwhile. */
	daemon->accounts = (struct accounts){ .next = 0 };
	daemon->network = network;
	if (sockets_reconfigure(daemon) != 0) {
		daemon->network = network_before;
		daemon->config = before;
		network_files_free(network);
		free(config);
		voice_say(&daemon->voice, EVENT_ERROR,
		          "the configuration stays as it was: not enough memory for connections-max");
		return;
	}
	daemon->voice.severity_max = config->log_level;
	if (daemon->files)
		files_limit(daemon->files, config->checkpoint_bytes_per_s);
	reload_warn_of_descriptors(daemon);
	service_reconfigure(daemon->service, &now, &settings);
	network_files_free(network_before);
	free(before);
	clocks_rearm(daemon);
}

void reload_run(struct daemon *daemon)
{
	struct instant now = clocks_now();
	struct config *config;
	char text[CLOCKS_SUMMARY_BYTES_MAX];

	/* Before that it is starting, and says so itself when it has. */
	if (daemon->listening)
		systemd_reloading();
	config = config_read(daemon->options, daemon->config, &daemon->voice);
	if (config)
		reconfigure(daemon, config);
	if (!daemon->listening)
		return;
	service_summary(daemon->service, &now, text, sizeof text);
	daemon->reloaded = !voice_reloaded(&daemon->voice, text);
}
