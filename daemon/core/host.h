/*
 * What the core asks of the world outside: one table of functions, filled in by the composition root (daemon.c), or by
 * a test with memory from malloc and a clock of its own.
 *
 * No function of the table blocks, and none calls back into the core before it returns. What takes time comes back
 * later by service_memory_made, service_applied and service_file_written.
 */
#pragma once

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/apply.h"
#include "daemon/core/event.h"
#include "daemon/core/exchange.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "proto/status.h"

/* A segment of shared memory, mapped and zero at first. */
struct memory {
	uint8_t *base; /* NULL: none */
	uint64_t bytes;
	int fd;           /* read-write */
	int fd_read_only; /* -1 where nobody reads it */
};

/* Memory that the core wants. Owned by the core; lent to the host until service_memory_made. */
struct segment_order {
	uint64_t model; /* the model's id */
	uint64_t epoch; /* of the registration that a stage is for; 0: head and slots */
	bool relays;    /* slots of another geometry for a model that has some */
	uint32_t rank;
	uint32_t count;
	struct memory memory[SLOT_COUNT_MAX + 1]; /* bytes given by the core; the rest made by the host */
	char label[64];                           /* for /proc/PID/maps */
	int status;                               /* 0: all was made; else none was */
	struct reason reason;
	struct segment_order *next; /* the host's */
};

enum { FILE_DIRECTORY_BYTES_MAX = 32 + MODEL_NAME_BYTES_MAX + PROFILE_NAME_BYTES_MAX };

/* One file that the core wants on disk. */
struct file_item {
	char profile[PROFILE_NAME_BYTES_MAX + 1];
	char directory[FILE_DIRECTORY_BYTES_MAX]; /* below the state directory: "snapshots/run42/net/ema" */
	const uint8_t *bytes;                     /* pinned by the core until service_file_written */
	uint64_t byte_count;
	bool starts;         /* whatever the directory holds is of another average and goes aside */
	uint64_t interval;   /* how the directory is thinned: see retention.h */
	uint64_t keep_count;
	int status;          /* 0: it is on disk, even if there is a sentence about the files beside it */
	struct reason reason;
};

/*
 * The files of one version, called by its step. Files of later steps in the same directories are of a training that was
 * taken back: they go aside as well. Owned by the core; lent to the host until service_file_written.
 */
struct file_order {
	uint64_t model; /* the model's id */
	uint64_t step;
	uint64_t wall_us; /* names what goes aside */
	uint32_t count;
	struct file_item items[PROFILE_COUNT_MAX];
	struct file_order *next; /* the host's */
};

/* The time, taken once per event of the loop. */
struct instant {
	uint64_t monotonic_ms;
	uint64_t wall_us;
};

/* What goes along with a reply. */
struct attachment {
	const void *body; /* copied before the call returns */
	size_t body_bytes;
	int fd; /* -1: none; not closed */
};

struct host {
	void *context;
	/* Makes the segments of an order in the background. */
	void (*memory_make)(void *context, struct segment_order *order);
	/* Unmaps and closes in the background; the fields of memory are cleared at once. */
	void (*memory_drop)(void *context, struct memory *memory);
	/* Writes files in the background. */
	void (*file_write)(void *context, struct file_order *order);
	/* Sends a reply, or drops it when the peer is gone. */
	void (*reply)(void *context, const struct exchange *exchange, const struct reply *reply,
	              const struct attachment *attachment);
	/* Gives the blocks of an update to the workers. */
	void (*apply_start)(void *context, struct apply *apply);
	/* A random number that is not 0. */
	uint64_t (*random)(void *context);
	void (*event)(void *context, const struct event *event);
};
