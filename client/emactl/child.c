/*
 * Running a command. See child.h.
 */
#include "client/emactl/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_NO_SHELL = 127 };

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* In the child: between fork and exec only what is safe in a program with threads. */
static void child_become(const char *command, bool is_output_diverted, const sigset_t *mask, pid_t parent)
{
	const int nothing = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	/* Should this program be killed, nobody would wait for the command any more. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_NO_SHELL);
	signal(SIGPIPE, SIG_DFL);
	if (nothing >= 0)
		dup2(nothing, STDIN_FILENO);
	if (is_output_diverted)
		dup2(STDERR_FILENO, STDOUT_FILENO);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(EXIT_NO_SHELL);
}

/* Until it has ended; signals of others are handed on. */
static void child_wait(pid_t child, const sigset_t *signals, struct child_result *result)
{
	int status = 0;

	for (;;) {
		const int number = sigwaitinfo(signals, NULL);

		if (number < 0 && errno == EINTR)
			continue;
		if (number > 0 && number != SIGCHLD) {
			kill(-child, result->interrupted_by ? SIGKILL : number);
			result->interrupted_by = result->interrupted_by ? result->interrupted_by : number;
		}
		if (waitpid(child, &status, WNOHANG) == child)
			break;
	}
	result->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int child_run(const char *command, bool is_output_diverted, struct child_result *ret_result)
{
	const uint64_t started_us = clock_us();
	struct child_result result = {0};
	const pid_t self = getpid();
	sigset_t signals, before;
	pid_t child;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &signals, &before);
	child = fork();
	if (child == 0)
		child_become(command, is_output_diverted, &before, self);
	if (child < 0) {
		const int error = errno;

		sigprocmask(SIG_SETMASK, &before, NULL);
		return -error;
	}
	/* Here too, because either may come first. */
	setpgid(child, child);
	child_wait(child, &signals, &result);
	sigprocmask(SIG_SETMASK, &before, NULL);
	result.elapsed_us = clock_us() - started_us;
	*ret_result = result;
	return 0;
}
