/*
 * list, show: what the daemon holds, in tables.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"

#include <stdio.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#define ANSWER_EXITS                                                                                                  \
	"  69  the daemon cannot be reached\n"                                                                        \
	"  75  it did not answer in time\n"                                                                           \
	"  77  its socket may not be used by this user\n"

static int memory_error(const struct emactl *emactl, int code)
{
	return code ? output_error(emactl, code, "not enough memory to print the answer") : 0;
}

/* ---- list ----------------------------------------------------------------------------------------------------- */

static const struct fact LIST_FACTS[] = {
	{"MODEL", "model", FACT_TEXT, TABLE_PLAIN},
	{"PROFILES", "profiles", FACT_TEXT, TABLE_PLAIN},
	{"TENSORS", "tensors", FACT_INTEGER, TABLE_PLAIN},
	{"PARAMETERS", "parameters", FACT_COUNT, TABLE_PLAIN},
	{"MEMORY", "memory_bytes", FACT_BYTES, TABLE_PLAIN},
	{"RANKS", NULL, FACT_RANKS, TABLE_WARN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"VERSION", "version", FACT_INTEGER, TABLE_PLAIN},
	{"LAG", "lag", FACT_INTEGER, TABLE_PLAIN},
	{"LEASES", "leases", FACT_INTEGER, TABLE_PLAIN},
	{"REFUSED", "refused", FACT_INTEGER, TABLE_BAD},
	{"UPDATED", "last_update_us", FACT_AGE_US, TABLE_PLAIN},
};

static void list_names_print(const json_t *models)
{
	const json_t *model, *name;
	size_t i;

	json_array_foreach(models, i, model)
	{
		name = json_object_get(model, "model");
		if (!json_is_string(name))
			continue;
		table_write_safe(stdout, json_string_value(name));
		putchar('\n');
	}
}

static int list_print(const struct emactl *emactl, const json_t *answer)
{
	const json_t *models = json_object_get(answer, "models"), *model;
	size_t i;

	if (emactl->is_json) {
		json_array_foreach(models, i, model)
		{
			facts_write(model, stdout);
			putchar('\n');
		}
		return 0;
	}
	if (emactl->is_quiet) {
		list_names_print(models);
		return 0;
	}
	if (json_array_size(models) == 0) {
		output_note(emactl, "The daemon holds no models yet; a trainer's registration makes one.");
		return 0;
	}
	return memory_error(emactl, facts_print_rows(models, LIST_FACTS, COUNT_OF(LIST_FACTS), emactl->is_colour,
	                                             stdout));
}

static int list_run(struct emactl *emactl)
{
	json_t *answer;
	int status;

	status = ask_json(emactl, emad_list_json, NULL, &answer);
	if (status)
		return status;
	status = list_print(emactl, answer);
	json_decref(answer);
	return status;
}

const struct command COMMAND_LIST = {
	.name = "list",
	.arguments = "",
	.summary = "list the models that the daemon holds",
	.text = "Prints one line for each model:\n"
		"  PROFILES   its averages, by name\n"
		"  MEMORY     what the daemon has allocated for it\n"
		"  RANKS      trainer processes connected, of those the model is divided among\n"
		"  STEP       the trainer's step that the newest version holds; UPDATES and VERSION are its counts\n"
		"  LAG        snapshots accepted but not applied yet\n"
		"  LEASES     readers that have a version open\n"
		"  REFUSED    snapshots that were not taken, because the guards refused them\n"
		"  UPDATED    how long ago the newest version was published\n"
		"With --quiet it prints the names alone.\n"
		"\nJSON: one object a line: model, profiles, tensors, parameters, payload_bytes, memory_bytes, owner\n"
		"(uid; null: not known), world, ranks_attached, step, updates, version, lag,\n"
		"last_update_us (since 1970), leases, refused.\n",
	.examples = "  emactl list\n"
		    "  emactl list --quiet | while read -r m; do emactl export \"$m\" -o \"${m##*/}\"; done\n"
		    "  emactl list --json | jq -r 'select(.refused > 0).model'\n",
	.exits = "  0   done, also when there are no models\n" ANSWER_EXITS,
	.run = list_run,
};

/* ---- show ----------------------------------------------------------------------------------------------------- */

static const struct fact SHOW_FACTS[] = {
	{"model", "model", FACT_TEXT, TABLE_PLAIN},
	{"version", "version", FACT_INTEGER, TABLE_PLAIN},
	{"step", "step", FACT_INTEGER, TABLE_PLAIN},
	{"updates", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"updated", "last_update_us", FACT_AGE_US, TABLE_PLAIN},
	{"lag", "lag", FACT_INTEGER, TABLE_PLAIN},
	{"refused", "refused", FACT_INTEGER, TABLE_BAD},
	{"leases", "leases", FACT_INTEGER, TABLE_PLAIN},
	{"ranks attached", NULL, FACT_RANKS, TABLE_WARN},
	{"tensors", "tensors", FACT_INTEGER, TABLE_PLAIN},
	{"parameters", "parameters", FACT_COUNT, TABLE_PLAIN},
	{"snapshot", "payload_bytes", FACT_BYTES, TABLE_PLAIN},
	{"memory", "memory_bytes", FACT_BYTES, TABLE_PLAIN},
	{"owner (uid)", "owner", FACT_INTEGER, TABLE_PLAIN},
	{"guards", "guards", FACT_TEXT, TABLE_PLAIN},
	{"stride", "stride", FACT_INTEGER, TABLE_PLAIN},
	{"policy", "policy", FACT_TEXT, TABLE_PLAIN},
	{"attributes", "attributes", FACT_INTEGER, TABLE_PLAIN},
	{"metadata", "metadata", FACT_PAIRS, TABLE_PLAIN},
};

static const struct fact CHECKPOINT_FACTS[] = {
	{"checkpoint step", "step", FACT_INTEGER, TABLE_PLAIN},
	{"checkpoint written", "written_us", FACT_AGE_US, TABLE_PLAIN},
	{"failures in a row", "failures", FACT_INTEGER, TABLE_BAD},
	{"checkpoint error", "error", FACT_TEXT, TABLE_BAD},
};

static const struct fact PROFILE_FACTS[] = {
	{"PROFILE", "name", FACT_TEXT, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"CALLS", "calls", FACT_INTEGER, TABLE_PLAIN},
	{"ACTION", "action", FACT_TEXT, TABLE_PLAIN},
	{"DECAY", "decay", FACT_REAL, TABLE_PLAIN},
	{"DRIFT", "drift", FACT_MEASURE, TABLE_PLAIN},
	{"NORM", "value_norm", FACT_MEASURE, TABLE_PLAIN},
	{"NOT FINITE", "nonfinite", FACT_INTEGER, TABLE_BAD},
	{"IMAGE", "image_bytes", FACT_BYTES, TABLE_PLAIN},
	{"SPECIFICATION", "specification", FACT_TEXT, TABLE_PLAIN},
};

static const struct fact HISTORY_FACTS[] = {
	{"PROFILE", "profile", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"CHANGE", "change", FACT_TEXT, TABLE_PLAIN},
	{"FROM", "from", FACT_TEXT, TABLE_PLAIN},
	{"TO", "to", FACT_TEXT, TABLE_PLAIN},
};

static const struct fact RANK_FACTS[] = {
	{"RANK", "rank", FACT_INTEGER, TABLE_PLAIN},
	{"EPOCH", "epoch", FACT_INTEGER, TABLE_PLAIN},
	{"ATTACHED", "attached", FACT_YES, TABLE_PLAIN},
	{"PID", "pid", FACT_INTEGER, TABLE_PLAIN},
	{"COALESCED", "coalesced", FACT_INTEGER, TABLE_WARN},
	{"REFUSED", "refused", FACT_INTEGER, TABLE_BAD},
	{"REFUSAL", "refusal", FACT_TEXT, TABLE_PLAIN},
};

static const struct fact STAGE_FACTS[] = {
	{"RANK", "rank", FACT_INTEGER, TABLE_PLAIN},
	{"STAGE", "stage", FACT_INTEGER, TABLE_PLAIN},
	{"STATE", "state", FACT_TEXT, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
};

static const struct fact SLOT_FACTS[] = {
	{"SLOT", "slot", FACT_INTEGER, TABLE_PLAIN},
	{"STATE", "state", FACT_TEXT, TABLE_PLAIN},
	{"VERSION", "version", FACT_INTEGER, TABLE_PLAIN},
	{"STEP", "step", FACT_INTEGER, TABLE_PLAIN},
	{"UPDATES", "updates", FACT_INTEGER, TABLE_PLAIN},
	{"CALLS", "calls", FACT_INTEGER, TABLE_PLAIN},
	{"LEASES", "leases", FACT_INTEGER, TABLE_PLAIN},
};

static const struct fact TENSOR_FACTS[] = {
	{"TENSOR", "name", FACT_TEXT, TABLE_PLAIN},
	{"DTYPE", "dtype", FACT_TEXT, TABLE_PLAIN},
	{"SHAPE", "shape", FACT_SHAPE, TABLE_PLAIN},
	{"BUFFER", "buffer", FACT_YES, TABLE_PLAIN},
	{"ENTRIES", "entries", FACT_PAIRS, TABLE_PLAIN},
	{"DRIFT", "drift", FACT_PAIRS, TABLE_PLAIN},
};

enum { SHOW_TENSORS, SHOW_STAGES };

static const struct command_option SHOW_OPTIONS[] = {
	[SHOW_TENSORS] = {"tensors", 'T', NULL, "list the tensors as well"},
	[SHOW_STAGES] = {"stages", 'S', NULL, "list the trainers' stages as well"},
	{0},
};

static int rows_print(const struct emactl *emactl, const json_t *rows, const struct fact *facts, size_t fact_count)
{
	if (json_array_size(rows) == 0)
		return 0;
	putchar('\n');
	return facts_print_rows(rows, facts, fact_count, emactl->is_colour, stdout);
}

/* The parts of all owners in one list, each with its owner's name and its index, so that they make one table. */
static json_t *parts_collect(const json_t *owners, const char *parts, const char *owner_key, const char *named)
{
	json_t *rows = json_array(), *row;
	const json_t *owner, *part;
	size_t i, j;

	json_array_foreach(owners, i, owner)
	{
		json_array_foreach(json_object_get(owner, parts), j, part)
		{
			row = json_is_object(part) ? json_copy((json_t *)part) : json_object();
			json_object_set(row, named, json_object_get(owner, owner_key));
			json_object_set_new(row, "stage", json_integer((json_int_t)j));
			json_array_append_new(rows, row);
		}
	}
	return rows;
}

static int stages_print(const struct emactl *emactl, const json_t *ranks)
{
	json_t *rows = parts_collect(ranks, "stages", "rank", "rank");
	int code;

	code = rows ? rows_print(emactl, rows, STAGE_FACTS, COUNT_OF(STAGE_FACTS)) : EMAD_EMEMORY;
	json_decref(rows);
	return code;
}

static int history_print(const struct emactl *emactl, const json_t *profiles)
{
	json_t *rows = parts_collect(profiles, "history", "name", "profile");
	int code;

	code = rows ? rows_print(emactl, rows, HISTORY_FACTS, COUNT_OF(HISTORY_FACTS)) : EMAD_EMEMORY;
	json_decref(rows);
	return code;
}

/* Nothing where the daemon has no place for checkpoints, or does not say. */
static int checkpoint_print(const struct emactl *emactl, const json_t *checkpoint)
{
	if (!json_is_object(checkpoint))
		return 0;
	putchar('\n');
	return facts_print_object(checkpoint, CHECKPOINT_FACTS, COUNT_OF(CHECKPOINT_FACTS), emactl->is_colour, stdout);
}

static int show_print(const struct emactl *emactl, const json_t *answer)
{
	const json_t *ranks = json_object_get(answer, "ranks"), *profiles = json_object_get(answer, "profiles");
	int code;

	if (emactl->is_json) {
		facts_write(answer, stdout);
		putchar('\n');
		return 0;
	}
	code = facts_print_object(answer, SHOW_FACTS, COUNT_OF(SHOW_FACTS), emactl->is_colour, stdout);
	if (!code)
		code = checkpoint_print(emactl, json_object_get(answer, "checkpoint"));
	if (!code)
		code = rows_print(emactl, profiles, PROFILE_FACTS, COUNT_OF(PROFILE_FACTS));
	if (!code)
		code = history_print(emactl, profiles);
	if (!code)
		code = rows_print(emactl, ranks, RANK_FACTS, COUNT_OF(RANK_FACTS));
	if (!code && emactl->values[SHOW_STAGES])
		code = stages_print(emactl, ranks);
	if (!code)
		code = rows_print(emactl, json_object_get(answer, "slots"), SLOT_FACTS, COUNT_OF(SLOT_FACTS));
	if (!code && emactl->values[SHOW_TENSORS])
		code = rows_print(emactl, json_object_get(answer, "tensors"), TENSOR_FACTS, COUNT_OF(TENSOR_FACTS));
	return memory_error(emactl, code);
}

static int show_run(struct emactl *emactl)
{
	json_t *answer;
	int status;

	status = ask_json(emactl, NULL, emactl->arguments[0], &answer);
	if (status)
		return status;
	status = show_print(emactl, answer);
	json_decref(answer);
	return status;
}

const struct command COMMAND_SHOW = {
	.name = "show",
	.arguments = "MODEL",
	.argument_count_min = 1,
	.argument_count_max = 1,
	.summary = "show one model: profiles, ranks, versions",
	.text = "Shows a model (guards, stride and policy are those of the latest registration, metadata those of the\n"
		"newest version's push) and tables:\n"
		"  profiles   each average: UPDATES are the CALLS of its schedule that counted; the action and decay of\n"
		"             the last update, over a gap the product of its calls; DRIFT (the distance of the pushed\n"
		"             weights from the average) and NORM (of the pushed weights); its SPECIFICATION with rules\n"
		"  history    what was changed while the profiles ran, if anything was\n"
		"  ranks      the trainer processes: who, how many snapshots gave way to newer ones (COALESCED), how\n"
		"             many were refused and why\n"
		"  slots      the memory for versions: current, kept for readers, free, or being written\n"
		"\nJSON: the daemon's answer as one object: the members of 'list', and profiles, ranks, slots,\n"
		"tensors, attributes, metadata, guards, stride and policy in full.\n",
	.options = SHOW_OPTIONS,
	.examples = "  emactl show run42/net\n"
		    "  emactl show run42/net --tensors | less\n"
		    "  emactl show run42/net --json | jq '.profiles[] | {name, decay}'\n",
	.exits = "  0   done\n"
		 "  64  that cannot be a model's name\n"
		 "  66  no such model\n" ANSWER_EXITS,
	.run = show_run,
};
