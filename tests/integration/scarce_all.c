/*
 * The allocations of the whole process: the libraries find these functions before those of the C library. See scarce.h.
 */
#include "tests/integration/scarce.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

/* What glibc calls its own by, so that they can be replaced. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
	return scarce_fails() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	return scarce_fails() ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	return scarce_fails() ? NULL : __libc_realloc(memory, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
	return scarce_fails() ? NULL : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
	void *got = memalign(alignment, bytes);

	if (!got)
		return ENOMEM;
	*memory = got;
	return 0;
}

/* Time limits come ten times as fast: there are many places at which a library hangs. */
unsigned alarm(unsigned seconds)
{
	struct itimerval wanted = { .it_value = { .tv_sec = seconds / 10, .tv_usec = seconds % 10 * 100000 } }, before;

	if (setitimer(ITIMER_REAL, &wanted, &before) != 0)
		return 0;
	return (unsigned)before.it_value.tv_sec * 10;
}
