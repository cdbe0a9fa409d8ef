/*
 * Names, and the end of a manifest. See generation.h.
 */
#include "proto/generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json_read.h"
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

bool generation_aside_parse(const char *text, struct generation_name *ret_name, uint64_t *ret_wall_s)
{
	static const char mark[] = ".bad-";
	const char *time = text + GENERATION_NAME_BYTES - 1 + strlen(mark);
	char name[GENERATION_NAME_BYTES];
	uint64_t wall_s = 0;

	if (strlen(text) <= GENERATION_NAME_BYTES - 1 + strlen(mark))
		return false;
	memcpy(name, text, GENERATION_NAME_BYTES - 1);
	name[GENERATION_NAME_BYTES - 1] = '\0';
	if (strncmp(text + GENERATION_NAME_BYTES - 1, mark, strlen(mark)) != 0 || !generation_name_parse(name, ret_name))
		return false;
	for (; *time >= '0' && *time <= '9'; time++)
		if (__builtin_mul_overflow(wall_s, 10, &wall_s) ||
		    __builtin_add_overflow(wall_s, (uint64_t)(*time - '0'), &wall_s))
			return false;
	*ret_wall_s = wall_s;
	return *time == '\0';
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

/* ---- the summary ------------------------------------------------------------------------------------------------- */

static int corrupt(struct reason *reason, const char *what)
{
	return reason_set(reason, STATUS_ECORRUPT, "its manifest.json is damaged: '%s' is missing or not valid", what);
}

static int checksum_read(struct json_read *reader, uint64_t *ret_checksum, struct reason *reason)
{
	char text[17], *end;
	int error = json_read_string(reader, text, sizeof text, reason);

	if (error)
		return error;
	*ret_checksum = strtoull(text, &end, 16);
	return strlen(text) == 16 && !*end ? 0 : corrupt(reason, "xxh3");
}

/* {"profile":"ema","bytes":8421376,"xxh3":"..."} */
static int file_read(struct json_read *reader, struct generation_summary *summary, struct reason *reason)
{
	uint32_t index = summary->file_count;
	char key[16], *profile;
	int error;

	if (index == PROFILE_COUNT_MAX)
		return corrupt(reason, "files");
	profile = summary->files[index].profile;
	error = json_read_expect(reader, '{', reason);
	do {
		if (!error)
			error = json_read_string(reader, key, sizeof key, reason);
		if (!error)
			error = json_read_expect(reader, ':', reason);
		if (error)
			return error;
		if (strcmp(key, "profile") == 0)
			error = json_read_string(reader, profile, PROFILE_NAME_BYTES_MAX + 1, reason);
		else if (strcmp(key, "bytes") == 0)
			error = json_read_number(reader, &summary->files[index].bytes, reason);
		else if (strcmp(key, "xxh3") == 0)
			error = checksum_read(reader, &summary->files[index].checksum, reason);
		else
			error = json_read_skip(reader, reason);
	} while (!error && json_read_take(reader, ','));
	if (!error)
		error = json_read_expect(reader, '}', reason);
	if (!error && profile_name_check(profile, strlen(profile), NULL) != 0)
		error = corrupt(reason, "profile");
	summary->file_count++;
	return error;
}

static int files_read(struct json_read *reader, struct generation_summary *summary, struct reason *reason)
{
	int error = json_read_expect(reader, '[', reason);

	if (error || json_read_take(reader, ']'))
		return error;
	do
		error = file_read(reader, summary, reason);
	while (!error && json_read_take(reader, ','));
	return error ? error : json_read_expect(reader, ']', reason);
}

enum { SEEN_MODEL = 1, SEEN_VERSION = 2, SEEN_STEP = 4, SEEN_UPDATES = 8, SEEN_TIME = 16, SEEN_FILES = 32, SEEN_ALL = 63 };

static int member_read(struct json_read *reader, const char *key, struct generation_summary *summary, unsigned *seen,
                       struct reason *reason)
{
	const struct {
		const char *key;
		unsigned bit;
		uint64_t *number;
	} numbers[] = {
		{ "version", SEEN_VERSION, &summary->name.version },
		{ "step", SEEN_STEP, &summary->name.step },
		{ "updates", SEEN_UPDATES, &summary->updates },
		{ "published_us", SEEN_TIME, &summary->published_us },
	};
	bool negative;
	int error;

	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		if (strcmp(key, numbers[i].key) != 0)
			continue;
		*seen |= numbers[i].bit;
		/* JSON's integers are signed, and these are the same 64 bits. */
		negative = json_read_take(reader, '-');
		error = json_read_number(reader, numbers[i].number, reason);
		if (!error && negative)
			*numbers[i].number = -*numbers[i].number;
		return error;
	}
	if (strcmp(key, "model") == 0) {
		*seen |= SEEN_MODEL;
		return json_read_string(reader, summary->model, sizeof summary->model, reason);
	}
	if (strcmp(key, "files") == 0 && !(*seen & SEEN_FILES)) {
		*seen |= SEEN_FILES;
		return files_read(reader, summary, reason);
	}
	return json_read_skip(reader, reason);
}

int generation_summary_read(const char *text, size_t text_bytes, struct generation_summary *ret_summary,
                            struct reason *reason)
{
	struct json_read reader = { text, text, text + text_bytes };
	struct generation_summary summary = { .file_count = 0 };
	unsigned seen = 0;
	char key[64];
	int error;

	if (!generation_text_check(text, text_bytes))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "its manifest.json is cut off or damaged: the checksum at its end is not that of the "
		                  "bytes before");
	error = json_read_expect(&reader, '{', reason);
	do {
		if (!error)
			error = json_read_string(&reader, key, sizeof key, reason);
		if (!error)
			error = json_read_expect(&reader, ':', reason);
		if (!error)
			error = member_read(&reader, key, &summary, &seen, reason);
	} while (!error && json_read_take(&reader, ','));
	if (!error)
		error = json_read_expect(&reader, '}', reason);
	if (error)
		return error;
	if (seen != SEEN_ALL || summary.file_count == 0 || model_name_check(summary.model, strlen(summary.model), NULL) != 0)
		return corrupt(reason, seen & SEEN_FILES ? "model, version, step, updates or published_us" : "files");
	*ret_summary = summary;
	return 0;
}
