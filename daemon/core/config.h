/*
 * The configuration: what an operator may set, as plain data, and the one table of keys that everything about it comes
 * from: the reading of files (edge/config_file.h), the command line (options.h), what is printed (config_text.h).
 *
 * Values are written as in systemd's files: 512M, 10s, 5min. Every value remembers where it was set.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/access.h"
#include "daemon/core/address.h"
#include "daemon/core/defaults.h"
#include "daemon/core/settings.h"
#include "proto/status.h"

enum {
	CONFIG_PATH_BYTES_MAX = 256,
	CONFIG_URLS_BYTES_MAX = 1023,
	CONFIG_FILE_COUNT_MAX = 64,
	CONFIG_KEY_COUNT_MAX = 64,
	CONFIG_VALUE_BYTES_MAX = DEFAULTS_PROFILES_BYTES_MAX, /* as written */
};

enum config_kind {
	CONFIG_PATH,
	CONFIG_COUNT,
	CONFIG_BYTES,
	CONFIG_MEMORY, /* bytes, or a part of the host's memory */
	CONFIG_PART,   /* bytes, or a part of memory-max, whatever that comes to be */
	CONFIG_DURATION_MS,
	CONFIG_MODE,
	CONFIG_WORD,
	CONFIG_USERS,
	CONFIG_GROUPS,
	CONFIG_PROFILES,
	CONFIG_GUARDS,
	CONFIG_URLS, /* addresses to listen at */
	CONFIG_FILE, /* a path, or the name of one of systemd's credentials */
	CONFIG_ADDRESSES,
};

/* In a value of CONFIG_PART. */
#define CONFIG_PERCENT (UINT64_C(1) << 63)

struct config_key {
	const char *section, *name;
	enum config_kind kind;
	size_t offset;        /* in struct config; of section "model": in struct defaults */
	const char *fallback; /* the default, as it would be written; NULL: nothing */
	uint64_t minimum, maximum;
	const char *const *words; /* of a CONFIG_WORD; the value is the index */
	bool reloads;             /* SIGHUP changes it */
	const char *text;
};

extern const struct config_key config_keys[];
extern const int config_key_count;

enum config_place { CONFIG_BY_DEFAULT, CONFIG_BY_ENVIRONMENT, CONFIG_BY_FILE, CONFIG_BY_COMMAND_LINE };

/* Where a value was set. */
struct config_origin {
	enum config_place place;
	uint32_t file; /* index in files */
	uint32_t line;
};

struct config {
	char runtime_dir[CONFIG_PATH_BYTES_MAX];
	char state_dir[CONFIG_PATH_BYTES_MAX];
	char segments_dir[CONFIG_PATH_BYTES_MAX];
	uint64_t worker_count;
	uint64_t log_level; /* an enum event_severity: what is less urgent is not logged */
	uint64_t stop_timeout_ms;
	uint64_t checkpoint_interval_ms;
	uint64_t checkpoint_updates;
	uint64_t checkpoint_keep_count;
	uint64_t checkpoint_keep_steps;
	uint64_t checkpoint_bytes_per_s;
	uint64_t memory_bytes_max;
	uint64_t model_count_max;
	uint64_t owner_memory_bytes_max; /* or a percentage: CONFIG_PERCENT and the number */
	uint64_t owner_model_count_max;
	uint64_t segment_count_max;
	uint64_t connection_count_max;
	uint64_t waiting_count_max;
	uint64_t waiting_bytes_max;
	uint64_t body_bytes_max;
	uint64_t receiving_bytes_max;
	uint64_t reply_bytes_max;
	uint64_t replies_bytes_max;
	uint64_t slot_count;
	uint64_t stage_count;
	uint64_t lease_min_ms;
	uint64_t wait_max_ms;
	uint64_t handshake_timeout_ms;
	uint64_t message_timeout_ms;
	uint64_t socket_mode;
	char http_listen[ADDRESS_TEXT_BYTES_MAX + 1];
	char http_token_file[CONFIG_PATH_BYTES_MAX];
	uint64_t http_connection_count_max;
	uint64_t http_timeout_ms;
	struct access_rules access;
	char listen[CONFIG_URLS_BYTES_MAX + 1]; /* urls, divided by one blank each */
	char tls_certificate[CONFIG_PATH_BYTES_MAX];
	char tls_key[CONFIG_PATH_BYTES_MAX];
	char tls_ca[CONFIG_PATH_BYTES_MAX];
	char token_file[CONFIG_PATH_BYTES_MAX];
	uint64_t anonymous;                     /* enum access: what remote peers that nobody knows may do */
	uint64_t keepalive_ms;
	uint32_t default_count;
	struct defaults defaults[DEFAULTS_COUNT_MAX];

	struct config_origin origins[CONFIG_KEY_COUNT_MAX]; /* by index of the key */
	struct config_origin default_origins[DEFAULTS_COUNT_MAX][CONFIG_KEY_COUNT_MAX];
	uint32_t file_count;
	char files[CONFIG_FILE_COUNT_MAX][CONFIG_PATH_BYTES_MAX]; /* that were read */
};

/* What values are read against. */
struct config_host {
	uint64_t processor_count;
	uint64_t memory_bytes;
	/* The number of a user or a group, -ENOENT where there is none. */
	int (*user)(const char *name, uint32_t *ret_uid);
	int (*group)(const char *name, uint32_t *ret_gid);
};

/* The defaults. */
void config_init(struct config *config, const struct config_host *host);

/* The index of a key, -1 where there is none. A section [model PATTERN] is "model" here. */
int config_find(const char *section, const char *name);

/*
 * Sets one value. values: the config, or the defaults of one section [model PATTERN]. continues: the text is a further
 * line of the value, which only lists may have. STATUS_EARGUMENT with a sentence that begins with the key: what is
 * wanted, or the range; the value stays as it was.
 */
int config_set(void *values, int key, const char *text, bool continues, const struct config_host *host,
               struct reason *reason);

/* The value as it would be written. False where nothing is set. */
bool config_format(const struct config_key *key, const void *values, char *text, size_t capacity);

/* The value of a number as it would be written: "512M", "10s", "0660". */
void config_format_number(const struct config_key *key, uint64_t value, char *text, size_t capacity);

/* The defaults of the section with that pattern, made where there are none yet; NULL: there are too many. */
struct defaults *config_section(struct config *config, const char *pattern);

/* Chooses what is left to the host: how many workers. */
void config_resolve(struct config *config, const struct config_host *host);

/* Whether a key outside of the sections [model PATTERN] has other values in the two. */
bool config_differs(const struct config_key *key, const struct config *a, const struct config *b);

/* The values of a, with those of the keys that a reload cannot change from b. */
void config_keep(struct config *a, const struct config *b);

/* What of it the core wants. The settings borrow from the config. */
struct settings config_settings(const struct config *config);

/* Whether a value may go on in further lines. */
bool config_is_list(const struct config_key *key);

/* Whether the key's section is [model PATTERN]. */
bool config_is_default(const struct config_key *key);
