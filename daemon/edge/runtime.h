/*
 * The runtime directory: where the sockets are, and the lock that makes this daemon the only one in it.
 */
#pragma once

#include "proto/status.h"

struct runtime {
	char path[96]; /* absolute; short enough for the sockets' paths (sockaddr_un holds 107 bytes) */
	int lock_fd;
};

/*
 * Makes the directory if it is not there (0755, parents not), and locks it. -EEXIST with the pid of the daemon that
 * holds it already; it does not notice. -errno with a sentence naming the path.
 */
int runtime_open(const char *path, struct runtime *ret_runtime, struct reason *reason);

/* Removes the lock file and lets go of the lock. */
void runtime_close(struct runtime *runtime);
