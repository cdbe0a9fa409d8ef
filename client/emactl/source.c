/*
 * Reading safetensors files. See source.h.
 */
#include "client/emactl/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens it as far as its size. */
static int source_open_file(struct source *source, struct reason *reason)
{
	struct stat facts;

	/* Not blocking on a pipe without a writer: it is refused below. */
	source->fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (source->fd < 0 || fstat(source->fd, &facts) < 0)
		return reason_set(reason, -errno, "cannot open it: %s", status_text(-errno));
	if (S_ISDIR(facts.st_mode))
		return reason_set(reason, -EISDIR, "it is a directory");
	if (!S_ISREG(facts.st_mode))
		return reason_set(reason, STATUS_EARGUMENT, "it is not a regular file");
	source->file_bytes = (uint64_t)facts.st_size;
	posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

int source_read(const struct source *source, uint64_t offset, uint8_t *bytes, size_t byte_count, struct reason *reason)
{
	ssize_t got;

	while (byte_count > 0) {
		got = pread(source->fd, bytes, byte_count, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return reason_set(reason, -errno, "reading at byte %llu failed: %s", (unsigned long long)offset,
			                  status_text(-errno));
		if (got == 0)
			return reason_set(reason, STATUS_ECORRUPT, "it was cut short at byte %llu while it was read",
			                  (unsigned long long)offset);
		bytes += got;
		offset += (uint64_t)got;
		byte_count -= (size_t)got;
	}
	return 0;
}

static int header_read(struct source *source, struct reason *reason)
{
	uint8_t first[8], *header;
	uint64_t header_bytes;
	int code;

	if (source->file_bytes < sizeof(first))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "it has %llu bytes; a safetensors file begins with 8 for the size of its header",
		                  (unsigned long long)source->file_bytes);
	code = source_read(source, 0, first, sizeof(first), reason);
	if (!code)
		code = safetensors_header_bytes(first, source->file_bytes, &header_bytes, reason);
	if (code)
		return code;
	header = malloc(header_bytes);
	if (!header)
		return reason_set(reason, -ENOMEM, "not enough memory for its header of %llu bytes",
		                  (unsigned long long)header_bytes);
	code = source_read(source, 0, header, header_bytes, reason);
	if (!code)
		code = safetensors_parse(header, header_bytes, source->file_bytes, &source->contents, reason);
	free(header);
	return code;
}

int source_open(struct source *source, const char *path, struct reason *reason)
{
	int code;

	*source = (struct source){.path = path, .fd = -1};
	code = source_open_file(source, reason);
	return code ? code : header_read(source, reason);
}

void source_close(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	safetensors_destroy(source->contents);
	*source = (struct source){.fd = -1};
}
