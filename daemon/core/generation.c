/*
 * Names, and the end of a manifest. See generation.h.
 */
#include "daemon/core/generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/layout.h"
#include "proto/name.h"

enum { DIGITS = 20, CHECKSUM_END_BYTES = 13 + 16 + 3 }; /* ,"checksum":"0123456789abcdef"} and a line feed */

void generation_name_write(const struct generation_name *name, char ret_text[GENERATION_NAME_BYTES])
{
	snprintf(ret_text, GENERATION_NAME_BYTES, "%020" PRIu64 "-%020" PRIu64, name->step, name->version);
}

static bool digits_parse(const char *text, uint64_t *ret_number)
{
	uint64_t number = 0;

	for (int i = 0; i < DIGITS; i++)
		if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(text[i] - '0'), &number))
			return false;
	*ret_number = number;
	return true;
}

bool generation_name_parse(const char *text, struct generation_name *ret_name)
{
	struct generation_name name;

	if (strlen(text) != GENERATION_NAME_BYTES - 1 || text[DIGITS] != '-' || !digits_parse(text, &name.step) ||
	    !digits_parse(text + DIGITS + 1, &name.version))
		return false;
	*ret_name = name;
	return true;
}

int generation_compare(const struct generation_name *a, const struct generation_name *b)
{
	if (a->version != b->version)
		return a->version < b->version ? -1 : 1;
	return (a->step > b->step) - (a->step < b->step);
}

void generation_directory_write(const char *model, char ret_directory[GENERATION_DIRECTORY_BYTES])
{
	snprintf(ret_directory, GENERATION_DIRECTORY_BYTES, "%s", model);
	for (char *at = ret_directory; *at; at++)
		if (*at == '/')
			*at = '%';
}

bool generation_directory_parse(const char *directory, char ret_model[MODEL_NAME_BYTES_MAX + 1])
{
	char model[MODEL_NAME_BYTES_MAX + 1];
	size_t bytes = strlen(directory);

	if (bytes > MODEL_NAME_BYTES_MAX || strchr(directory, '/'))
		return false;
	memcpy(model, directory, bytes + 1);
	for (char *at = model; *at; at++)
		if (*at == '%')
			*at = '/';
	if (model_name_check(model, bytes, NULL) != 0)
		return false;
	memcpy(ret_model, model, bytes + 1);
	return true;
}

void generation_file_name(const char *profile, char ret_name[GENERATION_FILE_NAME_BYTES])
{
	snprintf(ret_name, GENERATION_FILE_NAME_BYTES, "%s.safetensors", profile);
}

/* What ends a text whose bytes before have this checksum. */
static void checksum_end(const char *text, size_t text_bytes, char ret_end[CHECKSUM_END_BYTES + 1])
{
	snprintf(ret_end, CHECKSUM_END_BYTES + 1, ",\"checksum\":\"%016" PRIx64 "\"}\n",
	         layout_checksum(text, text_bytes));
}

size_t generation_text_end(char *text, size_t text_bytes, const struct generation_file *files, size_t file_count)
{
	char *const limit = text + text_bytes + GENERATION_END_BYTES_MAX;
	char *at = text + text_bytes;
	char end[CHECKSUM_END_BYTES + 1];

	at += snprintf(at, (size_t)(limit - at), ",\"files\":[");
	for (size_t i = 0; i < file_count; i++)
		at += snprintf(at, (size_t)(limit - at),
		               "%s{\"profile\":\"%s\",\"bytes\":%" PRIu64 ",\"xxh3\":\"%016" PRIx64 "\"}", i > 0 ? "," : "", files[i].profile, files[i].bytes, files[i].checksum);
	at += snprintf(at, (size_t)(limit - at), "]");
	checksum_end(text, (size_t)(at - text), end);
	memcpy(at, end, CHECKSUM_END_BYTES + 1);
	return (size_t)(at - text) + CHECKSUM_END_BYTES;
}

bool generation_text_check(const char *text, size_t text_bytes)
{
	char end[CHECKSUM_END_BYTES + 1];

	if (text_bytes <= CHECKSUM_END_BYTES)
		return false;
	checksum_end(text, text_bytes - CHECKSUM_END_BYTES, end);
	return memcmp(text + text_bytes - CHECKSUM_END_BYTES, end, CHECKSUM_END_BYTES) == 0;
}
