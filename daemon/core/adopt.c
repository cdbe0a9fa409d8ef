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

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/description.h"
#include "daemon/core/estate.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/notes.h"
#include "daemon/core/ranks.h"
#include "daemon/core/relay.h"

/*
 * How long stages and views of before are kept for those who had them. A trainer that comes later gets other stages, as
 * after any lost connection.
 */
enum { AWAITED_MS = 600000 };

/* A model that is being put together from it. Its segments are taken when everything is there. */
struct adoption {
	const struct memory *head;
	const struct memory *slots[SLOT_COUNT_MAX];
	const struct memory *heirloom; /* NULL: none */
	struct geometry *heirloom_geometry; /* owned until the model has it; of the heirloom */
	struct book_facts book;
	struct model *model;
	struct ranks_found found;
};

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
		const struct memory *slot = estate_find(estate, adoption->book.slots[i], SEGMENT_SLOT, reason);

		if (!slot)
			return STATUS_ECORRUPT;
		adoption->slots[i] = slot;
		if (estate_header(slot)->index != i || slot->bytes != adoption->slots[0]->bytes ||
		    estate_header(slot)->model != estate_header(adoption->head)->model ||
		    estate_header(slot)->geometry != estate_header(adoption->slots[0])->geometry)
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
	heirloom = estate_find(estate, adoption->book.heirloom, SEGMENT_SLOT, reason);
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
	if (head->checksum != head_header_checksum(head))
		return reason_set(reason, STATUS_ECORRUPT, "its head is damaged: name, ranks, slots or stages are not as they "
		                  "were made");
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
	struct memory head = estate_take(adoption->head), slots[SLOT_COUNT_MAX];
	struct slot_header *heirloom;
	uint64_t leased;
	int error;

	for (uint32_t i = 0; i < model->slot_count; i++)
		slots[i] = estate_take(adoption->slots[i]);
	model_take_head(model, &head);
	leased = model->head->leased;
	model_take_slots(model, slots);
	if (adoption->heirloom) {
		model->heirloom.memory = estate_take(adoption->heirloom);
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
	service->counters.snapshots_adopted += adoption->found.snapshot_count;
	service->counters.pushes_incomplete += adoption->found.lost_count;
	service_event_about(service, &about, "%s: goes on in its memory: step %" PRIu64 ", version %" PRIu64 ", %" PRIu64
	                    " updates; %" PRIu32 " acknowledged snapshots are averaged now", model->name,
	                    newest ? newest->step : 0, newest ? newest->version : 0, newest ? newest->updates : 0,
	                    adoption->found.snapshot_count);
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
		error = ranks_take(service, estate, adoption->model, &adoption->found, reason);
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

		if (!at->base || estate_check(at, SEGMENT_HEAD, NULL) != 0 ||
		    estate_header(at)->model >= below)
			continue;
		if (!best || estate_header(at)->model > estate_header(best)->model)
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
		if (!reason.text[0] && (at->bytes < LAYOUT_PAGE_BYTES || estate_header(at)->layout_version != 0))
			(void)estate_check(at, segment_identity_kind(at->segment), &reason);
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
		below = estate_header(head)->model;
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
