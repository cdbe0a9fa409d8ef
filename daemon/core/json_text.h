/*
 * JSON as text. jansson's own json_dumps (2.14) drops a piece of the text when it is out of memory and does not say so.
 */
#pragma once

struct json_t;

/* Compact; freed with free(). NULL when there is no memory, or no value. */
char *json_text(const struct json_t *root);

/*
 * The same for what is shown: characters beyond ASCII are escaped, because among them are some that a terminal obeys
 * (U+009B begins a control sequence) or that turn a line around (U+202E).
 */
char *json_text_ascii(const struct json_t *root);
