/*
 * Facts. Every table of `list` and `show` is a list of (title, key, kind); this file knows the kinds.
 */
#include "client/emactl/facts.h"

#include "client/emactl/figure.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { FACT_BYTES_MAX = 1024, FACT_COLUMN_COUNT_MAX = 24 };

static const char NOTHING[] = "-";

/* A text that grows to the right and is cut where its buffer ends. */
struct line {
	char *text;
	size_t bytes;
	size_t capacity;
};

static void line_add(struct line *line, const char *text)
{
	const size_t room = line->capacity - line->bytes - 1, bytes = strlen(text);
	const size_t taken = bytes < room ? bytes : room;

	memcpy(line->text + line->bytes, text, taken);
	line->bytes += taken;
	line->text[line->bytes] = '\0';
}

static struct figure integer_figure(const json_t *value)
{
	struct figure figure;

	if (json_is_integer(value))
		snprintf(figure.text, sizeof(figure.text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_array(value) || json_is_object(value))
		snprintf(figure.text, sizeof(figure.text), "%zu",
		         json_is_array(value) ? json_array_size(value) : json_object_size(value));
	else if (json_is_real(value))
		return figure_real(json_real_value(value), 17);
	else
		snprintf(figure.text, sizeof(figure.text), "%s", NOTHING);
	return figure;
}

/* A scalar in words; "-" for anything else. */
static void line_add_scalar(struct line *line, const json_t *value)
{
	if (json_is_string(value))
		line_add(line, json_string_value(value));
	else if (json_is_boolean(value))
		line_add(line, json_is_true(value) ? "yes" : "no");
	else if (json_is_real(value))
		line_add(line, figure_real(json_real_value(value), 4).text);
	else
		line_add(line, json_is_integer(value) ? integer_figure(value).text : NOTHING);
}

static void line_add_list(struct line *line, const json_t *list, const char *separator)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		line_add(line, i ? separator : "");
		line_add_scalar(line, json_is_object(item) ? json_object_get(item, "name") : item);
	}
}

static void line_add_pairs(struct line *line, json_t *object)
{
	const char *key, *separator = "";
	json_t *value;

	json_object_foreach(object, key, value)
	{
		line_add(line, separator);
		line_add(line, key);
		line_add(line, "=");
		line_add_scalar(line, value);
		separator = " ";
	}
}

static void line_add_ranks(struct line *line, const json_t *object)
{
	line_add(line, integer_figure(json_object_get(object, "ranks_attached")).text);
	line_add(line, "/");
	line_add(line, integer_figure(json_object_get(object, "world")).text);
}

/* A count that may have been read as a real (see facts_parse); false when there is none. */
static bool unsigned_value(const json_t *value, uint64_t *ret_value)
{
	const double real = json_number_value(value);

	if (json_is_integer(value) && json_integer_value(value) >= 0)
		*ret_value = (uint64_t)json_integer_value(value);
	else if (json_is_real(value) && real >= 0 && real < 1.8e19)
		*ret_value = (uint64_t)real;
	else
		return false;
	return true;
}

static void line_add_amount(struct line *line, const json_t *value, enum fact_kind kind, uint64_t now_us)
{
	uint64_t amount;

	if (!unsigned_value(value, &amount))
		line_add(line, NOTHING);
	else if (kind == FACT_COUNT)
		line_add(line, figure_count(amount).text);
	else if (kind == FACT_BYTES)
		line_add(line, figure_bytes(amount).text);
	else if (kind == FACT_MS)
		line_add(line, figure_duration_us(amount < UINT64_MAX / 1000 ? amount * 1000 : UINT64_MAX).text);
	else
		line_add(line, figure_age_us(now_us, amount).text);
}

void fact_text(const json_t *object, const struct fact *fact, uint64_t now_us, char *text, size_t text_capacity)
{
	json_t *value = json_object_get(object, fact->key ? fact->key : "");
	struct line line = {.text = text, .capacity = text_capacity};

	*text = '\0';
	switch (fact->kind) {
	case FACT_TEXT:
		if (json_is_array(value))
			line_add_list(&line, value, ",");
		else
			line_add_scalar(&line, value);
		break;
	case FACT_INTEGER:
		line_add(&line, integer_figure(value).text);
		break;
	case FACT_COUNT:
	case FACT_BYTES:
	case FACT_MS:
	case FACT_AGE_US:
		line_add_amount(&line, value, fact->kind, now_us);
		break;
	case FACT_REAL:
	case FACT_MEASURE:
		line_add(&line, json_is_number(value)
		                        ? figure_real(json_number_value(value), fact->kind == FACT_REAL ? 10 : 4).text
		                        : NOTHING);
		break;
	case FACT_RANKS:
		line_add_ranks(&line, object);
		break;
	case FACT_YES:
		line_add_scalar(&line, json_is_boolean(value) ? value : NULL);
		break;
	case FACT_SHAPE:
		line_add(&line, json_is_array(value) ? "[" : NOTHING);
		line_add_list(&line, value, ",");
		line_add(&line, json_is_array(value) ? "]" : "");
		break;
	case FACT_PAIRS:
		line_add_pairs(&line, value);
		break;
	}
	if (line.bytes == 0)
		line_add(&line, NOTHING);
}

static enum table_style fact_style(const json_t *object, const struct fact *fact)
{
	const json_t *value = json_object_get(object, fact->key ? fact->key : "");

	const json_t *expected = json_object_get(object, "world");

	if (fact->kind == FACT_RANKS) {
		value = json_object_get(object, "ranks_attached");
		return value && expected && !json_equal(value, expected) ? fact->unusual : TABLE_PLAIN;
	}
	return json_is_number(value) && json_number_value(value) != 0 ? fact->unusual : TABLE_PLAIN;
}

static uint64_t wall_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool kind_is_right(enum fact_kind kind)
{
	return kind == FACT_INTEGER || kind == FACT_COUNT || kind == FACT_BYTES || kind == FACT_RANKS;
}

int facts_print_rows(const json_t *rows, const struct fact *facts, size_t fact_count, bool is_colour, FILE *stream)
{
	struct table_column columns[FACT_COLUMN_COUNT_MAX];
	const uint64_t now_us = wall_clock_us();
	char text[FACT_BYTES_MAX];
	struct table *table;
	const json_t *row;
	size_t i;
	int status;

	if (fact_count > FACT_COLUMN_COUNT_MAX)
		return -EINVAL;
	for (i = 0; i < fact_count; i++)
		columns[i] = (struct table_column){.title = facts[i].title, .is_right = kind_is_right(facts[i].kind)};
	table = table_create(columns, fact_count);
	json_array_foreach(rows, i, row)
	{
		for (size_t column = 0; column < fact_count; column++) {
			fact_text(row, &facts[column], now_us, text, sizeof(text));
			table_cell(table, fact_style(row, &facts[column]), "%s", text);
		}
	}
	status = table_print(table, stream, is_colour);
	table_destroy(table);
	return status;
}

int facts_print_object(const json_t *object, const struct fact *facts, size_t fact_count, bool is_colour, FILE *stream)
{
	static const struct table_column COLUMNS[2] = {{0}};
	struct table *table = table_create(COLUMNS, 2);
	const uint64_t now_us = wall_clock_us();
	char text[FACT_BYTES_MAX];
	int status;

	for (size_t i = 0; i < fact_count; i++) {
		fact_text(object, &facts[i], now_us, text, sizeof(text));
		table_cell(table, TABLE_HEAD, "%s", facts[i].title);
		table_cell(table, fact_style(object, &facts[i]), "%s", text);
	}
	status = table_print(table, stream, is_colour);
	table_destroy(table);
	return status;
}

json_t *facts_parse(const char *text, json_error_t *ret_complaint)
{
	json_t *value = json_loads(text, 0, ret_complaint);

	/* A whole number beyond 63 bits is no reason to show nothing. */
	if (!value && json_error_code(ret_complaint) == json_error_numeric_overflow)
		value = json_loads(text, JSON_DECODE_INT_AS_REAL, ret_complaint);
	if (value && !json_is_object(value)) {
		json_decref(value);
		snprintf(ret_complaint->text, sizeof(ret_complaint->text), "not a JSON object");
		return NULL;
	}
	return value;
}

static void write_string(const char *text, FILE *stream)
{
	json_t *string = json_string(text);

	if (!string || json_dumpf(string, stream, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) < 0)
		fputs("null", stream);
	json_decref(string);
}

/* Recursion ends at the parser's own limit of nesting. */
void facts_write(const json_t *value, FILE *stream)
{
	const char *key, *separator = "";
	json_t *item;
	size_t i;

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		fputc('{', stream);
		json_object_foreach((json_t *)value, key, item)
		{
			fputs(separator, stream);
			write_string(key, stream);
			fputc(':', stream);
			facts_write(item, stream);
			separator = ",";
		}
		fputc('}', stream);
		break;
	case JSON_ARRAY:
		fputc('[', stream);
		json_array_foreach(value, i, item)
		{
			fputs(i ? "," : "", stream);
			facts_write(item, stream);
		}
		fputc(']', stream);
		break;
	case JSON_STRING:
		write_string(json_string_value(value), stream);
		break;
	case JSON_INTEGER:
		fprintf(stream, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		break;
	case JSON_REAL:
		fputs(figure_json_real(json_real_value(value)).text, stream);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		fputs(json_is_true(value) ? "true" : "false", stream);
		break;
	case JSON_NULL:
		fputs("null", stream);
		break;
	}
}
