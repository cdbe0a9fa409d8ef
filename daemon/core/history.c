/*
 * Appending with jansson. See history.h.
 */
#include "daemon/core/history.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/json_text.h"
#include "proto/limits.h"

static json_t *entry_make(const struct history_entry *entry)
{
	json_t *object = json_pack("{s:I, s:I, s:s}", "step", (json_int_t)entry->step, "updates",
	                           (json_int_t)entry->updates, "change", entry->change);

	if (object && entry->from && json_object_set_new(object, "from", json_string(entry->from)) != 0) {
		json_decref(object);
		return NULL;
	}
	if (object && entry->to && json_object_set_new(object, "to", json_string(entry->to)) != 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

int history_append(char **history, const struct history_entry *entry)
{
	json_t *array = *history ? json_loads(*history, 0, NULL) : json_array();
	json_t *object = entry_make(entry);
	char *text = NULL;

	/* Takes the object in any case. */
	if (array && json_array_append_new(array, object) == 0)
		text = json_text(array);
	else if (!array)
		json_decref(object);
	while (text && strlen(text) > HISTORY_BYTES_MAX && json_array_size(array) > 1) {
		free(text);
		text = json_array_remove(array, 0) == 0 ? json_text(array) : NULL;
	}
	json_decref(array);
	if (!text)
		return -ENOMEM;
	free(*history);
	*history = text;
	return 0;
}
