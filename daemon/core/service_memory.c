/*
 * The memory of the models: how much they take and may take, what is ordered from the host, and what comes of it.
 */
#include "daemon/core/service_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/core/keep.h"
#include "daemon/core/owner.h"
#include "daemon/core/parking.h"
#include "daemon/core/relay.h"

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
