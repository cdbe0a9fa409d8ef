/*
 * top: all models at a glance, once or until one has seen enough.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/figure.h"
#include "client/emactl/screen.h"
#include "client/emactl/table.h"
#include "client/emactl/top_rows.h"
#include "proto/number.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { TOP_ONCE, TOP_SORT, TOP_REVERSE, TOP_FILTER, TOP_INTERVAL };

enum {
	ANSWER_MS_MAX = 2000, /* the screen must not stand still for long */
	FILTER_BYTES = 64,
	LINE_COUNT_MAX = 4096,
	HEAD_LINES = 2,
};

static const struct command_option TOP_OPTIONS[] = {
	[TOP_ONCE] = {"once", '1', NULL, "print the table once and end"},
	[TOP_SORT] = {"sort", 'k', "KEY", "model, state, step, rate, lag, drift, readers, memory or checkpoint"},
	[TOP_REVERSE] = {"reverse", 'r', NULL, "the other way round"},
	[TOP_FILTER] = {"filter", 'f', "TEXT", "only models whose names hold TEXT"},
	[TOP_INTERVAL] = {"interval", 'i', "SECONDS", "from one look to the next, 0.1 to 3600 (default: 1)"},
	{0},
};

struct show {
	const struct emactl *emactl;
	struct emad_client *client;
	struct screen *screen; /* NULL: once */
	struct top top;
	enum top_key key;
	bool is_reversed;
	char filter[FILTER_BYTES];
	bool is_filter_typed, is_help_shown;
	size_t first; /* row at the top */
	int interval_ms;
	char title[256];
	char trouble[512]; /* why the latest look failed; "" */
};

static uint64_t wall_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

/* Takes the JSON over. NULL when it is none. */
static json_t *answer_parse(char *json)
{
	json_error_t complaint;
	json_t *answer = json ? facts_parse(json, &complaint) : NULL;

	emad_free(json);
	return answer;
}

static int answer_ms(const struct show *show)
{
	return show->emactl->timeout_ms < ANSWER_MS_MAX || !show->screen ? show->emactl->timeout_ms : ANSWER_MS_MAX;
}

/* Each model of the list in full, but for those that are gone meanwhile. */
static int shows_ask(const struct show *show, const json_t *models, json_t *shows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(models, i, row)
	{
		const char *model = json_string_value(json_object_get(row, "model"));
		char *json = NULL;
		json_t *answer;
		int code = model ? emad_show_json(show->client, model, answer_ms(show), &json) : EMAD_ENOMODEL;

		if (code == EMAD_ENOMODEL)
			continue;
		answer = code ? NULL : answer_parse(json);
		if (code)
			return code;
		/* By far the most of it, and not needed. */
		json_object_del(answer, "tensors");
		if (answer && json_array_append_new(shows, answer) < 0)
			return EMAD_EMEMORY;
	}
	return 0;
}

static void title_make(struct show *show, const json_t *status, size_t model_count)
{
	const char *agent = json_string_value(json_object_get(status, "agent"));
	const json_int_t uptime_ms = json_integer_value(json_object_get(status, "uptime_ms"));
	const json_int_t memory = json_integer_value(json_object_get(status, "memory_bytes"));
	const json_int_t memory_max = json_integer_value(json_object_get(status, "memory_bytes_max"));

	snprintf(show->title, sizeof(show->title), "%s, up %s, %zu models, %s of %s", agent ? agent : "emad",
	         figure_duration_us((uint64_t)(uptime_ms > 0 ? uptime_ms : 0) * 1000).text, model_count,
	         figure_bytes((uint64_t)(memory > 0 ? memory : 0)).text,
	         figure_bytes((uint64_t)(memory_max > 0 ? memory_max : 0)).text);
}

/* One look. A code of the library; what was seen before stays then. */
static int look(struct show *show)
{
	json_t *status = NULL, *list = NULL, *shows = json_array();
	char *json = NULL;
	int code = shows ? emad_status_json(show->client, answer_ms(show), &json) : EMAD_EMEMORY;

	if (!code) {
		status = answer_parse(json);
		json = NULL;
		code = emad_list_json(show->client, answer_ms(show), &json);
	}
	if (!code) {
		list = answer_parse(json);
		code = shows_ask(show, json_object_get(list, "models"), shows);
	}
	if (!code && top_take(&show->top, shows, wall_clock_us()) < 0)
		code = EMAD_EMEMORY;
	if (!code) {
		top_sort(&show->top, show->key, show->is_reversed);
		title_make(show, status, show->top.count);
	}
	json_decref(status);
	json_decref(list);
	json_decref(shows);
	return code;
}

/* ---- the screen ----------------------------------------------------------------------------------------------- */

static enum screen_style row_style(const char *line)
{
	switch (line[0]) {
	case 'E':
		return SCREEN_BAD;
	case 'W':
	case 'L':
		return SCREEN_WARN;
	case 'R':
		return SCREEN_GOOD;
	default:
		return SCREEN_PLAIN;
	}
}

static size_t help_lines(struct screen_line *lines, char texts[][128])
{
	static const struct {
		const char *key, *text;
	} KEYS[] = {
		{"q", "ends"},          {"? h", "this page, and back"},       {"up down", "moves, also page up and page down"},
		{"/", "filters by name; an empty one shows all"}, {"R", "turns the order around"},
	};
	static const struct {
		char key;
		const char *title;
	} ORDERS[] = {
#define X(name, key, title) {key, title},
		TOP_KEYS(X)
#undef X
	};
	size_t count = 0;

	for (size_t i = 0; i < sizeof(KEYS) / sizeof(KEYS[0]); i++, count++)
		snprintf(texts[count], sizeof(texts[0]), "  %-8s  %s", KEYS[i].key, KEYS[i].text);
	for (size_t i = 0; i < sizeof(ORDERS) / sizeof(ORDERS[0]); i++, count++)
		snprintf(texts[count], sizeof(texts[0]), "  %-8c  sorts by %s", ORDERS[i].key, ORDERS[i].title);
	for (int i = 0; i < TOP_STATE_COUNT; i++, count++)
		snprintf(texts[count], sizeof(texts[0]), "  state %c   %s", top_state_letter((enum top_state)i),
		         top_state_text((enum top_state)i));
	for (size_t i = 0; i < count; i++)
		lines[i] = (struct screen_line){.text = texts[i]};
	return count;
}

/* Cuts a text into lines where it lies. */
static size_t lines_split(char *text, struct screen_line *lines, size_t count_max)
{
	size_t count = 0;

	for (char *at = text; *at && count < count_max;) {
		char *end = strchrnul(at, '\n');
		const bool is_last = !*end;

		*end = '\0';
		lines[count] = (struct screen_line){.text = at, .style = count ? row_style(at) : SCREEN_BAR};
		count++;
		at = is_last ? end : end + 1;
	}
	return count;
}

static const char *bottom_text(const struct show *show, char text[256])
{
	if (show->is_filter_typed)
		snprintf(text, 256, "filter: %s_", show->filter);
	else
		snprintf(text, 256, "q quit  ? help  / filter%s%s  sorted by %s%s", show->filter[0] ? ": " : "", show->filter,
		         top_key_titles()[show->key], show->is_reversed ? ", reversed" : "");
	return text;
}

/* Rows begin at the one that was scrolled to; the line of titles stays. */
static void rows_draw(struct show *show, const char *bottom)
{
	static const size_t FIXED = HEAD_LINES + 1;
	struct screen_line *lines = calloc(LINE_COUNT_MAX, sizeof(*lines));
	char *text = NULL;
	size_t bytes, count, height = screen_height(show->screen), rows;
	FILE *stream = open_memstream(&text, &bytes);

	if (!lines || !stream) {
		if (stream)
			fclose(stream);
		free(text);
		free(lines);
		return;
	}
	top_print(&show->top, show->filter[0] ? show->filter : NULL, false, stream);
	fclose(stream);
	lines[0] = (struct screen_line){.text = show->title, .style = SCREEN_TITLE};
	lines[1] = (struct screen_line){.text = show->trouble, .style = SCREEN_BAD};
	count = text ? lines_split(text, lines + HEAD_LINES, LINE_COUNT_MAX - HEAD_LINES) : 0;
	rows = count > 0 ? count - 1 : 0;
	if (height > FIXED && show->first + (height - FIXED - 1) > rows)
		show->first = rows > height - FIXED - 1 ? rows - (height - FIXED - 1) : 0;
	memmove(lines + FIXED, lines + FIXED + show->first, (LINE_COUNT_MAX - FIXED - show->first) * sizeof(*lines));
	screen_draw(show->screen, lines, HEAD_LINES + count - (count ? show->first : 0), bottom);
	free(text);
	free(lines);
}

static void show_draw(struct show *show)
{
	struct screen_line lines[64];
	char texts[64][128], bottom[256];

	if (show->is_help_shown)
		screen_draw(show->screen, lines, help_lines(lines, texts), "? goes back");
	else
		rows_draw(show, bottom_text(show, bottom));
}

static void filter_type(struct show *show, int key)
{
	const size_t bytes = strlen(show->filter);

	if (key == '\n' || key == '\r' || key == 27)
		show->is_filter_typed = false;
	else if (key == SCREEN_ERASE && bytes > 0)
		show->filter[bytes - 1] = '\0';
	else if (key > ' ' && key < 127 && bytes + 1 < sizeof(show->filter))
		show->filter[bytes] = (char)key;
}

static void order_choose(struct show *show, int key)
{
	static const char LETTERS[] = {
#define X(name, letter, title) letter,
		TOP_KEYS(X)
#undef X
	};

	for (size_t i = 0; i < sizeof(LETTERS); i++) {
		if (key == LETTERS[i])
			show->key = (enum top_key)i;
	}
	show->is_reversed ^= key == 'R';
	top_sort(&show->top, show->key, show->is_reversed);
}

/* False: the end. */
static bool key_take(struct show *show, int key)
{
	const size_t page = screen_height(show->screen) / 2;

	if (key == SCREEN_END)
		return false;
	if (show->is_filter_typed) {
		filter_type(show, key);
		return true;
	}
	switch (key) {
	case 'q':
	case 'Q':
		return false;
	case '?':
	case 'h':
		show->is_help_shown = !show->is_help_shown;
		break;
	case '/':
		show->is_filter_typed = true;
		show->filter[0] = '\0';
		break;
	case SCREEN_UP:
	case SCREEN_PAGE_UP:
		show->first -= show->first < (key == SCREEN_UP ? 1 : page) ? show->first : key == SCREEN_UP ? 1 : page;
		break;
	case SCREEN_DOWN:
	case SCREEN_PAGE_DOWN:
		show->first += key == SCREEN_DOWN ? 1 : page;
		break;
	default:
		order_choose(show, key);
	}
	return true;
}

static void trouble_note(struct show *show, int code)
{
	show->trouble[0] = '\0';
	if (code == EMAD_EAWAY || code == EMAD_ESHUTDOWN || code == EMAD_ETIMEOUT)
		snprintf(show->trouble, sizeof(show->trouble), "away: the daemon does not answer; what was seen %s",
		         figure_age_us(wall_clock_us(), show->top.taken_us).text);
	else if (code)
		snprintf(show->trouble, sizeof(show->trouble), "%s", emad_error());
}

static int screen_run(struct show *show)
{
	const int code = screen_open(show->emactl->is_colour, &show->screen);
	int64_t next_ms = 0;
	int key;

	if (code)
		return output_error(show->emactl, code, "this terminal cannot be used (TERM=%s); --once prints the table",
		                    getenv("TERM") ? getenv("TERM") : "");
	do {
		if (clock_ms() >= next_ms) {
			trouble_note(show, look(show));
			next_ms = clock_ms() + show->interval_ms;
		}
		show_draw(show);
		key = screen_key(show->screen, (int)(next_ms > clock_ms() ? next_ms - clock_ms() : 0));
	} while (key_take(show, key));
	screen_close(show->screen);
	return EX_OK;
}

/* ---- once ----------------------------------------------------------------------------------------------------- */

/* Two looks, because rates need two. */
static int once_run(struct show *show)
{
	const struct emactl *emactl = show->emactl;
	const char *filter = show->filter[0] ? show->filter : NULL;
	int code = look(show);

	if (!code && show->top.count > 0) {
		nanosleep(&(struct timespec){.tv_sec = show->interval_ms / 1000,
		                             .tv_nsec = show->interval_ms % 1000 * 1000000L},
		          NULL);
		code = look(show);
	}
	if (code)
		return output_library_error(emactl, code);
	if (emactl->is_json) {
		top_json(&show->top, filter);
		return EX_OK;
	}
	if (!emactl->is_quiet) {
		table_write_safe(stdout, show->title);
		printf("\n");
	}
	if (show->top.count > 0 && top_print(&show->top, filter, emactl->is_colour, stdout) < 0)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory to print the table");
	return EX_OK;
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

static int options_read(struct show *show)
{
	const struct emactl *emactl = show->emactl;
	const char *sort = emactl->values[TOP_SORT], *filter = emactl->values[TOP_FILTER];
	const char *interval = emactl->values[TOP_INTERVAL], *nearest;
	double seconds = 1;

	if (sort && !top_key_parse(sort, &show->key)) {
		nearest = arguments_nearest(sort, top_key_titles());
		return output_error(emactl, EMAD_EARGUMENT, "--sort does not know '%s'; %s%s%s", sort,
		                    nearest ? "did you mean '" : "'emactl top --help' lists all", nearest ? nearest : "",
		                    nearest ? "'?" : "");
	}
	if (filter && strlen(filter) >= sizeof(show->filter))
		return output_error(emactl, EMAD_EARGUMENT, "--filter takes at most %d bytes, not %zu", FILTER_BYTES - 1,
		                    strlen(filter));
	if (interval && !(number_parse(interval, &seconds) && seconds >= 0.1 && seconds <= 3600))
		return output_error(emactl, EMAD_EARGUMENT, "--interval takes seconds from 0.1 to 3600, not '%s'", interval);
	snprintf(show->filter, sizeof(show->filter), "%s", filter ? filter : "");
	show->is_reversed = emactl->values[TOP_REVERSE] != NULL;
	show->interval_ms = (int)ceil(seconds * 1000);
	return 0;
}

static int top_run(struct emactl *emactl)
{
	const bool is_once = emactl->values[TOP_ONCE] || emactl->is_json || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO);
	struct show show = {.emactl = emactl};
	int status = options_read(&show);

	if (!status)
		status = ask_connect(emactl, &show.client);
	if (status)
		return status;
	status = is_once ? once_run(&show) : screen_run(&show);
	top_finish(&show.top);
	emad_client_close(show.client);
	return status;
}

const struct command COMMAND_TOP = {
	.name = "top",
	.arguments = "",
	.summary = "watch all models at a glance",
	.text = "Shows all models in a table that is renewed every second, until q is typed; ? lists the keys. Where\n"
		"the output or the input is no terminal, and with --once or --json, it looks twice, --interval apart,\n"
		"prints the table once and ends.\n"
		"  S           R running: versions come         I idle: none for ten seconds\n"
		"              W waits for a rank that is missing\n"
		"              L lagging: every stage of a rank is full, its trainer has to wait\n"
		"              N new: no snapshot has been applied yet\n"
		"              E erring: a snapshot was refused in the last ten seconds, values of the average are not\n"
		"                finite, or a checkpoint or snapshot could not be written\n"
		"  STEP        the trainer's step in the newest version, and how many come in a second\n"
		"  LAG         snapshots accepted but not applied yet\n"
		"  DECAY       of the first profile's last update, and its DRIFT: how far the weights were from it\n"
		"  V/READ      versions in memory, and readers that have one open\n"
		"  CHECKPOINT  how long ago the newest one was written\n"
		"  REFUSED     snapshots that were refused, and the latest sentence about one, or about a file\n"
		"When the daemon is away the table stays, and says so; it goes on when the daemon is back.\n"
		"\nJSON: one object a line: model, state (the letter), step, steps_per_s, version, lag, decay, drift,\n"
		"versions, readers, memory_bytes, checkpoint_us (since 1970), refused, trouble; null where unknown.\n",
	.options = TOP_OPTIONS,
	.examples = "  emactl top\n"
		    "  emactl top --sort lag --filter run42\n"
		    "  emactl top -1 | head\n"
		    "  emactl top --json | jq -r 'select(.state == \"E\").model'\n",
	.exits = "  0   done\n"
		 "  64  the command line is wrong\n"
		 "  69  the daemon could not be reached at the start\n"
		 "  75  it did not answer in time\n"
		 "  77  its socket may not be used by this user\n",
	.run = top_run,
};
