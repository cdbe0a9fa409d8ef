/*
 * Recovering models from their checkpoints at the start, one after the other, before anybody is listened to:
 *
 *     find the next manifest -> model -> memory -> its averages are read into slot 0 -> published as what it was
 *          ^    | damaged: aside                       | damaged: aside
 *          +----+--------------------------------------+   (then the generation before it)
 *
 * Of each model the newest generation that is whole wins. What cannot be taken now (memory-max, another format) stays
 * on disk and is named in the log. Where our own memory does not suffice even to know what there is, the daemon must
 * not go on: a trainer would begin anew a model that is there.
 *
 * Loop thread only; what takes time is done by the host.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/generation_text.h"
#include "daemon/core/host.h"

struct model;
struct service;

struct recovery {
	bool running;
	bool ordered;             /* the order is with the host */
	struct file_order *order; /* owned */
	struct model *model;      /* NULL: none is being made */
	uint32_t slot;
	struct generation generation; /* that it is made of */
	uint64_t model_count;     /* recovered */
	uint64_t left_count;      /* left on disk */
	int error; /* -ENOMEM: it was given up, and nobody must be listened to */
};

/* Begins; -ENOMEM. Without a state directory there is nothing to do. */
int recover_begin(struct service *service, const struct instant *now);

/* The host has done the order. */
void recover_done(struct service *service, const struct instant *now);

/* The memory of the model is there, or cannot be had. */
void recover_memory(struct service *service, const struct instant *now, bool made);

void recover_finish(struct service *service);
