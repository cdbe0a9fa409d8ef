/*
 * Generations of a model on a disk in memory, for tests of what becomes of them: each is written with a serial number of
 * its own, which its manifest names and from which every byte of its files follows. So whatever is found later says
 * which one it is, and whether it is whole.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "daemon/edge/files_place.h"

enum { DISK_FACTS = 1000 }; /* serial numbers of the same files are so far apart */

/* What a look found. */
struct found {
	int status;      /* the first failure; 0: none */
	uint64_t serial; /* 0: none was whole */
	struct generation_name name;
	int count_bad;   /* set aside on the way */
};

/* The place that all this is in: "/state" on the disk in use. */
extern const struct files_place disk_place;

/* Writes a generation; what FILE_CHECKPOINT comes back with. Asserts that a failure has a sentence. */
int generation_put(const char *directory, const struct generation_name *name, uint64_t serial, bool starts);

/* Its manifest anew, with FILE_FACTS, by another serial number of the same files: DISK_FACTS more. */
int generation_facts_put(const char *directory, const struct generation_name *name, uint64_t serial);

/* Whether the next ones may make the state directory; they may at first. */
void generation_founds(bool founds);

/* The sentence that the latest order came back with; "": none. */
const char *generation_sentence(void);

/* FILE_BAD or FILE_DISCARD. */
int generation_take(enum file_work work, const char *directory, const struct generation_name *name);

/*
 * The newest whole generation of a model, as recovery looks for it. Asserts that what is taken is as it was written, all
 * of it. A disk without power ends it.
 */
struct found generation_look_for(const char *directory);
