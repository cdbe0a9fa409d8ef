/*
 * inih's callbacks. See config_file.h.
 *
 * inih reads a line through a function of ours, which therefore sees every line before it does. That function judges the
 * line's form and keeps track of the section, and hands over an empty line instead of a wrong one: so one run finds
 * everything that is wrong, with the numbers of lines, which inih as Debian builds it does not tell.
 */
#include "daemon/edge/config_file.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/nearest.h"

enum { SECTION_COUNT_MAX = DEFAULTS_COUNT_MAX + 8 };

enum { LAST_NONE = -1, LAST_WRONG = -2 };

struct reading {
	struct config *config;
	const struct config_host *host;
	struct config_faults *faults;
	const char *path;
	FILE *file;
	size_t bytes;
	uint32_t line, fault_line;
	bool ended;

	/* The section that the line is in. */
	const char *section; /* of the table; NULL: none yet, or an unknown one */
	bool section_wrong;
	struct defaults *defaults;             /* of a section [model PATTERN] */
	uint32_t lines[CONFIG_KEY_COUNT_MAX];  /* where its keys were set; 0: not yet */
	bool has_name;                         /* inih would take an indented line for a further line of a value */
	bool continues;
	int last; /* index of the key of the line before, or LAST_... */

	uint32_t section_count;
	uint32_t section_lines[SECTION_COUNT_MAX];
	char sections[SECTION_COUNT_MAX][DEFAULTS_PATTERN_BYTES_MAX + 16];
};

static void fault_add(struct config_faults *faults, int error, const char *format, va_list arguments)
{
	char text[sizeof faults->reasons[0].text];

	vsnprintf(text, sizeof text, format, arguments);
	if (faults->count == 0)
		faults->error = error;
	if (faults->count < CONFIG_FAULT_COUNT_MAX)
		(void)reason_set(&faults->reasons[faults->count], error, "%s", text);
	faults->count++;
}

void config_fault(struct config_faults *faults, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fault_add(faults, error, format, arguments);
	va_end(arguments);
}

/* Something is wrong in the line. */
static void __attribute__((format(printf, 2, 3))) fault(struct reading *reading, const char *format, ...)
{
	char text[400];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	reading->fault_line = reading->line;
	config_fault(reading->faults, STATUS_EARGUMENT, "%.100s:%u: %s", reading->path, reading->line, text);
}

/* ---- sections ---------------------------------------------------------------------------------------------------- */

/* The name as the table has it, with the pattern of [model PATTERN] behind it; NULL for an unknown one. */
static const char *section_find(const char *name, const char **ret_pattern)
{
	*ret_pattern = NULL;
	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		size_t count = strlen(key->section);

		if (!config_is_default(key) && strcmp(key->section, name) == 0)
			return key->section;
		if (config_is_default(key) && strncmp(key->section, name, count) == 0 && strchr(" \t", name[count])) {
			*ret_pattern = name + count + strspn(name + count, " \t");
			return key->section;
		}
	}
	return NULL;
}

static const char *section_nearest(const char *name)
{
	const char *names[CONFIG_KEY_COUNT_MAX + 1] = { NULL };

	for (int i = 0; i < config_key_count; i++)
		names[i] = config_keys[i].section;
	return nearest_name(name, names);
}

static bool section_is_second(struct reading *reading, const char *name)
{
	for (uint32_t i = 0; i < reading->section_count; i++) {
		if (strcmp(reading->sections[i], name) != 0)
			continue;
		fault(reading, "[%.80s] comes for the second time, the first is in line %u: put them together", name,
		      reading->section_lines[i]);
		return true;
	}
	if (reading->section_count < SECTION_COUNT_MAX) {
		snprintf(reading->sections[reading->section_count], sizeof reading->sections[0], "%s", name);
		reading->section_lines[reading->section_count++] = reading->line;
	}
	return false;
}

static void section_begin(struct reading *reading, const char *name)
{
	const char *pattern, *section = section_find(name, &pattern), *nearest;
	char whole[DEFAULTS_PATTERN_BYTES_MAX + 16];

	reading->section = NULL;
	reading->section_wrong = true;
	reading->defaults = NULL;
	memset(reading->lines, 0, sizeof reading->lines);
	if (!section) {
		nearest = section_nearest(name);
		fault(reading, "[%.80s] is not a section; the nearest is [%s%s]", name, nearest,
		      strcmp(nearest, "model") == 0 ? " PATTERN" : "");
		return;
	}
	if (pattern && !pattern[0]) {
		fault(reading, "[%s] lacks a pattern: write [%s PATTERN], for example [%s *] for all", section, section, section);
		return;
	}
	if (pattern && strlen(pattern) > DEFAULTS_PATTERN_BYTES_MAX) {
		fault(reading, "the pattern '%.40s...' has %zu bytes, and at most %d are allowed", pattern, strlen(pattern),
		      DEFAULTS_PATTERN_BYTES_MAX);
		return;
	}
	snprintf(whole, sizeof whole, "%s%s%s", section, pattern ? " " : "", pattern ? pattern : "");
	if (section_is_second(reading, whole))
		return;
	if (pattern && !(reading->defaults = config_section(reading->config, pattern))) {
		fault(reading, "[%.80s] is one section more than the %d that are allowed", whole, DEFAULTS_COUNT_MAX);
		return;
	}
	reading->section = section;
	reading->section_wrong = false;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Where a comment behind a value begins, as inih sees it, or the end. */
static char *comment_find(char *text)
{
	for (char *at = text; *at; at++)
		if (*at == ';' && at > text && (at[-1] == ' ' || at[-1] == '\t'))
			return at;
	return text + strlen(text);
}

static char *blanks_cut(char *text, char *end)
{
	while (end > text && strchr(" \t\r\n", end[-1]))
		end--;
	return end;
}

/* The text of a section's line: "[name]". False where it is none. */
static bool section_take(struct reading *reading, char *start)
{
	char name[256], *end = blanks_cut(start, comment_find(start));

	if (end - start < 3 || end[-1] != ']' || end - start > (ptrdiff_t)sizeof name)
		return false;
	memcpy(name, start + 1, (size_t)(end - start) - 2);
	name[end - start - 2] = '\0';
	section_begin(reading, name);
	return true;
}

/* Judges a whole line. False: inih must not see it. */
static bool line_take(struct reading *reading, char *text)
{
	char *begin = text, *start, *end;
	bool indented;

	if (reading->line == 1 && strncmp(begin, "\xef\xbb\xbf", 3) == 0)
		begin += 3;
	start = begin + strspn(begin, " \t\r\n");
	indented = start > begin;
	reading->continues = false;
	if (*start == '\0' || *start == '#' || *start == ';')
		return true;
	if (indented && reading->has_name) {
		/* inih does not do this here. */
		*comment_find(start) = '\0';
		reading->continues = true;
		return true;
	}
	if (*start == '[') {
		reading->has_name = false;
		reading->last = LAST_NONE;
		if (!indented && section_take(reading, start)) {
			/* The name is ours already, and inih has less room for it. */
			strcpy(text, "[x]\n");
			return true;
		}
		fault(reading, "neither [section] nor key=value");
		reading->section = NULL;
		reading->section_wrong = true;
		return false;
	}
	end = comment_find(start);
	if (!memchr(start, '=', (size_t)(end - start)) && !memchr(start, ':', (size_t)(end - start))) {
		fault(reading, "neither [section] nor key=value");
		reading->last = LAST_WRONG;
		return false;
	}
	reading->has_name = true;
	return true;
}

static bool is_comment(const char *text)
{
	if (strncmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	text += strspn(text, " \t");
	return *text == '#' || *text == ';';
}

/* Instead of fgets, which hides NUL bytes and makes two lines of a long one. A long comment does no harm. */
static char *on_line(char *text, int capacity, void *context)
{
	struct reading *reading = context;
	size_t count = 0, room = (size_t)capacity - 1;
	bool holds_nul = false;
	int next = '\n';

	if (reading->ended)
		return NULL;
	reading->line++;
	while ((next = getc(reading->file)) != EOF) {
		holds_nul = holds_nul || next == '\0';
		if (count < room)
			text[count] = (char)next;
		count++;
		if (next == '\n' || reading->bytes + count > CONFIG_FILE_BYTES_MAX)
			break;
	}
	if (count == 0)
		return NULL;
	reading->bytes += count;
	text[count < room ? count : room] = '\0';
	if (reading->bytes > CONFIG_FILE_BYTES_MAX) {
		fault(reading, "the file has more than the %d bytes that are allowed; from here on it was not read",
		      CONFIG_FILE_BYTES_MAX);
		reading->ended = true;
		return NULL;
	}
	if (holds_nul)
		fault(reading, "the line holds a NUL byte");
	else if (count > room && !is_comment(text))
		fault(reading, "the line has %zu bytes, and at most %zu are allowed", count, room);
	else if (line_take(reading, text))
		return text;
	return strcpy(text, "\n");
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void key_unknown(struct reading *reading, const char *name)
{
	const char *names[CONFIG_KEY_COUNT_MAX + 1] = { NULL }, *nearest;
	const struct config_key *key = NULL;

	for (int i = 0; i < config_key_count; i++)
		names[i] = config_keys[i].name;
	nearest = nearest_name(name, names);
	/* Several sections may have a key of that name: rather the one at hand. */
	for (int i = 0; i < config_key_count; i++)
		if (strcmp(config_keys[i].name, nearest) == 0 &&
		    (!key || (reading->section && strcmp(config_keys[i].section, reading->section) == 0)))
			key = &config_keys[i];
	if (!reading->section)
		fault(reading, "%.60s stands before the first [section]; the nearest key is '%s' in [%s%s]", name, key->name,
		      key->section, config_is_default(key) ? " PATTERN" : "");
	else
		fault(reading, "[%s] %.60s is not a key; the nearest is '%s' in [%s%s]", reading->section, name, key->name,
		      key->section, config_is_default(key) ? " PATTERN" : "");
}

static void key_set(struct reading *reading, int index, const char *value)
{
	struct config *config = reading->config;
	struct config_origin *origins = config->origins;
	void *values = config;
	struct reason reason;

	if (reading->defaults) {
		values = reading->defaults;
		origins = config->default_origins[reading->defaults - config->defaults];
	}
	if (config_set(values, index, value, reading->continues, reading->host, &reason) != 0) {
		fault(reading, "[%s] %s", reading->section, reason.text);
		return;
	}
	origins[index] = (struct config_origin){
		.place = CONFIG_BY_FILE,
		.file = config->file_count - 1,
		.line = reading->continues ? origins[index].line : reading->line,
	};
}

static int on_key(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	int index;

	(void)section;
	if (reading->section_wrong)
		return 1;
	if (reading->continues) {
		if (reading->last >= 0)
			key_set(reading, reading->last, value);
		return 1;
	}
	reading->last = LAST_WRONG;
	index = reading->section ? config_find(reading->section, name) : -1;
	if (index < 0) {
		key_unknown(reading, name);
	} else if (reading->lines[index]) {
		fault(reading, "[%s] %s comes for the second time, the first is in line %u", reading->section, name,
		      reading->lines[index]);
	} else {
		reading->lines[index] = reading->line;
		reading->last = index;
		key_set(reading, index, value);
	}
	return 1;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void file_parse(struct reading *reading)
{
	struct config *config = reading->config;
	int line, error;

	snprintf(config->files[config->file_count++], CONFIG_PATH_BYTES_MAX, "%s", reading->path);
	errno = 0;
	line = ini_parse_stream(on_line, reading, on_key, reading);
	error = ferror(reading->file) ? errno : 0;
	if (error)
		config_fault(reading->faults, -error, "the configuration '%.200s' cannot be read: %s", reading->path,
		             strerror(error));
	else if (line != 0 && reading->fault_line == 0)
		/* What inih dislikes and line_take did not. */
		config_fault(reading->faults, STATUS_EARGUMENT, "%.100s:%d: neither [section] nor key=value", reading->path, line);
}

static void file_read(struct config *config, const char *path, const struct config_host *host,
                      struct config_faults *faults)
{
	struct reading *reading;

	if (config->file_count == CONFIG_FILE_COUNT_MAX || strlen(path) >= CONFIG_PATH_BYTES_MAX) {
		config_fault(faults, STATUS_EARGUMENT, "'%.120s' was not read: at most %d files, with paths of at most %d bytes",
		             path, CONFIG_FILE_COUNT_MAX, CONFIG_PATH_BYTES_MAX - 1);
		return;
	}
	reading = calloc(1, sizeof *reading);
	if (!reading) {
		config_fault(faults, -ENOMEM, "'%.200s' was not read: not enough memory", path);
		return;
	}
	reading->config = config;
	reading->host = host;
	reading->faults = faults;
	reading->path = path;
	reading->last = LAST_NONE;
	reading->file = fopen(path, "re");
	if (reading->file) {
		file_parse(reading);
		fclose(reading->file);
	} else {
		config_fault(faults, -errno, "the configuration '%.200s' cannot be read: %s", path, strerror(errno));
	}
	free(reading);
}

static int is_wanted(const struct dirent *entry)
{
	const char *end = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && end && strcmp(end, ".conf") == 0;
}

/* Not by alphasort, whose order depends on the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void folder_read(struct config *config, const char *folder, const struct config_host *host,
                        struct config_faults *faults)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, is_wanted, by_name);

	if (count < 0 && errno != ENOENT)
		config_fault(faults, -errno, "the folder '%.200s' cannot be read: %s", folder, strerror(errno));
	for (int i = 0; i < count; i++) {
		char path[2 * CONFIG_PATH_BYTES_MAX + 256];

		snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
		file_read(config, path, host, faults);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

void config_file_read(struct config *config, const char *path, const struct config_host *host,
                      struct config_faults *faults)
{
	char folder[CONFIG_PATH_BYTES_MAX + 8];
	bool may_be_missing = !path || path[0] == '-';
	FILE *there;

	path = !path ? CONFIG_FILE_DEFAULT : path + may_be_missing;
	there = may_be_missing ? fopen(path, "re") : NULL;
	if (!may_be_missing || there || errno != ENOENT)
		file_read(config, path, host, faults);
	if (there)
		fclose(there);
	snprintf(folder, sizeof folder, "%.*s.d", CONFIG_PATH_BYTES_MAX, path);
	folder_read(config, folder, host, faults);
}
