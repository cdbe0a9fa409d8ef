/*
 * A countdown for all threads. See scarce.h.
 */
#include "tests/integration/scarce.h"

#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CALLS_MAX = 16 };

static atomic_uint_fast64_t count; /* of allocations so far */
static uint64_t fails_at;          /* 0: none does */
static bool for_ever;

/* Behind the constructors of the libraries: what these do is before there is a daemon. */
__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("EMAD_SCARCE");
	void *calls[CALLS_MAX];
	char *end;

	if (!text)
		return;
	/* Its first call loads a library. */
	(void)backtrace(calls, CALLS_MAX);
	for_ever = text[strlen(text) - 1] == '+';
	fails_at = strtoull(text, &end, 10);
}

static void tell(uint64_t number)
{
	void *calls[CALLS_MAX];
	char text[64];
	int bytes = snprintf(text, sizeof text, "scarce: allocation %lu fails\n", (unsigned long)number);

	(void)!write(STDERR_FILENO, text, (size_t)bytes);
	backtrace_symbols_fd(calls, backtrace(calls, CALLS_MAX), STDERR_FILENO);
}

bool scarce_fails(void)
{
	uint64_t number;

	if (fails_at == 0)
		return false;
	number = atomic_fetch_add(&count, 1) + 1;
	if (number < fails_at || (number > fails_at && !for_ever))
		return false;
	if (number == fails_at)
		tell(number);
	errno = ENOMEM;
	return true;
}
