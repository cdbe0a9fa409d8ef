/*
 * Aligned tables for people: cells are collected, widths measured, then everything is printed at once.
 *
 * Texts come from daemons and files, so whatever could steer a terminal (control characters, bytes that are not
 * UTF-8) is shown as '?'. Running out of memory while collecting is remembered and reported by table_print alone, so
 * that filling a table needs no checks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_style {
	TABLE_PLAIN,
	TABLE_HEAD, /* titles and names of fields */
	TABLE_GOOD,
	TABLE_WARN,
	TABLE_BAD,
};

struct table_column {
	const char *title; /* NULL in the first column: the table has no line of titles */
	bool is_right;     /* numbers */
};

struct table;

/* columns are borrowed until table_destroy. NULL when there is no memory; everything below accepts NULL. */
struct table *table_create(const struct table_column *columns, size_t column_count);
void table_destroy(struct table *table);

/* Adds the next cell, row by row. */
void table_cell(struct table *table, enum table_style style, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* 0, or -ENOMEM when cells were lost (nothing is printed then). Errors of the stream are the stream's. */
int table_print(const struct table *table, FILE *stream, bool is_colour);

/* Writes a text with what could steer a terminal replaced by '?'. */
void table_write_safe(FILE *stream, const char *text);

/* The escape sequence that begins a style, and the one that ends any. */
const char *table_style_begin(enum table_style style);
const char *table_style_end(void);
