/*
 * Counts, and on demand refuses, heap allocations of the whole process, shared libraries included (which
 * -Wl,--wrap would not see). Include it in one file of a test program. Under a sanitizer, which owns the heap,
 * HEAP_IS_COUNTED is 0 and nothing is counted or refused.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define HEAP_IS_COUNTED 0
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAP_IS_COUNTED 0
#endif
#ifndef HEAP_IS_COUNTED
#define HEAP_IS_COUNTED 1
#endif

/* Allocations so far; and how many more succeed before one fails (once), SIZE_MAX for all. */
__attribute__((unused)) static struct {
	size_t count;
	size_t until_failure;
} heap = {0, SIZE_MAX};

#if HEAP_IS_COUNTED

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *pointer, size_t bytes);
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *pointer, size_t bytes);

static int heap_refuses(void)
{
	heap.count++;
	return heap.until_failure != SIZE_MAX && heap.until_failure-- == 0;
}

void *malloc(size_t bytes)
{
	return heap_refuses() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	return heap_refuses() ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *pointer, size_t bytes)
{
	return heap_refuses() ? NULL : __libc_realloc(pointer, bytes);
}

#endif
