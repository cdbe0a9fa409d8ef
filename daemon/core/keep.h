/*
 * Keeping averages on disk: which version of which profile is to be written, and what became of it.
 *
 *     published -> due? -> ordered (its slot is pinned) -> written, given up
 *                   |         ^
 *                   +-> waiting, while the version before is still being written; the newest one waits
 *
 * Nobody waits for the disk. One version of a model at a time is being written, so one slot is pinned. A version that
 * waits is pinned too where updates still find two slots beside it; where not, it is written if no update has taken its
 * slot by then. What is not written is counted, and the training goes on.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "proto/limits.h"
#include "proto/profile.h"

struct model;
struct service;

/* What is known of the files of one profile. */
struct kept_profile {
	char profile[PROFILE_NAME_BYTES_MAX + 1]; /* "": not in use */
	bool has_step;       /* the directory holds files of this very average */
	uint64_t step;       /* of the newest one */
	struct reason error; /* why the latest one was given up; "": it was written */
};

/* A version that waits until the one before is on disk. */
struct keep_waiting {
	uint64_t version;  /* 0: none waits */
	uint32_t slot;
	bool pinned;
	uint32_t profiles; /* that are due: bits by index in the geometry, which stays as long as the slot holds it */
};

struct keep {
	bool writing;
	uint32_t slot;            /* pinned while writing */
	struct file_order *order; /* owned; made for the first file; the host's while writing */
	struct keep_waiting waiting;
	uint64_t skipped_count; /* since one was written */
	struct kept_profile profiles[PROFILE_COUNT_MAX];
};

/*
 * 0 when the model can keep the averages of these profiles. STATUS_EPROFILE with a sentence: the daemon has no state
 * directory, or the model too few slots.
 */
int keep_check(const struct service *service, const struct model *model, const struct profile *profiles,
               uint32_t profile_count, struct reason *reason);

/* A version was published. step_previous: of the version before, or one stride before the first. */
void keep_published(struct service *service, const struct instant *now, struct model *model, uint64_t step_previous);

/*
 * The model has come from an earlier daemon, which may not have got to write what was due. Says so where this one has no
 * state directory.
 */
void keep_adopted(struct service *service, const struct instant *now, struct model *model);

/* The files are on disk, or given up. */
void keep_written(struct service *service, const struct instant *now, struct model *model);

/* Begins what has waited until a slot was on disk. */
void keep_resume(struct service *service, const struct instant *now, struct model *model);

/* The average has gone back to a step: files of later ones go aside, and none of them is written any more. */
void keep_back(struct service *service, const struct instant *now, struct model *model, uint64_t step);

/* They have been moved, or not; model NULL: it is gone. */
void keep_went_back(struct service *service, struct model *model, const struct file_order *order);

/*
 * Whether a slot is being written to disk, here or as a checkpoint, or filled from there: then the slots can be neither
 * given back nor rewound.
 */
bool keep_busy(const struct model *model);

/* What is known of a profile's files; NULL: nothing. */
const struct kept_profile *keep_find(const struct model *model, const char *profile);

/* "snapshots/MODEL" */
enum { KEEP_DIRECTORY_BYTES_MAX = 16 + MODEL_NAME_BYTES_MAX };
void keep_directory(const struct model *model, char ret_directory[KEEP_DIRECTORY_BYTES_MAX]);

/* The heir's averages go on from those of its ancestor, and so do their files. */
void keep_inherit(struct model *heir, const struct model *ancestor);

void keep_finish(struct model *model);
