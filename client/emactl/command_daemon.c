/*
 * ping, status, remove: one question to the daemon, one answer.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/figure.h"

#include <inttypes.h>
#include <stdio.h>

#define DAEMON_EXITS                                                                                                  \
	"  69  the daemon cannot be reached\n"                                                                        \
	"  75  it did not answer in time\n"                                                                           \
	"  77  its socket may not be used by this user\n"

/* ---- ping ----------------------------------------------------------------------------------------------------- */

static int ping_run(struct emactl *emactl)
{
	struct emad_daemon daemon;
	struct emad_client *client;
	int code, status;

	status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = emad_hello(client, emactl->timeout_ms, &daemon);
	if (code) {
		status = output_library_error(emactl, code);
	} else if (emactl->is_json) {
		printf("{\"agent\":");
		output_json_string(daemon.agent);
		printf(",\"instance\":%" PRIu64 ",\"pid\":%" PRIu64 ",\"uptime_ms\":%" PRIu64
		       ",\"round_trip_us\":%" PRIu64 "}\n",
		       daemon.instance, daemon.pid, daemon.uptime_ms, daemon.round_trip_us);
	} else if (!emactl->is_quiet) {
		table_write_safe(stdout, daemon.agent);
		printf(" answered in %s (pid %" PRIu64 ", up %s)\n", figure_duration_us(daemon.round_trip_us).text,
		       daemon.pid, figure_duration_us(daemon.uptime_ms * 1000).text);
	}
	emad_client_close(client);
	return status;
}

const struct command COMMAND_PING = {
	.name = "ping",
	.arguments = "",
	.summary = "ask whether the daemon answers",
	.text = "Connects to the daemon, asks who it is, and says how long the answer took. With --quiet the\n"
		"exit code is the answer.\n"
		"\nJSON: one object: agent, instance (a number that changes with each start of the daemon),\n"
		"pid, uptime_ms, round_trip_us.\n",
	.examples = "  emactl ping\n"
		    "  emactl ping --quiet || echo 'emad is away'\n"
		    "  emactl ping --timeout 60        # wait until it is there\n"
		    "  emactl --socket tcp://node7:7777 ping --json\n",
	.exits = "  0   the daemon answered\n" DAEMON_EXITS,
	.run = ping_run,
};

/* ---- status --------------------------------------------------------------------------------------------------- */

static const struct fact STATUS_FACTS[] = {
	{"agent", "agent", FACT_TEXT, TABLE_PLAIN},
	{"pid", "pid", FACT_INTEGER, TABLE_PLAIN},
	{"instance", "instance", FACT_INTEGER, TABLE_PLAIN},
	{"up", "uptime_ms", FACT_MS, TABLE_PLAIN},
	{"runtime directory", "runtime_dir", FACT_TEXT, TABLE_PLAIN},
	{"state directory", "state_dir", FACT_TEXT, TABLE_PLAIN},
	{"segments directory", "segments_dir", FACT_TEXT, TABLE_PLAIN},
	{"workers", "workers", FACT_INTEGER, TABLE_PLAIN},
	{"kernel", "kernel", FACT_TEXT, TABLE_PLAIN},
	{"requests waiting", "waiting", FACT_INTEGER, TABLE_PLAIN},
	{"models", "models", FACT_INTEGER, TABLE_PLAIN},
	{"memory", "memory_bytes", FACT_BYTES, TABLE_PLAIN},
	{"memory limit", "memory_bytes_max", FACT_BYTES, TABLE_PLAIN},
};

static const struct fact CHECKPOINT_FACTS[] = {
	{"last checkpoint", "written_us", FACT_AGE_US, TABLE_PLAIN},
	{"its model", "model", FACT_TEXT, TABLE_PLAIN},
	{"its step", "step", FACT_INTEGER, TABLE_PLAIN},
};

static const struct fact FAILING_FACTS[] = {
	{"checkpoint failing", "failing", FACT_TEXT, TABLE_BAD},
	{"failures in a row", "failures", FACT_INTEGER, TABLE_BAD},
	{"because", "error", FACT_TEXT, TABLE_BAD},
};

static const struct fact USER_FACTS[] = {
	{"UID", "uid", FACT_INTEGER, TABLE_PLAIN},
	{"MODELS", "models", FACT_INTEGER, TABLE_PLAIN},
	{"MEMORY", "memory_bytes", FACT_BYTES, TABLE_PLAIN},
};

/* What each user's models come to. Nothing where there are none. */
static int users_print(const json_t *users, bool is_colour)
{
	if (json_array_size(users) == 0)
		return 0;
	putchar('\n');
	return facts_print_rows(users, USER_FACTS, sizeof(USER_FACTS) / sizeof(USER_FACTS[0]), is_colour, stdout);
}

/* Nothing where the daemon has no place for checkpoints, or does not say. */
static int checkpoint_print(const json_t *checkpoint, bool is_colour)
{
	int code;

	if (!json_is_object(checkpoint))
		return 0;
	putchar('\n');
	code = facts_print_object(checkpoint, CHECKPOINT_FACTS, sizeof(CHECKPOINT_FACTS) / sizeof(CHECKPOINT_FACTS[0]),
	                          is_colour, stdout);
	if (!code && json_is_string(json_object_get(checkpoint, "failing")))
		code = facts_print_object(checkpoint, FAILING_FACTS, sizeof(FAILING_FACTS) / sizeof(FAILING_FACTS[0]),
		                          is_colour, stdout);
	return code;
}

/* Counters are named by the daemon, so the tool never needs to learn a new one. */
static int counters_print(const json_t *counters, bool is_colour)
{
	static const struct table_column COLUMNS[] = {{"COUNTER", false}, {"VALUE", true}};
	struct table *table;
	const char *name;
	json_t *value;
	int code;

	if (!json_is_object(counters) || json_object_size(counters) == 0)
		return 0;
	table = table_create(COLUMNS, 2);
	json_object_foreach((json_t *)counters, name, value)
	{
		table_cell(table, TABLE_PLAIN, "%s", name);
		if (json_is_integer(value))
			table_cell(table, TABLE_PLAIN, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		else
			table_cell(table, TABLE_PLAIN, "%s",
			           json_is_real(value) ? figure_real(json_real_value(value), 10).text : "-");
	}
	putchar('\n');
	code = table_print(table, stdout, is_colour);
	table_destroy(table);
	return code;
}

static int status_print(const struct emactl *emactl, const json_t *answer)
{
	int code;

	if (emactl->is_json) {
		facts_write(answer, stdout);
		putchar('\n');
		return 0;
	}
	code = facts_print_object(answer, STATUS_FACTS, sizeof(STATUS_FACTS) / sizeof(STATUS_FACTS[0]),
	                          emactl->is_colour, stdout);
	if (!code)
		code = users_print(json_object_get(answer, "users"), emactl->is_colour);
	if (!code)
		code = checkpoint_print(json_object_get(answer, "checkpoint"), emactl->is_colour);
	if (!code && !emactl->is_quiet)
		code = counters_print(json_object_get(answer, "counters"), emactl->is_colour);
	return code ? output_error(emactl, code, "not enough memory to print the answer") : 0;
}

static int status_run(struct emactl *emactl)
{
	json_t *answer;
	int status;

	status = ask_json(emactl, emad_status_json, NULL, &answer);
	if (status)
		return status;
	status = status_print(emactl, answer);
	json_decref(answer);
	return status;
}

const struct command COMMAND_STATUS = {
	.name = "status",
	.arguments = "",
	.summary = "show the daemon's state and counters",
	.text = "Shows who the daemon is, what it holds and what it has counted since it started. A member that\n"
		"the daemon does not send is shown as '-'. With --quiet the counters are left out.\n"
		"\nJSON: the daemon's answer as one object: agent, pid, instance, uptime_ms, runtime_dir,\n"
		"state_dir, segments_dir, workers, kernel, connections, waiting, models, memory_bytes,\n"
		"memory_bytes_max, counters;\n"
		"users, whose models these are: uid (null: not known), models, memory_bytes;\n"
		"checkpoint, null without a state directory: model, step and written_us of the last one that this\n"
		"daemon wrote; writing, an array of model, bytes and written_bytes; failing (a model), failures (in\n"
		"a row), error.\n",
	.examples = "  emactl status\n"
		    "  emactl status --json | jq .counters\n",
	.exits = "  0   done\n" DAEMON_EXITS,
	.run = status_run,
};

/* ---- remove --------------------------------------------------------------------------------------------------- */

static int remove_run(struct emactl *emactl)
{
	const char *model = emactl->arguments[0];
	struct emad_client *client;
	uint64_t freed_bytes = 0;
	int code, status;

	status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = emad_remove(client, model, emactl->timeout_ms, &freed_bytes);
	if (code) {
		status = output_library_error(emactl, code);
	} else if (emactl->is_json) {
		printf("{\"model\":");
		output_json_string(model);
		printf(",\"freed_bytes\":%" PRIu64 "}\n", freed_bytes);
	} else if (!emactl->is_quiet) {
		table_write_safe(stdout, model);
		printf(" removed: %s of memory given back\n", figure_bytes(freed_bytes).text);
	}
	emad_client_close(client);
	return status;
}

const struct command COMMAND_REMOVE = {
	.name = "remove",
	.arguments = "MODEL",
	.argument_count_min = 1,
	.argument_count_max = 1,
	.summary = "forget a model and free its memory",
	.text = "Makes the daemon forget a model: all its averages, at once and for good. There is no question\n"
		"and no way back: 'emactl export' first what you want to keep. Readers that have the model open keep\n"
		"what they see; a trainer that still pushes to it is told.\n"
		"\nJSON: one object: model, freed_bytes.\n",
	.examples = "  emactl remove run42/net\n"
		    "  emactl export run42/net -o last.safetensors && emactl remove run42/net\n",
	.exits = "  0   removed\n"
		 "  64  that cannot be a model's name\n"
		 "  66  no such model\n" DAEMON_EXITS,
	.run = remove_run,
};
