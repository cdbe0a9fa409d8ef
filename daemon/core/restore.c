/*
 * Seeking, choosing, filling, taking. See restore.h.
 */
#include "daemon/core/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"

bool restore_busy(const struct model *model)
{
	switch (model->restore.state) {
	case RESTORE_SEEKING:
	case RESTORE_FILLING:
	case RESTORE_FILLED:
		return true;
	case RESTORE_IDLE:
	case RESTORE_SOUGHT:
	case RESTORE_FAILED:
		break;
	}
	return false;
}

static void end(struct service *service, struct model *model)
{
	struct restore *restore = &model->restore;

	if (restore->state == RESTORE_FILLED)
		versions_abandon(&model->versions);
	generation_finish(&restore->generation);
	*restore = (struct restore){ .order = restore->order };
	service_touch(service, model);
}

void restore_sweep(struct service *service, struct model *model)
{
	const struct restore *restore = &model->restore;

	if (restore->state == RESTORE_IDLE || restore->state == RESTORE_SEEKING || restore->state == RESTORE_FILLING)
		return;
	if (!service_awaited(service, restore->asker))
		end(service, model);
}

void restore_drop(struct service *service, struct model *model, uint64_t asker)
{
	if (model->restore.state != RESTORE_IDLE && model->restore.asker == asker)
		end(service, model);
}

void restore_finish(struct model *model)
{
	generation_finish(&model->restore.generation);
	free(model->restore.order);
	model->restore = (struct restore){ .state = RESTORE_IDLE };
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static void submit(struct service *service, const struct instant *now, struct model *model, enum file_work work)
{
	struct restore *restore = &model->restore;

	restore->order->work = work;
	restore->order->model = model->id;
	restore->order->wall_us = now->wall_us;
	restore->order->status = 0;
	restore->order->reason.text[0] = '\0';
	restore->state = work == FILE_SEEK ? RESTORE_SEEKING : RESTORE_FILLING;
	service->host.file_write(service->host.context, restore->order);
}

/* Whether a newer version than that of a slot (-1: none) may be on disk, of this very average. */
static bool disk_matters(const struct service *service, const struct model *model, int32_t slot)
{
	return checkpoint_possible(service) && model->checkpoint.owns &&
	       (slot < 0 || model->checkpoint.version > model->versions.slots[slot]->version);
}

static int seek(struct call *call, struct model *model, uint64_t step)
{
	struct restore *restore = &model->restore;

	if (!restore->order)
		restore->order = calloc(1, sizeof *restore->order);
	if (!restore->order)
		return -ENOMEM;
	restore->order->step = step;
	restore->order->generation = (struct generation_name){ UINT64_MAX, UINT64_MAX };
	generation_directory_write(model->name, restore->order->directory);
	restore->asker = call->awaited;
	submit(call->service, call->now, model, FILE_SEEK);
	call->waits = model;
	return CALL_PARK;
}

/* What was found cannot be taken: an older one may be. */
static void seek_older(struct service *service, const struct instant *now, struct model *model, const char *why)
{
	struct restore *restore = &model->restore;

	service_event(service, EVENT_ERROR, model->name, STATUS_ECORRUPT,
	              "%s: the checkpoint of step %" PRIu64 ", version %" PRIu64 " cannot be gone back to: %s", model->name,
	              restore->order->generation.step, restore->order->generation.version, why);
	generation_finish(&restore->generation);
	restore->found = false;
	restore->doubts = true;
	submit(service, now, model, FILE_SEEK);
}

static void found(struct service *service, const struct instant *now, struct model *model)
{
	struct restore *restore = &model->restore;
	struct file_order *order = restore->order;
	struct reason reason = { "" };
	int error = 0;

	if (order->text)
		error = generation_decode(order->text, order->text_bytes, &restore->generation, &reason);
	restore->found = order->text && !error;
	free(order->text);
	order->text = NULL;
	if (restore->found && !generation_is_in_place(&restore->generation, order->directory, &order->generation))
		error = reason_set(&reason, STATUS_ECORRUPT, "its manifest.json is that of another generation");
	if (error == STATUS_ECORRUPT) {
		seek_older(service, now, model, reason.text);
		return;
	}
	restore->state = error ? RESTORE_FAILED : RESTORE_SOUGHT;
	restore->error = error;
	if (error)
		order->reason = reason;
}

void restore_written(struct service *service, const struct instant *now, struct model *model)
{
	struct restore *restore = &model->restore;
	struct file_order *order = restore->order;
	int error = order->status;
	bool filled = restore->state == RESTORE_FILLING;

	if (!error && filled && !model_slot_fits(model, restore->slot))
		error = reason_set(&order->reason, STATUS_EVERSION,
		                   "this emad lays its tensors out otherwise: start the emad that wrote it, or use its files with "
		                   "'emactl import'");
	if (filled && error)
		versions_abandon(&model->versions);
	/* Nobody is served by a damaged one; one that was thinned out meanwhile is none. */
	service->counters.checkpoints_bad += error == STATUS_ECORRUPT;
	if (!model->doomed && (error == STATUS_ECORRUPT || (filled && error == -ENOENT))) {
		seek_older(service, now, model, order->reason.text);
		return;
	}
	if (error) {
		restore->state = RESTORE_FAILED;
		restore->error = error;
	} else if (filled) {
		restore->state = RESTORE_FILLED;
	} else {
		found(service, now, model);
	}
	if (model->doomed && restore->state != RESTORE_SEEKING)
		end(service, model);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

/* Whether the slots can take what was found. */
static int fit(const struct model *model, const struct generation *generation, struct reason *reason)
{
	struct profile profiles[PROFILE_COUNT_MAX];
	struct geometry *geometry;
	struct reason difference = { "" };
	int error = manifest_compare(generation->manifest, model->manifest, &difference);
	bool fits;

	if (error == -ENOMEM)
		return error;
	if (error)
		return reason_set(reason, STATUS_EMANIFEST,
		                  "the checkpoint of step %" PRIu64 " has other tensors: %.200s; 'emactl import' makes a model of "
		                  "its files", generation->step, difference.text);
	for (uint32_t p = 0; p < generation->profile_count; p++)
		profiles[p] = generation->profiles[p].profile;
	error = geometry_create(model->manifest, profiles, generation->profile_count, MODEL_METADATA_BYTES, &geometry,
	                        reason);
	if (error)
		return error;
	fits = geometry_fits(geometry, model->geometry);
	for (uint32_t p = 0; fits && p < geometry->profile_count; p++)
		fits = geometry->images[p]->image_bytes == generation->profiles[p].file_bytes;
	geometry_destroy(geometry);
	if (fits)
		return 0;
	(void)profile_compare(profiles, generation->profile_count, model->geometry->profiles,
	                      model->geometry->profile_count, &difference);
	return reason_set(reason, STATUS_EPROFILE,
	                  "the checkpoint of step %" PRIu64 " has other profiles: %.240s; set those with 'emactl profile' first, "
	                  "or use its files with 'emactl import'", generation->step, difference.text);
}

/* What the sentence ends with: what to do instead, or what else there is. */
static void hint_write(const struct call *call, const struct versions *versions, char *hint, size_t hint_bytes)
{
	const struct slot_header *newest = versions_newest(versions);
	size_t used;

	if (call->request->operation == OP_REGISTER) {
		snprintf(hint, hint_bytes, "; rewind=continue goes on from step %" PRIu64, newest ? newest->step : 0);
		return;
	}
	used = (size_t)snprintf(hint, hint_bytes, "; in memory:");
	for (uint32_t i = 0; i < versions->slot_count; i++)
		if (versions->slots[i]->version != 0)
			used += (size_t)snprintf(hint + used, hint_bytes - used, " %" PRIu64, versions->slots[i]->step);
}

static int nothing(struct call *call, const struct model *model, uint64_t step)
{
	const struct versions *versions = &model->versions;
	const struct slot_header *newest = versions_newest(versions);
	const struct file_order *order = model->restore.order;
	bool looked = order && checkpoint_possible(call->service) && model->checkpoint.owns;
	uint64_t oldest = newest ? newest->step : 0;
	char hint[SLOT_COUNT_MAX * 21 + 64];

	for (uint32_t i = 0; i < versions->slot_count; i++)
		if (versions->slots[i]->version != 0 && versions->slots[i]->step < oldest)
			oldest = versions->slots[i]->step;
	hint_write(call, versions, hint, sizeof hint);
	return reason_set(&call->reason, STATUS_ENOVERSION,
	                  "model '%.80s' keeps no version of step %" PRIu64 " or earlier: the oldest of its %" PRIu32
	                  " slots holds step %" PRIu64 "%s%.150s%.180s", model->name, step, versions->slot_count, oldest,
	                  looked ? ", and on disk is " : "", looked ? order->reason.text : "", hint);
}

static struct restore_target target_in_slot(const struct model *model, uint32_t slot)
{
	const struct slot_header *header = model->versions.slots[slot];

	return (struct restore_target){ false, slot, header->version, header->step, header->updates };
}

static struct restore_target target_on_disk(const struct restore *restore)
{
	const struct generation *generation = &restore->generation;

	return (struct restore_target){ true, restore->slot, generation->version, generation->step, generation->updates };
}

/* What there is, once the disk has been looked at. */
static int choose(struct call *call, struct model *model, uint64_t step, struct restore_target *ret_target)
{
	struct restore *restore = &model->restore;
	int32_t slot;
	int error;

	if (!call->awaited)
		call->awaited = ++call->service->asks;
	call->waits = model;
	if (restore->state != RESTORE_IDLE && restore->asker != call->awaited)
		return CALL_PARK;
	slot = versions_kept(&model->versions, step);
	switch (restore->state) {
	case RESTORE_IDLE:
		if (disk_matters(call->service, model, slot))
			return seek(call, model, step);
		restore->asker = call->awaited;
		restore->state = RESTORE_SOUGHT;
		break;
	case RESTORE_SEEKING:
	case RESTORE_FILLING:
		return CALL_PARK;
	case RESTORE_FAILED:
		return reason_set(&call->reason, restore->error, "%s", restore->order->reason.text[0]
		                                                        ? restore->order->reason.text
		                                                        : status_text(restore->error));
	case RESTORE_SOUGHT:
		break;
	case RESTORE_FILLED:
		*ret_target = target_on_disk(restore);
		return 0;
	}
	if (restore->found && (slot < 0 || restore->generation.version > model->versions.slots[slot]->version)) {
		error = fit(model, &restore->generation, &call->reason);
		if (!error)
			*ret_target = target_on_disk(restore);
		return error;
	}
	if (slot < 0)
		return nothing(call, model, step);
	*ret_target = target_in_slot(model, (uint32_t)slot);
	return 0;
}

int restore_look(struct call *call, struct model *model, uint64_t step, struct restore_target *ret_target)
{
	int error = choose(call, model, step, ret_target);

	if (error != CALL_PARK)
		restore_drop(call->service, model, call->awaited);
	return error;
}

static int fill(struct call *call, struct model *model)
{
	struct restore *restore = &model->restore;
	struct file_order *order = restore->order;
	int error = update_slot_take(model, &call->service->settings, call->now, &call->service->counters, &restore->slot);

	if (error == STATUS_EBUSY)
		return CALL_PARK;
	if (error)
		return error;
	order->generation = (struct generation_name){ restore->generation.step, restore->generation.version };
	order->count = restore->generation.profile_count;
	for (uint32_t p = 0; p < order->count; p++) {
		struct file_item *item = &order->items[p];

		memset(item, 0, sizeof *item);
		strcpy(item->profile, restore->generation.profiles[p].profile.name);
		item->target = model->slot_memory[restore->slot].base + model->geometry->region_offsets[p];
		item->byte_count = restore->generation.profiles[p].file_bytes;
		item->checksum = restore->generation.profiles[p].file_checksum;
	}
	submit(call->service, call->now, model, FILE_FILL);
	return CALL_PARK;
}

int restore_reach(struct call *call, struct model *model, uint64_t step, struct restore_target *ret_target)
{
	struct restore *restore = &model->restore;
	struct restore_target target;
	int error = choose(call, model, step, &target);

	if (error == CALL_PARK)
		return error;
	if (!error && restore->state != RESTORE_FILLED) {
		call->waits = model;
		/* Until it is decided nothing must come between. Touched once: touching it handles the request again. */
		if (!restore->holds)
			service_touch(call->service, model);
		restore->holds = true;
		if (!target.on_disk && (int32_t)target.slot == model->versions.current)
			error = 0;
		else if (model->applying || (!target.on_disk && versions_pinned(&model->versions, target.slot)))
			error = CALL_PARK;
		else if (target.on_disk)
			error = fill(call, model);
	}
	if (!error)
		*ret_target = target;
	else if (error != CALL_PARK)
		restore_drop(call->service, model, call->awaited);
	return error;
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

void restore_take(struct service *service, const struct instant *now, struct model *model,
                  const struct restore_target *target, const char *change)
{
	struct update_back back = {
		.change = change,
		.slot = target->slot,
		.generation = target->on_disk ? &model->restore.generation : NULL,
	};

	update_rewind(model, &service->host, now, &back, &service->counters);
	book_note(model);
	/* The slot is no longer being written. */
	model->restore.state = RESTORE_SOUGHT;
	end(service, model);
	keep_back(service, now, model, target->step);
	checkpoint_hasten(service, model);
}

static void rollback_reply(struct call *call, const struct restore_target *target, uint64_t version, uint64_t last_step)
{
	struct reply reply = { 0 };

	reply_set(&reply, version, version);
	reply_set(&reply, step, target->step);
	reply_set(&reply, updates, target->updates);
	reply_set(&reply, last_step, last_step);
	reply_set(&reply, taken, target->version);
	reply_set(&reply, source, text_of(target->on_disk ? "disk" : "memory"));
	call_reply(call, &reply, NULL);
}

int rollback_handle(struct call *call)
{
	const bool looks = call->request->present & REQUEST_HAS(dry_run) && call->request->dry_run;
	struct restore_target target;
	const struct slot_header *newest;
	struct model *model;
	uint64_t last_step, last_version;
	int error = call_model(call, &model);

	if (error)
		return error;
	newest = versions_newest(&model->versions);
	if (!newest)
		return reason_set(&call->reason, STATUS_ENOVERSION,
		                  "model '%s' has no averaged version yet: its first snapshot has not been applied",
		                  model->name);
	error = looks ? restore_look(call, model, call->request->step, &target)
	              : restore_reach(call, model, call->request->step, &target);
	if (error)
		return error;
	newest = versions_newest(&model->versions);
	last_step = newest->step;
	last_version = newest->version;
	if (looks || target.version == last_version) {
		restore_drop(call->service, model, call->awaited);
		rollback_reply(call, &target, last_version, last_step);
		return 0;
	}
	for (uint32_t r = 0; r < model->world; r++)
		update_drop_ready(model, r, "the average was rolled back to an earlier step on request",
		                  &call->service->counters);
	restore_take(call->service, call->now, model, &target, "rolled back");
	call->service->counters.rewinds++;
	service_event(call->service, EVENT_NOTICE, model->name, 0,
	              "%s: rolled back on request from step %" PRIu64 " to step %" PRIu64 ", version %" PRIu64 " %s", model->name,
	              last_step, target.step, target.version, target.on_disk ? "on disk" : "in memory");
	rollback_reply(call, &target, versions_newest(&model->versions)->version, last_step);
	return 0;
}
