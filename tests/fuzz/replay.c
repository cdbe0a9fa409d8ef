/*
 * Runs a fuzz target over every file of the folders (or files) given as arguments: the corpora as a plain test, without
 * libFuzzer. A finding ends in an abort or a sanitizer's report; with REPLAY_VERBOSE set, the file's name stands before
 * it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each input lies in memory of its exact size, so that a sanitizer sees a read behind it. */
static int file_replay(const char *path, size_t *replayed_count)
{
	FILE *file = fopen(path, "rb");
	struct stat facts;
	uint8_t *data = NULL;
	size_t size = 0;
	int r = -1;

	if (!file || fstat(fileno(file), &facts) != 0)
		goto fail;
	size = (size_t)facts.st_size;
	data = malloc(size ? size : 1);
	if (!data || fread(data, 1, size, file) != size)
		goto fail;
	if (getenv("REPLAY_VERBOSE"))
		fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	++*replayed_count;
	r = 0;
fail:
	if (r != 0)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	free(data);
	if (file)
		fclose(file);
	return r;
}

static int path_replay(const char *path, size_t *replayed_count)
{
	struct dirent **entries = NULL;
	int entry_count = scandir(path, &entries, NULL, alphasort), r = 0;

	if (entry_count < 0)
		return errno == ENOTDIR ? file_replay(path, replayed_count) : (perror(path), -1);
	for (int i = 0; i < entry_count; i++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && file_replay(file, replayed_count) != 0)
			r = -1;
		free(entries[i]);
	}
	free(entries);
	return r;
}

int main(int argument_count, char **arguments)
{
	size_t replayed_count = 0;
	int r = 0;

	for (int i = 1; i < argument_count; i++) {
		if (path_replay(arguments[i], &replayed_count) != 0)
			r = -1;
	}
	printf("%zu inputs replayed\n", replayed_count);
	/* An empty corpus is a mistake in the call, not a success. */
	return r == 0 && replayed_count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
