/*
 * One directory a generation. See files_generation.h.
 */
#include "daemon/edge/files_generation.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/host.h"
#include "daemon/edge/files_write.h"
#include "proto/layout.h"

static const char MANIFEST[] = "manifest.json", MANIFEST_NEW[] = ".manifest.json.tmp";

enum {
	TEMPORARY_NAME_BYTES = GENERATION_NAME_BYTES + 5,
	ASIDE_NAME_BYTES = GENERATION_DIRECTORY_BYTES + 32,
	CHUNK_BYTES = 4 * 1024 * 1024, /* between two looks at whether to stop */
};

/* ---- the way there ----------------------------------------------------------------------------------------------- */

/* The state directory, "checkpoints", and the model's directory in it. */
struct way {
	int root, all, directory; /* -1: closed */
};

static void way_close(const struct files_place *place, struct way *way)
{
	if (way->directory >= 0)
		place->calls->close(way->directory);
	if (way->all >= 0)
		place->calls->close(way->all);
	if (way->root >= 0)
		place->calls->close(way->root);
	*way = (struct way){ -1, -1, -1 };
}

static int step_open(const struct files_place *place, int parent, const char *name, bool makes, int *ret_fd,
                     struct reason *reason)
{
	bool made;
	int fd = files_directory_open(place, parent, name, makes, &made);

	if (fd < 0)
		return files_failed(place, reason, "opening the directory", name);
	/* A new directory's name must outlive a power cut, or the files in it do not. */
	if (made && place->calls->fsync(parent) != 0) {
		int error = files_failed(place, reason, "synchronising the parent of", name);

		place->calls->close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

/* As far as "checkpoints"; on failure way_close is right. */
static int way_begin(const struct files_place *place, bool makes, struct way *way, struct reason *reason)
{
	int error;

	*way = (struct way){ -1, -1, -1 };
	error = files_root_open(place, makes, reason, &way->root);
	return error ? error : step_open(place, way->root, "checkpoints", makes, &way->all, reason);
}

static int way_open(const struct files_place *place, const struct file_order *order, bool makes, struct way *way,
                    struct reason *reason)
{
	int error = way_begin(place, makes, way, reason);

	return error ? error : step_open(place, way->all, order->directory, makes, &way->directory, reason);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

struct names {
	struct generation_name *items; /* owned; oldest first */
	size_t count, capacity;
};

static int names_add(struct names *names, const struct generation_name *name)
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

static DIR *list_open(const struct files_place *place, int directory)
{
	int fd = place->calls->openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *stream = fd >= 0 ? place->calls->fdopendir(fd) : NULL;
	int error = errno;

	if (!stream && fd >= 0)
		place->calls->close(fd);
	errno = error;
	return stream;
}

static void temporary_name(const struct generation_name *generation, char ret_name[TEMPORARY_NAME_BYTES])
{
	char name[GENERATION_NAME_BYTES];

	generation_name_write(generation, name);
	snprintf(ret_name, TEMPORARY_NAME_BYTES, ".%s.tmp", name);
}

static bool is_temporary(const char *name)
{
	char inner[GENERATION_NAME_BYTES] = "";
	struct generation_name generation;

	if (name[0] != '.' || strlen(name) != TEMPORARY_NAME_BYTES - 1 ||
	    strcmp(name + TEMPORARY_NAME_BYTES - 5, ".tmp") != 0)
		return false;
	memcpy(inner, name + 1, GENERATION_NAME_BYTES - 1);
	return generation_name_parse(inner, &generation);
}

/* Removes a directory with the files in it; it holds no directories, unless somebody else has put one there. */
static int directory_remove(const struct files_place *place, int parent, const char *name)
{
	bool made;
	int directory = files_directory_open(place, parent, name, false, &made), error = 0;
	const struct dirent *entry;
	DIR *stream;

	if (directory < 0)
		return -1;
	stream = list_open(place, directory);
	if (!stream)
		error = errno;
	while (stream && (entry = place->calls->readdir(stream)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    place->calls->unlinkat(directory, entry->d_name, 0) != 0)
			error = errno;
	if (stream)
		closedir(stream);
	place->calls->close(directory);
	if (!error && place->calls->unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return 0;
	errno = error ? error : errno;
	return -1;
}

/* The generations of a model. cleans: what was left half-written is removed. */
static int names_list(const struct files_place *place, int directory, bool cleans, struct names *names,
                      struct reason *reason)
{
	DIR *stream = list_open(place, directory);
	struct generation_name name;
	const struct dirent *entry;
	int error = 0;

	if (!stream)
		return files_failed(place, reason, "listing", "checkpoints");
	while (!error && (errno = 0, entry = place->calls->readdir(stream))) {
		if (cleans && is_temporary(entry->d_name) && directory_remove(place, directory, entry->d_name) != 0)
			error = files_failed(place, reason, "removing what was left half-written,", entry->d_name);
		else if (generation_name_parse(entry->d_name, &name) && names_add(names, &name) != 0)
			error = files_failed(place, reason, "listing", entry->d_name);
	}
	if (!error && errno != 0)
		error = files_failed(place, reason, "listing", "checkpoints");
	closedir(stream);
	if (names->count > 0)
		qsort(names->items, names->count, sizeof *names->items, names_compare);
	return error;
}

/* ---- aside ------------------------------------------------------------------------------------------------------- */

/* All generations of a model: they are of another average, or of a model that was removed. */
static int model_aside(const struct files_place *place, const struct way *way, const struct file_order *order,
                       struct reason *reason)
{
	char aside[ASIDE_NAME_BYTES];

	snprintf(aside, sizeof aside, "%s%%%%old-%" PRIu64, order->directory, order->wall_us / 1000000);
	if (place->calls->renameat(way->all, order->directory, way->all, aside) != 0)
		return files_failed(place, reason, "moving earlier checkpoints aside into", aside);
	if (place->calls->fsync(way->all) != 0)
		return files_failed(place, reason, "synchronising the directory of", aside);
	return 0;
}

/* The sentence says what was wrong with it; if it cannot be moved it says that too, and it is not served either way. */
static void generation_aside(const struct files_place *place, const struct way *way, const struct file_order *order,
                             struct reason *reason)
{
	char name[GENERATION_NAME_BYTES], aside[GENERATION_NAME_BYTES + 32];
	struct reason why = *reason;

	generation_name_write(&order->generation, name);
	snprintf(aside, sizeof aside, "%s.bad-%" PRIu64, name, order->wall_us / 1000000);
	if (place->calls->renameat(way->directory, name, way->directory, aside) == 0 &&
	    place->calls->fsync(way->directory) == 0)
		return;
	reason_set(reason, 0, "%.300s (it stays in its place: %s)", why.text, strerror(errno));
}

static int model_discard(const struct files_place *place, struct file_order *order)
{
	struct way way;
	int error = way_begin(place, false, &way, &order->reason);

	if (!error)
		error = model_aside(place, &way, order, &order->reason);
	way_close(place, &way);
	return error == -ENOENT ? 0 : error;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int manifest_write(const struct files_place *place, int directory, const char *name, struct file_order *order)
{
	struct files_content manifest = { MANIFEST, (const uint8_t *)order->text, 0, NULL };
	struct generation_file files[PROFILE_COUNT_MAX];

	for (uint32_t i = 0; i < order->count; i++)
		files[i] = (struct generation_file){ order->items[i].profile, order->items[i].byte_count,
		                                     order->items[i].checksum };
	manifest.byte_count = generation_text_end(order->text, order->text_bytes, files, order->count);
	return files_file_write(place, directory, name, &manifest, &order->reason);
}

/* The files of all profiles, then the manifest with their checksums. */
static int contents_write(const struct files_place *place, int directory, struct file_order *order)
{
	int error = 0;

	for (uint32_t i = 0; i < order->count && !error; i++) {
		struct file_item *item = &order->items[i];
		char name[GENERATION_FILE_NAME_BYTES];
		const struct files_content content = { name, item->bytes, item->byte_count, &item->checksum };

		generation_file_name(item->profile, name);
		error = files_file_write(place, directory, name, &content, &order->reason);
	}
	if (!error)
		error = manifest_write(place, directory, MANIFEST, order);
	if (!error && place->calls->fsync(directory) != 0)
		error = files_failed(place, &order->reason, "synchronising the directory of", MANIFEST);
	return error;
}

static int generation_write(const struct files_place *place, const struct way *way, struct file_order *order)
{
	const struct files_calls *calls = place->calls;
	char name[GENERATION_NAME_BYTES], temporary[TEMPORARY_NAME_BYTES];
	int directory = -1, error = 0;

	generation_name_write(&order->generation, name);
	temporary_name(&order->generation, temporary);
	if (calls->mkdirat(way->directory, temporary, 0777) != 0)
		return files_failed(place, &order->reason, "making", name);
	error = step_open(place, way->directory, temporary, false, &directory, &order->reason);
	if (!error)
		error = contents_write(place, directory, order);
	if (directory >= 0)
		calls->close(directory);
	if (!error && calls->renameat(way->directory, temporary, way->directory, name) != 0)
		error = files_failed(place, &order->reason, "renaming", name);
	if (error) {
		/* What cannot be removed now is when the model is next written. */
		(void)directory_remove(place, way->directory, temporary);
		return error;
	}
	if (calls->fsync(way->directory) == 0)
		return 0;
	/* Nobody knows whether its name outlives a power cut. */
	error = files_failed(place, &order->reason, "synchronising the directory of", name);
	if (calls->renameat(way->directory, name, way->directory, temporary) == 0)
		(void)directory_remove(place, way->directory, temporary);
	return error;
}

/* A file "keep" in it, or anything else of that name. */
static bool is_exempt(const struct files_place *place, const struct way *way, const char *name)
{
	bool made, exempt;
	int directory = files_directory_open(place, way->directory, name, false, &made), fd;

	if (directory < 0)
		return true;
	fd = place->calls->openat(directory, "keep", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	exempt = fd >= 0 || errno != ENOENT;
	if (fd >= 0)
		place->calls->close(fd);
	place->calls->close(directory);
	return exempt;
}

/* Removes the oldest ones; the sentence of a failure stays as a warning: the new one is there. */
static void generations_thin(const struct files_place *place, const struct way *way, struct file_order *order,
                             const struct names *names)
{
	char name[GENERATION_NAME_BYTES], temporary[TEMPORARY_NAME_BYTES];

	/* One more is there by now. */
	for (size_t i = 0; i + order->keep_count < names->count + 1; i++) {
		generation_name_write(&names->items[i], name);
		temporary_name(&names->items[i], temporary);
		if (is_exempt(place, way, name))
			continue;
		if (place->calls->renameat(way->directory, name, way->directory, temporary) != 0 ||
		    directory_remove(place, way->directory, temporary) != 0)
			(void)files_failed(place, &order->reason, "an earlier checkpoint could not be removed,", name);
	}
}

static int checkpoint_write(const struct files_place *place, struct file_order *order)
{
	struct names names = { NULL, 0, 0 };
	struct way way;
	int error;

	if (atomic_load_explicit(place->abandons, memory_order_relaxed))
		return reason_set(&order->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	error = way_open(place, order, true, &way, &order->reason);
	if (!error)
		error = names_list(place, way.directory, true, &names, &order->reason);
	if (!error && order->starts && names.count > 0) {
		names.count = 0;
		error = model_aside(place, &way, order, &order->reason);
		way_close(place, &way);
		if (!error)
			error = way_open(place, order, true, &way, &order->reason);
	}
	if (!error)
		error = generation_write(place, &way, order);
	if (!error)
		generations_thin(place, &way, order, &names);
	way_close(place, &way);
	free(names.items);
	return error;
}

/*
 * Another manifest takes the place of the one that is there, in one step: at any moment there is one or the other, and
 * both are about the same files.
 */
static int facts_write(const struct files_place *place, struct file_order *order)
{
	const struct files_calls *calls = place->calls;
	char name[GENERATION_NAME_BYTES];
	int directory = -1, error;
	struct way way;

	generation_name_write(&order->generation, name);
	error = way_open(place, order, false, &way, &order->reason);
	if (!error)
		error = step_open(place, way.directory, name, false, &directory, &order->reason);
	/* What a crash has left. */
	if (!error && calls->unlinkat(directory, MANIFEST_NEW, 0) != 0 && errno != ENOENT)
		error = files_failed(place, &order->reason, "removing what was left half-written,", MANIFEST_NEW);
	if (!error)
		error = manifest_write(place, directory, MANIFEST_NEW, order);
	if (!error && calls->renameat(directory, MANIFEST_NEW, directory, MANIFEST) != 0)
		error = files_failed(place, &order->reason, "renaming", MANIFEST);
	if (error && directory >= 0)
		(void)calls->unlinkat(directory, MANIFEST_NEW, 0);
	if (!error && calls->fsync(directory) != 0)
		error = files_failed(place, &order->reason, "synchronising the directory of", MANIFEST);
	if (directory >= 0)
		calls->close(directory);
	way_close(place, &way);
	return error;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* What is not there, or no file, is as damaged as what is cut off. */
static int file_open(const struct files_place *place, int directory, const char *name, uint64_t *ret_bytes, int *ret_fd,
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

static int bytes_read(const struct files_place *place, int fd, const char *name, uint8_t *target, uint64_t byte_count,
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

static int manifest_read(const struct files_place *place, int directory, struct file_order *order)
{
	uint64_t bytes;
	char *text;
	int fd, error = file_open(place, directory, MANIFEST, &bytes, &fd, &order->reason);

	if (error)
		return error;
	if (bytes > GENERATION_TEXT_BYTES_MAX) {
		place->calls->close(fd);
		return reason_set(&order->reason, STATUS_ECORRUPT, "%s has %" PRIu64 " bytes, at most %" PRIu64
		                  " are allowed", MANIFEST, bytes, GENERATION_TEXT_BYTES_MAX);
	}
	text = malloc(bytes + 1);
	error = text ? bytes_read(place, fd, MANIFEST, (uint8_t *)text, bytes, &order->reason) : -ENOMEM;
	place->calls->close(fd);
	if (!error && !generation_text_check(text, bytes))
		error = reason_set(&order->reason, STATUS_ECORRUPT,
		                   "%s is cut off or damaged: the checksum at its end is not that of its %" PRIu64 " bytes", MANIFEST, bytes);
	if (error) {
		free(text);
		return error;
	}
	order->text = text;
	order->text_bytes = bytes;
	return 0;
}

/* The newest generation older than a bound; false: none. */
static bool newest_below(const struct names *names, const struct generation_name *bound,
                         struct generation_name *ret_name)
{
	for (size_t i = names->count; i-- > 0;) {
		if (generation_compare(&names->items[i], bound) >= 0)
			continue;
		*ret_name = names->items[i];
		return true;
	}
	return false;
}

/* The first model's directory behind a name; *ret_name is "" where there is none. */
static int directory_after(const struct files_place *place, int all, const char *after,
                           char ret_name[GENERATION_DIRECTORY_BYTES], struct reason *reason)
{
	DIR *stream = list_open(place, all);
	char model[MODEL_NAME_BYTES_MAX + 1];
	const struct dirent *entry;
	int error = 0;

	ret_name[0] = '\0';
	if (!stream)
		return files_failed(place, reason, "listing", "checkpoints");
	while ((errno = 0, entry = place->calls->readdir(stream)))
		if (generation_directory_parse(entry->d_name, model) && strcmp(entry->d_name, after) > 0 &&
		    (!ret_name[0] || strcmp(entry->d_name, ret_name) < 0))
			strcpy(ret_name, entry->d_name);
	if (errno != 0)
		error = files_failed(place, reason, "listing", "checkpoints");
	closedir(stream);
	return error;
}

/* Reads the manifest of the order's generation; where it is damaged, that goes aside. */
static int generation_look(const struct files_place *place, const struct way *way, struct file_order *order)
{
	char name[GENERATION_NAME_BYTES];
	int directory, error;

	generation_name_write(&order->generation, name);
	error = step_open(place, way->directory, name, false, &directory, &order->reason);
	if (error == -ENOTDIR || error == -ELOOP)
		error = STATUS_ECORRUPT;
	if (!error) {
		error = manifest_read(place, directory, order);
		place->calls->close(directory);
	}
	if (error == STATUS_ECORRUPT)
		generation_aside(place, way, order, &order->reason);
	return error;
}

/* The sentence gets the place in front. */
static int located(struct file_order *order, int error)
{
	struct reason why = order->reason;

	return reason_set(&order->reason, error, "checkpoints/%s: %.280s", order->directory,
	                  why.text[0] ? why.text : status_text(error));
}

/* An older generation of the same model; *ret_found false: there is none. */
static int find_older(const struct files_place *place, struct way *way, struct file_order *order, bool *ret_found)
{
	struct names names = { NULL, 0, 0 };
	int error = step_open(place, way->all, order->directory, false, &way->directory, &order->reason);

	*ret_found = false;
	if (!error)
		error = names_list(place, way->directory, false, &names, &order->reason);
	if (error) {
		/* Nothing more of this model. */
		order->generation = (struct generation_name){ 0, 0 };
	} else if (newest_below(&names, &order->generation, &order->generation)) {
		*ret_found = true;
		error = generation_look(place, way, order);
	}
	free(names.items);
	if (way->directory >= 0)
		place->calls->close(way->directory);
	way->directory = -1;
	return error ? located(order, error) : 0;
}

static int generation_find(const struct files_place *place, struct file_order *order)
{
	char next[GENERATION_DIRECTORY_BYTES];
	bool found = false;
	struct way way;
	int error = way_begin(place, false, &way, &order->reason);

	while (!error) {
		/* Below version 0 there is nothing: the model is done with, or its directory cannot be read. */
		if (order->directory[0] && order->generation.version > 0)
			error = find_older(place, &way, order, &found);
		if (error || found)
			goto out;
		error = directory_after(place, way.all, order->directory, next, &order->reason);
		if (error || !next[0])
			break;
		strcpy(order->directory, next);
		order->generation = (struct generation_name){ UINT64_MAX, UINT64_MAX };
	}
	/* The end: also where there is no such directory yet. */
	order->directory[0] = '\0';
	if (error == -ENOENT)
		error = 0;
out:
	way_close(place, &way);
	return error;
}

static int item_fill(const struct files_place *place, int directory, const struct file_item *item,
                     struct reason *reason)
{
	char name[GENERATION_FILE_NAME_BYTES];
	uint64_t bytes;
	int fd, error;

	generation_file_name(item->profile, name);
	error = file_open(place, directory, name, &bytes, &fd, reason);
	if (error)
		return error;
	if (bytes != item->byte_count)
		error = reason_set(reason, STATUS_ECORRUPT, "%s has %" PRIu64 " bytes, the manifest says %" PRIu64,
		                   name, bytes, item->byte_count);
	if (!error)
		error = bytes_read(place, fd, name, item->target, bytes, reason);
	place->calls->close(fd);
	if (!error && layout_checksum(item->target, bytes) != item->checksum)
		error = reason_set(reason, STATUS_ECORRUPT, "%s is damaged: its checksum is %016" PRIx64
		                   ", the manifest says %016" PRIx64, name, layout_checksum(item->target, bytes),
		                   item->checksum);
	return error;
}

static int generation_fill(const struct files_place *place, struct file_order *order)
{
	char name[GENERATION_NAME_BYTES];
	struct way way;
	int directory, error = way_open(place, order, false, &way, &order->reason);

	generation_name_write(&order->generation, name);
	if (!error)
		error = step_open(place, way.directory, name, false, &directory, &order->reason);
	if (!error) {
		for (uint32_t i = 0; i < order->count && !error; i++)
			error = item_fill(place, directory, &order->items[i], &order->reason);
		place->calls->close(directory);
	}
	if (error == STATUS_ECORRUPT)
		generation_aside(place, &way, order, &order->reason);
	way_close(place, &way);
	return error;
}

static int generation_bad(const struct files_place *place, struct file_order *order)
{
	struct way way;
	int error = way_open(place, order, false, &way, &order->reason);

	if (!error)
		generation_aside(place, &way, order, &order->reason);
	way_close(place, &way);
	return error;
}

void files_generation_do(const struct files_place *place, struct file_order *order)
{
	order->reason.text[0] = '\0';
	switch (order->work) {
	case FILE_KEEP:
		break;
	case FILE_CHECKPOINT:
		order->status = checkpoint_write(place, order);
		break;
	case FILE_FACTS:
		order->status = facts_write(place, order);
		break;
	case FILE_FIND:
		order->status = generation_find(place, order);
		break;
	case FILE_FILL:
		order->status = generation_fill(place, order);
		break;
	case FILE_BAD:
		order->status = generation_bad(place, order);
		break;
	case FILE_DISCARD:
		order->status = model_discard(place, order);
		break;
	}
}
