/*
 * The composition root: the only file that knows everybody.
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
 * Every box in brackets is a list with a lock of its own; `wake` is waker_wake. The core's table of functions
 * (host.h) leads from the service back to the edges.
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/core/access.h"
#include "daemon/core/network.h"
#include "daemon/core/service.h"
#include "daemon/core/throttle.h"
#include "daemon/core/web.h"
#include "daemon/edge/accounts.h"
#include "daemon/edge/attach.h"
#include "daemon/edge/descriptors.h"
#include "daemon/edge/files.h"
#include "daemon/edge/http.h"
#include "daemon/edge/log.h"
#include "daemon/edge/memory.h"
#include "daemon/edge/runtime.h"
#include "daemon/edge/scribe.h"
#include "daemon/edge/systemd.h"
#include "daemon/edge/token.h"
#include "daemon/edge/transport.h"
#include "daemon/edge/waker.h"
#include "daemon/edge/workers.h"
#include "daemon/network_files.h"
#include "daemon/reload.h"

enum {
	STATUS_EVERY_MS = 5000,
	SETTLE_MS_MAX = 200,     /* for the log, when it says that it is ready */
	SUMMARY_BYTES_MAX = 384, /* of the line that the service manager shows */
	RECOVER_MS_MORE = 60000, /* asked for at every status while models are recovered */
	CHECKPOINT_MS_MAX = 60000, /* beyond the time to apply what was accepted: to write the last checkpoints */
	EXTEND_EVERY_MS = 1000,  /* meanwhile the service manager hears this often that the end goes on, */
	EXTEND_MS = 10000,       /* and how long it may stay silent */
	CLOSE_MS_MAX = 2000,     /* to send the last replies */
	END_SECONDS_MAX = 10,    /* for all that comes behind the draining; then the process ends wherever it is */
	HURRIED_CLOSE_MS_MAX = 200, /* the same after a second signal */
	HURRIED_END_SECONDS_MAX = 1,
};

struct daemon {
	const struct options *options;
	struct config *config; /* owned; the core borrows from it */
	struct accounts accounts;
	uv_loop_t loop;
	struct waker wake;
	uv_timer_t due, status, drain, watchdog;
	uv_signal_t terminate, interrupt, hangup;
	struct runtime runtime;
	struct transport *transport;
	struct attach *attach;
	struct memory_maker *maker;
	struct workers *workers;
	struct files *files; /* NULL: nothing is kept on disk */
	struct http *http;   /* NULL: nothing is served by HTTP */
	char http_token[WEB_TOKEN_BYTES_MAX + 1];
	struct service *service;
	struct service_facts facts;
	struct network_files *network; /* owned; the core borrows from it */
	char state_dir[CONFIG_PATH_BYTES_MAX];
	int state_lock_fd; /* the files thread's, once that runs */
	char segments_dir[CONFIG_PATH_BYTES_MAX];
	struct systemd_handed handed;
	int attach_listener_fd; /* -1: none */
	struct throttle throttle;
	struct scribe *scribe; /* NULL: not yet, and events are written at once */
	uint64_t drain_due_ms;
	bool journal;
	bool listening; /* the sockets are there */
	bool unkept;    /* said that segments will not be there after a restart */
	bool stopping;
	bool hurried; /* a second signal: what was accepted is not waited for */
	int error;    /* why it must end while it runs */
	struct reason *reason;
};

static struct instant instant_now(void)
{
	struct timespec monotonic, wall;

	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_REALTIME, &wall);
	return (struct instant){
		.monotonic_ms = (uint64_t)monotonic.tv_sec * 1000 + (uint64_t)monotonic.tv_nsec / 1000000,
		.wall_us = (uint64_t)wall.tv_sec * 1000000 + (uint64_t)wall.tv_nsec / 1000,
	};
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void tell(const struct daemon *daemon, const struct event *event)
{
	if (event->severity > daemon->config->log_level)
		return;
	if (daemon->scribe)
		scribe_tell(daemon->scribe, event);
	else if (daemon->journal)
		systemd_journal(event);
	else
		log_line(event);
}

static void on_event(void *context, const struct event *event)
{
	struct daemon *daemon = context;

	if (throttle_admit(&daemon->throttle, event->origin, event->text, instant_now().monotonic_ms))
		tell(daemon, event);
}

/* What the daemon says of itself is rare, and not throttled. */
static void say_of(struct daemon *daemon, enum event_kind kind, enum event_severity severity, const char *text)
{
	struct event event = { .severity = severity, .kind = kind, .text = text, .step = UINT64_MAX, .pid = -1 };

	tell(daemon, &event);
}

static void say(void *daemon, enum event_severity severity, const char *text)
{
	say_of(daemon, EVENT_OTHER, severity, text);
}

/* Who waits for this finds in the log what came before, if the log is read at all. */
static void ready(const struct daemon *daemon, const char *text)
{
	scribe_settle(daemon->scribe, SETTLE_MS_MAX);
	systemd_ready(text);
}

/* Whoever can connect can cause it, and as often as he likes. */
static void on_network_trouble(void *context, const char *text)
{
	on_event(context, &(struct event){ .severity = EVENT_WARNING, .text = text, .origin = "network", .step = UINT64_MAX,
	                                   .pid = -1 });
}

static void say_left_out(struct daemon *daemon, uint64_t now_ms)
{
	char text[THROTTLE_TEXT_BYTES_MAX + 64];

	while (throttle_take(&daemon->throttle, now_ms, text, sizeof text))
		say(daemon, EVENT_NOTICE, text);
}

/* ---- from the edges to the service ------------------------------------------------------------------------------- */

static void on_due(uv_timer_t *timer);
static void listen_begin(struct daemon *daemon);

/* After every event of the loop: when must the service be called next, and is there still something to finish? */
static void rearm(struct daemon *daemon)
{
	struct instant now = instant_now();
	uint64_t due_ms = service_due_ms(daemon->service);

	if (due_ms == UINT64_MAX)
		uv_timer_stop(&daemon->due);
	else
		uv_timer_start(&daemon->due, on_due, due_ms > now.monotonic_ms ? due_ms - now.monotonic_ms : 0, 0);
	if (daemon->stopping && service_idle(daemon->service))
		uv_stop(&daemon->loop);
	if (!daemon->stopping && !daemon->listening && !service_recovering(daemon->service))
		listen_begin(daemon);
}

static void on_due(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	struct instant now = instant_now();

	service_tick(daemon->service, &now);
	rearm(daemon);
}

/* What a peer is not let into. The kernel tells the groups of some; of others they are looked up where they matter. */
static uint32_t classify(void *context, int64_t uid, int64_t gid, const uint32_t *groups, size_t group_count)
{
	struct daemon *daemon = context;
	const struct access_rules *rules = &daemon->config->access;
	struct access_peer peer = { .uid = uid, .gid = gid, .groups = groups, .group_count = group_count };

	if (!groups && uid >= 0 && access_wants_groups(rules))
		peer.group_count = accounts_groups(&daemon->accounts, (uint32_t)uid, &peer.groups);
	return access_refused(rules, (uint32_t)geteuid(), &peer);
}

static uint32_t classify_peer(void *context, const struct peer *peer, int64_t gid)
{
	struct daemon *daemon = context;

	if (peer->remote) {
		const struct token *token = peer->name[0] ? tokens_find(&daemon->network->tokens, peer->name) : NULL;
		enum access anonymous = (enum access)daemon->config->anonymous;

		return network_refused(token && token->granted > anonymous ? token->granted : anonymous);
	}
	return classify(context, peer->uid, gid, NULL, 0);
}

static void on_request(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
                       const uint8_t *body, size_t body_bytes)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	service_request(daemon->service, &now, exchange, header, header_bytes, body, body_bytes);
	rearm(daemon);
}

static uint8_t *on_place(void *context, const struct exchange *exchange, const uint8_t *header, size_t header_bytes,
                         uint64_t body_bytes)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	return service_body_place(daemon->service, &now, exchange, header, header_bytes, body_bytes);
}

static void on_gone(void *context, uint64_t peer)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	service_peer_gone(daemon->service, &now, peer);
	rearm(daemon);
}

static void on_memory(void *context, struct segment_order *order)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	if (order->status == 0 && order->reason.text[0] && !daemon->unkept) {
		daemon->unkept = true;
		say(daemon, EVENT_WARNING, order->reason.text);
	}
	service_memory_made(daemon->service, &now, order);
	rearm(daemon);
}

static void on_applied(void *context, struct apply *apply)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	service_applied(daemon->service, &now, apply);
	rearm(daemon);
}

static void on_files(void *context, struct file_order *order)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	service_file_written(daemon->service, &now, order);
	rearm(daemon);
}

static void on_http(void *context, const struct web_request *request, struct web_answer *ret_answer)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();
	const struct web_rules rules = {
		.token = daemon->http_token,
		.is_ready = daemon->listening && !daemon->error,
		.is_unread = classify(daemon, -1, -1, NULL, 0) & UINT32_C(1) << ACCESS_READ,
	};

	web_handle(daemon->service, &now, request, &rules, ret_answer);
}

static bool on_http_over(void *context, uint64_t peer, uint64_t since_ms)
{
	struct daemon *daemon = context;
	struct instant now = instant_now();

	return web_is_over(daemon->service, &now, peer, since_ms);
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

/* Any thread. */
static void wake_loop(void *context)
{
	struct daemon *daemon = context;

	waker_wake(&daemon->wake);
}

/* ---- from the service to the edges ------------------------------------------------------------------------------- */

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

static void host_memory_make(void *context, struct segment_order *order)
{
	memory_make(((struct daemon *)context)->maker, order);
}

static void host_memory_drop(void *context, struct memory *memory)
{
	struct daemon *daemon = context;

	if (daemon->transport)
		transport_withdraw(daemon->transport, memory->base, memory->bytes);
	memory_drop(daemon->maker, memory);
}

static void host_withdraw(void *context, const uint8_t *base, uint64_t bytes)
{
	transport_withdraw(((struct daemon *)context)->transport, base, bytes);
}

static void host_reply(void *context, const struct exchange *exchange, const struct reply *reply,
                       const struct attachment *attachment)
{
	static const struct attachment nothing = { .fd = -1 };
	struct daemon *daemon = context;

	if (!attachment)
		attachment = &nothing;
	if (exchange->peer.attach)
		attach_reply(daemon->attach, exchange, reply, attachment->body, attachment->body_bytes, attachment->fd);
	else
		transport_reply(daemon->transport, exchange, reply, attachment->body, attachment->body_bytes);
}

static void host_identify(void *context, uint64_t peer, const char *name)
{
	transport_identify(((struct daemon *)context)->transport, peer, name);
}

static void host_apply_start(void *context, struct apply *apply)
{
	workers_submit(((struct daemon *)context)->workers, apply);
}

static void host_file_write(void *context, struct file_order *order)
{
	files_write(((struct daemon *)context)->files, order);
}

static uint64_t host_random(void *context)
{
	uint64_t number = 0;

	(void)context;
	while (number == 0)
		if (getrandom(&number, sizeof number, 0) != sizeof number)
			number = 0;
	return number;
}

/* ---- status and signals ------------------------------------------------------------------------------------------ */

static void on_status(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	struct instant now = instant_now();
	char text[SUMMARY_BYTES_MAX];

	if (service_recovering(daemon->service))
		systemd_extend(RECOVER_MS_MORE);
	service_summary(daemon->service, &now, text, sizeof text);
	systemd_status(text);
	if (daemon->http)
		http_sweep(daemon->http);
	say_left_out(daemon, now.monotonic_ms);
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
	uint64_t now_ms = instant_now().monotonic_ms;

	/* A second signal ends this at once. */
	if (now_ms < daemon->drain_due_ms ||
	    (service_checkpointing(daemon->service) && now_ms < daemon->drain_due_ms + CHECKPOINT_MS_MAX)) {
		systemd_extend(EXTEND_MS);
		return;
	}
	say(daemon, EVENT_WARNING, "not everything that was accepted could be applied, or written to disk, in time");
	uv_stop(&daemon->loop);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	struct instant now = instant_now();

	(void)number;
	if (daemon->stopping) {
		daemon->hurried = true;
		uv_stop(&daemon->loop);
		return;
	}
	daemon->stopping = true;
	daemon->drain_due_ms = now.monotonic_ms + daemon->config->stop_timeout_ms;
	systemd_stopping();
	say_of(daemon, EVENT_STOPPING, EVENT_NOTICE, "stopping: new work is refused, what was accepted is finished");
	uv_timer_start(&daemon->drain, on_drain, 0, EXTEND_EVERY_MS);
	if (daemon->files)
		files_drain(daemon->files);
	service_stop(daemon->service, &now);
	rearm(daemon);
}

static struct transport_options transport_options(struct daemon *daemon)
{
	const struct config *config = daemon->config;

	return (struct transport_options){
		.connection_count_max = (uint32_t)config->connection_count_max,
		.socket_mode = (uint32_t)config->socket_mode,
		.handshake_timeout_ms = (uint32_t)config->handshake_timeout_ms,
		.message_timeout_ms = (uint32_t)config->message_timeout_ms,
		.keepalive_ms = (uint32_t)config->keepalive_ms,
		.body_bytes_max = config->body_bytes_max,
		.bodies_bytes_max = config->receiving_bytes_max,
		.reply_bytes_max = config->reply_bytes_max,
		.replies_bytes_max = config->replies_bytes_max,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.classify = classify_peer,
		.wake = wake_loop,
		.request = on_request,
		.say = on_network_trouble,
		.place = on_place,
		.gone = on_gone,
	};
}

static void warn_of_descriptors(struct daemon *daemon)
{
	struct reason reason;

	if (descriptors_check(daemon->config->segment_count_max, daemon->config->connection_count_max, &reason) != 0)
		say(daemon, EVENT_WARNING, reason.text);
}

static struct transport_tls tls_of(const struct network_files *network)
{
	return (struct transport_tls){ network->certificate, network->key, network->authority };
}

/* The files that the configuration names, in force as far as TLS is concerned; NULL: all stays as it was. */
static struct network_files *network_reload(struct daemon *daemon, struct config *config)
{
	struct network_files *network;
	struct reason reason = { "" };
	struct transport_tls tls;
	char text[600];

	if (network_files_read(config, &network, &reason) == 0) {
		tls = tls_of(network);
		if (!daemon->listening || network_files_same(network, daemon->network) ||
		    transport_secure(daemon->transport, &tls, &reason) == 0)
			return network;
		network_files_free(network);
	}
	snprintf(text, sizeof text, "the configuration stays as it was: %s", reason.text);
	say(daemon, EVENT_ERROR, text);
	return NULL;
}

/* Takes the config. */
static void reconfigure(struct daemon *daemon, struct config *config)
{
	struct network_files *network_before;
	struct config *before = daemon->config;
	struct settings settings = config_settings(config);
	struct network_files *network = network_reload(daemon, config);
	struct transport_options transport;
	struct instant now = instant_now();
	struct reason reason;

	if (!network) {
		free(config);
		return;
	}
	settings.tokens = &network->tokens;
	if (daemon->http && token_read(config->http_token_file, daemon->http_token, &reason) != 0) {
		say(daemon, EVENT_ERROR, reason.text);
		say(daemon, EVENT_ERROR, "the token for HTTP stays as it was");
	}
	daemon->config = config;
	/* Users may be in other groups meanwhile. */
	daemon->accounts = (struct accounts){ .next = 0 };
	transport = transport_options(daemon);
	network_before = daemon->network;
	daemon->network = network;
	if (transport_reconfigure(daemon->transport, &transport) != 0) {
		daemon->network = network_before;
		daemon->config = before;
		network_files_free(network);
		free(config);
		say(daemon, EVENT_ERROR, "the configuration stays as it was: not enough memory for connections-max");
		return;
	}
	attach_reconfigure(daemon->attach, (uint32_t)config->connection_count_max);
	if (daemon->files)
		files_limit(daemon->files, config->checkpoint_bytes_per_s);
	warn_of_descriptors(daemon);
	service_reconfigure(daemon->service, &now, &settings);
	network_files_free(network_before);
	free(before);
	rearm(daemon);
}

static void on_hangup(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	struct instant now = instant_now();
	struct config *config;
	char text[SUMMARY_BYTES_MAX];

	(void)number;
	if (daemon->stopping)
		return;
	systemd_reloading();
	config = reload_read(daemon->options, daemon->config, say, daemon);
	if (config)
		reconfigure(daemon, config);
	service_summary(daemon->service, &now, text, sizeof text);
	ready(daemon, text);
}

/*
 * The signals that end the daemon wait while it starts, and while what they do changes: one that came too early would
 * kill it half-way. So does SIGHUP, which would do the same.
 */
static void ending_signals(int how)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(how, &signals, NULL);
}

/* The end has begun, with the signals blocked: from here on SIGHUP means nothing, whoever lets signals in again. */
static void hangup_ignore(struct daemon *daemon)
{
	(void)uv_signal_stop(&daemon->hangup);
	(void)signal(SIGHUP, SIG_IGN);
}

static void on_end_overdue(int number)
{
	(void)number;
	_exit(EXIT_SUCCESS);
}

static void on_end_hurried(int number)
{
	(void)number;
	(void)alarm(HURRIED_END_SECONDS_MAX);
}

/*
 * From here on nothing is left that would be lost, and the process ends in time even if a library hangs (closing is
 * known to deadlock in NNG) or a thread takes long to give memory back. A signal that comes now makes it hurry.
 */
static void end_limit(struct daemon *daemon)
{
	struct sigaction overdue = { .sa_handler = on_end_overdue }, hurried = { .sa_handler = on_end_hurried };

	(void)uv_signal_stop(&daemon->terminate);
	(void)uv_signal_stop(&daemon->interrupt);
	(void)sigaction(SIGALRM, &overdue, NULL);
	(void)sigaction(SIGTERM, &hurried, NULL);
	(void)sigaction(SIGINT, &hurried, NULL);
	(void)alarm(daemon->hurried ? HURRIED_END_SECONDS_MAX : END_SECONDS_MAX);
	systemd_extend((END_SECONDS_MAX + 1) * 1000);
	ending_signals(SIG_UNBLOCK);
}

/* ---- starting and ending ----------------------------------------------------------------------------------------- */

static int loop_init(struct daemon *daemon)
{
	int error = uv_loop_init(&daemon->loop);

	if (error)
		return error;
	error = waker_init(&daemon->wake, &daemon->loop, on_wake, daemon);
	if (error) {
		(void)uv_loop_close(&daemon->loop);
		return error;
	}
	(void)uv_timer_init(&daemon->loop, &daemon->due);
	(void)uv_timer_init(&daemon->loop, &daemon->status);
	(void)uv_timer_init(&daemon->loop, &daemon->drain);
	(void)uv_timer_init(&daemon->loop, &daemon->watchdog);
	(void)uv_signal_init(&daemon->loop, &daemon->terminate);
	(void)uv_signal_init(&daemon->loop, &daemon->interrupt);
	(void)uv_signal_init(&daemon->loop, &daemon->hangup);
	daemon->due.data = daemon;
	daemon->status.data = daemon;
	daemon->drain.data = daemon;
	daemon->watchdog.data = daemon;
	daemon->terminate.data = daemon;
	daemon->interrupt.data = daemon;
	daemon->hangup.data = daemon;
	return 0;
}

static int service_init(struct daemon *daemon, struct reason *reason)
{
	struct settings settings = config_settings(daemon->config);
	const struct host host = {
		.context = daemon,
		.memory_make = host_memory_make,
		.memory_drop = host_memory_drop,
		.withdraw = host_withdraw,
		.identify = host_identify,
		.reply = host_reply,
		.apply_start = host_apply_start,
		.file_write = host_file_write,
		.random = host_random,
		.event = on_event,
	};
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
		.started_ms = instant_now().monotonic_ms,
	};
	settings.tokens = &daemon->network->tokens;
	error = service_create(&host, &settings, &daemon->facts, &daemon->service);
	return error ? reason_set(reason, error, "not enough memory to start") : 0;
}

/* The files thread, before each order. */
static int on_claim(void *context, struct reason *reason)
{
	struct daemon *daemon = context;

	return runtime_state_lock(daemon->state_dir, &daemon->state_lock_fd, reason);
}

/* Another daemon in the state directory is a mistake; anything else that is wrong with it may pass. */
static int state_claim(struct daemon *daemon, struct reason *reason)
{
	struct reason why = { "" };

	if (!daemon->state_dir[0] || on_claim(daemon, &why) != -EEXIST)
		return 0;
	return reason_set(reason, -EEXIST, "%s", why.text);
}

static int files_begin(struct daemon *daemon)
{
	int error = files_start(daemon->state_dir, &files_system, wake_loop, daemon, &daemon->files);

	if (error)
		return error;
	files_guard(daemon->files, on_claim, daemon);
	files_limit(daemon->files, daemon->config->checkpoint_bytes_per_s);
	return 0;
}

static int threads_start(struct daemon *daemon, struct reason *reason)
{
	const struct memory_options memory = {
		.directory = daemon->segments_dir,
		.context = daemon,
		.wake = wake_loop,
		.keep = on_keep,
		.forget = on_forget,
		.say = say,
	};
	sigset_t all, before;
	int error;

	/* Signals are for the loop thread alone. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = scribe_start(daemon->journal ? systemd_journal : log_line, &daemon->scribe);
	if (error)
		reason_set(reason, error, "the thread that writes the log cannot be made: %s", strerror(-error));
	if (!error)
		error = memory_start(&memory, &daemon->maker, reason);
	if (!error) {
		error = workers_start((uint32_t)daemon->config->worker_count, wake_loop, daemon, &daemon->workers);
		if (!error && daemon->state_dir[0])
			error = files_begin(daemon);
		if (error)
			reason_set(reason, error, "the %" PRIu64 " worker threads cannot be made: %s (see workers= and the limit "
			           "on tasks)", daemon->config->worker_count, strerror(-error));
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

/* Hands all the memory that earlier daemons have left to the service. */
static int take_over(struct daemon *daemon, struct reason *reason)
{
	struct systemd_handed *handed = &daemon->handed;
	struct memory_kept *kept = calloc(handed->count + 1, sizeof *kept);
	const struct instant now = instant_now();
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
		say(daemon, EVENT_NOTICE, text);
	}
	error = service_adopt(daemon->service, &now, found.segments, found.count);
	free(found.segments);
	return error ? reason_set(reason, error, "not enough memory to go on with %" PRIu32 " segments of an earlier daemon",
	                          found.count) : 0;
}

/* The addresses for other hosts. */
static int network_start(struct daemon *daemon, struct reason *reason)
{
	const struct transport_tls tls = tls_of(daemon->network);
	char url[CONFIG_PATH_BYTES_MAX], text[CONFIG_PATH_BYTES_MAX + 64];
	int error = 0;

	for (uint32_t i = 0; !error && network_url(daemon->config->listen, i, url, sizeof url); i++) {
		error = transport_listen(daemon->transport, url, &tls, reason);
		snprintf(text, sizeof text, "serves at %s", url);
		if (!error)
			say(daemon, EVENT_NOTICE, text);
	}
	return error;
}

static int sockets_start(struct daemon *daemon, struct reason *reason)
{
	const struct config *config = daemon->config;
	const struct transport_options transport = transport_options(daemon);
	const struct attach_options attach = {
		.loop = &daemon->loop,
		.connection_count_max = (uint32_t)config->connection_count_max,
		.socket_mode = (uint32_t)config->socket_mode,
		.listener_fd = daemon->attach_listener_fd,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.classify = classify,
		.request = on_request,
		.gone = on_gone,
	};
	char path[CONFIG_PATH_BYTES_MAX + 32];
	int error;

	snprintf(path, sizeof path, "%s/attach.sock", daemon->runtime.path);
	daemon->attach_listener_fd = -1;
	error = attach_start(&attach, path, &daemon->attach, reason);
	if (!error)
		error = transport_start(&transport, &daemon->transport);
	snprintf(path, sizeof path, "ipc://%s/emad.sock", daemon->runtime.path);
	if (!error)
		error = transport_listen(daemon->transport, path, NULL, reason);
	return error ? error : network_start(daemon, reason);
}

/* From the beginning, so that it can be asked whether the daemon lives and is ready yet. */
static int web_start(struct daemon *daemon, struct reason *reason)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	int listeners[ADDRESS_COUNT_MAX];
	char name[HTTP_NAME_BYTES_MAX], text[HTTP_NAME_BYTES_MAX + 160];
	bool is_loopback;
	struct http_options options = {
		.connection_count_max = (uint32_t)daemon->config->http_connection_count_max,
		.timeout_ms = (uint32_t)daemon->config->http_timeout_ms,
		.addresses = addresses,
		.listeners = listeners,
		.counters = service_counters(daemon->service),
		.context = daemon,
		.wake = wake_loop,
		.request = on_http,
		.gone = on_gone,
		.is_over = on_http_over,
	};
	int error = address_list_parse(daemon->config->http_listen, addresses, &options.address_count, reason), fd;

	while (options.listener_count < ADDRESS_COUNT_MAX &&
	       (fd = systemd_listener(&daemon->handed, "http", SOCK_STREAM)) >= 0)
		listeners[options.listener_count++] = fd;
	if (error || options.address_count + options.listener_count == 0)
		return error;
	error = token_read(daemon->config->http_token_file, daemon->http_token, reason);
	if (!error)
		error = http_start(&options, &daemon->http, reason);
	for (uint32_t i = 0; !error && http_name(daemon->http, i, name, &is_loopback); i++) {
		snprintf(text, sizeof text, "HTTP at %s, %s", name, daemon->http_token[0]
		         ? "for whoever bears the token"
		         : "where everybody who reaches it may read (http-token-file= is not set)");
		say(daemon, daemon->http_token[0] || is_loopback ? EVENT_NOTICE : EVENT_WARNING, text);
	}
	return error;
}

/* From now on there are clients. */
static void listen_begin(struct daemon *daemon)
{
	const struct counters *counters = service_counters(daemon->service);
	char text[CONFIG_PATH_BYTES_MAX + SUMMARY_BYTES_MAX];
	struct instant now = instant_now();

	daemon->listening = true;
	daemon->error = sockets_start(daemon, daemon->reason);
	if (daemon->error) {
		uv_stop(&daemon->loop);
		return;
	}
	snprintf(text, sizeof text, "emad " EMAD_VERSION " serves at ipc://%s/emad.sock: %" PRIu64 " workers, %s kernels, "
	         "at most %.1f GiB of shared memory", daemon->runtime.path, daemon->config->worker_count,
	         kernel_best()->name, (double)daemon->config->memory_bytes_max / (double)(UINT64_C(1) << 30));
	say_of(daemon, EVENT_STARTED, EVENT_NOTICE, text);
	service_summary(daemon->service, &now, text, sizeof text);
	ready(daemon, counters->models_recovered + counters->models_adopted > 0 ? text : "no models");
}

static int start(struct daemon *daemon, struct reason *reason)
{
	uint64_t watchdog_ms = systemd_watchdog_ms();
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
		error = state_claim(daemon, reason);
	if (!error)
		error = threads_start(daemon, reason);
	if (!error)
		error = web_start(daemon, reason);
	if (error)
		return error;
	(void)uv_signal_start(&daemon->terminate, on_signal, SIGTERM);
	(void)uv_signal_start(&daemon->interrupt, on_signal, SIGINT);
	(void)uv_signal_start(&daemon->hangup, on_hangup, SIGHUP);
	(void)uv_timer_start(&daemon->status, on_status, STATUS_EVERY_MS, STATUS_EVERY_MS);
	if (watchdog_ms > 1)
		(void)uv_timer_start(&daemon->watchdog, on_watchdog, 0, watchdog_ms / 2);
	warn_of_descriptors(daemon);
	error = take_over(daemon, reason);
	if (error)
		return error;
	now = instant_now();
	error = service_recover(daemon->service, &now);
	if (error)
		return reason_set(reason, error, "not enough memory to start");
	if (!daemon->files)
		say(daemon, EVENT_NOTICE, "no checkpoints: without a state directory (--state-dir) the averages end with "
		    "this daemon");
	if (!service_recovering(daemon->service))
		listen_begin(daemon);
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
	uint32_t close_ms = daemon->hurried ? HURRIED_CLOSE_MS_MAX : CLOSE_MS_MAX;

	http_stop(daemon->http);
	daemon->http = NULL;
	transport_stop(daemon->transport, close_ms);
	daemon->transport = NULL;
	attach_stop(daemon->attach);
	workers_stop(daemon->workers);
	/* A thread that hangs on a disk still reads the models' memory: then all of it goes with the process. */
	if (files_stop(daemon->files, close_ms)) {
		/* The models that are there stay there, for the next daemon. */
		if (daemon->maker)
			memory_leave(daemon->maker);
		service_destroy(daemon->service);
		memory_stop(daemon->maker);
		runtime_state_unlock(daemon->state_dir, &daemon->state_lock_fd);
	} else {
		say(daemon, EVENT_WARNING, "the disk does not answer: a file is left half-written");
	}
	uv_walk(&daemon->loop, on_walk, NULL);
	/* Again, as long as a request to stop the loop is left over from before. */
	while (uv_run(&daemon->loop, UV_RUN_DEFAULT) != 0)
		;
	(void)uv_loop_close(&daemon->loop);
	waker_finish(&daemon->wake);
	attach_finish(daemon->attach);
	runtime_close(&daemon->runtime);
	if (daemon->attach_listener_fd >= 0)
		close(daemon->attach_listener_fd);
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
		.journal = systemd_has_journal(),
		.reason = reason,
	};
	int error = loop_init(&daemon);

	if (error) {
		free(config);
		return reason_set(reason, error, "the event loop cannot be made: %s", uv_strerror(error));
	}
	ending_signals(SIG_BLOCK);
	error = start(&daemon, reason);
	if (!error) {
		ending_signals(SIG_UNBLOCK);
		(void)uv_run(&daemon.loop, UV_RUN_DEFAULT);
		ending_signals(SIG_BLOCK);
		error = daemon.error;
		hangup_ignore(&daemon);
		end_limit(&daemon);
	} else {
		/* What was begun is closed in time, too, or not at all. */
		(void)alarm(END_SECONDS_MAX);
	}
	stop(&daemon);
	say_left_out(&daemon, instant_now().monotonic_ms + THROTTLE_REFILL_MS);
	if (!error)
		say(&daemon, EVENT_NOTICE, "stopped");
	/* A log that nobody reads is left alone, with its thread. */
	if (daemon.scribe)
		(void)scribe_stop(daemon.scribe, daemon.hurried ? HURRIED_CLOSE_MS_MAX : CLOSE_MS_MAX);
	network_files_free(daemon.network);
	free(daemon.config);
	return error;
}
