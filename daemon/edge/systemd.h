/*
 * systemd: readiness, status, the store of descriptors, and the journal. The only file that includes its headers. Everything here does nothing
 * when the daemon was not started by systemd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"

/* Tells the service manager that requests are answered from now on. */
void systemd_ready(const char *status);

/* What the service manager has handed over: sockets that it listens on, and descriptors that were stored with it. */
struct systemd_handed {
	uint32_t count;
	struct systemd_descriptor {
		char *name; /* owned */
		int fd;     /* owned; -1: somebody has taken it */
	} *descriptors; /* owned */
};

/* Takes it all, so that nobody else does: once, before there are threads. -ENOMEM: then it is in nobody's hands. */
int systemd_handed_take(struct systemd_handed *ret_handed);

/* Closes what nobody has taken. */
void systemd_handed_finish(struct systemd_handed *handed);

/* Takes a listening socket of that name and type (SOCK_SEQPACKET); -1: there is none, or no more. */
int systemd_listener(struct systemd_handed *handed, const char *name, int type);

/*
 * Stores a descriptor under that name with the service manager, which hands it to the next process of this service; and
 * has it removed from there, to the effect that its memory is free when we close it too. Any thread; both wait for the
 * service manager. -errno.
 */
int systemd_store(const char *name, int fd);
void systemd_unstore(const char *name);

/* The line that `systemctl status` shows. */
void systemd_status(const char *status);

/* The configuration is being read again, until systemd_reloaded is called. */
void systemd_reloading(void);

/* It has been read. False: the service manager's queue is full, and it must be told once more later. */
bool systemd_reloaded(const char *status);

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
