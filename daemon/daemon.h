/*
 * The daemon: everything put together.
 */
#pragma once

#include "daemon/edge/config.h"
#include "proto/status.h"

/*
 * Runs until SIGTERM or SIGINT. 0 for a clean end; -EEXIST when the runtime directory is taken, or another code,
 * with a sentence, when it could not start.
 */
int daemon_run(const struct config *config, struct reason *reason);
