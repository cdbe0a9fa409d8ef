/*
 * Reading the configuration again while the daemon runs: all of it, or nothing of it.
 */
#pragma once

#include "daemon/parts.h"

/*
 * Reads it and puts it in force, with the values of before where only a start can change them. Every fault and every
 * change is said; the service manager waits meanwhile.
 */
void reload_run(struct daemon *daemon);

/* Says it where the limit on open files is too low for the configuration in force. */
void reload_warn_of_descriptors(struct daemon *daemon);
