/*
 * sd_notify and sd_journal_sendv. See systemd.h.
 */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "daemon/edge/systemd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>
#include <time.h>

void systemd_ready(const char *status)
{
	(void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void systemd_status(const char *status)
{
	(void)sd_notifyf(0, "STATUS=%s", status);
}

void systemd_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
	                 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void systemd_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1\nSTATUS=finishing what was accepted");
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
	char fields[6][1024];
	struct iovec parts[6];
	int count = 0;

#define FIELD(...) (parts[count] = (struct iovec){ fields[count], (size_t)snprintf(fields[count], 1024, __VA_ARGS__) }, count++)
	FIELD("MESSAGE=%.1000s", event->text);
	FIELD("PRIORITY=%d", priorities[event->severity]);
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
