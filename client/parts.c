/*
 * Files and directories become a list of parts. Only headers are read here.
 */
#include "client/parts.h"

#include "client/source.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PART_COUNT_MAX = 100000 };

static const char SUFFIX[] = ".safetensors";

static void part_finish(struct part *part)
{
	free(part->path);
	free(part->model);
	free(part->profile);
	free(part->schedule);
	free(part->updates);
}

void parts_finish(struct parts *parts)
{
	for (uint32_t i = 0; i < parts->count; i++)
		part_finish(&parts->items[i]);
	free(parts->items);
	*parts = (struct parts){0};
}

void parts_filter(struct parts *parts, uint32_t from, bool (*is_kept)(const struct part *part, const void *context),
                  const void *context)
{
	uint32_t kept = from;

	for (uint32_t i = from; i < parts->count; i++) {
		if (is_kept(&parts->items[i], context))
			parts->items[kept++] = parts->items[i];
		else
			part_finish(&parts->items[i]);
	}
	parts->count = kept;
}

/* A whole number in decimal digits and nothing else. */
static bool number_parse(const char *text, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, UINT64_C(10), &number) ||
		    __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
			return false;
	}
	*ret_number = number;
	return true;
}

/* Copies a value of the metadata. Absent: NULL and no error. */
static int value_copy(const struct safetensors *contents, const char *key, char **ret_value)
{
	const char *value = safetensors_metadata_get(contents, key);

	if (!value)
		return 0;
	*ret_value = strdup(value);
	return *ret_value ? 0 : -ENOMEM;
}

static int part_fill(struct part *part, const struct safetensors *contents)
{
	const char *step = safetensors_metadata_get(contents, "emad.step");
	int r = value_copy(contents, "emad.model", &part->model);

	if (r == 0)
		r = value_copy(contents, "emad.profile", &part->profile);
	if (r == 0)
		r = value_copy(contents, "emad.schedule", &part->schedule);
	if (r == 0)
		r = value_copy(contents, "emad.updates", &part->updates);
	part->has_step = step && number_parse(step, &part->step);
	return r;
}

static int part_read(const char *path, struct part *ret_part, struct reason *reason)
{
	struct part part = {.path = strdup(path)};
	struct safetensors *contents;
	struct source source;
	int r;

	if (!part.path)
		return -ENOMEM;
	r = source_open(path, true, &source, reason);
	if (r == 0) {
		r = source_header(&source, &contents, reason);
		source_close(&source);
	}
	if (r == 0) {
		r = part_fill(&part, contents);
		safetensors_destroy(contents);
	}
	if (r != 0)
		part_finish(&part);
	else
		*ret_part = part;
	return r;
}

int parts_add(struct parts *parts, const char *path, struct reason *reason)
{
	int r;

	if (parts->count == PART_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "there are more than %d files: leave some out",
		                  PART_COUNT_MAX);
	if (parts->count == parts->capacity) {
		const uint32_t capacity = parts->capacity ? 2 * parts->capacity : 16;
		struct part *items = reallocarray(parts->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		parts->items = items;
		parts->capacity = capacity;
	}
	r = part_read(path, &parts->items[parts->count], reason);
	if (r == 0)
		parts->count++;
	return r;
}

static bool has_suffix(const char *name)
{
	const size_t bytes = strlen(name), suffix_bytes = strlen(SUFFIX);

	return bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, SUFFIX) == 0;
}

/* "ema.old-1790000000": what the daemon has moved aside is of another training. */
static bool is_aside(const char *name)
{
	const char *old = strstr(name, ".old-");

	return old && old[5] != '\0' && strspn(old + 5, "0123456789") == strlen(old + 5);
}

static int directory_add(struct parts *parts, const char *path, bool is_inner, struct reason *reason);

static int name_add(struct parts *parts, const char *directory, const char *name, bool is_inner, struct reason *reason)
{
	struct stat facts;
	char *path;
	int r = 0;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return -ENOMEM;
	if (stat(path, &facts) < 0)
		r = -errno;
	else if (S_ISDIR(facts.st_mode) && !is_inner && !is_aside(name))
		r = directory_add(parts, path, true, reason);
	else if (S_ISREG(facts.st_mode) && has_suffix(name))
		r = parts_add(parts, path, reason);
	if (r == -ENOENT) {
		/* Removed meanwhile: the daemon keeps so many snapshots and no more. */
		reason->text[0] = '\0';
		r = 0;
	} else if (r != 0 && !reason->text[0]) {
		reason_set(reason, r, "%s: %s", source_name(path), status_text(r));
	}
	free(path);
	return r;
}

static int directory_add(struct parts *parts, const char *path, bool is_inner, struct reason *reason)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int r = 0;

	if (!directory)
		return reason_set(reason, -errno, "%s: cannot read the directory: %s", source_name(path),
		                  strerrordesc_np(errno));
	while (r == 0) {
		errno = 0;
		entry = readdir(directory);
		if (!entry) {
			if (errno)
				r = reason_set(reason, -errno, "%s: cannot read the directory: %s", source_name(path),
				               strerrordesc_np(errno));
			break;
		}
		if (entry->d_name[0] != '.')
			r = name_add(parts, path, entry->d_name, is_inner, reason);
	}
	closedir(directory);
	return r;
}

int parts_add_directory(struct parts *parts, const char *path, struct reason *reason)
{
	return directory_add(parts, path, false, reason);
}
