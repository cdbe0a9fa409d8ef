/*
 * The thread that makes and drops segments, and finding those of an earlier daemon. See memory.h.
 */
#include "daemon/edge/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/core/failpoint.h"
#include "daemon/edge/memory_directory.h"
#include "daemon/edge/memory_group.h"
#include "daemon/edge/memory_segment.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
	HUGE_PAGE_BYTES = 2 * 1024 * 1024, /* smaller segments are not worth it */
	SPARE_BYTES = 64 * 1024 * 1024,
	COLLAPSE_BYTES = 16 * 1024 * 1024, /* at a time, so that orders do not wait long */
};

struct queue {
	struct segment_order *first, **end;
};

/* A segment whose pages are still to be made huge. */
struct small_paged {
	struct small_paged *next;
	uint8_t *base;
	uint64_t bytes, done_bytes;
	bool unmapped; /* its pages are there, but not yet in our tables */
	bool hopeless; /* they cannot be made huge */
};

struct memory_maker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct queue todo;             /* guarded by lock; epochs from DROP up are not registrations */
	struct queue done;             /* guarded by lock */
	bool stopping;                 /* guarded by lock */
	bool leaves;                   /* the loop thread's */
	struct small_paged *small_paged; /* owned; the thread's own */
	struct memory_directory directory;
	struct memory_options options;
};

/* ---- segments ---------------------------------------------------------------------------------------------------- */

/* So that the next daemon finds it. The first failure of an order is told with it. */
static void segment_keep(const struct memory_maker *maker, const struct memory *memory, struct reason *reason)
{
	char name[MEMORY_NAME_BYTES];
	int error;

	if (!maker->options.keep)
		return;
	memory_segment_name(memory->segment, name);
	error = maker->options.keep(maker->options.context, name, memory->fd);
	if (error && !reason->text[0])
		reason_set(reason, error, "%s (%" PRIu64 " bytes) could not be stored for a restart: %s", name, memory->bytes,
		           strerror(-error));
}

/* So that it is gone wherever it may have been kept: a directory can be newer than a segment. */
static void name_forget(const struct memory_maker *maker, const char *name)
{
	if (maker->directory.fd >= 0)
		unlinkat(maker->directory.fd, name, 0);
	if (maker->options.forget)
		maker->options.forget(maker->options.context, name);
}

static void segment_give_back(const struct memory_maker *maker, struct memory *memory)
{
	char name[MEMORY_NAME_BYTES];

	memory_segment_name(memory->segment, name);
	name_forget(maker, name);
	FAILPOINT("segment-forgotten");
	memory_segment_close(memory);
}

static void order_fulfil(const struct memory_maker *maker, struct segment_order *order)
{
	uint64_t need = 0, have = memory_available_bytes();

	for (uint32_t i = 0; i < order->count; i++)
		need += order->memory[i].bytes;
	order->status = 0;
	if (have < need || have - need < SPARE_BYTES) {
		order->status = reason_set(&order->reason, STATUS_EMEMORY,
		                           "%" PRIu64 " bytes are needed and %" PRIu64
		                           " are available on this host (%d are kept spare): free some memory, or use "
		                           "fewer slots or stages",
		                           need, have, SPARE_BYTES);
		return;
	}
	if (maker->directory.fd >= 0)
		order->status = memory_directory_check(&maker->directory, need, &order->reason);
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++) {
		uint64_t bytes = order->memory[i].bytes;
		int error = memory_segment_make(&order->memory[i], order->label, maker->directory.fd);

		if (!error)
			continue;
		order->status = reason_set(&order->reason, error == -ENOSPC || error == -ENOMEM ? STATUS_EMEMORY : error,
		                           "a segment of %" PRIu64 " bytes could not be made%s%.200s: %s", bytes,
		                           maker->directory.fd >= 0 ? " in " : "",
		                           maker->directory.fd >= 0 ? maker->directory.path : "", strerror(-error));
		while (i-- > 0)
			segment_give_back(maker, &order->memory[i]);
	}
	if (order->status != 0)
		return;
	for (uint32_t i = 0; i < order->count; i++) {
		if (maker->directory.fd < 0)
			segment_keep(maker, &order->memory[i], &order->reason);
		/* Best effort: the first update need not fault. */
		(void)madvise(order->memory[i].base, order->memory[i].bytes, MADV_POPULATE_WRITE);
	}
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Mark orders that make nothing; no registration has these epochs. */
#define DROP (UINT64_MAX - 2)  /* gives a segment back */
#define LEAVE (UINT64_MAX - 1) /* lets go of it, and leaves it to the next daemon */
#define TEND UINT64_MAX        /* makes the pages of one that was taken over huge */

static void queue_init(struct queue *queue)
{
	queue->first = NULL;
	queue->end = &queue->first;
}

static void queue_append(struct queue *queue, struct segment_order *order)
{
	order->next = NULL;
	*queue->end = order;
	queue->end = &order->next;
}

static struct segment_order *queue_take(struct queue *queue)
{
	struct segment_order *order = queue->first;

	if (order)
		queue->first = order->next;
	if (!queue->first)
		queue->end = &queue->first;
	return order;
}

static void order_give_back(const struct memory_maker *maker, struct segment_order *order)
{
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++)
		segment_give_back(maker, &order->memory[i]);
	free(order);
}

/*
 * Huge pages spare updates a good part of their address translation (measured: a fifth of the time), but the kernel
 * takes a second or more a gigabyte to make them from small ones. So the memory is handed out first, and made huge
 * when there is nothing else to do. All of it is best effort.
 */
static void collapse_later(struct memory_maker *maker, const struct memory *memory, bool unmapped)
{
	struct small_paged *small = memory->bytes < HUGE_PAGE_BYTES ? NULL : malloc(sizeof *small);

	if (!small)
		return;
	*small = (struct small_paged){
		.next = maker->small_paged,
		.base = memory->base,
		.bytes = memory->bytes,
		.unmapped = unmapped,
	};
	maker->small_paged = small;
}

static void collapse_forget(struct memory_maker *maker, const uint8_t *base)
{
	struct small_paged **link = &maker->small_paged;

	while (*link && (*link)->base != base)
		link = &(*link)->next;
	if (*link) {
		struct small_paged *small = *link;

		*link = small->next;
		free(small);
	}
}

static void collapse_some(struct memory_maker *maker)
{
	struct small_paged *small = maker->small_paged;
	uint64_t left = small->bytes - small->done_bytes;
	uint64_t bytes = left < COLLAPSE_BYTES ? left : COLLAPSE_BYTES;

	if (small->unmapped)
		(void)madvise(small->base + small->done_bytes, bytes, MADV_POPULATE_WRITE);
	/* EAGAIN and EBUSY: a page of it was in use just now; the rest is worth going on. */
	if (!small->hopeless && madvise(small->base + small->done_bytes, bytes, MADV_COLLAPSE) != 0)
		small->hopeless = errno != EAGAIN && errno != EBUSY;
	small->done_bytes += bytes;
	if (bytes == left || (small->hopeless && !small->unmapped))
		collapse_forget(maker, small->base);
}

/* An order about one segment that is there. */
static void order_settle(struct memory_maker *maker, struct segment_order *order)
{
	struct memory *memory = &order->memory[0];

	if (order->epoch == TEND) {
		collapse_later(maker, memory, true);
	} else {
		collapse_forget(maker, memory->base);
		if (order->epoch == DROP)
			segment_give_back(maker, memory);
		else
			memory_segment_close(memory);
	}
	free(order);
}

static void order_do(struct memory_maker *maker, struct segment_order *order)
{
	if (order->epoch >= DROP) {
		order_settle(maker, order);
		return;
	}
	order_fulfil(maker, order);
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++)
		collapse_later(maker, &order->memory[i], false);
	pthread_mutex_lock(&maker->lock);
	queue_append(&maker->done, order);
	pthread_mutex_unlock(&maker->lock);
	maker->options.wake(maker->options.context);
}

static void *run(void *context)
{
	struct memory_maker *maker = context;

	pthread_mutex_lock(&maker->lock);
	for (;;) {
		struct segment_order *order = queue_take(&maker->todo);

		if (!order && maker->stopping)
			break;
		if (!order && !maker->small_paged) {
			pthread_cond_wait(&maker->cond, &maker->lock);
			continue;
		}
		pthread_mutex_unlock(&maker->lock);
		if (order)
			order_do(maker, order);
		else
			collapse_some(maker);
		pthread_mutex_lock(&maker->lock);
	}
	pthread_mutex_unlock(&maker->lock);
	return NULL;
}

static void disk_warn(const struct memory_maker *maker)
{
	char text[512];

	snprintf(text, sizeof text,
	         "the segments directory '%.200s' is not on a tmpfs: the kernel writes all that is averaged back to its disk, "
	         "again and again, and updates wait for it; mount a tmpfs there, or use /dev/shm/emad",
	         maker->directory.path);
	maker->options.say(maker->options.context, EVENT_WARNING, text);
}

int memory_start(const struct memory_options *options, struct memory_maker **ret_maker, struct reason *reason)
{
	struct memory_maker *maker = calloc(1, sizeof *maker);
	int error = 0;

	if (!maker)
		return reason_set(reason, -ENOMEM, "not enough memory to start");
	maker->options = *options;
	maker->directory.fd = -1;
	if (options->directory && options->directory[0])
		error = memory_directory_open(options->directory, &maker->directory, reason);
	if (error) {
		free(maker);
		return error;
	}
	if (maker->directory.fd >= 0 && !maker->directory.is_memory)
		disk_warn(maker);
	pthread_mutex_init(&maker->lock, NULL);
	pthread_cond_init(&maker->cond, NULL);
	queue_init(&maker->todo);
	queue_init(&maker->done);
	error = pthread_create(&maker->thread, NULL, run, maker);
	if (error) {
		memory_directory_close(&maker->directory);
		free(maker);
		return reason_set(reason, -error, "the thread that makes segments cannot be made: %s (see the limit on tasks)",
		                  strerror(error));
	}
	*ret_maker = maker;
	return 0;
}

void memory_stop(struct memory_maker *maker)
{
	struct segment_order *order;

	if (!maker)
		return;
	pthread_mutex_lock(&maker->lock);
	maker->stopping = true;
	pthread_cond_signal(&maker->cond);
	pthread_mutex_unlock(&maker->lock);
	pthread_join(maker->thread, NULL);
	while ((order = queue_take(&maker->done)))
		order_give_back(maker, order);
	while (maker->small_paged)
		collapse_forget(maker, maker->small_paged->base);
	pthread_cond_destroy(&maker->cond);
	pthread_mutex_destroy(&maker->lock);
	memory_directory_close(&maker->directory);
	free(maker);
}

void memory_make(struct memory_maker *maker, struct segment_order *order)
{
	pthread_mutex_lock(&maker->lock);
	queue_append(&maker->todo, order);
	pthread_cond_signal(&maker->cond);
	pthread_mutex_unlock(&maker->lock);
}

/* Has the thread do something about a segment; false when there is no memory to tell it. */
static bool segment_pass(struct memory_maker *maker, uint64_t epoch, const struct memory *memory)
{
	struct segment_order *order = calloc(1, sizeof *order);

	if (!order)
		return false;
	order->epoch = epoch;
	order->count = 1;
	order->memory[0] = *memory;
	memory_make(maker, order);
	return true;
}

void memory_drop(struct memory_maker *maker, struct memory *memory)
{
	if (segment_pass(maker, maker->leaves ? LEAVE : DROP, memory))
		*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
	else if (maker->leaves)
		memory_segment_close(memory);
	else
		segment_give_back(maker, memory);
}

void memory_leave(struct memory_maker *maker)
{
	maker->leaves = true;
}

void memory_poll(struct memory_maker *maker, void (*made)(void *context, struct segment_order *order), void *context)
{
	struct segment_order *order;

	do {
		pthread_mutex_lock(&maker->lock);
		order = queue_take(&maker->done);
		pthread_mutex_unlock(&maker->lock);
		if (order)
			made(context, order);
	} while (order);
}

/* ---- what an earlier daemon has left ----------------------------------------------------------------------------- */

struct finding {
	struct memory_maker *maker;
	struct memory_found found;
	uint32_t capacity;
	struct reason *reason;
};

static void say(const struct memory_maker *maker, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(const struct memory_maker *maker, const char *format, ...)
{
	char text[768];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	maker->options.say(maker->options.context, EVENT_WARNING, text);
}

static bool is_known(const struct memory_found *found, uint64_t segment)
{
	for (uint32_t i = 0; i < found->count; i++)
		if (found->segments[i].segment == segment)
			return true;
	return false;
}

static int finding_append(struct finding *finding, const struct memory *memory)
{
	struct memory_found *found = &finding->found;

	if (found->count == finding->capacity) {
		uint32_t capacity = finding->capacity ? 2 * finding->capacity : 64;
		struct memory *segments = reallocarray(found->segments, capacity, sizeof *segments);

		if (!segments)
			return reason_set(finding->reason, -ENOMEM, "not enough memory to start");
		found->segments = segments;
		finding->capacity = capacity;
	}
	found->segments[found->count++] = *memory;
	found->bytes += memory->bytes;
	return 0;
}

/* Takes the descriptor. What cannot be used is said and forgotten; a shortage of our own loses nothing: -errno. */
static int finding_add(struct finding *finding, const char *name, int fd, bool is_file)
{
	struct memory_maker *maker = finding->maker;
	struct reason detail;
	struct memory memory;
	uint64_t segment;
	int error;

	if (!memory_segment_identity(name, &segment)) {
		say(maker, "'%.200s' was handed over by the service manager, and is nothing that emad knows: it is closed",
		    name);
		close(fd);
		return 0;
	}
	if (is_known(&finding->found, segment)) {
		say(maker, "%s was found twice: the second one is left alone", name);
		close(fd);
		return 0;
	}
	error = memory_segment_take(fd, segment, !is_file, &memory, &detail);
	if (error == STATUS_ECORRUPT) {
		say(maker, "%s, left by an earlier daemon%s%.200s, cannot be used and is removed: %s", name,
		    is_file ? " in " : "", is_file ? maker->directory.path : "", detail.text);
		name_forget(maker, name);
		return 0;
	}
	if (error)
		return reason_set(finding->reason, error, "%s, left by an earlier daemon, cannot be taken over: %.400s", name,
		                  detail.text);
	error = finding_append(finding, &memory);
	if (error) {
		memory_segment_close(&memory);
		return error;
	}
	finding->found.file_count += is_file;
	/* The loop maps, and does not wait for pages. */
	(void)segment_pass(maker, TEND, &memory);
	return 0;
}

static int on_found(void *context, const char *name, int fd)
{
	return finding_add(context, name, fd, true);
}

static void on_strange(void *context, const char *name, const struct reason *reason)
{
	const struct memory_maker *maker = ((struct finding *)context)->maker;

	say(maker, "'%.200s/%.200s' is left alone: %.200s", maker->directory.path, name, reason->text);
}

int memory_find(struct memory_maker *maker, const struct memory_kept *kept, uint32_t kept_count,
                struct memory_found *ret_found, struct reason *reason)
{
	struct finding finding = { .maker = maker, .reason = reason };
	const struct memory_directory_reader reader = { &finding, on_found, on_strange };
	int error = 0;

	for (uint32_t i = 0; i < kept_count; i++) {
		if (error)
			close(kept[i].fd);
		else
			error = finding_add(&finding, kept[i].name, kept[i].fd, false);
	}
	if (!error && maker->directory.fd >= 0)
		error = memory_directory_read(&maker->directory, &reader, reason);
	if (!error) {
		*ret_found = finding.found;
		return 0;
	}
	/* They stay where they are kept. */
	for (uint32_t i = 0; i < finding.found.count; i++)
		if (!segment_pass(maker, LEAVE, &finding.found.segments[i]))
			memory_segment_close(&finding.found.segments[i]);
	free(finding.found.segments);
	return error;
}
