/*
 * How a daemon of a test build dies at a failpoint. See failpoint.h.
 *
 * SIGKILL, because nothing must run after it: no handler, no destructor, no other thread that finishes what it was at.
 */
#include "daemon/core/failpoint.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void failpoint_pass(const char *name, _Atomic unsigned *passages)
{
	unsigned passage = atomic_fetch_add(passages, 1) + 1;
	const char *wanted = getenv("EMAD_FAILPOINT");
	size_t bytes = strlen(name);

	if (!wanted || strncmp(wanted, name, bytes) != 0 || wanted[bytes] != ':' ||
	    strtoul(wanted + bytes + 1, NULL, 10) != passage)
		return;
	kill(getpid(), SIGKILL);
	/* The signal is on its way to some thread; this one must not get any further. */
	for (;;)
		pause();
}
