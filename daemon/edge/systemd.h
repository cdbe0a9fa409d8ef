/*
 * systemd: readiness, status, and the journal. The only file that includes its headers. Everything here does nothing
 * when the daemon was not started by systemd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"

/* Tells the service manager that requests are answered from now on. */
void systemd_ready(const char *status);

/*
 * The listening sockets of that name and type (SOCK_STREAM) that the service manager has handed over. Returns how many,
 * at most capacity.
 */
uint32_t systemd_listeners(const char *name, int type, int *ret_fds, uint32_t capacity);

/* The line that `systemctl status` shows. */
void systemd_status(const char *status);

/* The configuration is being read again, until systemd_ready is called. */
void systemd_reloading(void);

void systemd_stopping(void);

/* The end is on its way: the time limit for it begins anew, with that much. */
void systemd_extend(uint64_t timeout_ms);

/* How often at least the service manager wants to hear of us; 0: it does not (or wants to hear of another process). */
uint64_t systemd_watchdog_ms(void);

/* All parts of the daemon have shown that they are alive. */
void systemd_alive(void);

/* Whether standard error goes to the journal, so that events should go there with their fields. */
bool systemd_has_journal(void);

/*
 * An event as a journal entry: MESSAGE, PRIORITY, and what is known of MESSAGE_ID (event.h), EMAD_MODEL, EMAD_STEP,
 * EMAD_CLIENT_PID, EMAD_ERROR.
 */
void systemd_journal(const struct event *event);
