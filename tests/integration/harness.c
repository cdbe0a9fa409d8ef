/*
 * Starting and ending real daemons: see harness.h.
 */
#include "tests/integration/harness.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
	READY_MAX_MS = 30000,
	STOP_MAX_MS = 60000,
	ENVIRONMENT_COUNT_MAX = 1024,
};

long long harness_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int harness_log_count(const struct harness *harness, const char *text)
{
	char line[1024];
	FILE *log = fopen(harness->log, "re");
	int count = 0;

	ck_assert_ptr_nonnull(log);
	while (fgets(line, sizeof(line), log))
		count += strstr(line, text) != NULL;
	fclose(log);
	return count;
}

void harness_log_print(const struct harness *harness)
{
	char line[1024];
	FILE *log = fopen(harness->log, "re");

	while (log && fgets(line, sizeof(line), log))
		fprintf(stderr, "daemon: %s", line);
	if (log)
		fclose(log);
}

static void notify_open(struct harness *harness, char *variable, size_t capacity)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", harness->directory);
	snprintf(variable, capacity, "NOTIFY_SOCKET=%s", address.sun_path);
	unlink(address.sun_path);
	harness->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(harness->notify, 0);
	ck_assert_int_eq(bind(harness->notify, (const struct sockaddr *)&address, sizeof(address)), 0);
}

/* The environment with our NOTIFY_SOCKET, and without variables that would lead the daemon elsewhere. */
static void environment_make(char *notify, char **environment)
{
	size_t count = 0;

	for (char **entry = environ; *entry; entry++) {
		if (strncmp(*entry, "NOTIFY_SOCKET=", 14) == 0 || strncmp(*entry, "EMAD_SOCKET=", 12) == 0 ||
		    strncmp(*entry, "LISTEN_", 7) == 0)
			continue;
		ck_assert_uint_lt(count, ENVIRONMENT_COUNT_MAX - 2);
		environment[count++] = *entry;
	}
	environment[count++] = notify;
	environment[count] = NULL;
}

static void daemon_spawn(struct harness *harness, char **environment)
{
	const char *program = getenv("EMAD_DAEMON");
	char *arguments[HARNESS_ARGUMENT_COUNT_MAX + 6];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	size_t count = 0;
	sigset_t none;

	ck_assert_msg(program && *program, "EMAD_DAEMON must name the daemon program");
	arguments[count++] = (char *)program;
	arguments[count++] = "--runtime-dir";
	arguments[count++] = harness->directory;
	arguments[count++] = "--state-dir";
	arguments[count++] = harness->directory;
	for (size_t i = 0; harness->arguments[i]; i++)
		arguments[count++] = (char *)harness->arguments[i];
	arguments[count] = NULL;

	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, harness->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	posix_spawn_file_actions_adddup2(&actions, 1, 2);
	ck_assert_int_eq(posix_spawn(&harness->pid, program, &actions, &attributes, arguments, environment), 0);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
}

bool harness_ready(struct harness *harness)
{
	long long deadline_ms = harness_now_ms() + READY_MAX_MS;
	int ended = pidfd_open(harness->pid, 0);
	bool ready = false, failed = false;
	char text[4096];

	ck_assert_int_ge(ended, 0);
	while (!ready && !failed) {
		struct pollfd pollers[] = {{.fd = harness->notify, .events = POLLIN}, {.fd = ended, .events = POLLIN}};
		long long left_ms = deadline_ms - harness_now_ms();

		failed = left_ms <= 0 || (poll(pollers, 2, (int)left_ms) <= 0 && errno != EINTR);
		if (pollers[0].revents & POLLIN) {
			ssize_t count = recv(harness->notify, text, sizeof(text) - 1, 0);

			text[count < 0 ? 0 : count] = '\0';
			ready = strncmp(text, "READY=1", 7) == 0 || strstr(text, "\nREADY=1");
			snprintf(harness->ready, sizeof(harness->ready), "%.255s", text);
		} else if (pollers[1].revents) {
			failed = true;
		}
	}
	close(ended);
	return ready;
}

void harness_begin(struct harness *harness)
{
	char notify[sizeof(struct sockaddr_un) + 32];
	char *environment[ENVIRONMENT_COUNT_MAX];

	ck_assert_int_eq(harness->pid, 0);
	if (harness->notify >= 0)
		close(harness->notify);
	notify_open(harness, notify, sizeof(notify));
	environment_make(notify, environment);
	daemon_spawn(harness, environment);
}

void harness_start(struct harness *harness)
{
	harness_begin(harness);
	if (!harness_ready(harness)) {
		harness_log_print(harness);
		harness_kill(harness);
		ck_abort_msg("the daemon was not ready in %d ms", READY_MAX_MS);
	}
}

void harness_open(struct harness *harness, const char *const *arguments)
{
	const char *temporary = getenv("TMPDIR");

	*harness = (struct harness){.notify = -1};
	/* Socket paths are short: a long TMPDIR is of no use. */
	if (!temporary || strlen(temporary) > 32)
		temporary = "/tmp";
	snprintf(harness->directory, sizeof(harness->directory), "%s/emad-test-XXXXXX", temporary);
	ck_assert_ptr_nonnull(mkdtemp(harness->directory));
	snprintf(harness->url, sizeof(harness->url), "ipc://%s/emad.sock", harness->directory);
	snprintf(harness->log, sizeof(harness->log), "%s/log", harness->directory);
	for (size_t i = 0; arguments && arguments[i]; i++) {
		ck_assert_uint_lt(i, HARNESS_ARGUMENT_COUNT_MAX);
		harness->arguments[i] = arguments[i];
	}
	harness_start(harness);
}

void harness_kill(struct harness *harness)
{
	if (harness->pid == 0)
		return;
	kill(harness->pid, SIGKILL);
	while (waitpid(harness->pid, NULL, 0) < 0 && errno == EINTR)
		;
	harness->pid = 0;
}

int harness_stop(struct harness *harness)
{
	return harness_end(harness, SIGTERM);
}

int harness_end(struct harness *harness, int number)
{
	struct pollfd poller = {.fd = pidfd_open(harness->pid, 0), .events = POLLIN};
	int status = 0;

	ck_assert_int_ge(poller.fd, 0);
	kill(harness->pid, number);
	if (poll(&poller, 1, STOP_MAX_MS) != 1) {
		close(poller.fd);
		harness_log_print(harness);
		harness_kill(harness);
		ck_abort_msg("the daemon did not end within %d ms of SIG%s", STOP_MAX_MS, sigabbrev_np(number));
	}
	close(poller.fd);
	ck_assert_int_eq(waitpid(harness->pid, &status, 0), harness->pid);
	harness->pid = 0;
	return status;
}

int harness_report_wait(struct harness *harness, const char *text, int timeout_ms)
{
	long long begun_ms = harness_now_ms(), left_ms = timeout_ms;
	struct pollfd poller = {.fd = harness->notify, .events = POLLIN};
	char report[4096];

	while (left_ms > 0 && (poll(&poller, 1, (int)left_ms) >= 0 || errno == EINTR)) {
		ssize_t count = recv(harness->notify, report, sizeof(report) - 1, MSG_DONTWAIT);

		report[count < 0 ? 0 : count] = '\0';
		if (strstr(report, text))
			return (int)(harness_now_ms() - begun_ms);
		left_ms = begun_ms + timeout_ms - harness_now_ms();
	}
	return -1;
}

static int entry_remove(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
	(void)facts;
	(void)kind;
	(void)place;
	return remove(path);
}

void harness_close(struct harness *harness)
{
	harness_kill(harness);
	if (harness->notify >= 0)
		close(harness->notify);
	harness->notify = -1;
	nftw(harness->directory, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}
