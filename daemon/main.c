/*
 * emad: what the command line asks for.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/core/config_text.h"
#include "daemon/daemon.h"
#include "daemon/options.h"
#include "proto/limits.h"

enum {
	MALLOC_MAPPED_BYTES = CHUNK_BYTES_MAX + 64 * 1024, /* what is larger is a mapping of its own */
	MALLOC_KEPT_BYTES = 6 * 1024 * 1024,               /* that are not given back at the end of the heap */
};

static void help(FILE *file)
{
	fputs("Usage: emad [--config FILE] [--KEY VALUE]...\n"
	      "       emad --check-config [FILE] | --print-config [--json] | --default-config\n"
	      "\n"
	      "Keeps exponential moving averages of model weights in shared memory. Trainers push\n"
	      "snapshots to it, and anybody on the host reads consistent averaged versions; see\n"
	      "emactl(1). It runs in the foreground until SIGTERM or SIGINT; SIGHUP makes it read its\n"
	      "settings again.\n"
	      "\n"
	      "  -c, --config FILE       read settings from FILE (default: /etc/emad/emad.conf if there),\n"
	      "                          then from FILE.d/*.conf in the order of their names; with '-'\n"
	      "                          before it FILE need not be there\n"
	      "      --check-config      say everything that is wrong with the settings, and end\n"
	      "      --print-config      print the settings in effect, and where each was set; --json\n"
	      "      --default-config    print a settings file of all defaults, with explanations\n"
	      "  -r, --runtime-dir DIR   where its sockets are (default: $RUNTIME_DIRECTORY, /run/emad)\n"
	      "  -s, --state-dir DIR     where averages are kept on disk, for profiles with snapshot=\n"
	      "                          (default: $STATE_DIRECTORY, else nowhere)\n"
	      "      --segments-dir DIR  where shared memory outlives the daemon without systemd: a directory\n"
	      "                          of its own on a tmpfs, such as /dev/shm/emad\n"
	      "      --KEY VALUE         any of the settings below, such as --memory-max 8G; counts\n"
	      "                          more than all files\n"
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
	config_text_help(file);
	fputs("\n"
	      "Exit status: 0 after an orderly end, 64 for a wrong option, 69 when the runtime directory\n"
	      "or the state directory is in use by another emad, 71 when the system refuses something, 77 without permission,\n"
	      "78 for a wrong setting; of --check-config 0 or 78.\n",
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

static void faults_print(const struct config_faults *faults)
{
	for (uint32_t i = 0; i < faults->count && i < CONFIG_FAULT_COUNT_MAX; i++)
		fprintf(stderr, "emad: %s\n", faults->reasons[i].text);
	if (faults->count > CONFIG_FAULT_COUNT_MAX)
		fprintf(stderr, "emad: and %" PRIu32 " more\n", faults->count - CONFIG_FAULT_COUNT_MAX);
}

static int check_print(const struct config *config)
{
	for (uint32_t i = 0; i < config->file_count; i++)
		printf("%s: nothing is wrong\n", config->files[i]);
	if (config->file_count == 0)
		printf("%s: not there, which is right too\n", CONFIG_FILE_DEFAULT);
	return EX_OK;
}

static int effective_print(const struct config *config, bool as_json)
{
	char *text;

	if (!as_json) {
		config_text_effective(config, stdout);
		return EX_OK;
	}
	text = config_text_json(config);
	if (!text) {
		fputs("emad: not enough memory for the settings\n", stderr);
		return EX_OSERR;
	}
	puts(text);
	free(text);
	return EX_OK;
}

static int run(const struct options *options, struct config *config)
{
	struct reason reason = { "" };
	int error;

	signal(SIGPIPE, SIG_IGN);
	error = daemon_run(options, config, &reason);
	if (error)
		fprintf(stderr, "emad: %s\n", reason.text[0] ? reason.text : status_text(error));
	return exit_status(error);
}

/* Takes the config. */
static int act(const struct options *options, struct config *config, const struct config_faults *faults)
{
	int status;

	if (faults->count > 0)
		status = options->action == OPTIONS_CHECK ? EX_CONFIG : exit_status(faults->error);
	else if (options->action == OPTIONS_RUN)
		return run(options, config);
	else if (options->action == OPTIONS_CHECK)
		status = check_print(config);
	else
		status = effective_print(config, options->json);
	free(config);
	return status;
}

/*
 * Memory for messages comes and goes with each of them: kept, it is not given back to the kernel and faulted in again
 * page by page for the next mebibyte of weights. No more stays than a few of them take.
 */
static void allocator_prepare(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, MALLOC_MAPPED_BYTES);
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_KEPT_BYTES);
}

int main(int argc, char **argv)
{
	struct config_faults faults = { .count = 0 };
	struct options options;
	struct config *config;
	int status = options_parse(&options, argc, argv);

	if (status != EX_OK)
		return status;
	switch (options.action) {
	case OPTIONS_HELP:
		help(stdout);
		return EX_OK;
	case OPTIONS_VERSION:
		puts("emad " EMAD_VERSION);
		return EX_OK;
	case OPTIONS_DEFAULT:
		config_text_default(stdout);
		return EX_OK;
	case OPTIONS_RUN:
	case OPTIONS_CHECK:
	case OPTIONS_PRINT:
		break;
	}
	allocator_prepare();
	config = calloc(1, sizeof *config);
	if (!config) {
		fputs("emad: not enough memory for the settings\n", stderr);
		return EX_OSERR;
	}
	options_configure(&options, config, &faults);
	faults_print(&faults);
	return act(&options, config, &faults);
}
