/*
 * The lock of the runtime directory. See runtime.h.
 */
#include "daemon/edge/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int lock_path(const char *directory, char *path, size_t capacity)
{
	return snprintf(path, capacity, "%s/emad.pid", directory) < (int)capacity ? 0 : -ENAMETOOLONG;
}

static int directory_make(const char *path, struct runtime *runtime, struct reason *reason)
{
	char *real;

	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return reason_set(reason, -errno, "the runtime directory '%s' cannot be made: %s", path, strerror(errno));
	real = realpath(path, NULL);
	if (!real)
		return reason_set(reason, -errno, "the runtime directory '%s' cannot be used: %s", path, strerror(errno));
	if (strlen(real) >= sizeof runtime->path) {
		int error = reason_set(reason, -ENAMETOOLONG,
		                       "the runtime directory '%.120s' has %zu bytes in its path, and the sockets in it "
		                       "need at most %zu: choose a shorter one",
		                       real, strlen(real), sizeof runtime->path - 1);

		free(real);
		return error;
	}
	strcpy(runtime->path, real);
	free(real);
	return 0;
}

/* The pid in the lock file, 0 when there is none to read. */
static long holder_pid(int fd)
{
	char text[32] = "";
	ssize_t count = pread(fd, text, sizeof text - 1, 0);

	return count > 0 ? strtol(text, NULL, 10) : 0;
}

/* Whether the open file is still the one at the path: a daemon that ends removes its own. */
static bool is_current(int fd, const char *path)
{
	struct stat open_facts, path_facts;

	return fstat(fd, &open_facts) == 0 && lstat(path, &path_facts) == 0 && open_facts.st_dev == path_facts.st_dev &&
	       open_facts.st_ino == path_facts.st_ino;
}

/* Opens and locks the file at the path. On failure lock_fd is closed. */
static int lock_try(struct runtime *runtime, const char *path, struct reason *reason)
{
	int error;

	runtime->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (runtime->lock_fd < 0)
		return reason_set(reason, -errno, "'%s' cannot be opened: %s", path, strerror(errno));
	if (flock(runtime->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	error = errno == EWOULDBLOCK
	                ? reason_set(reason, -EEXIST,
	                             "the runtime directory '%s' is used by another emad, pid %ld: stop it, or "
	                             "choose another directory with --runtime-dir",
	                             runtime->path, holder_pid(runtime->lock_fd))
	                : reason_set(reason, -errno, "'%s' cannot be locked: %s", path, strerror(errno));
	close(runtime->lock_fd);
	runtime->lock_fd = -1;
	return error;
}

static int lock_take(struct runtime *runtime, struct reason *reason)
{
	char path[128];
	int error = lock_path(runtime->path, path, sizeof path);

	if (!error)
		error = lock_try(runtime, path, reason);
	while (!error && !is_current(runtime->lock_fd, path)) {
		close(runtime->lock_fd);
		error = lock_try(runtime, path, reason);
	}
	if (error)
		return error;
	if (ftruncate(runtime->lock_fd, 0) != 0 || dprintf(runtime->lock_fd, "%ld\n", (long)getpid()) < 0) {
		error = reason_set(reason, -errno, "'%s' cannot be written: %s", path, strerror(errno));
		close(runtime->lock_fd);
		runtime->lock_fd = -1;
	}
	return error;
}

int runtime_open(const char *path, struct runtime *ret_runtime, struct reason *reason)
{
	struct runtime runtime = { .lock_fd = -1 };
	int error = directory_make(path, &runtime, reason);

	if (!error)
		error = lock_take(&runtime, reason);
	if (!error)
		*ret_runtime = runtime;
	return error;
}

void runtime_close(struct runtime *runtime)
{
	char path[128];

	if (runtime->lock_fd < 0)
		return;
	if (lock_path(runtime->path, path, sizeof path) == 0)
		unlink(path);
	close(runtime->lock_fd);
	runtime->lock_fd = -1;
}
