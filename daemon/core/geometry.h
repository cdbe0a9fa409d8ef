/*
 * The geometry of a slot: which tensors and profiles lie where. Made once and never changed; a model that gets other
 * profiles or tensors gets another geometry, and an update leads from the one to the other (apply.h).
 *
 * Shared by its holders on the loop thread; the workers only read it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/image.h"
#include "proto/limits.h"
#include "proto/manifest.h"
#include "proto/profile.h"
#include "proto/status.h"

/* What one profile does with one tensor, and where it lies. */
struct placement {
	enum schedule_entry entry; /* ENTRY_DROP: it is not there */
	enum dtype dtype;          /* as kept */
	uint8_t group;             /* whose decay it follows: 0 the profile's schedule, else its rule group - 1 */
	uint64_t offset;           /* bytes from the start of the slot's segment */
};

struct geometry {
	uint32_t share_count; /* holders beside the first */
	struct manifest *manifest; /* shared */
	uint32_t profile_count;
	struct profile *profiles; /* owned */
	struct image *images[PROFILE_COUNT_MAX]; /* owned */
	uint64_t region_offsets[PROFILE_COUNT_MAX];
	uint64_t notes_offset, description_offset;
	uint64_t slot_bytes;
	uint8_t *description; /* owned; description.h; NULL when no more slots will be made */
	size_t description_bytes;
	uint64_t checksum; /* equal where the same tensors are at the same places, averaged in the same way */
	struct placement *placements; /* owned; [tensor * profile_count + profile] */
	uint64_t *origins; /* owned; [tensor] its place in the first profile that holds it, in elements of the slot */
};

/*
 * Lays out the slots; takes a share of the manifest. metadata_capacity as for image_create. STATUS_ELIMIT,
 * STATUS_EPROFILE, -ENOMEM with a sentence.
 */
int geometry_create(struct manifest *manifest, const struct profile *profiles, uint32_t profile_count,
                    size_t metadata_capacity, struct geometry **ret_geometry, struct reason *reason);

struct geometry *geometry_share(struct geometry *geometry);

/* The slots have been made: their description stands in them. */
void geometry_forget_description(struct geometry *geometry);

/* The slots stay as they were made for another geometry, whose slots fit this one. */
void geometry_settle(struct geometry *geometry, const struct geometry *made);

/* The last holder's call frees it. NULL is allowed. */
void geometry_destroy(struct geometry *geometry);

/* The index of the profile of that name, or -1. */
int32_t geometry_profile(const struct geometry *geometry, const char *name);

/* Whether slots of the one can be taken as slots of the other: the same bytes at the same places. */
bool geometry_fits(const struct geometry *geometry, const struct geometry *other);

/*
 * Where the values that `to` wants to go on from lie in a slot of `from`: the tensor of the same name and shape in the
 * profile of the same name; entry ENTRY_DROP where there is none, or none of a type to go on from (integers that are to
 * be averaged now, entries of another dtype that are not averaged). ret_sources has one entry a tensor and profile of
 * `to`, in the order of its placements.
 */
void geometry_sources(const struct geometry *to, const struct geometry *from, struct placement *ret_sources);
