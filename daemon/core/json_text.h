/*
 * JSON as text, and back, where memory may be short. jansson (2.14) does not say so: json_dumps drops a piece of the text,
 * and json_loadb calls the text wrong, or drops a character of a string.
 */
#pragma once

#include <stddef.h>

#include "proto/status.h"

struct json_t;

/* Compact; freed with free(). NULL when there is no memory, or no value. */
char *json_text(const struct json_t *root);

/*
 * The same for what is shown: characters beyond ASCII are escaped, because among them are some that a terminal obeys
 * (U+009B begins a control sequence) or that turn a line around (U+202E).
 */
char *json_text_ascii(const struct json_t *root);

/*
 * Any value; one member twice in an object is refused. -ENOMEM, or STATUS_EARGUMENT with what is wrong, and where
 * ("... at byte 6").
 */
int json_text_parse(const char *text, size_t bytes, struct json_t **ret_root, struct reason *reason);
