/*
 * Pages: memory for many bytes that are about to come, in huge pages where the kernel has them at hand. Filled for the
 * first time, small ones cost more than the copying itself.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A free address at which huge pages can be mapped. A hint: where another thread takes the place, the kernel chooses. */
void *pages_place(size_t bytes);

/* A shared mapping, at a place from pages_place, whose pages are made while it is being filled. */
struct pages {
	uint8_t *memory;
	size_t bytes;
	_Atomic bool stop;
	bool started;
	pthread_t thread;
};

/*
 * Begins at the front, in a thread of its own: that is faster than bytes come. Where the kernel cannot, or has to make
 * room for them first, pages are left as they are. *pages stays where it is until pages_end.
 */
void pages_begin(struct pages *pages, uint8_t *memory, size_t bytes);
void pages_end(struct pages *pages);
