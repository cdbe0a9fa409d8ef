/*
 * Huge pages in the library: see pages.h.
 */
#include "client/pages.h"

#include "client/wait.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; Debian 12's headers do not have it */
#endif

enum {
	SMALL_PAGE_BYTES = 4096,
	HUGE_PAGE_BYTES = 2 * 1024 * 1024,
	STEP_BYTES = 16 * 1024 * 1024,
	STEP_MS_MAX = 50, /* for one; a few, if nothing must be moved out of the way */
};

void *pages_place(size_t bytes)
{
	void *room = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return NULL;
	munmap(room, bytes + HUGE_PAGE_BYTES);
	return (void *)(((uintptr_t)room + HUGE_PAGE_BYTES - 1) & ~(uintptr_t)(HUGE_PAGE_BYTES - 1));
}

/* STEP_BYTES at a time: each call waits for every processor once. */
static void *pages_make(void *argument)
{
	struct pages *pages = argument;

	for (size_t at = 0, step; pages->bytes - at >= HUGE_PAGE_BYTES; at += step) {
		const size_t left = (pages->bytes - at) & ~(size_t)(HUGE_PAGE_BYTES - 1);
		const int64_t begun_ms = wait_now_ms();

		if (atomic_load_explicit(&pages->stop, memory_order_relaxed))
			break;
		step = left < STEP_BYTES ? left : STEP_BYTES;
		/* What is not there at all is not made huge. */
		for (size_t i = 0; i < step; i += HUGE_PAGE_BYTES)
			(void)madvise(pages->memory + at + i, SMALL_PAGE_BYTES, MADV_POPULATE_WRITE);
		/* EAGAIN: a page was in use just now. */
		if (madvise(pages->memory + at, step, MADV_COLLAPSE) != 0 && errno != EAGAIN)
			break;
		if (wait_now_ms() - begun_ms > STEP_MS_MAX)
			break;
	}
	return NULL;
}

void pages_begin(struct pages *pages, uint8_t *memory, size_t bytes)
{
	*pages = (struct pages){.memory = memory, .bytes = bytes};
	pages->started = bytes >= HUGE_PAGE_BYTES &&
	                 wait_thread_start(&pages->thread, "emad-pages", pages_make, pages) == 0;
}

void pages_end(struct pages *pages)
{
	atomic_store_explicit(&pages->stop, true, memory_order_relaxed);
	if (pages->started)
		pthread_join(pages->thread, NULL);
	pages->started = false;
}
