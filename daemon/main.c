/*
 * emad: the command line.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/daemon.h"

static void help(FILE *file)
{
	fputs("Usage: emad [--config FILE] [--runtime-dir DIR] [--state-dir DIR]\n"
	      "\n"
	      "Keeps exponential moving averages of model weights in shared memory. Trainers push\n"
	      "snapshots to it, and anybody on the host reads consistent averaged versions; see\n"
	      "emactl(1). It runs in the foreground until SIGTERM or SIGINT.\n"
	      "\n"
	      "  -c, --config FILE       read settings from FILE (default: /etc/emad/emad.conf if there);\n"
	      "                          with '-' before it, from FILE if it is there\n"
	      "  -r, --runtime-dir DIR   where its sockets are (default: $RUNTIME_DIRECTORY, /run/emad)\n"
	      "  -s, --state-dir DIR     where averages are kept on disk, for profiles with snapshot=\n"
	      "                          (default: $STATE_DIRECTORY, else nowhere)\n"
	      "  -h, --help              this text\n"
	      "  -V, --version           the version\n"
	      "\n"
	      "Clients find it by EMAD_SOCKET=ipc://DIR/emad.sock.\n"
	      "\n"
	      "Example, without privileges:\n"
	      "  emad --runtime-dir /tmp/emad &\n"
	      "  EMAD_SOCKET=ipc:///tmp/emad/emad.sock emactl ping\n"
	      "\n"
	      "Settings, with their defaults:\n",
	      file);
	config_describe(file);
	fputs("\n"
	      "Exit status: 0 after an orderly end, 64 for a wrong option, 69 when the runtime directory\n"
	      "is in use by another emad, 71 when the system refuses something, 77 without permission,\n"
	      "78 for a wrong setting.\n",
	      file);
}

static int exit_status(int error)
{
	switch (error) {
	case 0:
		return EX_OK;
	case -EEXIST:
	case -EADDRINUSE:
		return EX_UNAVAILABLE;
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return EX_NOPERM;
	case STATUS_EARGUMENT:
		return EX_CONFIG;
	default:
		return EX_OSERR;
	}
}

static int fail(int error, const struct reason *reason)
{
	fprintf(stderr, "emad: %s\n", reason->text[0] ? reason->text : status_text(error));
	return exit_status(error);
}

static void directory_set(char target[CONFIG_PATH_BYTES_MAX], const char *path)
{
	if (strlen(path) >= CONFIG_PATH_BYTES_MAX) {
		fprintf(stderr, "emad: the path '%.60s...' has %zu bytes, and at most %d are allowed\n", path, strlen(path),
		        CONFIG_PATH_BYTES_MAX - 1);
		exit(EX_USAGE);
	}
	strcpy(target, path);
}

/* As directory_set; a relative path counts from here, for whoever is told it later. */
static void directory_set_absolute(char target[CONFIG_PATH_BYTES_MAX], const char *path)
{
	char whole[2 * PATH_MAX], here[PATH_MAX];

	if (path[0] == '\0' || path[0] == '/' || !getcwd(here, sizeof here))
		snprintf(whole, sizeof whole, "%s", path);
	else
		snprintf(whole, sizeof whole, "%s/%s", here, path);
	directory_set(target, whole);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },    { "runtime-dir", required_argument, NULL, 'r' },
		{ "state-dir", required_argument, NULL, 's' }, { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },         { NULL, 0, NULL, 0 },
	};
	const char *config_path = "/etc/emad/emad.conf", *runtime_dir = NULL, *state_dir = NULL;
	bool may_be_missing = true;
	struct reason reason = { "" };
	struct config config;
	int option, error = 0;

	while ((option = getopt_long(argc, argv, "c:r:s:hV", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			may_be_missing = optarg[0] == '-';
			config_path = may_be_missing ? optarg + 1 : optarg;
			break;
		case 'r':
			runtime_dir = optarg;
			break;
		case 's':
			state_dir = optarg;
			break;
		case 'h':
			help(stdout);
			return EX_OK;
		case 'V':
			puts("emad " EMAD_VERSION);
			return EX_OK;
		default:
			fputs("Try 'emad --help'.\n", stderr);
			return EX_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "emad: '%s' is not an option\nTry 'emad --help'.\n", argv[optind]);
		return EX_USAGE;
	}
	config_init(&config);
	if (!may_be_missing || access(config_path, F_OK) == 0)
		error = config_read(&config, config_path, &reason);
	if (error)
		return fail(error, &reason);
	if (runtime_dir)
		directory_set(config.runtime_dir, runtime_dir);
	if (state_dir)
		directory_set_absolute(config.state_dir, state_dir);
	config_resolve(&config, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN),
	               (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
	signal(SIGPIPE, SIG_IGN);
	error = daemon_run(&config, &reason);
	return error ? fail(error, &reason) : EX_OK;
}
