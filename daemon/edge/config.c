/*
 * The table of keys, and reading. See config.h.
 */
#include "daemon/edge/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/nearest.h"

enum kind { KIND_PATH, KIND_COUNT, KIND_BYTES, KIND_DURATION_MS, KIND_MODE };

struct key {
	const char *section, *name;
	enum kind kind;
	size_t offset;
	const char *fallback; /* the default, as it would be written */
	uint64_t minimum, maximum;
	const char *text;
};

#define AT(member) offsetof(struct config, member)

static const struct key keys[] = {
	{ "daemon", "runtime-dir", KIND_PATH, AT(runtime_dir), "/run/emad", 0, 0, "where the sockets are" },
	{ "daemon", "state-dir", KIND_PATH, AT(state_dir), "", 0, 0,
	  "where averages are kept on disk (snapshot= of a profile); empty: nowhere" },
	{ "daemon", "workers", KIND_COUNT, AT(worker_count), "0", 0, 256,
	  "threads that average; 0: a quarter of the processors, 1 to 8" },
	{ "limits", "memory-max", KIND_BYTES, AT(memory_bytes_max), "0", 0, UINT64_MAX,
	  "shared memory of all models together; 0: four fifths of the host's" },
	{ "limits", "models-max", KIND_COUNT, AT(model_count_max), "256", 1, 65536, "models at once" },
	{ "limits", "connections-max", KIND_COUNT, AT(connection_count_max), "1024", 1, 65535,
	  "connections at once, for each socket" },
	{ "limits", "waiting-max", KIND_COUNT, AT(waiting_count_max), "4096", 1, 1000000,
	  "requests that wait for something at once" },
	{ "limits", "slots", KIND_COUNT, AT(slot_count), "3", 2, SLOT_COUNT_MAX,
	  "versions of a model in memory: one is written, one is current, the others can be pinned by readers" },
	{ "limits", "stages", KIND_COUNT, AT(stage_count), "2", 1, STAGE_COUNT_MAX,
	  "snapshots of a trainer in memory: how far it can run ahead of the averaging" },
	{ "limits", "lease-min", KIND_DURATION_MS, AT(lease_min_ms), "30s", 0, INT64_MAX,
	  "how long a reader may hold back updates when all slots are in use" },
	{ "limits", "wait-max", KIND_DURATION_MS, AT(wait_max_ms), "1h", 1, INT64_MAX,
	  "longest wait that a request may ask for" },
	{ "limits", "handshake-timeout", KIND_DURATION_MS, AT(handshake_timeout_ms), "10s", 1, INT32_MAX,
	  "a connection must have said what it is after this long" },
	{ "limits", "message-timeout", KIND_DURATION_MS, AT(message_timeout_ms), "30s", 1, INT32_MAX,
	  "a message must be whole, and a reply taken, after this long" },
	{ "access", "socket-mode", KIND_MODE, AT(socket_mode), "0660", 0, 0777, "permissions of the sockets" },
};

enum { KEY_COUNT = sizeof keys / sizeof keys[0] };

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit byte_units[] = {
	{ "", 1 }, { "B", 1 }, { "K", UINT64_C(1) << 10 }, { "M", UINT64_C(1) << 20 }, { "G", UINT64_C(1) << 30 },
	{ "T", UINT64_C(1) << 40 }, { NULL, 0 },
};
static const struct unit duration_units[] = {
	{ "ms", 1 }, { "", 1000 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { NULL, 0 },
};
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

/* "512M" with the units of the kind. */
static int number_parse(const char *text, const struct unit *units, uint64_t *ret_number)
{
	uint64_t number;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	while (*end == ' ')
		end++;
	for (; units->name; units++) {
		if (strcmp(units->name, end) != 0)
			continue;
		return __builtin_mul_overflow(number, units->factor, ret_number) ? -ERANGE : 0;
	}
	return -EINVAL;
}

static int value_set(struct config *config, const struct key *key, const char *text, struct reason *reason)
{
	uint64_t *number = (uint64_t *)((char *)config + key->offset);
	char *path = (char *)config + key->offset;
	const char *wants = "a whole number";
	uint64_t value = 0;
	int error = 0;
	char *end;

	switch (key->kind) {
	case KIND_PATH:
		/* Without a default it can be left empty. */
		if (text[0] == '\0' && key->fallback[0] == '\0') {
			path[0] = '\0';
			return 0;
		}
		if (text[0] != '/' || strlen(text) >= CONFIG_PATH_BYTES_MAX)
			return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s: an absolute path of at most %d bytes is "
			                  "wanted", key->name, text, CONFIG_PATH_BYTES_MAX - 1);
		strcpy(path, text);
		return 0;
	case KIND_COUNT:
		error = number_parse(text, no_units, &value);
		break;
	case KIND_BYTES:
		error = number_parse(text, byte_units, &value);
		wants = "a size such as 512M or 8G";
		break;
	case KIND_DURATION_MS:
		error = number_parse(text, duration_units, &value);
		wants = "a time such as 500ms, 10s, 5min or 1h";
		break;
	case KIND_MODE:
		value = strtoull(text, &end, 8);
		error = isdigit((unsigned char)text[0]) && *end == '\0' ? 0 : -EINVAL;
		wants = "permissions in octal such as 0660";
		break;
	}
	if (error == -EINVAL)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s: %s is wanted", key->name, text, wants);
	if (key->kind == KIND_MODE && value > key->maximum)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s is outside 0 to %04" PRIo64, key->name, text,
		                  key->maximum);
	if (error || value < key->minimum || value > key->maximum)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s is outside %" PRIu64 " to %" PRIu64, key->name, text,
		                  key->minimum, key->maximum);
	*number = value;
	return 0;
}

void config_init(struct config *config)
{
	const char *runtime = getenv("RUNTIME_DIRECTORY"), *state = getenv("STATE_DIRECTORY");

	memset(config, 0, sizeof *config);
	for (int i = 0; i < KEY_COUNT; i++)
		(void)value_set(config, &keys[i], keys[i].fallback, NULL);
	if (runtime && strlen(runtime) < sizeof config->runtime_dir)
		strcpy(config->runtime_dir, runtime);
	if (state && strlen(state) < sizeof config->state_dir)
		strcpy(config->state_dir, state);
}

/* A file being read. inih as Debian builds it does not tell its handler the line, so the reader counts them. */
struct reading {
	struct config config;
	const char *path;
	FILE *file;
	int line;
	struct reason *reason;
	int error;
	int error_line;
};

static void fault(struct reading *reading, const char *text)
{
	reading->error_line = reading->line;
	reading->error = reason_set(reading->reason, STATUS_EARGUMENT, "%s:%d: %s", reading->path, reading->line, text);
}

static bool is_comment(const char *text)
{
	if (strncmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	text += strspn(text, " \t");
	return *text == '#' || *text == ';';
}

/* Instead of fgets, which hides NUL bytes and makes two lines of a long one. A long comment does no harm. */
static char *on_line(char *text, int capacity, void *context)
{
	struct reading *reading = context;
	struct reason detail;
	size_t count = 0;
	int next = '\n';

	if (reading->error)
		return NULL;
	reading->line++;
	while ((next = getc(reading->file)) != EOF) {
		if (next == '\0') {
			fault(reading, "the line holds a NUL byte");
			return NULL;
		}
		if (count < (size_t)capacity - 1)
			text[count] = (char)next;
		count++;
		if (next == '\n')
			break;
	}
	if (count == 0)
		return NULL;
	text[count < (size_t)capacity ? count : (size_t)capacity - 1] = '\0';
	if (count < (size_t)capacity || is_comment(text))
		return text;
	reason_set(&detail, STATUS_ELIMIT, "the line has %zu bytes, and at most %d are allowed", count, capacity - 1);
	fault(reading, detail.text);
	return NULL;
}

static int on_key(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	const char *names[KEY_COUNT + 1] = { NULL }, *nearest;
	struct reason detail = { "" };
	int at = 0;

	if (reading->error)
		return 1;
	for (int i = 0; i < KEY_COUNT; i++) {
		names[i] = keys[i].name;
		if (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0)
			continue;
		if (value_set(&reading->config, &keys[i], value, &detail) != 0)
			fault(reading, detail.text);
		return 1;
	}
	nearest = nearest_name(name, names);
	while (names[at] != nearest)
		at++;
	reason_set(&detail, STATUS_EARGUMENT, "[%.40s] %.60s is not a key; the nearest is '%s' in [%s]", section, name,
	           nearest, keys[at].section);
	fault(reading, detail.text);
	return 1;
}

int config_read(struct config *config, const char *path, struct reason *reason)
{
	struct reading reading = { .config = *config, .path = path, .reason = reason, .file = fopen(path, "re") };
	int line, error;

	if (!reading.file)
		return reason_set(reason, -errno, "the configuration '%s' cannot be read: %s", path, strerror(errno));
	errno = 0;
	line = ini_parse_stream(on_line, &reading, on_key, &reading);
	error = ferror(reading.file) ? -errno : 0;
	fclose(reading.file);
	if (error)
		return reason_set(reason, error, "the configuration '%s' cannot be read: %s", path, strerror(-error));
	if (line != 0 && (!reading.error || line < reading.error_line))
		return reason_set(reason, STATUS_EARGUMENT, "%s:%d: neither [section] nor key=value", path, line);
	if (reading.error)
		return reading.error;
	*config = reading.config;
	return 0;
}

void config_resolve(struct config *config, uint64_t processor_count, uint64_t memory_bytes)
{
	if (config->worker_count == 0)
		config->worker_count = processor_count / 4 < 1 ? 1 : processor_count / 4 > 8 ? 8 : processor_count / 4;
	if (config->memory_bytes_max == 0)
		config->memory_bytes_max = memory_bytes / 5 * 4;
}

void config_describe(FILE *file)
{
	const char *section = "";

	for (int i = 0; i < KEY_COUNT; i++) {
		if (strcmp(section, keys[i].section) != 0)
			fprintf(file, "  [%s]\n", keys[i].section);
		section = keys[i].section;
		fprintf(file, "    %s=%s\n        %s\n", keys[i].name, keys[i].fallback, keys[i].text);
	}
}
