/*
 * Measured first, then written in one piece. See json_text.h.
 */
#include "daemon/core/json_text.h"

#include <jansson.h>
#include <stdlib.h>

static char *text_make(const struct json_t *root, size_t flags)
{
	size_t bytes = root ? json_dumpb(root, NULL, 0, flags) : 0;
	char *text = bytes > 0 ? malloc(bytes + 1) : NULL;

	if (!text)
		return NULL;
	if (json_dumpb(root, text, bytes, flags) != bytes) {
		free(text);
		return NULL;
	}
	text[bytes] = '\0';
	return text;
}

char *json_text(const struct json_t *root)
{
	return text_make(root, JSON_COMPACT);
}

char *json_text_ascii(const struct json_t *root)
{
	return text_make(root, JSON_COMPACT | JSON_ENSURE_ASCII);
}
