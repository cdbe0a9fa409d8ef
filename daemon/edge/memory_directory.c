/*
 * Opening, locking and reading the segments directory. See memory_directory.h.
 */
#include "daemon/edge/memory_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/edge/memory_segment.h"

#define PID_NAME "emad.pid" /* who holds the lock, for whoever does not get it */

/* Whether nobody else can make, remove or replace files in it. */
static int owner_check(const struct memory_directory *directory, struct reason *reason)
{
	struct stat facts;

	if (fstat(directory->fd, &facts) != 0)
		return reason_set(reason, -errno, "the segments directory '%s' cannot be looked at: %s", directory->path,
		                  strerror(errno));
	if (facts.st_uid != geteuid())
		return reason_set(reason, -EPERM,
		                  "the segments directory '%s' belongs to uid %u, and the daemon is uid %u: name one of its "
		                  "own with --segments-dir, such as /dev/shm/emad",
		                  directory->path, facts.st_uid, geteuid());
	if (facts.st_mode & 022)
		return reason_set(reason, -EPERM,
		                  "the segments directory '%s' has the permissions %04o, and nobody but its owner may write "
		                  "into it: run 'chmod 0700 %.200s'",
		                  directory->path, facts.st_mode & 07777, directory->path);
	return 0;
}

/* What it is on. */
static int system_check(struct memory_directory *directory, struct reason *reason)
{
	struct statfs system;

	if (fstatfs(directory->fd, &system) != 0)
		return reason_set(reason, -errno, "the segments directory '%s' cannot be looked at: %s", directory->path,
		                  strerror(errno));
	directory->is_memory = system.f_type == TMPFS_MAGIC;
	/* It has no system calls for parts of huge pages. */
	if (system.f_type == HUGETLBFS_MAGIC)
		return reason_set(reason, -EOPNOTSUPP,
		                  "the segments directory '%s' is on a hugetlbfs, which holds whole huge pages only: use a tmpfs, "
		                  "mounted with huge=always or huge=within_size where huge pages are wanted",
		                  directory->path);
	return 0;
}

/* The pid that the lock's holder has written, 0 when there is none to read. */
static long holder_pid(int directory)
{
	int fd = openat(directory, PID_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[32] = "";
	ssize_t count = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (fd >= 0)
		close(fd);
	return count > 0 ? strtol(text, NULL, 10) : 0;
}

static int pid_write(const struct memory_directory *directory, struct reason *reason)
{
	int fd = openat(directory->fd, PID_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

	if (fd < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
		int error = reason_set(reason, -errno, "'%s/" PID_NAME "' cannot be written: %s", directory->path,
		                       strerror(errno));

		if (fd >= 0)
			close(fd);
		return error;
	}
	close(fd);
	return 0;
}

static int lock_take(const struct memory_directory *directory, struct reason *reason)
{
	if (flock(directory->fd, LOCK_EX | LOCK_NB) == 0)
		return pid_write(directory, reason);
	if (errno != EWOULDBLOCK)
		return reason_set(reason, -errno, "the segments directory '%s' cannot be locked: %s", directory->path,
		                  strerror(errno));
	return reason_set(reason, -EEXIST,
	                  "the segments directory '%s' is used by another emad, pid %ld: stop it, or choose another "
	                  "directory with --segments-dir", directory->path, holder_pid(directory->fd));
}

int memory_directory_open(const char *path, struct memory_directory *ret_directory, struct reason *reason)
{
	struct memory_directory directory = { .path = path };
	int error;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return reason_set(reason, -errno, "the segments directory '%s' cannot be made: %s", path, strerror(errno));
	directory.fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory.fd < 0)
		return reason_set(reason, -errno, "the segments directory '%s' cannot be opened: %s%s", path, strerror(errno),
		                  errno == ENOTDIR || errno == ELOOP ? "; a link or a file is in its place" : "");
	error = owner_check(&directory, reason);
	if (!error)
		error = system_check(&directory, reason);
	if (!error)
		error = lock_take(&directory, reason);
	if (error) {
		close(directory.fd);
		return error;
	}
	*ret_directory = directory;
	return 0;
}

void memory_directory_close(struct memory_directory *directory)
{
	if (directory->fd < 0)
		return;
	unlinkat(directory->fd, PID_NAME, 0);
	close(directory->fd);
	directory->fd = -1;
}

int memory_directory_check(const struct memory_directory *directory, uint64_t bytes, struct reason *reason)
{
	struct statvfs system;
	uint64_t free_bytes;

	if (fstatvfs(directory->fd, &system) != 0)
		return 0;
	free_bytes = (uint64_t)system.f_bavail * system.f_frsize;
	/* A tmpfs of any size has no blocks at all. */
	if (system.f_blocks == 0 || bytes <= free_bytes)
		return 0;
	return reason_set(reason, STATUS_EMEMORY,
	                  "%" PRIu64 " bytes are needed and %" PRIu64 " of %" PRIu64 " are free in the segments directory "
	                  "'%s': make that file system larger (mount -o remount,size=...; docker run --shm-size=...), or use "
	                  "fewer slots or stages",
	                  bytes, free_bytes, (uint64_t)system.f_blocks * system.f_frsize, directory->path);
}

/* Opens a file of ours. *ret_fd is -1 for what is not, which is named. -errno where only this process cannot open it. */
static int entry_open(const struct memory_directory *directory, const struct memory_directory_reader *reader,
                      const char *name, int *ret_fd, struct reason *reason)
{
	struct reason detail = { "" };
	struct stat facts;
	uint64_t segment;

	*ret_fd = -1;
	if (!memory_segment_identity(name, &segment))
		reason_set(&detail, 0, "it is not the name of a segment");
	else if (fstatat(directory->fd, name, &facts, AT_SYMLINK_NOFOLLOW) != 0)
		reason_set(&detail, 0, "it cannot be looked at: %s", strerror(errno));
	else if (!S_ISREG(facts.st_mode))
		reason_set(&detail, 0, "it is not a regular file (mode %07o)", facts.st_mode);
	else if (facts.st_uid != geteuid())
		reason_set(&detail, 0, "it belongs to uid %u, and the daemon is uid %u", facts.st_uid, geteuid());
	else
		*ret_fd = openat(directory->fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	if (!detail.text[0] && memory_segment_shortage(-errno))
		return reason_set(reason, -errno, "'%s/%s' cannot be opened: %s", directory->path, name, strerror(errno));
	if (!detail.text[0])
		reason_set(&detail, 0, "it cannot be opened: %s", strerror(errno));
	reader->strange(reader->context, name, &detail);
	return 0;
}

int memory_directory_read(const struct memory_directory *directory, const struct memory_directory_reader *reader,
                          struct reason *reason)
{
	int own = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
	DIR *stream = own < 0 ? NULL : fdopendir(own);
	struct dirent *entry;

	if (!stream) {
		error = reason_set(reason, -errno, "the segments directory '%s' cannot be read: %s", directory->path,
		                   strerror(errno));
		if (own >= 0)
			close(own);
		return error;
	}
	while (!error && (entry = readdir(stream))) {
		const char *name = entry->d_name;
		int fd;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, PID_NAME) == 0)
			continue;
		error = entry_open(directory, reader, name, &fd, reason);
		if (!error && fd >= 0)
			error = reader->found(reader->context, name, fd);
	}
	closedir(stream);
	return error;
}
