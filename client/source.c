/*
 * Files that are read. Of a thousand snapshots only some can be open at a time, so a source knows how to open itself
 * again, and how to tell that what it then finds is what it had before.
 */
#include "client/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES_MAX = 160 };

const char *source_name(const char *path)
{
	const size_t bytes = strlen(path);

	if (bytes <= NAME_BYTES_MAX)
		return path;
	path += bytes - NAME_BYTES_MAX;
	while (((unsigned char)*path & 0xc0) == 0x80)
		path++;
	return path;
}

static int source_errno(const struct source *source, const char *what, struct reason *reason)
{
	const int error = errno;

	return reason_set(reason, -error, "%s: cannot %s: %s", source_name(source->path), what, strerrordesc_np(error));
}

static void source_let_go(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
}

/* Opens the file if it is not open, and learns about it. */
static int source_begin(struct source *source, struct stat *ret_facts, struct reason *reason)
{
	/* Not blocking on a pipe without a writer: it is refused by whoever looks at the facts. */
	source->fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (source->fd < 0 || fstat(source->fd, ret_facts) < 0) {
		const int code = source_errno(source, "open it", reason);

		source_let_go(source);
		return code;
	}
	return 0;
}

static int source_again(struct source *source, struct reason *reason)
{
	struct stat facts;
	int code;

	if (source->fd >= 0)
		return 0;
	code = source_begin(source, &facts, reason);
	if (code)
		return code;
	if (facts.st_dev == source->device && facts.st_ino == source->inode &&
	    (uint64_t)facts.st_size == source->file_bytes && facts.st_mtim.tv_sec == source->changed.tv_sec &&
	    facts.st_mtim.tv_nsec == source->changed.tv_nsec)
		return 0;
	source_let_go(source);
	return reason_set(reason, STATUS_ECORRUPT, "%s: it was changed while it was read", source_name(source->path));
}

int source_open(const char *path, bool is_kept, struct source *ret_source, struct reason *reason)
{
	struct source source = {.path = path, .fd = -1, .is_kept = is_kept};
	struct stat facts;
	int code = source_begin(&source, &facts, reason);

	if (code)
		return code;
	if (!S_ISREG(facts.st_mode)) {
		source_let_go(&source);
		return reason_set(reason, S_ISDIR(facts.st_mode) ? -EISDIR : STATUS_EARGUMENT, "%s: it is %s",
		                  source_name(path), S_ISDIR(facts.st_mode) ? "a directory" : "not a regular file");
	}
	source.device = facts.st_dev;
	source.inode = facts.st_ino;
	source.changed = facts.st_mtim;
	source.file_bytes = (uint64_t)facts.st_size;
	if (!is_kept)
		source_let_go(&source);
	*ret_source = source;
	return 0;
}

void source_close(struct source *source)
{
	source_let_go(source);
}

int source_read(struct source *source, uint64_t offset, void *bytes, size_t byte_count, struct reason *reason)
{
	uint8_t *at = bytes;
	int code = source_again(source, reason);

	while (code == 0 && byte_count > 0) {
		const ssize_t got = pread(source->fd, at, byte_count, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			code = source_errno(source, "read it", reason);
		} else if (got == 0) {
			code = reason_set(reason, STATUS_ECORRUPT,
			                  "%s: it was cut short at byte %" PRIu64 " while it was read", source_name(source->path),
			                  offset);
		} else {
			at += got;
			offset += (uint64_t)got;
			byte_count -= (size_t)got;
		}
	}
	if (!source->is_kept)
		source_let_go(source);
	return code;
}

static int header_take(struct source *source, uint64_t header_bytes, struct safetensors **ret_contents,
                       struct reason *reason)
{
	struct reason inner = {""};
	uint8_t *header = malloc(header_bytes);
	int code;

	if (!header)
		return reason_set(reason, -ENOMEM, "%s: not enough memory for its header of %" PRIu64 " bytes",
		                  source_name(source->path), header_bytes);
	code = source_read(source, 0, header, header_bytes, reason);
	if (code == 0) {
		code = safetensors_parse(header, header_bytes, source->file_bytes, ret_contents, &inner);
		if (code)
			reason_set(reason, code, "%s: %s", source_name(source->path),
			           inner.text[0] ? inner.text : status_text(code));
	}
	free(header);
	return code;
}

int source_header(struct source *source, struct safetensors **ret_contents, struct reason *reason)
{
	struct reason inner = {""};
	uint64_t header_bytes = 0;
	uint8_t first[8];
	int code;

	if (source->file_bytes < sizeof(first))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "%s: it has %" PRIu64
		                  " bytes; a safetensors file begins with 8 for the size of its header",
		                  source_name(source->path), source->file_bytes);
	code = source_read(source, 0, first, sizeof(first), reason);
	if (code)
		return code;
	code = safetensors_header_bytes(first, source->file_bytes, &header_bytes, &inner);
	if (code)
		return reason_set(reason, code, "%s: %s", source_name(source->path), inner.text);
	return header_take(source, header_bytes, ret_contents, reason);
}

int source_begin_reading(const char *path, struct source *ret_source, struct safetensors **ret_contents,
                         struct reason *reason)
{
	int code;

	*ret_source = (struct source){.path = path, .fd = -1};
	*ret_contents = NULL;
	code = source_open(path, true, ret_source, reason);
	if (code)
		return code;
	posix_fadvise(ret_source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return source_header(ret_source, ret_contents, reason);
}
