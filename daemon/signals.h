/*
 * Signals: those that end the daemon, the one that has it read its configuration again, and the time limit of the end,
 * which is a signal as well.
 */
#pragma once

#include "daemon/parts.h"

/* The loop is there. */
void signals_init(struct daemon *daemon);

/* From now on the loop hears of them. */
void signals_start(struct daemon *daemon);

/*
 * The signals that end the daemon wait while it starts, and while what they do changes: one that came too early would
 * kill it half-way. So does SIGHUP, which would do the same.
 */
void signals_block(void);
void signals_unblock(void);

/*
 * The loop has ended, with the signals blocked, and nothing is left that would be lost: from here on the process ends in
 * time even if a library hangs (closing is known to deadlock in NNG) or a thread takes long to give memory back. A signal
 * that comes now makes it hurry, and SIGHUP means nothing.
 */
void signals_limit_end(struct daemon *daemon);

/* The same after a start that failed: what was begun is closed in time, too, or not at all. */
void signals_limit_failure(void);

/* Around the making of sockets: NNG waits for ever when one of its threads cannot be made. The process ends with a sentence. */
void signals_limit_sockets(bool begins);

/* How long closing may wait for others: to send the last replies, to write the last of the log. */
uint32_t signals_close_ms(const struct daemon *daemon);
