/*
 * Checking attributes with jansson. See attributes.h.
 */
#include "daemon/core/attributes.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/json_text.h"
#include "proto/limits.h"

static int object_parse(const char *what, size_t bytes_max, const char *text, size_t bytes, char **ret_json,
                        struct reason *reason)
{
	struct reason why = { "" };
	json_t *root = NULL;
	char *json;
	int error;

	if (bytes > bytes_max)
		return reason_set(reason, STATUS_ELIMIT, "the %s are %zu bytes of JSON, and the limit is %zu", what,
		                  bytes, bytes_max);
	error = json_text_parse(text, bytes, &root, &why);
	if (error == STATUS_EARGUMENT)
		return reason_set(reason, error, "the %s are not valid JSON: %s", what, why.text);
	if (error)
		return error;
	if (!json_is_object(root)) {
		json_decref(root);
		return reason_set(reason, STATUS_EARGUMENT, "the %s must be a JSON object, {\"name\": value, ...}",
		                  what);
	}
	json = json_text(root);
	json_decref(root);
	if (!json)
		return -ENOMEM;
	if (strlen(json) > bytes_max) {
		int result = reason_set(reason, STATUS_ELIMIT, "the %s are %zu bytes of JSON, and the limit is %zu",
		                        what, strlen(json), bytes_max);

		free(json);
		return result;
	}
	*ret_json = json;
	return 0;
}

int attributes_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason)
{
	return object_parse("attributes", ATTRIBUTES_BYTES_MAX, text, bytes, ret_json, reason);
}

int metadata_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason)
{
	return object_parse("metadata", METADATA_BYTES_MAX, text, bytes, ret_json, reason);
}
