/*
 * Spawning, waiting and /proc. See process.h.
 */
#include "tests/integration/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

pid_t process_spawn(const char *program, const char *const *arguments, const char *output)
{
	char *all[PROCESS_ARGUMENT_COUNT_MAX + 2];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	size_t count = 0;
	sigset_t none;
	pid_t pid;
	int error;

	if (!program || !*program) {
		fputs("EMAD_DAEMON must name the daemon program\n", stderr);
		exit(EXIT_FAILURE);
	}
	all[count++] = (char *)program;
	for (; *arguments && count <= PROCESS_ARGUMENT_COUNT_MAX; arguments++)
		all[count++] = (char *)*arguments;
	all[count] = NULL;
	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (output) {
		posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		posix_spawn_file_actions_adddup2(&actions, 1, 2);
	}
	error = posix_spawn(&pid, all[0], &actions, &attributes, all, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	if (error) {
		fprintf(stderr, "cannot start %s: %s\n", all[0], strerror(error));
		exit(EXIT_FAILURE);
	}
	return pid;
}

int process_wait(pid_t pid, int timeout_ms)
{
	struct pollfd poller = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	bool ended = poller.fd >= 0 && poll(&poller, 1, timeout_ms) == 1;
	int status = -1;

	if (poller.fd >= 0)
		close(poller.fd);
	if (!ended)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return ended ? status : -1;
}

uint64_t process_memory_kib(pid_t pid, const char *name)
{
	char path[64], line[256];
	uint64_t number = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		size_t bytes = strlen(name);

		if (strncmp(line, name, bytes) == 0 && line[bytes] == ':')
			sscanf(line + bytes + 1, "%" SCNu64, &number);
	}
	if (file)
		fclose(file);
	return number;
}

size_t process_fd_count(pid_t pid, const char *text)
{
	char path[64], target[512];
	struct dirent *entry;
	size_t count = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		ssize_t bytes = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);

		if (bytes < 0)
			continue;
		target[bytes] = '\0';
		count += strstr(target, text) != NULL;
	}
	if (folder)
		closedir(folder);
	return count;
}

uint64_t process_cpu_ms(pid_t pid)
{
	char path[64], line[1024] = "";
	uint64_t user = 0, system = 0;
	const char *behind;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file && !fgets(line, sizeof(line), file))
		line[0] = '\0';
	if (file)
		fclose(file);
	/* The name in the second field may hold anything; fields 14 and 15 are counted from behind it. */
	behind = strrchr(line, ')');
	if (behind)
		sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user, &system);
	return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

pid_t process_thread(pid_t pid, const char *name)
{
	char path[300], line[64];
	struct dirent *entry;
	pid_t found = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	folder = opendir(path);
	while (folder && !found && (entry = readdir(folder))) {
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/task/%.40s/comm", (int)pid, entry->d_name);
		file = fopen(path, "re");
		if (file && fgets(line, sizeof(line), file)) {
			line[strcspn(line, "\n")] = '\0';
			if (strcmp(line, name) == 0)
				found = (pid_t)strtol(entry->d_name, NULL, 10);
		}
		if (file)
			fclose(file);
	}
	if (folder)
		closedir(folder);
	return found;
}

bool process_thread_hang(pid_t thread)
{
	int status;

	if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) != 0) {
		printf("a thread cannot be stopped alone here: %s\n", strerror(errno));
		return false;
	}
	ptrace(PTRACE_INTERRUPT, thread, NULL, NULL);
	while (waitpid(thread, &status, __WALL) < 0 && errno == EINTR)
		;
	return true;
}

void process_thread_release(pid_t thread)
{
	ptrace(PTRACE_DETACH, thread, NULL, NULL);
}

bool process_thread_reap(pid_t thread, int timeout_ms)
{
	int status;

	for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += 5) {
		if (waitpid(thread, &status, __WALL | WNOHANG) == thread && (WIFSIGNALED(status) || WIFEXITED(status)))
			return true;
		process_sleep_ms(5);
	}
	return false;
}

int process_scale(void)
{
	const char *build = getenv("BUILD");

	if (build && strcmp(build, "asan") == 0)
		return 4;
	if (build && strcmp(build, "tsan") == 0)
		return 6;
	return build && strcmp(build, "debug") == 0 ? 2 : 1;
}

void process_sleep_ms(int ms)
{
	struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

uint64_t seed_take(const char *name)
{
	const char *given = getenv("EMAD_TEST_SEED");
	uint64_t seed = 0;

	if (given)
		seed = strtoull(given, NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = (uint64_t)getpid();
	printf("%s: seed 0x%" PRIx64 "\n", name, seed);
	fflush(stdout);
	return seed;
}

/* splitmix64 */
uint64_t seed_next(uint64_t *seed, uint64_t bound)
{
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % bound;
}
