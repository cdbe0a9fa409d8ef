/*
 * Making and taking over segments. See memory_segment.h.
 */
#include "daemon/edge/memory_segment.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/core/failpoint.h"
#include "proto/layout.h"

enum {
	HUGE_PAGE_BYTES = 2 * 1024 * 1024,
	SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
};

#define PREFIX "emad-"

void memory_segment_name(uint64_t segment, char name[MEMORY_NAME_BYTES])
{
	snprintf(name, MEMORY_NAME_BYTES, PREFIX "%016" PRIx64, segment);
}

bool memory_segment_identity(const char *name, uint64_t *ret_segment)
{
	char again[MEMORY_NAME_BYTES];
	uint64_t segment;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || !isxdigit((unsigned char)name[strlen(PREFIX)]))
		return false;
	segment = strtoull(name + strlen(PREFIX), NULL, 16);
	memory_segment_name(segment, again);
	if (segment == 0 || strcmp(name, again) != 0)
		return false;
	*ret_segment = segment;
	return true;
}

/* A mapping at an address that huge pages can be used for. */
static uint8_t *map_aligned(int fd, uint64_t bytes)
{
	uint8_t *room = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t begin, end;
	uint8_t *base;

	if (room == MAP_FAILED)
		return NULL;
	begin = ((uintptr_t)room + HUGE_PAGE_BYTES - 1) & ~(uintptr_t)(HUGE_PAGE_BYTES - 1);
	end = begin + ((bytes + 4095) & ~UINT64_C(4095));
	base = mmap((void *)begin, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (base == MAP_FAILED) {
		int error = errno;

		munmap(room, bytes + HUGE_PAGE_BYTES);
		errno = error;
		return NULL;
	}
	if (begin > (uintptr_t)room)
		munmap(room, begin - (uintptr_t)room);
	if ((uintptr_t)room + bytes + HUGE_PAGE_BYTES > end)
		munmap((void *)end, (uintptr_t)room + bytes + HUGE_PAGE_BYTES - end);
	return base;
}

void memory_segment_close(struct memory *memory)
{
	if (memory->base)
		munmap(memory->base, memory->bytes);
	if (memory->fd >= 0)
		close(memory->fd);
	if (memory->fd_read_only >= 0)
		close(memory->fd_read_only);
	*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
}

/* The second description, and the mapping, of memory->fd. -errno. */
static int memory_open(struct memory *memory)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", memory->fd);
	memory->fd_read_only = open(path, O_RDONLY | O_CLOEXEC);
	if (memory->fd_read_only < 0)
		return -errno;
	memory->base = map_aligned(memory->fd, memory->bytes);
	return memory->base ? 0 : -errno;
}

/* An empty one. The descriptor, or -1 with errno. */
static int memory_create(const char *name, const char *label, int directory)
{
	if (directory >= 0)
		return openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int memory_segment_make(struct memory *memory, const char *label, int directory)
{
	char name[MEMORY_NAME_BYTES];
	int error;

	memory_segment_name(memory->segment, name);
	memory->base = NULL;
	memory->fd_read_only = -1;
	memory->fd = memory_create(name, label, directory);
	if (memory->fd < 0)
		return -errno;
	FAILPOINT("segment-empty");
	error = fchmod(memory->fd, 0600) != 0 ? -errno : -posix_fallocate(memory->fd, 0, (off_t)memory->bytes);
	/* Files cannot be sealed. */
	if (!error && directory < 0 && fcntl(memory->fd, F_ADD_SEALS, SEALS) != 0)
		error = -errno;
	FAILPOINT("segment-sized");
	if (!error)
		error = memory_open(memory);
	if (!error)
		return 0;
	if (directory >= 0)
		unlinkat(directory, name, 0);
	memory_segment_close(memory);
	return error;
}

/* All of a segment is allocated when it is made; touching what is not might be a SIGBUS. */
static bool is_sparse(int fd, const struct stat *facts)
{
	struct statfs system;

	return fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC && facts->st_blocks * 512 < facts->st_size;
}

/* Whether nobody but us can have changed it, and its size is what it was. */
static int facts_check(int fd, bool is_sealed, const struct stat *facts, struct reason *reason)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (!S_ISREG(facts->st_mode))
		return reason_set(reason, STATUS_ECORRUPT, "it is not a regular file (mode %07o)", facts->st_mode);
	if (facts->st_uid != geteuid())
		return reason_set(reason, STATUS_ECORRUPT, "it belongs to uid %u, and the daemon is uid %u", facts->st_uid,
		                  geteuid());
	if (facts->st_mode & 077)
		return reason_set(reason, STATUS_ECORRUPT, "its permissions are %04o, and they must be 0600, so that nobody "
		                  "else can have written to it", facts->st_mode & 07777);
	if (facts->st_size <= 0 || facts->st_size % LAYOUT_PAGE_BYTES != 0)
		return reason_set(reason, STATUS_ECORRUPT, "it has %jd bytes, and whole pages of %d bytes are needed",
		                  (intmax_t)facts->st_size, LAYOUT_PAGE_BYTES);
	if (is_sparse(fd, facts))
		return reason_set(reason, STATUS_ECORRUPT, "only %jd of its %jd bytes are there",
		                  (intmax_t)facts->st_blocks * 512, (intmax_t)facts->st_size);
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return reason_set(reason, STATUS_ECORRUPT, "it is not open for reading and writing");
	if (is_sealed && (seals < 0 || (seals & SEALS) != SEALS))
		return reason_set(reason, STATUS_ECORRUPT, "its size is not sealed (seals %#x, and %#x are needed)",
		                  (unsigned)(seals < 0 ? 0 : seals), (unsigned)SEALS);
	return 0;
}

bool memory_segment_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -EAGAIN;
}

int memory_segment_take(int fd, uint64_t segment, bool is_sealed, struct memory *ret_memory, struct reason *reason)
{
	struct memory memory = { .segment = segment, .fd = fd, .fd_read_only = -1 };
	struct stat facts;
	int error;

	if (fstat(fd, &facts) != 0)
		error = reason_set(reason, STATUS_ECORRUPT, "it cannot be looked at: %s", strerror(errno));
	else
		error = facts_check(fd, is_sealed, &facts, reason);
	if (!error) {
		memory.bytes = (uint64_t)facts.st_size;
		error = memory_open(&memory);
		if (error)
			error = reason_set(reason, memory_segment_shortage(error) ? error : STATUS_ECORRUPT,
			                   "its %" PRIu64 " bytes cannot be mapped: %s", memory.bytes, strerror(-error));
	}
	if (error) {
		memory_segment_close(&memory);
		return error;
	}
	*ret_memory = memory;
	return 0;
}
