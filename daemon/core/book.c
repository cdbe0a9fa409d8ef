/*
 * Two books, written in turn. See book.h.
 */
#include "daemon/core/book.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/failpoint.h"
#include "daemon/core/keep.h"
#include "daemon/core/model.h"

static void profile_fill(const struct model *model, const struct geometry *geometry, const struct slot_header *newest,
                         uint32_t p, struct generation_profile *at)
{
	const struct profile *profile = &geometry->profiles[p];
	const struct kept_profile *kept = keep_find(model, profile->name);
	int32_t index = geometry_profile(model->geometry, profile->name);

	at->profile = *profile;
	if (newest)
		at->facts = newest->profiles[p];
	at->history = index >= 0 ? model->histories[index] : NULL;
	at->has_snapshot = kept && kept->has_step;
	at->snapshot_step = kept ? kept->step : 0;
}

/* Of the version and the profiles of a geometry. */
static void generation_fill(const struct model *model, const struct geometry *geometry, const struct slot_header *newest,
                            struct generation *generation)
{
	memset(generation, 0, sizeof *generation);
	strcpy(generation->model, model->name);
	generation->world = model->world;
	generation->slot_count = model->slot_count;
	generation->stage_count = model->stage_count;
	generation->has_step = model->has_step;
	generation->model_step = model->step;
	generation->stride = model->stride;
	generation->coalesces = model->coalesces;
	generation->managed = model->managed;
	generation->owner = model->owner;
	generation->guards = model->guards;
	generation->attributes = model->attributes;
	generation->metadata = model->metadata;
	if (newest) {
		generation->version = newest->version;
		generation->step = newest->step;
		generation->updates = newest->updates;
		generation->calls = newest->calls;
		generation->published_us = newest->published_us;
	}
	generation->profile_count = geometry->profile_count;
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		profile_fill(model, geometry, newest, p, &generation->profiles[p]);
}

void book_generation(const struct model *model, struct generation *ret_generation)
{
	generation_fill(model, model_newest_geometry(model), versions_newest(&model->versions), ret_generation);
}

void book_restore(struct model *model, struct generation *generation)
{
	model->has_step = generation->has_step;
	model->step = generation->model_step;
	model->stride = generation->stride;
	model->coalesces = generation->coalesces;
	model->managed = generation->managed;
	model->owner = generation->owner;
	model->guards = generation->guards;
	free(model->attributes);
	model->attributes = generation->attributes;
	model->metadata = generation->metadata;
	generation->attributes = generation->metadata = NULL;
	for (uint32_t p = 0; p < generation->profile_count; p++) {
		struct generation_profile *at = &generation->profiles[p];

		model->histories[p] = at->history;
		at->history = NULL;
		if (!at->has_snapshot)
			continue;
		strcpy(model->keep.profiles[p].profile, at->profile.name);
		model->keep.profiles[p].has_step = true;
		model->keep.profiles[p].step = at->snapshot_step;
	}
}

/* Those of the model's own profiles, whatever the newest version has. */
static char *text_make(const struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	struct generation *generation = malloc(sizeof *generation);
	char *text = NULL;

	if (!generation)
		return NULL;
	generation_fill(model, model->geometry, NULL, generation);
	generation->agent = "";
	/* From a later version on its own step holds. */
	generation->version = newest ? newest->version : 0;
	text = generation_facts_encode(generation);
	for (uint32_t p = 0; text && strlen(text) > BOOK_BYTES - sizeof(struct book) && p < generation->profile_count;
	     p++) {
		free(text);
		generation->profiles[p].history = NULL;
		text = generation_facts_encode(generation);
	}
	free(generation);
	return text;
}

static struct book *book_at(const struct head_header *head, uint32_t index)
{
	return (void *)((uint8_t *)(uintptr_t)head + layout_book_offset(head->world, head->stage_count, index));
}

static uint64_t checksum_of(const struct book *book)
{
	const size_t begin = offsetof(struct book, text_bytes);

	return layout_checksum((const uint8_t *)book + begin, sizeof *book - begin + book->text_bytes) ^ book->number;
}

static bool is_valid(const struct book *book)
{
	return book->number > 0 && book->text_bytes <= BOOK_BYTES - sizeof *book && book->checksum == checksum_of(book);
}

/* The valid book, or NULL. */
static struct book *book_newest(const struct head_header *head)
{
	struct book *newest = NULL;

	for (uint32_t i = 0; i < BOOK_COUNT; i++) {
		struct book *book = book_at(head, i);

		if (is_valid(book) && (!newest || book->number > newest->number))
			newest = book;
	}
	return newest;
}

int book_write(struct model *model)
{
	const struct book *before = book_newest(model->head);
	struct book *book = book_at(model->head, before == book_at(model->head, 0) ? 1 : 0);
	char *text = text_make(model);

	if (!text)
		return -ENOMEM;
	FAILPOINT("book-before");
	book->number = 0;
	layout_barrier();
	book->text_bytes = strlen(text);
	assert(book->text_bytes <= BOOK_BYTES - sizeof *book); /* without histories it always fits */
	book->ancestor = model->ancestor ? model->ancestor->id : 0;
	book->heirloom = model->heirloom.memory.base ? model->heirloom.memory.segment : 0;
	book->checkpoint_version = model->checkpoint.owns ? model->checkpoint.version : 0;
	book->checkpoint_step = model->checkpoint.step;
	book->checkpoint_lags = model->facts_changed != model->checkpoint.facts;
	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++)
		book->slots[i] = i < model->slot_count ? model->slot_memory[i].segment : 0;
	memcpy(book->text, text, book->text_bytes);
	free(text);
	book->checksum = checksum_of(book) ^ (before ? before->number + 1 : 1);
	FAILPOINT("book-unnumbered");
	layout_barrier();
	book->number = before ? before->number + 1 : 1;
	model->book_is_stale = false;
	FAILPOINT("book-written");
	return 0;
}

void book_note(struct model *model)
{
	if (model->head && !model->recovers && book_write(model) != 0)
		model->book_is_stale = true;
}

void book_change(struct model *model)
{
	model->facts_changed++;
	book_note(model);
}

int book_read(const struct head_header *head, struct book_facts *ret_facts, struct reason *reason)
{
	const struct book *book = book_newest(head);
	struct book_facts facts;
	int error;

	/* Nobody has registered either: its memory had just been made. */
	if (!book && book_at(head, 0)->number == 0 && book_at(head, 1)->number == 0 && head->epoch == 0)
		return reason_set(reason, STATUS_EEXISTS, "it was not finished, and nobody was told that it is there");
	if (!book)
		return reason_set(reason, STATUS_ECORRUPT, "its book is damaged");
	error = generation_facts_decode((const char *)book->text, book->text_bytes, &facts.generation, reason);
	if (error)
		return error;
	if (strcmp(facts.generation.model, head->name) != 0 || facts.generation.world != head->world) {
		generation_finish(&facts.generation);
		return reason_set(reason, STATUS_ECORRUPT, "its book is of another model");
	}
	facts.number = book->number;
	/* One that was just being written has no number. */
	facts.is_other = false;
	for (uint32_t i = 0; i < BOOK_COUNT; i++)
		facts.is_other = facts.is_other || (book_at(head, i)->number != 0 && !is_valid(book_at(head, i)));
	facts.ancestor = book->ancestor;
	facts.heirloom = book->heirloom;
	facts.checkpoint_version = book->checkpoint_version;
	facts.checkpoint_step = book->checkpoint_step;
	facts.checkpoint_lags = book->checkpoint_lags != 0;
	memcpy(facts.slots, book->slots, sizeof facts.slots);
	*ret_facts = facts;
	return 0;
}
