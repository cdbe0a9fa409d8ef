/*
 * Rows of two looks. See top_rows.h.
 */
#include "client/emactl/top_rows.h"

#include "client/emactl/emactl.h"
#include "client/emactl/figure.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RECENT_US = 10000000 };

/* How much of the rate is that of the latest look: figures that jump cannot be read. */
static const double RATE_SHARE = 0.5;

char top_state_letter(enum top_state state)
{
	static const char LETTERS[] = {
#define X(name, letter, text) letter,
		TOP_STATES(X)
#undef X
	};

	return LETTERS[state];
}

const char *top_state_text(enum top_state state)
{
	static const char *const TEXTS[] = {
#define X(name, letter, text) text,
		TOP_STATES(X)
#undef X
	};

	return TEXTS[state];
}

const char *const *top_key_titles(void)
{
	static const char *const TITLES[] = {
#define X(name, key, title) title,
		TOP_KEYS(X)
#undef X
		NULL,
	};

	return TITLES;
}

bool top_key_parse(const char *title, enum top_key *ret_key)
{
	for (int i = 0; i < TOP_KEY_COUNT; i++) {
		if (strcmp(title, top_key_titles()[i]) == 0) {
			*ret_key = (enum top_key)i;
			return true;
		}
	}
	return false;
}

/* ---- taking --------------------------------------------------------------------------------------------------- */

static uint64_t number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) && json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
}

static bool has_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && *text;
}

static void text_take(struct top_row *row, const json_t *object, const char *key)
{
	if (has_text(object, key))
		snprintf(row->refusal, sizeof(row->refusal), "%s", json_string_value(json_object_get(object, key)));
}

/* Whether all of a rank's stages wait: its trainer has to as well. */
static bool rank_is_full(const json_t *rank)
{
	const json_t *stages = json_object_get(rank, "stages"), *stage;
	size_t i;

	json_array_foreach(stages, i, stage)
	{
		const char *state = json_string_value(json_object_get(stage, "state"));

		if (!state || strcmp(state, "free") == 0)
			return false;
	}
	return json_array_size(stages) > 0;
}

static bool any_rank_is_full(const json_t *show)
{
	const json_t *rank;
	size_t i;

	json_array_foreach(json_object_get(show, "ranks"), i, rank)
	{
		if (rank_is_full(rank))
			return true;
	}
	return false;
}

/* Something that is wrong and stays so until somebody looks. */
static bool is_erring(const json_t *show)
{
	const json_t *profile;
	size_t i;

	if (has_text(json_object_get(show, "checkpoint"), "error"))
		return true;
	json_array_foreach(json_object_get(show, "profiles"), i, profile)
	{
		if (has_text(profile, "snapshot_error") || number(profile, "nonfinite") > 0)
			return true;
	}
	return false;
}

static enum top_state state_judge(const struct top_row *row, const json_t *show, bool has_moved, uint64_t now_us)
{
	const uint64_t attached = number(show, "ranks_attached");

	if (is_erring(show) || (row->refused_at_us && now_us < row->refused_at_us + RECENT_US))
		return TOP_ERROR;
	if (attached > 0 && attached < number(show, "world"))
		return TOP_WAITING;
	if (any_rank_is_full(show))
		return TOP_LAGGING;
	if (row->version == 0)
		return TOP_NEW;
	return has_moved || now_us < row->published_us + RECENT_US ? TOP_RUNNING : TOP_IDLE;
}

static void facts_take(struct top_row *row, const json_t *show)
{
	const json_t *profile = json_array_get(json_object_get(show, "profiles"), 0);
	const json_t *checkpoint = json_object_get(show, "checkpoint"), *item;
	size_t i;

	row->has_step = json_is_integer(json_object_get(show, "step"));
	row->step = number(show, "step");
	row->version = number(show, "version");
	row->lag = number(show, "lag");
	row->refused = number(show, "refused");
	row->readers = number(show, "leases");
	row->memory_bytes = number(show, "memory_bytes");
	row->published_us = number(show, "last_update_us");
	row->has_facts = json_is_number(json_object_get(profile, "decay"));
	row->decay = json_number_value(json_object_get(profile, "decay"));
	row->drift = json_number_value(json_object_get(profile, "drift"));
	row->checkpoint_us = number(checkpoint, "written_us");
	row->has_checkpoint = row->checkpoint_us > 0;
	json_array_foreach(json_object_get(show, "slots"), i, item)
		row->versions += number(item, "version") > 0;
	json_array_foreach(json_object_get(show, "ranks"), i, item)
		text_take(row, item, "refusal");
	json_array_foreach(json_object_get(show, "profiles"), i, item)
		text_take(row, item, "snapshot_error");
	text_take(row, checkpoint, "error");
}

static void row_take(struct top_row *row, const json_t *show, const struct top_row *before, uint64_t before_us,
                     uint64_t now_us)
{
	const double seconds = before && now_us > before_us ? (double)(now_us - before_us) / 1e6 : 0;
	bool has_moved = false;
	double rate;

	snprintf(row->model, sizeof(row->model), "%s", json_string_value(json_object_get(show, "model")));
	facts_take(row, show);
	if (before) {
		has_moved = row->version != before->version;
		row->refused_at_us = row->refused > before->refused ? now_us : before->refused_at_us;
	}
	/* Where training went back, or the daemon was started anew, there is no rate this time. */
	if (before && before->has_step && seconds > 0 && row->step >= before->step) {
		rate = (double)(row->step - before->step) / seconds;
		row->rate = before->has_rate ? before->rate + RATE_SHARE * (rate - before->rate) : rate;
		row->has_rate = true;
	}
	row->state = state_judge(row, show, has_moved, now_us);
}

static const struct top_row *row_find(const struct top *top, const char *model)
{
	for (size_t i = 0; i < top->count; i++) {
		if (strcmp(top->rows[i].model, model) == 0)
			return &top->rows[i];
	}
	return NULL;
}

int top_take(struct top *top, const json_t *shows, uint64_t now_us)
{
	struct top_row *rows = calloc(json_array_size(shows) + 1, sizeof(*rows));
	const json_t *show;
	size_t count = 0, i;

	if (!rows)
		return -ENOMEM;
	json_array_foreach(shows, i, show)
	{
		const char *model = json_string_value(json_object_get(show, "model"));

		if (model)
			row_take(&rows[count++], show, row_find(top, model), top->taken_us, now_us);
	}
	free(top->rows);
	*top = (struct top){.rows = rows, .count = count, .taken_us = now_us};
	return 0;
}

void top_finish(struct top *top)
{
	free(top->rows);
	*top = (struct top){0};
}

/* ---- order ---------------------------------------------------------------------------------------------------- */

struct order {
	enum top_key key;
	bool is_reversed;
};

static double row_number(const struct top_row *row, enum top_key key)
{
	switch (key) {
	case TOP_BY_MODEL:
		return 0;
	case TOP_BY_STATE:
		return -(double)row->state;
	case TOP_BY_STEP:
		return (double)row->step;
	case TOP_BY_RATE:
		return row->rate;
	case TOP_BY_LAG:
		return (double)row->lag;
	case TOP_BY_DRIFT:
		return row->drift;
	case TOP_BY_READERS:
		return (double)row->readers;
	case TOP_BY_MEMORY:
		return (double)row->memory_bytes;
	case TOP_BY_CHECKPOINT:
		return -(double)row->checkpoint_us; /* the oldest first */
	case TOP_KEY_COUNT:
		break;
	}
	return 0;
}

static int row_compare(const void *left, const void *right, void *context)
{
	const struct top_row *a = left, *b = right;
	const struct order *order = context;
	const double a_number = row_number(a, order->key), b_number = row_number(b, order->key);
	int result = a_number > b_number ? -1 : a_number < b_number ? 1 : strcmp(a->model, b->model);

	return order->is_reversed ? -result : result;
}

void top_sort(struct top *top, enum top_key key, bool is_reversed)
{
	struct order order = {.key = key, .is_reversed = is_reversed};

	if (top->count > 1)
		qsort_r(top->rows, top->count, sizeof(*top->rows), row_compare, &order);
}

/* ---- printing ------------------------------------------------------------------------------------------------- */

static enum table_style state_style(enum top_state state)
{
	switch (state) {
	case TOP_ERROR:
		return TABLE_BAD;
	case TOP_WAITING:
	case TOP_LAGGING:
		return TABLE_WARN;
	case TOP_RUNNING:
		return TABLE_GOOD;
	case TOP_NEW:
	case TOP_IDLE:
	case TOP_STATE_COUNT:
		break;
	}
	return TABLE_PLAIN;
}

static void real_cell(struct table *table, bool is_known, double value, int digits)
{
	table_cell(table, TABLE_PLAIN, "%s", is_known ? figure_real(value, digits).text : "-");
}

static void row_cells(struct table *table, const struct top_row *row, uint64_t now_us)
{
	table_cell(table, state_style(row->state), "%c", top_state_letter(row->state));
	table_cell(table, TABLE_PLAIN, "%s", row->model);
	if (row->has_step)
		table_cell(table, TABLE_PLAIN, "%" PRIu64, row->step);
	else
		table_cell(table, TABLE_PLAIN, "-");
	if (row->has_rate)
		table_cell(table, TABLE_PLAIN, "%.*f", row->rate < 100 ? 1 : 0, row->rate);
	else
		table_cell(table, TABLE_PLAIN, "-");
	table_cell(table, TABLE_PLAIN, "%" PRIu64, row->lag);
	real_cell(table, row->has_facts, row->decay, 6);
	real_cell(table, row->has_facts, row->drift, 4);
	table_cell(table, TABLE_PLAIN, "%" PRIu64 "/%" PRIu64, row->versions, row->readers);
	table_cell(table, TABLE_PLAIN, "%s", figure_bytes(row->memory_bytes).text);
	table_cell(table, TABLE_PLAIN, "%s", row->has_checkpoint ? figure_age_us(now_us, row->checkpoint_us).text : "-");
	table_cell(table, row->refused ? TABLE_BAD : TABLE_PLAIN, "%" PRIu64, row->refused);
	table_cell(table, TABLE_PLAIN, "%s", row->refusal[0] ? row->refusal : "-");
}

int top_print(const struct top *top, const char *filter, bool is_colour, FILE *stream)
{
	static const struct table_column COLUMNS[] = {
		{"S", false}, {"MODEL", false}, {"STEP", true}, {"STEPS/S", true}, {"LAG", true}, {"DECAY", false},
		{"DRIFT", false}, {"V/READ", true}, {"MEMORY", true}, {"CHECKPOINT", true}, {"REFUSED", true},
		{"LATEST TROUBLE", false},
	};
	struct table *table = table_create(COLUMNS, sizeof(COLUMNS) / sizeof(COLUMNS[0]));
	int code;

	for (size_t i = 0; i < top->count; i++) {
		if (!filter || strstr(top->rows[i].model, filter))
			row_cells(table, &top->rows[i], top->taken_us);
	}
	code = table_print(table, stream, is_colour);
	table_destroy(table);
	return code;
}

static void row_json(const struct top_row *row)
{
	printf("{\"model\":");
	output_json_string(row->model);
	printf(",\"state\":\"%c\",\"step\":", top_state_letter(row->state));
	printf(row->has_step ? "%" PRIu64 : "null", row->step);
	printf(",\"steps_per_s\":%s", row->has_rate ? figure_json_real(row->rate).text : "null");
	printf(",\"version\":%" PRIu64 ",\"lag\":%" PRIu64 ",\"decay\":%s", row->version, row->lag,
	       row->has_facts ? figure_json_real(row->decay).text : "null");
	printf(",\"drift\":%s,\"versions\":%" PRIu64 ",\"readers\":%" PRIu64,
	       row->has_facts ? figure_json_real(row->drift).text : "null", row->versions, row->readers);
	printf(",\"memory_bytes\":%" PRIu64 ",\"checkpoint_us\":", row->memory_bytes);
	printf(row->has_checkpoint ? "%" PRIu64 : "null", row->checkpoint_us);
	printf(",\"refused\":%" PRIu64 ",\"trouble\":", row->refused);
	if (row->refusal[0])
		output_json_string(row->refusal);
	else
		printf("null");
	printf("}\n");
}

void top_json(const struct top *top, const char *filter)
{
	for (size_t i = 0; i < top->count; i++) {
		if (!filter || strstr(top->rows[i].model, filter))
			row_json(&top->rows[i]);
	}
}
