/*
 * Owners: the users whose registrations made the models, and what each of them may have at once.
 *
 * A model belongs to the uid that registered it first, also after a restart and when its tensors or profiles change,
 * whoever asks for that. Nobody is exempt. Those whose uid is not known (tcp, and models made by an emad that did not
 * write it down) are one owner together.
 *
 * Loop thread only.
 */
#pragma once

#include <stdint.h>

#include "proto/status.h"

struct model;
struct service;

enum { OWNER_UNKNOWN = -1, OWNER_TEXT_BYTES = 48 };

/* What the models of one owner come to. */
struct owner_sum {
	int64_t owner;
	uint64_t model_count;
	uint64_t memory_bytes;
};

/*
 * The owners of all models, in ascending order, to be freed with free(); NULL without memory, and where there are no
 * models.
 */
struct owner_sum *owner_sums(const struct service *service, uint32_t *ret_count);

/*
 * Whether its owner may have the model with the memory that it takes. replaced: the model whose place it takes, as in
 * service_admit; NULL for none. STATUS_EMEMORY; STATUS_ELIMIT for their number.
 */
int owner_memory_check(const struct service *service, const struct model *model, const struct model *replaced,
                       struct reason *reason);
int owner_count_check(const struct service *service, const struct model *model, const struct model *replaced,
                      struct reason *reason);

/* Tells of those who have more than they may since the settings changed. */
void owner_warn(const struct service *service);

/* "uid 1000" */
void owner_text(int64_t owner, char text[OWNER_TEXT_BYTES]);
