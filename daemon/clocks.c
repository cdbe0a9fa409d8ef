/*
 * Timers. See clocks.h.
 */
#include "daemon/clocks.h"

#include <time.h>

#include "daemon/edge/http.h"
#include "daemon/edge/workers.h"
#include "daemon/sockets.h"

enum {
	STATUS_EVERY_MS = 5000,
	RECOVER_MS_MORE = 60000, /* asked for at every status while models are recovered */
	CHECKPOINT_MS_MAX = 60000, /* beyond the time to apply what was accepted: to write the last checkpoints */
	EXTEND_EVERY_MS = 1000,  /* meanwhile the service manager hears this often that the end goes on, */
	EXTEND_MS = 10000,       /* and how long it may stay silent */
};

struct instant clocks_now(void)
{
	struct timespec monotonic, wall;

	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_REALTIME, &wall);
	return (struct instant){
		.monotonic_ms = (uint64_t)monotonic.tv_sec * 1000 + (uint64_t)monotonic.tv_nsec / 1000000,
		.monotonic_us = (uint64_t)monotonic.tv_sec * 1000000 + (uint64_t)monotonic.tv_nsec / 1000,
		.wall_us = (uint64_t)wall.tv_sec * 1000000 + (uint64_t)wall.tv_nsec / 1000,
	};
}

static void on_due(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	struct instant now = clocks_now();

	service_tick(daemon->service, &now);
	clocks_rearm(daemon);
}

void clocks_rearm(struct daemon *daemon)
{
	struct instant now = clocks_now();
	uint64_t due_ms = service_due_ms(daemon->service);

	if (due_ms == UINT64_MAX)
		uv_timer_stop(&daemon->due);
	else
		/* Never at once: libuv would call it again and again, and nothing else, as long as something is due. */
		uv_timer_start(&daemon->due, on_due, due_ms > now.monotonic_ms ? due_ms - now.monotonic_ms : 1, 0);
	if (daemon->stopping && service_idle(daemon->service))
		uv_stop(&daemon->loop);
	if (!daemon->stopping && !daemon->listening && !service_recovering(daemon->service))
		sockets_open(daemon);
}

static void on_status(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	struct instant now = clocks_now();
	char text[CLOCKS_SUMMARY_BYTES_MAX];

	if (service_recovering(daemon->service))
		systemd_extend(RECOVER_MS_MORE);
	service_summary(daemon->service, &now, text, sizeof text);
	if (daemon->reloaded)
		daemon->reloaded = !systemd_reloaded(text);
	else
		systemd_status(text);
	if (daemon->http)
		http_sweep(daemon->http);
	voice_say_left_out(&daemon->voice, now.monotonic_ms);
}

/*
 * The service manager hears that we are alive when the loop runs, and every worker has answered it since: a thread that
 * hangs is missed, one that only waits for a processor has half the watchdog's time to get it.
 */
static void on_watchdog(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;

	workers_pulse_begin(daemon->workers);
}

static void on_drain(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	uint64_t now_ms = clocks_now().monotonic_ms;

	/* A second signal ends this at once. */
	if (now_ms < daemon->drain_due_ms ||
	    (service_checkpointing(daemon->service) && now_ms < daemon->drain_due_ms + CHECKPOINT_MS_MAX)) {
		systemd_extend(EXTEND_MS);
		return;
	}
	voice_say(&daemon->voice, EVENT_WARNING,
	          "not everything that was accepted could be applied, or written to disk, in time");
	uv_stop(&daemon->loop);
}

void clocks_init(struct daemon *daemon)
{
	(void)uv_timer_init(&daemon->loop, &daemon->due);
	(void)uv_timer_init(&daemon->loop, &daemon->status);
	(void)uv_timer_init(&daemon->loop, &daemon->drain);
	(void)uv_timer_init(&daemon->loop, &daemon->watchdog);
	daemon->due.data = daemon;
	daemon->status.data = daemon;
	daemon->drain.data = daemon;
	daemon->watchdog.data = daemon;
}

void clocks_start(struct daemon *daemon)
{
	uint64_t watchdog_ms = systemd_watchdog_ms();

	(void)uv_timer_start(&daemon->status, on_status, STATUS_EVERY_MS, STATUS_EVERY_MS);
	if (watchdog_ms > 1)
		(void)uv_timer_start(&daemon->watchdog, on_watchdog, 0, watchdog_ms / 2);
}

void clocks_drain(struct daemon *daemon)
{
	daemon->drain_due_ms = clocks_now().monotonic_ms + daemon->config->stop_timeout_ms;
	(void)uv_timer_start(&daemon->drain, on_drain, 0, EXTEND_EVERY_MS);
}
