/*
 * One generation after the other. See recover.h.
 */
#include "daemon/core/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/notes.h"

/* Epochs may have been handed out after the checkpoint was written: the next ones are far above. */
enum { EPOCHS_BETWEEN = 1 << 20 };

/* A directory is skipped from here on: nothing is older. */
static const struct generation_name OLDEST = { 0, 0 };

static void submit(struct service *service, const struct instant *now, enum file_work work)
{
	struct recovery *recovery = &service->recovery;

	recovery->order->work = work;
	recovery->order->wall_us = now->wall_us;
	recovery->order->status = 0;
	recovery->order->reason.text[0] = '\0';
	recovery->ordered = true;
	service->host.file_write(service->host.context, recovery->order);
}

static void end(struct service *service)
{
	struct recovery *recovery = &service->recovery;

	recovery->running = false;
	if (recovery->model_count + recovery->left_count > 0)
		service_event(service, EVENT_NOTICE, NULL, 0, "recovered from checkpoints: %" PRIu64 ", left on disk: %"
		              PRIu64, recovery->model_count, recovery->left_count);
}

static void next(struct service *service, const struct instant *now)
{
	struct recovery *recovery = &service->recovery;

	generation_finish(&recovery->generation);
	free(recovery->order->text);
	recovery->order->text = NULL;
	recovery->model = NULL;
	if (service->stopping)
		end(service);
	else
		submit(service, now, FILE_FIND);
}

static void give_up(struct service *service)
{
	service->recovery.error = -ENOMEM;
	end(service);
}

/* "checkpoints/run42%net/0000...-0000..." */
struct place_text {
	char text[GENERATION_DIRECTORY_BYTES + GENERATION_NAME_BYTES + 16];
};

static struct place_text place_of(const struct file_order *order)
{
	struct place_text place;
	char name[GENERATION_NAME_BYTES];

	generation_name_write(&order->generation, name);
	snprintf(place.text, sizeof place.text, "checkpoints/%s/%s", order->directory, name);
	return place;
}

/* The generation cannot be taken now, and is not damaged. */
static void leave(struct service *service, const struct instant *now, int error, const char *why)
{
	struct recovery *recovery = &service->recovery;

	recovery->left_count++;
	service_event(service, EVENT_ERROR, recovery->generation.model, error, "%s stays on disk: %s",
	              place_of(recovery->order).text, why[0] ? why : status_text(error));
	if (error == -ENOMEM) {
		give_up(service);
		return;
	}
	/* An older one of the same model would need as much. */
	if (error != STATUS_EVERSION)
		recovery->order->generation = OLDEST;
	next(service, now);
}

/* The generation is damaged in a way that only the core sees. */
static void set_aside(struct service *service, const struct instant *now, const char *why)
{
	service->counters.checkpoints_bad++;
	service_event(service, EVENT_ERROR, NULL, STATUS_ECORRUPT, "%s is set aside: %s",
	              place_of(service->recovery.order).text, why);
	submit(service, now, FILE_BAD);
}

static int model_make(struct service *service, struct model **ret_model, struct reason *reason)
{
	struct generation *generation = &service->recovery.generation;
	struct manifest *manifest = generation->manifest;
	struct profile profiles[PROFILE_COUNT_MAX];
	struct model *model;
	int error;

	for (uint32_t p = 0; p < generation->profile_count; p++)
		profiles[p] = generation->profiles[p].profile;
	generation->manifest = NULL;
	error = model_create(&service->settings, generation->model, generation->world, manifest, profiles,
	                     generation->profile_count, &model, reason);
	if (error)
		return error;
	for (uint32_t p = 0; p < generation->profile_count && !error; p++)
		if (model->geometry->images[p]->image_bytes != generation->profiles[p].file_bytes)
			error = reason_set(reason, STATUS_EVERSION, "this emad lays out profile '%s' in %" PRIu64
			                   " bytes, the file has %" PRIu64 ": start the emad that wrote it, or use the "
			                   "file with 'emactl import'", profiles[p].name,
			                   model->geometry->images[p]->image_bytes,
			                   generation->profiles[p].file_bytes);
	model->recovers = true;
	model->owner = generation->owner;
	if (!error)
		error = service_admit(service, model, NULL, false, reason);
	if (error) {
		model_destroy(model, &service->host);
		return error;
	}
	*ret_model = model;
	return 0;
}

static void found(struct service *service, const struct instant *now)
{
	struct recovery *recovery = &service->recovery;
	struct reason reason = { "" };
	const struct file_order *order = recovery->order;
	int error = generation_decode(order->text, order->text_bytes, &recovery->generation, &reason);

	if (error == STATUS_ECORRUPT) {
		set_aside(service, now, reason.text);
	} else if (error) {
		leave(service, now, error, reason.text);
	} else if (!generation_is_in_place(&recovery->generation, order->directory, &order->generation)) {
		set_aside(service, now, "its manifest.json is that of another generation");
	} else if (service_find(service, recovery->generation.model, strlen(recovery->generation.model))) {
		/* It has outlived its daemon in memory, where nothing is older than here. */
		recovery->order->generation = OLDEST;
		next(service, now);
	} else {
		error = model_make(service, &recovery->model, &reason);
		if (error)
			leave(service, now, error, reason.text);
	}
}

void recover_memory(struct service *service, const struct instant *now, bool made)
{
	struct recovery *recovery = &service->recovery;
	struct model *model = recovery->model;
	struct file_order *order = recovery->order;
	uint64_t due_ms;

	if (!made) {
		leave(service, now, STATUS_EMEMORY, "its memory cannot be had");
		return;
	}
	/* No slot is leased yet. */
	(void)versions_begin(&model->versions, 0, &recovery->slot, &due_ms);
	order->model = model->id;
	order->count = recovery->generation.profile_count;
	for (uint32_t p = 0; p < order->count; p++) {
		struct file_item *item = &order->items[p];

		memset(item, 0, sizeof *item);
		strcpy(item->profile, recovery->generation.profiles[p].profile.name);
		item->target = model->slot_memory[recovery->slot].base + model->geometry->region_offsets[p];
		item->byte_count = recovery->generation.profiles[p].file_bytes;
		item->checksum = recovery->generation.profiles[p].file_checksum;
	}
	submit(service, now, FILE_FILL);
}

/* What a later manifest of the same files says of them. */
static void files_restore(struct model *model, const struct generation *generation)
{
	struct checkpoint *checkpoint = &model->checkpoint;

	checkpoint->file_count = generation->profile_count;
	for (uint32_t p = 0; p < generation->profile_count; p++) {
		strcpy(checkpoint->files[p].profile, generation->profiles[p].profile.name);
		checkpoint->files[p].bytes = generation->profiles[p].file_bytes;
		checkpoint->files[p].checksum = generation->profiles[p].file_checksum;
	}
}

static void publish(struct service *service, const struct instant *now, struct model *model)
{
	struct generation *generation = &service->recovery.generation;
	struct slot_header *slot = model->versions.slots[service->recovery.slot];

	generation_slot_write(generation, slot);
	book_restore(model, generation);
	model->version_next = generation->version + 1;
	model->checkpoint.owns = true;
	model->checkpoint.version = generation->version;
	model->checkpoint.step = generation->step;
	files_restore(model, generation);
	for (uint32_t t = 0; generation->value_squares && t < model->manifest->tensor_count; t++)
		model->results[t].value_squares = generation->value_squares[t];
	notes_write(model, slot, model->metadata, model->results);
	versions_publish(&model->versions, generation->version);
	model->head->version = generation->version;
	/* Only now is there something for the next daemon; until then it recovers the model once more. */
	model->recovers = false;
	book_note(model);
	model->checkpoint.since_ms = now->monotonic_ms;
	if (generation->epoch < INT64_MAX && service->epoch_next <= generation->epoch + EPOCHS_BETWEEN)
		service->epoch_next = generation->epoch + EPOCHS_BETWEEN + 1;
}

static void filled(struct service *service, const struct instant *now)
{
	struct recovery *recovery = &service->recovery;
	struct model *model = recovery->model;
	const struct event about = {
		.severity = recovery->order->reason.text[0] ? EVENT_WARNING : EVENT_NOTICE,
		.kind = EVENT_MODEL_RESUMED,
		.model = model->name,
		.step = recovery->generation.step,
		.pid = -1,
	};
	int error = recovery->order->status;

	if (!error && !model_slot_fits(model, recovery->slot))
		error = reason_set(&recovery->order->reason, STATUS_EVERSION,
		                   "this emad lays its tensors out otherwise: start the emad that wrote it, or use its files with 'emactl import'");
	if (!error) {
		publish(service, now, model);
		service->counters.models_recovered++;
		recovery->model_count++;
		service_event_about(service, &about, "%s: recovered from %s: step %" PRIu64 ", version %" PRIu64 ", %" PRIu64
		                    " updates%s%s", model->name, place_of(recovery->order).text,
		                    recovery->generation.step, recovery->generation.version,
		                    recovery->generation.updates, recovery->order->reason.text[0] ? ", but " : "",
		                    recovery->order->reason.text);
		recovery->order->generation = OLDEST;
		next(service, now);
		return;
	}
	versions_abandon(&model->versions);
	service_doom(service, model);
	if (error == STATUS_ECORRUPT) {
		service->counters.checkpoints_bad++;
		service_event(service, EVENT_ERROR, NULL, error, "%s was set aside: %s", place_of(recovery->order).text,
		              recovery->order->reason.text);
		next(service, now);
	} else {
		/* The one before may be readable. */
		leave(service, now, error == -ENOMEM ? error : STATUS_EVERSION, recovery->order->reason.text);
	}
}

void recover_done(struct service *service, const struct instant *now)
{
	struct recovery *recovery = &service->recovery;
	struct file_order *order = recovery->order;

	recovery->ordered = false;
	if (order->work == FILE_FILL) {
		filled(service, now);
	} else if (order->status != 0) {
		service->counters.checkpoints_bad += order->status == STATUS_ECORRUPT;
		service_event(service, EVENT_ERROR, NULL, order->status, "%s%s", order->status == STATUS_ECORRUPT ?
		              "set aside: " : "", order->reason.text);
		if (order->status == -ENOMEM)
			give_up(service);
		else if (order->work == FILE_FIND && !order->directory[0])
			end(service);
		else
			next(service, now);
	} else if (order->work == FILE_FIND && !order->text) {
		end(service);
	} else if (order->work == FILE_FIND) {
		found(service, now);
	} else {
		next(service, now);
	}
}

int recover_begin(struct service *service, const struct instant *now)
{
	struct recovery *recovery = &service->recovery;

	if (!checkpoint_possible(service))
		return 0;
	recovery->order = calloc(1, sizeof *recovery->order);
	if (!recovery->order)
		return -ENOMEM;
	recovery->running = true;
	submit(service, now, FILE_FIND);
	return 0;
}

void recover_finish(struct service *service)
{
	generation_finish(&service->recovery.generation);
	if (service->recovery.order)
		free(service->recovery.order->text);
	free(service->recovery.order);
	service->recovery = (struct recovery){ .running = false };
}
