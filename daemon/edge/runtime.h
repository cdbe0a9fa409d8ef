/*
 * The runtime directory: where the sockets are, and the lock that makes this daemon the only one in it. The state
 * directory has one of the same kind: a file with the pid of its holder, locked until that ends in whatever way.
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

/*
 * Makes the state directory if it is not there (parents not), and locks it. *lock_fd is -1, or a lock taken before: it
 * is held on to while it is that of the directory at the path, which may have gone meanwhile and come back as another.
 * -EEXIST with the pid of the daemon that holds the lock, -errno with a sentence: *lock_fd is -1 then.
 */
int runtime_state_lock(const char *state_dir, int *lock_fd, struct reason *reason);

/* Removes the lock file and lets go of the lock; *lock_fd may be -1. */
void runtime_state_unlock(const char *state_dir, int *lock_fd);
