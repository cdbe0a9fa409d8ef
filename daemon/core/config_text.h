/*
 * The configuration as text, all of it from the table of keys: the commented default file, what is in effect and why, and
 * the list for --help.
 */
#pragma once

#include <stdio.h>

#include "daemon/core/config.h"

/* Every key with its default and meaning, for --help. */
void config_text_help(FILE *file);

/* The commented file of all keys and defaults, as /etc/emad/emad.conf is installed. */
void config_text_default(FILE *file);

/* What is in effect, and in a comment before each value where it was set. It can be read as a file. */
void config_text_effective(const struct config *config, FILE *file);

/*
 * The same as JSON: {"settings": [{"section", "key", "value", "origin", "reloads"}, ...], "models": [{"pattern",
 * "settings": [...]}, ...], "files": [...]}. Owned by the caller; NULL without memory.
 */
char *config_text_json(const struct config *config);

/* "default", "command line", "/etc/emad/emad.conf:12", "environment". */
void config_text_origin(const struct config *config, const struct config_origin *origin, char *text, size_t capacity);
