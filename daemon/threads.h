/*
 * The daemon's threads: the maker of memory, the workers, and the one that writes files. What they have done comes back
 * to the loop, which they wake, and goes to the service.
 */
#pragma once

#include "daemon/parts.h"

/* The loop is there. -errno. */
int threads_init(struct daemon *daemon);

int threads_start(struct daemon *daemon, struct reason *reason);

/* Hands all the memory that earlier daemons have left to the service. */
int threads_take_over(struct daemon *daemon, struct reason *reason);

/* Another daemon in the state directory is a mistake (-EEXIST); anything else that is wrong with it may pass. */
int threads_claim_state(struct daemon *daemon, struct reason *reason);

/* Ends them, and with them the service, which lends them its memory. Takes what was started, also half of it. */
void threads_stop(struct daemon *daemon, uint32_t timeout_ms);

/* Has the loop look what there is to do. Any thread. */
void threads_wake(void *daemon);
