/*
 * Plain log lines. See log.h.
 */
#include "daemon/edge/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void log_line(const struct event *event)
{
	static const struct {
		const char *word, *colour;
	} looks[] = {
		[EVENT_ERROR] = { "error: ", "\033[31m" },
		[EVENT_WARNING] = { "warning: ", "\033[33m" },
		[EVENT_NOTICE] = { "", "" },
		[EVENT_DEBUG] = { "debug: ", "\033[2m" },
	};
	bool colour = isatty(2) && !getenv("NO_COLOR") && looks[event->severity].colour[0];
	struct timespec now;
	struct tm parts;
	char clock[16];

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &parts);
	strftime(clock, sizeof clock, "%H:%M:%S", &parts);
	fprintf(stderr, "%s.%03ld %s%s%s%s\n", clock, now.tv_nsec / 1000000, colour ? looks[event->severity].colour : "",
	        looks[event->severity].word, colour ? "\033[0m" : "", event->text);
}
