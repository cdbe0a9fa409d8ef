/*
 * The notes of a version: what the daemon alone reads of it, behind the images of its slot. See layout.h.
 */
#pragma once

#include "daemon/core/model.h"

/* Before the slot is published. metadata: that was pushed with it; results: of its update; NULL for none. */
void notes_write(const struct model *model, const struct slot_header *slot, const char *metadata,
                 const struct tensor_result *results);

/*
 * Those of the newest version, into model->metadata and model->results. An heirloom's tensors may be others: then their
 * norms are left out. STATUS_ECORRUPT with a sentence: there are none; -ENOMEM.
 */
int notes_read(struct model *model, struct reason *reason);
