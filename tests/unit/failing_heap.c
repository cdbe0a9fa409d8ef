/*
 * The linker turns malloc into __wrap_malloc and keeps the real one as __real_malloc. reallocarray and strdup are
 * wrapped as well, because their own calls of malloc are inside the C library, where nothing is wrapped.
 */
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <stddef.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_reallocarray(void *memory, size_t count, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t count, size_t bytes);
char *__wrap_strdup(const char *text);

struct countdown {
	uint64_t left; /* 0 when not armed */
	bool for_ever;
	bool has_failed;
};

static _Thread_local struct countdown countdown;

static bool must_fail(void)
{
	if (countdown.left == 0)
		return false;
	if (countdown.left > 1) {
		countdown.left--;
		return false;
	}
	if (!countdown.for_ever)
		countdown.left = 0;
	countdown.has_failed = true;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t bytes)
{
	return must_fail() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return must_fail() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
	return must_fail() ? NULL : __real_realloc(memory, bytes);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t bytes)
{
	return must_fail() ? NULL : __real_reallocarray(memory, count, bytes);
}

char *__wrap_strdup(const char *text)
{
	return must_fail() ? NULL : __real_strdup(text);
}

void failing_heap_arm(uint64_t nth, bool for_ever)
{
	countdown = (struct countdown){.left = nth, .for_ever = for_ever};
}

bool failing_heap_disarm(void)
{
	bool has_failed = countdown.has_failed;

	countdown = (struct countdown){0};
	return has_failed;
}

static uint64_t sweep(int (*attempt)(void *context), void *context, bool for_ever)
{
	for (uint64_t nth = 1;; nth++) {
		int r;

		failing_heap_arm(nth, for_ever);
		r = attempt(context);
		if (!failing_heap_disarm()) {
			ck_assert_msg(r == 0, "returned %d although no allocation failed", r);
			return nth - 1;
		}
		ck_assert_msg(r == -ENOMEM, "returned %d when allocation %lu failed%s", r, (unsigned long)nth,
		              for_ever ? " and all after it" : "");
	}
}

uint64_t failing_heap_sweep(int (*attempt)(void *context), void *context)
{
	uint64_t once = sweep(attempt, context, false), for_ever = sweep(attempt, context, true);

	ck_assert_uint_eq(once, for_ever);
	return once;
}
