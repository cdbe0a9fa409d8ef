/*
 * Filling in. See placeholders.h.
 */
#include "client/emactl/placeholders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of "{name}" at text, and how many characters that is; NULL when it is none. */
static const char *value_find(const char *text, const struct placeholder *placeholders, size_t *ret_count)
{
	for (; placeholders->name; placeholders++) {
		const size_t bytes = strlen(placeholders->name);

		if (strncmp(text + 1, placeholders->name, bytes) == 0 && text[1 + bytes] == '}') {
			*ret_count = bytes + 2;
			return placeholders->value;
		}
	}
	return NULL;
}

/* Between single quotes the shell takes everything as it is but the quote itself. */
static void quoted_write(FILE *stream, const char *value)
{
	fputc('\'', stream);
	for (; *value; value++) {
		if (*value == '\'')
			fputs("'\\''", stream);
		else
			fputc(*value, stream);
	}
	fputc('\'', stream);
}

char *placeholders_fill(const char *command, const struct placeholder *placeholders)
{
	char *text = NULL;
	size_t bytes, count;
	FILE *stream = open_memstream(&text, &bytes);

	if (!stream)
		return NULL;
	for (const char *at = command; *at; at += count) {
		const char *value = NULL;

		count = 1;
		if (*at == '{' && (at == command || at[-1] != '$'))
			value = value_find(at, placeholders, &count);
		if (value)
			quoted_write(stream, value);
		else
			fputc(*at, stream);
	}
	if (fclose(stream) == 0)
		return text;
	free(text);
	return NULL;
}
