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

#include "daemon/core/failpoint.h"
#include "daemon/core/host.h"
#include "daemon/core/retention.h"
#include "daemon/edge/files_list.h"
#include "daemon/edge/files_way.h"
#include "daemon/edge/files_write.h"
#include "proto/layout.h"

static const char MANIFEST_NEW[] = ".manifest.json.tmp";

enum {
	ASIDE_NAME_BYTES = GENERATION_DIRECTORY_BYTES + 32,
	ASIDE_COUNT_MAX = 9999, /* names of the same second */
};

/* ---- the way there ----------------------------------------------------------------------------------------------- */

/*
 * As far as the model's directory, which is made where there is none. "checkpoints" is only made for the first of all:
 * where it was and is no more, its file system was unmounted, and what was written there now would be hidden afterwards.
 */
static int way_make(const struct files_place *place, const struct file_order *order, struct files_way *way,
                    struct reason *reason)
{
	int error = files_way_begin(place, true, order->founds, way, reason);

	if (error == -ENOENT && !order->founds)
		return reason_set(reason, error, "'checkpoints' is gone from the state directory '%.200s': mount it again, or make it anew, empty, to go on without what was in it", place->state_dir);
	return error ? error : files_step_open(place, way->all, order->directory, true, &way->directory, reason);
}

/* ---- aside ------------------------------------------------------------------------------------------------------- */

/* Gives a name another one, with "-2", "-3", ... behind it where that is taken. Returns 0 or -1 with errno. */
static int name_aside(const struct files_place *place, int directory, const char *name, const char *aside)
{
	char numbered[ASIDE_NAME_BYTES + 8];
	int result;

	snprintf(numbered, sizeof numbered, "%s", aside);
	for (int i = 2;; i++) {
		result = place->calls->renameat(directory, name, directory, numbered);
		if (result == 0 || (errno != ENOTEMPTY && errno != EEXIST) || i > ASIDE_COUNT_MAX)
			return result;
		snprintf(numbered, sizeof numbered, "%s-%d", aside, i);
	}
}

/* All generations in a directory: they are of another average, or of a model that was removed. */
static int model_aside(const struct files_place *place, const struct files_way *way, const char *name,
                       struct file_order *order)
{
	char aside[ASIDE_NAME_BYTES];

	snprintf(aside, sizeof aside, "%s%%%%old-%" PRIu64, order->directory, order->wall_us / 1000000);
	if (name_aside(place, way->all, name, aside) != 0)
		return files_failed(place, &order->reason, "moving earlier checkpoints aside into", aside);
	if (place->calls->fsync(way->all) != 0)
		return files_failed(place, &order->reason, "synchronising the directory of", aside);
	return 0;
}

static int generation_old_aside(const struct files_place *place, const struct files_way *way, const char *there,
                                const char *name, struct file_order *order)
{
	char aside[ASIDE_NAME_BYTES];

	snprintf(aside, sizeof aside, "%s.old-%" PRIu64, name, order->wall_us / 1000000);
	if (name_aside(place, way->directory, there, aside) != 0)
		return files_failed(place, &order->reason, "moving an earlier checkpoint aside into", aside);
	return 0;
}

/*
 * Generations of later versions than the one that is to be written are of a training that went on from one that could
 * not be read at the start, or from one that was reported as failed. They would pass for newer at the next start. One of
 * the very same name stays until the new one takes its place: a daemon may have died before it could note it.
 */
static int later_aside(const struct files_place *place, const struct files_way *way, struct file_order *order,
                       struct files_names *names)
{
	char name[GENERATION_NAME_BYTES];

	while (names->count > 0 && names->items[names->count - 1].version >= order->generation.version) {
		const struct generation_name *last = &names->items[names->count - 1];
		int error = 0;

		generation_name_write(last, name);
		if (last->version != order->generation.version || last->step != order->generation.step)
			error = generation_old_aside(place, way, name, name, order);
		if (error)
			return error;
		names->count--;
	}
	return 0;
}

/* Beside the files, for whoever looks there later. Where it cannot be written the log has it. */
static void reason_write(const struct files_place *place, const struct files_way *way, const char *name,
                         const char *why)
{
	char text[sizeof ((struct reason *)NULL)->text + 1];
	int bytes = snprintf(text, sizeof text, "%s\n", why);
	const struct files_content content = { "reason.txt", (const uint8_t *)text, (uint64_t)bytes, NULL, NULL };
	struct reason ignored;
	bool made;
	int directory = files_directory_open(place, way->directory, name, false, &made);

	if (directory < 0)
		return;
	(void)files_file_write(place, directory, content.name, &content, &ignored);
	place->calls->close(directory);
}

/* The sentence says what was wrong with it; if it cannot be moved it says that too, and it is not served either way. */
static void generation_aside(const struct files_place *place, const struct files_way *way, const struct file_order *order,
                             struct reason *reason)
{
	char name[GENERATION_NAME_BYTES], aside[ASIDE_NAME_BYTES];
	struct reason why = *reason;

	generation_name_write(&order->generation, name);
	snprintf(aside, sizeof aside, "%s.bad-%" PRIu64, name, order->wall_us / 1000000);
	reason_write(place, way, name, why.text);
	if (name_aside(place, way->directory, name, aside) != 0)
		reason_set(reason, 0, "%.300s (it stays in its place: %s)", why.text, strerror(errno));
	else if (place->calls->fsync(way->directory) != 0)
		reason_set(reason, 0, "%.300s (it may be back after a power cut: %s)", why.text, strerror(errno));
}

static int model_discard(const struct files_place *place, struct file_order *order)
{
	struct files_way way;
	int error = files_way_begin(place, false, false, &way, &order->reason);

	if (!error)
		error = model_aside(place, &way, order->directory, order);
	files_way_close(place, &way);
	return error == -ENOENT ? 0 : error;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int manifest_write(const struct files_place *place, int directory, const char *name, struct file_order *order)
{
	struct files_content manifest = { FILES_MANIFEST, (const uint8_t *)order->text, 0, NULL, NULL };
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
		const struct files_content content = { name, item->bytes, item->byte_count, &item->checksum,
		                                       &order->written_bytes };

		generation_file_name(item->profile, name);
		error = files_file_write(place, directory, name, &content, &order->reason);
	}
	if (!error)
		error = manifest_write(place, directory, FILES_MANIFEST, order);
	if (!error && place->calls->fsync(directory) != 0)
		error = files_failed(place, &order->reason, "synchronising the directory of", FILES_MANIFEST);
	return error;
}

/* The generation gets its name; whatever had it goes aside, so that there is one under it at any moment. */
static int generation_name(const struct files_place *place, const struct files_way *way, const char *temporary,
                           const char *name, struct file_order *order)
{
	const struct files_calls *calls = place->calls;

	if (calls->renameat(way->directory, temporary, way->directory, name) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return files_failed(place, &order->reason, "renaming", name);
	if (calls->exchange(way->directory, temporary, name) == 0)
		return generation_old_aside(place, way, temporary, name, order);
	if (errno != EINVAL && errno != ENOSYS)
		return files_failed(place, &order->reason, "exchanging", name);
	if (generation_old_aside(place, way, name, name, order) != 0)
		return -errno;
	if (calls->renameat(way->directory, temporary, way->directory, name) != 0)
		return files_failed(place, &order->reason, "renaming", name);
	return 0;
}

static int generation_write(const struct files_place *place, const struct files_way *way, struct file_order *order)
{
	const struct files_calls *calls = place->calls;
	char name[GENERATION_NAME_BYTES], temporary[FILES_TEMPORARY_NAME_BYTES];
	int directory = -1, error = 0;

	generation_name_write(&order->generation, name);
	files_temporary_name(&order->generation, temporary);
	if (calls->mkdirat(way->directory, temporary, 0777) != 0)
		return files_failed(place, &order->reason, "making", name);
	error = files_step_open(place, way->directory, temporary, false, &directory, &order->reason);
	if (!error)
		error = contents_write(place, directory, order);
	if (directory >= 0)
		calls->close(directory);
	if (!error)
		error = generation_name(place, way, temporary, name, order);
	if (error) {
		/* What cannot be removed now is when the model is next written. */
		(void)files_directory_remove(place, way->directory, temporary);
		return error;
	}
	FAILPOINT("checkpoint-named");
	if (calls->fsync(way->directory) == 0)
		return 0;
	/* Nobody knows whether its name outlives a power cut. */
	error = files_failed(place, &order->reason, "synchronising the directory of", name);
	if (calls->renameat(way->directory, name, way->directory, temporary) == 0)
		(void)files_directory_remove(place, way->directory, temporary);
	return error;
}

/* One that cannot be looked into stays as well. */
static bool is_exempt(const struct files_place *place, const struct files_way *way, const char *name)
{
	bool made, exempt;
	int directory = files_directory_open(place, way->directory, name, false, &made);

	if (directory < 0)
		return true;
	exempt = files_is_marked(place, directory);
	place->calls->close(directory);
	return exempt;
}

/* Removes the oldest ones; the sentence of a failure stays as a warning: the new one is there. */
static void generations_thin(const struct files_place *place, const struct files_way *way, struct file_order *order,
                             const struct files_names *names)
{
	char name[GENERATION_NAME_BYTES], temporary[FILES_TEMPORARY_NAME_BYTES];
	uint64_t stretch = 0;

	/* One more is there by now. */
	for (size_t i = 0; i + order->keep_count < names->count + 1; i++) {
		bool begins = retention_begins(names->items[i].step, order->keep_steps, &stretch);

		generation_name_write(&names->items[i], name);
		files_temporary_name(&names->items[i], temporary);
		if (begins || is_exempt(place, way, name))
			continue;
		if (place->calls->renameat(way->directory, name, way->directory, temporary) != 0 ||
		    files_directory_remove(place, way->directory, temporary) != 0)
			(void)files_failed(place, &order->reason, "an earlier checkpoint could not be removed,", name);
	}
}

/* The next generation of the same average. */
static int model_continue(const struct files_place *place, const struct files_way *way, struct file_order *order,
                          struct files_names *names)
{
	int error = later_aside(place, way, order, names);

	if (!error)
		error = generation_write(place, way, order);
	if (!error)
		generations_thin(place, way, order, names);
	return error;
}

/* Opens an empty directory for an average that is to take the place of another one. */
static int fresh_open(const struct files_place *place, const struct files_way *way, const char *fresh,
                      struct file_order *order, int *ret_directory)
{
	struct files_names names = { NULL, 0, 0 };
	int error = files_step_open(place, way->all, fresh, true, ret_directory, &order->reason);

	if (!error)
		error = files_names_list(place, *ret_directory, true, &names, &order->reason);
	/* A crash has left it here, and it may be what was to be moved aside. */
	if (!error && names.count > 0) {
		place->calls->close(*ret_directory);
		*ret_directory = -1;
		error = model_aside(place, way, fresh, order);
		if (!error)
			error = files_step_open(place, way->all, fresh, true, ret_directory, &order->reason);
	}
	free(names.items);
	return error;
}

/* Some file systems cannot exchange two names; then a crash in between leaves the model without either. */
static int names_exchange(const struct files_place *place, const struct files_way *way, const char *fresh,
                          struct file_order *order)
{
	int error;

	if (place->calls->exchange(way->all, fresh, order->directory) == 0)
		return model_aside(place, way, fresh, order);
	if (errno != EINVAL && errno != ENOSYS)
		return files_failed(place, &order->reason, "exchanging", fresh);
	error = model_aside(place, way, order->directory, order);
	if (!error && place->calls->renameat(way->all, fresh, way->all, order->directory) != 0)
		error = files_failed(place, &order->reason, "renaming", fresh);
	if (!error && place->calls->fsync(way->all) != 0)
		error = files_failed(place, &order->reason, "synchronising the directory of", order->directory);
	return error;
}

/* The first generation of another average: those of the one before stay in place until it is whole. */
static int model_replace(const struct files_place *place, const struct files_way *way, struct file_order *order)
{
	struct files_way in = { way->root, way->all, -1 };
	char fresh[ASIDE_NAME_BYTES];
	int error;

	snprintf(fresh, sizeof fresh, "%s%%%%new", order->directory);
	error = fresh_open(place, way, fresh, order, &in.directory);
	if (!error)
		error = generation_write(place, &in, order);
	if (in.directory >= 0)
		place->calls->close(in.directory);
	if (!error)
		return names_exchange(place, way, fresh, order);
	/* What is left in it, the next try finds. */
	(void)place->calls->unlinkat(way->all, fresh, AT_REMOVEDIR);
	return error;
}

static int checkpoint_write(const struct files_place *place, struct file_order *order)
{
	struct files_names names = { NULL, 0, 0 };
	struct files_way way;
	int error;

	if (atomic_load_explicit(place->abandons, memory_order_relaxed))
		return reason_set(&order->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	error = way_make(place, order, &way, &order->reason);
	if (!error)
		error = files_names_list(place, way.directory, true, &names, &order->reason);
	if (!error && order->starts && names.count > 0)
		error = model_replace(place, &way, order);
	else if (!error)
		error = model_continue(place, &way, order, &names);
	files_way_close(place, &way);
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
	struct files_way way;

	generation_name_write(&order->generation, name);
	error = files_way_open(place, order->directory, &way, &order->reason);
	if (!error)
		error = files_step_open(place, way.directory, name, false, &directory, &order->reason);
	/* What a crash has left. */
	if (!error && calls->unlinkat(directory, MANIFEST_NEW, 0) != 0 && errno != ENOENT)
		error = files_failed(place, &order->reason, "removing what was left half-written,", MANIFEST_NEW);
	if (!error)
		error = manifest_write(place, directory, MANIFEST_NEW, order);
	if (!error && calls->renameat(directory, MANIFEST_NEW, directory, FILES_MANIFEST) != 0)
		error = files_failed(place, &order->reason, "renaming", FILES_MANIFEST);
	if (error && directory >= 0)
		(void)calls->unlinkat(directory, MANIFEST_NEW, 0);
	if (!error && calls->fsync(directory) != 0)
		error = files_failed(place, &order->reason, "synchronising the directory of", FILES_MANIFEST);
	if (directory >= 0)
		calls->close(directory);
	files_way_close(place, &way);
	return error;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* The newest generation older than a bound; false: none. */
static bool newest_below(const struct files_names *names, const struct generation_name *bound,
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
	DIR *stream = files_list_open(place, all);
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
	place->calls->closedir(stream);
	return error;
}

/* Reads the manifest of the order's generation; where it is damaged, that goes aside. */
static int generation_look(const struct files_place *place, const struct files_way *way, struct file_order *order)
{
	char name[GENERATION_NAME_BYTES];
	int directory, error;

	generation_name_write(&order->generation, name);
	error = files_step_open(place, way->directory, name, false, &directory, &order->reason);
	if (error == -ENOTDIR || error == -ELOOP)
		error = STATUS_ECORRUPT;
	if (!error) {
		error = files_manifest_read(place, directory, &order->text, &order->text_bytes, &order->reason);
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
static int find_older(const struct files_place *place, struct files_way *way, struct file_order *order, bool *ret_found)
{
	struct files_names names = { NULL, 0, 0 };
	int error = files_step_open(place, way->all, order->directory, false, &way->directory, &order->reason);

	*ret_found = false;
	if (!error)
		error = files_names_list(place, way->directory, false, &names, &order->reason);
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

/* The newest generation of a step or an earlier one, older than a bound. */
static bool newest_until(const struct files_names *names, uint64_t step, struct generation_name *bound)
{
	for (size_t i = names->count; i-- > 0;) {
		if (generation_compare(&names->items[i], bound) >= 0 || names->items[i].step > step)
			continue;
		*bound = names->items[i];
		return true;
	}
	return false;
}

static int generation_seek(const struct files_place *place, struct file_order *order)
{
	struct files_names names = { NULL, 0, 0 };
	struct files_way way;
	int error = files_way_open(place, order->directory, &way, &order->reason);

	if (!error)
		error = files_names_list(place, way.directory, false, &names, &order->reason);
	if (error == -ENOENT || (!error && !newest_until(&names, order->step, &order->generation))) {
		files_names_tell(&names, &order->reason);
		error = 0;
	} else if (!error) {
		error = generation_look(place, &way, order);
	}
	files_way_close(place, &way);
	free(names.items);
	return error;
}

static int generation_find(const struct files_place *place, struct file_order *order)
{
	char next[GENERATION_DIRECTORY_BYTES];
	bool found = false;
	struct files_way way;
	int error = files_way_begin(place, false, false, &way, &order->reason);

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
	files_way_close(place, &way);
	return error;
}

static int item_fill(const struct files_place *place, int directory, const struct file_item *item,
                     struct reason *reason)
{
	char name[GENERATION_FILE_NAME_BYTES];
	uint64_t bytes;
	int fd, error;

	generation_file_name(item->profile, name);
	error = files_file_open(place, directory, name, &bytes, &fd, reason);
	if (error)
		return error;
	if (bytes != item->byte_count)
		error = reason_set(reason, STATUS_ECORRUPT, "%s has %" PRIu64 " bytes, the manifest says %" PRIu64,
		                   name, bytes, item->byte_count);
	if (!error)
		error = files_bytes_read(place, fd, name, item->target, bytes, reason);
	place->calls->close(fd);
	if (!error && layout_checksum(item->target, bytes) != item->checksum)
		error = reason_set(reason, STATUS_ECORRUPT, "%s is damaged: its checksum is %016" PRIx64
		                   ", the manifest says %016" PRIx64, name, layout_checksum(item->target, bytes),
		                   item->checksum);
	return error;
}

/*
 * From now on the generation counts as written. Whoever wrote it may have died before its name was synchronised, or that
 * of its manifest, or of one that was moved out of its way.
 */
static void names_settle(const struct files_place *place, const struct files_way *way, int directory,
                         struct file_order *order)
{
	const struct files_calls *calls = place->calls;

	if (calls->fsync(directory) != 0 || calls->fsync(way->directory) != 0 || calls->fsync(way->all) != 0)
		(void)files_failed(place, &order->reason, "it may be gone after a power cut: synchronising the directory of",
		                   order->directory);
}

static int generation_fill(const struct files_place *place, struct file_order *order)
{
	char name[GENERATION_NAME_BYTES];
	struct files_way way;
	int directory, error = files_way_open(place, order->directory, &way, &order->reason);

	generation_name_write(&order->generation, name);
	if (!error)
		error = files_step_open(place, way.directory, name, false, &directory, &order->reason);
	if (!error) {
		for (uint32_t i = 0; i < order->count && !error; i++)
			error = item_fill(place, directory, &order->items[i], &order->reason);
		if (!error)
			names_settle(place, &way, directory, order);
		place->calls->close(directory);
	}
	if (error == STATUS_ECORRUPT)
		generation_aside(place, &way, order, &order->reason);
	files_way_close(place, &way);
	return error;
}

static int generation_bad(const struct files_place *place, struct file_order *order)
{
	struct files_way way;
	int error = files_way_open(place, order->directory, &way, &order->reason);

	if (!error)
		generation_aside(place, &way, order, &order->reason);
	files_way_close(place, &way);
	return error;
}

void files_generation_do(const struct files_place *place, struct file_order *order)
{
	order->reason.text[0] = '\0';
	switch (order->work) {
	case FILE_KEEP:
	case FILE_BACK:
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
	case FILE_SEEK:
		order->status = generation_seek(place, order);
		break;
	case FILE_LIST:
		order->status = files_list(place, order);
		break;
	case FILE_MARK:
		order->status = files_mark(place, order);
		break;
	}
}
