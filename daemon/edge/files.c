/*
 * Writing, moving aside, thinning. See files.h.
 */
#include "daemon/edge/files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "daemon/core/retention.h"
#include "daemon/edge/files_generation.h"
#include "daemon/edge/files_pace.h"
#include "daemon/edge/files_place.h"
#include "daemon/edge/files_write.h"

enum {
	TEMPORARY_NAME_BYTES = RETENTION_NAME_BYTES + 8,
	NAME_BYTES_MAX = 256,
	NICENESS = 10, /* a tenth of a processor where all are wanted, and the disk after others */
};

struct queue {
	struct file_order *first, **end;
};

struct files {
	const char *state_dir;           /* borrowed */
	const struct files_calls *calls; /* borrowed */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* its clock is the monotonic one */
	struct queue todo;   /* guarded by lock */
	struct queue done;   /* guarded by lock */
	bool stopping;       /* guarded by lock */
	bool ended;          /* guarded by lock; the thread touches nothing any more */
	bool deserted;       /* guarded by lock; nobody waits for the thread any more */
	struct files_pace *pace; /* owned */
	atomic_bool draining; /* orders that have not begun are given back */
	atomic_bool abandons; /* the file under way is given up too */
	void (*wake)(void *context);
	void *wake_context;
	int (*claim)(void *context, struct reason *reason); /* NULL: none */
	void *claim_context;
};

/* ---- directories ------------------------------------------------------------------------------------------------- */

static struct files_place place_of(const struct files *files, const char *space_hint)
{
	return (struct files_place){
		.state_dir = files->state_dir,
		.calls = files->calls,
		.abandons = &files->abandons,
		.space_hint = space_hint,
		.pace = files->pace,
		.claim = files->claim,
		.claim_context = files->claim_context,
	};
}

static struct files_place snapshots_place(const struct files *files)
{
	return place_of(files, "; make room, set keep= to thin what is kept, or use a larger snapshot=");
}

/* What a call of an item failed at, as its sentence. */
static int failed(const struct files *files, struct file_item *item, const char *what, const char *name)
{
	const struct files_place place = snapshots_place(files);

	return files_failed(&place, &item->reason, what, name);
}

static int root_open(const struct files *files, struct file_item *item, int *ret_root)
{
	const struct files_place place = snapshots_place(files);

	return files_root_open(&place, true, &item->reason, ret_root);
}

static int directory_open(const struct files *files, int parent, const char *name, bool *ret_made)
{
	const struct files_place place = snapshots_place(files);

	return files_directory_open(&place, parent, name, true, ret_made);
}

/* An item's directory and the one that it is in. */
struct place {
	int root, parent, directory; /* -1: closed */
	char name[NAME_BYTES_MAX];   /* of the directory in its parent */
};

static void place_close(const struct files *files, struct place *place)
{
	if (place->directory >= 0)
		files->calls->close(place->directory);
	if (place->parent >= 0 && place->parent != place->root)
		files->calls->close(place->parent);
	if (place->root >= 0)
		files->calls->close(place->root);
	*place = (struct place){ .root = -1, .parent = -1, .directory = -1 };
}

/* Goes down the item's path, which has one directory at least. On failure place_close is right. */
static int place_open(const struct files *files, struct file_item *item, struct place *place)
{
	const char *at = item->directory;
	int error = root_open(files, item, &place->root);
	bool made;

	while (!error && *at) {
		size_t bytes = strcspn(at, "/");

		if (place->parent >= 0 && place->parent != place->root)
			files->calls->close(place->parent);
		place->parent = place->directory >= 0 ? place->directory : place->root;
		snprintf(place->name, sizeof place->name, "%.*s", (int)bytes, at);
		place->directory = directory_open(files, place->parent, place->name, &made);
		if (place->directory < 0)
			return failed(files, item, "opening the directory", item->directory);
		/* Its name must outlive a power cut, or the files in it do not; whoever made it may have died since. */
		if (files->calls->fsync(place->parent) != 0)
			return failed(files, item, "synchronising the parent of", item->directory);
		at += bytes + (at[bytes] == '/');
	}
	return error;
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

struct steps {
	uint64_t *items; /* owned; ascending */
	size_t count, capacity;
};

static int steps_add(struct steps *steps, uint64_t step)
{
	if (steps->count == steps->capacity) {
		size_t capacity = steps->capacity ? 2 * steps->capacity : 64;
		uint64_t *items = reallocarray(steps->items, capacity, sizeof *items);

		if (!items)
			return -1;
		steps->items = items;
		steps->capacity = capacity;
	}
	steps->items[steps->count++] = step;
	return 0;
}

static int steps_compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static bool is_temporary(const char *name)
{
	size_t bytes = strlen(name);
	uint64_t step;
	char inner[RETENTION_NAME_BYTES] = "";

	if (name[0] != '.' || bytes != RETENTION_NAME_BYTES + 4 || strcmp(name + bytes - 4, ".tmp") != 0)
		return false;
	memcpy(inner, name + 1, RETENTION_NAME_BYTES - 1);
	return retention_name_parse(inner, &step);
}

/* The steps that the directory holds; what was left half-written there is removed. */
static int place_list(const struct files *files, const struct place *place, struct file_item *item,
                      struct steps *steps)
{
	const struct files_calls *calls = files->calls;
	int fd = calls->openat(place->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), error = 0;
	DIR *stream = fd >= 0 ? calls->fdopendir(fd) : NULL;
	const struct dirent *entry;
	uint64_t step;

	if (!stream) {
		error = failed(files, item, "listing", item->directory);
		if (fd >= 0)
			calls->close(fd);
		return error;
	}
	while (!error && (errno = 0, entry = calls->readdir(stream))) {
		if (is_temporary(entry->d_name) && calls->unlinkat(place->directory, entry->d_name, 0) != 0)
			error = failed(files, item, "removing what was left half-written,", entry->d_name);
		else if (retention_name_parse(entry->d_name, &step) && steps_add(steps, step) != 0)
			error = failed(files, item, "listing", item->directory);
	}
	if (!error && errno != 0)
		error = failed(files, item, "listing", item->directory);
	calls->closedir(stream);
	if (steps->count > 0)
		qsort(steps->items, steps->count, sizeof *steps->items, steps_compare);
	return error;
}

/*
 * Moves the files of another average, or of steps that were taken back, out of the way: "ema" into
 * "ema.old-1790000000". They are not ours to delete, and among those to come they would pass for one training's.
 */
static int place_aside(const struct files *files, const struct place *place, const struct file_order *order,
                       struct file_item *item, struct steps *steps)
{
	const struct files_calls *calls = files->calls;
	char aside[NAME_BYTES_MAX + 32], name[RETENTION_NAME_BYTES];
	size_t kept_count = 0;
	int directory, error = 0;
	bool made = false;

	while (!item->starts && kept_count < steps->count && steps->items[kept_count] <= order->step)
		kept_count++;
	if (kept_count == steps->count)
		return 0;
	snprintf(aside, sizeof aside, "%s.old-%" PRIu64, place->name, order->wall_us / 1000000);
	directory = directory_open(files, place->parent, aside, &made);
	if (directory < 0)
		return failed(files, item, "moving earlier files aside into", aside);
	for (size_t i = kept_count; i < steps->count && !error; i++) {
		retention_name_write(steps->items[i], name);
		if (calls->renameat(place->directory, name, directory, name) != 0)
			error = failed(files, item, "moving an earlier file aside,", name);
	}
	calls->close(directory);
	steps->count = error ? steps->count : kept_count;
	return error;
}

/* The sentence of a failure stays with the item as a warning: its own file is there. */
static void place_thin(const struct files *files, const struct place *place, const struct file_order *order,
                       struct file_item *item, struct steps *steps)
{
	char name[RETENTION_NAME_BYTES];
	bool *goes;

	if (item->keep_count == 0)
		return;
	if ((steps->count == 0 || steps->items[steps->count - 1] != order->step) && steps_add(steps, order->step) != 0)
		return;
	goes = calloc(steps->count, sizeof *goes);
	if (!goes)
		return;
	(void)retention_thin(steps->items, steps->count, item->interval, item->keep_count, goes);
	for (size_t i = 0; i < steps->count; i++) {
		retention_name_write(steps->items[i], name);
		if (goes[i] && files->calls->unlinkat(place->directory, name, 0) != 0 && errno != ENOENT)
			(void)failed(files, item, "an earlier file could not be removed,", name);
	}
	free(goes);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int file_write(const struct files *files, const struct place *place, const struct file_order *order,
                      struct file_item *item)
{
	const struct files_calls *calls = files->calls;
	const struct files_place files_place = snapshots_place(files);
	char name[RETENTION_NAME_BYTES], temporary[TEMPORARY_NAME_BYTES];
	const struct files_content content = { name, item->bytes, item->byte_count, NULL, NULL };
	int error;

	retention_name_write(order->step, name);
	snprintf(temporary, sizeof temporary, ".%s.tmp", name);
	error = files_file_write(&files_place, place->directory, temporary, &content, &item->reason);
	if (!error && calls->renameat(place->directory, temporary, place->directory, name) != 0)
		error = failed(files, item, "renaming", name);
	if (error) {
		/* What cannot be removed now is when the directory is next written to. */
		(void)calls->unlinkat(place->directory, temporary, 0);
		return error;
	}
	if (calls->fsync(place->directory) != 0) {
		error = failed(files, item, "synchronising the directory of", name);
		(void)calls->unlinkat(place->directory, name, 0);
	}
	return error;
}

/* Files of later steps alone. */
static int item_back(const struct files *files, const struct file_order *order, struct file_item *item)
{
	struct place place = { .root = -1, .parent = -1, .directory = -1 };
	struct steps steps = { 0 };
	int error = place_open(files, item, &place);

	if (!error)
		error = place_list(files, &place, item, &steps);
	if (!error)
		error = place_aside(files, &place, order, item, &steps);
	item->step_left = steps.count > 0 ? steps.items[steps.count - 1] : UINT64_MAX;
	place_close(files, &place);
	free(steps.items);
	return error;
}

static int item_do(const struct files *files, const struct file_order *order, struct file_item *item)
{
	struct place place = { .root = -1, .parent = -1, .directory = -1 };
	struct steps steps = { 0 };
	int error = place_open(files, item, &place);

	if (!error)
		error = place_list(files, &place, item, &steps);
	if (!error)
		error = place_aside(files, &place, order, item, &steps);
	if (!error)
		error = file_write(files, &place, order, item);
	if (!error)
		place_thin(files, &place, order, item, &steps);
	place_close(files, &place);
	free(steps.items);
	return error;
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void queue_init(struct queue *queue)
{
	queue->first = NULL;
	queue->end = &queue->first;
}

static void queue_append(struct queue *queue, struct file_order *order)
{
	order->next = NULL;
	*queue->end = order;
	queue->end = &order->next;
}

static struct file_order *queue_take(struct queue *queue)
{
	struct file_order *order = queue->first;

	if (order)
		queue->first = order->next;
	if (!queue->first)
		queue->end = &queue->first;
	return order;
}

/*
 * An order that has begun is finished, unless the daemon's time is up. What is kept along the way can be left out when
 * it ends; a checkpoint is what makes the end orderly.
 */
static void order_do(const struct files *files, struct file_order *order)
{
	const struct files_place place = place_of(files, "; make room, or lower checkpoint-keep");
	bool begins = !atomic_load_explicit(&files->draining, memory_order_relaxed);

	if (order->work != FILE_KEEP && order->work != FILE_BACK) {
		files_generation_do(&place, order);
		return;
	}
	for (uint32_t i = 0; i < order->count; i++) {
		struct file_item *item = &order->items[i];

		item->reason.text[0] = '\0';
		if (order->work == FILE_BACK)
			item->status = item_back(files, order, item);
		else if (begins && !atomic_load_explicit(&files->abandons, memory_order_relaxed))
			item->status = item_do(files, order, item);
		else
			item->status = reason_set(&item->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	}
}

static void *run(void *context)
{
	struct files *files = context;

	/* The updates go first; where that is not allowed all are equal. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
	pthread_mutex_lock(&files->lock);
	for (;;) {
		struct file_order *order = queue_take(&files->todo);

		if (!order && files->stopping)
			break;
		if (!order) {
			pthread_cond_wait(&files->cond, &files->lock);
			continue;
		}
		pthread_mutex_unlock(&files->lock);
		order_do(files, order);
		pthread_mutex_lock(&files->lock);
		queue_append(&files->done, order);
		/* Under the lock, so that it is over when files_stop returns. */
		if (!files->deserted)
			files->wake(files->wake_context);
	}
	files->ended = true;
	pthread_cond_broadcast(&files->cond);
	pthread_mutex_unlock(&files->lock);
	return NULL;
}

static void files_free(struct files *files)
{
	files_pace_finish(files->pace);
	free(files->pace);
	pthread_cond_destroy(&files->cond);
	pthread_mutex_destroy(&files->lock);
	free(files);
}

int files_start(const char *state_dir, const struct files_calls *calls, void (*wake)(void *context), void *context,
                struct files **ret_files)
{
	struct files *files = calloc(1, sizeof *files);
	pthread_condattr_t attributes;
	int error;

	if (files)
		files->pace = calloc(1, sizeof *files->pace);
	if (!files || !files->pace) {
		free(files);
		return -ENOMEM;
	}
	pthread_mutex_init(&files->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&files->cond, &attributes);
	pthread_condattr_destroy(&attributes);
	queue_init(&files->todo);
	queue_init(&files->done);
	files_pace_init(files->pace);
	files->state_dir = state_dir;
	files->calls = calls;
	files->wake = wake;
	files->wake_context = context;
	error = pthread_create(&files->thread, NULL, run, files);
	if (error) {
		files_free(files);
		return -error;
	}
	(void)pthread_setname_np(files->thread, "emad-files");
	*ret_files = files;
	return 0;
}

void files_guard(struct files *files, int (*claim)(void *context, struct reason *reason), void *context)
{
	files->claim = claim;
	files->claim_context = context;
}

void files_write(struct files *files, struct file_order *order)
{
	pthread_mutex_lock(&files->lock);
	queue_append(&files->todo, order);
	pthread_cond_signal(&files->cond);
	pthread_mutex_unlock(&files->lock);
}

void files_poll(struct files *files, void (*written)(void *context, struct file_order *order), void *context)
{
	struct file_order *order;

	do {
		pthread_mutex_lock(&files->lock);
		order = queue_take(&files->done);
		pthread_mutex_unlock(&files->lock);
		if (order)
			written(context, order);
	} while (order);
}

void files_drain(struct files *files)
{
	atomic_store_explicit(&files->draining, true, memory_order_relaxed);
	files_pace_end(files->pace);
}

void files_limit(struct files *files, uint64_t bytes_per_s)
{
	files_pace_set(files->pace, bytes_per_s);
}

/* The time after that many milliseconds from now. */
static struct timespec time_after(uint32_t timeout_ms)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_sec += timeout_ms / 1000;
	time.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (time.tv_nsec >= 1000000000L) {
		time.tv_sec++;
		time.tv_nsec -= 1000000000L;
	}
	return time;
}

bool files_stop(struct files *files, uint32_t timeout_ms)
{
	struct timespec until = time_after(timeout_ms);
	bool ended;

	if (!files)
		return true;
	atomic_store_explicit(&files->abandons, true, memory_order_relaxed);
	files_drain(files);
	pthread_mutex_lock(&files->lock);
	files->stopping = true;
	pthread_cond_broadcast(&files->cond);
	while (!files->ended && pthread_cond_timedwait(&files->cond, &files->lock, &until) == 0)
		;
	ended = files->ended;
	files->deserted = !ended;
	pthread_mutex_unlock(&files->lock);
	if (!ended)
		return false;
	pthread_join(files->thread, NULL);
	files_free(files);
	return true;
}
