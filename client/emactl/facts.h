/*
 * Facts: what the daemon says in JSON, for people and for programs.
 *
 * Read tolerantly: a member that is missing or of an unexpected type is shown as "-", one that is not known is left to
 * --json, which passes everything on.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client/emactl/table.h"

enum fact_kind {
	FACT_TEXT,    /* a string; an array of strings or of objects with a name: joined by commas */
	FACT_INTEGER, /* in full; of an array or object: how many members */
	FACT_COUNT,   /* "25.6 M" */
	FACT_BYTES,   /* "12.0 MiB" */
	FACT_REAL,    /* 10 significant digits */
	FACT_MEASURE, /* 4 significant digits */
	FACT_MS,      /* a duration in milliseconds */
	FACT_AGE_US,  /* a time in microseconds since 1970: how long ago */
	FACT_RANKS,   /* "1/2": ranks_attached of world; the key is not used */
	FACT_YES,     /* a boolean */
	FACT_SHAPE,   /* [64, 3]; whole numbers */
	FACT_PAIRS,   /* an object: "ema=average swa=copy" */
};

struct fact {
	const char *title;
	const char *key;
	enum fact_kind kind;
	enum table_style unusual; /* how a value that is not zero (or ranks that are not all there) is shown */
};

/* The text of one member of object, cut to fit. now_us: wall clock, for ages. */
void fact_text(const json_t *object, const struct fact *fact, uint64_t now_us, char *text, size_t text_capacity);

/*
 * Prints rows (an array of objects; anything else counts as empty) as a table, one fact a column; returns 0 or
 * -ENOMEM.
 */
int facts_print_rows(const json_t *rows, const struct fact *facts, size_t fact_count, bool is_colour, FILE *stream);

/* Prints one object as lines of name and value. */
int facts_print_object(const json_t *object, const struct fact *facts, size_t fact_count, bool is_colour,
                       FILE *stream);

/* The object in a text, or NULL with the parser's complaint in complaint. The caller calls json_decref. */
json_t *facts_parse(const char *text, json_error_t *ret_complaint);

/* Writes JSON on one line, without spaces, reals with the fewest digits that read back the same. */
void facts_write(const json_t *value, FILE *stream);
