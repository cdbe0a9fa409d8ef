/*
 * A real daemon for an integration test: in a runtime directory of its own, ready when it says so itself (READY=1 on
 * NOTIFY_SOCKET, never by sleeping), killed and started again at will.
 *
 * The program is the one that the environment variable EMAD_DAEMON names. What fails here fails the running test.
 * Meant for Check without forks: the library's sockets must not be inherited by test processes.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { HARNESS_ARGUMENT_COUNT_MAX = 16 };

struct harness {
	char directory[64]; /* its runtime and state directory */
	char url[96];       /* for emad_client_open */
	char log[96];       /* what the daemon wrote to its standard output and error streams */
	const char *arguments[HARNESS_ARGUMENT_COUNT_MAX + 1]; /* besides the directories; NULL-terminated; borrowed */
	pid_t pid;          /* 0 while no daemon runs */
	int notify;         /* the socket on which it reports */
	char ready[256];    /* the report that said READY=1 */
};

/* Makes the directory and starts a daemon in it; arguments may be NULL, else a NULL-terminated list. */
void harness_open(struct harness *harness, const char *const *arguments);

/* Kills what still runs and removes the directory. */
void harness_close(struct harness *harness);

/* Starts the daemon, which must not be running, and waits until it is ready. */
void harness_start(struct harness *harness);

/* The same in two: it runs when the first returns; false when the second has seen it end or not be ready in time. */
void harness_begin(struct harness *harness);
bool harness_ready(struct harness *harness);

/* Sends SIGKILL and waits for the end. */
void harness_kill(struct harness *harness);

/* Sends any signal and waits for the end, for as long as a SIGTERM may take; the status as from waitpid. */
int harness_end(struct harness *harness, int number);

/* Sends SIGTERM and waits for the end; the status as from waitpid. */
int harness_stop(struct harness *harness);

/*
 * Waits for the daemon's next report with that text in it ("WATCHDOG=1"); others before it are passed over. The time
 * that took, -1 when none came within the time.
 */
int harness_report_wait(struct harness *harness, const char *text, int timeout_ms);

/* Prints the daemon's log to the standard error stream. */
void harness_log_print(const struct harness *harness);

/* Lines of the log with that text, of all its daemons. */
int harness_log_count(const struct harness *harness, const char *text);

/* Milliseconds on the monotonic clock. */
long long harness_now_ms(void);
