/*
 * Log lines for people, on standard error.
 */
#pragma once

#include "daemon/core/host.h"

/* "12:03:04.123 warning: text", in colour on a terminal (unless NO_COLOR is set). */
void log_line(const struct event *event);
