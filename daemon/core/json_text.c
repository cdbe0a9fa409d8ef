/*
 * Measured first, then written in one piece. See json_text.h.
 */
#include "daemon/core/json_text.h"

#include <jansson.h>
#include <stdlib.h>

char *json_text(const struct json_t *root)
{
	size_t bytes = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
	char *text = bytes > 0 ? malloc(bytes + 1) : NULL;

	if (!text)
		return NULL;
	if (json_dumpb(root, text, bytes, JSON_COMPACT) != bytes) {
		free(text);
		return NULL;
	}
	text[bytes] = '\0';
	return text;
}
