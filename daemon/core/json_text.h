/*
 * JSON as text. jansson's own json_dumps (2.14) drops a piece of the text when it is out of memory and does not say so.
 */
#pragma once

struct json_t;

/* Compact; freed with free(). NULL when there is no memory, or no value. */
char *json_text(const struct json_t *root);
