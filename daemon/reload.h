/*
 * Reading the configuration again while the daemon runs: all of it, or nothing of it.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/options.h"

/*
 * The new configuration, with the values of before where only a start can change them; NULL when something is wrong with
 * it. Either way every fault and every change is said. Owned by the caller.
 */
struct config *reload_read(const struct options *options, const struct config *current,
                           void (*say)(void *context, enum event_severity severity, const char *text), void *context);
