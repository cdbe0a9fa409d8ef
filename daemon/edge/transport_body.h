/*
 * Where the body of a request is received: at the place that the core names, in a stage mostly, or in memory of ours, of
 * which large bodies have only so much, all connections together, and take turns.
 */
#pragma once

#include "daemon/edge/transport_connection.h"

/* Makes room for the body of the request in hand, or begins to wait for it, or gives up on the connection. */
void body_begin(struct connection *connection);

/* It has been handled, or never will be. */
void body_free(struct connection *connection);
