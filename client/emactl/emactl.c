/*
 * emactl: looks at, fills, takes from, changes and removes the averages that the emad daemon keeps; makes averages of
 * files; checks files; explains schedules.
 *
 * This file knows all commands: it finds the one that is meant, prints help, and calls it. Help is written from the
 * same rows that the options are parsed by.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/complete.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static const struct command *const COMMANDS[] = {
	&COMMAND_PING,    &COMMAND_STATUS,     &COMMAND_LIST,    &COMMAND_SHOW,     &COMMAND_TOP,
	&COMMAND_WATCH,   &COMMAND_GET,        &COMMAND_DIFF,    &COMMAND_EXPORT,   &COMMAND_IMPORT,
	&COMMAND_POSTHOC, &COMMAND_MERGE,      &COMMAND_VERIFY,  &COMMAND_EXPLAIN,  &COMMAND_PROFILE,
	&COMMAND_HISTORY, &COMMAND_CHECKPOINT, &COMMAND_ROLLBACK, &COMMAND_REMOVE,  &COMMAND_DOCTOR,
};

enum { COMMAND_COUNT = sizeof(COMMANDS) / sizeof(COMMANDS[0]), HELP_INDENT = 26, COMMAND_INDENT = 36 };

/* A person waits for an answer, but not long for a daemon that is not there; --timeout sets both. */
enum { CONNECT_MS = 2000, TIMEOUT_MS = 10000 };

static const char EXITS_TEXT[] =
	"  0   done\n"
	"  1   diff: there are differences; doctor: something fails;\n"
	"      watch: a run failed\n"
	"  64  the command line is wrong\n"
	"  65  bad data: a damaged file, a schedule that is not valid\n"
	"  66  no such model, profile, version or file\n"
	"  69  the daemon cannot be reached\n"
	"  70  a fault inside emad\n"
	"  71  not enough memory\n"
	"  73  the output file cannot be created\n"
	"  74  reading or writing failed\n"
	"  75  try again: the time was up, or the daemon is busy\n"
	"  76  the daemon answered something else than this program understands\n"
	"  77  permission denied\n";

static void help_options(const struct command_option *options)
{
	char text[128];
	int width;

	for (; options && options->name; options++) {
		width = snprintf(text, sizeof(text), "  %c%c%s--%s%s%s", options->letter ? '-' : ' ',
		                 options->letter ? options->letter : ' ', options->letter ? ", " : "  ", options->name,
		                 options->argument ? " " : "", options->argument ? options->argument : "");
		printf("%s%*s%s\n", text, width < HELP_INDENT ? HELP_INDENT - width : 1, "", options->text);
	}
}

static void help_all(void)
{
	char text[64];
	int width;

	printf("usage: emactl [OPTIONS] COMMAND [ARGUMENTS]\n\n"
	       "Looks after the averaged model weights that the emad daemon keeps.\n\ncommands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		width = snprintf(text, sizeof(text), "  %s %s", COMMANDS[i]->name, COMMANDS[i]->arguments);
		printf("%s%*s%s\n", text, width < COMMAND_INDENT ? COMMAND_INDENT - width : 1, "",
		       COMMANDS[i]->summary);
	}
	printf("\n'emactl COMMAND --help' teaches a command.\n\noptions, before or after the command:\n");
	help_options(COMMON_OPTIONS);
	printf("\nenvironment:\n"
	       "  EMAD_SOCKET             the daemon's socket, for example ipc:///run/emad/emad.sock\n"
	       "  NO_COLOR                when set and not empty: no colours (pipes and files never get any)\n"
	       "\nerrors go to standard error: 'emactl: SENTENCE', or with --json one line\n"
	       "  {\"error\":{\"code\":-10007,\"name\":\"no-model\",\"message\":\"SENTENCE\"}}\n"
	       "\nexit codes (those of sysexits.h):\n%s",
	       EXITS_TEXT);
}

static void help_command(const struct command *command)
{
	const char *space = *command->arguments ? " " : "";

	printf("usage: emactl %s%s%s [OPTIONS]\n\n%s", command->name, space, command->arguments, command->text);
	if (command->options) {
		printf("\noptions:\n");
		help_options(command->options);
	}
	printf("\ncommon options:\n");
	help_options(COMMON_OPTIONS);
	printf("\nexamples:\n%s\nexit codes:\n%s", command->examples, command->exits);
}

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(name, COMMANDS[i]->name) == 0)
			return COMMANDS[i];
	}
	return NULL;
}

static int unknown_command(const struct emactl *emactl, const char *name)
{
	const char *names[COMMAND_COUNT + 1] = {NULL}, *nearest;

	for (size_t i = 0; i < COMMAND_COUNT; i++)
		names[i] = COMMANDS[i]->name;
	nearest = arguments_nearest(name, names);
	if (nearest)
		return output_error(emactl, EMAD_EARGUMENT, "unknown command '%s'; did you mean '%s'?", name, nearest);
	return output_error(emactl, EMAD_EARGUMENT, "unknown command '%s'; 'emactl --help' lists all", name);
}

static int argument_count_check(const struct emactl *emactl)
{
	const struct command *command = emactl->command;

	if (emactl->argument_count < command->argument_count_min)
		return output_error(emactl, EMAD_EARGUMENT, "%s needs %s; 'emactl %s --help' explains", command->name,
		                    command->arguments, command->name);
	if (emactl->argument_count > command->argument_count_max)
		return output_error(emactl, EMAD_EARGUMENT, "%s: unexpected argument '%s'; usage: emactl %s%s%s",
		                    command->name, emactl->arguments[command->argument_count_max], command->name,
		                    *command->arguments ? " " : "", command->arguments);
	return 0;
}

static int version_print(const struct emactl *emactl)
{
	printf(emactl->is_json ? "{\"version\":\"%s\"}\n" : "emactl %s\n", emad_version());
	return EX_OK;
}

static int command_run(struct emactl *emactl, int argc, char **argv)
{
	int first, status;

	status = arguments_parse(emactl, argc, argv, &first);
	if (status)
		return status;
	if (emactl->is_help_asked) {
		help_command(emactl->command);
		return EX_OK;
	}
	if (emactl->is_version_asked)
		return version_print(emactl);
	emactl->arguments = argv + first;
	emactl->argument_count = (unsigned)(argc - first);
	status = argument_count_check(emactl);
	return status ? status : emactl->command->run(emactl);
}

/* `emactl help` and `emactl help COMMAND`, for fingers that expect it. */
static int help_run(const struct emactl *emactl, int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		help_all();
		return EX_OK;
	}
	command = command_find(argv[1]);
	if (!command)
		return unknown_command(emactl, argv[1]);
	help_command(command);
	return EX_OK;
}

static int emactl_run(struct emactl *emactl, int argc, char **argv)
{
	int first, status;

	status = arguments_parse(emactl, argc, argv, &first);
	if (status)
		return status;
	if (emactl->is_version_asked)
		return version_print(emactl);
	if (first == argc && emactl->is_help_asked) {
		help_all();
		return EX_OK;
	}
	if (first == argc)
		return output_error(emactl, EMAD_EARGUMENT, "a command is missing; 'emactl --help' lists all");
	if (strcmp(argv[first], "help") == 0)
		return help_run(emactl, argc - first, argv + first);
	/* For the shells alone, so no help speaks of it. */
	if (strcmp(argv[first], "complete") == 0)
		return complete_run(COMMANDS, COMMAND_COUNT, argc - first - 1, argv + first + 1);
	emactl->command = command_find(argv[first]);
	if (!emactl->command)
		return unknown_command(emactl, argv[first]);
	return command_run(emactl, argc - first, argv + first);
}

/* Standard descriptors that the caller closed must not be taken by a socket or an output file. */
static void descriptors_fill(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static bool is_colour_wanted(void)
{
	const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(STDOUT_FILENO) && (!no_colour || !*no_colour) && terminal && strcmp(terminal, "dumb") != 0;
}

int main(int argc, char **argv)
{
	struct emactl emactl = {.connect_ms = CONNECT_MS, .timeout_ms = TIMEOUT_MS};

	descriptors_fill();
	/* A reader that went away is seen as EPIPE, see output_finish. */
	signal(SIGPIPE, SIG_IGN);
	emactl.is_colour = is_colour_wanted();
	/* Errors on the command line itself obey --json wherever it stands. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		emactl.is_json |= strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "-j") == 0;
	return output_finish(&emactl, emactl_run(&emactl, argc, argv));
}
