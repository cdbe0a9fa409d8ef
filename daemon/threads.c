/*
 * Starting threads, and taking back what they have done. See threads.h.
 */
#include "daemon/threads.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clocks.h"
#include "daemon/edge/files.h"
#include "daemon/edge/http.h"
#include "daemon/edge/memory.h"
#include "daemon/edge/transport.h"
#include "daemon/edge/workers.h"

static void on_memory(void *context, struct segment_order *order)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	if (order->status == 0 && order->reason.text[0] && !daemon->unkept) {
		daemon->unkept = true;
		voice_say(&daemon->voice, EVENT_WARNING, order->reason.text);
	}
	service_memory_made(daemon->service, &now, order);
	clocks_rearm(daemon);
}

static void on_applied(void *context, struct apply *apply)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	service_applied(daemon->service, &now, apply);
	clocks_rearm(daemon);
}

static void on_files(void *context, struct file_order *order)
{
	struct daemon *daemon = context;
	struct instant now = clocks_now();

	service_file_written(daemon->service, &now, order);
	clocks_rearm(daemon);
}

static void on_wake(void *context)
{
	struct daemon *daemon = context;

	workers_poll(daemon->workers, on_applied, daemon);
	memory_poll(daemon->maker, on_memory, daemon);
	if (daemon->files)
		files_poll(daemon->files, on_files, daemon);
	if (daemon->transport)
		transport_poll(daemon->transport);
	if (daemon->http)
		http_poll(daemon->http);
	if (workers_pulse_end(daemon->workers))
		systemd_alive();
}

void threads_wake(void *context)
{
	struct daemon *daemon = context;

	waker_wake(&daemon->wake);
}

int threads_init(struct daemon *daemon)
{
	return waker_init(&daemon->wake, &daemon->loop, on_wake, daemon);
}

/* The maker's thread. */
static int on_keep(void *context, const char *name, int fd)
{
	(void)context;
	return systemd_store(name, fd);
}

static void on_forget(void *context, const char *name)
{
	(void)context;
	systemd_unstore(name);
}

static void on_say(void *context, enum event_severity severity, const char *text)
{
	struct daemon *daemon = context;

	voice_say(&daemon->voice, severity, text);
}

/* The files thread, before each order. */
static int on_claim(void *context, struct reason *reason)
{
	struct daemon *daemon = context;

	return runtime_state_lock(daemon->state_dir, &daemon->state_lock_fd, reason);
}

int threads_claim_state(struct daemon *daemon, struct reason *reason)
{
	struct reason why = { "" };

	if (!daemon->state_dir[0] || on_claim(daemon, &why) != -EEXIST)
		return 0;
	return reason_set(reason, -EEXIST, "%s", why.text);
}

static int files_begin(struct daemon *daemon, struct reason *reason)
{
	int error = files_start(daemon->state_dir, &files_system, threads_wake, daemon, &daemon->files);

	if (error)
		return reason_set(reason, error, "the thread that writes files cannot be made: %s (see the limit on tasks)",
		                  strerror(-error));
	files_guard(daemon->files, on_claim, daemon);
	files_limit(daemon->files, daemon->config->checkpoint_bytes_per_s);
	return 0;
}

int threads_start(struct daemon *daemon, struct reason *reason)
{
	const struct memory_options memory = {
		.directory = daemon->segments_dir,
		.context = daemon,
		.wake = threads_wake,
		.keep = on_keep,
		.forget = on_forget,
		.say = on_say,
	};
	sigset_t all, before;
	int error;

	/* Signals are for the loop thread alone. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = voice_start(&daemon->voice);
	if (error)
		reason_set(reason, error, "the thread that writes the log cannot be made: %s", strerror(-error));
	if (!error)
		error = memory_start(&memory, &daemon->maker, reason);
	if (!error) {
		error = workers_start((uint32_t)daemon->config->worker_count, threads_wake, daemon, &daemon->workers);
		if (error)
			reason_set(reason, error, "the %" PRIu64 " worker threads cannot be made: %s (see workers= and the limit "
			           "on tasks)", daemon->config->worker_count, strerror(-error));
	}
	if (!error && daemon->state_dir[0])
		error = files_begin(daemon, reason);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

int threads_take_over(struct daemon *daemon, struct reason *reason)
{
	struct systemd_handed *handed = &daemon->handed;
	struct memory_kept *kept = calloc(handed->count + 1, sizeof *kept);
	const struct instant now = clocks_now();
	struct memory_found found;
	uint32_t count = 0;
	char text[512];
	int error;

	if (!kept)
		return reason_set(reason, -ENOMEM, "not enough memory to start");
	for (uint32_t i = 0; i < handed->count; i++) {
		if (handed->descriptors[i].fd < 0)
			continue;
		kept[count++] = (struct memory_kept){ handed->descriptors[i].name, handed->descriptors[i].fd };
		handed->descriptors[i].fd = -1;
	}
	error = memory_find(daemon->maker, kept, count, &found, reason);
	free(kept);
	if (error)
		return error;
	if (found.count > 0) {
		snprintf(text, sizeof text, "%" PRIu32 " segments of an earlier daemon, %.1f MiB: %" PRIu32
		         " kept by the service manager, %" PRIu32 " files%s%s", found.count, (double)found.bytes / 1048576.0,
		         found.count - found.file_count, found.file_count, daemon->segments_dir[0] ? " in " : "",
		         daemon->segments_dir);
		voice_say(&daemon->voice, EVENT_NOTICE, text);
	}
	error = service_adopt(daemon->service, &now, found.segments, found.count);
	free(found.segments);
	return error ? reason_set(reason, error, "not enough memory to go on with %" PRIu32 " segments of an earlier daemon",
	                          found.count) : 0;
}

void threads_stop(struct daemon *daemon, uint32_t timeout_ms)
{
	workers_stop(daemon->workers);
	/* A thread that hangs on a disk still reads the models' memory: then all of it goes with the process. */
	if (files_stop(daemon->files, timeout_ms)) {
		/* The models that are there stay there, for the next daemon. */
		if (daemon->maker)
			memory_leave(daemon->maker);
		service_destroy(daemon->service);
		memory_stop(daemon->maker);
		runtime_state_unlock(daemon->state_dir, &daemon->state_lock_fd);
	} else {
		voice_say(&daemon->voice, EVENT_WARNING, "the disk does not answer: a file is left half-written");
	}
}
