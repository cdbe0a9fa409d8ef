/*
 * Chunk by chunk. See files_write.h.
 */
#include "daemon/edge/files_write.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/edge/files_pace.h"
#include "proto/layout.h"

enum {
	CHUNK_BYTES = 4 * 1024 * 1024,      /* between two looks at whether to stop */
	DIRECT_UNIT_BYTES = 4096,           /* what goes past the page cache starts, and ends, at a multiple of this */
	DIRECT_BYTES_MIN = 64 * 1024,
	BEHIND_BYTES_MAX = 8 * 1024 * 1024, /* twice as much at most is in the page cache and not on its way to disk */
	OPEN_FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
};

struct writer {
	const struct files_place *place;
	const struct files_content *content;
	struct layout_sum *sum; /* NULL: none is wanted */
	int fd;
	bool direct;     /* past the page cache */
	uint64_t done;   /* written */
	uint64_t summed; /* in the checksum */
	uint64_t sent;   /* on its way to the disk */
};

/* ---- the page cache ---------------------------------------------------------------------------------------------- */

static bool may_be_direct(const struct files_place *place, const struct files_content *content)
{
	return place->calls->flags_set && content->byte_count >= DIRECT_BYTES_MIN &&
	       (uintptr_t)content->bytes % DIRECT_UNIT_BYTES == 0;
}

/* Goes on by way of the page cache: for the end of a file, and where the file system wants it so. */
static int direct_end(struct writer *writer, struct reason *reason)
{
	if (writer->place->calls->flags_set(writer->fd, 0) != 0)
		return files_failed(writer->place, reason, "writing", writer->content->name);
	writer->direct = false;
	writer->sent = writer->done;
	return 0;
}

/*
 * Has the latest bytes sent to the disk and waits for those before, so that neither memory fills with what is to be
 * written, nor the fsync at the end finds all of it. What goes wrong with the disk is said here and not again.
 */
static int bytes_send(struct writer *writer, struct reason *reason)
{
	const struct files_calls *calls = writer->place->calls;
	const unsigned int all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
	off_t at = (off_t)writer->sent, bytes = (off_t)(writer->done - writer->sent);
	off_t before = at < BEHIND_BYTES_MAX ? at : BEHIND_BYTES_MAX;

	if (writer->direct || bytes < BEHIND_BYTES_MAX || !calls->sync_range)
		return 0;
	writer->sent = writer->done;
	if (calls->sync_range(writer->fd, at, bytes, SYNC_FILE_RANGE_WRITE) == 0 &&
	    (before == 0 || calls->sync_range(writer->fd, at - before, before, all) == 0))
		return 0;
	/* It cannot be done here: then the fsync does it all. */
	if (errno == ENOSYS || errno == EINVAL || errno == ESPIPE || errno == EPERM)
		return 0;
	return files_failed(writer->place, reason, "writing", writer->content->name);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void sum_up(struct writer *writer, uint64_t end)
{
	if (writer->sum && end > writer->summed)
		layout_sum_add(writer->sum, writer->content->bytes + writer->summed, end - writer->summed);
	if (end > writer->summed)
		writer->summed = end;
}

static int chunk_write(struct writer *writer, struct reason *reason)
{
	const struct files_content *content = writer->content;
	const struct files_place *place = writer->place;
	uint64_t left = content->byte_count - writer->done;
	size_t bytes;
	ssize_t count;

	if (writer->direct && (left < DIRECT_UNIT_BYTES || writer->done % DIRECT_UNIT_BYTES != 0))
		return direct_end(writer, reason);
	if (writer->direct)
		left -= left % DIRECT_UNIT_BYTES;
	bytes = files_pace_wait(place->pace, place->calls, left < CHUNK_BYTES ? left : CHUNK_BYTES);
	if (atomic_load_explicit(place->abandons, memory_order_relaxed))
		return reason_set(reason, STATUS_ESHUTDOWN, "the daemon stopped while '%s' was being written",
		                  content->name);
	sum_up(writer, writer->done + bytes);
	count = place->calls->write(writer->fd, content->bytes + writer->done, bytes);
	if (count < 0 && errno == EINTR)
		return 0;
	if (count < 0 && errno == EINVAL && writer->direct)
		return direct_end(writer, reason);
	if (count == 0)
		errno = EIO;
	if (count <= 0)
		return files_failed(place, reason, "writing", content->name);
	writer->done += (uint64_t)count;
	if (content->written_bytes)
		atomic_fetch_add_explicit(content->written_bytes, (uint64_t)count, memory_order_relaxed);
	return bytes_send(writer, reason);
}

static int bytes_write(struct writer *writer, struct reason *reason)
{
	int error = 0;

	if (writer->content->ret_checksum && !(writer->sum = layout_sum_begin()))
		return -ENOMEM;
	while (!error && writer->done < writer->content->byte_count)
		error = chunk_write(writer, reason);
	if (writer->sum && !error)
		*writer->content->ret_checksum = layout_sum_end(writer->sum);
	else
		(void)layout_sum_end(writer->sum);
	return error;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int file_make(struct writer *writer, int directory, const char *name)
{
	const struct files_calls *calls = writer->place->calls;
	int fd = -1;

	writer->direct = may_be_direct(writer->place, writer->content);
	if (writer->direct)
		fd = calls->openat(directory, name, OPEN_FLAGS | O_DIRECT, 0666);
	if (fd >= 0 || (writer->direct && errno != EINVAL))
		return fd;
	/* Where it cannot be had, some file systems have made the file before they say so. */
	if (writer->direct)
		(void)calls->unlinkat(directory, name, 0);
	writer->direct = false;
	return calls->openat(directory, name, OPEN_FLAGS, 0666);
}

int files_file_write(const struct files_place *place, int directory, const char *name,
                     const struct files_content *content, struct reason *reason)
{
	struct writer writer = { .place = place, .content = content };
	int error;

	writer.fd = file_make(&writer, directory, name);
	if (writer.fd < 0)
		return files_failed(place, reason, "making", content->name);
	error = bytes_write(&writer, reason);
	if (!error && place->calls->fsync(writer.fd) != 0)
		error = files_failed(place, reason, "synchronising", content->name);
	if (place->calls->close(writer.fd) != 0 && !error)
		error = files_failed(place, reason, "closing", content->name);
	return error;
}
