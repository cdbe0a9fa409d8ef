/*
 * The book of a model, in its head segment: what the next daemon must know and does not find in the slots, the records
 * or the stages. See layout.h for its form.
 *
 * It is written whenever a fact changes, before anybody is told so, and before memory that it named is given back. The
 * facts of a version are not in it: those stand in the slot, so that publishing writes no book.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/generation_text.h"

struct model;

/*
 * Writes the model's facts into the book that is not valid, and makes it the valid one. A history that is too long for
 * it is left out. -ENOMEM: the book before stands.
 */
int book_write(struct model *model);

/* The same; without memory it is tried again when the model is next looked at. */
void book_note(struct model *model);

/* The same for what a checkpoint says too: one that is on disk lags from now on. */
void book_change(struct model *model);

/* What a book said. */
struct book_facts {
	uint64_t number;
	bool is_other; /* the other one is damaged, and may have been the newer */
	uint64_t ancestor, heirloom;
	uint64_t checkpoint_version, checkpoint_step;
	bool checkpoint_lags;
	uint64_t slots[SLOT_COUNT_MAX];
	struct generation generation; /* to be freed with generation_finish */
};

/*
 * Reads the valid book of a head, whose counts are checked already and whose bytes are those of them. Believes nothing.
 * STATUS_EEXISTS where none was ever written, STATUS_ECORRUPT, STATUS_EVERSION with a sentence, -ENOMEM.
 */
int book_read(const struct head_header *head, struct book_facts *ret_facts, struct reason *reason);

/*
 * A generation of the newest version's facts and the model's; manifest and agent are not set, pointers are borrowed.
 * version is 0 where there is none.
 */
void book_generation(const struct model *model, struct generation *ret_generation);

/* The way back: gives a model that has just been made the facts of a generation of the same profiles; takes its texts. */
void book_restore(struct model *model, struct generation *generation);
