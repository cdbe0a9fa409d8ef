/*
 * The table, and opening directories. See files_place.h.
 */
#include "daemon/edge/files_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static const uint64_t NS_PER_S = 1000000000;

/* ---- system calls ------------------------------------------------------------------------------------------------ */

static int system_open(const char *path, int flags)
{
	return open(path, flags);
}

static int system_openat(int directory, const char *name, int flags, mode_t mode)
{
	return openat(directory, name, flags, mode);
}

static int system_fstat(int fd, struct stat *ret_facts)
{
	return fstat(fd, ret_facts);
}

static ssize_t system_read(int fd, void *bytes, size_t count)
{
	return read(fd, bytes, count);
}

static int system_flags_set(int fd, int flags)
{
	return fcntl(fd, F_SETFL, flags);
}

static uint64_t system_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void system_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
	const struct timespec until = { (time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S) };

	(void)pthread_cond_timedwait(cond, lock, &until);
}

const struct files_calls files_system = {
	.open = system_open,
	.mkdir = mkdir,
	.openat = system_openat,
	.mkdirat = mkdirat,
	.fstat = system_fstat,
	.flock = flock,
	.fdopendir = fdopendir,
	.readdir = readdir,
	.read = system_read,
	.write = write,
	.fsync = fsync,
	.close = close,
	.renameat = renameat,
	.unlinkat = unlinkat,
	.flags_set = system_flags_set,
	.sync_range = sync_file_range,
	.clock_ns = system_clock_ns,
	.wait = system_wait,
};

/* ---- directories ------------------------------------------------------------------------------------------------- */

int files_failed(const struct files_place *place, struct reason *reason, const char *what, const char *name)
{
	int error = errno;
	const char *hint = "";

	if (error == ENOSPC || error == EDQUOT)
		hint = place->space_hint;
	else if (error == EACCES || error == EPERM || error == EROFS)
		hint = "; the state directory (--state-dir) and all below it must be the daemon's user's own";
	else if (error == ENOTDIR || error == ELOOP)
		hint = "; a link or a file is in the place of a directory";
	return reason_set(reason, -error, "%s '%.200s': %s%s", what, name, strerror(error), hint);
}

int files_directory_open(const struct files_place *place, int parent, const char *name, bool makes, bool *ret_made)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	const struct files_calls *calls = place->calls;
	struct stat facts;
	int fd = calls->openat(parent, name, flags, 0), error = 0;

	*ret_made = false;
	if (fd < 0 && errno == ENOENT && makes) {
		if (calls->mkdirat(parent, name, 0777) != 0 && errno != EEXIST)
			return -1;
		*ret_made = true;
		fd = calls->openat(parent, name, flags, 0);
	}
	if (fd < 0)
		return -1;
	if (calls->fstat(fd, &facts) != 0)
		error = errno;
	else if (facts.st_uid != geteuid())
		error = EPERM;
	if (error) {
		calls->close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* Where there can be no lock, as on a full disk, what is to be done in the directory is tried all the same. */
static int root_claim(const struct files_place *place, struct reason *reason)
{
	struct reason why = { "" };

	if (!place->claim || place->claim(place->claim_context, &why) != -EEXIST)
		return 0;
	return reason_set(reason, -EBUSY, "%s", why.text);
}

int files_root_open(const struct files_place *place, bool makes, struct reason *reason, int *ret_root)
{
	const struct files_calls *calls = place->calls;
	const char *state_dir = place->state_dir;
	int fd, error;

	if (makes && calls->mkdir(state_dir, 0777) != 0 && errno != EEXIST)
		return files_failed(place, reason, "making the state directory", state_dir);
	fd = calls->open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return files_failed(place, reason, "opening the state directory", state_dir);
	error = root_claim(place, reason);
	if (error) {
		calls->close(fd);
		return error;
	}
	if (calls->flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*ret_root = fd;
		return 0;
	}
	if (errno == EWOULDBLOCK)
		error = reason_set(reason, -EBUSY, "another emad writes to the state directory '%.200s': give "
		                   "each its own with --state-dir", state_dir);
	else
		error = files_failed(place, reason, "locking the state directory", state_dir);
	calls->close(fd);
	return error;
}
