/*
 * profile: adds, changes and stops the averages of a model while it is trained.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/table.h"

#include <stdio.h>
#include <string.h>

/* The report's parts, one profile each, on lines of their own. */
static void report_print(const char *report)
{
	char line[2048];

	while (*report) {
		const size_t bytes = strcspn(report, ";");

		snprintf(line, sizeof(line), "%.*s", (int)(bytes < sizeof(line) ? bytes : sizeof(line) - 1), report);
		table_write_safe(stdout, line);
		putchar('\n');
		report += bytes;
		report += strspn(report, "; ");
	}
}

static void change_print(const struct emactl *emactl, const char *report)
{
	if (emactl->is_json) {
		printf("{\"model\":");
		output_json_string(emactl->arguments[1]);
		printf(",\"report\":");
		output_json_string(report);
		printf("}\n");
	} else if (!emactl->is_quiet) {
		report_print(report);
	}
}

static int profiles_set(const struct emactl *emactl, struct emad_client *client, char **ret_report)
{
	return emad_profile_set(client, emactl->arguments[1], (const char *const *)&emactl->arguments[2],
	                        emactl->argument_count - 2, emactl->timeout_ms, ret_report);
}

static int profile_remove(const struct emactl *emactl, struct emad_client *client, char **ret_report)
{
	return emad_profile_remove(client, emactl->arguments[1], emactl->arguments[2], emactl->timeout_ms, ret_report);
}

static int profile_run(struct emactl *emactl)
{
	static const char *const VERBS[] = {"set", "remove", NULL};
	const char *verb = emactl->arguments[0], *nearest;
	const bool sets = strcmp(verb, "set") == 0;
	struct emad_client *client;
	char *report = NULL;
	int code, status;

	if (!sets && strcmp(verb, "remove") != 0) {
		nearest = arguments_nearest(verb, VERBS);
		return output_error(emactl, EMAD_EARGUMENT, "profile does not know '%s'; %s%s%s", verb,
		                    nearest ? "did you mean '" : "it knows ", nearest ? nearest : "set and remove",
		                    nearest ? "'?" : "");
	}
	if (!sets && emactl->argument_count > 3)
		return output_error(emactl, EMAD_EARGUMENT, "profile remove stops one profile at a time: '%s' is too much",
		                    emactl->arguments[3]);
	status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = sets ? profiles_set(emactl, client, &report) : profile_remove(emactl, client, &report);
	if (code)
		status = output_library_error(emactl, code);
	else
		change_print(emactl, report);
	emad_free(report);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_PROFILE = {
	.name = "profile",
	.arguments = "set|remove MODEL SPEC...",
	.argument_count_min = 3,
	.argument_count_max = 2 + 16,
	.summary = "change the averages of a model",
	.text = "  emactl profile set MODEL NAME=SCHEDULE[;RULE]...   adds averages, or changes those of these names\n"
		"  emactl profile remove MODEL NAME                   stops one and frees its memory\n"
		"\nTraining and reading go on meanwhile; the change holds from the next update on. A new average\n"
		"starts from the next snapshot; one that is changed goes on from where it is, and keeps its counts.\n"
		"Later registrations of the trainer take the profiles as they are, whatever its script says, unless\n"
		"it registers with resume=adapt.\n"
		"\nA rule treats some tensors otherwise than the schedule's library does; the first that matches wins:\n"
		"  copy=PATTERN           the latest value          average=PATTERN        average it nevertheless\n"
		"  freeze=PATTERN         the value at the start    average@DECAY=PATTERN  with a decay of its own\n"
		"  drop=PATTERN           not held at all\n"
		"PATTERN: * any characters, ? one, [a-z] one of a set, [!a-z] one outside of it. 'emactl explain'\n"
		"teaches the schedules. Quote the specification: shells take ';' and '*' for themselves.\n"
		"\nPrints for each profile what is averaged, copied, frozen and dropped, by which rules.\n"
		"JSON: one object: model, report.\n",
	.examples = "  emactl profile set run42/net 'slow=yolo:decay=0.99999'\n"
		    "  emactl profile set run42/net 'ema=yolo;copy=*.running_*;average@0.99=lora_*;drop=head.*'\n"
		    "  emactl profile remove run42/net slow\n",
	.exits = "  0   done: the model averages by these profiles now\n"
		 "  64  the command line is wrong, or a name is not allowed\n"
		 "  65  the schedule or a rule is not valid, or it is the model's only profile\n"
		 "  66  no such model or profile\n"
		 "  69  the daemon cannot be reached\n"
		 "  71  not enough memory: the sentence says how much is needed\n"
		 "  75  it did not answer in time\n"
		 "  77  its socket may not be used by this user\n",
	.run = profile_run,
};
