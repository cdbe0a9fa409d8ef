/*
 * getopt_long with a table made from that of the keys. See options.h.
 */
#include "daemon/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/edge/accounts.h"
#include "daemon/edge/memory_group.h"

enum { OPTION_KEY_FIRST = 1000, OPTION_CHECK = 500, OPTION_PRINT, OPTION_DEFAULT, OPTION_JSON, OWN_COUNT = 7 };

/* What comes before the files: systemd's directories. */
static const struct {
	const char *variable, *key;
} variables[] = { { "RUNTIME_DIRECTORY", "runtime-dir" }, { "STATE_DIRECTORY", "state-dir" } };

/* And a file in the directory of its credentials. */
static const char TOKEN_CREDENTIAL[] = "http.token";

static void table_make(struct option table[OWN_COUNT + CONFIG_KEY_COUNT_MAX + 1])
{
	static const struct option own[OWN_COUNT] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", optional_argument, NULL, OPTION_CHECK },
		{ "print-config", no_argument, NULL, OPTION_PRINT },
		{ "default-config", no_argument, NULL, OPTION_DEFAULT },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
	};
	int count = OWN_COUNT;

	memcpy(table, own, sizeof own);
	for (int i = 0; i < config_key_count; i++)
		if (!config_is_default(&config_keys[i]))
			table[count++] = (struct option){ config_keys[i].name, required_argument, NULL, OPTION_KEY_FIRST + i };
	table[count] = (struct option){ NULL, 0, NULL, 0 };
}

/* A path from the working directory is one from the root, for whoever is told it later. */
static const char *path_absolute(struct options *options, int key, const char *value)
{
	char *path, here[OPTIONS_PATH_BYTES_MAX - CONFIG_PATH_BYTES_MAX];

	if (config_keys[key].kind != CONFIG_PATH || value[0] == '\0' || value[0] == '/' ||
	    options->path_count == OPTIONS_PATH_COUNT_MAX || strlen(value) >= CONFIG_PATH_BYTES_MAX ||
	    !getcwd(here, sizeof here))
		return value;
	path = options->paths[options->path_count];
	snprintf(path, sizeof options->paths[0], "%s/%s", here, value);
	options->path_count++;
	return path;
}

static void value_take(struct options *options, int key, const char *value)
{
	options->values[key] = path_absolute(options, key, value);
}

static int option_take(struct options *options, int option)
{
	switch (option) {
	case 'c':
		options->config_path = optarg;
		break;
	case 'r':
		value_take(options, config_find("daemon", "runtime-dir"), optarg);
		break;
	case 's':
		value_take(options, config_find("daemon", "state-dir"), optarg);
		break;
	case OPTION_CHECK:
		options->action = OPTIONS_CHECK;
		if (optarg)
			options->config_path = optarg;
		break;
	case OPTION_PRINT:
		options->action = OPTIONS_PRINT;
		break;
	case OPTION_DEFAULT:
		options->action = OPTIONS_DEFAULT;
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case 'h':
		options->action = OPTIONS_HELP;
		break;
	case 'V':
		options->action = OPTIONS_VERSION;
		break;
	default:
		if (option < OPTION_KEY_FIRST) {
			fputs("Try 'emad --help'.\n", stderr);
			return EX_USAGE;
		}
		value_take(options, option - OPTION_KEY_FIRST, optarg);
	}
	return EX_OK;
}

/* Whether the values can be used, before anything else is looked at. */
static int values_check(const struct options *options)
{
	struct config *config = calloc(1, sizeof *config);
	struct reason reason;
	int status = EX_OK;

	if (!config) {
		fputs("emad: not enough memory for the settings\n", stderr);
		return EX_OSERR;
	}
	for (int i = 0; i < config_key_count && status == EX_OK; i++) {
		if (!options->values[i] || config_set(config, i, options->values[i], false, &options->host, &reason) == 0)
			continue;
		fprintf(stderr, "emad: --%s\n", reason.text);
		status = EX_USAGE;
	}
	free(config);
	return status;
}

int options_parse(struct options *options, int argc, char **argv)
{
	struct option table[OWN_COUNT + CONFIG_KEY_COUNT_MAX + 1];
	int option, status = EX_OK;

	*options = (struct options){
		.host = {
			.processor_count = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN),
			.memory_bytes = memory_total_bytes(),
			.user = accounts_user,
			.group = accounts_group,
		},
	};
	table_make(table);
	while (status == EX_OK && (option = getopt_long(argc, argv, "c:r:s:hV", table, NULL)) != -1)
		status = option_take(options, option);
	if (status != EX_OK)
		return status;
	/* "--check-config FILE", as well as with '=' between. */
	if (options->action == OPTIONS_CHECK && !options->config_path && optind < argc)
		options->config_path = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "emad: '%s' is not an option\nTry 'emad --help'.\n", argv[optind]);
		return EX_USAGE;
	}
	if (options->json && options->action != OPTIONS_PRINT) {
		fputs("emad: --json goes with --print-config\n", stderr);
		return EX_USAGE;
	}
	return values_check(options);
}

/* systemd's copy of the token, where there is one. */
static void token_configure(const struct options *options, struct config *config)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	int key = config_find("http", "http-token-file");
	char path[CONFIG_PATH_BYTES_MAX];

	if (!directory || strlen(directory) + sizeof TOKEN_CREDENTIAL + 1 > sizeof path)
		return;
	snprintf(path, sizeof path, "%s/%s", directory, TOKEN_CREDENTIAL);
	if (access(path, F_OK) == 0 && config_set(config, key, path, false, &options->host, NULL) == 0)
		config->origins[key].place = CONFIG_BY_ENVIRONMENT;
}

void options_configure(const struct options *options, struct config *ret_config, struct config_faults *faults)
{
	struct config *config = ret_config;
	struct reason reason;

	config_init(config, &options->host);
	for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
		const char *value = getenv(variables[i].variable);
		int key = config_find("daemon", variables[i].key);

		if (!value || !value[0])
			continue;
		config->origins[key].place = CONFIG_BY_ENVIRONMENT;
		if (config_set(config, key, value, false, &options->host, &reason) != 0)
			config_fault(faults, STATUS_EARGUMENT, "the environment's %s: %s", variables[i].variable, reason.text);
	}
	token_configure(options, config);
	config_file_read(config, options->config_path, &options->host, faults);
	for (int i = 0; i < config_key_count; i++) {
		if (!options->values[i])
			continue;
		config->origins[i].place = CONFIG_BY_COMMAND_LINE;
		if (config_set(config, i, options->values[i], false, &options->host, &reason) != 0)
			config_fault(faults, STATUS_EARGUMENT, "--%s", reason.text);
	}
	config_resolve(config, &options->host);
}
