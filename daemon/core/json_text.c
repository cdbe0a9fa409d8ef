/*
 * Measured first, then written in one piece; read twice, and compared. See json_text.h.
 */
#include "daemon/core/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
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

int json_text_parse(const char *text, size_t bytes, struct json_t **ret_root, struct reason *reason)
{
	json_error_t error;
	json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
	json_t *again = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
	void *room = root && again ? NULL : malloc(bytes + 1);
	bool is_wrong = !root && !again && room && error.text[0] && json_error_code(&error) != json_error_out_of_memory;

	free(room);
	if (root && again && json_equal(root, again)) {
		json_decref(again);
		*ret_root = root;
		return 0;
	}
	json_decref(root);
	json_decref(again);
	return is_wrong ? reason_set(reason, STATUS_EARGUMENT, "%s at byte %d", error.text, error.position) : -ENOMEM;
}
