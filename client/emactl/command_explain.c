/*
 * explain: what a schedule will do, call by call, without any daemon.
 *
 * The daemon, the library and this command share one table of schedules, so what is printed here is what will happen.
 * Calls are printed as they are computed: a billion of them need no memory.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/figure.h"
#include "client/emactl/table.h"
#include "proto/limits.h"
#include "proto/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { EXPLAIN_CALLS, EXPLAIN_START, EXPLAIN_STEP_DELTA, EXPLAIN_EVERY, EXPLAIN_LIST };

static const struct command_option EXPLAIN_OPTIONS[] = {
	[EXPLAIN_CALLS] = {"calls", 'n', "N", "how many calls to follow (default: 10)"},
	[EXPLAIN_START] = {"start", 'f', "N", "the first call, counted from 1 (default: 1)"},
	[EXPLAIN_STEP_DELTA] = {"step-delta", 'd', "D", "trainer's steps (or images) between calls (default: 1)"},
	[EXPLAIN_EVERY] = {"every", 'e', "K", "print each K-th call alone, from the first (default: 1)"},
	[EXPLAIN_LIST] = {"list", 'l', NULL, "list all schedules instead"},
	{0},
};

/* The calls that are asked for. */
struct span {
	uint64_t start;
	uint64_t count;
	uint64_t step_delta;
	uint64_t every;
};

static const char *entry_name(enum schedule_entry entry)
{
	switch (entry) {
	case ENTRY_AVERAGE:
		return "averaged";
	case ENTRY_COPY:
		return "copied";
	case ENTRY_FREEZE:
		return "frozen";
	case ENTRY_DROP:
		return "left out";
	case ENTRY_FIRST:
		return "copied once";
	}
	return "-";
}

static const char *form_formula(enum schedule_form form)
{
	switch (form) {
	case FORM_LERP:
		return "s + (1-d)*(x-s)";
	case FORM_MUL_ADD:
		return "s*d + (1-d)*x";
	case FORM_SUB:
		return "s - (1-d)*(s-x)";
	}
	return "-";
}

/* ---- the list of schedules ------------------------------------------------------------------------------------ */

static void key_print_json(const struct schedule_key *key)
{
	const char *alias = key->aliases ? key->aliases : "", *separator = "";

	printf("{\"name\":\"%s\",\"aliases\":[", key->name);
	for (size_t bytes; *alias; alias += bytes + strspn(alias + bytes, " "), separator = ",") {
		bytes = strcspn(alias, " ");
		printf("%s\"%.*s\"", separator, (int)bytes, alias);
	}
	printf("],\"default\":%s,\"minimum\":%s,\"maximum\":%s,\"is_integer\":%s,\"is_alternative\":%s,\"text\":",
	       figure_json_real(key->fallback).text, figure_json_real(key->minimum).text,
	       figure_json_real(key->maximum).text, key->is_integer ? "true" : "false",
	       key->is_alternative ? "true" : "false");
	output_json_string(key->text);
	putchar('}');
}

static void kind_print_json(const struct schedule_kind *kind)
{
	printf("{\"name\":\"%s\",\"formula\":", kind->name);
	output_json_string(kind->formula);
	printf(",\"source\":");
	output_json_string(kind->source);
	printf(",\"form\":\"%s\",\"float_buffers\":\"%s\",\"integers\":\"%s\",\"uses_step\":%s,\"keys\":[",
	       schedule_form_name(kind->form), entry_name(kind->float_buffer), entry_name(kind->integer),
	       kind->uses_step ? "true" : "false");
	for (uint32_t i = 0; i < kind->key_count; i++) {
		fputs(i ? "," : "", stdout);
		key_print_json(&kind->keys[i]);
	}
	printf("]}\n");
}

static struct figure key_default(const struct schedule_key *key)
{
	struct figure figure = figure_real(key->fallback, 12);

	/* Outside of its range a default stands for "not given". */
	if (!(key->fallback >= key->minimum && key->fallback <= key->maximum))
		snprintf(figure.text, sizeof(figure.text), "not given");
	return figure;
}

static int explain_list(const struct emactl *emactl)
{
	static const struct table_column COLUMNS[] = {
		{"SCHEDULE", false}, {"FORM", false}, {"ACTION AT CALL n", false}};
	const struct schedule_kind *kinds;
	struct table *table;
	size_t count;
	int code;

	kinds = schedule_kinds(&count);
	if (emactl->is_json || emactl->is_quiet) {
		for (size_t i = 0; i < count; i++) {
			if (emactl->is_json)
				kind_print_json(&kinds[i]);
			else
				puts(kinds[i].name);
		}
		return 0;
	}
	table = table_create(COLUMNS, 3);
	for (size_t i = 0; i < count; i++) {
		table_cell(table, TABLE_PLAIN, "%s", kinds[i].name);
		table_cell(table, TABLE_PLAIN, "%s", schedule_form_name(kinds[i].form));
		table_cell(table, TABLE_PLAIN, "%s", kinds[i].formula);
	}
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code ? output_error(emactl, code, "not enough memory to print the list") : 0;
}

/* ---- one schedule --------------------------------------------------------------------------------------------- */

static int heading_print(const struct emactl *emactl, const struct schedule *schedule)
{
	static const struct table_column COLUMNS[2] = {{0}};
	const struct schedule_kind *kind = schedule->kind;
	struct table *table = table_create(COLUMNS, 2);
	char text[SCHEDULE_BYTES_MAX + 1];
	int code;

	code = schedule_format(schedule, text, sizeof(text));
	table_cell(table, TABLE_HEAD, "schedule");
	table_cell(table, TABLE_PLAIN, "%s", code ? kind->name : text);
	table_cell(table, TABLE_HEAD, "at call n");
	table_cell(table, TABLE_PLAIN, "%s", kind->formula);
	table_cell(table, TABLE_HEAD, "form");
	table_cell(table, TABLE_PLAIN, "%s: %s, with s the average, x the pushed value, d the decay",
	           schedule_form_name(schedule->form), form_formula(schedule->form));
	table_cell(table, TABLE_HEAD, "buffers");
	table_cell(table, TABLE_PLAIN, "floating point: %s; integer and bool entries: %s",
	           entry_name(kind->float_buffer), entry_name(kind->integer));
	table_cell(table, TABLE_HEAD, "follows");
	table_cell(table, TABLE_PLAIN, "%s", kind->source);
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

static int keys_print(const struct emactl *emactl, const struct schedule *schedule)
{
	static const struct table_column COLUMNS[] = {
		{"KEY", false}, {"VALUE", false}, {"DEFAULT", false}, {"RANGE", false}, {"MEANING", false}};
	const struct schedule_kind *kind = schedule->kind;
	const struct schedule_key *key;
	struct table *table;
	int code;

	if (kind->key_count == 0)
		return 0;
	table = table_create(COLUMNS, 5);
	for (uint32_t i = 0; i < kind->key_count; i++) {
		key = &kind->keys[i];
		table_cell(table, TABLE_PLAIN, "%s", key->name);
		table_cell(table, schedule->values[i] == key->fallback ? TABLE_PLAIN : TABLE_GOOD, "%s",
		           schedule->values[i] == key->fallback ? key_default(key).text
		                                                : figure_real(schedule->values[i], 12).text);
		table_cell(table, TABLE_PLAIN, "%s", key_default(key).text);
		table_cell(table, TABLE_PLAIN, "%s..%s", figure_real(key->minimum, 12).text,
		           figure_real(key->maximum, 12).text);
		table_cell(table, TABLE_PLAIN, "%s", key->text);
	}
	putchar('\n');
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

static struct schedule_call call_of(const struct span *span, uint64_t n)
{
	return (struct schedule_call){
		.n = n,
		.step = n * span->step_delta,
		.step_previous = (n - 1) * span->step_delta,
	};
}

static void calls_print_json(const struct schedule *schedule, const struct span *span)
{
	struct figure decay = figure_json_real(0);
	struct schedule_result result;
	struct schedule_call call;
	double shown = 0;

	for (uint64_t i = 0; i < span->count && !output_is_broken(); i += span->every) {
		call = call_of(span, span->start + i);
		result = schedule_at(schedule, &call);
		/* Most schedules settle, and the digits take longer than the schedule. */
		if (result.decay != shown)
			decay = figure_json_real(result.decay);
		shown = result.decay;
		printf("{\"n\":%" PRIu64, call.n);
		if (schedule->kind->uses_step)
			printf(",\"step\":%" PRIu64, call.step);
		printf(",\"action\":\"%s\",\"decay\":%s}\n", schedule_action_name(result.action), decay.text);
		if (span->every > UINT64_MAX - i)
			break;
	}
}

static void call_print(const struct schedule_call *call, const struct schedule_result *result, double kept, int width,
                       bool uses_step)
{
	printf("%*" PRIu64, width, call->n);
	if (uses_step)
		printf("  %*" PRIu64, width, call->step);
	printf("  %-6s  %-18.12g", schedule_action_name(result->action), result->decay);
	if (result->action == ACTION_NOOP)
		printf("  %-12s", "-");
	else if (result->decay < 1)
		printf("  %-12.6g", 1 / (1 - result->decay));
	else
		printf("  %-12s", "inf");
	printf("  %.6g\n", kept);
}

/* kept: the share that the average from before the first call printed still has, which takes every call's decay. */
static void calls_print(const struct emactl *emactl, const struct schedule *schedule, const struct span *span)
{
	const uint64_t last = span->start + (span->count - 1);
	const int width = snprintf(NULL, 0, "%" PRIu64, last * (span->step_delta > 1 ? span->step_delta : 1));
	const int column = width < 4 ? 4 : width;
	const bool uses_step = schedule->kind->uses_step;
	struct schedule_result result;
	struct schedule_call call;
	double kept = 1;

	if (!emactl->is_quiet) {
		fputs(emactl->is_colour ? table_style_begin(TABLE_HEAD) : "", stdout);
		printf("\n%*s", column, "CALL");
		if (uses_step)
			printf("  %*s", column, "STEP");
		printf("  %-6s  %-18s  %-12s  %s", "ACTION", "DECAY", "HORIZON", "KEPT");
		puts(emactl->is_colour ? table_style_end() : "");
	}
	for (uint64_t i = 0; i < span->count && !output_is_broken(); i++) {
		call = call_of(span, span->start + i);
		result = schedule_at(schedule, &call);
		kept *= result.decay;
		if (i % span->every == 0)
			call_print(&call, &result, kept, column, uses_step);
	}
}

static int span_parse(const struct emactl *emactl, struct span *ret_span)
{
	static const uint64_t RANGES[][2] = {
		[EXPLAIN_CALLS] = {1, INT64_MAX},
		[EXPLAIN_START] = {1, INT64_MAX},
		[EXPLAIN_STEP_DELTA] = {0, INT64_MAX},
		[EXPLAIN_EVERY] = {1, INT64_MAX},
	};
	uint64_t numbers[] = {[EXPLAIN_CALLS] = 10, [EXPLAIN_START] = 1, [EXPLAIN_STEP_DELTA] = 1, [EXPLAIN_EVERY] = 1};
	uint64_t last;
	char what[32];
	int status = 0;

	for (unsigned i = EXPLAIN_CALLS; i <= EXPLAIN_EVERY && !status; i++) {
		snprintf(what, sizeof(what), "--%s", EXPLAIN_OPTIONS[i].name);
		if (emactl->values[i])
			status = arguments_number(emactl, what, emactl->values[i], RANGES[i], &numbers[i]);
	}
	if (status)
		return status;
	last = numbers[EXPLAIN_START] + (numbers[EXPLAIN_CALLS] - 1);
	if (last > INT64_MAX || (numbers[EXPLAIN_STEP_DELTA] && last > INT64_MAX / numbers[EXPLAIN_STEP_DELTA]))
		return output_error(emactl, EMAD_EARGUMENT,
		                    "the last call is %" PRIu64 ", and with --step-delta %" PRIu64
		                    " its step is beyond %" PRId64,
		                    last, numbers[EXPLAIN_STEP_DELTA], INT64_MAX);
	*ret_span = (struct span){
		.start = numbers[EXPLAIN_START],
		.count = numbers[EXPLAIN_CALLS],
		.step_delta = numbers[EXPLAIN_STEP_DELTA],
		.every = numbers[EXPLAIN_EVERY],
	};
	return 0;
}

static int explain_run(struct emactl *emactl)
{
	struct reason reason = {{0}};
	struct schedule schedule;
	struct span span = {0};
	int code, status;

	if (emactl->values[EXPLAIN_LIST] || (emactl->argument_count && strcmp(emactl->arguments[0], "list") == 0))
		return explain_list(emactl);
	if (!emactl->argument_count)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "explain needs SCHEDULE, for example yolo:decay=0.999; 'explain --list' lists all");
	status = span_parse(emactl, &span);
	if (status)
		return status;
	code = schedule_parse(emactl->arguments[0], &schedule, &reason);
	if (code)
		return output_error(emactl, code, "%s", reason.text);
	if (emactl->is_json) {
		calls_print_json(&schedule, &span);
		return 0;
	}
	if (!emactl->is_quiet) {
		code = heading_print(emactl, &schedule);
		if (!code)
			code = keys_print(emactl, &schedule);
		if (code)
			return output_error(emactl, code, "not enough memory to print the schedule");
	}
	calls_print(emactl, &schedule, &span);
	return 0;
}

const struct command COMMAND_EXPLAIN = {
	.name = "explain",
	.arguments = "SCHEDULE",
	.argument_count_max = 1,
	.summary = "show what a schedule does at each call",
	.text = "A schedule is written NAME or NAME:KEY=VALUE,KEY=VALUE. Shows its formula, its keys and where it\n"
		"comes from, then for each call of the update:\n"
		"  ACTION   copy (the average becomes the pushed value), lerp (blend), noop (the average stays)\n"
		"  DECAY    the weight of the old average: 0 for copy, 1 for noop\n"
		"  HORIZON  1/(1-decay): over about how many calls this decay averages\n"
		"  KEPT     the product of all decays from --start on: what share the average from before the first\n"
		"           printed call still has\n"
		"Every schedule takes the key form=lerp|mul-add|sub, the order of the arithmetic.\n"
		"No daemon is needed. With --quiet the calls are printed alone. 'emactl explain --list' shows all\n"
		"schedules.\n"
		"\nJSON: one object a line: n, action, decay (the fewest digits that read back as the same double),\n"
		"and step for schedules that look at it. With --list: name, formula, source, form, float_buffers,\n"
		"integers, uses_step, keys.\n",
	.options = EXPLAIN_OPTIONS,
	.examples = "  emactl explain yolo\n"
		    "  emactl explain timm:warmup=1,gamma=1 --calls 100000 --every 10000\n"
		    "  emactl explain power:std=0.1 --step-delta 2048 --json | jq .decay\n"
		    "  emactl explain --list\n",
	.exits = "  0   done\n"
		 "  64  an option is wrong\n"
		 "  65  the schedule is not valid\n",
	.run = explain_run,
};
