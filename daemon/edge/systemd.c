/*
 * sd_listen_fds, sd_notify and sd_journal_sendv. See systemd.h.
 */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "daemon/edge/systemd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

enum { UNSTORE_WAIT_US = 1000000 }; /* for a service manager that is busy; then it frees the memory when it can */

/* sd_notify would wait for a service manager that does not read, and the whole daemon with it. */
static bool report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* False when the service manager's queue is full. */
static bool report(const char *format, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t path_bytes = path ? strlen(path) : 0;
	char text[512];
	va_list arguments;
	bool full;
	int fd;

	if (path_bytes < 2 || path_bytes >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
		return true;
	memcpy(address.sun_path, path, path_bytes);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	full = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address,
	              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes)) < 0 && errno == EAGAIN;
	close(fd);
	return !full;
}

void systemd_ready(const char *status)
{
	char text[1024];

	/* sd_notifyf asks for memory, and without this nobody would know that we serve. */
	snprintf(text, sizeof text, "READY=1\nSTATUS=%.900s", status);
	(void)sd_notify(0, text);
}

/* ---- what is handed over ----------------------------------------------------------------------------------------- */

int systemd_handed_take(struct systemd_handed *ret_handed)
{
	struct systemd_handed handed = { .count = 0 };
	char **names = NULL;
	int count = sd_listen_fds_with_names(1, &names);

	if (count <= 0) {
		*ret_handed = handed;
		return count;
	}
	handed.descriptors = calloc((size_t)count, sizeof *handed.descriptors);
	if (!handed.descriptors) {
		for (int i = 0; i < count; i++)
			free(names[i]);
		free(names);
		return -ENOMEM;
	}
	handed.count = (uint32_t)count;
	for (int i = 0; i < count; i++)
		handed.descriptors[i] = (struct systemd_descriptor){ names[i], SD_LISTEN_FDS_START + i };
	free(names);
	*ret_handed = handed;
	return 0;
}

void systemd_handed_finish(struct systemd_handed *handed)
{
	for (uint32_t i = 0; i < handed->count; i++) {
		free(handed->descriptors[i].name);
		if (handed->descriptors[i].fd >= 0)
			close(handed->descriptors[i].fd);
	}
	free(handed->descriptors);
	*handed = (struct systemd_handed){ .count = 0 };
}

int systemd_listener(struct systemd_handed *handed, const char *name, int type)
{
	for (uint32_t i = 0; i < handed->count; i++) {
		int fd = handed->descriptors[i].fd;

		if (fd < 0 || strcmp(handed->descriptors[i].name, name) != 0 ||
		    sd_is_socket(fd, AF_UNSPEC, type, 1) <= 0)
			continue;
		handed->descriptors[i].fd = -1;
		return fd;
	}
	return -1;
}

/*
 * Whether it was the service manager itself that has started us: others that listen on NOTIFY_SOCKET want to hear READY=1
 * and store nothing, or do not read at all, and then whoever waits for them waits for ever.
 */
static bool is_service(void)
{
	const char *pid = getenv("SYSTEMD_EXEC_PID");

	return getenv("NOTIFY_SOCKET") && pid && strtol(pid, NULL, 10) == (long)getpid();
}

int systemd_store(const char *name, int fd)
{
	char text[128];
	int result;

	if (!is_service())
		return 0;
	snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%.80s", name);
	result = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
	return result < 0 ? result : 0;
}

void systemd_unstore(const char *name)
{
	if (!is_service())
		return;
	if (sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%.80s", name) > 0)
		(void)sd_notify_barrier(0, UNSTORE_WAIT_US);
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

void systemd_status(const char *status)
{
	(void)report("STATUS=%s", status);
}

void systemd_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	(void)report("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

bool systemd_reloaded(const char *status)
{
	return report("READY=1\nSTATUS=%s", status);
}

void systemd_stopping(void)
{
	(void)report("STOPPING=1\nSTATUS=finishing what was accepted");
}

void systemd_extend(uint64_t timeout_ms)
{
	(void)report("EXTEND_TIMEOUT_USEC=%" PRIu64, timeout_ms * 1000);
}

uint64_t systemd_watchdog_ms(void)
{
	uint64_t timeout_us = 0;

	return sd_watchdog_enabled(0, &timeout_us) > 0 ? timeout_us / 1000 : 0;
}

void systemd_alive(void)
{
	(void)report("WATCHDOG=1");
}

bool systemd_has_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uint64_t device, inode;
	struct stat facts;

	return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64, &device, &inode) == 2 && fstat(2, &facts) == 0 &&
	       facts.st_dev == device && facts.st_ino == inode;
}

void systemd_journal(const struct event *event)
{
	static const int priorities[] = {
		[EVENT_ERROR] = LOG_ERR,
		[EVENT_WARNING] = LOG_WARNING,
		[EVENT_NOTICE] = LOG_NOTICE,
		[EVENT_DEBUG] = LOG_DEBUG,
	};
	const char *id = event_id(event->kind);
	char fields[7][1024];
	struct iovec parts[7];
	int count = 0;

#define FIELD(...) (parts[count] = (struct iovec){ fields[count], (size_t)snprintf(fields[count], 1024, __VA_ARGS__) }, count++)
	FIELD("MESSAGE=%.1000s", event->text);
	FIELD("PRIORITY=%d", priorities[event->severity]);
	if (id)
		FIELD("MESSAGE_ID=%s", id);
	if (event->model)
		FIELD("EMAD_MODEL=%.1000s", event->model);
	if (event->error)
		FIELD("EMAD_ERROR=%.1000s", event->error);
	if (event->step != UINT64_MAX)
		FIELD("EMAD_STEP=%" PRIu64, event->step);
	if (event->pid >= 0)
		FIELD("EMAD_CLIENT_PID=%" PRId64, event->pid);
#undef FIELD
	(void)sd_journal_sendv(parts, count);
}
