/*
 * Models, their memory, events from outside, and settling. See service.h; requests are in call.c and parking.c, the
 * operations in register.c, push.c, query.c and others.
 */
#include "daemon/core/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/ending.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/inquiry.h"
#include "daemon/core/loan.h"
#include "daemon/core/owner.h"
#include "daemon/core/parking.h"
#include "daemon/core/relay.h"
#include "daemon/core/remote.h"

int service_create(const struct host *host, const struct settings *settings, const struct service_facts *facts,
                   struct service **ret_service)
{
	struct service *service = calloc(1, sizeof *service);

	if (!service)
		return -ENOMEM;
	if (unpacked_create(&service->unpacked) != 0) {
		free(service);
		return -ENOMEM;
	}
	service->host = *host;
	service->settings = *settings;
	service->facts = *facts;
	parking_init(service);
	service->touched_end = &service->touched;
	service->instance = host->random(host->context) >> 1; /* JSON's integers are signed */
	service->model_id_next = 1;
	service->epoch_next = 1;
	*ret_service = service;
	return 0;
}

void service_destroy(struct service *service)
{
	if (!service)
		return;
	parking_finish(service);
	while (service->models) {
		struct model *next = service->models->next;

		model_destroy(service->models, &service->host);
		service->models = next;
	}
	loan_finish(service);
	recover_finish(service);
	inquiry_finish(service);
	unpacked_destroy(service->unpacked);
	free(service);
}

struct counters *service_counters(struct service *service)
{
	return &service->counters;
}

static void event_tell(const struct service *service, struct event event, const char *format, va_list arguments)
{
	char text[768];

	vsnprintf(text, sizeof text, format, arguments);
	event.text = text;
	event.origin = format;
	service->host.event(service->host.context, &event);
}

void service_event(const struct service *service, enum event_severity severity, const char *model, int error,
                   const char *format, ...)
{
	const struct event event = {
		.severity = severity,
		.model = model,
		.error = error ? status_name(error) : NULL,
		.step = UINT64_MAX,
		.pid = -1,
	};
	va_list arguments;

	va_start(arguments, format);
	event_tell(service, event, format, arguments);
	va_end(arguments);
}

void service_event_about(const struct service *service, const struct event *about, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	event_tell(service, *about, format, arguments);
	va_end(arguments);
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

struct model *service_find(const struct service *service, const char *name, size_t name_bytes)
{
	for (struct model *model = service->models; model; model = model->next)
		if (!model->doomed && !model->ancestor && strlen(model->name) == name_bytes &&
		    memcmp(model->name, name, name_bytes) == 0)
			return model;
	return NULL;
}

struct model *service_model(const struct service *service, uint64_t id)
{
	for (struct model *model = service->models; model; model = model->next)
		if (model->id == id)
			return model;
	return NULL;
}

void service_touch(struct service *service, struct model *model)
{
	if (model->touched)
		return;
	model->touched = true;
	model->touched_next = NULL;
	*service->touched_end = model;
	service->touched_end = &model->touched_next;
}

int service_order(struct service *service, const struct segment_order *order)
{
	struct segment_order *copy = malloc(sizeof *copy);

	if (!copy)
		return -ENOMEM;
	*copy = *order;
	service_order_take(service, copy);
	return 0;
}

void service_order_take(struct service *service, struct segment_order *order)
{
	for (uint32_t i = 0; i < order->count; i++) {
		enum segment_kind kind = order->epoch != 0 ? SEGMENT_STAGE
		                         : order->relays || i > 0 ? SEGMENT_SLOT
		                                                  : SEGMENT_HEAD;

		order->memory[i].segment = segment_identity(service->host.random(service->host.context), kind);
	}
	service->host.memory_make(service->host.context, order);
}

/* With slots of another geometry on their way, and a version of an earlier one. */
static uint64_t model_bytes(const struct model *model)
{
	return model->memory_bytes + model->relay.slot_bytes_sum + model->heirloom.memory.bytes;
}

/* A model that is gone still takes its memory while a slot of it is written to disk, which may take long. */
static bool is_held(const struct model *model)
{
	return !model->doomed || keep_busy(model);
}

uint64_t service_model_bytes(const struct model *model)
{
	return is_held(model) ? model_bytes(model) : 0;
}

uint64_t service_memory_bytes(const struct service *service)
{
	uint64_t bytes = 0;

	for (const struct model *model = service->models; model; model = model->next)
		bytes += service_model_bytes(model);
	return bytes;
}

/* With a stage for every rank, whether it has attached or not, so that none of a model that is there is refused one. */
static uint64_t model_segment_count(const struct model *model)
{
	return 1 + model->slot_count + model->world + (model->relay.slot_bytes_sum > 0 ? model->slot_count : 0) +
	       (model->heirloom.memory.base != NULL);
}

/* Also those of models that are to go count until they have gone: so long somebody keeps their segments. */
static int segments_check(const struct service *service, const struct model *model, struct reason *reason)
{
	uint64_t most = service->settings.segment_count_max, needed = model_segment_count(model), used = 0;

	for (const struct model *other = service->models; other; other = other->next)
		used += other != model ? model_segment_count(other) : 0;
	if (needed <= most && used <= most - needed)
		return 0;
	return reason_set(reason, STATUS_ELIMIT,
	                  "model '%s' needs %" PRIu64 " segments (one, %" PRIu32 " slots, %" PRIu32 " ranks%s), but %" PRIu64
	                  " of %" PRIu64 " (segments-max) are left: remove a model with 'emactl remove MODEL', or raise "
	                  "segments-max",
	                  model->name, needed, model->slot_count, model->world,
	                  model->relay.geometry ? ", and its old slots meanwhile" : "", most > used ? most - used : 0, most);
}

int service_memory_check(const struct service *service, const struct model *model, const struct model *replaced,
                         struct reason *reason)
{
	const struct geometry *geometry = model->relay.geometry ? model->relay.geometry : model->geometry;
	uint64_t most = service->settings.memory_bytes_max, needed = model_bytes(model), used = 0;

	for (const struct model *other = service->models; other; other = other->next)
		if (other != model && (other != replaced || other->doomed))
			used += service_model_bytes(other);
	if (needed <= most && used <= most - needed) {
		int error = segments_check(service, model, reason);

		return error ? error : owner_memory_check(service, model, replaced, reason);
	}
	return reason_set(reason, STATUS_EMEMORY,
	                  "model '%s' needs %" PRIu64 " bytes (%" PRIu32 " slots of %" PRIu64 ", %" PRIu32
	                  " stages of %" PRIu64 "%s), but %" PRIu64 " of %" PRIu64
	                  " (memory-max) are left: remove a model with 'emactl remove MODEL', lower slots or "
	                  "stages, or raise memory-max",
	                  model->name, needed, model->slot_count, geometry->slot_bytes, model->stage_count,
	                  model->payload_bytes, model->relay.geometry ? ", and its old slots meanwhile" : "",
	                  most > used ? most - used : 0, most);
}

int service_admit(struct service *service, struct model *model, struct model *other, bool inherits,
                  struct reason *reason)
{
	struct model *replaced = inherits ? NULL : other;
	struct segment_order order;
	uint64_t count = 0;
	int error;

	for (const struct model *at = service->models; at; at = at->next)
		count += !at->doomed && !at->ancestor && at != other;
	if (count >= service->settings.model_count_max)
		return reason_set(reason, STATUS_ELIMIT,
		                  "%" PRIu64 " models are the limit of %" PRIu64
		                  " (models-max): remove one with 'emactl remove MODEL', or raise models-max",
		                  count, service->settings.model_count_max);
	error = owner_count_check(service, model, other, reason);
	if (!error)
		error = service_memory_check(service, model, replaced, reason);
	if (error)
		return error;
	model->id = service->model_id_next;
	model_order(model, &order);
	error = service_order(service, &order);
	if (error)
		return error;
	/* Another registration was about to go on from it; it goes on from the new model instead. */
	if (replaced && replaced->heir)
		service_doom(service, replaced->heir);
	if (replaced) {
		const struct event about = {
			.severity = EVENT_NOTICE,
			.kind = EVENT_MODEL_REMOVED,
			.model = model->name,
			.step = replaced->has_step ? replaced->step : UINT64_MAX,
			.pid = -1,
		};

		service_event_about(service, &about, "%s: replaced by a new registration", model->name);
		service_doom(service, replaced);
	}
	if (inherits) {
		model->ancestor = other;
		other->heir = model;
	}
	service->model_id_next++;
	service_include(service, model);
	return 0;
}

void service_include(struct service *service, struct model *model)
{
	model->next = service->models;
	service->models = model;
}

static void model_unlink(struct service *service, struct model *model)
{
	struct model **link = &service->models;

	while (*link != model)
		link = &(*link)->next;
	*link = model->next;
	model_destroy(model, &service->host);
}

void service_doom(struct service *service, struct model *model)
{
	model->doomed = true;
	model->room_due_ms = 0; /* it may have to stay until its files are written, but averages no more */
	/* The next daemon gives its memory back too, if this one does not get to it. */
	if (model->head)
		model->head->gone = HEAD_GONE;
	FAILPOINT("model-gone");
	/* Whoever is left of the two goes on alone. */
	if (model->ancestor)
		model->ancestor->heir = NULL;
	if (model->heir) {
		model->heir->ancestor = NULL;
		service_touch(service, model->heir);
	}
	model->ancestor = model->heir = NULL;
	service_touch(service, model);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/*
 * An heir that has its memory takes over from its ancestor. The ancestor's trainers are fenced first, so that what was
 * accepted from them comes to an end: it is averaged before.
 */
static void inherit(struct service *service, struct model *heir)
{
	struct segment_order failure = { .status = 0 };
	struct model *ancestor = heir->ancestor;

	if (!heir->serving)
		return;
	for (uint32_t r = 0; r < ancestor->world; r++)
		intake_vacate(&ancestor->records[r]);
	if (ancestor->applying || ancestor->room_due_ms != 0 || keep_busy(ancestor))
		return;
	failure.status = relay_inherit(heir, &service->host, &failure.reason);
	/* What other ranks have left out goes down with the ancestor. */
	for (uint32_t r = 0; !failure.status && r < ancestor->world; r++)
		service->counters.pushes_incomplete += intake_pending(&ancestor->records[r], ancestor->stage_count);
	if (failure.status) {
		service_event(service, EVENT_ERROR, heir->name, failure.status, "%s: %s", heir->name,
		              failure.reason.text);
		parking_fail(service, heir->id, &failure);
		service_doom(service, heir);
		for (uint32_t r = 0; r < ancestor->world; r++)
			intake_reclaim(&ancestor->records[r]);
		return;
	}
	service_doom(service, ancestor);
	service_event(service, EVENT_NOTICE, heir->name, 0, "%s: adapted to a new registration", heir->name);
}

/* Slots of another geometry take the place of those there are, between two updates. */
static void adopt(struct service *service, struct model *model)
{
	struct segment_order failure = { .relays = true };
	bool adopted;

	failure.status = relay_adopt(model, &service->host, &adopted, &failure.reason);
	if (!failure.status)
		return;
	service_event(service, EVENT_ERROR, model->name, failure.status, "%s: its profiles stay as they are: %s",
	              model->name, failure.reason.text[0] ? failure.reason.text : status_text(failure.status));
	parking_fail(service, model->id, &failure);
}

static void views_revoked(const struct service *service, const struct model *model, uint64_t count)
{
	const struct event about = {
		.severity = EVENT_NOTICE,
		.kind = EVENT_VIEWS_REVOKED,
		.model = model->name,
		.error = status_name(STATUS_EREVOKED),
		.step = model->has_step ? model->step : UINT64_MAX,
		.pid = -1,
	};

	service_event_about(service, &about, "%s: %" PRIu64 " view%s revoked: an update waited for memory that readers had "
	                    "held for longer than %" PRIu64 " ms (lease-min); more slots let them hold it longer",
	                    model->name, count, count == 1 ? " was" : "s were", service->settings.lease_min_ms);
}

/* The whole step was, or some tensors of it. */
static void snapshot_refused(const struct service *service, const struct model *model, uint64_t step,
                             const struct reason *reason)
{
	const struct event about = {
		.severity = EVENT_WARNING,
		.kind = EVENT_SNAPSHOT_REFUSED,
		.model = model->name,
		.error = status_name(STATUS_EREFUSED),
		.step = step,
		.pid = model->world == 1 ? model->ranks[0].pid : -1,
	};

	service_event_about(service, &about, "%s: %s", model->name, reason->text);
}

static void drops_tell(const struct service *service, struct model *model)
{
	struct reason reason = model->ranks[model->drop_rank].refusal;
	size_t used = strlen(reason.text);

	if (model->drop_count == 0)
		return;
	if (model->drop_count > 1)
		snprintf(reason.text + used, sizeof reason.text - used, " (%" PRIu64 " more like it)", model->drop_count - 1);
	snapshot_refused(service, model, model->drop_step, &reason);
	model->drop_count = 0;
}

static void model_settle(struct service *service, const struct instant *now, struct model *model)
{
	uint64_t revoked_before;
	bool begun;

	if (model->ancestor)
		inherit(service, model);
	/* Also the one that has just become visible, or was given up. */
	if (model->doomed)
		return;
	restore_sweep(service, model);
	adopt(service, model);
	if (model->book_is_stale)
		book_note(model);
	revoked_before = service->counters.leases_revoked;
	update_begin(model, &service->settings, now, &service->counters, &begun);
	if (service->counters.leases_revoked > revoked_before)
		views_revoked(service, model, service->counters.leases_revoked - revoked_before);
	if (begun)
		service->host.apply_start(service->host.context, &model->apply);
	drops_tell(service, model);
	checkpoint_settle(service, now, model);
	for (uint32_t r = 0; model->serving && r < model->world; r++)
		model_stage_sweep(model, r, &service->host);
	if (model->heir && !model->applying)
		service_touch(service, model->heir);
}

static void touched_settle(struct service *service, const struct instant *now)
{
	while (service->touched) {
		struct model *model = service->touched;
		uint64_t id = model->id;

		/* One that is touched again meanwhile comes behind all others. */
		service->touched = model->touched_next;
		if (!service->touched)
			service->touched_end = &service->touched;
		model->touched = false;
		if (model->doomed && !model->applying && !keep_busy(model)) {
			model_unlink(service, model);
		} else if (!model->doomed) {
			model_settle(service, now, model);
		}
		parking_retry(service, now, id);
	}
}

void service_settle(struct service *service, const struct instant *now)
{
	do
		touched_settle(service, now);
	while (ending_settle(service, now));
}

void service_request(struct service *service, const struct instant *now, const struct exchange *exchange,
                     const uint8_t *header, size_t header_bytes, const uint8_t *body, size_t body_bytes)
{
	struct call call = {
		.service = service,
		.now = now,
		.body = body,
		.body_bytes = body_bytes,
		.exchange = exchange,
	};

	service->counters.requests++;
	if (call_handle(&call, header, header_bytes) == CALL_PARK) {
		int error = parking_park(&call, header, header_bytes);

		if (error) {
			call_fail(service, exchange, error, &call.reason);
			parking_forget(service, call.waits);
		}
	}
	service_settle(service, now);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

void service_peer_gone(struct service *service, const struct instant *now, uint64_t peer)
{
	parking_gone(service, peer);
	for (struct model *model = service->models; model; model = model->next) {
		if (versions_release(&model->versions, peer) > 0)
			service_touch(service, model);
		for (uint32_t r = 0; r < model->world; r++) {
			if (model->ranks[r].attached_peer != peer)
				continue;
			if (model->ranks[r].is_remote) {
				remote_gone(service, now, &model->ranks[r]);
				continue;
			}
			model->ranks[r].attached_peer = 0;
			service_touch(service, model);
		}
		parking_forget(service, model);
	}
	service_settle(service, now);
}

static void order_discard(struct service *service, struct segment_order *order)
{
	for (uint32_t i = 0; order->status == 0 && i < order->count; i++)
		service->host.memory_drop(service->host.context, &order->memory[i]);
}

void service_memory_made(struct service *service, const struct instant *now, struct segment_order *order)
{
	struct model *model = service_model(service, order->model);
	bool is_stage = order->epoch != 0, recovers = model && model == service->recovery.model && !is_stage;
	bool made = order->status == 0;

	if (model && is_stage && model->records[order->rank].epoch == order->epoch)
		model->ranks[order->rank].stage_ordered = false;
	if (!model || model->doomed || (is_stage && model->records[order->rank].epoch != order->epoch)) {
		order_discard(service, order);
	} else if (order->status != 0) {
		service_event(service, EVENT_ERROR, model->name, order->status, "no memory for '%s': %s", model->name,
		              order->reason.text);
		parking_fail(service, model->id, order);
		if (order->relays)
			relay_made(model, order, &service->host);
		else if (!is_stage)
			service_doom(service, model);
	} else {
		if (order->relays)
			relay_made(model, order, &service->host);
		else if (is_stage)
			model_adopt_stage(model, order);
		else
			model_adopt(model, order);
		service_touch(service, model);
	}
	free(order);
	if (recovers)
		recover_memory(service, now, made);
	service_settle(service, now);
}

void service_applied(struct service *service, const struct instant *now, struct apply *apply)
{
	struct model *model = apply->owner;
	uint64_t step = model->applying_next.step;
	uint64_t apply_us = service->counters.apply_us;
	enum update_result result = UPDATE_REFUSED;
	struct reason reason = { "" };

	if (model->doomed)
		model->applying = false;
	else
		result = update_end(model, &service->host, now, &service->counters, &reason);
	if (result == UPDATE_AGAIN) {
		service->host.apply_start(service->host.context, &model->apply);
		return;
	}
	if (!model->doomed)
		metrics_time_add(&service->update_times, service->counters.apply_us - apply_us);
	if (reason.text[0])
		snapshot_refused(service, model, step, &reason);
	if (result == UPDATE_PUBLISHED)
		keep_published(service, now, model, model->applying_after);
	service_touch(service, model);
	service_settle(service, now);
}

/* Orders that belong to a model: it is there for as long as they are with the host. */
static void model_file_written(struct service *service, const struct instant *now, struct file_order *order)
{
	struct model *model = service_model(service, order->model);

	if (order->work == FILE_KEEP) {
		keep_written(service, now, model);
	} else if (order->work == FILE_CHECKPOINT || order->work == FILE_FACTS) {
		checkpoint_written(service, now, model);
		keep_resume(service, now, model);
	} else {
		restore_written(service, now, model);
		keep_resume(service, now, model);
	}
	service_touch(service, model);
}

/* Orders that belong to none: a model that they are about may be gone. */
static void stray_file_written(struct service *service, struct file_order *order)
{
	struct model *model = service_model(service, order->model);

	service->stray_count--;
	if (model)
		service_touch(service, model);
	if (order->work == FILE_LIST || order->work == FILE_MARK) {
		inquiry_done(service, order);
		return;
	}
	if (order->work == FILE_BACK)
		keep_went_back(service, model, order);
	else
		checkpoint_discarded(service, model, order);
	free(order);
}

void service_file_written(struct service *service, const struct instant *now, struct file_order *order)
{
	switch (order->work) {
	case FILE_FIND:
	case FILE_BAD:
		recover_done(service, now);
		break;
	case FILE_FILL:
		if (order == service->recovery.order)
			recover_done(service, now);
		else
			model_file_written(service, now, order);
		break;
	case FILE_KEEP:
	case FILE_CHECKPOINT:
	case FILE_FACTS:
	case FILE_SEEK:
		model_file_written(service, now, order);
		break;
	case FILE_DISCARD:
	case FILE_BACK:
	case FILE_LIST:
	case FILE_MARK:
		stray_file_written(service, order);
		break;
	}
	service_settle(service, now);
	inquiry_sweep(service);
}

void service_tick(struct service *service, const struct instant *now)
{
	parking_tick(service, now);
	remote_tick(service, now);
	for (struct model *model = service->models; model; model = model->next)
		if ((model->room_due_ms != 0 && model->room_due_ms <= now->monotonic_ms) ||
		    checkpoint_due_ms(service, model) <= now->monotonic_ms)
			service_touch(service, model);
	if (service->awaited_due_ms != 0 && service->awaited_due_ms <= now->monotonic_ms) {
		service->awaited_due_ms = 0;
		service_peer_gone(service, now, PEER_AWAITED);
	}
	service_settle(service, now);
}

uint64_t service_due_ms(const struct service *service)
{
	uint64_t due_ms = remote_due_ms(service), parked_ms = parking_due_ms(service);

	if (service->awaited_due_ms != 0 && service->awaited_due_ms < due_ms)
		due_ms = service->awaited_due_ms;
	if (parked_ms < due_ms)
		due_ms = parked_ms;
	if (service->lingers && service->linger_due_ms < due_ms)
		due_ms = service->linger_due_ms;
	for (const struct model *model = service->models; model; model = model->next) {
		uint64_t checkpoint_ms = checkpoint_due_ms(service, model);

		if (model->room_due_ms != 0 && model->room_due_ms < due_ms)
			due_ms = model->room_due_ms;
		if (checkpoint_ms < due_ms)
			due_ms = checkpoint_ms;
	}
	return due_ms;
}

void service_limits_warn(const struct service *service)
{
	const struct settings *settings = &service->settings;
	uint64_t used = service_memory_bytes(service), count = 0, segments = 0;

	for (const struct model *model = service->models; model; model = model->next) {
		count += !model->doomed && !model->ancestor;
		segments += model_segment_count(model);
	}
	if (used > settings->memory_bytes_max)
		service_event(service, EVENT_WARNING, NULL, 0, "memory-max is %" PRIu64 " bytes now, and the models use %" PRIu64
		              ": they stay, and new ones are refused until 'emactl remove' has made room",
		              settings->memory_bytes_max, used);
	if (count > settings->model_count_max)
		service_event(service, EVENT_WARNING, NULL, 0, "models-max is %" PRIu64 " now, and there are %" PRIu64
		              " models: they stay, and new ones are refused until 'emactl remove' has made room",
		              settings->model_count_max, count);
	if (segments > settings->segment_count_max)
		service_event(service, EVENT_WARNING, NULL, 0, "segments-max is %" PRIu64 " now, and the models take %" PRIu64
		              ": they stay, and new ones are refused until 'emactl remove' has made room",
		              settings->segment_count_max, segments);
	owner_warn(service);
}

void service_reconfigure(struct service *service, const struct instant *now, const struct settings *settings)
{
	service->settings = *settings;
	if (service->stopping)
		service->settings.lease_min_ms = 0;
	/* An update that waits for a reader may have to wait less long now. */
	for (struct model *model = service->models; model; model = model->next)
		service_touch(service, model);
	service_limits_warn(service);
	service_settle(service, now);
}

void service_stop(struct service *service, const struct instant *now)
{
	service->stopping = true;
	ending_begin(service, now);
	service->settings.lease_min_ms = 0; /* what was accepted must not wait for readers any more */
	for (struct model *model = service->models; model; model = model->next)
		service_touch(service, model);
	service_settle(service, now);
}

bool service_idle(const struct service *service)
{
	for (const struct model *model = service->models; model; model = model->next)
		if (model->applying || keep_busy(model) || model->room_due_ms != 0 ||
		    checkpoint_owed(service, model))
			return false;
	return service->stray_count == 0 && !service->lingers;
}

void service_leave(const struct service *service)
{
	ending_tell(service);
}

bool service_checkpointing(const struct service *service)
{
	for (const struct model *model = service->models; model; model = model->next)
		if (checkpoint_owed(service, model))
			return true;
	return false;
}

int service_recover(struct service *service, const struct instant *now)
{
	return recover_begin(service, now);
}

bool service_recovering(const struct service *service)
{
	return service->recovery.running;
}

int service_recovery_error(const struct service *service)
{
	return service->recovery.error;
}

/* "1.5 GiB" */
static void memory_text(uint64_t bytes, char *text, size_t text_capacity)
{
	const double mebi = 1048576.0;

	if ((double)bytes < 1024 * mebi)
		snprintf(text, text_capacity, "%.1f MiB", (double)bytes / mebi);
	else
		snprintf(text, text_capacity, "%.1f GiB", (double)bytes / mebi / 1024);
}

/* "12 s", "5 min", "3 h", "9 d": whole ones of the largest unit that makes two at least. */
static void age_text(uint64_t age_ms, char *text, size_t text_capacity)
{
	static const struct {
		uint64_t ms;
		const char *name;
	} units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "min" }, { 1000, "s" } };
	size_t u = 0;

	while (u < sizeof units / sizeof units[0] - 1 && age_ms < 2 * units[u].ms)
		u++;
	snprintf(text, text_capacity, "%" PRIu64 " %s", age_ms / units[u].ms, units[u].name);
}

void service_summary(const struct service *service, const struct instant *now, char *text, size_t text_capacity)
{
	const struct checkpoint_news news = checkpoint_news(service);
	uint64_t count = 0, step = 0;
	uint32_t lag = 0;
	char memory[32], age[32];
	int bytes;

	for (const struct model *model = service->models; model; model = model->next) {
		const uint64_t *newest = model->doomed ? NULL : model_newest_step(model);

		count += !model->doomed && !model->ancestor;
		if (newest && *newest > step)
			step = *newest;
		if (model_lag(model) > lag)
			lag = model_lag(model);
	}
	memory_text(service_memory_bytes(service), memory, sizeof memory);
	bytes = snprintf(text, text_capacity, "%" PRIu64 " model%s, step %" PRIu64 ", lag %" PRIu32 ", %s", count,
	                 count == 1 ? "" : "s", step, lag, memory);
	if (bytes < 0 || (size_t)bytes >= text_capacity)
		return;
	if (news.failing) {
		snprintf(text + bytes, text_capacity - (size_t)bytes, ", checkpoint of %s failing: %s", news.failing->name,
		         news.failing->checkpoint.error.text);
	} else if (news.latest) {
		age_text(now->monotonic_ms - news.latest->checkpoint.since_ms, age, sizeof age);
		snprintf(text + bytes, text_capacity - (size_t)bytes, ", checkpoint %s ago", age);
	}
}
