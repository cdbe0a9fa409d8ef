/*
 * A crew and its inspector, told what to do line by line. See attend.h.
 */
#include "tests/integration/attend.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/integration/crew.h"
#include "tests/integration/inspector.h"

enum { CALL_MAX_MS = 20000 };

/* What is wrong, or NULL. */
static const char *check(struct inspector *inspector, struct crew *crew, pid_t pid)
{
	if (!inspector_meets(inspector, pid, CALL_MAX_MS))
		return "the daemon does not answer";
	if (!inspector_release(inspector) || !inspector_check(inspector, CALL_MAX_MS))
		return inspector->text;
	return crew_mistake(crew);
}

static void answer(const char *mistake, const struct inspector *inspector)
{
	if (mistake)
		printf("wrong: %s\n", mistake);
	else
		printf("ok: %" PRIu64 " versions compared, %" PRIu64 " views kept, %" PRIu64 " revoked\n",
		       inspector->compared_count, inspector->kept_count, inspector->revoked_count);
	fflush(stdout);
}

/* Follows the commands until the last; false when there was something to find. */
static bool attend(struct inspector *inspector, struct crew *crew)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin)) {
		const char *mistake = NULL;

		if (strncmp(line, "check ", 6) == 0)
			mistake = check(inspector, crew, (pid_t)strtol(line + 6, NULL, 10));
		else if (strcmp(line, "hold\n") == 0)
			inspector_hold(inspector);
		else if (strcmp(line, "store\n") == 0)
			mistake = inspector_store(inspector, CALL_MAX_MS) ? NULL : inspector->text;
		else if (strcmp(line, "pause\n") == 0)
			mistake = crew_pause(crew, true, CALL_MAX_MS) ? NULL : "a trainer does not come to rest";
		else if (strcmp(line, "resume\n") == 0)
			mistake = crew_pause(crew, false, CALL_MAX_MS) ? NULL : "a trainer does not go on";
		else if (strcmp(line, "end\n") == 0)
			return true;
		else
			mistake = "there is no such command";
		answer(mistake, inspector);
		if (mistake)
			return false;
	}
	return false;
}

/* Nobody has pushed yet since the host is back. */
static bool look(const char *url, const char *directory, const char *end)
{
	struct inspector inspector = {.crew = NULL};
	struct crew crew;
	bool good;

	crew_open(&crew, directory);
	good = inspector_init(&inspector, &crew, url) == 0;
	if (!good)
		answer(emad_error(), &inspector);
	else if (!inspector_recover(&inspector, strcmp(end, "cut") == 0, CALL_MAX_MS)) {
		answer(inspector.text, &inspector);
		good = false;
	}
	inspector_finish(&inspector);
	crew_finish(&crew);
	return good;
}

int attend_main(int argc, char **argv)
{
	struct inspector inspector = {.crew = NULL};
	struct crew crew;
	bool good;

	if (argc < 5 || (argc > 5 && !look(argv[2], argv[3], argv[5])))
		return EXIT_FAILURE;
	crew_start(&crew, argv[3], argv[2], strtoull(argv[4], NULL, 0), CREW_TRAINERS | CREW_READERS);
	good = crew_begins(&crew, CALL_MAX_MS) && inspector_init(&inspector, &crew, argv[2]) == 0;
	answer(good ? NULL : "the load does not begin", &inspector);
	good = good && attend(&inspector, &crew);
	good = good && crew_stop(&crew, CALL_MAX_MS);
	if (good)
		answer(NULL, &inspector);
	inspector_finish(&inspector);
	crew_finish(&crew);
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
