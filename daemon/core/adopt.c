/*
 * Adopting the segments that an earlier daemon has left behind, in systemd's fd store or as files: nothing is copied.
 *
 *     segments -> heads that are not gone -> book -> slots -> description -> model
 *                                                 -> heirloom, where an update was to go on from one
 *                                                 -> stages -> pieces -> snapshots that were acknowledged
 *
 * The daemon before may have been killed at any instruction. A model is taken over as it was then, or not at all: its
 * segments are given back with a reason, and its checkpoint is what is left of it. The newest slot that is whole is the
 * current version; acknowledged snapshots that are not in it are averaged now. Everything that is written here may be
 * written again by the next daemon, if this one is killed before it is done.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attributes.h"
#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/description.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/notes.h"
#include "daemon/core/relay.h"

/*
 * How long stages and views of before are kept for those who had them. A trainer that comes later gets other stages, as
 * after any lost connection.
 */
enum { AWAITED_MS = 600000 };

/* What is left behind. base is NULL where a model has taken it. */
struct estate {
	struct memory *segments; /* owned */
	uint32_t count;
};

/* A model that is being put together from it. Its segments are taken when everything is there. */
struct adoption {
	const struct memory *head;
	const struct memory *slots[SLOT_COUNT_MAX];
	const struct memory *heirloom; /* NULL: none */
	struct geometry *heirloom_geometry; /* owned until the model has it; of the heirloom */
	struct book_facts book;
	struct model *model;
	uint32_t snapshot_count, lost_count; /* acknowledged: to be averaged now, or no longer there */
};

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static const struct segment_header *header_of(const struct memory *segment)
{
	return (const void *)segment->base;
}

/*
 * Whether a segment is what its identity says. The identity is that of its name, to which nobody but the daemon can
 * write; a trainer may have written anything into the header of its stages.
 */
static int segment_check(const struct memory *segment, enum segment_kind kind, struct reason *reason)
{
	if (segment_identity_kind(segment->segment) != kind)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " is of another kind than its name says",
		                  segment->segment);
	if (segment->bytes < LAYOUT_PAGE_BYTES || segment->bytes % LAYOUT_PAGE_BYTES != 0)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " has %" PRIu64
		                  " bytes, and whole pages of %d are needed", segment->segment, segment->bytes,
		                  LAYOUT_PAGE_BYTES);
	if (header_of(segment)->layout_version != 0 && header_of(segment)->segment != segment->segment)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " holds what was segment %016" PRIx64,
		                  segment->segment, header_of(segment)->segment);
	return segment_header_check(header_of(segment), kind, segment->bytes, reason);
}

/* The segment of that identity and kind, or NULL with a sentence. */
static const struct memory *find(const struct estate *estate, uint64_t segment, enum segment_kind kind,
                                 struct reason *reason)
{
	for (uint32_t i = 0; i < estate->count; i++) {
		const struct memory *at = &estate->segments[i];

		if (!at->base || at->segment != segment)
			continue;
		return segment_check(at, kind, reason) == 0 ? at : NULL;
	}
	reason_set(reason, STATUS_ECORRUPT, "its segment %016" PRIx64 " is not there", segment);
	return NULL;
}

/* Takes a segment out of the estate. */
static struct memory take(const struct memory *segment)
{
	struct memory *at = (struct memory *)(uintptr_t)segment, taken = *at;

	*at = (struct memory){ .fd = -1, .fd_read_only = -1 };
	return taken;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

/* Whether a part of a segment lies in it. */
static bool lies_in(const struct memory *segment, uint64_t offset, uint64_t bytes)
{
	return offset <= segment->bytes && bytes <= segment->bytes - offset && offset % sizeof(uint64_t) == 0;
}

/* The geometry of a slot, from its description: it must be laid out here as it was there. */
static int geometry_read(const struct memory *segment, struct geometry **ret_geometry, struct reason *reason)
{
	const struct slot_header *slot = (const void *)segment->base;
	const uint8_t *description = lies_in(segment, slot->description_offset, slot->description_bytes)
	                                     ? segment->base + slot->description_offset
	                                     : NULL;
	struct profile *profiles;
	struct manifest *manifest;
	struct geometry *geometry;
	uint32_t profile_count;
	int error;

	if (!description || layout_checksum(description, slot->description_bytes) != slot->description_checksum)
		return reason_set(reason, STATUS_ECORRUPT, "the description in segment %016" PRIx64 " is damaged",
		                  segment->segment);
	profiles = calloc(PROFILE_COUNT_MAX, sizeof *profiles);
	if (!profiles)
		return -ENOMEM;
	error = description_decode(description, slot->description_bytes, &manifest, profiles, &profile_count, reason);
	if (!error) {
		error = geometry_create(manifest, profiles, profile_count, MODEL_METADATA_BYTES, &geometry, reason);
		manifest_destroy(manifest);
	}
	free(profiles);
	if (error)
		return error;
	geometry_forget_description(geometry);
	if (geometry->checksum != slot->segment.geometry || geometry->slot_bytes != segment->bytes ||
	    geometry->notes_offset != slot->notes_offset) {
		geometry_destroy(geometry);
		return reason_set(reason, STATUS_EVERSION, "this emad lays its averages out otherwise than the one that made "
		                  "them: what that one has written to disk is left of them");
	}
	*ret_geometry = geometry;
	return 0;
}

static int slots_find(const struct estate *estate, struct adoption *adoption, uint32_t slot_count, struct reason *reason)
{
	for (uint32_t i = slot_count; i < SLOT_COUNT_MAX; i++)
		if (adoption->book.slots[i] != 0)
			return reason_set(reason, STATUS_ECORRUPT, "its head is of %" PRIu32 " slots and its book of more",
			                  slot_count);
	for (uint32_t i = 0; i < slot_count; i++) {
		const struct memory *slot = find(estate, adoption->book.slots[i], SEGMENT_SLOT, reason);

		if (!slot)
			return STATUS_ECORRUPT;
		adoption->slots[i] = slot;
		if (header_of(slot)->index != i || slot->bytes != adoption->slots[0]->bytes ||
		    header_of(slot)->model != header_of(adoption->head)->model ||
		    header_of(slot)->geometry != header_of(adoption->slots[0])->geometry)
			return reason_set(reason, STATUS_ECORRUPT, "its slots 0 and %" PRIu32 " are of different layouts", i);
	}
	return 0;
}

/* It is not needed any more where a slot holds a newer version: then it may be gone, or damaged. -ENOMEM. */
static int heirloom_find(const struct estate *estate, struct adoption *adoption, struct reason *reason)
{
	const struct memory *heirloom;
	int error;

	if (adoption->book.heirloom == 0)
		return 0;
	heirloom = find(estate, adoption->book.heirloom, SEGMENT_SLOT, reason);
	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++)
		if (heirloom == adoption->slots[i])
			heirloom = NULL;
	error = heirloom ? geometry_read(heirloom, &adoption->heirloom_geometry, reason) : 0;
	if (heirloom && !error)
		adoption->heirloom = heirloom;
	return error == -ENOMEM ? error : 0;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static int head_check(const struct memory *segment, struct reason *reason)
{
	const struct head_header *head = (const void *)segment->base;

	if (memchr(head->name, '\0', sizeof head->name) == NULL ||
	    model_name_check(head->name, strlen(head->name), NULL) != 0)
		return reason_set(reason, STATUS_ECORRUPT, "its name is damaged");
	if (head->world < 1 || head->world > WORLD_MAX || head->slot_count < 2 || head->slot_count > SLOT_COUNT_MAX ||
	    head->stage_count < 1 || head->stage_count > STAGE_COUNT_MAX ||
	    layout_head_bytes(head->world, head->stage_count) != segment->bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "its head of %" PRIu64 " bytes cannot be of %" PRIu32 " ranks, %" PRIu32 " slots and %" PRIu32
		                  " stages", segment->bytes, head->world, head->slot_count, head->stage_count);
	/* Numbers that only count up from 1; JSON's integers are signed. */
	if (head->gone != 0 || head->epoch > INT64_MAX || head->version > INT64_MAX)
		return reason_set(reason, STATUS_ECORRUPT, "its head is damaged: epoch %" PRIu64 ", version %" PRIu64,
		                  head->epoch, head->version);
	return 0;
}

/* The slots are as large as they were made, whatever the profiles are now. */
static void slots_account(struct model *model, const struct geometry *made)
{
	model->memory_bytes -= relay_slot_bytes(model, model->geometry);
	geometry_settle(model->geometry, made);
	model->memory_bytes += relay_slot_bytes(model, model->geometry);
}

/* The model with the profiles of its book, over slots that were made with others perhaps. */
static int model_make(struct adoption *adoption, struct reason *reason)
{
	const struct head_header *head = (const void *)adoption->head->base;
	const struct model_counts counts = { head->world, head->slot_count, head->stage_count };
	struct generation *generation = &adoption->book.generation;
	struct profile *profiles = calloc(PROFILE_COUNT_MAX, sizeof *profiles);
	struct geometry *made = NULL;
	int error = profiles ? geometry_read(adoption->slots[0], &made, reason) : -ENOMEM;

	for (uint32_t p = 0; !error && p < generation->profile_count; p++)
		profiles[p] = generation->profiles[p].profile;
	if (!error)
		error = model_create_with(&counts, head->name, manifest_share(made->manifest), profiles,
		                          generation->profile_count, &adoption->model, reason);
	if (!error && !geometry_fits(adoption->model->geometry, made))
		error = reason_set(reason, STATUS_ECORRUPT, "the profiles of its book do not fit its slots");
	if (!error)
		slots_account(adoption->model, made);
	geometry_destroy(made);
	free(profiles);
	return error;
}

static int heirloom_fit(struct adoption *adoption)
{
	struct heirloom *heirloom = &adoption->model->heirloom;
	const struct geometry *geometry = adoption->model->geometry;

	if (!adoption->heirloom)
		return 0;
	heirloom->sources = calloc((size_t)geometry->manifest->tensor_count * geometry->profile_count,
	                           sizeof *heirloom->sources);
	if (!heirloom->sources)
		return -ENOMEM;
	geometry_sources(geometry, adoption->heirloom_geometry, heirloom->sources);
	return 0;
}

/* What a slot says of its own layout, where no checksum vouches for it: an update would publish it. */
static void slot_restore(const struct model *model, uint32_t index)
{
	struct slot_header *slot = model->versions.slots[index];
	const struct geometry *geometry = model->geometry;

	if (slot->version != 0)
		return;
	slot->profile_count = geometry->profile_count;
	slot->notes_offset = geometry->notes_offset;
	for (uint32_t p = 0; p < geometry->profile_count; p++) {
		slot->profiles[p].region_offset = geometry->region_offsets[p];
		slot->profiles[p].region_bytes = geometry->images[p]->image_bytes;
	}
}

/* From here on the segments are the model's, also on failure. */
static int memory_take(struct service *service, const struct instant *now, struct adoption *adoption)
{
	struct model *model = adoption->model;
	struct memory head = take(adoption->head), slots[SLOT_COUNT_MAX];
	struct slot_header *heirloom;
	uint64_t leased;
	int error;

	for (uint32_t i = 0; i < model->slot_count; i++)
		slots[i] = take(adoption->slots[i]);
	model_take_head(model, &head);
	leased = model->head->leased;
	model_take_slots(model, slots);
	if (adoption->heirloom) {
		model->heirloom.memory = take(adoption->heirloom);
		model->heirloom.geometry = adoption->heirloom_geometry;
		adoption->heirloom_geometry = NULL;
		heirloom = (void *)model->heirloom.memory.base;
		if (heirloom->version != 0 && heirloom->checksum == slot_header_checksum(heirloom))
			versions_inherit(&model->versions, heirloom);
	}
	error = versions_resume(&model->versions, leased, PEER_AWAITED, now->monotonic_ms);
	for (uint32_t i = 0; i < model->slot_count; i++)
		slot_restore(model, i);
	if (!error && model->heirloom.geometry && model->versions.current != (int32_t)model->slot_count) {
		versions_disinherit(&model->versions);
		heirloom_drop(model, &service->host);
	}
	return error;
}

/* A version that was published, and whose slot is damaged. The one before it is all that is left then. */
static int version_loss(struct service *service, const struct adoption *adoption, struct reason *reason)
{
	const struct model *model = adoption->model;
	const struct slot_header *newest = versions_newest(&model->versions);
	uint64_t known = model->head->version;
	struct event about = {
		.severity = EVENT_ERROR,
		.model = model->name,
		.error = status_name(STATUS_ECORRUPT),
		.pid = -1,
	};

	if (adoption->book.generation.version > known)
		known = adoption->book.generation.version;
	if (newest ? newest->version >= known : known == 0)
		return 0;
	if (!newest)
		return reason_set(reason, STATUS_ECORRUPT, "version %" PRIu64 " is damaged, and there is none before it", known);
	about.step = newest->step;
	service_event_about(service, &about, "%s: version %" PRIu64 " is damaged and lost; what is left is version %" PRIu64
	                    " of step %" PRIu64, model->name, known, newest->version, newest->step);
	return 0;
}

static int notes_take(struct service *service, struct model *model)
{
	struct reason reason = { "" };
	int error = notes_read(model, &reason);

	if (error && error != -ENOMEM)
		service_event(service, EVENT_ERROR, model->name, error, "%s: %s", model->name, reason.text);
	return error == -ENOMEM ? error : 0;
}

static int facts_take(struct service *service, struct adoption *adoption, const struct instant *now,
                      struct reason *reason)
{
	struct model *model = adoption->model;
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct book_facts *book = &adoption->book;
	uint64_t before = book->generation.version;
	int error = version_loss(service, adoption, reason);

	if (error)
		return error;
	if (book->is_other)
		service_event(service, EVENT_WARNING, model->name, STATUS_ECORRUPT, "%s: one of its two books is damaged: if it "
		              "was the newer one, the latest change of profiles, guards or attributes is forgotten",
		              model->name);
	book_restore(model, &adoption->book.generation);
	model->version_next = (before > model->head->version ? before : model->head->version) + 1;
	model->checkpoint.owns = book->checkpoint_version != 0;
	model->checkpoint.suspects = true;
	model->checkpoint.version = book->checkpoint_version;
	model->checkpoint.step = book->checkpoint_step;
	model->facts_changed = book->checkpoint_lags;
	model->checkpoint.since_ms = now->monotonic_ms;
	if (!newest)
		return 0;
	if (newest->version >= model->version_next)
		model->version_next = newest->version + 1;
	if (newest->version > before) {
		model->has_step = true;
		model->step = newest->step;
	}
	return notes_take(service, model);
}

/* ---- ranks ------------------------------------------------------------------------------------------------------- */

/*
 * The list of a rank's pieces. Its trainer may be writing to it this very moment: what is looked at is a copy.
 * STATUS_ECORRUPT with a sentence, -ENOMEM.
 */
static int pieces_read(const struct memory *segment, const struct rank_record *record, struct manifest **ret_pieces,
                       struct reason *reason)
{
	uint64_t bytes = record->pieces_bytes;
	uint8_t *copy;
	int error;

	if (bytes == 0 || bytes > segment->bytes || layout_page_round(bytes) > segment->bytes)
		return reason_set(reason, STATUS_ECORRUPT, "its pieces are %" PRIu64 " bytes, and its stages have %" PRIu64, bytes,
		                  segment->bytes);
	copy = malloc(bytes);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, segment->base + segment->bytes - layout_page_round(bytes), bytes);
	if (layout_checksum(copy, bytes) == record->pieces_checksum)
		error = manifest_decode(copy, bytes, ret_pieces, reason);
	else
		error = reason_set(reason, STATUS_ECORRUPT, "the list of its pieces was overwritten");
	free(copy);
	return error;
}

/* A rank's stages, with what its pieces are. Without them the rank must register anew. */
static int stage_take(const struct estate *estate, struct model *model, uint32_t rank, struct reason *reason)
{
	const struct rank_record *record = &model->records[rank];
	const struct memory *segment = find(estate, record->stage_segment, SEGMENT_STAGE, reason);
	struct manifest *manifest;
	uint64_t stride, bytes, needed;
	int error;

	if (!segment)
		return STATUS_ECORRUPT;
	if (header_of(segment)->model != model->id || header_of(segment)->index != rank)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " is not that of its stages",
		                  segment->segment);
	error = pieces_read(segment, record, &manifest, reason);
	if (error)
		return error;
	bytes = segment->bytes - layout_page_round(record->pieces_bytes);
	if (layout_stage_bytes(manifest->stage_bytes, model->stage_count, &stride, &needed) != 0 || needed != bytes)
		error = reason_set(reason, STATUS_ECORRUPT, "its stages have %" PRIu64 " bytes, and not what its pieces need",
		                   bytes);
	if (!error)
		error = manifest_compare(manifest, model->manifest, reason);
	if (error) {
		manifest_destroy(manifest);
		return error;
	}
	model->ranks[rank].manifest = manifest;
	model->ranks[rank].stage = take(segment);
	/* Its trainer comes back and attaches again, or somebody else takes the rank. */
	model->ranks[rank].attached_peer = PEER_AWAITED;
	return 0;
}

/* What belonged to a snapshot beside its values. Metadata that is none any more is left out. */
static int enclosure_read(struct model *model, uint32_t rank, uint32_t stage)
{
	int error;
	struct stage_record *record = &model->records[rank].stages[stage];
	struct enclosure *enclosure = &model->ranks[rank].enclosures[stage];
	const char *metadata = (const char *)model->head_memory.base + layout_metadata_offset(model->world, stage);

	*enclosure = (struct enclosure){ .seeds = record->seeds != 0, .updates = record->updates };
	memcpy(enclosure->profile, record->profile, sizeof enclosure->profile);
	enclosure->profile[sizeof enclosure->profile - 1] = '\0';
	if (rank != 0 || record->metadata_bytes == 0 || record->metadata_bytes > METADATA_BYTES_MAX)
		return 0;
	error = metadata_parse(metadata, record->metadata_bytes, &enclosure->metadata, NULL);
	return error == -ENOMEM ? error : 0;
}

/* Snapshots that were acknowledged, and whose values are gone. */
static void snapshots_lose(struct service *service, struct adoption *adoption, uint32_t rank, const char *why)
{
	struct model *model = adoption->model;

	for (uint32_t i = 0; i < model->stage_count; i++) {
		const struct stage_record *stage = &model->records[rank].stages[i];
		const struct event about = {
			.severity = EVENT_ERROR,
			.model = model->name,
			.error = status_name(STATUS_ECORRUPT),
			.step = stage->step,
			.pid = -1,
		};

		if (stage->state == STAGE_FREE)
			continue;
		reason_set(&model->ranks[rank].refusal, STATUS_EREFUSED, "step %" PRIu64 " was lost with a daemon: %s",
		           stage->step, why);
		service_event_about(service, &about, "%s: step %" PRIu64 " of rank %" PRIu32
		                    " was accepted and cannot be averaged any more: %s", model->name, stage->step, rank, why);
		intake_settle(&model->records[rank], i, OUTCOME_INCOMPLETE, 0, 0);
		adoption->lost_count++;
	}
}

static int rank_take(struct service *service, const struct estate *estate, struct adoption *adoption, uint32_t rank)
{
	struct model *model = adoption->model;
	struct rank_record *record = &model->records[rank];
	const struct slot_header *newest = versions_newest(&model->versions);
	struct reason reason = { "its stages are not there" };
	int error = 0;

	intake_adopt(record, model->stage_count, newest ? newest->version : 0, newest ? newest->calls : 0);
	/* A head is not believed whose newest is larger. */
	if (record->epoch >= service->epoch_next && record->epoch <= INT64_MAX)
		service->epoch_next = record->epoch + 1;
	if (record->stage_segment != 0)
		error = stage_take(estate, model, rank, &reason);
	if (error == -ENOMEM)
		return error;
	if (record->stage_segment == 0 || error) {
		snapshots_lose(service, adoption, rank, reason.text);
		/* What its pieces are is not known: whoever held it is told to register again. */
		intake_claim(record, 0, 0, 0);
		return 0;
	}
	for (uint32_t i = 0; i < model->stage_count && !error; i++) {
		model_stage_mirror(model, rank, i);
		if (record->stages[i].state == STAGE_FREE)
			continue;
		adoption->snapshot_count++;
		error = enclosure_read(model, rank, i);
	}
	return error;
}

static int ranks_take(struct service *service, const struct estate *estate, struct adoption *adoption,
                      struct reason *reason)
{
	struct model *model = adoption->model;
	int error = 0;

	for (uint32_t r = 0; r < model->world && !error; r++)
		error = rank_take(service, estate, adoption, r);
	if (model->head->epoch >= service->epoch_next)
		service->epoch_next = model->head->epoch + 1;
	if (!error)
		error = model_pieces_check(model, UINT32_MAX, NULL, reason);
	return error ? error : model_replan(model, model->geometry, reason);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static void adopted(struct service *service, const struct adoption *adoption)
{
	struct model *model = adoption->model;
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct event about = {
		.severity = EVENT_NOTICE,
		.kind = EVENT_MODEL_RESUMED,
		.model = model->name,
		.step = newest ? newest->step : UINT64_MAX,
		.pid = -1,
	};

	model->serving = true;
	service_include(service, model);
	service->counters.models_adopted++;
	service->counters.snapshots_adopted += adoption->snapshot_count;
	service->counters.pushes_incomplete += adoption->lost_count;
	service_event_about(service, &about, "%s: goes on in its memory: step %" PRIu64 ", version %" PRIu64 ", %" PRIu64
	                    " updates; %" PRIu32 " acknowledged snapshots are averaged now", model->name,
	                    newest ? newest->step : 0, newest ? newest->version : 0, newest ? newest->updates : 0,
	                    adoption->snapshot_count);
	service_touch(service, model);
}

static int adopt(struct service *service, const struct instant *now, const struct estate *estate,
                 struct adoption *adoption, struct reason *reason)
{
	const struct head_header *head = (const void *)adoption->head->base;
	int error = head_check(adoption->head, reason);

	if (!error && service_find(service, head->name, strlen(head->name)))
		error = reason_set(reason, STATUS_EEXISTS, "a newer model of its name is there");
	if (!error)
		error = book_read(head, &adoption->book, reason);
	if (error)
		return error;
	if (adoption->book.ancestor != 0)
		error = reason_set(reason, STATUS_EEXISTS, "it had not taken over yet: its registration is repeated");
	if (!error)
		error = slots_find(estate, adoption, head->slot_count, reason);
	if (!error)
		error = heirloom_find(estate, adoption, reason);
	if (!error)
		error = model_make(adoption, reason);
	if (!error)
		error = heirloom_fit(adoption);
	if (error)
		return error;
	FAILPOINT("adopt-found");
	adoption->model->id = head->segment.model;
	error = memory_take(service, now, adoption);
	if (!error)
		error = facts_take(service, adoption, now, reason);
	if (!error)
		error = ranks_take(service, estate, adoption, reason);
	FAILPOINT("adopt-taken");
	return error;
}

/* For models that are destroyed while their memory stays for another try. */
static void leave(void *context, struct memory *memory)
{
	(void)context;
	*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
}

static void failed(struct service *service, const char *name, int error, const struct reason *reason)
{
	if (error == STATUS_EEXISTS) {
		service_event(service, EVENT_DEBUG, name, 0, "%s: memory of an earlier state is given back: %s", name,
		              reason->text);
		return;
	}
	service->counters.models_abandoned++;
	service_event(service, EVENT_ERROR, name, error, "%s: cannot go on in its memory, which is given back: %s", name,
	              reason->text[0] ? reason->text : status_text(error));
}

/* A head, and with it its model; or a reason why not. -ENOMEM: everything is as it was found. */
static int head_adopt(struct service *service, const struct instant *now, const struct estate *estate,
                      const struct memory *segment)
{
	const struct head_header *head = (const void *)segment->base;
	struct adoption *adoption = calloc(1, sizeof *adoption);
	struct reason reason = { "" };
	char name[MODEL_NAME_BYTES_MAX + 1] = "?";
	struct host host = service->host;
	int error;

	if (!adoption)
		return -ENOMEM;
	if (head_check(segment, &reason) == 0)
		strcpy(name, head->name);
	adoption->head = segment;
	error = adopt(service, now, estate, adoption, &reason);
	if (error == -ENOMEM)
		host.memory_drop = leave;
	if (error)
		model_destroy(adoption->model, &host);
	else
		adopted(service, adoption);
	generation_finish(&adoption->book.generation);
	geometry_destroy(adoption->heirloom_geometry);
	free(adoption);
	if (error && error != -ENOMEM)
		failed(service, name, error, &reason);
	return error == -ENOMEM ? error : 0;
}

/* The newest model below a number: newer before older, because one that has taken over from another has its name. */
static const struct memory *head_next(const struct estate *estate, uint64_t below)
{
	const struct memory *best = NULL;

	for (uint32_t i = 0; i < estate->count; i++) {
		const struct memory *at = &estate->segments[i];

		if (!at->base || segment_check(at, SEGMENT_HEAD, NULL) != 0 ||
		    header_of(at)->model >= below)
			continue;
		if (!best || header_of(at)->model > header_of(best)->model)
			best = at;
	}
	return best;
}

/*
 * What no model has taken; of the first that is not even whole it is said why. Those that were just being made are
 * nobody's yet.
 */
static void rest_give_back(struct service *service, struct estate *estate)
{
	struct reason reason = { "" };
	uint64_t bytes = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < estate->count; i++) {
		struct memory *at = &estate->segments[i];

		if (!at->base)
			continue;
		if (!reason.text[0] && (at->bytes < LAYOUT_PAGE_BYTES || header_of(at)->layout_version != 0))
			(void)segment_check(at, segment_identity_kind(at->segment), &reason);
		bytes += at->bytes;
		count++;
		service->host.memory_drop(service->host.context, at);
	}
	if (count > 0)
		service_event(service, reason.text[0] ? EVENT_WARNING : EVENT_DEBUG, NULL, 0,
		              "%" PRIu32 " segments of an earlier daemon, %" PRIu64 " bytes, are of no model and given back%s%s",
		              count, bytes, reason.text[0] ? ": " : "", reason.text);
}

int service_adopt(struct service *service, const struct instant *now, const struct memory *segments, uint32_t count)
{
	struct estate estate = { .segments = malloc((count + 1) * sizeof *segments), .count = count };
	const struct memory *head;
	uint64_t below = UINT64_MAX;
	int error = estate.segments ? 0 : -ENOMEM;

	if (!error && count > 0)
		memcpy(estate.segments, segments, count * sizeof *segments);
	while (!error && (head = head_next(&estate, below)) != NULL) {
		below = header_of(head)->model;
		if (service->model_id_next <= below)
			service->model_id_next = below + 1;
		if (((const struct head_header *)(const void *)head->base)->gone != HEAD_GONE)
			error = head_adopt(service, now, &estate, head);
	}
	FAILPOINT("adopt-all");
	if (!error)
		rest_give_back(service, &estate);
	free(estate.segments);
	if (error)
		return error;
	for (struct model *model = service->models; model; model = model->next)
		keep_adopted(service, now, model);
	if (service->models)
		service->awaited_due_ms =
		        now->monotonic_ms + (service->settings.lease_min_ms > AWAITED_MS ? service->settings.lease_min_ms
		                                                                         : AWAITED_MS);
	service_limits_warn(service);
	service_settle(service, now);
	return 0;
}
