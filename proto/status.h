/*
 * Status codes: one int space for everything that can go wrong.
 *
 * 0 is success, a small negative number is -errno, and codes from -10001 down are ours. Every function of this
 * project that can fail returns one of the three. The names and numbers are part of the wire protocol (PROTOCOL.md):
 * append, never renumber.
 *
 * A code says which kind of trouble it is; a `struct reason` carries the sentence for the person: what, which limit,
 * both numbers, and what to do next.
 */
#pragma once

#include <stddef.h>

/* X(NAME, number, name on the wire, text) */
#define STATUS_CODES(X)                                                                                               \
	X(EPROTOCOL, -10001, "protocol", "the bytes received are not a valid message")                                \
	X(EVERSION, -10002, "version", "the other side speaks another protocol version")                              \
	X(ELIMIT, -10003, "limit", "a limit was exceeded")                                                            \
	X(ENAME, -10004, "name", "the name is not allowed")                                                           \
	X(EMANIFEST, -10005, "manifest", "the tensors do not match")                                                  \
	X(ESCHEDULE, -10006, "schedule", "the schedule is not valid")                                                 \
	X(ENOMODEL, -10007, "no-model", "no such model")                                                              \
	X(ENOPROFILE, -10008, "no-profile", "no such profile")                                                        \
	X(EEXISTS, -10009, "exists", "the model exists already")                                                      \
	X(EFENCED, -10010, "fenced", "a newer registration has taken over")                                           \
	X(EAWAY, -10011, "away", "the daemon cannot be reached")                                                      \
	X(ETIMEOUT, -10012, "timeout", "the deadline passed")                                                         \
	X(EBUSY, -10013, "busy", "no room until earlier work is done")                                                \
	X(EREVOKED, -10014, "revoked", "the view was revoked by the daemon")                                          \
	X(EFORKED, -10015, "forked", "this handle belongs to the parent process")                                     \
	X(EMEMORY, -10016, "memory", "not enough memory")                                                             \
	X(ECORRUPT, -10017, "corrupt", "the data are damaged")                                                        \
	X(EARGUMENT, -10018, "argument", "an argument is not valid")                                                  \
	X(ESHUTDOWN, -10019, "shutdown", "the daemon is shutting down")                                               \
	X(ENOVERSION, -10020, "no-version", "the model has no averaged version yet")                                  \
	X(EPROFILE, -10021, "profile", "the profiles do not match")                                                   \
	X(EREFUSED, -10022, "refused", "a snapshot was refused")                                                      \
	X(EINTERNAL, -10023, "internal", "a fault inside emad")

enum status {
	STATUS_OK = 0,
#define X(name, number, wire, text) STATUS_##name = (number),
	STATUS_CODES(X)
#undef X
};

/* The text for any code of the int space, errno values included. Never NULL; static or thread-local storage. */
const char *status_text(int code);

/* The name used on the wire and in JSON ("no-model"); for an errno value its symbol ("ENOENT"); "ok" for 0. */
const char *status_name(int code);

/* The sentence that goes with a failure. Callers who do not want it pass NULL. */
struct reason {
	char text[512];
};

/*
 * Writes a formatted sentence (cut to fit, control characters replaced by '?') and returns code, so that a failure
 * reads `return reason_set(reason, STATUS_ENAME, "...")`.
 */
int reason_set(struct reason *reason, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
