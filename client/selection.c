/*
 * Names and patterns. See selection.h.
 */
#include "client/selection.h"

#include "proto/nearest.h"
#include "proto/profile.h"
#include "proto/sentence.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_pattern(const char *text)
{
	return text[strcspn(text, "*?[")];
}

/* How far a name is from a pattern: its beginning from what is in front of the first sign, or its end from what is behind. */
static unsigned pattern_distance(const char *pattern, const char *name)
{
	const size_t head_bytes = strcspn(pattern, "*?["), name_bytes = strlen(name);
	const char *tail = pattern + head_bytes;
	char a[NEAREST_BYTES_MAX + 1], b[NEAREST_BYTES_MAX + 1];

	if (head_bytes > 0) {
		snprintf(a, sizeof(a), "%.*s", (int)head_bytes, pattern);
		snprintf(b, sizeof(b), "%.*s", (int)head_bytes, name);
		return edit_distance(a, b);
	}
	while (tail[strcspn(tail, "*?[]")])
		tail += strcspn(tail, "*?[]") + 1;
	return edit_distance(tail, strlen(tail) < name_bytes ? name + name_bytes - strlen(tail) : name);
}

static const char *text_nearest(const struct safetensors *tensors, const char *text)
{
	unsigned nearest_distance = UINT_MAX;
	const char *nearest = NULL;

	for (uint32_t i = 0; i < tensors->entry_count; i++) {
		const char *name = tensors->entries[i].name;
		unsigned distance = is_pattern(text) ? pattern_distance(text, name) : edit_distance(text, name);

		if (distance < nearest_distance) {
			nearest_distance = distance;
			nearest = name;
		}
	}
	return nearest;
}

static int text_unknown(const struct safetensors *tensors, const char *text, const char *model, struct reason *reason)
{
	const char *nearest = text_nearest(tensors, text);

	return reason_set(reason, -ENOENT, "model '%s' has no tensor %s'%.*s' in this profile%s%.*s%s", model,
	                  is_pattern(text) ? "that matches " : "", sentence_name_bytes(text), text,
	                  nearest ? "; the nearest is '" : "", nearest ? sentence_name_bytes(nearest) : 0,
	                  nearest ? nearest : "", nearest ? "'" : "");
}

/* Whether it is meant for any. */
static bool text_choose(const struct safetensors *tensors, const char *text, bool *chosen)
{
	const struct safetensors_entry *entry = safetensors_find(tensors, text);
	bool is_any = false;

	if (entry) {
		chosen[entry - tensors->entries] = true;
		return true;
	}
	for (uint32_t i = 0; is_pattern(text) && i < tensors->entry_count; i++) {
		if (!pattern_matches(text, tensors->entries[i].name))
			continue;
		chosen[i] = true;
		is_any = true;
	}
	return is_any;
}

int selection_create(const struct safetensors *tensors, const char *const *texts, size_t text_count, const char *model,
                     bool **ret_chosen, struct reason *reason)
{
	bool *chosen = calloc((size_t)tensors->entry_count + 1, sizeof(*chosen));
	int code = 0;

	if (!chosen)
		return -ENOMEM;
	for (size_t i = 0; i < text_count && code == 0; i++) {
		if (!texts[i])
			code = reason_set(reason, STATUS_EARGUMENT, "tensor %zu of %zu is NULL", i, text_count);
		else if (!text_choose(tensors, texts[i], chosen))
			code = text_unknown(tensors, texts[i], model, reason);
	}
	if (code) {
		free(chosen);
		return code;
	}
	*ret_chosen = chosen;
	return 0;
}
