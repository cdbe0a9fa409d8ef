/*
 * Failpoints: named places at which a test lets the daemon die, as if SIGKILL had come between exactly these two
 * statements.
 *
 *     record->state = STAGE_READY;
 *     FAILPOINT("push-ready");
 *     *answer = ...
 *
 * In an ordinary build nothing is left of them. With BUILD=failpoints the daemon dies when it comes to the place that
 * EMAD_FAILPOINT=NAME:COUNT names for the COUNT-th time. A name stands in one place of the source, so that it says
 * which; tests find all names by looking for the macro.
 */
#pragma once

#ifdef EMAD_FAILPOINTS

#include <stdatomic.h>

/* Counts a passage; does not return from the one that the environment means. Any thread. */
void failpoint_pass(const char *name, _Atomic unsigned *passages);

#define FAILPOINT(name)                                                                                               \
	do {                                                                                                          \
		static _Atomic unsigned passages_;                                                                    \
		failpoint_pass(name, &passages_);                                                                     \
	} while (0)

#else

#define FAILPOINT(name)                                                                                               \
	do {                                                                                                          \
	} while (0)

#endif
