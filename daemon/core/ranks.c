/*
 * What is left of a model's ranks. See ranks.h.
 */
#include "daemon/core/ranks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attributes.h"
#include "daemon/core/call.h"

/* ---- stages ------------------------------------------------------------------------------------------------------ */

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
	const struct memory *segment = estate_find(estate, record->stage_segment, SEGMENT_STAGE, reason);
	struct manifest *manifest;
	uint64_t stride, bytes, needed;
	int error;

	if (!segment)
		return STATUS_ECORRUPT;
	if (estate_header(segment)->model != model->id || estate_header(segment)->index != rank)
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
	model->ranks[rank].stage = estate_take(segment);
	/* Its trainer comes back and attaches again, or somebody else takes the rank. */
	model->ranks[rank].attached_peer = PEER_AWAITED;
	return 0;
}

/* What belonged to a snapshot beside its values. Metadata that is not as it was pushed is left out. */
static int enclosure_read(struct service *service, struct model *model, uint32_t rank, uint32_t stage)
{
	const struct stage_record *record = &model->records[rank].stages[stage];
	struct enclosure *enclosure = &model->ranks[rank].enclosures[stage];
	const char *metadata = (const char *)model->head_memory.base + layout_metadata_offset(model->world, stage);
	int error;

	*enclosure = (struct enclosure){ .seeds = record->seeds != 0, .updates = record->updates };
	memcpy(enclosure->profile, record->profile, sizeof enclosure->profile);
	enclosure->profile[sizeof enclosure->profile - 1] = '\0';
	if (rank != 0 || record->metadata_bytes == 0 || record->metadata_bytes > METADATA_BYTES_MAX)
		return 0;
	if (layout_checksum(metadata, record->metadata_bytes) != record->metadata_checksum) {
		service_event(service, EVENT_ERROR, model->name, STATUS_ECORRUPT,
		              "%s: the metadata of step %" PRIu64 " is damaged: the step is averaged without it", model->name,
		              record->step);
		return 0;
	}
	error = metadata_parse(metadata, record->metadata_bytes, &enclosure->metadata, NULL);
	return error == -ENOMEM ? error : 0;
}

/* An accepted snapshot cannot be averaged any more. */
static void loss_tell(struct service *service, struct model *model, uint32_t rank, uint64_t step, const char *why)
{
	const struct event about = {
		.severity = EVENT_ERROR,
		.model = model->name,
		.error = status_name(STATUS_ECORRUPT),
		.step = step,
		.pid = -1,
	};

	reason_set(&model->ranks[rank].refusal, STATUS_EREFUSED, "step %" PRIu64 " was lost with a daemon: %s", step, why);
	service_event_about(service, &about, "%s: step %" PRIu64 " of rank %" PRIu32
	                    " was accepted and cannot be averaged any more: %s", model->name, step, rank, why);
}

/* Snapshots that were acknowledged, and whose values are gone. */
static void snapshots_lose(struct service *service, struct model *model, uint32_t rank, const char *why,
                           struct ranks_found *found)
{
	struct rank_record *record = &model->records[rank];

	for (uint32_t i = 0; i < model->stage_count; i++) {
		if (stage_state(&record->stages[i]) == STAGE_FREE)
			continue;
		loss_tell(service, model, rank, record->stages[i].step, why);
		intake_settle(record, i, OUTCOME_INCOMPLETE, 0, 0);
		found->lost_count++;
	}
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static void damage_tell(struct service *service, const struct model *model, uint32_t rank, const char *what)
{
	service_event(service, EVENT_ERROR, model->name, STATUS_ECORRUPT, "%s: of rank %" PRIu32 " %s", model->name, rank,
	              what);
}

/*
 * Nothing that a damaged record says is believed. What was in its stage is known from the answer that was given; where
 * it is in the newest version already, nothing is lost.
 */
static void stage_mourn(struct service *service, struct model *model, uint32_t rank, uint32_t stage,
                        struct ranks_found *found)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	struct answer answer;
	struct reason why;

	reason_set(&why, STATUS_ECORRUPT, "the record of its stage %" PRIu32 " is damaged", stage);
	if (!intake_accepted(&model->records[rank], stage, &answer) || (newest && answer.step <= newest->step)) {
		reason_set(&why, STATUS_ECORRUPT, "the record of stage %" PRIu32 " is damaged: what was in it, if anything, is "
		           "averaged already, or is not averaged any more", stage);
		damage_tell(service, model, rank, why.text);
		return;
	}
	loss_tell(service, model, rank, answer.step, why.text);
	intake_lose(&model->records[rank]);
	found->lost_count++;
}

/* Everything is said before it is mended: whoever dies in between leaves it to the next one. */
static void record_mend(struct service *service, struct model *model, uint32_t rank, struct ranks_found *found)
{
	struct rank_record *record = &model->records[rank];
	struct intake_damage damage;

	if (!intake_is_damaged(record, &damage))
		return;
	if (damage.claim)
		damage_tell(service, model, rank, "it is damaged who holds it: whoever does must register again");
	if (damage.refused)
		damage_tell(service, model, rank, "the count of refused snapshots is damaged: it begins anew");
	if (damage.coalesced)
		damage_tell(service, model, rank, "the count of coalesced snapshots is damaged: it begins anew");
	if (damage.answers != 0)
		damage_tell(service, model, rank, "an answer is damaged and forgotten: if its push is repeated, it is decided "
		            "again");
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		if (damage.stages >> i & 1)
			stage_mourn(service, model, rank, i, found);
	intake_mend(record, &damage);
}

/* ---- ranks ------------------------------------------------------------------------------------------------------- */

static int rank_take(struct service *service, const struct estate *estate, struct model *model, uint32_t rank,
                     struct ranks_found *found)
{
	struct rank_record *record = &model->records[rank];
	const struct slot_header *newest = versions_newest(&model->versions);
	struct reason reason = { "its stages are not there" };
	int error = 0;

	record_mend(service, model, rank, found);
	intake_adopt(record, model->stage_count, newest ? newest->version : 0, newest ? newest->calls : 0);
	/* A head is not believed whose newest is larger. */
	if (record->seal != 0 && record->epoch >= service->epoch_next && record->epoch <= INT64_MAX)
		service->epoch_next = record->epoch + 1;
	if (record->stage_segment != 0)
		error = stage_take(estate, model, rank, &reason);
	if (error == -ENOMEM)
		return error;
	if (record->stage_segment == 0 || error) {
		if (error)
			service_event(service, EVENT_WARNING, model->name, error, "%s: the stages of rank %" PRIu32
			              " are given up, and its trainer must register again: %s", model->name, rank, reason.text);
		snapshots_lose(service, model, rank, reason.text, found);
		/* What its pieces are is not known: whoever held it is told to register again. */
		intake_claim(record, 0, 0, 0);
		return 0;
	}
	for (uint32_t i = 0; i < model->stage_count && !error; i++) {
		model_stage_mirror(model, rank, i);
		if (stage_state(&record->stages[i]) == STAGE_FREE)
			continue;
		found->snapshot_count++;
		error = enclosure_read(service, model, rank, i);
	}
	return error;
}

int ranks_take(struct service *service, const struct estate *estate, struct model *model, struct ranks_found *ret_found,
               struct reason *reason)
{
	struct ranks_found found = { 0 };
	int error = 0;

	for (uint32_t r = 0; r < model->world && !error; r++)
		error = rank_take(service, estate, model, r, &found);
	if (model->head->epoch >= service->epoch_next)
		service->epoch_next = model->head->epoch + 1;
	if (!error)
		error = model_pieces_check(model, UINT32_MAX, NULL, reason);
	if (!error)
		error = model_replan(model, model->geometry, reason);
	*ret_found = found;
	return error;
}
