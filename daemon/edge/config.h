/*
 * The configuration: an INI file in systemd's style, read with inih. One table (config.c) holds every key with its
 * section, kind, default, range and meaning.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "proto/status.h"

enum { CONFIG_PATH_BYTES_MAX = 256 };

struct config {
	char runtime_dir[CONFIG_PATH_BYTES_MAX];
	char state_dir[CONFIG_PATH_BYTES_MAX];
	uint64_t worker_count; /* 0: chosen by the number of processors */
	uint64_t memory_bytes_max; /* 0: chosen by the size of the host */
	uint64_t model_count_max;
	uint64_t connection_count_max;
	uint64_t waiting_count_max;
	uint64_t slot_count;
	uint64_t stage_count;
	uint64_t lease_min_ms;
	uint64_t wait_max_ms;
	uint64_t handshake_timeout_ms;
	uint64_t message_timeout_ms;
	uint64_t socket_mode;
};

/* The defaults; the directories from the environment's RUNTIME_DIRECTORY and STATE_DIRECTORY where systemd set them. */
void config_init(struct config *config);

/*
 * Reads a file over what is there. STATUS_EARGUMENT with a sentence that names file, line, key, reason, and the nearest
 * known key;
 * -errno when the file cannot be read. On failure the config is as it was.
 */
int config_read(struct config *config, const char *path, struct reason *reason);

/* Fills in what is to be chosen by the host: workers and memory. */
void config_resolve(struct config *config, uint64_t processor_count, uint64_t memory_bytes);

/* Every key with its default and meaning, for --help. */
void config_describe(FILE *file);
