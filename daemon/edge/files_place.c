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

static int system_exchange(int directory, const char *name, const char *other)
{
	return renameat2(directory, name, directory, other, RENAME_EXCHANGE);
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
	.closedir = closedir,
	.read = system_read,
	.write = write,
	.fsync = fsync,
	.close = close,
	.renameat = renameat,
	.exchange = system_exchange,
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
	else if (error == EROFS)
		hint = "; mount it for writing";
	else if (error == EACCES || error == EPERM)
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

/* Also where it was there: whoever made it may have died before its name was synchronised. */
static int root_synchronise(const struct files_place *place, int root, struct reason *reason)
{
	int above = place->calls->openat(root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), error = 0;

	if (above < 0 && (errno == EACCES || errno == EPERM))
		return 0;
	if (above < 0 || place->calls->fsync(above) != 0)
		error = files_failed(place, reason, "synchronising the directory above", place->state_dir);
	if (above >= 0)
		place->calls->close(above);
	return error;
}

/*
 * A state directory that is made anew has a place for checkpoints at once: one without, where some have been written, is
 * a mount point whose file system is gone (files_generation.c).
 */
static int root_furnish(const struct files_place *place, int root, struct reason *reason)
{
	if ((place->calls->mkdirat(root, "checkpoints", 0777) != 0 && errno != EEXIST) || place->calls->fsync(root) != 0)
		return files_failed(place, reason, "making the directory", "checkpoints");
	return 0;
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
	bool made = makes && calls->mkdir(state_dir, 0777) == 0;
	int fd, error;

	if (makes && !made && errno != EEXIST)
		return files_failed(place, reason, "making the state directory", state_dir);
	fd = calls->open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return files_failed(place, reason, "opening the state directory", state_dir);
	error = root_claim(place, reason);
	if (error)
		;
	else if (calls->flock(fd, LOCK_EX | LOCK_NB) == 0)
		error = makes ? root_synchronise(place, fd, reason) : 0;
	else if (errno == EWOULDBLOCK)
		error = reason_set(reason, -EBUSY, "another emad writes to the state directory '%.200s': give "
		                   "each its own with --state-dir", state_dir);
	else
		error = files_failed(place, reason, "locking the state directory", state_dir);
	if (!error && made)
		error = root_furnish(place, fd, reason);
	if (error)
		calls->close(fd);
	else
		*ret_root = fd;
	return error;
}
