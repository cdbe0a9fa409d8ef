/*
 * Arguments. getopt_long does the parsing, twice: once for the common options before the command, once for everything
 * behind it. Its tables are built from the rows that also make the help, so the two cannot disagree; its messages are
 * replaced by ones that name the nearest known option.
 */
#include "client/emactl/emactl.h"

#include "proto/nearest.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPTION_COUNT_MAX = 16,
	OWN_VALUE = 256,    /* getopt's value of the command's first option */
	COMMON_VALUE = 512, /* of the first common one */
	NAME_BYTES_MAX = 64, /* of an option in a sentence */
	TIMEOUT_SECONDS_MAX = 1000000,
};

enum common { COMMON_SOCKET, COMMON_TIMEOUT, COMMON_JSON, COMMON_QUIET, COMMON_HELP, COMMON_VERSION, COMMON_COUNT };

const struct command_option COMMON_OPTIONS[] = {
	[COMMON_SOCKET] = {"socket", 's', "URL", "the daemon's socket (default: $EMAD_SOCKET, else the system daemon)"},
	[COMMON_TIMEOUT] = {"timeout", 't', "SECONDS",
	                    "wait this long for the daemon and its answers (default: 2, 10)"},
	[COMMON_JSON] = {"json", 'j', NULL, "print JSON for programs, errors too"},
	[COMMON_QUIET] = {"quiet", 'q', NULL, "print only what was asked for, and errors"},
	[COMMON_HELP] = {"help", 'h', NULL, "explain the command"},
	[COMMON_VERSION] = {"version", 'V', NULL, "print the version"},
	[COMMON_COUNT] = {0},
};

/* The tables that getopt wants. */
struct getopt_tables {
	struct option options[OPTION_COUNT_MAX];
	const char *names[OPTION_COUNT_MAX]; /* ended by NULL, for suggestions */
	char letters[2 + 2 * OPTION_COUNT_MAX + 1];
	unsigned count;
};

static void tables_add(struct getopt_tables *tables, const struct command_option *options, int value)
{
	char *letters = tables->letters + strlen(tables->letters);

	for (; options && options->name && tables->count + 1 < OPTION_COUNT_MAX; options++, value++) {
		tables->names[tables->count] = options->name;
		tables->options[tables->count++] = (struct option){
			.name = options->name,
			.has_arg = options->argument ? required_argument : no_argument,
			.val = value,
		};
		if (options->letter)
			*letters++ = options->letter;
		if (options->letter && options->argument)
			*letters++ = ':';
	}
	*letters = '\0';
}

/* The row that getopt's value belongs to: long options answer with the value, short ones with the letter. */
static const struct command_option *option_find(const struct command *command, int value, int *ret_value)
{
	const struct command_option *own = command ? command->options : NULL;

	for (int i = 0; own && own[i].name; i++) {
		if (value == OWN_VALUE + i || value == own[i].letter) {
			*ret_value = OWN_VALUE + i;
			return &own[i];
		}
	}
	for (int i = 0; i < COMMON_COUNT; i++) {
		if (value == COMMON_VALUE + i || value == COMMON_OPTIONS[i].letter) {
			*ret_value = COMMON_VALUE + i;
			return &COMMON_OPTIONS[i];
		}
	}
	return NULL;
}

const char *arguments_nearest(const char *name, const char *const *names)
{
	const char *nearest = nearest_name(name, names);
	const size_t bytes = strlen(name);

	/* A suggestion that shares nothing with what was typed would only puzzle. */
	if (!nearest || strncmp(name, nearest, bytes) == 0)
		return *name ? nearest : NULL;
	return edit_distance(name, nearest) <= 1 + bytes / 2 ? nearest : NULL;
}

static int unknown_option(const struct emactl *emactl, const struct getopt_tables *tables, const char *given)
{
	const char *command = emactl->command ? emactl->command->name : NULL, *nearest;
	const size_t bytes = strcspn(given + 2, "=");
	char name[NAME_BYTES_MAX + 1];
	unsigned matches = 0;

	snprintf(name, sizeof(name), "%.*s", (int)(bytes < NAME_BYTES_MAX ? bytes : NAME_BYTES_MAX), given + 2);
	for (unsigned i = 0; i < tables->count; i++)
		matches += strncmp(name, tables->names[i], strlen(name)) == 0;
	nearest = arguments_nearest(name, tables->names);
	if (matches > 1)
		return output_error(emactl, EMAD_EARGUMENT, "option '--%s' may mean several; '--%s' is one of them",
		                    name, nearest);
	if (nearest)
		return output_error(emactl, EMAD_EARGUMENT, "unknown option '--%s'; did you mean '--%s'?", name,
		                    nearest);
	return output_error(emactl, EMAD_EARGUMENT, "unknown option '--%s'; 'emactl %s%s--help' lists all", name,
	                    command ? command : "", command ? " " : "");
}

/* What getopt answered with '?' or ':'. */
static int option_error(const struct emactl *emactl, const struct getopt_tables *tables, int answer, const char *given)
{
	const struct command_option *option;
	int value;

	option = optopt ? option_find(emactl->command, optopt, &value) : NULL;
	if (option && answer == ':')
		return output_error(emactl, EMAD_EARGUMENT, "option '--%s' needs an argument: --%s %s", option->name,
		                    option->name, option->argument);
	if (option)
		return output_error(emactl, EMAD_EARGUMENT, "option '--%s' takes no argument", option->name);
	if (optopt)
		return output_error(emactl, EMAD_EARGUMENT, "unknown option '-%c'; 'emactl %s%s--help' lists all",
		                    optopt, emactl->command ? emactl->command->name : "", emactl->command ? " " : "");
	return unknown_option(emactl, tables, given);
}

static int timeout_parse(struct emactl *emactl, const char *text)
{
	char *end;
	const double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.001 && seconds <= TIMEOUT_SECONDS_MAX))
		return output_error(emactl, EMAD_EARGUMENT, "--timeout takes seconds from 0.001 to %d, not '%s'",
		                    TIMEOUT_SECONDS_MAX, text);
	emactl->connect_ms = emactl->timeout_ms = (int)ceil(seconds * 1000);
	return 0;
}

static int common_set(struct emactl *emactl, enum common option, const char *argument)
{
	switch (option) {
	case COMMON_SOCKET:
		emactl->url = argument;
		break;
	case COMMON_TIMEOUT:
		return timeout_parse(emactl, argument);
	case COMMON_JSON:
		emactl->is_json = true;
		break;
	case COMMON_QUIET:
		emactl->is_quiet = true;
		break;
	case COMMON_HELP:
		emactl->is_help_asked = true;
		break;
	case COMMON_VERSION:
		emactl->is_version_asked = true;
		break;
	case COMMON_COUNT:
		break;
	}
	return 0;
}

int arguments_parse(struct emactl *emactl, int argc, char **argv, int *ret_index)
{
	struct getopt_tables tables = {0};
	int answer, value = 0, status = 0;

	/* "+" stops at the command; ":" tells a missing argument from an unknown option. */
	strcpy(tables.letters, emactl->command ? ":" : "+:");
	if (emactl->command)
		tables_add(&tables, emactl->command->options, OWN_VALUE);
	tables_add(&tables, COMMON_OPTIONS, COMMON_VALUE);

	opterr = 0;
	optind = 0; /* glibc: begin anew */
	while (!status && (answer = getopt_long(argc, argv, tables.letters, tables.options, NULL)) != -1) {
		if (answer == '?' || answer == ':' || !option_find(emactl->command, answer, &value))
			return option_error(emactl, &tables, answer, argv[optind - 1]);
		if (value >= COMMON_VALUE)
			status = common_set(emactl, (enum common)(value - COMMON_VALUE), optarg);
		else
			emactl->values[value - OWN_VALUE] = optarg ? optarg : "";
	}
	if (!status)
		*ret_index = optind;
	return status;
}

int arguments_number(const struct emactl *emactl, const char *what, const char *text, const uint64_t range[2],
                     uint64_t *ret_number)
{
	const double exact_max = 9007199254740992.0; /* 2^53: up to there a double holds every whole number */
	uint64_t number = 0;
	bool is_number = *text != '\0';
	double real;
	char *end;

	for (const char *c = text; *c && is_number; c++)
		is_number = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(number, UINT64_C(10), &number) &&
		            !__builtin_add_overflow(number, (uint64_t)(*c - '0'), &number);
	if (!is_number && strspn(text, "0123456789.eE+") == strlen(text)) {
		real = strtod(text, &end);
		is_number = end != text && !*end && real >= 0 && real <= exact_max && real == floor(real);
		number = is_number ? (uint64_t)real : 0;
	}
	if (!is_number || number < range[0] || number > range[1])
		return output_error(emactl, EMAD_EARGUMENT, "%s takes a whole number from %llu to %llu, not '%s'", what,
		                    (unsigned long long)range[0], (unsigned long long)range[1], text);
	*ret_number = number;
	return 0;
}
