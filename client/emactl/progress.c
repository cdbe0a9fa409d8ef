/*
 * A progress bar. It is drawn on standard error, so that standard output stays clean for what the command says, and
 * it is wiped at the end: what remains on the screen is the result.
 */
#include "client/emactl/progress.h"

#include "client/emactl/figure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
	REDRAW_INTERVAL_US = 100000,
	FIRST_DRAW_US = 200000, /* what is over sooner needs no bar */
	BAR_CELLS_MAX = 40,
	FIGURES_CELLS = 60, /* room for the numbers beside the bar */
};

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void progress_begin(struct progress *progress, bool is_allowed)
{
	const char *terminal = getenv("TERM");

	*progress = (struct progress){
		.is_shown = is_allowed && isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0,
		.started_us = clock_us(),
	};
	progress->phase_us = progress->started_us;
	progress->drawn_us = progress->started_us + FIRST_DRAW_US - REDRAW_INTERVAL_US;
}

static int bar_cells(void)
{
	struct winsize window = {0};
	int cells;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col == 0)
		return BAR_CELLS_MAX / 2;
	cells = window.ws_col - FIGURES_CELLS;
	return cells < 0 ? 0 : cells > BAR_CELLS_MAX ? BAR_CELLS_MAX : cells;
}

static void bar_draw(double share)
{
	const int cells = bar_cells();
	const int full = (int)(share * cells);

	if (cells < 4)
		return;
	fputc('[', stderr);
	for (int i = 0; i < cells; i++)
		fputc(i < full ? '=' : i == full ? '>' : ' ', stderr);
	fputs("] ", stderr);
}

void progress_update(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t now_us, elapsed_us;
	double share, rate;

	if (!progress->is_shown || total_bytes == 0 || done_bytes > total_bytes)
		return;
	now_us = clock_us();
	if (done_bytes < progress->done_bytes)
		progress->phase_us = now_us;
	progress->done_bytes = done_bytes;
	if (now_us < progress->drawn_us + REDRAW_INTERVAL_US)
		return;
	elapsed_us = now_us - progress->phase_us;
	share = (double)done_bytes / (double)total_bytes;
	rate = elapsed_us > 0 ? (double)done_bytes / (double)elapsed_us : 0; /* bytes per microsecond */

	fputs("\r\033[K", stderr);
	bar_draw(share);
	fprintf(stderr, "%3.0f %%  %s of %s  %s/s", 100 * share, figure_bytes(done_bytes).text,
	        figure_bytes(total_bytes).text, figure_bytes((uint64_t)(rate * 1e6)).text);
	if (rate > 0)
		fprintf(stderr, "  %s left",
		        figure_duration_us((uint64_t)((double)(total_bytes - done_bytes) / rate)).text);
	fflush(stderr);
	progress->is_drawn = true;
	progress->drawn_us = now_us;
}

void progress_end(struct progress *progress)
{
	if (!progress->is_drawn)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	progress->is_drawn = false;
}

uint64_t progress_elapsed_us(const struct progress *progress)
{
	return clock_us() - progress->started_us;
}
