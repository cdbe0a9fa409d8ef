/*
 * The composition root: in which order the parts start and end. Only the files beside this one know several of them:
 * sockets.c, http_server.c and threads.c lead from the edges to the service, outside.c back.
 *
 *    NNG's threads    attach socket    maker thread    worker threads     files thread    HTTP's threads    signals,
 *          |                |         (makes, drops   (blocks of updates) (writes files) (read and send)    timers
 *       [ready]             |           segments)           |                  |               |              |
 *          |                |           [done]           [done]             [done]      [asked, ended]        |
 *          +----- wake -----|-------------+----- wake ------+------ wake ------+----- wake ----+              |
 *                    v      v             v                 v                  v               v              v
 *   loop thread:  transport attach      memory           workers             files            http          libuv
 *                    \______|_____________|_________________|__________________|_______________|______________/
 *                                              service (all state, all decisions)
 *
 * What the loop has to say goes to the scribe, a thread that writes the log and never wakes anybody.
 * Every box in brackets is a list with a lock of its own; `wake` is waker_wake.
 */
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/clocks.h"
#include "daemon/edge/descriptors.h"
#include "daemon/http_server.h"
#include "daemon/outside.h"
#include "daemon/parts.h"
#include "daemon/reload.h"
#include "daemon/signals.h"
#include "daemon/sockets.h"
#include "daemon/threads.h"

static int loop_init(struct daemon *daemon)
{
	int error = uv_loop_init(&daemon->loop);

	if (!error)
		error = threads_init(daemon);
	if (error)
		return error;
	clocks_init(daemon);
	signals_init(daemon);
	return 0;
}

static int service_init(struct daemon *daemon, struct reason *reason)
{
	struct settings settings = config_settings(daemon->config);
	const struct host host = outside_table(daemon);
	int error;

	/* The config goes with the next reload, and this stays as it is. */
	strcpy(daemon->state_dir, daemon->config->state_dir);
	strcpy(daemon->segments_dir, daemon->config->segments_dir);
	daemon->facts = (struct service_facts){
		.agent = "emad " EMAD_VERSION,
		.runtime_dir = daemon->runtime.path,
		.state_dir = daemon->state_dir,
		.segments_dir = daemon->segments_dir,
		.uid = geteuid(),
		.pid = (uint64_t)getpid(),
		.worker_count = daemon->config->worker_count,
		.started_ms = clocks_now().monotonic_ms,
	};
	settings.tokens = &daemon->network->tokens;
	error = service_create(&host, &settings, &daemon->facts, &daemon->service);
	return error ? reason_set(reason, error, "not enough memory to start") : 0;
}

static int start(struct daemon *daemon, struct reason *reason)
{
	struct instant now;
	int error = systemd_handed_take(&daemon->handed);

	if (error)
		return reason_set(reason, error, "not enough memory to start");
	daemon->attach_listener_fd = systemd_listener(&daemon->handed, "attach", SOCK_SEQPACKET);
	descriptors_raise();
	error = runtime_open(daemon->config->runtime_dir, &daemon->runtime, reason);
	if (!error)
		error = network_files_read(daemon->config, &daemon->network, reason);
	if (!error)
		error = service_init(daemon, reason);
	if (!error)
		error = threads_claim_state(daemon, reason);
	if (!error)
		error = threads_start(daemon, reason);
	if (!error)
		error = http_server_start(daemon, reason);
	if (error)
		return error;
	signals_start(daemon);
	clocks_start(daemon);
	reload_warn_of_descriptors(daemon);
	error = threads_take_over(daemon, reason);
	if (error)
		return error;
	now = clocks_now();
	error = service_recover(daemon->service, &now);
	if (error)
		return reason_set(reason, error, "not enough memory to start");
	if (!daemon->files)
		voice_say(&daemon->voice, EVENT_NOTICE, "no checkpoints: without a state directory (--state-dir) the averages "
		          "end with this daemon");
	if (!service_recovering(daemon->service))
		sockets_open(daemon);
	return daemon->error;
}

static void on_walk(uv_handle_t *handle, void *context)
{
	(void)context;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

/* The ordinary destructor: takes what was started, also half of it. */
static void stop(struct daemon *daemon)
{
	uint32_t close_ms = signals_close_ms(daemon);

	http_server_stop(daemon);
	sockets_close(daemon, close_ms);
	threads_stop(daemon, close_ms);
	uv_walk(&daemon->loop, on_walk, NULL);
	/* Again, as long as a request to stop the loop is left over from before. */
	while (uv_run(&daemon->loop, UV_RUN_DEFAULT) != 0)
		;
	(void)uv_loop_close(&daemon->loop);
	waker_finish(&daemon->wake);
	sockets_finish(daemon);
	runtime_close(&daemon->runtime);
	systemd_handed_finish(&daemon->handed);
}

int daemon_run(const struct options *options, struct config *config, struct reason *reason)
{
	struct daemon daemon = {
		.options = options,
		.config = config,
		.runtime = { .lock_fd = -1 },
		.state_lock_fd = -1,
		.attach_listener_fd = -1,
		.reason = reason,
	};
	int error = loop_init(&daemon);

	if (error) {
		free(config);
		return reason_set(reason, error, "the event loop cannot be made: %s", uv_strerror(error));
	}
	voice_init(&daemon.voice, config->log_level);
	signals_block();
	error = start(&daemon, reason);
	if (!error) {
		signals_unblock();
		(void)uv_run(&daemon.loop, UV_RUN_DEFAULT);
		signals_block();
		error = daemon.error;
		service_leave(daemon.service);
		signals_limit_end(&daemon);
	} else {
		signals_limit_failure();
	}
	stop(&daemon);
	voice_say_left_out(&daemon.voice, clocks_now().monotonic_ms + THROTTLE_REFILL_MS);
	if (!error)
		voice_say(&daemon.voice, EVENT_NOTICE, "stopped");
	voice_stop(&daemon.voice, signals_close_ms(&daemon));
	network_files_free(daemon.network);
	free(daemon.config);
	return error;
}
