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

#include "daemon/core/config.h"

/* A lock file, and what its directory is called in sentences. */
struct lock_file {
	char path[CONFIG_PATH_BYTES_MAX + 32];
	const char *directory; /* borrowed */
	const char *what, *option;
};

static int lock_file_init(struct lock_file *file, const char *directory, const char *name)
{
	file->directory = directory;
	return snprintf(file->path, sizeof file->path, "%s/%s", directory, name) < (int)sizeof file->path
	               ? 0 : -ENAMETOOLONG;
}

static int runtime_lock_file(const struct runtime *runtime, struct lock_file *file)
{
	*file = (struct lock_file){ .what = "runtime directory", .option = "--runtime-dir" };
	return lock_file_init(file, runtime->path, "emad.pid");
}

/* Another name, because one directory may be both. */
static int state_lock_file(const char *state_dir, struct lock_file *file)
{
	*file = (struct lock_file){ .what = "state directory", .option = "--state-dir" };
	return lock_file_init(file, state_dir, "emad.lock");
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

/* Opens and locks the file at the path. */
static int lock_try(const struct lock_file *file, int *ret_fd, struct reason *reason)
{
	int fd = open(file->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644), error;

	if (fd < 0)
		return reason_set(reason, -errno, "'%s' cannot be opened: %s", file->path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*ret_fd = fd;
		return 0;
	}
	error = errno == EWOULDBLOCK
	                ? reason_set(reason, -EEXIST,
	                             "the %s '%s' is used by another emad, pid %ld: stop it, or choose another "
	                             "directory with %s",
	                             file->what, file->directory, holder_pid(fd), file->option)
	                : reason_set(reason, -errno, "'%s' cannot be locked: %s", file->path, strerror(errno));
	close(fd);
	return error;
}

static int lock_take(const struct lock_file *file, int *ret_fd, struct reason *reason)
{
	int fd = -1, error = lock_try(file, &fd, reason);

	while (!error && !is_current(fd, file->path)) {
		close(fd);
		error = lock_try(file, &fd, reason);
	}
	if (error)
		return error;
	if (ftruncate(fd, 0) != 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
		error = reason_set(reason, -errno, "'%s' cannot be written: %s", file->path, strerror(errno));
		close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

static void lock_drop(const struct lock_file *file, int *fd)
{
	if (is_current(*fd, file->path))
		unlink(file->path);
	close(*fd);
	*fd = -1;
}

/* ---- the directories --------------------------------------------------------------------------------------------- */

int runtime_open(const char *path, struct runtime *ret_runtime, struct reason *reason)
{
	struct runtime runtime = { .lock_fd = -1 };
	int error = directory_make(path, &runtime, reason);
	struct lock_file file;

	if (!error)
		error = runtime_lock_file(&runtime, &file);
	if (!error)
		error = lock_take(&file, &runtime.lock_fd, reason);
	if (!error)
		*ret_runtime = runtime;
	return error;
}

void runtime_close(struct runtime *runtime)
{
	struct lock_file file;

	if (runtime->lock_fd >= 0 && runtime_lock_file(runtime, &file) == 0)
		lock_drop(&file, &runtime->lock_fd);
}

int runtime_state_lock(const char *state_dir, int *lock_fd, struct reason *reason)
{
	struct lock_file file;
	int error = state_lock_file(state_dir, &file);

	if (error)
		return reason_set(reason, error, "the state directory's path has too many bytes");
	if (*lock_fd >= 0 && is_current(*lock_fd, file.path))
		return 0;
	if (*lock_fd >= 0)
		close(*lock_fd);
	*lock_fd = -1;
	if (mkdir(state_dir, 0777) != 0 && errno != EEXIST)
		return reason_set(reason, -errno, "the state directory '%s' cannot be made: %s", state_dir,
		                  strerror(errno));
	return lock_take(&file, lock_fd, reason);
}

void runtime_state_unlock(const char *state_dir, int *lock_fd)
{
	struct lock_file file;

	if (*lock_fd >= 0 && state_lock_file(state_dir, &file) == 0)
		lock_drop(&file, lock_fd);
}
