/*
 * What the core asks of the world outside (host.h), answered by this daemon's edges.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/parts.h"

struct host outside_table(struct daemon *daemon);
