/*
 * memfd segments. See memory.h.
 */
#include "daemon/edge/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
	HUGE_PAGE_BYTES = 2 * 1024 * 1024,
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
};

struct memory_maker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct queue todo;             /* guarded by lock; an order of epoch DROP gives its memory back */
	struct queue done;             /* guarded by lock */
	bool stopping;                 /* guarded by lock */
	struct small_paged *small_paged; /* owned; the thread's own */
	void (*wake)(void *context);
	void *wake_context;
};

/* ---- segments ---------------------------------------------------------------------------------------------------- */

/* The number behind a label in a file of "label: number kB" lines; UINT64_MAX when it is not there. */
static uint64_t file_number(const char *path, const char *label)
{
	FILE *file = fopen(path, "re");
	uint64_t number = UINT64_MAX;
	char line[256];

	while (file && fgets(line, sizeof line, file)) {
		size_t label_bytes = strlen(label);

		if (strncmp(line, label, label_bytes) == 0 && sscanf(line + label_bytes, "%" SCNu64, &number) == 1)
			break;
	}
	if (file)
		fclose(file);
	return number;
}

/* What the control group still allows; UINT64_MAX where there is no limit. */
static uint64_t cgroup_available_bytes(void)
{
	char line[512], path[600];
	uint64_t most, used, cached;
	FILE *file = fopen("/proc/self/cgroup", "re");
	char *group = NULL;

	while (file && fgets(line, sizeof line, file)) {
		if (strncmp(line, "0::", 3) == 0) {
			group = line + 3;
			group[strcspn(group, "\n")] = '\0';
			break;
		}
	}
	if (file)
		fclose(file);
	if (!group)
		return UINT64_MAX;
	snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
	most = file_number(path, "");
	snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
	used = file_number(path, "");
	if (most == UINT64_MAX || used == UINT64_MAX)
		return UINT64_MAX;
	/* Files' pages that nobody has touched lately go as soon as their room is wanted. */
	snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
	cached = file_number(path, "inactive_file");
	if (cached != UINT64_MAX)
		used -= cached < used ? cached : used;
	return most > used ? most - used : 0;
}

uint64_t memory_available_bytes(void)
{
	uint64_t kib = file_number("/proc/meminfo", "MemAvailable:");
	uint64_t host = kib == UINT64_MAX ? UINT64_MAX : kib * 1024, group = cgroup_available_bytes();

	return host < group ? host : group;
}

/* A mapping at an address that huge pages can be used for. */
static uint8_t *map_aligned(int fd, uint64_t bytes)
{
	uint8_t *room = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t begin, end;
	uint8_t *base;

	if (room == MAP_FAILED)
		return NULL;
	begin = ((uintptr_t)room + HUGE_PAGE_BYTES - 1) & ~(uintptr_t)(HUGE_PAGE_BYTES - 1);
	end = begin + ((bytes + 4095) & ~UINT64_C(4095));
	base = mmap((void *)begin, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (base == MAP_FAILED) {
		munmap(room, bytes + HUGE_PAGE_BYTES);
		return NULL;
	}
	if (begin > (uintptr_t)room)
		munmap(room, begin - (uintptr_t)room);
	if ((uintptr_t)room + bytes + HUGE_PAGE_BYTES > end)
		munmap((void *)end, (uintptr_t)room + bytes + HUGE_PAGE_BYTES - end);
	return base;
}

static void segment_close(struct memory *memory)
{
	if (memory->base)
		munmap(memory->base, memory->bytes);
	if (memory->fd >= 0)
		close(memory->fd);
	if (memory->fd_read_only >= 0)
		close(memory->fd_read_only);
	*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
}

/* memory->bytes is given. -errno; the memory is then closed. */
static int segment_open(struct memory *memory, const char *label)
{
	char path[64];
	int error;

	memory->base = NULL;
	memory->fd_read_only = -1;
	memory->fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memory->fd < 0 || fchmod(memory->fd, 0600) != 0)
		goto fail;
	error = posix_fallocate(memory->fd, 0, (off_t)memory->bytes);
	if (error) {
		errno = error;
		goto fail;
	}
	if (fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		goto fail;
	snprintf(path, sizeof path, "/proc/self/fd/%d", memory->fd);
	memory->fd_read_only = open(path, O_RDONLY | O_CLOEXEC);
	if (memory->fd_read_only < 0)
		goto fail;
	memory->base = map_aligned(memory->fd, memory->bytes);
	if (!memory->base)
		goto fail;
	/* Best effort: the first update need not fault. */
	(void)madvise(memory->base, memory->bytes, MADV_POPULATE_WRITE);
	return 0;
fail:
	error = -errno;
	segment_close(memory);
	return error;
}

static void order_fulfil(struct segment_order *order)
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
	for (uint32_t i = 0; i < order->count; i++) {
		uint64_t bytes = order->memory[i].bytes;
		int error = segment_open(&order->memory[i], order->label);

		if (!error)
			continue;
		order->status = reason_set(&order->reason, error == -ENOSPC || error == -ENOMEM ? STATUS_EMEMORY : error,
		                           "a segment of %" PRIu64 " bytes could not be made: %s", bytes,
		                           strerror(-error));
		while (i-- > 0)
			segment_close(&order->memory[i]);
		return;
	}
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* Marks an order that gives memory back instead of making it; no registration has this epoch. */
#define DROP UINT64_MAX

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

static void order_close(struct segment_order *order)
{
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++)
		segment_close(&order->memory[i]);
	free(order);
}

/*
 * Huge pages spare updates a good part of their address translation (measured: a fifth of the time), but the kernel
 * takes a second or more a gigabyte to make them from small ones. So the memory is handed out first, and made huge
 * when there is nothing else to do. All of it is best effort.
 */
static void collapse_later(struct memory_maker *maker, const struct memory *memory)
{
	struct small_paged *small = memory->bytes < HUGE_PAGE_BYTES ? NULL : malloc(sizeof *small);

	if (!small)
		return;
	*small = (struct small_paged){ .next = maker->small_paged, .base = memory->base, .bytes = memory->bytes };
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

	/* EAGAIN and EBUSY: a page of it was in use just now; the rest is worth going on. */
	bool hopeless = madvise(small->base + small->done_bytes, bytes, MADV_COLLAPSE) != 0 && errno != EAGAIN &&
	                errno != EBUSY;

	if (hopeless || bytes == left)
		collapse_forget(maker, small->base);
	else
		small->done_bytes += bytes;
}

static void order_do(struct memory_maker *maker, struct segment_order *order)
{
	if (order->epoch == DROP) {
		collapse_forget(maker, order->memory[0].base);
		order_close(order);
		return;
	}
	order_fulfil(order);
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++)
		collapse_later(maker, &order->memory[i]);
	pthread_mutex_lock(&maker->lock);
	queue_append(&maker->done, order);
	pthread_mutex_unlock(&maker->lock);
	maker->wake(maker->wake_context);
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

int memory_start(void (*wake)(void *context), void *context, struct memory_maker **ret_maker)
{
	struct memory_maker *maker = calloc(1, sizeof *maker);
	int error;

	if (!maker)
		return -ENOMEM;
	pthread_mutex_init(&maker->lock, NULL);
	pthread_cond_init(&maker->cond, NULL);
	queue_init(&maker->todo);
	queue_init(&maker->done);
	maker->wake = wake;
	maker->wake_context = context;
	error = pthread_create(&maker->thread, NULL, run, maker);
	if (error) {
		free(maker);
		return -error;
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
		order_close(order);
	while (maker->small_paged)
		collapse_forget(maker, maker->small_paged->base);
	pthread_cond_destroy(&maker->cond);
	pthread_mutex_destroy(&maker->lock);
	free(maker);
}

void memory_make(struct memory_maker *maker, struct segment_order *order)
{
	pthread_mutex_lock(&maker->lock);
	queue_append(&maker->todo, order);
	pthread_cond_signal(&maker->cond);
	pthread_mutex_unlock(&maker->lock);
}

void memory_drop(struct memory_maker *maker, struct memory *memory)
{
	struct segment_order *order = calloc(1, sizeof *order);

	if (!order) {
		segment_close(memory);
		return;
	}
	order->epoch = DROP;
	order->count = 1;
	order->memory[0] = *memory;
	*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
	memory_make(maker, order);
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
