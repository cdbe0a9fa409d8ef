/*
 * The ranks of a model whose memory is adopted: who holds them, their stages, and the snapshots that were acknowledged.
 *
 * A part of a record that is not as it was sealed is mended and told of: it is not known who holds the rank, or what was
 * in a stage, or what was answered. The rest of the record stands. Stages that are not there, or whose pieces are not
 * known, are lost with what was in them.
 */
#pragma once

#include <stdint.h>

#include "daemon/core/estate.h"
#include "daemon/core/model.h"
#include "daemon/core/service.h"

/* Snapshots that were acknowledged: to be averaged now, or lost. */
struct ranks_found {
	uint32_t snapshot_count, lost_count;
};

/*
 * Takes the stages of all ranks out of the estate, and the ranks as far as their records hold. The model's slots are
 * there. STATUS_EMANIFEST, STATUS_ELIMIT with a sentence, -ENOMEM.
 */
int ranks_take(struct service *service, const struct estate *estate, struct model *model, struct ranks_found *ret_found,
               struct reason *reason);
