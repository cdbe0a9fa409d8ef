/*
 * history, rollback: what there is of a model, in memory and on disk, and the way back to it.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#define DAEMON_EXITS                                                                                                  \
	"  69  the daemon cannot be reached\n"                                                                        \
	"  74  the disk cannot be read\n"                                                                             \
	"  75  it did not answer in time\n"                                                                           \
	"  77  its socket may not be used by this user, or not for this\n"

/* ---- history -------------------------------------------------------------------------------------------------- */

static const struct fact VERSION_FACTS[] = {
	{"S", "letter", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"VERSION", "version", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"PUBLISHED", "published_us", FACT_AGE_US, TABLE_PLAIN},
	{"READERS", "readers", FACT_INTEGER, TABLE_PLAIN},
};

static const struct fact GENERATION_FACTS[] = {
	{"S", "letter", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"VERSION", "version", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"WRITTEN", "written_us", FACT_AGE_US, TABLE_PLAIN},
	{"SIZE", "bytes", FACT_BYTES, TABLE_PLAIN},
	{"REASON", "reason", FACT_TEXT, TABLE_BAD},
};

static const struct fact SNAPSHOT_FACTS[] = {
	{"S", "letter", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"PROFILE", "profile", FACT_TEXT, TABLE_PLAIN},
	{"WRITTEN", "written_us", FACT_AGE_US, TABLE_PLAIN},
	{"SIZE", "bytes", FACT_BYTES, TABLE_PLAIN},
};

static const struct fact CHANGE_FACTS[] = {
	{"PROFILE", "profile", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"CHANGE", "change", FACT_TEXT, TABLE_PLAIN},
	{"FROM", "from", FACT_TEXT, TABLE_PLAIN},
	{"TO", "to", FACT_TEXT, TABLE_PLAIN},
};

static const char *letter_of(const json_t *row)
{
	const char *state = json_string_value(json_object_get(row, "state"));

	if (!state)
		return "s";
	if (strcmp(state, "whole") == 0)
		return json_is_true(json_object_get(row, "keep")) ? "k" : "d";
	if (strcmp(state, "aside") == 0 || strcmp(state, "damaged") == 0)
		return strcmp(state, "aside") == 0 ? "a" : "x";
	return strcmp(state, "current") == 0 ? "c" : "m";
}

/* A heading, and the rows with their letters; nothing where there are none. */
static int rows_print(const struct emactl *emactl, const char *heading, json_t *rows, const struct fact *facts,
                      size_t fact_count)
{
	json_t *row;
	size_t i;

	if (json_array_size(rows) == 0)
		return 0;
	json_array_foreach(rows, i, row)
		if (json_is_object(row) && json_object_set_new(row, "letter", json_string(letter_of(row))) != 0)
			return EMAD_EMEMORY;
	printf("\n%s\n", heading);
	return facts_print_rows(rows, facts, fact_count, emactl->is_colour, stdout);
}

static void left_out_print(const json_t *answer, const char *key)
{
	const json_t *count = json_object_get(answer, key);

	if (json_integer_value(count) > 0)
		printf("and %" JSON_INTEGER_FORMAT " older ones\n", json_integer_value(count));
}

static int history_print(const struct emactl *emactl, json_t *answer)
{
	const char *directory = json_string_value(json_object_get(answer, "directory"));
	int code;

	table_write_safe(stdout, emactl->arguments[0]);
	printf("   S: c newest, m in memory; d on disk, k on disk and marked to stay, x damaged, a set aside; s kept\n");
	code = rows_print(emactl, "in memory", json_object_get(answer, "versions"), VERSION_FACTS,
	                  COUNT_OF(VERSION_FACTS));
	if (!code)
		code = rows_print(emactl,
		                  json_is_false(json_object_get(answer, "owned")) ? "checkpoints of an average before this one"
		                                                                  : "checkpoints",
		                  json_object_get(answer, "generations"), GENERATION_FACTS, COUNT_OF(GENERATION_FACTS));
	left_out_print(answer, "generations_left_out");
	if (!code)
		code = rows_print(emactl, "averages kept on disk (snapshot=)", json_object_get(answer, "snapshots"),
		                  SNAPSHOT_FACTS, COUNT_OF(SNAPSHOT_FACTS));
	left_out_print(answer, "snapshots_left_out");
	if (!code)
		code = rows_print(emactl, "changes", json_object_get(answer, "changes"), CHANGE_FACTS,
		                  COUNT_OF(CHANGE_FACTS));
	if (!directory && !code)
		printf("\nthe daemon has no directory for checkpoints\n");
	return code ? output_error(emactl, code, "not enough memory to print the answer") : 0;
}

/* Connects, asks and prints. */
static int history_show(struct emactl *emactl, struct emad_client *client)
{
	json_error_t complaint;
	json_t *answer;
	char *json = NULL;
	int code = emad_history_json(client, emactl->arguments[0], emactl->timeout_ms, &json), status = 0;

	if (code)
		return output_library_error(emactl, code);
	answer = facts_parse(json, &complaint);
	emad_free(json);
	if (!answer)
		return output_error(emactl, EMAD_EPROTOCOL, "the daemon's answer is not the JSON that was expected: %s",
		                    complaint.text);
	if (emactl->is_json) {
		facts_write(answer, stdout);
		putchar('\n');
	} else {
		status = history_print(emactl, answer);
	}
	json_decref(answer);
	return status;
}

static int history_run(struct emactl *emactl)
{
	struct emad_client *client;
	int status = ask_connect(emactl, &client);

	if (status)
		return status;
	status = history_show(emactl, client);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_HISTORY = {
	.name = "history",
	.arguments = "MODEL",
	.argument_count_min = 1,
	.argument_count_max = 1,
	.summary = "what there is of a model, in memory and on disk",
	.text = "Lists, newest first, what 'emactl rollback' can go back to and what has happened:\n"
		"  in memory    the versions in the slots, and who reads them\n"
		"  checkpoints  the generations below the daemon's state directory. Whole (d, or k where a mark keeps it):\n"
		"               the manifest is right and the files have their sizes; 'emactl verify' reads all of them.\n"
		"               Damaged (x) and set aside (a) ones come with the reason\n"
		"  averages     kept on disk by snapshot=\n"
		"  changes      what was changed while the profiles ran: started, schedule, seeded, rewound, continued,\n"
		"               rolled back\n"
		"\nJSON: the daemon's answer as one object: model, step, version, directory (null: the daemon has none),\n"
		"owned (false: the checkpoints are of an average before this one), versions, generations (state is\n"
		"whole, damaged or aside), generations_left_out, snapshots, snapshots_left_out, changes.\n",
	.examples = "  emactl history run42/net\n"
		    "  emactl history run42/net --json | jq -r '.generations[] | select(.state == \"whole\") | .step'\n",
	.exits = "  0   done\n"
		 "  64  that cannot be a model's name\n"
		 "  66  no such model\n" DAEMON_EXITS,
	.run = history_run,
};

/* ---- rollback ------------------------------------------------------------------------------------------------- */

enum { ROLLBACK_STEP, ROLLBACK_DRY_RUN, ROLLBACK_LIST };

static const struct command_option ROLLBACK_OPTIONS[] = {
	[ROLLBACK_STEP] = {"step", 'S', "N", "go back to the newest version of step N or an earlier one"},
	[ROLLBACK_DRY_RUN] = {"dry-run", 'n', NULL, "only say which version that is, and where"},
	[ROLLBACK_LIST] = {"list", 'l', NULL, "show what there is: 'emactl history'"},
	{0},
};

static void rollback_json(const struct emactl *emactl, const struct emad_rolled_back *back)
{
	printf("{\"model\":");
	output_json_string(emactl->arguments[0]);
	printf(",\"step\":%" PRIu64 ",\"version\":%" PRIu64 ",\"updates\":%" PRIu64 ",\"step_before\":%" PRIu64
	       ",\"taken\":%" PRIu64 ",\"source\":\"%s\",\"dry_run\":%s}\n",
	       back->step, back->version, back->updates, back->step_before, back->taken,
	       back->from_disk ? "disk" : "memory", emactl->values[ROLLBACK_DRY_RUN] ? "true" : "false");
}

static void rollback_print(const struct emactl *emactl, const struct emad_rolled_back *back)
{
	const char *source = back->from_disk ? "on disk" : "in memory";

	if (emactl->is_json) {
		rollback_json(emactl, back);
		return;
	}
	if (emactl->is_quiet)
		return;
	table_write_safe(stdout, emactl->arguments[0]);
	if (back->taken == back->version)
		printf(" is at step %" PRIu64 " already (version %" PRIu64 "): nothing %s done\n", back->step, back->version,
		       emactl->values[ROLLBACK_DRY_RUN] ? "would be" : "was");
	else if (emactl->values[ROLLBACK_DRY_RUN])
		printf(" would go back from step %" PRIu64 " to step %" PRIu64 ": version %" PRIu64 " %s, %" PRIu64
		       " updates\n", back->step_before, back->step, back->taken, source, back->updates);
	else
		printf(" went back from step %" PRIu64 " to step %" PRIu64 ": version %" PRIu64 " %s is version %" PRIu64
		       " now, %" PRIu64 " updates\n", back->step_before, back->step, back->taken, source, back->version,
		       back->updates);
}

static int rollback_run(struct emactl *emactl)
{
	const unsigned flags = emactl->values[ROLLBACK_DRY_RUN] ? EMAD_ROLLBACK_DRY_RUN : 0;
	const uint64_t range[2] = {0, UINT64_MAX};
	struct emad_rolled_back back;
	struct emad_client *client;
	uint64_t step;
	int status, code;

	if (emactl->values[ROLLBACK_LIST])
		return history_run(emactl);
	if (!emactl->values[ROLLBACK_STEP])
		return output_error(emactl, EMAD_EARGUMENT,
		                    "rollback needs --step N; 'emactl history %s' shows what there is", emactl->arguments[0]);
	status = arguments_number(emactl, "--step", emactl->values[ROLLBACK_STEP], range, &step);
	if (!status)
		status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = emad_rollback(client, emactl->arguments[0], step, flags, emactl->timeout_ms, &back);
	if (code)
		status = output_library_error(emactl, code);
	else
		rollback_print(emactl, &back);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_ROLLBACK = {
	.name = "rollback",
	.arguments = "MODEL --step N",
	.argument_count_min = 1,
	.argument_count_max = 1,
	.summary = "take an average back to an earlier step",
	.text = "The newest version of step N or an earlier one that is in memory or on disk becomes the newest of all,\n"
		"under a new number, for all profiles at once. 'emactl history' lists what there is. What is taken from\n"
		"disk is checked against its checksums first; a damaged checkpoint is set aside, and the one before it\n"
		"is taken. Until that moment readers see the average as it was, and training waits.\n"
		"\nAfterwards:\n"
		"  - Snapshots that waited to be averaged are dropped (their pushes say 'incomplete').\n"
		"  - A trainer that is restarted from its own checkpoint of step N pushes step N+1 as it always does. One\n"
		"    that simply goes on is averaged in again: its next push stands for all steps since N, like any gap.\n"
		"  - Averages kept on disk (snapshot=) of later steps go aside, to PROFILE.old-TIME.\n"
		"  - The profiles' history has a line 'rolled back', and a checkpoint is written at once.\n"
		"  - Views stay readable, but those of the very version that was in memory and is the newest now: they\n"
		"    are revoked.\n"
		"\nAsking again changes nothing. A checkpoint of other tensors or profiles is refused; 'emactl import'\n"
		"makes a model of its files.\n"
		"\nJSON: one object: model, step, version (the new number), updates, step_before, taken (the number that\n"
		"the version had), source (memory or disk), dry_run.\n",
	.options = ROLLBACK_OPTIONS,
	.examples = "  emactl rollback run42/net --list\n"
		    "  emactl rollback run42/net --step 120000 --dry-run\n"
		    "  emactl rollback run42/net --step 120000\n",
	.exits = "  0   done, or nothing was to be done\n"
		 "  64  the command line is wrong\n"
		 "  65  the checkpoint is of other tensors or profiles\n"
		 "  66  no such model, or no version of that step or an earlier one: the sentence says which there are\n"
		 DAEMON_EXITS,
	.run = rollback_run,
};
