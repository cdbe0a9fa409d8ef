/*
 * Ways, lists, manifests. See files_way.h.
 */
#include "daemon/edge/files_way.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char FILES_MANIFEST[] = "manifest.json";

enum {
	CHUNK_BYTES = 4 * 1024 * 1024, /* between two looks at whether to stop */
	STEPS_TOLD_MAX = 12,
};

/* ---- the way there ----------------------------------------------------------------------------------------------- */

void files_way_close(const struct files_place *place, struct files_way *way)
{
	if (way->directory >= 0)
		place->calls->close(way->directory);
	if (way->all >= 0)
		place->calls->close(way->all);
	if (way->root >= 0)
		place->calls->close(way->root);
	*way = (struct files_way){ -1, -1, -1 };
}

int files_step_open(const struct files_place *place, int parent, const char *name, bool makes, int *ret_fd,
                     struct reason *reason)
{
	bool made;
	int fd = files_directory_open(place, parent, name, makes, &made);

	if (fd < 0)
		return files_failed(place, reason, "opening the directory", name);
	/* Its name must outlive a power cut, or the files in it do not; whoever made it may have died before that. */
	if (makes && place->calls->fsync(parent) != 0) {
		int error = files_failed(place, reason, "synchronising the parent of", name);

		place->calls->close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

int files_way_begin(const struct files_place *place, bool makes, bool founds, struct files_way *way,
                    struct reason *reason)
{
	int error;

	*way = (struct files_way){ -1, -1, -1 };
	error = files_root_open(place, makes, reason, &way->root);
	return error ? error : files_step_open(place, way->root, "checkpoints", founds, &way->all, reason);
}

int files_way_open(const struct files_place *place, const char *directory, struct files_way *way, struct reason *reason)
{
	int error = files_way_begin(place, false, false, way, reason);

	return error ? error : files_step_open(place, way->all, directory, false, &way->directory, reason);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static int names_add(struct files_names *names, const struct generation_name *name)
{
	if (names->count == names->capacity) {
		size_t capacity = names->capacity ? 2 * names->capacity : 16;
		struct generation_name *items = reallocarray(names->items, capacity, sizeof *items);

		if (!items)
			return -1;
		names->items = items;
		names->capacity = capacity;
	}
	names->items[names->count++] = *name;
	return 0;
}

static int names_compare(const void *a, const void *b)
{
	return generation_compare(a, b);
}

DIR *files_list_open(const struct files_place *place, int directory)
{
	int fd = place->calls->openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *stream = fd >= 0 ? place->calls->fdopendir(fd) : NULL;
	int error = errno;

	if (!stream && fd >= 0)
		place->calls->close(fd);
	errno = error;
	return stream;
}

void files_temporary_name(const struct generation_name *generation, char ret_name[FILES_TEMPORARY_NAME_BYTES])
{
	char name[GENERATION_NAME_BYTES];

	generation_name_write(generation, name);
	snprintf(ret_name, FILES_TEMPORARY_NAME_BYTES, ".%s.tmp", name);
}

static bool is_temporary(const char *name)
{
	char inner[GENERATION_NAME_BYTES] = "";
	struct generation_name generation;

	if (name[0] != '.' || strlen(name) != FILES_TEMPORARY_NAME_BYTES - 1 ||
	    strcmp(name + FILES_TEMPORARY_NAME_BYTES - 5, ".tmp") != 0)
		return false;
	memcpy(inner, name + 1, GENERATION_NAME_BYTES - 1);
	return generation_name_parse(inner, &generation);
}

/* Removes a directory with the files in it; it holds no directories, unless somebody else has put one there. */
int files_directory_remove(const struct files_place *place, int parent, const char *name)
{
	bool made;
	int directory = files_directory_open(place, parent, name, false, &made), error = 0;
	const struct dirent *entry;
	DIR *stream;

	if (directory < 0)
		return -1;
	stream = files_list_open(place, directory);
	if (!stream)
		error = errno;
	while (stream && (entry = place->calls->readdir(stream)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    place->calls->unlinkat(directory, entry->d_name, 0) != 0)
			error = errno;
	if (stream)
		place->calls->closedir(stream);
	place->calls->close(directory);
	if (!error && place->calls->unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return 0;
	errno = error ? error : errno;
	return -1;
}

/* The generations of a model. cleans: what was left half-written is removed. */
int files_names_list(const struct files_place *place, int directory, bool cleans, struct files_names *names,
                      struct reason *reason)
{
	DIR *stream = files_list_open(place, directory);
	struct generation_name name;
	const struct dirent *entry;
	int error = 0;

	if (!stream)
		return files_failed(place, reason, "listing", "checkpoints");
	while (!error && (errno = 0, entry = place->calls->readdir(stream))) {
		if (cleans && is_temporary(entry->d_name) && files_directory_remove(place, directory, entry->d_name) != 0)
			error = files_failed(place, reason, "removing what was left half-written,", entry->d_name);
		else if (generation_name_parse(entry->d_name, &name) && names_add(names, &name) != 0)
			error = files_failed(place, reason, "listing", entry->d_name);
	}
	if (!error && errno != 0)
		error = files_failed(place, reason, "listing", "checkpoints");
	place->calls->closedir(stream);
	if (names->count > 0)
		qsort(names->items, names->count, sizeof *names->items, names_compare);
	return error;
}

void files_names_tell(const struct files_names *names, struct reason *reason)
{
	char text[sizeof reason->text] = "";
	size_t shown = names->count < STEPS_TOLD_MAX ? names->count : STEPS_TOLD_MAX, used = 0;

	for (size_t i = 0; i < shown; i++)
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%" PRIu64, i == 0 ? "" : ", ",
		                         names->items[names->count - 1 - i].step);
	if (names->count == 0)
		reason_set(reason, 0, "nothing");
	else if (names->count > shown)
		reason_set(reason, 0, "steps %s and %zu older ones", text, names->count - shown);
	else
		reason_set(reason, 0, "step%s %s", names->count == 1 ? "" : "s", text);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* What is not there, or no file, is as damaged as what is cut off. */
int files_file_open(const struct files_place *place, int directory, const char *name, uint64_t *ret_bytes, int *ret_fd,
                     struct reason *reason)
{
	int fd = place->calls->openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0), error;
	struct stat facts;

	if (fd < 0 && (errno == ENOENT || errno == ELOOP))
		return reason_set(reason, STATUS_ECORRUPT, "%s is %s", name, errno == ENOENT ? "missing" : "a link");
	if (fd < 0)
		return files_failed(place, reason, "opening", name);
	if (place->calls->fstat(fd, &facts) != 0)
		error = files_failed(place, reason, "looking at", name);
	else
		error = S_ISREG(facts.st_mode) ? 0 : reason_set(reason, STATUS_ECORRUPT, "%s is no file", name);
	if (error) {
		place->calls->close(fd);
		return error;
	}
	*ret_bytes = (uint64_t)facts.st_size;
	*ret_fd = fd;
	return 0;
}

int files_bytes_read(const struct files_place *place, int fd, const char *name, uint8_t *target, uint64_t byte_count,
                      struct reason *reason)
{
	uint64_t done = 0;

	while (done < byte_count) {
		uint64_t left = byte_count - done;
		ssize_t count;

		if (atomic_load_explicit(place->abandons, memory_order_relaxed))
			return reason_set(reason, STATUS_ESHUTDOWN, "the daemon stopped while '%s' was being read",
			                  name);
		count = place->calls->read(fd, target + done, left < CHUNK_BYTES ? left : CHUNK_BYTES);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return files_failed(place, reason, "reading", name);
		if (count == 0)
			return reason_set(reason, STATUS_ECORRUPT, "%s ends after %" PRIu64 " of %" PRIu64 " bytes",
			                  name, done, byte_count);
		done += (uint64_t)count;
	}
	return 0;
}

int files_manifest_read(const struct files_place *place, int directory, char **ret_text, size_t *ret_bytes,
                        struct reason *reason)
{
	uint64_t bytes;
	char *text;
	int fd, error = files_file_open(place, directory, FILES_MANIFEST, &bytes, &fd, reason);

	if (error)
		return error;
	if (bytes > GENERATION_TEXT_BYTES_MAX) {
		place->calls->close(fd);
		return reason_set(reason, STATUS_ECORRUPT, "%s has %" PRIu64 " bytes, at most %" PRIu64
		                  " are allowed", FILES_MANIFEST, bytes, GENERATION_TEXT_BYTES_MAX);
	}
	text = malloc(bytes + 1);
	error = text ? files_bytes_read(place, fd, FILES_MANIFEST, (uint8_t *)text, bytes, reason) : -ENOMEM;
	place->calls->close(fd);
	if (!error && !generation_text_check(text, bytes))
		error = reason_set(reason, STATUS_ECORRUPT,
		                   "%s is cut off or damaged: the checksum at its end is not that of its %" PRIu64
		                   " bytes", FILES_MANIFEST, bytes);
	if (error) {
		free(text);
		return error;
	}
	*ret_text = text;
	*ret_bytes = bytes;
	return 0;
}
