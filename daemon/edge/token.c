/*
 * Reading the token. See token.h.
 */
#include "daemon/edge/token.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int token_read(const char *path, char ret_token[WEB_TOKEN_BYTES_MAX + 1], struct reason *reason)
{
	char text[WEB_TOKEN_BYTES_MAX + 3] = "";
	struct stat facts;
	ssize_t count;
	size_t bytes;
	int fd, error;

	if (!path[0]) {
		ret_token[0] = '\0';
		return 0;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	count = fd < 0 || fstat(fd, &facts) != 0 ? -1 : read(fd, text, sizeof text - 1);
	error = count < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	if (error)
		return reason_set(reason, error, "http-token-file=%s cannot be read: %s", path, strerror(-error));
	if (facts.st_mode & S_IROTH)
		return reason_set(reason, STATUS_EARGUMENT, "http-token-file=%s: everybody may read it (mode %04o): "
		                  "chmod o= it", path, facts.st_mode & 07777U);
	bytes = strcspn(text, "\r\n");
	text[bytes] = '\0';
	if (bytes < TOKEN_BYTES_MIN || bytes > WEB_TOKEN_BYTES_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "http-token-file=%s: its first line has %s%zu characters, "
		                  "and %d to %d are allowed: 'openssl rand -hex 32' makes a good one", path,
		                  bytes > WEB_TOKEN_BYTES_MAX ? "at least " : "", bytes, TOKEN_BYTES_MIN, WEB_TOKEN_BYTES_MAX);
	for (size_t i = 0; i < bytes; i++)
		if (!isgraph((unsigned char)text[i]))
			return reason_set(reason, STATUS_EARGUMENT, "http-token-file=%s: character %zu of its first line is "
			                  "not a printable one", path, i + 1);
	strcpy(ret_token, text);
	return 0;
}
