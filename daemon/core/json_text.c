/*
 * Measured first, then written in one piece; read twice, and compared. See json_text.h.
 */
#include "daemon/core/json_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
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
