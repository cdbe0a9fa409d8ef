/*
 * Names: what a model, a profile and a tensor may be called, and canonical tensor names.
 *
 * A model's name becomes a path below the state directory, so its alphabet is the one in which no path can surprise:
 * no separators but '/', no "..", nothing that a shell or a terminal would take for something else. Tensor names come
 * from other people's code and stay free, except for what would garble a log line or a JSON header.
 */
#include "proto/name.h"

#include "proto/limits.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A name as it stands in a sentence: escaped, and cut where it would fill the sentence. */
struct name_shown {
	char text[200];
};

static struct name_shown name_show(const char *name, size_t bytes)
{
	struct name_shown shown;
	size_t used = 0;

	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)name[i];

		if (used + sizeof("\\xff...") > sizeof(shown.text)) {
			memcpy(shown.text + used, "...", 3);
			used += 3;
			break;
		}
		if (c >= ' ' && c < 0x7f && c != '\\')
			shown.text[used++] = (char)c;
		else
			used += (size_t)snprintf(shown.text + used, sizeof(shown.text) - used, "\\x%02x", c);
	}
	shown.text[used] = '\0';
	return shown;
}

static int name_size_check(const char *what, const char *name, size_t bytes, size_t bytes_max, struct reason *reason)
{
	if (bytes == 0)
		return reason_set(reason, STATUS_ENAME, "the %s name is empty", what);
	if (bytes > bytes_max)
		return reason_set(reason, STATUS_ENAME, "%s name '%s' has %zu bytes, at most %zu are allowed", what,
		                  name_show(name, bytes).text, bytes, bytes_max);
	return 0;
}

static bool is_name_character(char c)
{
	/* Not isalnum(): that one follows the locale. */
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("._@+=-", c) != NULL);
}

/* One part, between slashes; name and name_bytes are the whole, for the sentence. */
static int part_check(const char *what, const char *part, size_t part_bytes, const char *name, size_t name_bytes,
                      struct reason *reason)
{
	for (size_t i = 0; i < part_bytes; i++) {
		if (!is_name_character(part[i]))
			return reason_set(reason, STATUS_ENAME,
			                  "%s name '%s': '%s' at offset %zu is not one of A-Z a-z 0-9 . _ @ + = -",
			                  what, name_show(name, name_bytes).text, name_show(part + i, 1).text,
			                  (size_t)(part - name) + i);
	}
	if (part_bytes == 0)
		return reason_set(reason, STATUS_ENAME, "%s name '%s' has an empty part (a '/' too many)", what,
		                  name_show(name, name_bytes).text);
	if (part[0] == '.' && (part_bytes == 1 || (part_bytes == 2 && part[1] == '.')))
		return reason_set(reason, STATUS_ENAME, "%s name '%s' has a part '%.*s', which means a directory", what,
		                  name_show(name, name_bytes).text, (int)part_bytes, part);
	return 0;
}

int model_name_check(const char *name, size_t bytes, struct reason *reason)
{
	int r = name_size_check("model", name, bytes, MODEL_NAME_BYTES_MAX, reason);
	size_t begin = 0;

	if (r != 0)
		return r;
	for (size_t end = 0; end <= bytes; end++) {
		if (end < bytes && name[end] != '/')
			continue;
		r = part_check("model", name + begin, end - begin, name, bytes, reason);
		if (r != 0)
			return r;
		begin = end + 1;
	}
	return 0;
}

int profile_name_check(const char *name, size_t bytes, struct reason *reason)
{
	int r = name_size_check("profile", name, bytes, PROFILE_NAME_BYTES_MAX, reason);

	if (r == 0 && memchr(name, '=', bytes))
		return reason_set(reason, STATUS_ENAME, "profile name '%s' has a '=', which divides name and schedule",
		                  name_show(name, bytes).text);
	return r != 0 ? r : part_check("profile", name, bytes, name, bytes, reason);
}

/* Whether the sequence at text, inside valid UTF-8, is a control character: C0, DEL or C1 (U+0080..U+009F). */
static bool is_control(const unsigned char *text, size_t left)
{
	return text[0] < ' ' || text[0] == 0x7f || (text[0] == 0xc2 && left > 1 && text[1] < 0xa0);
}

int tensor_name_check(const char *name, size_t bytes, struct reason *reason)
{
	int r = name_size_check("tensor", name, bytes, TENSOR_NAME_BYTES_MAX, reason);
	const unsigned char *text = (const unsigned char *)name;

	if (r != 0)
		return r;
	if (!utf8_check(name, bytes))
		return reason_set(reason, STATUS_ENAME, "tensor name '%s' is not UTF-8", name_show(name, bytes).text);
	for (size_t i = 0; i < bytes; i++) {
		if (is_control(text + i, bytes - i))
			return reason_set(reason, STATUS_ENAME,
			                  "tensor name '%s' has a control character at offset %zu",
			                  name_show(name, bytes).text, i);
	}
	if (bytes == strlen("__metadata__") && memcmp(name, "__metadata__", bytes) == 0)
		return reason_set(reason, STATUS_ENAME,
		                  "tensor name '__metadata__' is the safetensors format's own; rename the tensor");
	return 0;
}

static bool is_wrapper(const char *part, size_t bytes)
{
	static const char *const wrappers[] = {"module", "_orig_mod", "_fsdp_wrapped_module",
	                                       "_checkpoint_wrapped_module"};

	for (size_t i = 0; i < sizeof(wrappers) / sizeof(wrappers[0]); i++) {
		if (strlen(wrappers[i]) == bytes && memcmp(wrappers[i], part, bytes) == 0)
			return true;
	}
	return false;
}

size_t tensor_name_canonical(const char *name, size_t bytes, char *ret_name, size_t capacity)
{
	size_t used = 0, begin = 0;
	bool is_first = true;

	assert(capacity > bytes);
	for (size_t end = 0; end <= bytes; end++) {
		if (end < bytes && name[end] != '.')
			continue;
		if (!is_wrapper(name + begin, end - begin)) {
			if (!is_first)
				ret_name[used++] = '.';
			is_first = false;
			memcpy(ret_name + used, name + begin, end - begin);
			used += end - begin;
		}
		begin = end + 1;
	}
	if (used == 0) {
		/* Nothing of the name would be left: then the words are the model's own. */
		memcpy(ret_name, name, bytes);
		used = bytes;
	}
	ret_name[used] = '\0';
	return used;
}

/* The bytes of the well-formed sequence at text (Unicode 15, table 3-7), or 0. */
static size_t utf8_sequence_bytes(const unsigned char *text, size_t left)
{
	unsigned char first = text[0], second_min = 0x80, second_max = 0xbf;
	size_t bytes;

	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first <= 0xdf)
		bytes = 2;
	else if (first >= 0xe0 && first <= 0xef)
		bytes = 3;
	else if (first >= 0xf0 && first <= 0xf4)
		bytes = 4;
	else
		return 0;
	if (first == 0xe0)
		second_min = 0xa0; /* overlong */
	else if (first == 0xed)
		second_max = 0x9f; /* surrogates */
	else if (first == 0xf0)
		second_min = 0x90; /* overlong */
	else if (first == 0xf4)
		second_max = 0x8f; /* beyond U+10FFFF */
	if (left < bytes || text[1] < second_min || text[1] > second_max)
		return 0;
	for (size_t i = 2; i < bytes; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	return bytes;
}

int utf8_check(const char *text, size_t bytes)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t i = 0;

	while (i < bytes) {
		uint64_t word;
		size_t sequence_bytes;

		/* Names are nearly always ASCII: eight at a time while they are. */
		if (bytes - i >= sizeof(word)) {
			memcpy(&word, at + i, sizeof(word));
			if ((word & UINT64_C(0x8080808080808080)) == 0) {
				i += sizeof(word);
				continue;
			}
		}
		sequence_bytes = utf8_sequence_bytes(at + i, bytes - i);
		if (sequence_bytes == 0)
			return 0;
		i += sequence_bytes;
	}
	return 1;
}
