/*
 * Looking at the host: /proc, /sys, limits, and trying what the kernel can do. See doctor.h. What cannot be seen stays
 * unknown; nothing here fails.
 */
#include "client/emactl/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; Debian 12's headers do not have it */
#endif

enum { HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/* What control groups of version 1 say instead of "no limit". */
static const uint64_t GROUP_BYTES_UNLIMITED = UINT64_C(1) << 62;

/* The first number behind the label at the beginning of a line, or DOCTOR_UNKNOWN. */
static uint64_t file_number(const char *path, const char *label)
{
	uint64_t number = DOCTOR_UNKNOWN, found;
	FILE *file = fopen(path, "re");
	char line[512];

	while (file && number == DOCTOR_UNKNOWN && fgets(line, sizeof(line), file))
		if (strncmp(line, label, strlen(label)) == 0 && sscanf(line + strlen(label), "%" SCNu64, &found) == 1)
			number = found;
	if (file)
		fclose(file);
	return number;
}

static bool file_line(const char *path, char *line, size_t capacity)
{
	FILE *file = fopen(path, "re");
	bool found = file && fgets(line, (int)capacity, file);

	if (file)
		fclose(file);
	if (found)
		line[strcspn(line, "\n")] = '\0';
	return found;
}

/* ---- the daemon's process --------------------------------------------------------------------------------------- */

static uint64_t file_count(uint64_t pid)
{
	char path[64];
	uint64_t count = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/fd", pid);
	folder = opendir(path);
	if (!folder)
		return DOCTOR_UNKNOWN;
	while (readdir(folder))
		count++;
	closedir(folder);
	return count - 2; /* "." and ".." */
}

/* The narrowest limit of a group and those around it. */
static void group_look(struct doctor_facts *facts, const char *root, char *group, const char *const names[2])
{
	char path[1024];

	for (;;) {
		uint64_t most;

		snprintf(path, sizeof(path), "%s%s/%s", root, group, names[0]);
		most = file_number(path, "");
		if (most < GROUP_BYTES_UNLIMITED && most < facts->group_bytes_max) {
			facts->group_bytes_max = most;
			snprintf(path, sizeof(path), "%s%s/%s", root, group, names[1]);
			facts->group_bytes = file_number(path, "");
		}
		if (!strrchr(group, '/'))
			return;
		*strrchr(group, '/') = '\0';
	}
}

static void groups_look(struct doctor_facts *facts)
{
	static const char *const names[] = {"memory.max", "memory.current"};
	static const char *const names_1[] = {"memory.limit_in_bytes", "memory.usage_in_bytes"};
	char path[64], line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/cgroup", facts->pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (strcmp(line, "0:") == 0)
			group_look(facts, "/sys/fs/cgroup", group, names);
		else if (strcmp(controllers, ":memory") == 0)
			group_look(facts, "/sys/fs/cgroup/memory", group, names_1);
	}
	if (file)
		fclose(file);
}

static void process_look(struct doctor_facts *facts)
{
	char path[64], name[64];
	struct stat process;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/comm", facts->pid);
	facts->is_local = file_line(path, name, sizeof(name)) && strcmp(name, "emad") == 0;
	if (!facts->is_local)
		return;
	snprintf(path, sizeof(path), "/proc/%" PRIu64, facts->pid);
	if (stat(path, &process) == 0)
		facts->process_uid = process.st_uid;
	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/limits", facts->pid);
	facts->file_count_max = file_number(path, "Max open files");
	facts->file_count = file_count(facts->pid);
	groups_look(facts);
}

static void state_look(struct doctor_facts *facts)
{
	struct statvfs room;
	struct stat directory;

	if (!facts->state_dir[0] || stat(facts->state_dir, &directory) != 0 || statvfs(facts->state_dir, &room) != 0)
		return;
	facts->state_uid = directory.st_uid;
	facts->state_bytes_free = (uint64_t)room.f_bavail * room.f_frsize;
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

static int socket_try(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error = 0;

	if (strlen(path) >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	/* A listener whose queue is full is there. */
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 && errno != EAGAIN)
		error = errno;
	close(fd);
	return error;
}

void doctor_sockets_look(struct doctor_facts *facts)
{
	struct group *group = NULL;
	struct stat socket_facts;

	facts->socket_error = socket_try(facts->socket_path, SOCK_STREAM);
	facts->attach_error = socket_try(facts->attach_path, SOCK_SEQPACKET);
	if (stat(facts->socket_path, &socket_facts) != 0)
		return;
	facts->socket_mode = socket_facts.st_mode & 0777;
	group = getgrgid(socket_facts.st_gid);
	if (group)
		snprintf(facts->socket_group, sizeof(facts->socket_group), "%.63s", group->gr_name);
	else
		snprintf(facts->socket_group, sizeof(facts->socket_group), "%u", (unsigned)socket_facts.st_gid);
}

/* ---- the host ---------------------------------------------------------------------------------------------------- */

/* Memory as the daemon makes it. */
static void memory_try(struct doctor_facts *facts)
{
	int fd = memfd_create("emactl doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t *room, *base;

	facts->seal_error = facts->collapse_error = fd < 0 ? errno : 0;
	if (fd < 0)
		return;
	if (ftruncate(fd, HUGE_PAGE_BYTES) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		facts->seal_error = errno;
	room = mmap(NULL, 2 * HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	base = room;
	if (room != MAP_FAILED) {
		base += -(uintptr_t)room % HUGE_PAGE_BYTES;
		base = mmap(base, HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	}
	if (base == MAP_FAILED) {
		facts->collapse_error = errno;
	} else {
		memset(base, 1, HUGE_PAGE_BYTES);
		facts->collapse_error = madvise(base, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0 ? 0 : errno;
	}
	if (room != MAP_FAILED)
		munmap(room, 2 * HUGE_PAGE_BYTES);
	close(fd);
}

/* "always within_size advise [never] deny force": what is between the brackets. */
static void huge_pages_look(struct doctor_facts *facts)
{
	char line[128], *begin;

	if (!file_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof(line)))
		return;
	begin = strchr(line, '[');
	if (begin)
		snprintf(facts->huge_pages, sizeof(facts->huge_pages), "%.*s", (int)strcspn(begin + 1, "]"), begin + 1);
}

void doctor_host_look(struct doctor_facts *facts)
{
	struct timex clock_facts = {.modes = 0};
	struct passwd *user = getpwuid(geteuid());
	struct rlimit lock;
	struct utsname kernel;
	uint64_t kib;

	facts->file_count = facts->file_count_max = facts->group_bytes = facts->group_bytes_max = DOCTOR_UNKNOWN;
	facts->state_bytes_free = facts->state_uid = facts->process_uid = DOCTOR_UNKNOWN;
	if (user)
		snprintf(facts->user, sizeof(facts->user), "%.63s", user->pw_name);
	else
		snprintf(facts->user, sizeof(facts->user), "uid %u", (unsigned)geteuid());
	if (facts->connect_code == 0) {
		process_look(facts);
		state_look(facts);
	}
	kib = file_number("/proc/meminfo", "MemTotal:");
	facts->memory_total_bytes = kib == DOCTOR_UNKNOWN ? kib : kib * 1024;
	kib = file_number("/proc/meminfo", "MemAvailable:");
	facts->memory_available_bytes = kib == DOCTOR_UNKNOWN ? kib : kib * 1024;
	facts->lock_bytes_max = DOCTOR_UNKNOWN;
	if (getrlimit(RLIMIT_MEMLOCK, &lock) == 0 && lock.rlim_cur != RLIM_INFINITY)
		facts->lock_bytes_max = lock.rlim_cur;
	if (uname(&kernel) == 0)
		snprintf(facts->kernel, sizeof(facts->kernel), "%.64s", kernel.release);
	huge_pages_look(facts);
	memory_try(facts);
	facts->wall_s = (int64_t)time(NULL);
	/* What `timedatectl show -p NTPSynchronized` tells. */
	facts->is_clock_synchronised = adjtimex(&clock_facts) >= 0 && !(clock_facts.status & STA_UNSYNC);
}
