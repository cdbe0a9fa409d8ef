/*
 * The scribe: a thread that writes the log, so that the loop never waits for whoever reads it. A terminal that is held,
 * a pipe that nobody empties and a journal that hangs all make a write wait, and such a file is shared with others, so
 * that it cannot simply be told not to.
 *
 * A bounded number of messages waits for its turn. Beyond that they are lost, and when it goes on again the log says how
 * many.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/event.h"

enum { SCRIBE_WAITING_MAX = 1024 };

struct scribe;

/* write is called from the thread and may wait. -ENOMEM, -EAGAIN. */
int scribe_start(void (*write)(const struct event *event), struct scribe **ret_scribe);

/* Any thread; never waits for the log. */
void scribe_tell(struct scribe *scribe, const struct event *event);

/* Waits until all that was told is written, but not for longer than that. */
void scribe_settle(struct scribe *scribe, uint32_t timeout_ms);

/*
 * Ends the thread when all that waits is written. False when that has not happened after the time: the thread is left
 * alone then until the process ends.
 */
bool scribe_stop(struct scribe *scribe, uint32_t timeout_ms);
