/*
 * A shell command that runs while this program waits for it, and for nothing else.
 *
 * The command is a process group of its own, so that a Ctrl-C of the terminal reaches this program alone, which hands it
 * on once, waits for the command, and ends it by force when asked again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct child_result {
	int exit_status; /* -1 when a signal ended it */
	int signal;      /* 0 when none did */
	int interrupted_by; /* the signal that this program got meanwhile, or 0 */
	uint64_t elapsed_us;
};

/*
 * Runs it by /bin/sh in this program's environment. It reads nothing; what it prints goes where this program's output
 * goes, or with is_output_diverted all of it to standard error. -errno when it could not be started.
 */
int child_run(const char *command, bool is_output_diverted, struct child_result *ret_result);
