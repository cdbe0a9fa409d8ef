/*
 * The daemon: everything put together.
 */
#pragma once

#include "daemon/options.h"
#include "proto/status.h"

/*
 * Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again by the options. Takes the config. 0 for a
 * clean end; -EEXIST when the runtime directory is taken, or another code, with a sentence, when it could not start.
 */
int daemon_run(const struct options *options, struct config *config, struct reason *reason);
