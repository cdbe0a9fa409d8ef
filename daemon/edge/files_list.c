/*
 * Listing and marking. See files_list.h.
 */
#include "daemon/edge/files_list.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/host.h"
#include "daemon/core/retention.h"
#include "daemon/edge/files_way.h"

static const char MARK[] = "keep";
static const char REASON[] = "reason.txt";

bool files_is_marked(const struct files_place *place, int directory)
{
	int fd = place->calls->openat(directory, MARK, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	bool marked = fd >= 0 || errno != ENOENT;

	if (fd >= 0)
		place->calls->close(fd);
	return marked;
}

/* ---- generations ------------------------------------------------------------------------------------------------- */

/* The size of a file, and when it was written; false where it is none. */
static bool file_look(const struct files_place *place, int directory, const char *name, uint64_t *ret_bytes,
                      uint64_t *ret_wall_us)
{
	int fd = place->calls->openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	struct stat facts;
	bool found;

	if (fd < 0)
		return false;
	found = place->calls->fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode);
	place->calls->close(fd);
	if (found) {
		*ret_bytes = (uint64_t)facts.st_size;
		*ret_wall_us = (uint64_t)facts.st_mtim.tv_sec * 1000000 + (uint64_t)facts.st_mtim.tv_nsec / 1000;
	}
	return found;
}

/* Whether its files are there and of the sizes that the manifest says. */
static bool files_look(const struct files_place *place, int directory, const struct generation_summary *summary,
                       struct listed_generation *at)
{
	bool whole = true;

	for (uint32_t i = 0; i < summary->file_count; i++) {
		char name[GENERATION_FILE_NAME_BYTES];
		uint64_t bytes = 0, wall_us;
		bool found;

		generation_file_name(summary->files[i].profile, name);
		found = file_look(place, directory, name, &bytes, &wall_us);
		at->bytes += bytes;
		if (found && bytes == summary->files[i].bytes)
			continue;
		whole = false;
		snprintf(at->reason, sizeof at->reason, "%s has %" PRIu64 " bytes, its manifest says %" PRIu64, name, bytes,
		         summary->files[i].bytes);
	}
	return whole;
}

static void contents_look(const struct files_place *place, int directory, struct listed_generation *at)
{
	struct generation_summary summary;
	struct reason reason = { "" };
	uint64_t bytes;
	char *text;
	size_t text_bytes;
	int error = files_manifest_read(place, directory, &text, &text_bytes, &reason);

	if (!error) {
		error = generation_summary_read(text, text_bytes, &summary, &reason);
		free(text);
	}
	if (file_look(place, directory, FILES_MANIFEST, &bytes, &at->wall_us))
		at->bytes += bytes;
	if (error) {
		snprintf(at->reason, sizeof at->reason, "%.*s", LISTING_REASON_BYTES - 1,
		         reason.text[0] ? reason.text : status_text(error));
		return;
	}
	at->updates = summary.updates;
	at->whole = files_look(place, directory, &summary, at);
}

/* What was wrong with it when it was set aside, as far as it was written down. */
static void reason_look(const struct files_place *place, int directory, struct listed_generation *at)
{
	struct reason reason;
	uint64_t bytes;
	int fd;

	if (files_file_open(place, directory, REASON, &bytes, &fd, &reason) != 0)
		return;
	if (bytes >= sizeof at->reason)
		bytes = sizeof at->reason - 1;
	memset(at->reason, 0, sizeof at->reason);
	if (files_bytes_read(place, fd, REASON, (uint8_t *)at->reason, bytes, &reason) != 0)
		at->reason[0] = '\0';
	place->calls->close(fd);
	/* Somebody else may have written it: one line, and no control characters. */
	reason_set(&reason, 0, "%.*s", (int)strcspn(at->reason, "\n"), at->reason);
	snprintf(at->reason, sizeof at->reason, "%.*s", LISTING_REASON_BYTES - 1, reason.text);
}

static void generation_look(const struct files_place *place, const struct files_way *way, struct listed_generation *at)
{
	char name[GENERATION_NAME_BYTES], path[GENERATION_NAME_BYTES + 32];
	struct reason reason;
	int directory;

	generation_name_write(&at->name, name);
	if (at->aside_s > 0)
		snprintf(path, sizeof path, "%s.bad-%" PRIu64, name, at->aside_s);
	else
		snprintf(path, sizeof path, "%s", name);
	if (files_step_open(place, way->directory, path, false, &directory, &reason) != 0) {
		snprintf(at->reason, sizeof at->reason, "%.*s", LISTING_REASON_BYTES - 1, reason.text);
		return;
	}
	at->keeps = files_is_marked(place, directory);
	contents_look(place, directory, at);
	if (at->aside_s > 0) {
		at->whole = false;
		reason_look(place, directory, at);
	}
	place->calls->close(directory);
}

/* Newer before older, and what was set aside behind what took its place. */
static int generations_compare(const void *a, const void *b)
{
	const struct listed_generation *left = a, *right = b;
	int order = generation_compare(&right->name, &left->name);

	return order ? order : (left->aside_s > right->aside_s) - (left->aside_s < right->aside_s);
}

/* The newest so far; the oldest gives way when there are more than a listing holds. */
static void generation_add(struct listing *listing, const struct listed_generation *one)
{
	uint32_t oldest = 0;

	if (listing->generation_count < LISTING_GENERATION_COUNT_MAX) {
		listing->generations[listing->generation_count++] = *one;
		return;
	}
	listing->generations_left_out++;
	for (uint32_t i = 1; i < listing->generation_count; i++)
		if (generations_compare(&listing->generations[i], &listing->generations[oldest]) > 0)
			oldest = i;
	if (generations_compare(one, &listing->generations[oldest]) < 0)
		listing->generations[oldest] = *one;
}

static int generations_list(const struct files_place *place, struct file_order *order)
{
	struct listing *listing = order->listing;
	struct files_way way;
	const struct dirent *entry;
	int error = files_way_open(place, order->directory, &way, &order->reason);
	DIR *stream = error ? NULL : files_list_open(place, way.directory);

	if (!error && !stream)
		error = files_failed(place, &order->reason, "listing", order->directory);
	while (stream && (errno = 0, entry = place->calls->readdir(stream))) {
		struct listed_generation one = { .whole = false };

		if (generation_name_parse(entry->d_name, &one.name) ||
		    generation_aside_parse(entry->d_name, &one.name, &one.aside_s))
			generation_add(listing, &one);
	}
	if (!error && errno != 0)
		error = files_failed(place, &order->reason, "listing", order->directory);
	if (stream)
		place->calls->closedir(stream);
	qsort(listing->generations, listing->generation_count, sizeof listing->generations[0], generations_compare);
	for (uint32_t i = 0; i < listing->generation_count && !error; i++)
		generation_look(place, &way, &listing->generations[i]);
	files_way_close(place, &way);
	return error == -ENOENT ? 0 : error;
}

/* ---- kept averages ----------------------------------------------------------------------------------------------- */

static int snapshots_compare(const void *a, const void *b)
{
	const struct listed_snapshot *left = a, *right = b;

	if (left->step != right->step)
		return left->step < right->step ? 1 : -1;
	return (left->item > right->item) - (left->item < right->item);
}

static void snapshot_add(struct listing *listing, const struct listed_snapshot *one)
{
	uint32_t oldest = 0;

	if (listing->snapshot_count < LISTING_SNAPSHOT_COUNT_MAX) {
		listing->snapshots[listing->snapshot_count++] = *one;
		return;
	}
	listing->snapshots_left_out++;
	for (uint32_t i = 1; i < listing->snapshot_count; i++)
		if (snapshots_compare(&listing->snapshots[i], &listing->snapshots[oldest]) > 0)
			oldest = i;
	if (snapshots_compare(one, &listing->snapshots[oldest]) < 0)
		listing->snapshots[oldest] = *one;
}

/* Goes down an item's path; nothing is made on the way. */
static int path_open(const struct files_place *place, int root, const char *path, int *ret_directory,
                     struct reason *reason)
{
	char name[FILE_DIRECTORY_BYTES_MAX];
	int parent = root, error = 0;

	while (!error && *path) {
		size_t bytes = strcspn(path, "/");
		int directory = -1;

		snprintf(name, sizeof name, "%.*s", (int)bytes, path);
		error = files_step_open(place, parent, name, false, &directory, reason);
		if (parent != root)
			place->calls->close(parent);
		parent = directory;
		path += bytes + (path[bytes] == '/');
	}
	if (!error)
		*ret_directory = parent;
	return error;
}

static int snapshots_list(const struct files_place *place, struct file_order *order, int root, uint32_t index)
{
	const struct file_item *item = &order->items[index];
	const struct dirent *entry;
	int directory, error = path_open(place, root, item->directory, &directory, &order->reason);
	DIR *stream;

	if (error)
		return error == -ENOENT ? 0 : error;
	stream = files_list_open(place, directory);
	if (!stream)
		error = files_failed(place, &order->reason, "listing", item->directory);
	while (stream && (errno = 0, entry = place->calls->readdir(stream))) {
		struct listed_snapshot one = { .item = index };

		if (retention_name_parse(entry->d_name, &one.step) &&
		    file_look(place, directory, entry->d_name, &one.bytes, &one.wall_us))
			snapshot_add(order->listing, &one);
	}
	if (!error && errno != 0)
		error = files_failed(place, &order->reason, "listing", item->directory);
	if (stream)
		place->calls->closedir(stream);
	place->calls->close(directory);
	return error;
}

int files_list(const struct files_place *place, struct file_order *order)
{
	int root, error;

	order->listing = calloc(1, sizeof *order->listing);
	if (!order->listing)
		return -ENOMEM;
	error = generations_list(place, order);
	if (!error)
		error = files_root_open(place, false, &order->reason, &root);
	if (error)
		return error == -ENOENT ? 0 : error;
	for (uint32_t i = 0; i < order->count && !error; i++)
		error = snapshots_list(place, order, root, i);
	place->calls->close(root);
	qsort(order->listing->snapshots, order->listing->snapshot_count, sizeof order->listing->snapshots[0],
	      snapshots_compare);
	return error;
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

static int mark_set(const struct files_place *place, int directory, bool marks, struct reason *reason)
{
	const int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd, error = 0;

	if (marks) {
		fd = place->calls->openat(directory, MARK, flags, 0666);
		if (fd < 0)
			return files_failed(place, reason, "making", MARK);
		place->calls->close(fd);
	} else if (place->calls->unlinkat(directory, MARK, 0) != 0 && errno != ENOENT) {
		return files_failed(place, reason, "removing", MARK);
	}
	if (place->calls->fsync(directory) != 0)
		error = files_failed(place, reason, "synchronising the directory of", MARK);
	return error;
}

int files_mark(const struct files_place *place, struct file_order *order)
{
	struct files_names names = { NULL, 0, 0 };
	char name[GENERATION_NAME_BYTES];
	const struct generation_name *found = NULL;
	struct files_way way;
	int directory, error = files_way_open(place, order->directory, &way, &order->reason);

	if (!error)
		error = files_names_list(place, way.directory, false, &names, &order->reason);
	for (size_t i = 0; i < names.count && !error; i++)
		if (names.items[i].step == order->step)
			found = &names.items[i];
	if ((!error && !found) || error == -ENOENT) {
		files_names_tell(&names, &order->reason);
		error = STATUS_ENOVERSION;
	}
	if (!error) {
		order->generation = *found;
		generation_name_write(found, name);
		error = files_step_open(place, way.directory, name, false, &directory, &order->reason);
	}
	if (!error) {
		error = mark_set(place, directory, order->marks, &order->reason);
		place->calls->close(directory);
	}
	files_way_close(place, &way);
	free(names.items);
	return error;
}
