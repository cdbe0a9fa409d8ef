/*
 * The table, and opening directories. See files_place.h.
 */
#include "daemon/edge/files_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { CHUNK_BYTES = 4 * 1024 * 1024 }; /* between two looks at whether to stop */

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
	if (calls->flock(fd, LOCK_EX | LOCK_NB) == 0)
		error = makes ? root_synchronise(place, fd, reason) : 0;
	else if (errno == EWOULDBLOCK)
		error = reason_set(reason, -EBUSY, "another emad writes to the state directory '%.200s': give "
		                   "each its own with --state-dir", state_dir);
	else
		error = files_failed(place, reason, "locking the state directory", state_dir);
	if (error)
		calls->close(fd);
	else
		*ret_root = fd;
	return error;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static int bytes_write(const struct files_place *place, int fd, const struct files_content *content,
                       struct reason *reason)
{
	uint64_t done = 0;

	while (done < content->byte_count) {
		uint64_t left = content->byte_count - done;
		ssize_t count;

		if (atomic_load_explicit(place->abandons, memory_order_relaxed))
			return reason_set(reason, STATUS_ESHUTDOWN, "the daemon stopped while '%s' was being written",
			                  content->name);
		count = place->calls->write(fd, content->bytes + done, left < CHUNK_BYTES ? left : CHUNK_BYTES);
		if (count < 0 && errno == EINTR)
			continue;
		if (count == 0)
			errno = EIO;
		if (count <= 0)
			return files_failed(place, reason, "writing", content->name);
		done += (uint64_t)count;
	}
	return 0;
}

int files_file_write(const struct files_place *place, int directory, const char *name,
                     const struct files_content *content, struct reason *reason)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = place->calls->openat(directory, name, flags, 0666), error;

	if (fd < 0)
		return files_failed(place, reason, "making", content->name);
	error = bytes_write(place, fd, content, reason);
	if (!error && place->calls->fsync(fd) != 0)
		error = files_failed(place, reason, "synchronising", content->name);
	if (place->calls->close(fd) != 0 && !error)
		error = files_failed(place, reason, "closing", content->name);
	return error;
}
