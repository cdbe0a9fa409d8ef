/*
 * Names that sort by their steps, and going through a directory for them. See kept_files.h.
 */
#include "client/emactl/kept_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char SUFFIX[] = ".safetensors";
enum { STEP_DIGITS = 20 };

/* "run42%net.ema." */
static size_t prefix_write(const char *model, const char *profile, char name[KEPT_NAME_BYTES])
{
	const int bytes = snprintf(name, KEPT_NAME_BYTES, "%.*s.%.*s.", MODEL_NAME_BYTES_MAX, model,
	                           PROFILE_NAME_BYTES_MAX, profile);

	for (char *at = name; *at; at++) {
		if (*at == '/')
			*at = '%';
	}
	return (size_t)bytes;
}

void kept_files_name(const char *model, const char *profile, const uint64_t *step, char name[KEPT_NAME_BYTES])
{
	const size_t bytes = prefix_write(model, profile, name);

	if (step)
		snprintf(name + bytes, KEPT_NAME_BYTES - bytes, "%0*" PRIu64 "%s", STEP_DIGITS, *step, SUFFIX);
	else
		snprintf(name + bytes, KEPT_NAME_BYTES - bytes, "next%s", SUFFIX);
}

static bool name_fits(const char *name, const char *prefix, size_t prefix_bytes)
{
	return strncmp(name, prefix, prefix_bytes) == 0 &&
	       strspn(name + prefix_bytes, "0123456789") == STEP_DIGITS &&
	       strcmp(name + prefix_bytes + STEP_DIGITS, SUFFIX) == 0;
}

int kept_files_trim(const char *directory, const char *model, const char *profile, uint64_t count, const char *kept,
                    struct reason *reason)
{
	char prefix[KEPT_NAME_BYTES], path[4096];
	const size_t prefix_bytes = prefix_write(model, profile, prefix);
	struct dirent **entries;
	int entry_count, code = 0;
	uint64_t left = 0;

	entry_count = scandir(directory, &entries, NULL, alphasort);
	if (entry_count < 0)
		return reason_set(reason, -errno, "cannot look through %s: %s", directory, status_text(-errno));
	for (int i = 0; i < entry_count; i++)
		left += name_fits(entries[i]->d_name, prefix, prefix_bytes);
	for (int i = 0; i < entry_count; i++) {
		if (left > count && name_fits(entries[i]->d_name, prefix, prefix_bytes) &&
		    strcmp(entries[i]->d_name, kept) != 0 && !code) {
			left--;
			snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
			if (unlink(path) < 0 && errno != ENOENT)
				code = reason_set(reason, -errno, "cannot remove %s: %s", path, status_text(-errno));
		}
		free(entries[i]);
	}
	free(entries);
	return code;
}
