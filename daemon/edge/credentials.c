/*
 * Reading small files. See credentials.h.
 */
#include "daemon/edge/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CREDENTIAL_BYTES_MAX = 1024 * 1024 };

static int file_check(const char *key, const char *path, int fd, bool is_secret, struct reason *reason)
{
	struct stat facts;

	if (fstat(fd, &facts) < 0)
		return reason_set(reason, -errno, "%s=%s: %s", key, path, strerror(errno));
	if (!S_ISREG(facts.st_mode) || facts.st_size > CREDENTIAL_BYTES_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%s is not a file of at most %d bytes", key, path,
		                  CREDENTIAL_BYTES_MAX);
	if (is_secret && facts.st_mode & 07)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%s can be read or written by everybody (mode %04o): 'chmod o= %s'",
		                  key, path, facts.st_mode & 07777u, path);
	return 0;
}

static int file_read(const char *key, const char *path, int fd, char *text, struct reason *reason)
{
	size_t used = 0;
	ssize_t count;

	do {
		count = read(fd, text + used, CREDENTIAL_BYTES_MAX - used);
		used += count > 0 ? (size_t)count : 0;
	} while (count > 0 || (count < 0 && errno == EINTR));
	if (count < 0)
		return reason_set(reason, -errno, "%s=%s: %s", key, path, strerror(errno));
	text[used] = '\0';
	if (used == 0 || strlen(text) != used)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%s %s", key, path, used ? "is not a text" : "is empty");
	return 0;
}

int credential_read(const char *key, const char *name, bool is_secret, char **ret_text, struct reason *reason)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	char path[4096], *text;
	int fd, error;

	if (name[0] != '/' && !directory)
		return reason_set(reason, -ENOENT, "%s=%s is the name of a credential, and the service manager has handed over none: "
		                  "write LoadCredential=%s:/PATH in the unit, or a path here", key, name, name);
	snprintf(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : directory, name[0] == '/' ? "" : "/", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return reason_set(reason, -errno, "%s=%s: %s", key, path, strerror(errno));
	text = malloc(CREDENTIAL_BYTES_MAX + 1);
	error = text ? file_check(key, path, fd, is_secret, reason)
	             : reason_set(reason, -ENOMEM, "%s=%s was not read: not enough memory", key, name);
	if (!error)
		error = file_read(key, path, fd, text, reason);
	close(fd);
	if (error) {
		free(text);
		return error;
	}
	*ret_text = text;
	return 0;
}
