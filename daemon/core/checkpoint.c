/*
 * Due, orders, results, requests. See checkpoint.h.
 */
#include "daemon/core/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/ending.h"
#include "daemon/core/failpoint.h"

enum { RETRY_MS_MIN = 1000, RETRY_MS_MAX = 300000 };

bool checkpoint_possible(const struct service *service)
{
	return service->facts.state_dir && service->facts.state_dir[0];
}

/* ---- when -------------------------------------------------------------------------------------------------------- */

/*
 * Whether there is more than what is on disk. A generation that an earlier daemon has written is written anew when more
 * was said of the model since, because what is in its files is not known here.
 */
static bool is_newer(const struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct checkpoint *checkpoint = &model->checkpoint;

	return newest && (newest->version > checkpoint->version ||
	                  (newest->version == checkpoint->version && checkpoint->file_count == 0 &&
	                   model->facts_changed != checkpoint->facts));
}

/* Whether the files on disk are those that a manifest of now would be about. */
static bool files_fit(const struct checkpoint *checkpoint, const struct geometry *geometry)
{
	if (checkpoint->file_count != geometry->profile_count)
		return false;
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		if (strcmp(checkpoint->files[p].profile, geometry->profiles[p].name) != 0)
			return false;
	return true;
}

/* The newest version is on disk, and more has been said of the model since. */
static bool has_new_facts(const struct service *service, const struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct checkpoint *checkpoint = &model->checkpoint;

	return newest && newest->version == checkpoint->version && model->facts_changed != checkpoint->facts &&
	       (service->stopping || !model->heirloom.geometry) && files_fit(checkpoint, model_newest_geometry(model));
}

static bool has_news(const struct service *service, const struct model *model)
{
	return is_newer(model) || has_new_facts(service, model);
}

/* Whoever asked for it may have gone away meanwhile. */
static bool is_removed(const struct service *service, const struct model *model)
{
	const struct checkpoint *checkpoint = &model->checkpoint;

	return checkpoint->discarding || (checkpoint->remover != 0 && service_awaited(service, checkpoint->remover));
}

/*
 * Whether one could begin now. A version of an earlier geometry is dropped with the next update, so only at the end,
 * when there is none, it can be written.
 */
static bool is_able(const struct service *service, const struct model *model)
{
	if (!checkpoint_possible(service) || !model->serving || model->doomed || model->ancestor || keep_busy(model) ||
	    is_removed(service, model) || !has_news(service, model))
		return false;
	if (service->stopping)
		return !model->applying && model->room_due_ms == 0 && !ending_awaits(service, model);
	return !model->heirloom.geometry && !model->relay.made && !(model->heir && model->heir->serving);
}

uint64_t checkpoint_due_ms(const struct service *service, const struct model *model)
{
	const struct checkpoint *checkpoint = &model->checkpoint;
	const struct settings *settings = &service->settings;
	uint64_t due_ms = UINT64_MAX;

	if (!is_able(service, model))
		return UINT64_MAX;
	if (checkpoint->asked > checkpoint->answered)
		return 0;
	if (service->stopping)
		return checkpoint->gives_up ? UINT64_MAX : 0;
	if (checkpoint->failure_count > 0)
		return checkpoint->retry_ms;
	if (settings->checkpoint_updates > 0 &&
	    versions_newest(&model->versions)->version - checkpoint->version >= settings->checkpoint_updates)
		return 0;
	if (settings->checkpoint_interval_ms > 0 &&
	    __builtin_add_overflow(checkpoint->since_ms, settings->checkpoint_interval_ms, &due_ms))
		due_ms = UINT64_MAX;
	return due_ms;
}

bool checkpoint_owed(const struct service *service, const struct model *model)
{
	return model->checkpoint.writing ||
	       (service->stopping && !model->checkpoint.gives_up && is_able(service, model));
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

/* The norms of the newest snapshot's tensors; NULL: not known, or no memory, and then the first guard is lenient. */
static double *squares_make(const struct model *model, const struct geometry *geometry)
{
	double *squares = NULL;

	if (geometry->manifest == model->manifest)
		squares = calloc(model->manifest->tensor_count, sizeof *squares);
	for (uint32_t t = 0; squares && t < model->manifest->tensor_count; t++)
		squares[t] = model->results[t].value_squares;
	return squares;
}

static char *manifest_text(const struct service *service, const struct model *model, size_t *ret_bytes)
{
	struct generation *generation = malloc(sizeof *generation);
	char *text;

	if (!generation)
		return NULL;
	book_generation(model, generation);
	generation->agent = service->facts.agent;
	generation->epoch = service->epoch_next - 1;
	generation->manifest = model_newest_geometry(model)->manifest;
	generation->value_squares = squares_make(model, model_newest_geometry(model));
	text = generation_encode(generation, ret_bytes);
	free(generation->value_squares);
	free(generation);
	return text;
}

static void order_fill(const struct service *service, const struct instant *now, struct model *model)
{
	const struct settings *settings = &service->settings;
	const struct defaults *defaults = defaults_find(settings->defaults, settings->default_count, model->name);
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct geometry *geometry = model_newest_geometry(model);
	struct file_order *order = model->checkpoint.order;

	order->work = is_newer(model) ? FILE_CHECKPOINT : FILE_FACTS;
	order->model = model->id;
	order->wall_us = now->wall_us;
	generation_directory_write(model->name, order->directory);
	order->generation = (struct generation_name){ newest->step, newest->version };
	order->starts = !model->checkpoint.owns;
	order->founds = service->counters.checkpoints_written + service->counters.models_recovered == 0;
	order->keep_count = defaults && defaults->checkpoint_keep_count ? defaults->checkpoint_keep_count
	                                                                : settings->checkpoint_keep_count;
	order->keep_steps = defaults && defaults->checkpoint_keep_steps ? defaults->checkpoint_keep_steps
	                                                                : settings->checkpoint_keep_steps;
	if (order->keep_count < GENERATION_COUNT_MIN)
		order->keep_count = GENERATION_COUNT_MIN;
	order->count = geometry->profile_count;
	for (uint32_t p = 0; p < geometry->profile_count; p++) {
		struct file_item *item = &order->items[p];

		memset(item, 0, sizeof *item);
		strcpy(item->profile, geometry->profiles[p].name);
		item->bytes = model_newest_memory(model)->base + geometry->region_offsets[p];
		item->byte_count = geometry->images[p]->image_bytes;
		item->checksum = order->work == FILE_FACTS ? model->checkpoint.files[p].checksum : 0;
	}
}

static void failed(struct service *service, const struct instant *now, struct model *model, int status,
                   const char *why)
{
	struct checkpoint *checkpoint = &model->checkpoint;
	uint64_t wait_ms = RETRY_MS_MIN;

	for (uint32_t i = 0; i < checkpoint->failure_count && wait_ms < RETRY_MS_MAX; i++)
		wait_ms *= 2;
	if (wait_ms > RETRY_MS_MAX)
		wait_ms = RETRY_MS_MAX;
	checkpoint->failure_count++;
	checkpoint->retry_ms = now->monotonic_ms + wait_ms;
	checkpoint->gives_up = service->stopping;
	reason_set(&checkpoint->error, status, "%s", why);
	service->counters.checkpoints_failed++;
	service_event(service, EVENT_ERROR, model->name, status,
	              "%s: a checkpoint failed: %s; %s step %" PRIu64 "; %s %" PRIu64 " s", model->name, why,
	              checkpoint->version ? "on disk is" : "none is on disk, the newest version is of",
	              checkpoint->version ? checkpoint->step : versions_newest(&model->versions)->step,
	              service->stopping ? "there is no time for another try in" : "the next try is in", wait_ms / 1000);
}

static int begin(struct service *service, const struct instant *now, struct model *model)
{
	struct checkpoint *checkpoint = &model->checkpoint;
	uint32_t slot = (uint32_t)model->versions.current;
	size_t bytes;
	char *text;
	int error;

	if (!checkpoint->order)
		checkpoint->order = calloc(1, sizeof *checkpoint->order);
	text = checkpoint->order ? manifest_text(service, model, &bytes) : NULL;
	error = text ? versions_pin(&model->versions, slot) : -ENOMEM;
	if (error) {
		free(text);
		return error;
	}
	order_fill(service, now, model);
	checkpoint->order->text = text;
	checkpoint->order->text_bytes = bytes;
	atomic_store_explicit(&checkpoint->order->written_bytes, 0, memory_order_relaxed);
	checkpoint->slot = slot;
	checkpoint->writing = true;
	checkpoint->asked_writing = checkpoint->asked;
	checkpoint->facts_writing = model->facts_changed;
	service->host.file_write(service->host.context, checkpoint->order);
	return 0;
}

void checkpoint_settle(struct service *service, const struct instant *now, struct model *model)
{
	struct checkpoint *checkpoint = &model->checkpoint;
	int error;

	if (checkpoint->since_ms == 0 && versions_newest(&model->versions))
		checkpoint->since_ms = now->monotonic_ms;
	if (!checkpoint->writing && checkpoint->asked > checkpoint->answered && !has_news(service, model)) {
		checkpoint->answered = checkpoint->asked;
		checkpoint->answer = 0;
	}
	if (checkpoint_due_ms(service, model) > now->monotonic_ms)
		return;
	error = begin(service, now, model);
	if (!error)
		return;
	failed(service, now, model, error, status_text(error));
	checkpoint->answered = checkpoint->asked;
	checkpoint->answer = error;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* What a later manifest of the same files says of them. */
static void files_record(struct checkpoint *checkpoint)
{
	const struct file_order *order = checkpoint->order;

	checkpoint->file_count = order->count;
	for (uint32_t i = 0; i < order->count; i++) {
		strcpy(checkpoint->files[i].profile, order->items[i].profile);
		checkpoint->files[i].bytes = order->items[i].byte_count;
		checkpoint->files[i].checksum = order->items[i].checksum;
	}
}

void checkpoint_written(struct service *service, const struct instant *now, struct model *model)
{
	struct checkpoint *checkpoint = &model->checkpoint;
	struct file_order *order = checkpoint->order;
	const char *why = order->reason.text[0] ? order->reason.text : status_text(order->status);

	FAILPOINT("checkpoint-unnoted");
	checkpoint->writing = false;
	versions_unpin(&model->versions, checkpoint->slot);
	free(order->text);
	order->text = NULL;
	checkpoint->answered = checkpoint->asked_writing;
	checkpoint->answer = order->status;
	if (order->work == FILE_FACTS && order->status == -ENOENT) {
		/* Somebody has removed it: what there is now is written whole. */
		checkpoint->version = 0;
		checkpoint->file_count = 0;
	}
	if (order->status != 0) {
		failed(service, now, model, order->status, why);
		return;
	}
	files_record(checkpoint);
	checkpoint->facts = checkpoint->facts_writing;
	checkpoint->owns = true;
	checkpoint->version = order->generation.version;
	checkpoint->step = order->generation.step;
	checkpoint->wall_us = now->wall_us;
	checkpoint->since_ms = now->monotonic_ms;
	checkpoint->failure_count = 0;
	checkpoint->error.text[0] = '\0';
	book_note(model);
	service->counters.checkpoints_written++;
	service_event(service, order->reason.text[0] ? EVENT_WARNING : service->stopping ? EVENT_NOTICE : EVENT_DEBUG,
	              model->name, 0, "%s: checkpoint of step %" PRIu64 ", version %" PRIu64 "%s%s", model->name,
	              checkpoint->step, checkpoint->version, order->reason.text[0] ? ", but " : "", order->reason.text);
}

int checkpoint_discard(struct call *call, struct model *model)
{
	struct service *service = call->service;
	struct checkpoint *checkpoint = &model->checkpoint;
	struct file_order *order;

	if (!call->retried)
		call->awaited = ++service->asks;
	checkpoint->remover = call->awaited;
	call->waits = model;
	if (checkpoint->discarding)
		return CALL_PARK;
	if (!checkpoint_possible(service) || (!checkpoint->owns && !checkpoint->writing && !checkpoint->suspects))
		return 0;
	order = calloc(1, sizeof *order);
	if (!order)
		return -ENOMEM;
	order->work = FILE_DISCARD;
	order->model = model->id;
	order->wall_us = call->now->wall_us;
	generation_directory_write(model->name, order->directory);
	checkpoint->discarding = true;
	service->stray_count++;
	service->host.file_write(service->host.context, order);
	return CALL_PARK;
}

void checkpoint_discarded(struct service *service, struct model *model, const struct file_order *order)
{
	FAILPOINT("checkpoint-aside");
	if (order->status != 0)
		service_event(service, EVENT_ERROR, NULL, order->status,
		              "the checkpoints of a removed model stay on disk: %s", order->reason.text);
	if (!model)
		return;
	/* Also where that has failed: the model is removed nevertheless, as it was asked for. */
	model->checkpoint.discarding = false;
	model->checkpoint.suspects = false;
	model->checkpoint.owns = false;
	model->checkpoint.version = 0;
	model->checkpoint.file_count = 0;
	book_note(model);
}

void checkpoint_hasten(struct service *service, struct model *model)
{
	if (checkpoint_possible(service))
		model->checkpoint.asked = ++service->asks;
}

void checkpoint_inherit(struct model *heir, const struct model *ancestor)
{
	heir->checkpoint.owns = ancestor->checkpoint.owns;
	heir->checkpoint.suspects = ancestor->checkpoint.suspects;
	heir->checkpoint.version = ancestor->checkpoint.version;
	heir->checkpoint.step = ancestor->checkpoint.step;
	heir->checkpoint.file_count = ancestor->checkpoint.file_count;
	memcpy(heir->checkpoint.files, ancestor->checkpoint.files, sizeof heir->checkpoint.files);
	heir->checkpoint.wall_us = ancestor->checkpoint.wall_us;
	heir->checkpoint.since_ms = ancestor->checkpoint.since_ms;
}

struct checkpoint_news checkpoint_news(const struct service *service)
{
	struct checkpoint_news news = { NULL, NULL };

	for (const struct model *model = service->models; model; model = model->next) {
		const struct checkpoint *checkpoint = &model->checkpoint;

		if (model->doomed || model->ancestor)
			continue;
		if (checkpoint->wall_us > 0 &&
		    (!news.latest || checkpoint->since_ms > news.latest->checkpoint.since_ms))
			news.latest = model;
		if (checkpoint->failure_count > 0 &&
		    (!news.failing || checkpoint->failure_count > news.failing->checkpoint.failure_count))
			news.failing = model;
	}
	return news;
}

void checkpoint_finish(struct model *model)
{
	if (model->checkpoint.order)
		free(model->checkpoint.order->text);
	free(model->checkpoint.order);
	model->checkpoint = (struct checkpoint){ .writing = false };
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Whether the request of that number has its answer; else call->waits is set. */
static bool is_answered(struct call *call, struct model *model, uint64_t ask)
{
	struct checkpoint *checkpoint = &model->checkpoint;

	if (checkpoint->asked < ask) {
		checkpoint->asked = ask;
		checkpoint_settle(call->service, call->now, model);
	}
	if (checkpoint->answered >= ask)
		return true;
	call->waits = model;
	return false;
}

static int check(struct call *call, const struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);

	if (!newest)
		return reason_set(&call->reason, STATUS_ENOVERSION,
		                  "model '%s' has no averaged version yet: its first snapshot has not been applied",
		                  model->name);
	if (model->heirloom.geometry && is_newer(model))
		return reason_set(&call->reason, STATUS_EBUSY,
		                  "'%s' averages something else since step %" PRIu64
		                  ": it can be written when the next snapshot is in the average",
		                  model->name, newest->step);
	return 0;
}

static int answer_of(struct call *call, const struct model *model)
{
	if (model->checkpoint.answer == 0)
		return 0;
	return reason_set(&call->reason, model->checkpoint.answer, "%s: %s", model->name, model->checkpoint.error.text);
}

/* Every model that there is; those that have no version yet have nothing to be written. */
static int all_answer(struct call *call, uint64_t ask)
{
	bool waits = false;
	int error = 0;

	for (struct model *model = call->service->models; model; model = model->next) {
		struct reason before = call->reason;

		if (!model->serving || model->doomed || model->ancestor || check(call, model) != 0) {
			call->reason = before;
			continue;
		}
		if (!is_answered(call, model, ask))
			waits = true;
		else if (!error)
			error = answer_of(call, model);
	}
	return waits ? CALL_PARK : error;
}

int checkpoint_handle(struct call *call)
{
	struct reply reply = { 0 };
	struct model *model;
	int error;

	if (!checkpoint_possible(call->service))
		return reason_set(&call->reason, STATUS_EARGUMENT,
		                  "this daemon has no directory for checkpoints: start emad with --state-dir DIR (or "
		                  "state-dir=DIR in emad.conf)");
	if (!call->retried)
		call->awaited = ++call->service->asks;
	if (!(call->request->present & REQUEST_HAS(model))) {
		error = all_answer(call, call->awaited);
	} else {
		error = call_model(call, &model);
		if (!error)
			error = check(call, model);
		if (!error)
			error = is_answered(call, model, call->awaited) ? answer_of(call, model) : CALL_PARK;
		if (!error) {
			reply_set(&reply, version, model->checkpoint.version);
			reply_set(&reply, step, model->checkpoint.step);
		}
	}
	if (!error)
		call_reply(call, &reply, NULL);
	return error;
}
