/*
 * The table of keys, and the reading and writing of values. See config.h.
 */
#include "daemon/core/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/network.h"
#include "proto/generation.h"
#include "proto/limits.h"

#define AT(member) offsetof(struct config, member)
#define DEFAULT_AT(member) offsetof(struct defaults, member)
#define DAY_MS (UINT64_C(24) * 3600 * 1000)
#define MEBI (UINT64_C(1) << 20)
#define GIBI (UINT64_C(1) << 30)
#define TEBI (UINT64_C(1) << 40)

static const char *const LEVELS[] = { "error", "warning", "notice", "debug", NULL }; /* as enum event_severity */
static const char *const ANONYMOUS[] = { "none", "read", "push", NULL }; /* as enum access */
static const char *const POLICIES[] = { "block", "coalesce", NULL };

const struct config_key config_keys[] = {
	{ "daemon", "runtime-dir", CONFIG_PATH, AT(runtime_dir), "/run/emad", 0, 0, NULL, false,
	  "Where the sockets are. systemd's RuntimeDirectory= comes before the default." },
	{ "daemon", "state-dir", CONFIG_PATH, AT(state_dir), "", 0, 0, NULL, false,
	  "Where averages are kept on disk (snapshot= of a profile); empty: nowhere. systemd's StateDirectory= comes before the "
	  "default." },
	{ "daemon", "segments-dir", CONFIG_PATH, AT(segments_dir), "", 0, 0, NULL, false,
	  "Where shared memory lies as files, to outlive the daemon without systemd: a directory of its own on a tmpfs, such as "
	  "/dev/shm/emad; empty: in memory that systemd keeps over a restart. With it trainers must run as the daemon's user." },
	{ "daemon", "workers", CONFIG_COUNT, AT(worker_count), "0", 0, 256, NULL, false,
	  "Threads that average; 0: a quarter of the processors, 1 to 8." },
	{ "daemon", "log-level", CONFIG_WORD, AT(log_level), "notice", 0, 3, LEVELS, true,
	  "What is less urgent is not logged." },
	{ "daemon", "stop-timeout", CONFIG_DURATION_MS, AT(stop_timeout_ms), "20s", 0, DAY_MS, NULL, true,
	  "How long an orderly end may take to apply what was accepted." },
	{ "limits", "memory-max", CONFIG_MEMORY, AT(memory_bytes_max), "80%", MEBI, 1024 * TEBI, NULL, true,
	  "Shared memory of all models together; a percentage is of the host's memory, or of what control groups leave of "
	  "it (MemoryMax=). When it is lowered below what is in use, models stay and new ones are refused." },
	{ "limits", "memory-max-per-user", CONFIG_PART, AT(owner_memory_bytes_max), "0", 0, 1024 * TEBI, NULL, true,
	  "Shared memory of all models that one user's registrations have made; a percentage is of memory-max; 0: no such limit. "
	  "Nobody is exempt. Those whose user is not known (tcp) are one user together." },
	{ "limits", "models-max", CONFIG_COUNT, AT(model_count_max), "256", 1, 65536, NULL, true, "Models at once." },
	{ "limits", "models-max-per-user", CONFIG_COUNT, AT(owner_model_count_max), "0", 0, 65536, NULL, true,
	  "Models of one user at once; 0: no such limit." },
	{ "limits", "segments-max", CONFIG_COUNT, AT(segment_count_max), "4096", 4, 1000000, NULL, true,
	  "Segments of shared memory of all models together: a model has one, one for each slot and one for each rank. Each takes "
	  "two open files, and a place in systemd's store (FileDescriptorStoreMax=), which must be as large." },
	{ "limits", "connections-max", CONFIG_COUNT, AT(connection_count_max), "1024", 1, 65535, NULL, true,
	  "Connections at once, for each of the two sockets. Those that are there stay when it is lowered." },
	{ "limits", "waiting-max", CONFIG_COUNT, AT(waiting_count_max), "4096", 1, 1000000, NULL, true,
	  "Requests that wait for something at once." },
	{ "limits", "waiting-memory-max", CONFIG_BYTES, AT(waiting_bytes_max), "256M", MEBI, TEBI, NULL, true,
	  "Memory of all requests that wait, together." },
	{ "limits", "body-max", CONFIG_BYTES, AT(body_bytes_max), "64M", MEBI, MESSAGE_BODY_BYTES_MAX, NULL, true,
	  "Largest message body; what is larger closes the connection. Manifests of many tensors and ranks are the large ones. "
	  "Open connections keep the limit that they were told." },
	{ "limits", "receiving-max", CONFIG_BYTES, AT(receiving_bytes_max), "128M", MESSAGE_BODY_BYTES_MAX, TEBI, NULL, true,
	  "Message bodies of more than 256K being received, all connections together; others wait for their turn." },
	{ "limits", "reply-max", CONFIG_BYTES, AT(reply_bytes_max), "1M", 65536, GIBI, NULL, true,
	  "Replies that a connection has not taken; beyond that nothing more is read from it." },
	{ "limits", "replies-max", CONFIG_BYTES, AT(replies_bytes_max), "256M", MEBI, TEBI, NULL, true,
	  "Replies that have not been taken, all connections together; beyond that large ones are refused." },
	{ "limits", "slots", CONFIG_COUNT, AT(slot_count), "3", 2, SLOT_COUNT_MAX, NULL, true,
	  "Versions of a model in memory: one is written, one is current, the others can be pinned by readers. For models that "
	  "are registered from then on." },
	{ "limits", "stages", CONFIG_COUNT, AT(stage_count), "2", 1, STAGE_COUNT_MAX, NULL, true,
	  "Snapshots of a trainer in memory: how far it can run ahead of the averaging. For models that are registered from "
	  "then on." },
	{ "limits", "lease-min", CONFIG_DURATION_MS, AT(lease_min_ms), "30s", 0, 365 * DAY_MS, NULL, true,
	  "How long a reader may hold back updates when all slots are in use." },
	{ "limits", "wait-max", CONFIG_DURATION_MS, AT(wait_max_ms), "1h", 1, 365 * DAY_MS, NULL, true,
	  "Longest wait that a request may ask for." },
	{ "limits", "handshake-timeout", CONFIG_DURATION_MS, AT(handshake_timeout_ms), "10s", 1, DAY_MS, NULL, true,
	  "A connection must have said what it is after this long." },
	{ "limits", "message-timeout", CONFIG_DURATION_MS, AT(message_timeout_ms), "30s", 1, DAY_MS, NULL, true,
	  "A message must be whole, and a reply taken, after this long." },
	{ "checkpoint", "checkpoint-interval", CONFIG_DURATION_MS, AT(checkpoint_interval_ms), "10min", 0, 365 * DAY_MS, NULL,
	  true, "From one checkpoint of a model to the next, where its average has moved; 0: not by time." },
	{ "checkpoint", "checkpoint-updates", CONFIG_COUNT, AT(checkpoint_updates), "0", 0, INT64_MAX, NULL, true,
	  "Updates from one checkpoint of a model to the next; 0: not by updates." },
	{ "checkpoint", "checkpoint-keep", CONFIG_COUNT, AT(checkpoint_keep_count), "2", GENERATION_COUNT_MIN, 1000000, NULL,
	  true, "Checkpoints of a model on disk; older ones go. One whose directory holds a file `keep` stays, and does not "
	  "count." },
	{ "checkpoint", "checkpoint-keep-steps", CONFIG_COUNT, AT(checkpoint_keep_steps), "0", 0, INT64_MAX, NULL, true,
	  "The first checkpoint at or after each multiple of so many steps stays on disk besides, for good; 0: none does." },
	{ "checkpoint", "checkpoint-bandwidth", CONFIG_BYTES, AT(checkpoint_bytes_per_s), "0", 0, TEBI, NULL, true,
	  "Bytes a second that checkpoints and averages kept with snapshot= may take of the disk, such as 200M; 0: no limit. "
	  "When the daemon ends there is none." },
	{ "http", "http-listen", CONFIG_ADDRESSES, AT(http_listen), "", 0, 0, NULL, false,
	  "Where metrics, a page to look at and the averages can be had by HTTP, as 127.0.0.1:9464 or [::1]:9464; port 0: any, "
	  "and the log says which. Empty: nowhere, because on a port, unlike on the sockets, nobody's user is known: without "
	  "http-token-file= every process that reaches it may read." },
	{ "http", "http-token-file", CONFIG_PATH, AT(http_token_file), "", 0, 0, NULL, true,
	  "A file whose first line every HTTP request must bear as its token, but for /healthz and /readyz. A credential "
	  "http.token that systemd hands over comes before the default. A reload reads the file again." },
	{ "http", "http-connections-max", CONFIG_COUNT, AT(http_connection_count_max), "64", 1, 4096, NULL, false,
	  "HTTP connections at once, for each address; more wait to be accepted. Each takes 256K of memory while it downloads." },
	{ "http", "http-timeout", CONFIG_DURATION_MS, AT(http_timeout_ms), "30s", 1000, DAY_MS, NULL, false,
	  "An HTTP connection on which nothing moves, and one without a whole request for twice as long, is closed. Whole "
	  "seconds." },
	{ "access", "socket-mode", CONFIG_MODE, AT(socket_mode), "0660", 0, 0777, NULL, false,
	  "Permissions of the sockets: who may connect at all." },
	{ "access", "read-users", CONFIG_USERS, AT(access.users[ACCESS_READ]), "", 0, 0, NULL, true,
	  "Who may read averages and ask for facts, besides those who may push. While this and read-groups are empty, everybody "
	  "who may connect." },
	{ "access", "read-groups", CONFIG_GROUPS, AT(access.groups[ACCESS_READ]), "", 0, 0, NULL, true,
	  "Groups that may read." },
	{ "access", "push-users", CONFIG_USERS, AT(access.users[ACCESS_PUSH]), "", 0, 0, NULL, true,
	  "Who may register models and push into them, besides those who may administer. While this and push-groups are empty, "
	  "everybody who may connect." },
	{ "access", "push-groups", CONFIG_GROUPS, AT(access.groups[ACCESS_PUSH]), "", 0, 0, NULL, true,
	  "Groups that may push." },
	{ "access", "admin-users", CONFIG_USERS, AT(access.users[ACCESS_ADMIN]), "", 0, 0, NULL, true,
	  "Who may remove models, change profiles, take averages back and mark checkpoints, besides the daemon's own user and root, "
	  "who may do everything." },
	{ "access", "admin-groups", CONFIG_GROUPS, AT(access.groups[ACCESS_ADMIN]), "", 0, 0, NULL, true,
	  "Groups that may administer." },
	{ "network", "listen", CONFIG_URLS, AT(listen), "", 0, 0, NULL, false,
	  "Where trainers and readers on other hosts are served, besides the sockets: addresses such as tcp://10.0.0.5:7474, divided "
	  "by blanks. Without a token-file= only those of this host: 127.0.0.1, [::1]." },
	{ "network", "tls-certificate", CONFIG_FILE, AT(tls_certificate), "", 0, 0, NULL, true,
	  "For tls+tcp:// addresses: the daemon's certificate, and those between it and its authority, in PEM format. This, the "
	  "next two and token-file= are paths, or names of systemd credentials (LoadCredential=); the files are read again on "
	  "SIGHUP." },
	{ "network", "tls-key", CONFIG_FILE, AT(tls_key), "", 0, 0, NULL, true, "Its private key. Not readable by everybody." },
	{ "network", "tls-ca", CONFIG_FILE, AT(tls_ca), "", 0, 0, NULL, true,
	  "Authorities that clients' certificates must be from; empty: clients need none." },
	{ "network", "token-file", CONFIG_FILE, AT(token_file), "", 0, 0, NULL, true,
	  "Who remote clients are: lines of NAME TOKEN CLASS, the class read, push or admin. Not readable by everybody." },
	{ "network", "anonymous", CONFIG_WORD, AT(anonymous), "none", 0, 2, ANONYMOUS, true,
	  "What whoever connects to these addresses without a token may do." },
	{ "network", "keepalive", CONFIG_DURATION_MS, AT(keepalive_ms), "5min", 1000, DAY_MS, NULL, true,
	  "A remote peer that says nothing for so long is disconnected; once it is, its stages and leases are kept for as long again." },
	{ "model", "profiles", CONFIG_PROFILES, DEFAULT_AT(profiles), "", 0, 0, NULL, true,
	  "For a registration that names no profiles: specifications, divided by blanks. A further one may stand in a line of its "
	  "own that begins with a blank." },
	{ "model", "guards", CONFIG_GUARDS, DEFAULT_AT(guards), "", 0, 0, NULL, true,
	  "What a snapshot must satisfy, as nonfinite=refuse,loss_max=10,norm_jump=5." },
	{ "model", "policy", CONFIG_WORD, DEFAULT_AT(coalesces), "block", 0, 1, POLICIES, true,
	  "When the daemon lags: a trainer waits for it, or a snapshot gives way to the next." },
	{ "model", "stride", CONFIG_COUNT, DEFAULT_AT(stride), "1", 1, INT64_MAX, NULL, true,
	  "Steps from one call of the schedules to the next." },
	{ "model", "slots", CONFIG_COUNT, DEFAULT_AT(slot_count), NULL, 2, SLOT_COUNT_MAX, NULL, true,
	  "Instead of slots= in [limits]." },
	{ "model", "stages", CONFIG_COUNT, DEFAULT_AT(stage_count), NULL, 1, STAGE_COUNT_MAX, NULL, true,
	  "Instead of stages= in [limits]." },
	{ "model", "checkpoint-keep", CONFIG_COUNT, DEFAULT_AT(checkpoint_keep_count), NULL, GENERATION_COUNT_MIN, 1000000, NULL,
	  true, "Instead of checkpoint-keep= in [checkpoint]." },
	{ "model", "checkpoint-keep-steps", CONFIG_COUNT, DEFAULT_AT(checkpoint_keep_steps), NULL, 1, INT64_MAX, NULL, true,
	  "Instead of checkpoint-keep-steps= in [checkpoint]." },
};

enum { KEY_COUNT = sizeof config_keys / sizeof config_keys[0] };

_Static_assert((int)KEY_COUNT <= (int)CONFIG_KEY_COUNT_MAX, "every key has a place for its origin");
const int config_key_count = KEY_COUNT;

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit byte_units[] = {
	{ "T", TEBI }, { "G", GIBI }, { "M", MEBI }, { "K", UINT64_C(1) << 10 }, { "", 1 }, { "B", 1 }, { NULL, 0 },
};
static const struct unit duration_units[] = {
	{ "d", DAY_MS }, { "h", 3600000 }, { "min", 60000 }, { "s", 1000 }, { "ms", 1 }, { "", 1000 }, { NULL, 0 },
};
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

bool config_is_list(const struct config_key *key)
{
	return key->kind == CONFIG_PROFILES || key->kind == CONFIG_USERS || key->kind == CONFIG_GROUPS ||
	       key->kind == CONFIG_ADDRESSES || key->kind == CONFIG_URLS;
}

bool config_is_default(const struct config_key *key)
{
	return strcmp(key->section, "model") == 0;
}

int config_find(const char *section, const char *name)
{
	for (int i = 0; i < KEY_COUNT; i++)
		if (strcmp(config_keys[i].section, section) == 0 && strcmp(config_keys[i].name, name) == 0)
			return i;
	return -1;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const struct unit *units_of(enum config_kind kind)
{
	if (kind == CONFIG_BYTES || kind == CONFIG_MEMORY || kind == CONFIG_PART)
		return byte_units;
	return kind == CONFIG_DURATION_MS ? duration_units : no_units;
}

static const char *wanted(const struct config_key *key)
{
	switch (key->kind) {
	case CONFIG_PATH:
		return "an absolute path of at most 255 bytes, without control characters and ' ;',";
	case CONFIG_COUNT:
		return "a whole number";
	case CONFIG_BYTES:
		return "a size such as 512M or 8G";
	case CONFIG_MEMORY:
		return "a size such as 512M or 8G, or a part of the memory such as 50%,";
	case CONFIG_PART:
		return "a size such as 512M or 8G, or a part of memory-max such as 25%,";
	case CONFIG_DURATION_MS:
		return "a time such as 500ms, 10s, 5min or 1h";
	case CONFIG_MODE:
		return "permissions in octal such as 0660";
	case CONFIG_ADDRESSES:
	case CONFIG_WORD:
	case CONFIG_USERS:
	case CONFIG_GROUPS:
	case CONFIG_PROFILES:
	case CONFIG_GUARDS:
	case CONFIG_URLS:
	case CONFIG_FILE:
		break;
	}
	return "";
}

/* "512M" with the units of the kind. */
static int number_parse(const struct config_key *key, const char *text, const struct config_host *host,
                        uint64_t *ret_number)
{
	uint64_t number;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, key->kind == CONFIG_MODE ? 8 : 10);
	if (errno)
		return -ERANGE;
	while (*end == ' ')
		end++;
	if (key->kind == CONFIG_MEMORY && strcmp(end, "%") == 0) {
		if (number > 100)
			return -ERANGE;
		/* Whole mebibytes, so that they can be read. */
		*ret_number = (uint64_t)((double)host->memory_bytes / 100 * (double)number) / MEBI * MEBI;
		return 0;
	}
	if (key->kind == CONFIG_PART && strcmp(end, "%") == 0) {
		*ret_number = CONFIG_PERCENT | number;
		return number < 1 || number > 100 ? -ERANGE : 0;
	}
	for (const struct unit *unit = units_of(key->kind); unit->name; unit++) {
		if (strcmp(unit->name, end) != 0)
			continue;
		return __builtin_mul_overflow(number, unit->factor, ret_number) ? -ERANGE : 0;
	}
	return -EINVAL;
}

static int number_set(const struct config_key *key, uint64_t *number, const char *text, const struct config_host *host,
                      struct reason *reason)
{
	char least[40], most[40];
	uint64_t value = 0;
	int error = number_parse(key, text, host, &value);

	if (error == -EINVAL)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s: %s is wanted", key->name, text, wanted(key));
	if (!error && key->kind == CONFIG_PART && value & CONFIG_PERCENT) {
		*number = value;
		return 0;
	}
	if (error || value < key->minimum || value > key->maximum) {
		config_format_number(key, key->minimum, least, sizeof least);
		config_format_number(key, key->maximum, most, sizeof most);
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s is outside %s to %s", key->name, text, least, most);
	}
	*number = value;
	return 0;
}

static int word_set(const struct config_key *key, uint64_t *index, const char *text, struct reason *reason)
{
	char known[80] = "";

	for (uint64_t i = 0; key->words[i]; i++) {
		size_t used = strlen(known);

		if (strcmp(text, key->words[i]) == 0) {
			*index = i;
			return 0;
		}
		snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : key->words[i + 1] ? ", " : " or ",
		         key->words[i]);
	}
	return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s: %s is wanted", key->name, text, known);
}

static int path_set(const struct config_key *key, char *path, const char *text, struct reason *reason)
{
	bool is_plain = text[0] == '/' && !strstr(text, " ;");

	/* Without a default it can be left empty. */
	if (text[0] == '\0' && key->fallback[0] == '\0') {
		path[0] = '\0';
		return 0;
	}
	for (const char *at = text; *at; at++)
		is_plain = is_plain && !iscntrl((unsigned char)*at);
	if (is_plain && strlen(text) >= CONFIG_PATH_BYTES_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s...: the path has %zu bytes, and at most %d are allowed",
		                  key->name, text, strlen(text), CONFIG_PATH_BYTES_MAX - 1);
	if (!is_plain)
		return reason_set(reason, STATUS_EARGUMENT, "%s=%.60s: %s is wanted", key->name, text, wanted(key));
	strcpy(path, text);
	return 0;
}

/* A path, or a plain name, which is looked for among systemd's credentials. */
static int file_set(const struct config_key *key, char *path, const char *text, struct reason *reason)
{
	bool is_name = text[0] != '\0' && !strchr(text, '/') && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
	char below[CONFIG_PATH_BYTES_MAX + 1];
	int error;

	if (!is_name || strlen(text) >= CONFIG_PATH_BYTES_MAX - 1)
		return path_set(key, path, text, reason);
	snprintf(below, sizeof below, "/%s", text);
	error = path_set(key, path, below, reason);
	if (!error)
		strcpy(path, text);
	return error;
}

/* Words divided by blanks (or what else `between` has), put behind those that are there with one blank between. */
static int words_join(const struct config_key *key, const char *before, const char *text, const char *between,
                      char *joined, size_t capacity, struct reason *reason)
{
	size_t used = strlen(before);

	strcpy(joined, before);
	for (text += strspn(text, between); *text; text += strspn(text, between)) {
		size_t count = strcspn(text, between), blank = used > 0;

		if (used + blank + count >= capacity)
			return reason_set(reason, STATUS_EARGUMENT, "%s: the list has more than %zu bytes", key->name,
			                  capacity - 1);
		if (blank)
			joined[used++] = ' ';
		memcpy(joined + used, text, count);
		used += count;
		joined[used] = '\0';
		text += count;
	}
	return 0;
}

static int account_find(const struct config_key *key, const char *name, const struct config_host *host,
                        uint32_t *ret_id, struct reason *reason)
{
	bool is_user = key->kind == CONFIG_USERS;
	char *end;
	uint64_t number = isdigit((unsigned char)name[0]) ? strtoull(name, &end, 10) : 0;

	if (isdigit((unsigned char)name[0]) && *end == '\0') {
		/* The last number means nobody to the kernel. */
		if (number >= UINT32_MAX)
			return reason_set(reason, STATUS_EARGUMENT, "%s: %.60s is outside 0 to %" PRIu32, key->name, name,
			                  UINT32_MAX - 1);
		*ret_id = (uint32_t)number;
		return 0;
	}
	if ((is_user ? host->user : host->group)(name, ret_id) != 0)
		return reason_set(reason, STATUS_EARGUMENT, "%s: there is no %s '%.60s' on this host", key->name,
		                  is_user ? "user" : "group", name);
	return 0;
}

static int accounts_set(const struct config_key *key, struct access_list *list, const char *text, bool continues,
                        const struct config_host *host, struct reason *reason)
{
	struct access_list found = { .count = 0 };
	char names[ACCESS_TEXT_BYTES_MAX + 1], *rest = names, *name;
	int error = words_join(key, continues ? list->text : "", text, " \t,", names, sizeof names, reason);

	if (error)
		return error;
	strcpy(found.text, names);
	while ((name = strsep(&rest, " ")) && *name) {
		if (found.count == ACCESS_IDS_MAX)
			return reason_set(reason, STATUS_EARGUMENT, "%s has more than %d names: use a group", key->name,
			                  ACCESS_IDS_MAX);
		error = account_find(key, name, host, &found.ids[found.count], reason);
		if (error)
			return error;
		found.count++;
	}
	*list = found;
	return 0;
}

static int checked_set(const struct config_key *key, char *target, const char *text, size_t capacity,
                       int (*check)(const char *, struct reason *), struct reason *reason)
{
	struct reason detail = { "" };

	if (strlen(text) >= capacity)
		return reason_set(reason, STATUS_EARGUMENT, "%s has %zu bytes, and at most %zu are allowed", key->name,
		                  strlen(text), capacity - 1);
	if (check(text, &detail) != 0)
		return reason_set(reason, STATUS_EARGUMENT, "%s: %.420s", key->name, detail.text);
	strcpy(target, text);
	return 0;
}

int config_set(void *values, int index, const char *text, bool continues, const struct config_host *host,
               struct reason *reason)
{
	const struct config_key *key = &config_keys[index];
	char joined[DEFAULTS_PROFILES_BYTES_MAX + 1];
	void *place = (char *)values + key->offset;
	int error;

	if (continues && !config_is_list(key))
		return reason_set(reason, STATUS_EARGUMENT,
		                  "a line that begins with a blank goes on with the key before it, and %s is not a list", key->name);
	switch (key->kind) {
	case CONFIG_PATH:
		return path_set(key, place, text, reason);
	case CONFIG_WORD:
		return word_set(key, place, text, reason);
	case CONFIG_USERS:
	case CONFIG_GROUPS:
		return accounts_set(key, place, text, continues, host, reason);
	case CONFIG_PROFILES:
		error = words_join(key, continues ? place : "", text, " \t", joined, sizeof joined, reason);
		return error ? error
		             : checked_set(key, place, joined, sizeof joined, defaults_profiles_check, reason);
	case CONFIG_URLS:
		error = words_join(key, continues ? place : "", text, " \t,", joined, CONFIG_URLS_BYTES_MAX + 1, reason);
		return error ? error : checked_set(key, place, joined, CONFIG_URLS_BYTES_MAX + 1, network_urls_check, reason);
	case CONFIG_FILE:
		return file_set(key, place, text, reason);
	case CONFIG_GUARDS:
		return checked_set(key, place, text, DEFAULTS_GUARDS_BYTES_MAX + 1, defaults_guards_check, reason);
	case CONFIG_ADDRESSES:
		error = words_join(key, continues ? place : "", text, " \t,", joined, ADDRESS_TEXT_BYTES_MAX + 1, reason);
		return error ? error
		             : checked_set(key, place, joined, ADDRESS_TEXT_BYTES_MAX + 1, address_list_check, reason);
	case CONFIG_COUNT:
	case CONFIG_BYTES:
	case CONFIG_MEMORY:
	case CONFIG_PART:
	case CONFIG_DURATION_MS:
	case CONFIG_MODE:
		break;
	}
	return number_set(key, place, text, host, reason);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

void config_format_number(const struct config_key *key, uint64_t value, char *text, size_t capacity)
{
	const struct unit *unit = units_of(key->kind);

	if (key->kind == CONFIG_MODE) {
		snprintf(text, capacity, "%04" PRIo64, value);
		return;
	}
	if (key->kind == CONFIG_PART && value & CONFIG_PERCENT) {
		snprintf(text, capacity, "%" PRIu64 "%%", value & ~CONFIG_PERCENT);
		return;
	}
	while (unit->factor > 1 && (value == 0 || value % unit->factor != 0))
		unit++;
	snprintf(text, capacity, "%" PRIu64 "%s", value / unit->factor, unit->name);
}

bool config_format(const struct config_key *key, const void *values, char *text, size_t capacity)
{
	const void *place = (const char *)values + key->offset;
	uint64_t number = 0;

	switch (key->kind) {
	case CONFIG_PATH:
	case CONFIG_PROFILES:
	case CONFIG_GUARDS:
	case CONFIG_URLS:
	case CONFIG_FILE:
	case CONFIG_ADDRESSES:
		snprintf(text, capacity, "%s", (const char *)place);
		return true;
	case CONFIG_USERS:
	case CONFIG_GROUPS:
		snprintf(text, capacity, "%s", ((const struct access_list *)place)->text);
		return true;
	case CONFIG_WORD:
		snprintf(text, capacity, "%s", key->words[*(const uint64_t *)place]);
		return true;
	case CONFIG_COUNT:
	case CONFIG_BYTES:
	case CONFIG_MEMORY:
	case CONFIG_PART:
	case CONFIG_DURATION_MS:
	case CONFIG_MODE:
		number = *(const uint64_t *)place;
		break;
	}
	config_format_number(key, number, text, capacity);
	return number != 0 || key->fallback;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void values_init(void *values, bool defaults, const struct config_host *host)
{
	for (int i = 0; i < KEY_COUNT; i++)
		if (config_is_default(&config_keys[i]) == defaults && config_keys[i].fallback)
			(void)config_set(values, i, config_keys[i].fallback, false, host, NULL);
}

void config_init(struct config *config, const struct config_host *host)
{
	memset(config, 0, sizeof *config);
	values_init(config, false, host);
}

struct defaults *config_section(struct config *config, const char *pattern)
{
	struct defaults *defaults = config->defaults;

	for (uint32_t i = 0; i < config->default_count; i++, defaults++)
		if (strcmp(defaults->pattern, pattern) == 0)
			return defaults;
	if (config->default_count == DEFAULTS_COUNT_MAX || strlen(pattern) > DEFAULTS_PATTERN_BYTES_MAX)
		return NULL;
	config->default_count++;
	values_init(defaults, true, NULL);
	strcpy(defaults->pattern, pattern);
	return defaults;
}

void config_resolve(struct config *config, const struct config_host *host)
{
	uint64_t count = host->processor_count / 4;

	if (config->worker_count == 0)
		config->worker_count = count < 1 ? 1 : count > 8 ? 8 : count;
}

bool config_differs(const struct config_key *key, const struct config *a, const struct config *b)
{
	const char *at = (const char *)a + key->offset, *other = (const char *)b + key->offset;

	switch (key->kind) {
	case CONFIG_PATH:
	case CONFIG_URLS:
	case CONFIG_FILE:
	case CONFIG_ADDRESSES:
		return strcmp(at, other) != 0;
	case CONFIG_USERS:
	case CONFIG_GROUPS:
		return memcmp(at, other, sizeof(struct access_list)) != 0;
	case CONFIG_WORD:
	case CONFIG_COUNT:
	case CONFIG_BYTES:
	case CONFIG_MEMORY:
	case CONFIG_PART:
	case CONFIG_DURATION_MS:
	case CONFIG_MODE:
		return memcmp(at, other, sizeof(uint64_t)) != 0;
	case CONFIG_PROFILES:
	case CONFIG_GUARDS:
		break;
	}
	return false;
}

void config_keep(struct config *a, const struct config *b)
{
	for (int i = 0; i < KEY_COUNT; i++) {
		const struct config_key *key = &config_keys[i];

		if (key->reloads)
			continue;
		if (key->kind == CONFIG_PATH || key->kind == CONFIG_URLS || key->kind == CONFIG_FILE ||
		    key->kind == CONFIG_ADDRESSES)
			strcpy((char *)a + key->offset, (const char *)b + key->offset);
		else
			memcpy((char *)a + key->offset, (const char *)b + key->offset, sizeof(uint64_t));
	}
}

/* Of memory-max as it is now. */
static uint64_t part_bytes(const struct config *config, uint64_t part)
{
	if (!(part & CONFIG_PERCENT))
		return part;
	return (uint64_t)((double)config->memory_bytes_max / 100 * (double)(part & ~CONFIG_PERCENT)) / MEBI * MEBI;
}

struct settings config_settings(const struct config *config)
{
	return (struct settings){
		.memory_bytes_max = config->memory_bytes_max,
		.model_count_max = config->model_count_max,
		.owner_memory_bytes_max = part_bytes(config, config->owner_memory_bytes_max),
		.owner_model_count_max = config->owner_model_count_max,
		.segment_count_max = config->segment_count_max,
		.slot_count = config->slot_count,
		.stage_count = config->stage_count,
		.lease_min_ms = config->lease_min_ms,
		.wait_max_ms = config->wait_max_ms,
		.parked_count_max = config->waiting_count_max,
		.parked_bytes_max = config->waiting_bytes_max,
		.body_bytes_max = config->body_bytes_max,
		.keepalive_ms = config->keepalive_ms,
		.defaults = config->defaults,
		.default_count = config->default_count,
		.checkpoint_interval_ms = config->checkpoint_interval_ms,
		.checkpoint_updates = config->checkpoint_updates,
		.checkpoint_keep_count = config->checkpoint_keep_count,
		.checkpoint_keep_steps = config->checkpoint_keep_steps,
	};
}
