/*
 * HTTP, where the configuration or the service manager has an address for it.
 */
#pragma once

#include "daemon/parts.h"

/* From the beginning, so that it can be asked whether the daemon lives and is ready yet. */
int http_server_start(struct daemon *daemon, struct reason *reason);

/* Reads the token again; one that cannot be read stays as it was, and that is said. */
void http_server_reconfigure(struct daemon *daemon, const struct config *config);

void http_server_stop(struct daemon *daemon);
