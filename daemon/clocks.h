/*
 * The daemon's time: what the clock says, and the timers that call the service when it is due, show the status, keep the
 * watchdog content, and bound how long an end may take.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/parts.h"

enum { CLOCKS_SUMMARY_BYTES_MAX = 384 }; /* of the line that the service manager shows */

struct instant clocks_now(void);

/* The loop is there. */
void clocks_init(struct daemon *daemon);

/* Status and watchdog, from now on. */
void clocks_start(struct daemon *daemon);

/* The end may take as long as the configuration says from now on. */
void clocks_drain(struct daemon *daemon);

/*
 * After every event of the loop: when must the service be called next, is there still something to finish, and may
 * clients come now?
 */
void clocks_rearm(struct daemon *daemon);
