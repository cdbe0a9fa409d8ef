/*
 * Files that are whole or untouched: temporary file, fsync, rename, fsync of the directory.
 */
#include "client/target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int target_errno(const struct target *target, const char *what, struct reason *reason)
{
	int error = errno;

	return reason_set(reason, -error, "cannot %s for %s: %s", what, target->path, strerrordesc_np(error));
}

int target_open(const char *path, struct target *ret_target, struct reason *reason)
{
	struct target target = {.path = path, .fd = -1};
	const char *slash = strrchr(path, '/');
	struct stat facts;
	uint64_t random;
	char *directory;

	target.name = slash ? slash + 1 : path;
	if (!*target.name)
		return reason_set(reason, -EISDIR, "%s is a directory: name a file in it", path);
	if (stat(path, &facts) == 0 && S_ISDIR(facts.st_mode))
		return reason_set(reason, -EISDIR, "%s is a directory: name a file in it", path);
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return target_errno(&target, "get random numbers", reason);
	snprintf(target.temporary, sizeof(target.temporary), ".emad-export-%016" PRIx64 ".tmp", random);
	directory = slash ? strndup(path, (size_t)(slash + 1 - path)) : strdup(".");
	if (!directory)
		return -ENOMEM;
	target.directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(directory);
	if (target.directory < 0)
		return target_errno(&target, "open the directory", reason);
	*ret_target = target;
	return 0;
}

int target_begin(struct target *target, struct reason *reason)
{
	target->fd = openat(target->directory, target->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
	                    0666);
	if (target->fd < 0)
		return target_errno(target, "create a temporary file", reason);
	return 0;
}

int target_write(const struct target *target, const void *bytes, size_t byte_count, struct reason *reason)
{
	const uint8_t *at = bytes;

	while (byte_count > 0) {
		ssize_t count = write(target->fd, at, byte_count);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return target_errno(target, "write", reason);
		at += count;
		byte_count -= (size_t)count;
	}
	return 0;
}

int target_sync(const struct target *target, struct reason *reason)
{
	if (fsync(target->fd) < 0)
		return target_errno(target, "bring the data to the disk", reason);
	return 0;
}

int target_commit(struct target *target, struct reason *reason)
{
	const int fd = target->fd;

	/* Whatever close() says, the descriptor is gone. */
	target->fd = -1;
	if (close(fd) < 0)
		return target_errno(target, "close the temporary file", reason);
	if (renameat(target->directory, target->temporary, target->directory, target->name) < 0)
		return target_errno(target, "rename the temporary file", reason);
	if (fsync(target->directory) < 0)
		return target_errno(target, "bring the directory to the disk", reason);
	return 0;
}

void target_abandon(struct target *target)
{
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
	unlinkat(target->directory, target->temporary, 0);
}

void target_close(struct target *target)
{
	close(target->directory);
}
