/*
 * Copies with a progress bar, and their end by a signal.
 */
#include "client/emactl/copying.h"

#include <errno.h>
#include <signal.h>
#include <sysexits.h>

/* The signal that asked for the end. Written by the handler alone: handlers have no other way to say it. */
static volatile sig_atomic_t interrupted_by;

static void on_interrupt(int number)
{
	interrupted_by = number;
}

void copying_begin(struct copying *copying, const struct emactl *emactl)
{
	*copying = (struct copying){0};
	progress_begin(&copying->progress, !emactl->is_json && !emactl->is_quiet);
}

/* Called by the library during the copy; before its first call an interrupt ends the program by itself. */
int copying_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	/* Once: a second interrupt does not wait for the library. */
	const struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
	struct copying *copying = context;

	if (!copying->is_started) {
		sigaction(SIGINT, &action, NULL);
		sigaction(SIGTERM, &action, NULL);
		copying->is_started = true;
	}
	progress_update(&copying->progress, done_bytes, total_bytes);
	return interrupted_by != 0;
}

void copying_end(struct copying *copying, int code)
{
	progress_end(&copying->progress);
	if (code == -ECANCELED && interrupted_by) {
		signal(interrupted_by, SIG_DFL);
		raise(interrupted_by);
	}
}

int copying_error(const struct emactl *emactl, int code)
{
	output_library_error(emactl, code);
	return copying_exit_status(code);
}

int copying_exit_status(int code)
{
	switch (-code) {
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
	case EACCES:
	case EPERM:
	case EROFS:
	case EEXIST:
	case ELOOP:
	case ENAMETOOLONG:
	case EBUSY:
	case ETXTBSY:
	case ENXIO:
		return EX_CANTCREAT;
	default:
		return output_exit_status(code);
	}
}
