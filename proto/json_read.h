/*
 * Reading JSON in place: the strings, whole numbers and punctuation that a safetensors header consists of.
 *
 * The reader pulls what the format wants next, so there is no tree and no recursion: nesting that the format does not
 * have is refused where it begins, and memory is asked for by the caller alone, for strings that it keeps. A general
 * library was tried here: under a failing allocation it lost characters inside names and reported success.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

/* Plain value; the bytes are borrowed. */
struct json_read {
	const char *begin;
	const char *at;
	const char *end;
};

/* Bytes from the beginning to where reading stands. */
size_t json_read_offset(const struct json_read *reader);

/* Takes the character if it comes next, white space aside. */
bool json_read_take(struct json_read *reader, char c);

/* As json_read_take, but its absence is a failure: STATUS_ECORRUPT with a sentence that gives the offset. */
int json_read_expect(struct json_read *reader, char c, struct reason *reason);

/*
 * A string, decoded into text (terminated with NUL), which has capacity bytes. STATUS_ECORRUPT for anything else, for
 * bytes that are not UTF-8, for NUL, and where it does not fit.
 */
int json_read_string(struct json_read *reader, char *text, size_t capacity, struct reason *reason);

/* As json_read_string, into memory of its own (free with free()). STATUS_ECORRUPT beyond bytes_max; -ENOMEM. */
int json_read_string_copy(struct json_read *reader, size_t bytes_max, char **ret_text, struct reason *reason);

/* Steps over the value that comes next, whatever it is. STATUS_ECORRUPT where it does not end. */
int json_read_skip(struct json_read *reader, struct reason *reason);

/* A whole number without sign, fraction, exponent or leading zeros. STATUS_ECORRUPT for anything else. */
int json_read_number(struct json_read *reader, uint64_t *ret_number, struct reason *reason);
