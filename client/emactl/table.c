/*
 * Aligned tables. One growing array of cells; the row of a cell is its index divided by the number of columns.
 */
#include "client/emactl/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_GAP = 2 }; /* spaces between columns */

struct cell {
	char *text; /* owned; already safe for a terminal */
	enum table_style style;
};

struct table {
	const struct table_column *columns; /* borrowed until table_destroy */
	size_t column_count;
	size_t cell_count;
	size_t cell_capacity;
	struct cell *cells; /* owned */
	bool is_short_of_memory;
};

/*
 * The bytes of the UTF-8 character at text, or 0 when it is malformed or steers a terminal: C0, DEL, C1 (which some
 * terminals obey like ESC), and the marks that reverse the direction of text.
 */
static size_t character_bytes(const unsigned char *text)
{
	static const uint32_t SMALLEST[5] = {0, 0, 0x80, 0x800, 0x10000};
	const size_t bytes = text[0] < 0x80 ? 1 : text[0] < 0xc0 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	uint32_t point;

	if (bytes <= 1)
		return text[0] >= 0x20 && text[0] < 0x7f ? bytes : 0;
	point = text[0] & (0x7fu >> bytes);
	for (size_t i = 1; i < bytes; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (text[i] & 0x3fu);
	}
	if (point < SMALLEST[bytes] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) || point < 0xa0)
		return 0;
	if ((point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069))
		return 0;
	return bytes;
}

/* In place: what is replaced never grows. */
static void text_make_safe(char *text)
{
	char *out = text;
	size_t bytes;

	while (*text) {
		bytes = character_bytes((const unsigned char *)text);
		if (bytes)
			memmove(out, text, bytes);
		else
			*out = '?';
		out += bytes ? bytes : 1;
		text += bytes ? bytes : 1;
	}
	*out = '\0';
}

void table_write_safe(FILE *stream, const char *text)
{
	size_t bytes;

	while (*text) {
		bytes = character_bytes((const unsigned char *)text);
		if (bytes)
			fwrite(text, 1, bytes, stream);
		else
			fputc('?', stream);
		text += bytes ? bytes : 1;
	}
}

static size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

struct table *table_create(const struct table_column *columns, size_t column_count)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->columns = columns;
	table->column_count = column_count;
	return table;
}

void table_destroy(struct table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->cell_count; i++)
		free(table->cells[i].text);
	free(table->cells);
	free(table);
}

static int table_reserve(struct table *table)
{
	const size_t capacity = table->cell_capacity ? 2 * table->cell_capacity : 64;
	struct cell *cells;

	if (table->cell_count < table->cell_capacity)
		return 0;
	cells = reallocarray(table->cells, capacity, sizeof(*cells));
	if (!cells)
		return -ENOMEM;
	table->cells = cells;
	table->cell_capacity = capacity;
	return 0;
}

void table_cell(struct table *table, enum table_style style, const char *format, ...)
{
	va_list arguments;
	char *text = NULL;
	int bytes = -1;

	if (!table || table->is_short_of_memory)
		return;
	if (table_reserve(table) == 0) {
		va_start(arguments, format);
		bytes = vasprintf(&text, format, arguments);
		va_end(arguments);
	}
	if (bytes < 0) {
		table->is_short_of_memory = true;
		return;
	}
	text_make_safe(text);
	table->cells[table->cell_count++] = (struct cell){.text = text, .style = style};
}

const char *table_style_begin(enum table_style style)
{
	switch (style) {
	case TABLE_PLAIN:
		return "";
	case TABLE_HEAD:
		return "\033[1m";
	case TABLE_GOOD:
		return "\033[32m";
	case TABLE_WARN:
		return "\033[33m";
	case TABLE_BAD:
		return "\033[31m";
	}
	return "";
}

const char *table_style_end(void)
{
	return "\033[0m";
}

/* One cell with its padding; the last of a row is not padded on the right, so that lines have no trailing spaces. */
static void cell_print(const struct cell *cell, bool is_right, bool is_last, size_t width, FILE *stream,
                       bool is_colour)
{
	const size_t own = text_width(cell->text);
	const int padding = (int)(width > own ? width - own : 0);
	const bool is_styled = is_colour && cell->style != TABLE_PLAIN;

	if (is_right && padding)
		fprintf(stream, "%*s", padding, "");
	fprintf(stream, "%s%s%s", is_styled ? table_style_begin(cell->style) : "", cell->text,
	        is_styled ? table_style_end() : "");
	if (!is_last)
		fprintf(stream, "%*s", TABLE_GAP + (is_right ? 0 : padding), "");
}

static void row_print(const struct table *table, const struct cell *cells, const size_t *widths, FILE *stream,
                      bool is_colour)
{
	for (size_t i = 0; i < table->column_count; i++)
		cell_print(&cells[i], table->columns[i].is_right, i + 1 == table->column_count, widths[i], stream,
		           is_colour);
	fputc('\n', stream);
}

int table_print(const struct table *table, FILE *stream, bool is_colour)
{
	struct cell *titles;
	size_t *widths, width;

	if (!table || table->is_short_of_memory)
		return -ENOMEM;
	widths = calloc(table->column_count, sizeof(*widths));
	titles = calloc(table->column_count, sizeof(*titles));
	if (!widths || !titles) {
		free(widths);
		free(titles);
		return -ENOMEM;
	}
	for (size_t i = 0; i < table->column_count && table->columns[0].title; i++) {
		/* The title is only read: cells of rows own their text, this one borrows it. */
		titles[i] = (struct cell){.text = (char *)table->columns[i].title, .style = TABLE_HEAD};
		widths[i] = text_width(titles[i].text);
	}
	for (size_t i = 0; i < table->cell_count; i++) {
		width = text_width(table->cells[i].text);
		if (width > widths[i % table->column_count])
			widths[i % table->column_count] = width;
	}
	if (table->columns[0].title)
		row_print(table, titles, widths, stream, is_colour);
	for (size_t i = 0; i + table->column_count <= table->cell_count && !ferror(stream); i += table->column_count)
		row_print(table, &table->cells[i], widths, stream, is_colour);
	free(widths);
	free(titles);
	return 0;
}
