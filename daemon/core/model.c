/*
 * Laying out a model, its memory and its ranks. See model.h.
 */
#include "daemon/core/model.h"

#include "daemon/core/book.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/owner.h"
#include "daemon/core/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* JSON quoting at most doubles compact JSON; the rest is names, numbers and a specification. */
const size_t MODEL_METADATA_BYTES =
        2 * (ATTRIBUTES_BYTES_MAX + METADATA_BYTES_MAX + HISTORY_BYTES_MAX + PROFILE_BYTES_MAX) + 4096;

/*
 * What one snapshot and all segments together take. Every rank's stages have a page of their own in front, and each is
 * rounded up to pages.
 */
static int sizes_make(struct model *model, struct reason *reason)
{
	const uint64_t page_bytes = LAYOUT_PAGE_BYTES, head_bytes = layout_head_bytes(model->world, model->stage_count);
	/* Of every rank about as many as of this one, and the same whatever the profiles are. */
	const size_t profiles_bytes = strlen((const char *)model->geometry->description) + 1;
	const uint64_t pieces_bytes = layout_page_round(model->geometry->description_bytes - profiles_bytes);
	uint64_t stage_bytes, bytes, sum = 0;
	bool overflow = false;

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct tensor *tensor = &model->manifest->tensors[t];

		overflow = overflow ||
		           __builtin_add_overflow(sum, tensor->element_count * dtype_bytes(tensor->dtype), &sum) ||
		           sum > INT64_MAX;
	}
	model->payload_bytes = sum;
	stage_bytes = layout_page_round(sum) + (model->world - 1) * page_bytes;
	sum = head_bytes + model->world * (page_bytes + pieces_bytes);
	overflow = overflow || __builtin_mul_overflow(model->stage_count, stage_bytes, &bytes) ||
	           __builtin_add_overflow(sum, bytes, &sum) ||
	           __builtin_mul_overflow(model->slot_count, model->geometry->slot_bytes, &bytes) ||
	           __builtin_add_overflow(sum, bytes, &sum) || sum > INT64_MAX;
	if (overflow)
		return reason_set(reason, STATUS_ELIMIT,
		                  "model '%s' needs more than 2^63 bytes: %" PRIu32 " slots of %" PRIu64 " and %" PRIu32
		                  " stages",
		                  model->name, model->slot_count, model->geometry->slot_bytes, model->stage_count);
	model->memory_bytes = sum;
	return 0;
}

int model_create_with(const struct model_counts *counts, const char *name, struct manifest *manifest,
                      const struct profile *profiles, uint32_t profile_count, struct model **ret_model,
                      struct reason *reason)
{
	struct model *model = calloc(1, sizeof *model);
	int error;

	if (!model) {
		manifest_destroy(manifest);
		return -ENOMEM;
	}
	model->manifest = manifest;
	model->world = counts->world;
	model->slot_count = counts->slots;
	model->stage_count = counts->stages;
	model->owner = OWNER_UNKNOWN;
	model->version_next = 1;
	model->stride = 1;
	model->guards = guards_default();
	snprintf(model->name, sizeof model->name, "%s", name);
	error = geometry_create(manifest, profiles, profile_count, MODEL_METADATA_BYTES, &model->geometry, reason);
	if (!error)
		error = sizes_make(model, reason);
	if (error)
		goto fail;
	model->ranks = calloc(model->world, sizeof *model->ranks);
	model->results = calloc(manifest->tensor_count, sizeof *model->results);
	model->results_next = calloc(manifest->tensor_count, sizeof *model->results_next);
	model->kept = calloc(manifest->tensor_count, sizeof *model->kept);
	model->attributes = strdup("{}");
	error = model->ranks && model->results && model->results_next && model->kept && model->attributes ? 0 : -ENOMEM;
fail:
	if (error) {
		model_destroy(model, NULL);
		return error;
	}
	*ret_model = model;
	return 0;
}

int model_create(const struct settings *settings, const char *name, uint32_t world, struct manifest *manifest,
                 const struct profile *profiles, uint32_t profile_count, struct model **ret_model,
                 struct reason *reason)
{
	const struct defaults *defaults = defaults_find(settings->defaults, settings->default_count, name);
	const struct model_counts counts = {
		.world = world,
		.slots = (uint32_t)(defaults && defaults->slot_count ? defaults->slot_count : settings->slot_count),
		.stages = (uint32_t)(defaults && defaults->stage_count ? defaults->stage_count : settings->stage_count),
	};

	return model_create_with(&counts, name, manifest, profiles, profile_count, ret_model, reason);
}

void enclosure_clear(struct enclosure *enclosure)
{
	free(enclosure->metadata);
	*enclosure = (struct enclosure){ 0 };
}

void model_destroy(struct model *model, const struct host *host)
{
	if (!model)
		return;
	for (uint32_t r = 0; model->ranks && r < model->world; r++) {
		for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
			enclosure_clear(&model->ranks[r].enclosures[i]);
		for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
			inflow_finish(&model->ranks[r].inflows[i]);
		manifest_destroy(model->ranks[r].manifest);
		if (model->ranks[r].stage.base)
			host->memory_drop(host->context, &model->ranks[r].stage);
	}
	for (uint32_t i = 0; i < model->slot_count; i++)
		if (model->slot_memory[i].base)
			host->memory_drop(host->context, &model->slot_memory[i]);
	if (model->head_memory.base)
		host->memory_drop(host->context, &model->head_memory);
	heirloom_drop(model, host);
	relay_drop(model, host);
	keep_finish(model);
	checkpoint_finish(model);
	restore_finish(model);
	for (uint32_t p = 0; p < PROFILE_COUNT_MAX; p++)
		free(model->histories[p]);
	enclosure_clear(&model->applying_enclosure);
	versions_finish(&model->versions);
	apply_finish(&model->apply);
	plan_destroy(model->plan);
	geometry_destroy(model->geometry);
	manifest_destroy(model->manifest);
	free(model->kept);
	free(model->metadata);
	free(model->changes);
	free(model->ranks);
	free(model->results);
	free(model->results_next);
	free(model->attributes);
	free(model);
}

void model_order(const struct model *model, struct segment_order *order)
{
	memset(order, 0, sizeof *order);
	order->model = model->id;
	order->count = 1 + model->slot_count;
	order->memory[0].bytes = layout_head_bytes(model->world, model->stage_count);
	for (uint32_t i = 0; i < model->slot_count; i++)
		order->memory[1 + i].bytes = model->geometry->slot_bytes;
	snprintf(order->label, sizeof order->label, "emad:%.50s", model->name);
}

int model_order_stage(const struct model *model, uint32_t rank, struct segment_order **ret_order,
                      struct reason *reason)
{
	const struct manifest *manifest = model->ranks[rank].manifest;
	struct segment_order *order;
	uint64_t stride, stages_bytes;
	uint8_t *pieces;
	size_t pieces_bytes;
	int error = manifest_encode(manifest, &pieces, &pieces_bytes, reason);

	if (error)
		return error;
	order = malloc(sizeof *order + pieces_bytes);
	if (order) {
		*order = (struct segment_order){ .count = 1, .pieces_bytes = pieces_bytes };
		memcpy(order->pieces, pieces, pieces_bytes);
	}
	free(pieces);
	if (!order)
		return -ENOMEM;
	order->model = model->id;
	order->epoch = model->records[rank].epoch;
	order->rank = rank;
	/* Sizes were checked when the manifest was: a rank's pieces are no larger than the model. */
	(void)layout_stage_bytes(manifest->stage_bytes, model->stage_count, &stride, &stages_bytes);
	order->memory[0].bytes = stages_bytes + layout_page_round(pieces_bytes);
	snprintf(order->label, sizeof order->label, "emad:%.40s:stage%" PRIu32, model->name, rank);
	*ret_order = order;
	return 0;
}

static void segment_fill(const struct model *model, struct segment_header *segment, enum segment_kind kind,
                         const struct memory *memory, uint64_t index)
{
	segment->kind = kind;
	segment->segment_bytes = memory->bytes;
	segment->segment = memory->segment;
	segment->model = model->id;
	segment->geometry = model->geometry->checksum;
	segment->index = index;
	segment_header_seal(segment);
}

void model_take_slots(struct model *model, const struct memory *memory)
{
	struct slot_header *slots[SLOT_COUNT_MAX];

	for (uint32_t i = 0; i < model->slot_count; i++) {
		model->slot_memory[i] = memory[i];
		slots[i] = (void *)memory[i].base;
	}
	versions_finish(&model->versions);
	versions_init(&model->versions, slots, model->slot_count, &model->head->leased);
}

void model_adopt_slots(struct model *model, const struct memory *memory)
{
	struct geometry *geometry = model->geometry;

	for (uint32_t i = 0; i < model->slot_count; i++) {
		struct slot_header *slot = (void *)memory[i].base;

		slot->profile_count = geometry->profile_count;
		for (uint32_t p = 0; p < geometry->profile_count; p++) {
			slot->profiles[p].region_offset = geometry->region_offsets[p];
			slot->profiles[p].region_bytes = geometry->images[p]->image_bytes;
		}
		slot->notes_offset = geometry->notes_offset;
		slot->description_offset = geometry->description_offset;
		slot->description_bytes = geometry->description_bytes;
		slot->description_checksum = layout_checksum(geometry->description, geometry->description_bytes);
		memcpy(memory[i].base + geometry->description_offset, geometry->description, geometry->description_bytes);
		segment_fill(model, &slot->segment, SEGMENT_SLOT, &memory[i], i);
	}
	FAILPOINT("slots-made");
	geometry_forget_description(geometry);
	model_take_slots(model, memory);
}

void model_take_head(struct model *model, const struct memory *memory)
{
	model->head_memory = *memory;
	model->head = (void *)memory->base;
	model->records = (void *)(memory->base + sizeof *model->head);
}

void model_adopt(struct model *model, struct segment_order *order)
{
	model_take_head(model, &order->memory[0]);
	snprintf(model->head->name, sizeof model->head->name, "%s", model->name);
	model->head->world = model->world;
	model->head->slot_count = model->slot_count;
	model->head->stage_count = model->stage_count;
	model->head->checksum = head_header_checksum(model->head);
	segment_fill(model, &model->head->segment, SEGMENT_HEAD, &model->head_memory, 0);
	FAILPOINT("head-made");
	model_adopt_slots(model, &order->memory[1]);
	book_note(model);
	model->serving = true;
}

void model_adopt_stage(struct model *model, const struct segment_order *order)
{
	struct rank_record *record = &model->records[order->rank];
	struct rank *rank = &model->ranks[order->rank];
	struct stage_header *header;
	uint64_t bytes;

	rank->stage = order->memory[0];
	header = (void *)rank->stage.base;
	header->stage_count = model->stage_count;
	header->stage_bytes = rank->manifest->stage_bytes;
	(void)layout_stage_bytes(header->stage_bytes, model->stage_count, &header->stage_stride, &bytes);
	memcpy(rank->stage.base + bytes, order->pieces, order->pieces_bytes);
	segment_fill(model, &header->segment, SEGMENT_STAGE, &rank->stage, order->rank);
	record->pieces_bytes = order->pieces_bytes;
	record->pieces_checksum = layout_checksum(order->pieces, order->pieces_bytes);
	FAILPOINT("stages-unnamed");
	layout_barrier();
	record->stage_segment = rank->stage.segment;
	FAILPOINT("stages-made");
}

void model_stage_drop(struct model *model, uint32_t rank, const struct host *host)
{
	struct memory *stage = &model->ranks[rank].stage;

	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		inflow_finish(&model->ranks[rank].inflows[i]);
	if (!stage->base)
		return;
	/* From here on nobody looks for it. */
	model->records[rank].stage_segment = 0;
	layout_barrier();
	FAILPOINT("stages-forgotten");
	host->memory_drop(host->context, stage);
}

void model_enclosure_write(struct model *model, uint32_t rank, uint32_t stage, const struct enclosure *enclosure)
{
	struct stage_record *record = &model->records[rank].stages[stage];
	size_t bytes = enclosure->metadata ? strlen(enclosure->metadata) : 0;

	record->seeds = enclosure->seeds;
	record->updates = enclosure->updates;
	strcpy(record->profile, enclosure->profile);
	record->metadata_bytes = (uint32_t)bytes;
	record->metadata_checksum = layout_checksum(enclosure->metadata, bytes);
	/* That of other ranks is never looked at. */
	if (rank == 0 && bytes > 0)
		memcpy(model->head_memory.base + layout_metadata_offset(model->world, stage), enclosure->metadata, bytes);
}

/*
 * The pieces of all ranks, with a candidate in the place of one of them; NULL entries where a rank has not registered.
 * Free with free().
 */
static const struct manifest **pieces_collect(const struct model *model, uint32_t rank,
                                              const struct manifest *candidate, bool *ret_complete)
{
	const struct manifest **pieces = calloc(model->world, sizeof *pieces);

	*ret_complete = true;
	for (uint32_t r = 0; pieces && r < model->world; r++) {
		pieces[r] = r == rank ? candidate : model->ranks[r].manifest;
		*ret_complete = *ret_complete && pieces[r] != NULL;
	}
	return pieces;
}

int model_pieces_check(const struct model *model, uint32_t rank, const struct manifest *candidate,
                       struct reason *reason)
{
	bool complete;
	const struct manifest **pieces = pieces_collect(model, rank, candidate, &complete);
	int error = pieces ? 0 : -ENOMEM;

	if (!error && complete)
		error = manifest_tiling_check(pieces, model->world, reason);
	free(pieces);
	return error;
}

static int plan_make(struct model *model, const struct geometry *geometry, const struct manifest *const *pieces,
                     struct reason *reason)
{
	struct plan *plan;
	struct apply apply;
	int error;

	error = plan_create(geometry, pieces, model->world, &plan, reason);
	if (error)
		return error;
	error = apply_init(&apply, plan);
	if (error) {
		plan_destroy(plan);
		return error;
	}
	apply_finish(&model->apply);
	plan_destroy(model->plan);
	model->plan = plan;
	model->apply = apply;
	model->apply.owner = model;
	return 0;
}

int model_replan(struct model *model, const struct geometry *geometry, struct reason *reason)
{
	bool complete;
	const struct manifest **pieces = pieces_collect(model, UINT32_MAX, NULL, &complete);
	int error = pieces ? 0 : -ENOMEM;

	if (!error && complete)
		error = plan_make(model, geometry, pieces, reason);
	free(pieces);
	return error;
}

int model_rank_pieces(struct model *model, uint32_t rank, struct manifest *candidate, struct reason *reason)
{
	bool complete;
	const struct manifest **pieces = pieces_collect(model, rank, candidate, &complete);
	int error = pieces ? 0 : -ENOMEM;

	if (!error && complete)
		error = plan_make(model, model->geometry, pieces, reason);
	free(pieces);
	if (error) {
		manifest_destroy(candidate);
		return error;
	}
	manifest_destroy(model->ranks[rank].manifest);
	model->ranks[rank].manifest = candidate;
	return 0;
}

bool model_stage_sweep(struct model *model, uint32_t rank, const struct host *host)
{
	struct rank *at = &model->ranks[rank];

	if (!at->stage.base || at->attached_peer != 0 || intake_pending(&model->records[rank], model->stage_count) > 0)
		return false;
	model_stage_drop(model, rank, host);
	return true;
}

const struct geometry *model_newest_geometry(const struct model *model)
{
	return model->heirloom.geometry ? model->heirloom.geometry : model->geometry;
}

const struct slot_profile *model_newest_facts(const struct model *model, uint32_t profile)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	int32_t index = geometry_profile(model_newest_geometry(model), model->geometry->profiles[profile].name);

	return newest && index >= 0 ? &newest->profiles[index] : NULL;
}

const struct memory *model_newest_memory(const struct model *model)
{
	return model->heirloom.memory.base ? &model->heirloom.memory : &model->slot_memory[model->versions.current];
}

const uint64_t *model_newest_step(const struct model *model)
{
	return model->has_step ? &model->step : NULL;
}

uint32_t model_lag(const struct model *model)
{
	uint32_t lag = 0;

	for (uint32_t r = 0; model->serving && r < model->world; r++) {
		uint32_t pending = intake_pending(&model->records[r], model->stage_count);

		if (pending > lag)
			lag = pending;
	}
	return lag;
}

void model_stage_mirror(struct model *model, uint32_t rank, uint32_t stage)
{
	struct stage_header *header = (void *)model->ranks[rank].stage.base;

	/* Pairs with the trainer's acquire load before it fills a free stage. */
	if (header)
		atomic_store_explicit(&header->state[stage], stage_state(&model->records[rank].stages[stage]),
		                      memory_order_release);
}

bool model_slot_fits(const struct model *model, uint32_t slot)
{
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct image *image = model->geometry->images[p];
		const uint8_t *region = model->slot_memory[slot].base + model->geometry->region_offsets[p];
		uint64_t json_bytes;

		memcpy(&json_bytes, region, sizeof json_bytes);
		if (json_bytes != image->data_offset - sizeof json_bytes ||
		    memcmp(region + sizeof json_bytes, image->header, image->header_fixed_bytes) != 0)
			return false;
	}
	return true;
}
