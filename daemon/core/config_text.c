/*
 * Printing the configuration. See config_text.h.
 */
#include "daemon/core/config_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/json_text.h"

enum { COLUMNS = 100, ORIGIN_BYTES_MAX = CONFIG_PATH_BYTES_MAX + 32 };

static const char HEAD[] =
        "# emad.conf: the settings of emad, each as a comment with its default. `emad --default-config` prints this file.\n"
        "#\n"
        "# Files that end in .conf in the folder emad.conf.d beside this one are read after it, in the order of their names.\n"
        "# Of a key that several files set the last one counts, and the command line counts more than any file. Within one\n"
        "# file a key or a section that comes twice is an error, as is one that is not known.\n"
        "#\n"
        "#     emad --check-config     are the files right?\n"
        "#     emad --print-config     what is in effect, and where it was set\n"
        "#     systemctl reload emad   reads everything again (SIGHUP); what is wrong is logged, and then nothing changes\n"
        "#\n"
        "# Sizes take K, M, G and T (powers of 1024), times ms, s, min, h and d (without one: seconds). Lists are divided by\n"
        "# blanks or commas, and go on in lines that begin with a blank.\n";

static const char MODEL_HEAD[] =
        "# Defaults by the name of a model, as many sections as are wanted: what a registration does not say itself is taken\n"
        "# from the first section whose pattern matches the name. * stands for any characters, ? for one, [a-z] for one of a\n"
        "# set.\n"
        "#\n"
        "#     [model vision/*]\n"
        "#     profiles=ema=yolo:decay=0.9999\n"
        "#         slow=constant:decay=0.99999\n"
        "#     policy=coalesce\n";

/* Words of a text in lines of at most COLUMNS, each after the indent. */
static void paragraph(FILE *file, const char *indent, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t count = strcspn(text, " ");

		if (column > 0 && column + 1 + count > COLUMNS) {
			fputc('\n', file);
			column = 0;
		}
		fprintf(file, "%s%.*s", column > 0 ? " " : indent, (int)count, text);
		column += column > 0 ? 1 + count : strlen(indent) + count;
		text += count + (text[count] == ' ');
	}
	fputc('\n', file);
}

/* "2 to 16", "block or coalesce", "" where there is no more to say than the text does. */
static void range(const struct config_key *key, char *text, size_t capacity)
{
	char least[40], most[40];

	text[0] = '\0';
	if (key->kind == CONFIG_WORD) {
		for (int i = 0; key->words[i]; i++) {
			size_t used = strlen(text);

			snprintf(text + used, capacity - used, "%s%s", i == 0 ? "" : key->words[i + 1] ? ", " : " or ",
			         key->words[i]);
		}
	} else if (key->maximum > 0) {
		config_format_number(key, key->minimum, least, sizeof least);
		config_format_number(key, key->maximum, most, sizeof most);
		snprintf(text, capacity, "%s to %s", least, most);
	}
}

static void key_comment(const struct config_key *key, const char *indent, FILE *file)
{
	char allowed[128], text[640];

	range(key, allowed, sizeof allowed);
	snprintf(text, sizeof text, "%s%s%s%s%s", key->text, allowed[0] ? " (" : "", allowed, allowed[0] ? ")" : "",
	         key->reloads ? "" : " Takes effect at the next start.");
	paragraph(file, indent, text);
}

void config_text_help(FILE *file)
{
	const char *section = "";

	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];

		if (strcmp(section, key->section) != 0)
			fprintf(file, config_is_default(key) ? "  [%s PATTERN]\n" : "  [%s]\n", key->section);
		section = key->section;
		fprintf(file, "    %s=%s\n", key->name, key->fallback ? key->fallback : "");
		key_comment(key, "        ", file);
	}
}

void config_text_default(FILE *file)
{
	const char *section = "";

	fputs(HEAD, file);
	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];

		fputc('\n', file);
		if (strcmp(section, key->section) != 0 && config_is_default(key))
			fprintf(file, "%s\n#[%s PATTERN]\n\n", MODEL_HEAD, key->section);
		else if (strcmp(section, key->section) != 0)
			fprintf(file, "[%s]\n\n", key->section);
		section = key->section;
		key_comment(key, "# ", file);
		fprintf(file, "#%s=%s\n", key->name, key->fallback ? key->fallback : "");
	}
}

void config_text_origin(const struct config *config, const struct config_origin *origin, char *text, size_t capacity)
{
	switch (origin->place) {
	case CONFIG_BY_DEFAULT:
		snprintf(text, capacity, "default");
		break;
	case CONFIG_BY_ENVIRONMENT:
		snprintf(text, capacity, "environment");
		break;
	case CONFIG_BY_FILE:
		snprintf(text, capacity, "%s:%" PRIu32, config->files[origin->file], origin->line);
		break;
	case CONFIG_BY_COMMAND_LINE:
		snprintf(text, capacity, "command line");
		break;
	}
}

/* ---- what is in effect ------------------------------------------------------------------------------------------- */

enum { LINE_BYTES = 180 }; /* what inih can surely read in one */

/* A value; of a list each word in a line of its own. */
static void value_print(const struct config_key *key, const char *value, FILE *file)
{
	bool is_list = config_is_list(key);

	fprintf(file, "%s=", key->name);
	for (bool first = true; *value; first = false) {
		size_t count = is_list ? strcspn(value, " ") : strlen(value);

		fprintf(file, "%s%.*s", first && (!is_list || count < LINE_BYTES) ? "" : "\n ", (int)count, value);
		value += count + (value[count] == ' ');
	}
	fputc('\n', file);
}

static void section_print(const struct config *config, const void *values, const struct config_origin *origins,
                          const char *section, FILE *file)
{
	char value[CONFIG_VALUE_BYTES_MAX + 1], origin[ORIGIN_BYTES_MAX];

	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];

		if (strcmp(section, key->section) != 0 || !config_format(key, values, value, sizeof value))
			continue;
		config_text_origin(config, &origins[i], origin, sizeof origin);
		fprintf(file, "# %s: %s\n", key->name, origin);
		value_print(key, value, file);
	}
}

void config_text_effective(const struct config *config, FILE *file)
{
	const char *section = "";

	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];

		if (strcmp(section, key->section) == 0 || config_is_default(key))
			continue;
		fprintf(file, "%s[%s]\n", section[0] ? "\n" : "", key->section);
		section = key->section;
		section_print(config, config, config->origins, section, file);
	}
	for (uint32_t i = 0; i < config->default_count; i++) {
		fprintf(file, "\n[model %s]\n", config->defaults[i].pattern);
		section_print(config, &config->defaults[i], config->default_origins[i], "model", file);
	}
}

static json_t *settings_json(const struct config *config, const void *values, const struct config_origin *origins,
                             bool defaults)
{
	char value[CONFIG_VALUE_BYTES_MAX + 1], origin[ORIGIN_BYTES_MAX];
	json_t *list = json_array();

	for (int i = 0; list && i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		json_t *row;

		if (config_is_default(key) != defaults || !config_format(key, values, value, sizeof value))
			continue;
		config_text_origin(config, &origins[i], origin, sizeof origin);
		row = json_pack("{s:s, s:s, s:s, s:s, s:b}", "section", key->section, "key", key->name, "value", value,
		                "origin", origin, "reloads", key->reloads);
		if (!row || json_array_append_new(list, row) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

char *config_text_json(const struct config *config)
{
	json_t *settings = settings_json(config, config, config->origins, false);
	json_t *models = json_array(), *files = json_array(), *root;
	bool whole = models && files;
	char *text;

	for (uint32_t i = 0; whole && i < config->default_count; i++) {
		json_t *rows = settings_json(config, &config->defaults[i], config->default_origins[i], true);
		json_t *model = json_pack("{s:s, s:o}", "pattern", config->defaults[i].pattern, "settings", rows);

		whole = model && json_array_append_new(models, model) == 0;
	}
	for (uint32_t i = 0; whole && i < config->file_count; i++)
		whole = json_array_append_new(files, json_string(config->files[i])) == 0;
	/* Takes its parts also when one of them is missing. */
	root = json_pack("{s:o, s:o, s:o}", "settings", settings, "models", models, "files", files);
	text = whole && root ? json_text(root) : NULL;
	json_decref(root);
	return text;
}
