/*
 * Any bytes as a file of settings: every fault has a sentence with file and line, and what has none can be printed, read
 * again, and is the same then.
 */
#include "daemon/core/config_text.h"
#include "daemon/edge/config_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* There are users and groups whose names begin with u. */
static int account_find(const char *name, uint32_t *ret_id)
{
	*ret_id = (uint32_t)strlen(name);
	return name[0] == 'u' ? 0 : -ENOENT;
}

static const struct config_host host = {
	.processor_count = 8,
	.memory_bytes = UINT64_C(16) << 30,
	.user = account_find,
	.group = account_find,
};

static void bytes_read(struct config *config, const void *bytes, size_t count, struct config_faults *faults)
{
	char path[32];
	int fd = memfd_create("config", MFD_CLOEXEC);

	require(fd >= 0 && write(fd, bytes, count) == (ssize_t)count && lseek(fd, 0, SEEK_SET) == 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	config_init(config, &host);
	config_file_read(config, path, &host, faults);
	close(fd);
}

/* Without the comments, which say where a value was set. */
static char *text_of_config(const struct config *config)
{
	char *text, *to;
	size_t bytes;
	FILE *file = open_memstream(&text, &bytes);

	require(file != NULL);
	config_text_effective(config, file);
	fclose(file);
	to = text;
	for (char *line = text, *next; *line; line = next) {
		next = line + strcspn(line, "\n") + 1;
		if (*line == '#')
			continue;
		memmove(to, line, (size_t)(next - line));
		to += next - line;
	}
	*to = '\0';
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config config;
	struct config_faults faults = {.count = 0};
	char *first, *second;

	bytes_read(&config, data, size, &faults);
	for (uint32_t i = 0; i < faults.count && i < CONFIG_FAULT_COUNT_MAX; i++)
		require(strncmp(faults.reasons[i].text, "/proc/self/fd/", 14) == 0 && strchr(faults.reasons[i].text, ' '));
	if (faults.count > 0)
		return 0;
	first = text_of_config(&config);
	bytes_read(&config, first, strlen(first), &faults);
	require(faults.count == 0);
	second = text_of_config(&config);
	require(strcmp(first, second) == 0);
	free(first);
	free(second);
	return 0;
}
