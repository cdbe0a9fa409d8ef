/*
 * Reading safetensors files. See input.h.
 */
#include "client/emactl/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens it as far as its size. */
static int input_open_file(struct input *input, struct reason *reason)
{
	struct stat facts;

	/* Not blocking on a pipe without a writer: it is refused below. */
	input->fd = open(input->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (input->fd < 0 || fstat(input->fd, &facts) < 0)
		return reason_set(reason, -errno, "cannot open it: %s", status_text(-errno));
	if (S_ISDIR(facts.st_mode))
		return reason_set(reason, -EISDIR, "it is a directory");
	if (!S_ISREG(facts.st_mode))
		return reason_set(reason, STATUS_EARGUMENT, "it is not a regular file");
	input->file_bytes = (uint64_t)facts.st_size;
	posix_fadvise(input->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

int input_read(const struct input *input, uint64_t offset, uint8_t *bytes, size_t byte_count, struct reason *reason)
{
	ssize_t got;

	while (byte_count > 0) {
		got = pread(input->fd, bytes, byte_count, (off_t)offset);
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

static int header_read(struct input *input, struct reason *reason)
{
	uint8_t first[8], *header;
	uint64_t header_bytes;
	int code;

	if (input->file_bytes < sizeof(first))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "it has %llu bytes; a safetensors file begins with 8 for the size of its header",
		                  (unsigned long long)input->file_bytes);
	code = input_read(input, 0, first, sizeof(first), reason);
	if (!code)
		code = safetensors_header_bytes(first, input->file_bytes, &header_bytes, reason);
	if (code)
		return code;
	header = malloc(header_bytes);
	if (!header)
		return reason_set(reason, -ENOMEM, "not enough memory for its header of %llu bytes",
		                  (unsigned long long)header_bytes);
	code = input_read(input, 0, header, header_bytes, reason);
	if (!code)
		code = safetensors_parse(header, header_bytes, input->file_bytes, &input->contents, reason);
	free(header);
	return code;
}

int input_open(struct input *input, const char *path, struct reason *reason)
{
	int code;

	*input = (struct input){.path = path, .fd = -1};
	code = input_open_file(input, reason);
	return code ? code : header_read(input, reason);
}

void input_close(struct input *input)
{
	if (input->fd >= 0)
		close(input->fd);
	safetensors_destroy(input->contents);
	*input = (struct input){.fd = -1};
}
