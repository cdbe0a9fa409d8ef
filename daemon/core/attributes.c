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

int attributes_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason)
{
	json_error_t error;
	json_t *root;
	char *json;

	if (bytes > ATTRIBUTES_BYTES_MAX)
		return reason_set(reason, STATUS_ELIMIT, "the attributes are %zu bytes of JSON, and the limit is %d", bytes,
		                  ATTRIBUTES_BYTES_MAX);
	root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
	/* Where jansson has no memory it mostly has no words either. */
	if (!root && error.text[0] == '\0')
		return -ENOMEM;
	if (!root)
		return reason_set(reason, STATUS_EARGUMENT, "the attributes are not valid JSON: %s at byte %d", error.text,
		                  error.position);
	if (!json_is_object(root)) {
		json_decref(root);
		return reason_set(reason, STATUS_EARGUMENT, "the attributes must be a JSON object, {\"name\": value, ...}");
	}
	json = json_text(root);
	json_decref(root);
	if (!json)
		return -ENOMEM;
	if (strlen(json) > ATTRIBUTES_BYTES_MAX) {
		int result = reason_set(reason, STATUS_ELIMIT, "the attributes are %zu bytes of JSON, and the limit is %d",
		                        strlen(json), ATTRIBUTES_BYTES_MAX);

		free(json);
		return result;
	}
	*ret_json = json;
	return 0;
}
