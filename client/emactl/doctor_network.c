/*
 * Looking at [http] and [network]: the settings as the program `emad` reads them, the files they name, and whether the
 * addresses are there. See doctor.h. What cannot be seen stays unknown; nothing here fails.
 *
 * The daemon's own command line is given to that program, because an option counts more than the files. It is the emad
 * beside this tool that runs, never the daemon's: that may be anybody's.
 */
#include "client/emactl/doctor.h"

#include "client/emactl/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 1 << 20, COMMAND_LINE_BYTES_MAX = 65536, ARGUMENT_COUNT_MAX = 256, CONNECT_MS_MAX = 2000 };

/* Runs a program; what it prints is owned by the caller, NULL: it could not be run. Its exit status, -1: none. */
static char *program_ask(char **arguments, const char *directory, int *ret_status)
{
	char *answer = calloc(1, ANSWER_BYTES_MAX);
	size_t bytes = 0;
	ssize_t count = 1;
	int ends[2], status = 0;
	pid_t child;

	*ret_status = -1;
	if (!answer || pipe2(ends, O_CLOEXEC) != 0) {
		free(answer);
		return NULL;
	}
	child = fork();
	if (child == 0) {
		const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(nothing, STDIN_FILENO);
		dup2(nothing, STDERR_FILENO);
		dup2(ends[1], STDOUT_FILENO);
		/* Relative paths are from where the daemon is. Who may not look there may not see the files either. */
		if (!directory || chdir(directory) == 0 || chdir("/") == 0)
			execvp(arguments[0], arguments);
		_exit(EX_UNAVAILABLE);
	}
	close(ends[1]);
	while (child > 0 && count > 0 && bytes < ANSWER_BYTES_MAX - 1) {
		count = read(ends[0], answer + bytes, ANSWER_BYTES_MAX - 1 - bytes);
		bytes += count > 0 ? (size_t)count : 0;
	}
	close(ends[0]);
	if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status))
		*ret_status = WEXITSTATUS(status);
	return answer;
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

/* The emad beside this program, else whichever is found. */
static void emad_find(char *path, size_t capacity)
{
	ssize_t bytes = readlink("/proc/self/exe", path, capacity - 8);
	char *name;

	path[bytes > 0 ? bytes : 0] = '\0';
	name = strrchr(path, '/');
	if (name)
		strcpy(name + 1, "emad");
	if (!name || access(path, X_OK) != 0)
		strcpy(path, "emad");
}

/* The arguments of a process but the first, divided by zeros; 0 when they cannot be seen. */
static size_t command_line_read(uint64_t pid, char *text, size_t capacity)
{
	char path[64];
	size_t bytes;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/cmdline", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	bytes = fread(text, 1, capacity - 1, file);
	text[bytes] = '\0';
	fclose(file);
	return bytes;
}

static char *settings_ask(const struct doctor_facts *facts, int *ret_status)
{
	static char print[] = "--print-config", json[] = "--json";
	char program[DOCTOR_PATH_BYTES_MAX], directory[64], *answer, *text = malloc(COMMAND_LINE_BYTES_MAX);
	char **arguments = calloc(ARGUMENT_COUNT_MAX + 4, sizeof(*arguments));
	size_t count = 0, bytes = 0;

	*ret_status = -1;
	if (!text || !arguments) {
		free(text);
		free(arguments);
		return NULL;
	}
	emad_find(program, sizeof(program));
	snprintf(directory, sizeof(directory), "/proc/%" PRIu64 "/cwd", facts->pid);
	if (facts->connect_code == 0)
		bytes = command_line_read(facts->pid, text, COMMAND_LINE_BYTES_MAX);
	arguments[count++] = program;
	for (size_t at = strlen(text) + 1; bytes > 0 && at < bytes && count < ARGUMENT_COUNT_MAX; at += strlen(text + at) + 1)
		arguments[count++] = text + at;
	arguments[count++] = print;
	arguments[count] = json;
	answer = program_ask(arguments, bytes > 0 ? directory : NULL, ret_status);
	free(arguments);
	free(text);
	return answer;
}

/* The value of a setting, empty where there is none. */
static const char *setting_of(const json_t *settings, const char *key)
{
	const json_t *setting;
	size_t index;

	json_array_foreach(settings, index, setting) {
		const char *name = json_string_value(json_object_get(setting, "key"));

		if (name && strcmp(name, key) == 0) {
			const char *value = json_string_value(json_object_get(setting, "value"));

			return value ? value : "";
		}
	}
	return "";
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void file_look(struct doctor_file *file, const char *path)
{
	struct stat facts;

	snprintf(file->path, sizeof(file->path), "%s", path);
	if (path[0] != '/')
		return;
	file->error = stat(path, &facts) == 0 ? 0 : errno;
	file->mode = file->error ? 0 : facts.st_mode & 07777;
}

/* "notAfter=Nov 23 20:34:35 2026 GMT" */
static void certificate_look(struct doctor_facts *facts, const char *path)
{
	char openssl[] = "openssl", x509[] = "x509", noout[] = "-noout", enddate[] = "-enddate", in[] = "-in";
	char *arguments[] = {openssl, x509, noout, enddate, in, facts->certificate.path, NULL}, *answer, *date;
	struct tm end = {.tm_year = 0};
	int status;

	file_look(&facts->certificate, path);
	if (path[0] != '/' || facts->certificate.error)
		return;
	answer = program_ask(arguments, NULL, &status);
	date = answer && status == 0 ? strchr(answer, '=') : NULL;
	if (date && strptime(date + 1, "%b %d %H:%M:%S %Y", &end))
		facts->certificate_end_s = timegm(&end);
	free(answer);
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static int connect_try(const struct addrinfo *address)
{
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
	struct pollfd waiting = {.fd = fd, .events = POLLOUT};
	socklen_t bytes = sizeof(error);

	if (fd < 0)
		return errno;
	if (connect(fd, address->ai_addr, address->ai_addrlen) != 0)
		error = errno;
	if (error == EINPROGRESS) {
		error = ETIMEDOUT;
		if (poll(&waiting, 1, CONNECT_MS_MAX) > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
			error = errno;
	}
	close(fd);
	return error;
}

static int bind_try(const struct addrinfo *address)
{
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;
	const int yes = 1;

	if (fd < 0)
		return errno;
	/* As the daemon does: what is left of connections that have ended is in nobody's way. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (address->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
	if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, 1) != 0)
		error = errno;
	close(fd);
	return error;
}

/* A container's addresses are its own. */
static bool is_same_network(uint64_t pid)
{
	char path[64], ours[64] = "", theirs[64] = "";

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/ns/net", pid);
	return readlink(path, theirs, sizeof(theirs) - 1) < 0 || readlink("/proc/self/ns/net", ours, sizeof(ours) - 1) < 0 ||
	       strcmp(ours, theirs) == 0;
}

/* name: "[tls+tcp://]HOST:PORT" */
static void place_add(struct doctor_facts *facts, const char *name, bool is_http)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct doctor_place *place = &facts->places[facts->place_count];
	struct addrinfo *found = NULL;
	char host[128], *end, *begin;

	if (facts->place_count == DOCTOR_PLACE_COUNT_MAX)
		return;
	*place = (struct doctor_place){.is_http = is_http, .is_tls = strncmp(name, "tls+", 4) == 0, .error = -1};
	snprintf(place->name, sizeof(place->name), "%s", name);
	begin = strstr(place->name, "://");
	snprintf(host, sizeof(host), "%s", begin ? begin + 3 : place->name);
	end = strrchr(host, ':');
	if (!end)
		return;
	*end = '\0';
	snprintf(place->port, sizeof(place->port), "%.7s", end + 1);
	begin = host + (host[0] == '[');
	begin[strcspn(begin, "]")] = '\0';
	facts->place_count++;
	if (strcmp(place->port, "0") == 0 || getaddrinfo(begin[0] && strcmp(begin, "*") != 0 ? begin : NULL, place->port,
	                                                 &hints, &found) != 0)
		return;
	place->is_loopback = is_loopback(found->ai_addr);
	if (facts->connect_code != 0)
		place->error = bind_try(found);
	else if (is_same_network(facts->pid))
		place->error = connect_try(found);
	freeaddrinfo(found);
}

static void places_add(struct doctor_facts *facts, const char *list, bool is_http)
{
	char name[128];

	while (*list) {
		size_t bytes = strcspn(list, " \t\n");

		snprintf(name, sizeof(name), "%.*s", (int)bytes, list);
		if (name[0])
			place_add(facts, name, is_http);
		list += bytes + (list[bytes] != '\0');
	}
}

/* A daemon that is away is that of these settings only if its socket is. */
static bool is_about_socket(const struct doctor_facts *facts, const json_t *settings)
{
	char path[DOCTOR_PATH_BYTES_MAX + 16];

	snprintf(path, sizeof(path), "%.*s/emad.sock", DOCTOR_PATH_BYTES_MAX, setting_of(settings, "runtime-dir"));
	return facts->connect_code == 0 || strcmp(path, facts->socket_path) == 0;
}

void doctor_network_look(struct doctor_facts *facts)
{
	json_error_t complaint;
	json_t *answer = NULL;
	const json_t *settings;
	char *text;
	int status;

	if (facts->connect_code == 0 ? !facts->is_local : !facts->socket_path[0])
		return;
	text = settings_ask(facts, &status);
	facts->are_settings_wrong = status == EX_CONFIG && facts->connect_code == 0;
	if (text && status == 0)
		answer = facts_parse(text, &complaint);
	free(text);
	settings = json_object_get(answer, "settings");
	facts->has_settings = settings && is_about_socket(facts, settings);
	if (facts->has_settings) {
		file_look(&facts->http_token, setting_of(settings, "http-token-file"));
		file_look(&facts->tokens, setting_of(settings, "token-file"));
		file_look(&facts->key, setting_of(settings, "tls-key"));
		certificate_look(facts, setting_of(settings, "tls-certificate"));
		places_add(facts, setting_of(settings, "http-listen"), true);
		places_add(facts, setting_of(settings, "listen"), false);
	}
	json_decref(answer);
}
