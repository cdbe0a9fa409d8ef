/*
 * systemd: readiness, status, and the journal. The only file that includes its headers. Everything here does nothing
 * when the daemon was not started by systemd.
 */
#pragma once

#include <stdbool.h>

#include "daemon/core/host.h"

/* Tells the service manager that requests are answered from now on. */
void systemd_ready(const char *status);

/* The line that `systemctl status` shows. */
void systemd_status(const char *status);

/* The configuration is being read again, until systemd_ready is called. */
void systemd_reloading(void);

void systemd_stopping(void);

/* Whether standard error goes to the journal, so that events should go there with their fields. */
bool systemd_has_journal(void);

/* An event as a journal entry: MESSAGE, PRIORITY, EMAD_MODEL, EMAD_STEP, EMAD_CLIENT_PID, EMAD_ERROR. */
void systemd_journal(const struct event *event);
