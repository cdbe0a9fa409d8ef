/*
 * What the core asks of the world outside: one table of functions, filled in by the composition root (outside.c), or by
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
#include "daemon/core/listing.h"
#include "proto/generation.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "proto/status.h"

/*
 * A segment of shared memory, mapped and zero at first. Its identity names it wherever it is kept for the next daemon.
 */
struct memory {
	uint8_t *base; /* NULL: none */
	uint64_t bytes;
	uint64_t segment; /* random identity, chosen by the core with the order */
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
	struct memory memory[SLOT_COUNT_MAX + 1]; /* bytes and segment given by the core; the rest made by the host */
	char label[64];                           /* for /proc/PID/maps */
	int status;                               /* 0: all was made; else none was */
	struct reason reason;                     /* with status 0: why the next daemon will not find it */
	struct segment_order *next; /* the host's */
	size_t pieces_bytes;        /* of a stage: what its rank's pieces are, for whoever finds the segment later */
	uint8_t pieces[];
};

enum { FILE_DIRECTORY_BYTES_MAX = 32 + MODEL_NAME_BYTES_MAX + PROFILE_NAME_BYTES_MAX };

/* What the host is asked to do in the state directory. */
enum file_work {
	FILE_KEEP,       /* write averages under their step (keep.h) */
	FILE_CHECKPOINT, /* write a generation (checkpoint.h) */
	FILE_FACTS,      /* write the manifest of a generation anew; its averages stay */
	FILE_FIND,       /* read the manifest of the generation behind `directory` and `generation` (recover.h) */
	FILE_FILL,       /* read the averages of a generation */
	FILE_BAD,        /* set a generation aside */
	FILE_DISCARD,    /* set all generations of a model aside */
	FILE_SEEK,       /* read the manifest of a generation to go back to (restore.h) */
	FILE_BACK,       /* averages that were kept of later steps go aside (keep.h) */
	FILE_LIST,       /* what there is of a model (inquiry.h) */
	FILE_MARK,       /* mark a generation as one that stays, or take the mark away (inquiry.h) */
};

/* One file that the core wants on disk, or from there. */
struct file_item {
	char profile[PROFILE_NAME_BYTES_MAX + 1];
	char directory[FILE_DIRECTORY_BYTES_MAX]; /* below the state directory: "snapshots/run42/net/ema" */
	const uint8_t *bytes;                     /* pinned by the core until service_file_written */
	uint8_t *target;      /* FILE_FILL: where they go instead */
	uint64_t byte_count;
	uint64_t checksum;   /* FILE_CHECKPOINT: result; FILE_FACTS: what it was; FILE_FILL: what it must be */
	bool starts;         /* whatever the directory holds is of another average and goes aside */
	uint64_t interval;   /* how the directory is thinned: see retention.h */
	uint64_t keep_count;
	uint64_t step_left;  /* FILE_BACK: result: the newest step that is left; UINT64_MAX: none is */
	int status;          /* 0: it is on disk, even if there is a sentence about the files beside it */
	struct reason reason;
};

/*
 * FILE_KEEP: the files of one version, called by its step. Files of later steps in the same directories are of a
 * training that was taken back: they go aside as well. FILE_BACK does that alone.
 *
 * FILE_LIST looks at a model's generations and at the directories of the items. All others are about one generation of a model. FILE_FIND goes on behind the generation that it names: older ones of
 * the same directory, then the newest of the next; text NULL and status 0: there are no more. What FILE_FIND and
 * FILE_FILL find damaged (STATUS_ECORRUPT) has been set aside when they come back. FILE_SEEK reads the newest one of the
 * directory that is older than `generation` and of `step` or an earlier one; where there is none, text is NULL and the
 * sentence says which steps there are. FILE_MARK finds the newest generation of exactly `step`.
 *
 * Owned by the core; lent to the host until service_file_written.
 */
struct file_order {
	enum file_work work;
	uint64_t model; /* the model's id; 0: none */
	uint64_t step;
	uint64_t wall_us; /* names what goes aside */
	char directory[GENERATION_DIRECTORY_BYTES]; /* of the model, below "checkpoints" */
	struct generation_name generation;
	bool starts;         /* FILE_CHECKPOINT: the directory holds another average, which goes aside */
	bool founds;         /* FILE_CHECKPOINT: the state directory has held nothing yet, and may have to be made */
	uint64_t keep_count; /* FILE_CHECKPOINT: generations that stay, */
	uint64_t keep_steps; /* and besides the first at or after each multiple of so many steps; 0: none */
	bool marks;          /* FILE_MARK: with the mark, or without */
	uint64_t ask;        /* FILE_LIST, FILE_MARK: number of the request that it is for */
	struct listing *listing; /* owned; FILE_LIST: result */
	char *text;          /* owned; the manifest: FILE_CHECKPOINT, FILE_FACTS: without its end; FILE_FIND: result */
	size_t text_bytes;
	_Atomic uint64_t written_bytes; /* FILE_CHECKPOINT: of all items so far; the host's, and anybody may read it */
	int status;          /* of the whole; 0: done, even if there is a sentence */
	struct reason reason;
	uint32_t count;
	struct file_item items[PROFILE_COUNT_MAX];
	struct file_order *next; /* the host's */
};

/* The time, taken once per event of the loop. */
struct instant {
	uint64_t monotonic_ms;
	uint64_t monotonic_us; /* the same clock: how long something has taken */
	uint64_t wall_us;      /* what day it is; it may be set forward and back */
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
	/* Ends whatever is being received into those bytes: when this returns nothing is written there any more. */
	void (*withdraw)(void *context, const uint8_t *base, uint64_t bytes);
	/* Writes files in the background. */
	void (*file_write)(void *context, struct file_order *order);
	/* Sends a reply, or drops it when the peer is gone. */
	void (*reply)(void *context, const struct exchange *exchange, const struct reply *reply,
	              const struct attachment *attachment);
	/* A remote peer has shown the token of that name: what it is let into is found out anew. */
	void (*identify)(void *context, uint64_t peer, const char *name);
	/* Gives the blocks of an update to the workers. */
	void (*apply_start)(void *context, struct apply *apply);
	/* A random number that is not 0. */
	uint64_t (*random)(void *context);
	void (*event)(void *context, const struct event *event);
};
