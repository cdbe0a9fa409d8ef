/*
 * Changing what a model averages while it is read and trained: other profiles (a relay) or other tensors (an heir). See
 * model.h for the picture.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "daemon/core/model.h"

/*
 * Makes the model average by these profiles. *ret_done: it does already, or does from now on, because the slots can
 * stay as they are. Else relay_adopt does so later: after the update under way (*ret_order false), or after the new
 * slots, which must be ordered now (*ret_order true and the order filled in), have been made. Meanwhile nothing else
 * begins. Failures of profiles as geometry_create; -ENOMEM.
 */
int relay_begin(struct model *model, const struct profile *profiles, uint32_t profile_count, bool *ret_done,
                bool *ret_order, struct segment_order *order, struct reason *reason);

/* The slots have been made (or not: status); they are adopted as soon as no update runs. */
void relay_made(struct model *model, const struct segment_order *order, const struct host *host);

/*
 * Adopts slots that were made, if no update runs. Old slots but the newest version's are given back. *ret_adopted says
 * whether anything changed; on failure, with a sentence, all is as before and the new slots are given back.
 */
int relay_adopt(struct model *model, const struct host *host, bool *ret_adopted, struct reason *reason);

/* The heir takes over its ancestor's newest version and what goes with it. No update of the ancestor may run. */
int relay_inherit(struct model *heir, const struct host *host, struct reason *reason);

/* The first version in the new slots has been published. */
void heirloom_drop(struct model *model, const struct host *host);

/* Lets go of slots that nobody will adopt. */
void relay_drop(struct model *model, const struct host *host);

/* Bytes of the slots of a geometry, for a model's accounts. */
uint64_t relay_slot_bytes(const struct model *model, const struct geometry *geometry);
