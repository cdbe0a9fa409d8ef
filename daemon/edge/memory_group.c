/*
 * Limits of control groups. See memory_group.h.
 */
#include "daemon/edge/memory_group.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	FACTS_BYTES_MAX = 8192, /* of a small file of the kernel's */
	GROUP_BYTES_MAX = 512,
};

/* v1 has a number for no limit: all pages that can be counted. */
static const uint64_t UNLIMITED = UINT64_C(1) << 62;

static const struct hierarchy {
	const char *folder; /* below the root */
	const char *limit, *used;
	const char *cached; /* of files, in memory.stat */
} hierarchies[] = {
	{ "", "memory.max", "memory.current", "inactive_file" },
	{ "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file" },
};

/*
 * What the kernel says in a small file, without a byte from the heap: a limit that was not read for want of memory would
 * be passed. NULL when it cannot be read.
 */
static const char *file_text(const char *path, char *text, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t count = 1;

	if (fd < 0)
		return NULL;
	while (count > 0 && used < capacity - 1) {
		count = read(fd, text + used, capacity - 1 - used);
		used += count > 0 ? (size_t)count : 0;
	}
	close(fd);
	text[used] = '\0';
	return used > 0 ? text : NULL;
}

static const char *line_next(const char *line)
{
	const char *end = strchr(line, '\n');

	return end && end[1] ? end + 1 : NULL;
}

/* The number behind a label in a file of "label: number kB" lines; UINT64_MAX when it is not there. */
static uint64_t file_number(const char *path, const char *label)
{
	char text[FACTS_BYTES_MAX];
	const char *line = file_text(path, text, sizeof text);
	size_t label_bytes = strlen(label);
	uint64_t number = UINT64_MAX;

	for (; line; line = line_next(line))
		if (strncmp(line, label, label_bytes) == 0 && sscanf(line + label_bytes, "%" SCNu64, &number) == 1)
			break;
	return number;
}

/* Of one group, at its directory. */
static struct memory_bounds group_bounds(const struct hierarchy *hierarchy, const char *directory)
{
	struct memory_bounds bounds = { UINT64_MAX, UINT64_MAX };
	char path[GROUP_BYTES_MAX + 600];
	uint64_t used, cached;

	snprintf(path, sizeof path, "%s/%s", directory, hierarchy->limit);
	bounds.total_bytes = file_number(path, "");
	if (bounds.total_bytes >= UNLIMITED)
		bounds.total_bytes = UINT64_MAX;
	snprintf(path, sizeof path, "%s/%s", directory, hierarchy->used);
	used = file_number(path, "");
	if (bounds.total_bytes == UINT64_MAX || used == UINT64_MAX)
		return bounds;
	/* Files' pages that nobody has touched lately go as soon as their room is wanted. */
	snprintf(path, sizeof path, "%s/memory.stat", directory);
	cached = file_number(path, hierarchy->cached);
	if (cached != UINT64_MAX)
		used -= cached < used ? cached : used;
	bounds.available_bytes = bounds.total_bytes > used ? bounds.total_bytes - used : 0;
	return bounds;
}

/* A group ("/system.slice/emad.service"), and those around it, up to the root: the container's where there is one. */
static void groups_bound(const struct hierarchy *hierarchy, const char *root, char *group, struct memory_bounds *least)
{
	for (;;) {
		char directory[GROUP_BYTES_MAX + 500], *last = strrchr(group, '/');
		struct memory_bounds bounds;

		snprintf(directory, sizeof directory, "%.480s%s%s", root, hierarchy->folder, group);
		bounds = group_bounds(hierarchy, directory);
		if (bounds.total_bytes < least->total_bytes)
			least->total_bytes = bounds.total_bytes;
		if (bounds.available_bytes < least->available_bytes)
			least->available_bytes = bounds.available_bytes;
		if (!last)
			return;
		*last = '\0';
	}
}

/* Which hierarchy with memory a line "ID:CONTROLLERS:/GROUP" is of, or NULL; *ret_group is what is behind it. */
static const struct hierarchy *line_hierarchy(const char *line, const char **ret_group)
{
	const char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
	const char *item = controllers;

	if (!group || group[1] != '/')
		return NULL;
	*ret_group = group + 1;
	if (strncmp(line, "0::", 3) == 0)
		return &hierarchies[0];
	for (; item < group; item += 1 + strcspn(item + 1, ",:"))
		if (strncmp(item + 1, "memory", 6) == 0 && strchr(",:", item[7]))
			return &hierarchies[1];
	return NULL;
}

struct memory_bounds memory_bounds(const char *process, const char *root)
{
	struct memory_bounds least = { UINT64_MAX, UINT64_MAX };
	char text[FACTS_BYTES_MAX];

	for (const char *line = file_text(process, text, sizeof text); line; line = line_next(line)) {
		char group[GROUP_BYTES_MAX];
		const char *begin;
		const struct hierarchy *hierarchy = line_hierarchy(line, &begin);

		if (!hierarchy)
			continue;
		snprintf(group, sizeof group, "%.*s", (int)strcspn(begin, "\n"), begin);
		groups_bound(hierarchy, root, group, &least);
	}
	return least;
}

uint64_t memory_total_bytes(void)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t group = memory_bounds("/proc/self/cgroup", "/sys/fs/cgroup").total_bytes;

	return host < group ? host : group;
}

uint64_t memory_available_bytes(void)
{
	uint64_t kib = file_number("/proc/meminfo", "MemAvailable:");
	uint64_t host = kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
	uint64_t group = memory_bounds("/proc/self/cgroup", "/sys/fs/cgroup").available_bytes;

	return host < group ? host : group;
}
