/*
 * explain: what a schedule will do, call by call, without any daemon.
 *
 * The daemon, the library and this command share one table of schedules and one way to advance an average, so what is
 * printed here is what will happen. Calls are printed as they are computed: a billion of them need no memory.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/explain.h"
#include "client/emactl/figure.h"
#include "proto/schedule_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
	EXPLAIN_CALLS,
	EXPLAIN_START,
	EXPLAIN_STEP_DELTA,
	EXPLAIN_EVERY,
	EXPLAIN_SCALE_BATCH,
	EXPLAIN_LIST,
	EXPLAIN_REFERENCE,
};

static const struct command_option EXPLAIN_OPTIONS[] = {
	[EXPLAIN_CALLS] = {"calls", 'n', "N", "how many calls to follow (default: 10)"},
	[EXPLAIN_START] = {"start", 'f', "N", "the first call, counted from 1 (default: 1)"},
	[EXPLAIN_STEP_DELTA] = {"step-delta", 'd', "D", "trainer's steps (or images) between calls (default: 1)"},
	[EXPLAIN_EVERY] = {"every", 'e', "K", "print each K-th call alone, from the first (default: 1)"},
	[EXPLAIN_SCALE_BATCH] = {"scale-batch", 'b', "K", "rewrite it for a batch K times as large, instead"},
	[EXPLAIN_LIST] = {"list", 'l', NULL, "list all schedules instead"},
	[EXPLAIN_REFERENCE] = {"reference", 'r', NULL, "print the page on all schedules instead (Markdown)"},
	{0},
};

/* The calls that are asked for. */
struct span {
	uint64_t start;
	uint64_t count;
	uint64_t step_delta;
	uint64_t every;
};

/* ---- the schedule in words ------------------------------------------------------------------------------------ */

static void heading_row(struct table *table, const char *head, const char *text)
{
	table_cell(table, TABLE_HEAD, "%s", head);
	table_cell(table, TABLE_PLAIN, "%s", text);
}

/* Rows on the keys that every schedule takes, where they change anything. */
static void heading_common(struct table *table, const struct schedule *schedule)
{
	if (schedule->precision != PRECISION_AUTO) {
		table_cell(table, TABLE_HEAD, "precision");
		table_cell(table, TABLE_PLAIN, "the average is kept in %s",
			   schedule->precision == PRECISION_F64 ? "float64" : "float32");
	}
	if (schedule->begin > 0) {
		table_cell(table, TABLE_HEAD, "begins");
		table_cell(table, TABLE_PLAIN,
			   "up to step %" PRIu64 " the average follows the weights; the first call behind it is n = 1",
			   schedule->begin);
	}
	if (schedule->cadence > 1) {
		table_cell(table, TABLE_HEAD, "counts");
		table_cell(table, TABLE_PLAIN, "of %" PRIu64 " calls the last; the others leave the average as it is",
			   schedule->cadence);
	}
	if (schedule->snapshot > 0) {
		table_cell(table, TABLE_HEAD, "on disk");
		table_cell(table, TABLE_PLAIN, "kept whenever its step passes a multiple of %" PRIu64,
			   schedule->snapshot);
		if (schedule->keep > 0) {
			table_cell(table, TABLE_HEAD, "%s", "");
			table_cell(table, TABLE_PLAIN, "at most %" PRIu64 " of them, thinned evenly", schedule->keep);
		}
	}
}

static int heading_print(const struct emactl *emactl, const struct profile *profile)
{
	static const struct table_column COLUMNS[2] = {{0}};
	const struct schedule *schedule = &profile->schedule;
	const struct schedule_kind *kind = schedule->kind;
	struct table *table = table_create(COLUMNS, 2);
	char text[SCHEDULE_BYTES_MAX + 1];
	int code;

	if (profile->name[0])
		heading_row(table, "profile", profile->name);
	code = schedule_format(schedule, text, sizeof(text));
	heading_row(table, "schedule", code ? kind->name : text);
	heading_row(table, "at call n", kind->formula);
	table_cell(table, TABLE_HEAD, "form");
	table_cell(table, TABLE_PLAIN, "%s: %s, with s the average, x the pushed value, d the decay",
		   schedule_form_name(schedule->form), explain_form(schedule->form));
	if (schedule_start(schedule).action == ACTION_ZERO)
		heading_row(table, "starts", "at zero");
	else if (kind->starts_at_zero)
		heading_row(table, "starts", "at zero, divided out: the decays below are those of the divided average");
	table_cell(table, TABLE_HEAD, "buffers");
	table_cell(table, TABLE_PLAIN, "floating point: %s; integer and bool entries: %s",
		   explain_entry(schedule_entry_default(schedule, true, true)),
		   explain_entry(schedule_entry_default(schedule, false, true)));
	heading_common(table, schedule);
	heading_row(table, "follows", kind->source);
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

static int rules_print(const struct emactl *emactl, const struct profile *profile)
{
	static const struct table_column COLUMNS[] = {{"RULE", true}, {"TENSORS", false}, {"BECOME", false}};
	struct table *table;
	int code;

	if (profile->rule_count == 0)
		return 0;
	table = table_create(COLUMNS, 3);
	for (uint32_t i = 0; i < profile->rule_count; i++) {
		const struct profile_rule *rule = &profile->rules[i];

		table_cell(table, TABLE_PLAIN, "%u", i + 1);
		table_cell(table, TABLE_PLAIN, "%s", rule->pattern);
		if (rule->has_decay)
			table_cell(table, TABLE_PLAIN, "averaged with decay %s", figure_real(rule->decay, 12).text);
		else
			table_cell(table, TABLE_PLAIN, "%s", explain_entry(rule->entry));
	}
	table_cell(table, TABLE_PLAIN, "-");
	table_cell(table, TABLE_PLAIN, "all others");
	table_cell(table, TABLE_PLAIN, "as the schedule's library treats them");
	putchar('\n');
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

static int keys_print(const struct emactl *emactl, const struct schedule *schedule)
{
	static const struct table_column COLUMNS[] = {
		{"KEY", false}, {"VALUE", false}, {"DEFAULT", false}, {"RANGE", false}, {"MEANING", false}};
	const struct schedule_kind *kind = schedule->kind;
	struct table *table = table_create(COLUMNS, 5);
	int code;

	for (uint32_t i = 0; i < kind->key_count; i++) {
		const struct schedule_key *key = &kind->keys[i];

		table_cell(table, TABLE_PLAIN, "%s", key->name);
		table_cell(table, schedule->values[i] == key->fallback ? TABLE_PLAIN : TABLE_GOOD, "%s",
			   explain_value(key, schedule->values[i]).text);
		table_cell(table, TABLE_PLAIN, "%s", explain_default(key).text);
		table_cell(table, TABLE_PLAIN, "%s", explain_range(key).text);
		table_cell(table, TABLE_PLAIN, "%s", key->text);
	}
	putchar('\n');
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code;
}

static int words_print(const struct emactl *emactl, const struct profile *profile)
{
	int code = heading_print(emactl, profile);

	if (!code)
		code = rules_print(emactl, profile);
	if (!code)
		code = keys_print(emactl, &profile->schedule);
	return code;
}

/* ---- its calls ------------------------------------------------------------------------------------------------ */

/* Where an average stands before a call, when each call is step_delta steps behind the one before it. */
static struct schedule_state state_before(const struct schedule *schedule, const struct span *span, uint64_t n)
{
	uint64_t calls = n - 1, step = calls * span->step_delta;
	struct schedule_state state;

	if (schedule->begin > 0 && step <= schedule->begin)
		calls = 0;
	else if (schedule->begin > 0)
		calls -= schedule->begin / span->step_delta;
	state = schedule_resumed(schedule, calls / schedule->cadence, step);
	state.calls = calls;
	return state;
}

static struct schedule_result call_make(const struct schedule *schedule, const struct span *span, uint64_t n,
					struct schedule_state *state)
{
	const struct schedule_gap gap = {
		.call_count = 1,
		.step = n * span->step_delta,
		.step_previous = (n - 1) * span->step_delta,
	};

	return schedule_advance(schedule, state, &gap);
}

static void calls_print_json(const struct schedule *schedule, const struct span *span)
{
	struct schedule_state state = state_before(schedule, span, span->start);
	struct figure decay = figure_json_real(0);
	double shown = 0;

	for (uint64_t i = 0; i < span->count && !output_is_broken(); i += span->every) {
		const uint64_t n = span->start + i;
		struct schedule_result result;

		if (span->every > 1)
			state = state_before(schedule, span, n);
		result = call_make(schedule, span, n, &state);
		/* Most schedules settle, and the digits take longer than the schedule. */
		if (result.decay != shown)
			decay = figure_json_real(result.decay);
		shown = result.decay;
		printf("{\"n\":%" PRIu64, n);
		if (schedule->kind->uses_step)
			printf(",\"step\":%" PRIu64, n * span->step_delta);
		printf(",\"action\":\"%s\",\"decay\":%s}\n", schedule_action_name(result.action), decay.text);
		if (span->every > UINT64_MAX - i)
			break;
	}
}

/* The columns of the printed calls. */
struct columns {
	int width;
	bool has_step;
};

static void call_print(const struct columns *columns, uint64_t n, uint64_t step, const struct schedule_result *result,
		       double kept)
{
	printf("%*" PRIu64, columns->width, n);
	if (columns->has_step)
		printf("  %*" PRIu64, columns->width, step);
	printf("  %-6s  %-18.12g", schedule_action_name(result->action), result->decay);
	if (result->action == ACTION_NOOP)
		printf("  %-12s", "-");
	else if (result->decay < 1)
		printf("  %-12.6g", 1 / (1 - result->decay));
	else
		printf("  %-12s", "inf");
	printf("  %.6g\n", kept);
}

static void calls_heading(const struct emactl *emactl, const struct columns *columns)
{
	if (emactl->is_quiet)
		return;
	fputs(emactl->is_colour ? table_style_begin(TABLE_HEAD) : "", stdout);
	printf("\n%*s", columns->width, "CALL");
	if (columns->has_step)
		printf("  %*s", columns->width, "STEP");
	printf("  %-6s  %-18s  %-12s  %s", "ACTION", "DECAY", "HORIZON", "KEPT");
	puts(emactl->is_colour ? table_style_end() : "");
}

/* kept: the share that the average from before the first call printed still has, which takes every call's decay. */
static void calls_print(const struct emactl *emactl, const struct schedule *schedule, const struct span *span)
{
	const uint64_t last = span->start + (span->count - 1);
	const int width = snprintf(NULL, 0, "%" PRIu64, last * (span->step_delta > 1 ? span->step_delta : 1));
	const struct columns columns = {
		.width = width < 4 ? 4 : width,
		.has_step = schedule->kind->uses_step || schedule->begin > 0,
	};
	struct schedule_state state = state_before(schedule, span, span->start);
	double kept = 1;

	calls_heading(emactl, &columns);
	for (uint64_t i = 0; i < span->count && !output_is_broken(); i++) {
		const uint64_t n = span->start + i;
		struct schedule_result result = call_make(schedule, span, n, &state);

		kept *= result.decay;
		if (i % span->every == 0)
			call_print(&columns, n, n * span->step_delta, &result, kept);
	}
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

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

/* A profile is told from a schedule by its name: the first sign of a schedule is a colon, or none. */
static int subject_parse(const char *text, struct profile *ret_profile, struct reason *reason)
{
	struct profile profile = {.name = ""};
	const char *sign = strpbrk(text, ":=;");
	int code;

	if (sign && *sign != ':')
		return profile_parse(text, strlen(text), ret_profile, reason);
	code = schedule_parse(text, &profile.schedule, reason);
	if (!code)
		*ret_profile = profile;
	return code;
}

static int explain_calls(const struct emactl *emactl, const struct profile *profile, const struct span *span)
{
	int code;

	if (emactl->is_json) {
		calls_print_json(&profile->schedule, span);
		return 0;
	}
	if (!emactl->is_quiet) {
		code = words_print(emactl, profile);
		if (code)
			return output_error(emactl, code, "not enough memory to print the schedule");
	}
	calls_print(emactl, &profile->schedule, span);
	return 0;
}

static int explain_run(struct emactl *emactl)
{
	const char *scale = emactl->values[EXPLAIN_SCALE_BATCH];
	struct reason reason = {{0}};
	struct profile profile;
	struct span span = {0};
	double factor = 1;
	int code, status;

	if (emactl->values[EXPLAIN_REFERENCE])
		return explain_reference(emactl);
	if (emactl->values[EXPLAIN_LIST] || (emactl->argument_count && strcmp(emactl->arguments[0], "list") == 0))
		return explain_list(emactl);
	if (!emactl->argument_count)
		return output_error(emactl, EMAD_EARGUMENT,
				    "explain needs SCHEDULE, for example yolo:decay=0.999; 'explain --list' lists all");
	status = span_parse(emactl, &span);
	if (status)
		return status;
	if (scale && !(number_parse(scale, &factor) && factor > 0 && isfinite(factor)))
		return output_error(
			emactl, EMAD_EARGUMENT,
			"--scale-batch takes how many times as large the batch is, a number above 0, not '%s'", scale);
	code = subject_parse(emactl->arguments[0], &profile, &reason);
	if (code)
		return output_error(emactl, code, "%s", reason.text);
	return scale ? explain_scale(emactl, &profile, factor) : explain_calls(emactl, &profile, &span);
}

const struct command COMMAND_EXPLAIN = {
	.name = "explain",
	.arguments = "SCHEDULE|PROFILE",
	.argument_count_max = 1,
	.summary = "show what a schedule does at each call",
	.text = "A schedule is written NAME or NAME:KEY=VALUE,KEY=VALUE. A profile is a name, a schedule and rules for\n"
		"tensors that are to be treated otherwise: NAME=SCHEDULE;ACTION=PATTERN;ACTION=PATTERN, with the actions\n"
		"average, average@DECAY, copy, freeze and drop, and patterns of * ? [a-z] [!a-z]; the first rule that\n"
		"matches wins. Put quotes around it: the shell takes ';' and '*' for its own.\n\n"
		"Shows the formula, the keys and where they come from, then for each call of the update:\n"
		"  ACTION   copy (the average becomes the pushed value), lerp (blend), noop (the average stays)\n"
		"  DECAY    the weight of the old average: 0 for copy, 1 for noop\n"
		"  HORIZON  1/(1-decay): over about how many calls this decay averages\n"
		"  KEPT     the product of all decays from --start on: what share the average from before the first\n"
		"           printed call still has\n\n"
		"Every schedule takes these keys beside its own:\n"
		"  form=lerp|mul-add|sub  order of the arithmetic\n"
		"  precision=f32|f64      type of the average; f64 where the decay is very near 1\n"
		"  begin=STEP             follow the weights up to this step, and average from there on\n"
		"  cadence=CALLS          count each so many calls one\n"
		"  snapshot=STEPS         keep the average on disk whenever its step passes a multiple of this\n"
		"  keep=COUNT             at most so many of them\n\n"
		"--scale-batch K answers what to write when the batch grows K-fold (or shrinks: 0.5) and the average is to\n"
		"reach as far back in samples as before: a decay d becomes d^K, a number of calls a K-th. Shown are the new\n"
		"specification, and for each key what it was, what it is and why.\n\n"
		"No daemon is needed. With --quiet the calls, or the new specification, are printed alone.\n"
		"\nJSON: one object a line: n, action, decay (the fewest digits that read back as the same double),\n"
		"and step for schedules that look at it. With --scale-batch one object: specification, factor, scaled, keys\n"
		"(key, before, after, why). With --list: name, text, formula, source, form, float_buffers, integers,\n"
		"uses_step, keys.\n",
	.options = EXPLAIN_OPTIONS,
	.examples = "  emactl explain yolo\n"
		    "  emactl explain timm:warmup=1,gamma=1 --calls 100000 --every 10000\n"
		    "  emactl explain power:std=0.1 --step-delta 2048 --json | jq .decay\n"
		    "  emactl explain 'ema=yolo:begin=500;copy=*.running_*;average@0.99=lora_*'\n"
		    "  emactl explain yolo --scale-batch 8\n"
		    "  emactl explain --list\n",
	.exits = "  0   done\n"
		 "  64  an option is wrong\n"
		 "  65  the schedule is not valid, or cannot be scaled\n",
	.run = explain_run,
};
