/*
 * Completion by the table of commands. See complete.h.
 */
#include "client/emactl/complete.h"

#include "client/emactl/facts.h"
#include "client/emactl/operand.h"
#include "client/emactl/top_rows.h"
#include "proto/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { PATIENCE_MS = 300, PLACE_BYTES = 64, DAEMON_COUNT_MAX = 10000 };

/* The line as far as it is understood. */
struct typed {
	const struct command *const *commands; /* borrowed, like all here */
	size_t command_count;
	const struct command *command;       /* NULL while it is not known */
	const struct command_option *option; /* whose argument is being typed; NULL: none */
	const char *url;                     /* of --socket */
	const char *first, *second;          /* arguments of the command so far */
	unsigned argument_count;
	bool is_past_options; /* behind "--" */
	const char *word;     /* that is being typed */
};

/* ---- understanding the line ----------------------------------------------------------------------------------- */

static const struct command_option *option_in(const struct command_option *options, const char *name, size_t bytes,
                                              char letter)
{
	for (; options && options->name; options++) {
		if (letter ? options->letter == letter
		           : strncmp(options->name, name, bytes) == 0 && options->name[bytes] == '\0')
			return options;
	}
	return NULL;
}

static const struct command_option *option_find(const struct typed *typed, const char *name, size_t bytes, char letter)
{
	const struct command_option *own = typed->command ? typed->command->options : NULL;
	const struct command_option *found = option_in(own, name, bytes, letter);

	return found ? found : option_in(COMMON_OPTIONS, name, bytes, letter);
}

/* The option that waits for its argument behind this word, or NULL. */
static const struct command_option *option_waiting(const struct typed *typed, const char *word)
{
	const struct command_option *option;

	if (word[1] == '-') {
		option = strchr(word, '=') ? NULL : option_find(typed, word + 2, strlen(word + 2), 0);
		return option && option->argument ? option : NULL;
	}
	for (const char *letter = word + 1; *letter; letter++) {
		option = option_find(typed, NULL, 0, *letter);
		if (option && option->argument)
			return letter[1] ? NULL : option;
	}
	return NULL;
}

static void argument_take(struct typed *typed, const char *word)
{
	if (!typed->command) {
		for (size_t i = 0; i < typed->command_count; i++) {
			if (strcmp(typed->commands[i]->name, word) == 0)
				typed->command = typed->commands[i];
		}
		return;
	}
	if (typed->argument_count == 0)
		typed->first = word;
	if (typed->argument_count == 1)
		typed->second = word;
	typed->argument_count++;
}

static void words_read(struct typed *typed, int word_count, char **words)
{
	typed->word = word_count > 0 ? words[word_count - 1] : "";
	for (int i = 0; i + 1 < word_count; i++) {
		const char *word = words[i];

		if (typed->option) {
			if (strcmp(typed->option->name, "socket") == 0)
				typed->url = word;
			typed->option = NULL;
		} else if (strcmp(word, "--") == 0) {
			typed->is_past_options = true;
		} else if (word[0] == '-' && word[1] && !typed->is_past_options) {
			typed->option = option_waiting(typed, word);
		} else {
			argument_take(typed, word);
		}
	}
}

/* ---- candidates ----------------------------------------------------------------------------------------------- */

/* prefix: what stands before it in the same word, as in "--dtype=". */
static void candidate_print(const struct typed *typed, const char *prefix, const char *text, const char *description)
{
	const size_t prefix_bytes = strlen(prefix), word_bytes = strlen(typed->word);

	if (word_bytes > prefix_bytes && strncmp(text, typed->word + prefix_bytes, word_bytes - prefix_bytes) != 0)
		return;
	/* What would part the lines, or a line, can be in no name that is allowed. */
	if (strpbrk(text, "\t\n\r"))
		return;
	printf("%s%s%s%s\n", prefix, text, description ? "\t" : "", description ? description : "");
}

static void words_print(const struct typed *typed, const char *prefix, const char *const *words)
{
	for (; *words; words++)
		candidate_print(typed, prefix, *words, NULL);
}

/* What the daemon says of a model (NULL: of all); NULL without an answer. The caller calls json_decref. */
static json_t *daemon_ask(const struct typed *typed, const char *model)
{
	struct emad_client *client;
	json_error_t complaint;
	char *json = NULL;
	json_t *answer;

	if (emad_client_open(typed->url, PATIENCE_MS, &client))
		return NULL;
	if (model ? emad_show_json(client, model, PATIENCE_MS, &json) : emad_list_json(client, PATIENCE_MS, &json))
		json = NULL;
	emad_client_close(client);
	answer = json ? facts_parse(json, &complaint) : NULL;
	emad_free(json);
	return answer;
}

static void models_print(const struct typed *typed, const char *prefix)
{
	json_t *answer = daemon_ask(typed, NULL), *row;
	size_t i;

	json_array_foreach(json_object_get(answer, "models"), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "model"));

		if (name && i < DAEMON_COUNT_MAX)
			candidate_print(typed, prefix, name, NULL);
	}
	json_decref(answer);
}

/* The names in an array of a model's facts: its profiles, or its tensors. */
static void parts_print(const struct typed *typed, const char *prefix, const char *model, const char *key)
{
	json_t *answer = daemon_ask(typed, model), *row;
	size_t i;

	json_array_foreach(json_object_get(answer, key), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "name"));

		if (name)
			candidate_print(typed, prefix, name, json_string_value(json_object_get(row, "specification")));
	}
	json_decref(answer);
}

static void tensors_print(const struct typed *typed, const char *prefix)
{
	struct safetensors *contents = NULL;
	char model[MODEL_NAME_BYTES_MAX + 1];
	struct source source;
	struct reason reason;

	if (!typed->first)
		return;
	if (!operand_is_file(typed->first)) {
		snprintf(model, sizeof(model), "%.*s", (int)strcspn(typed->first, ":"), typed->first);
		parts_print(typed, prefix, model, "tensors");
		return;
	}
	if (source_begin_reading(typed->first, &source, &contents, &reason) == 0) {
		for (uint32_t i = 0; i < contents->entry_count; i++)
			candidate_print(typed, prefix, contents->entries[i].name, dtype_name(contents->entries[i].dtype));
	}
	safetensors_destroy(contents);
	source_close(&source);
}

static void schedules_print(const struct typed *typed, const char *prefix)
{
	size_t count;
	const struct schedule_kind *kinds = schedule_kinds(&count);

	for (size_t i = 0; i < count; i++)
		candidate_print(typed, prefix, kinds[i].name, kinds[i].formula);
}

/* "run42/net:" and then a profile of it, once the colon is there. */
static void model_profiles_print(const struct typed *typed)
{
	const char *colon = strchr(typed->word, ':');
	char prefix[MODEL_NAME_BYTES_MAX + 2], model[MODEL_NAME_BYTES_MAX + 1];

	if (!colon) {
		models_print(typed, "");
		return;
	}
	if ((size_t)(colon - typed->word) > MODEL_NAME_BYTES_MAX)
		return;
	snprintf(prefix, sizeof(prefix), "%.*s", (int)(colon + 1 - typed->word), typed->word);
	snprintf(model, sizeof(model), "%.*s", (int)(colon - typed->word), typed->word);
	parts_print(typed, prefix, model, "profiles");
}

/* The model that an argument before this one names. */
static const char *model_before(const struct typed *typed)
{
	return typed->command && strncmp(typed->command->arguments, "MODEL", strlen("MODEL")) == 0 ? typed->first
	                                                                                             : typed->second;
}

/* One alternative of what the help calls the place: "FILE", "MODEL", "set". */
static void place_print(const struct typed *typed, const char *prefix, const char *place)
{
	static const char *const DTYPES_SERVED[] = {"f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", NULL};
	static const char *const SHAPES[] = {"linear", "minus-sqrt", "uniform", NULL};

	if (strcmp(place, "MODEL") == 0)
		models_print(typed, prefix);
	else if (strcmp(place, "MODEL[:PROFILE]") == 0)
		model_profiles_print(typed);
	else if (strcmp(place, "PROFILE") == 0 || strcmp(place, "SPEC") == 0)
		parts_print(typed, prefix, model_before(typed), "profiles");
	else if (strcmp(place, "TENSOR") == 0)
		tensors_print(typed, prefix);
	else if (strcmp(place, "SCHEDULE") == 0)
		schedules_print(typed, prefix);
	else if (strcmp(place, "FILE") == 0 || strcmp(place, "PATH") == 0)
		puts(":files");
	else if (strcmp(place, "DIR") == 0)
		puts(":folders");
	else if (strcmp(place, "DTYPE") == 0)
		words_print(typed, prefix, DTYPES_SERVED);
	else if (strcmp(place, "SHAPE") == 0)
		words_print(typed, prefix, SHAPES);
	else if (strcmp(place, "KEY") == 0)
		words_print(typed, prefix, top_key_titles());
	else if (place[0] >= 'a' && place[0] <= 'z')
		candidate_print(typed, prefix, place, NULL);
}

/* All alternatives of a place: "MODEL|FILE", "[PROFILE]", "FILE...". */
static void places_print(const struct typed *typed, const char *prefix, const char *text, size_t bytes)
{
	char place[PLACE_BYTES], *at = place, *bar;

	snprintf(place, sizeof(place), "%.*s", (int)bytes, text);
	at[strcspn(at, ".")] = '\0';
	if (*at == '[') {
		at++;
		at[strcspn(at, "]")] = '\0';
	}
	while ((bar = strchr(at, '|'))) {
		*bar = '\0';
		place_print(typed, prefix, at);
		at = bar + 1;
	}
	place_print(typed, prefix, at);
}

static void argument_print(const struct typed *typed)
{
	const char *at = typed->command->arguments, *last = at;

	if (typed->argument_count >= typed->command->argument_count_max)
		return;
	/* A place that repeats stands for all that follow. */
	for (unsigned i = 0; i <= typed->argument_count && *at; i++) {
		last = at;
		at += strcspn(at, " ");
		at += strspn(at, " ");
	}
	if (*last)
		places_print(typed, "", last, strcspn(last, " "));
}

static void options_print(const struct typed *typed, const struct command_option *options)
{
	char text[PLACE_BYTES];

	for (; options && options->name; options++) {
		snprintf(text, sizeof(text), "--%s", options->name);
		candidate_print(typed, "", text, options->text);
	}
}

/* "--dtype=b" */
static void assigned_print(const struct typed *typed)
{
	const size_t bytes = strcspn(typed->word, "=");
	const struct command_option *option = option_find(typed, typed->word + 2, bytes - 2, 0);
	char prefix[PLACE_BYTES];

	if (!option || !option->argument || bytes + 2 > sizeof(prefix))
		return;
	snprintf(prefix, sizeof(prefix), "%.*s=", (int)bytes, typed->word);
	places_print(typed, prefix, option->argument, strlen(option->argument));
}

static void commands_print(const struct typed *typed)
{
	for (size_t i = 0; i < typed->command_count; i++)
		candidate_print(typed, "", typed->commands[i]->name, typed->commands[i]->summary);
	candidate_print(typed, "", "help", "explain a command");
}

int complete_run(const struct command *const *commands, size_t command_count, int word_count, char **words)
{
	struct typed typed = {.commands = commands, .command_count = command_count};
	const bool is_help = word_count > 1 && strcmp(words[0], "help") == 0;

	words_read(&typed, is_help ? 1 : word_count, is_help ? &words[word_count - 1] : words);
	if (typed.option) {
		places_print(&typed, "", typed.option->argument, strlen(typed.option->argument));
	} else if (strncmp(typed.word, "--", 2) == 0 && strchr(typed.word, '=') && !typed.is_past_options) {
		assigned_print(&typed);
	} else if (typed.word[0] == '-' && !typed.is_past_options) {
		options_print(&typed, typed.command ? typed.command->options : NULL);
		options_print(&typed, COMMON_OPTIONS);
	} else if (!typed.command) {
		commands_print(&typed);
	} else {
		argument_print(&typed);
	}
	return EX_OK;
}
