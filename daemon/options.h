/*
 * The command line, and with it the whole configuration: defaults, what systemd says in the environment, files, and over
 * all of them the options, of which every key outside of [model PATTERN] is one.
 */
#pragma once

#include <stdbool.h>

#include "daemon/core/config.h"
#include "daemon/edge/config_file.h"

enum {
	OPTIONS_PATH_COUNT_MAX = 4,
	OPTIONS_PATH_BYTES_MAX = 4096 + CONFIG_PATH_BYTES_MAX,
};

enum options_action {
	OPTIONS_RUN,
	OPTIONS_CHECK,
	OPTIONS_PRINT,
	OPTIONS_DEFAULT,
	OPTIONS_HELP,
	OPTIONS_VERSION,
};

struct options {
	enum options_action action;
	bool json;
	const char *config_path;                  /* NULL: CONFIG_FILE_DEFAULT */
	const char *values[CONFIG_KEY_COUNT_MAX]; /* by index of the key; NULL: not given */
	struct config_host host;
	char paths[OPTIONS_PATH_COUNT_MAX][OPTIONS_PATH_BYTES_MAX]; /* of values that were relative: from here */
	int path_count;
};

/*
 * Reads the command line; what is wrong goes to standard error. EX_OK or EX_USAGE. Texts are borrowed from argv, or point
 * into the options, which must stay where they are.
 */
int options_parse(struct options *options, int argc, char **argv);

/* Reads everything, for the first time or again. What is wrong is added to the faults. */
void options_configure(const struct options *options, struct config *ret_config, struct config_faults *faults);
