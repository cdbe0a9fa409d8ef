/*
 * The allocations of the daemon's own objects. See scarce.h.
 *
 * The linker turns malloc into __wrap_malloc and keeps the real one as __real_malloc. What allocates inside the C library
 * on behalf of one call of ours is wrapped as well.
 */
#include "tests/integration/scarce.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_reallocarray(void *memory, size_t count, size_t bytes);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t bytes);
FILE *__real_open_memstream(char **text, size_t *bytes);
FILE *__real_fopen(const char *path, const char *mode);
DIR *__real_fdopendir(int fd);
int __real_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *entry),
                   int (*compare)(const struct dirent **a, const struct dirent **b));
char *__real_realpath(const char *path, char *resolved);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t count, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t bytes);
FILE *__wrap_open_memstream(char **text, size_t *bytes);
FILE *__wrap_fopen(const char *path, const char *mode);
DIR *__wrap_fdopendir(int fd);
int __wrap_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *entry),
                   int (*compare)(const struct dirent **a, const struct dirent **b));
char *__wrap_realpath(const char *path, char *resolved);

void *__wrap_malloc(size_t bytes)
{
	return scarce_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return scarce_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
	return scarce_fails() ? NULL : __real_realloc(memory, bytes);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t bytes)
{
	return scarce_fails() ? NULL : __real_reallocarray(memory, count, bytes);
}

char *__wrap_strdup(const char *text)
{
	return scarce_fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t bytes)
{
	return scarce_fails() ? NULL : __real_strndup(text, bytes);
}

FILE *__wrap_open_memstream(char **text, size_t *bytes)
{
	return scarce_fails() ? NULL : __real_open_memstream(text, bytes);
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
	return scarce_fails() ? NULL : __real_fopen(path, mode);
}

DIR *__wrap_fdopendir(int fd)
{
	return scarce_fails() ? NULL : __real_fdopendir(fd);
}

int __wrap_scandir(const char *path, struct dirent ***entries, int (*filter)(const struct dirent *entry),
                   int (*compare)(const struct dirent **a, const struct dirent **b))
{
	return scarce_fails() ? -1 : __real_scandir(path, entries, filter, compare);
}

char *__wrap_realpath(const char *path, char *resolved)
{
	return scarce_fails() ? NULL : __real_realpath(path, resolved);
}
