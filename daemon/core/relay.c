/*
 * Handing a model's averages on to another geometry. See relay.h.
 */
#include "daemon/core/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/history.h"

void heirloom_drop(struct model *model, const struct host *host)
{
	struct heirloom *heirloom = &model->heirloom;

	if (heirloom->memory.base)
		host->memory_drop(host->context, &heirloom->memory);
	geometry_destroy(heirloom->geometry);
	free(heirloom->sources);
	*heirloom = (struct heirloom){ 0 };
}

void relay_drop(struct model *model, const struct host *host)
{
	for (uint32_t i = 0; i < model->slot_count; i++)
		if (model->relay.slots[i].base)
			host->memory_drop(host->context, &model->relay.slots[i]);
	geometry_destroy(model->relay.geometry);
	model->relay = (struct relay){ 0 };
}

uint64_t relay_slot_bytes(const struct model *model, const struct geometry *geometry)
{
	uint64_t bytes;

	return __builtin_mul_overflow(geometry->slot_bytes, (uint64_t)model->slot_count, &bytes) ? UINT64_MAX : bytes;
}

static bool profiles_equal(const struct geometry *geometry, const struct profile *profiles, uint32_t profile_count)
{
	return profile_compare(profiles, profile_count, geometry->profiles, geometry->profile_count, NULL) == 0;
}

/* What becomes of the histories of profiles that are now by other names at other places. -ENOMEM: as before. */
static int histories_make(const struct model *model, const struct geometry *geometry, char **ret_histories)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	int error = 0;

	memset(ret_histories, 0, PROFILE_COUNT_MAX * sizeof *ret_histories);
	for (uint32_t p = 0; !error && p < geometry->profile_count; p++) {
		int32_t old = geometry_profile(model->geometry, geometry->profiles[p].name);
		char before[PROFILE_BYTES_MAX + 1] = "?", after[PROFILE_BYTES_MAX + 1] = "?";
		struct history_entry entry = { .change = "schedule", .from = before, .to = after };

		(void)profile_format(&geometry->profiles[p], after, sizeof after);
		if (old >= 0) {
			const struct slot_profile *facts = model_newest_facts(model, (uint32_t)old);

			(void)profile_format(&model->geometry->profiles[old], before, sizeof before);
			ret_histories[p] = model->histories[old] ? strdup(model->histories[old]) : NULL;
			if (model->histories[old] && !ret_histories[p])
				error = -ENOMEM;
			entry.updates = facts ? facts->updates : 0;
		} else {
			entry.change = "started";
			entry.from = NULL;
		}
		entry.step = newest ? newest->step : 0;
		if (!error && strcmp(before, after) != 0 && newest)
			error = history_append(&ret_histories[p], &entry);
	}
	for (uint32_t p = 0; error && p < PROFILE_COUNT_MAX; p++) {
		free(ret_histories[p]);
		ret_histories[p] = NULL;
	}
	return error;
}

static void histories_take(struct model *model, char **histories)
{
	for (uint32_t p = 0; p < PROFILE_COUNT_MAX; p++) {
		free(model->histories[p]);
		model->histories[p] = histories[p];
	}
}

/* The same slots, averaged in another way. */
static int geometry_swap(struct model *model, struct geometry *geometry, struct reason *reason)
{
	char *histories[PROFILE_COUNT_MAX];
	int error = histories_make(model, geometry, histories);

	if (error)
		return error;
	error = model_replan(model, geometry, reason);
	if (error) {
		for (uint32_t p = 0; p < PROFILE_COUNT_MAX; p++)
			free(histories[p]);
		return error;
	}
	histories_take(model, histories);
	geometry_settle(geometry, model->geometry);
	geometry_destroy(model->geometry);
	model->geometry = geometry;
	book_change(model);
	return 0;
}

static void relay_order(const struct model *model, struct segment_order *order)
{
	memset(order, 0, sizeof *order);
	order->model = model->id;
	order->relays = true;
	order->count = model->slot_count;
	for (uint32_t i = 0; i < model->slot_count; i++)
		order->memory[i].bytes = model->relay.geometry->slot_bytes;
	snprintf(order->label, sizeof order->label, "emad:%.50s", model->name);
}

int relay_begin(struct model *model, const struct profile *profiles, uint32_t profile_count, bool *ret_done,
                bool *ret_order, struct segment_order *order, struct reason *reason)
{
	struct geometry *geometry;
	int error;

	*ret_done = *ret_order = false;
	if (!model->relay.geometry && profiles_equal(model->geometry, profiles, profile_count)) {
		*ret_done = true;
		return 0;
	}
	if (model->relay.geometry)
		return 0;
	error = geometry_create(model->manifest, profiles, profile_count, MODEL_METADATA_BYTES, &geometry, reason);
	if (error)
		return error;
	/* While there is an heirloom the slots have held nothing, but its sources fit this geometry alone. */
	if (geometry_fits(geometry, model->geometry)) {
		if (model->applying) {
			model->relay = (struct relay){ .geometry = geometry, .swaps = true, .made = true };
			return 0;
		}
		error = geometry_swap(model, geometry, reason);
		if (error)
			geometry_destroy(geometry);
		*ret_done = !error;
		return error;
	}
	model->relay.geometry = geometry;
	model->relay.slot_bytes_sum = relay_slot_bytes(model, geometry);
	relay_order(model, order);
	*ret_order = true;
	return 0;
}

void relay_made(struct model *model, const struct segment_order *order, const struct host *host)
{
	if (order->status != 0) {
		relay_drop(model, host);
		return;
	}
	memcpy(model->relay.slots, order->memory, model->slot_count * sizeof order->memory[0]);
	model->relay.made = true;
}

/* The heirloom that the newest version of a model becomes for a geometry; its memory is not taken yet. */
static int heirloom_make(const struct model *model, const struct geometry *geometry, struct heirloom *ret_heirloom)
{
	const struct geometry *newest = model_newest_geometry(model);
	size_t count = (size_t)geometry->manifest->tensor_count * geometry->profile_count;

	*ret_heirloom = (struct heirloom){ 0 };
	if (!versions_newest(&model->versions))
		return 0;
	ret_heirloom->sources = calloc(count, sizeof *ret_heirloom->sources);
	if (!ret_heirloom->sources)
		return -ENOMEM;
	geometry_sources(geometry, newest, ret_heirloom->sources);
	ret_heirloom->geometry = geometry_share((struct geometry *)newest);
	return 0;
}

static void heirloom_discard(struct heirloom *heirloom)
{
	geometry_destroy(heirloom->geometry);
	free(heirloom->sources);
}

/* Memory that the model's book still names: it is given back when the book does so no more. */
struct leavings {
	struct memory memory[SLOT_COUNT_MAX + 1];
	uint32_t count;
};

static void leavings_add(struct leavings *leavings, struct memory *memory)
{
	if (memory->base)
		leavings->memory[leavings->count++] = *memory;
	*memory = (struct memory){ 0 };
}

static void leavings_drop(struct leavings *leavings, const struct host *host)
{
	for (uint32_t i = 0; i < leavings->count; i++)
		host->memory_drop(host->context, &leavings->memory[i]);
}

/* Takes the memory of the newest version out of the model; all other slots are left over. */
static struct memory newest_take(struct model *model, struct leavings *ret_leavings)
{
	struct memory newest = { 0 };

	ret_leavings->count = 0;
	if (versions_newest(&model->versions)) {
		struct memory *memory = (struct memory *)model_newest_memory(model);

		newest = *memory;
		*memory = (struct memory){ 0 };
	}
	leavings_add(ret_leavings, &model->heirloom.memory);
	heirloom_drop(model, NULL);
	for (uint32_t i = 0; i < model->slot_count; i++)
		leavings_add(ret_leavings, &model->slot_memory[i]);
	return newest;
}

/* The slots stay; the plan could not be changed while it was in use. */
static int swap_adopt(struct model *model, const struct host *host, bool *ret_adopted, struct reason *reason)
{
	int error = geometry_swap(model, model->relay.geometry, reason);

	*ret_adopted = !error;
	model->managed = model->managed || (!error && model->relay.manages);
	if (error)
		relay_drop(model, host);
	else
		model->relay = (struct relay){ 0 };
	return error;
}

int relay_adopt(struct model *model, const struct host *host, bool *ret_adopted, struct reason *reason)
{
	struct relay *relay = &model->relay;
	struct heirloom heirloom = { 0 };
	char *histories[PROFILE_COUNT_MAX] = { NULL };
	struct leavings leavings;
	int error;

	*ret_adopted = false;
	if (!relay->made || model->applying || keep_busy(model))
		return 0;
	if (relay->swaps)
		return swap_adopt(model, host, ret_adopted, reason);
	error = histories_make(model, relay->geometry, histories);
	if (!error)
		error = heirloom_make(model, relay->geometry, &heirloom);
	if (!error)
		error = model_replan(model, relay->geometry, reason);
	if (error) {
		for (uint32_t p = 0; p < PROFILE_COUNT_MAX; p++)
			free(histories[p]);
		heirloom_discard(&heirloom);
		relay_drop(model, host);
		return error;
	}
	histories_take(model, histories);
	model->memory_bytes += relay->slot_bytes_sum - relay_slot_bytes(model, model->geometry);
	heirloom.memory = newest_take(model, &leavings);
	geometry_destroy(model->geometry);
	model->geometry = relay->geometry;
	model_adopt_slots(model, relay->slots);
	model->heirloom = heirloom;
	if (heirloom.memory.base)
		versions_inherit(&model->versions, (struct slot_header *)(void *)heirloom.memory.base);
	model->managed = model->managed || relay->manages;
	*relay = (struct relay){ 0 };
	*ret_adopted = true;
	FAILPOINT("relay-taken");
	book_note(model);
	/* Until then the next daemon would have gone on with the slots of before, and their readers. */
	model->head->leased = 0;
	leavings_drop(&leavings, host);
	FAILPOINT("relay-done");
	return 0;
}

int relay_inherit(struct model *heir, const struct host *host, struct reason *reason)
{
	struct model *ancestor = heir->ancestor;
	struct heirloom heirloom;
	struct leavings leavings;
	char *histories[PROFILE_COUNT_MAX];
	int error = histories_make(ancestor, heir->geometry, histories);

	if (!error)
		error = heirloom_make(ancestor, heir->geometry, &heirloom);
	if (error) {
		for (uint32_t p = 0; p < PROFILE_COUNT_MAX; p++)
			free(histories[p]);
		return reason_set(reason, error, "not enough memory to go on from the earlier averages");
	}
	histories_take(heir, histories);
	heirloom.memory = newest_take(ancestor, &leavings);
	ancestor->versions.current = -1;
	heir->heirloom = heirloom;
	if (heirloom.memory.base)
		versions_inherit(&heir->versions, (struct slot_header *)(void *)heirloom.memory.base);
	heir->version_next = ancestor->version_next;
	heir->head->version = ancestor->head->version;
	heir->has_step = ancestor->has_step;
	heir->step = ancestor->step;
	heir->managed = ancestor->managed;
	keep_inherit(heir, ancestor);
	checkpoint_inherit(heir, ancestor);
	free(heir->attributes);
	heir->attributes = ancestor->attributes;
	ancestor->attributes = NULL;
	heir->ancestor = NULL;
	ancestor->heir = NULL;
	/* From here on the ancestor's name is the heir's, also for a daemon that finds both. */
	FAILPOINT("heir-taken");
	book_note(heir);
	FAILPOINT("heir-booked");
	ancestor->head->gone = HEAD_GONE;
	FAILPOINT("heir-alone");
	leavings_drop(&leavings, host);
	return 0;
}
