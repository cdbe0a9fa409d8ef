/*
 * A disk in memory behind `struct files_calls`, which forgets what was not synchronised when its power goes.
 *
 *     calls --> what processes see --fsync--> what is on the platter
 *                       |                          |
 *                       +------- disk_lose --------+--> what is there when the power is back
 *
 * fsync of a file puts its bytes on the platter, and not its name; fsync of a directory puts the names in it there, and
 * not what they name. What was not synchronised may be there or not, piece by piece: every change of a directory by
 * itself, and of a rename one half, every sector of a file old, new or zero, and its end elsewhere. That is more hostile
 * than a journalling file system, with two exceptions that all of them make: no directory has two names afterwards, and
 * two names that change places do so together.
 *
 * The calls work on the disk that disk_use has named. Descriptors are numbered far above those of the process, and one
 * that is not open fails the test. So does a second fsync of a file after one that failed: what that did not write is
 * gone, whatever the second one says.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/edge/files_place.h"

enum {
	DISK_SECTOR_BYTES = 512,
	DISK_ERROR_OFF = 999, /* of every call without power; no call has it otherwise */
};

struct disk;

/* What goes wrong from now on. */
struct disk_faults {
	uint64_t countdown;     /* the call that fails, 1: the next; 0: none */
	int error;              /* what it fails with */
	bool for_ever;          /* and all after it */
	size_t chunk_bytes_max; /* reads and writes stop there; 0: nowhere */
	bool interrupts;        /* every other read and write ends with EINTR */
	bool lacks_exchange;    /* as some file systems do */
	bool file_fsync_lies;   /* they say that they have, and have not */
	bool directory_fsync_lies;
};

/* A disk with nothing but the root directory. */
struct disk *disk_create(void);
struct disk *disk_copy(const struct disk *disk);
void disk_destroy(struct disk *disk);

extern const struct files_calls disk_calls;
void disk_use(struct disk *disk);

void disk_faults_set(struct disk *disk, const struct disk_faults *faults);

/* The call that failed last because it had to; NULL: none since disk_faults_set. */
const char *disk_failed_at(const struct disk *disk);

/* The power goes at the nth call from now on, before it does anything: it and all others fail. 0: it stays. */
void disk_power_set(struct disk *disk, uint64_t nth);
bool disk_is_off(const struct disk *disk);

/* Calls made so far. */
uint64_t disk_call_count(const struct disk *disk);

/* Descriptors and lists that are open. */
uint64_t disk_open_count(const struct disk *disk);

/* The process is gone, and the host lives: nothing is open or locked, everything else as it was, the power on. */
void disk_process_ends(struct disk *disk);

/*
 * The host is gone: also, what was not synchronised is decided on, by a number below `bound` for every piece of it.
 * The bounds are the same for the same disk, whatever was chosen before.
 */
void disk_lose(struct disk *disk, uint64_t (*choose)(void *context, uint64_t bound), void *context);

/* A file's bytes, as processes see them, to be changed in place; NULL where there is none. */
uint8_t *disk_file(struct disk *disk, const char *path, uint64_t *ret_bytes);

/* Cuts a file off, on the platter as well. */
void disk_file_cut(struct disk *disk, const char *path, uint64_t bytes);

/* Whether a directory has a name that begins so. */
bool disk_has(struct disk *disk, const char *directory, const char *prefix);

/* Removes a name, and all below it. */
void disk_remove(struct disk *disk, const char *path);
