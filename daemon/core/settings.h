/*
 * Settings: the limits that an operator may set, as the core sees them. The configuration (config.h) fills them in.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/defaults.h"

struct settings {
	uint64_t memory_bytes_max;  /* of all segments together */
	uint64_t model_count_max;
	uint64_t owner_memory_bytes_max; /* of the models of one user; 0: no such limit, like the next */
	uint64_t owner_model_count_max;
	uint64_t segment_count_max; /* of all models together */
	uint64_t slot_count;        /* versions kept per model: 2..SLOT_COUNT_MAX */
	uint64_t stage_count;       /* snapshots in flight per rank: 1..STAGE_COUNT_MAX */
	uint64_t lease_min_ms;      /* how long a view may hold back updates */
	uint64_t wait_max_ms;       /* longest wait that a request may ask for */
	uint64_t parked_count_max;  /* requests that wait at once */
	uint64_t parked_bytes_max;  /* of all of them together */
	uint64_t body_bytes_max;    /* of a message, as told to clients */
	uint64_t keepalive_ms;      /* remote trainers and readers of whom nothing is heard for so long are given up */
	const struct tokens *tokens; /* borrowed like the defaults; NULL: none */
	const struct defaults *defaults; /* borrowed until the next service_reconfigure */
	uint32_t default_count;
	uint64_t checkpoint_interval_ms; /* from one checkpoint to the next; 0: not by time */
	uint64_t checkpoint_updates;     /* from one to the next; 0: not by updates */
	uint64_t checkpoint_keep_count;  /* generations kept */
	uint64_t checkpoint_keep_steps;  /* and besides the first at or after each multiple of so many steps; 0: none */
};
