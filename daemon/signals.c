/*
 * SIGTERM, SIGINT, SIGHUP and SIGALRM. See signals.h.
 */
#include "daemon/signals.h"

#include <signal.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/clocks.h"
#include "daemon/edge/files.h"
#include "daemon/reload.h"

enum {
	END_SECONDS_MAX = 10, /* for all that comes behind the draining; then the process ends wherever it is */
	CLOSE_MS_MAX = 2000,
	SOCKETS_SECONDS_MAX = 5, /* to make the sockets and their threads, which takes milliseconds */
	HURRIED_END_SECONDS_MAX = 1, /* both after a second signal */
	HURRIED_CLOSE_MS_MAX = 200,
};

static void on_ending(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	struct instant now = clocks_now();

	(void)number;
	if (daemon->stopping) {
		daemon->hurried = true;
		uv_stop(&daemon->loop);
		return;
	}
	daemon->stopping = true;
	systemd_stopping();
	voice_say_of(&daemon->voice, EVENT_STOPPING, EVENT_NOTICE,
	             "stopping: new work is refused, what was accepted is finished");
	clocks_drain(daemon);
	if (daemon->files)
		files_drain(daemon->files);
	service_stop(daemon->service, &now);
	clocks_rearm(daemon);
}

static void on_hangup(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;

	(void)number;
	if (!daemon->stopping)
		reload_run(daemon);
}

void signals_init(struct daemon *daemon)
{
	(void)uv_signal_init(&daemon->loop, &daemon->terminate);
	(void)uv_signal_init(&daemon->loop, &daemon->interrupt);
	(void)uv_signal_init(&daemon->loop, &daemon->hangup);
	daemon->terminate.data = daemon;
	daemon->interrupt.data = daemon;
	daemon->hangup.data = daemon;
}

void signals_start(struct daemon *daemon)
{
	(void)uv_signal_start(&daemon->terminate, on_ending, SIGTERM);
	(void)uv_signal_start(&daemon->interrupt, on_ending, SIGINT);
	(void)uv_signal_start(&daemon->hangup, on_hangup, SIGHUP);
}

static void mask(int how)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(how, &signals, NULL);
}

void signals_block(void)
{
	mask(SIG_BLOCK);
}

void signals_unblock(void)
{
	mask(SIG_UNBLOCK);
}

static void on_end_overdue(int number)
{
	(void)number;
	_exit(EXIT_SUCCESS);
}

/* The same where the end is that of a start that failed. */
static void on_failure_overdue(int number)
{
	static const char text[] = "emad: a library hangs, as for want of memory or threads (see the limits on tasks and memory)\n";

	(void)number;
	(void)!write(STDERR_FILENO, text, sizeof text - 1);
	_exit(EX_OSERR);
}

static void failure_limit(unsigned seconds)
{
	struct sigaction overdue = { .sa_handler = on_failure_overdue };

	(void)sigaction(SIGALRM, &overdue, NULL);
	(void)alarm(seconds);
}

static void on_end_hurried(int number)
{
	(void)number;
	(void)alarm(HURRIED_END_SECONDS_MAX);
}

void signals_limit_end(struct daemon *daemon)
{
	struct sigaction overdue = { .sa_handler = daemon->error ? on_failure_overdue : on_end_overdue };
	struct sigaction hurried = { .sa_handler = on_end_hurried };

	/* Whoever lets signals in again. */
	(void)uv_signal_stop(&daemon->hangup);
	(void)signal(SIGHUP, SIG_IGN);
	(void)uv_signal_stop(&daemon->terminate);
	(void)uv_signal_stop(&daemon->interrupt);
	(void)sigaction(SIGALRM, &overdue, NULL);
	(void)sigaction(SIGTERM, &hurried, NULL);
	(void)sigaction(SIGINT, &hurried, NULL);
	(void)alarm(daemon->hurried ? HURRIED_END_SECONDS_MAX : END_SECONDS_MAX);
	systemd_extend((END_SECONDS_MAX + 1) * 1000);
	signals_unblock();
}

void signals_limit_failure(void)
{
	failure_limit(END_SECONDS_MAX);
}

void signals_limit_sockets(bool begins)
{
	failure_limit(begins ? SOCKETS_SECONDS_MAX : 0);
}

uint32_t signals_close_ms(const struct daemon *daemon)
{
	return daemon->hurried ? HURRIED_CLOSE_MS_MAX : CLOSE_MS_MAX;
}
