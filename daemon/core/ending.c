/*
 * Lingering, and last words. See ending.h.
 */
#include "daemon/core/ending.h"

#include <inttypes.h>

#include "daemon/core/call.h"

enum { LINGER_MS = 1000 };

static bool memory_is_kept(const struct service *service)
{
	return service->facts.segments_dir && service->facts.segments_dir[0];
}

static bool has_ready(const struct model *model, uint32_t rank, uint64_t step_min)
{
	for (uint32_t i = 0; i < model->stage_count; i++) {
		const struct stage_record *stage = &model->records[rank].stages[i];

		if (stage_state(stage) == STAGE_READY && stage->step >= step_min)
			return true;
	}
	return false;
}

/* Some ranks have pushed a step, and the trainers of all others are there. */
static bool is_completable(const struct model *model)
{
	bool some = false;

	if (model->world == 1 || !model->serving || model->doomed || model->ancestor)
		return false;
	for (uint32_t r = 0; r < model->world; r++) {
		uint64_t peer = model->ranks[r].attached_peer;

		if (has_ready(model, r, 0))
			some = true;
		else if (peer == 0 || peer == PEER_AWAY)
			return false;
	}
	return some;
}

void ending_begin(struct service *service, const struct instant *now)
{
	service->lingers = !memory_is_kept(service);
	service->linger_due_ms = now->monotonic_ms + LINGER_MS;
}

bool ending_awaits(const struct service *service, const struct model *model)
{
	return service->lingers && is_completable(model);
}

bool ending_takes(const struct service *service, const struct model *model, uint32_t rank, uint64_t step)
{
	if (!ending_awaits(service, model))
		return false;
	for (uint32_t r = 0; r < model->world; r++)
		if (r != rank && has_ready(model, r, step))
			return true;
	return false;
}

bool ending_settle(struct service *service, const struct instant *now)
{
	if (!service->lingers)
		return false;
	for (const struct model *model = service->models; model && now->monotonic_ms < service->linger_due_ms;
	     model = model->next)
		if (is_completable(model))
			return false;
	/* For good: whoever is told that the service is idle ends it. */
	service->lingers = false;
	for (struct model *model = service->models; model; model = model->next)
		service_touch(service, model);
	return true;
}

static void rank_tell(const struct service *service, const struct model *model, uint32_t r)
{
	const struct rank *rank = &model->ranks[r];
	bool lives = rank->attached_peer != 0 && rank->attached_peer != PEER_AWAY;

	for (uint32_t i = 0; i < model->stage_count; i++) {
		const struct stage_record *stage = &model->records[r].stages[i];
		const struct event about = {
			.severity = lives ? EVENT_NOTICE : EVENT_WARNING,
			.kind = EVENT_SNAPSHOT_LEFT,
			.model = model->name,
			.step = stage->step,
			.pid = rank->pid,
		};

		if (stage_state(stage) == STAGE_FREE)
			continue;
		service_event_about(service, &about,
		                    "%s: step %" PRIu64 " of rank %" PRIu32 " was accepted and is in no average yet: %s",
		                    model->name, stage->step, r,
		                    lives ? "unless its memory is kept, its trainer pushes it again"
		                          : "its trainer has gone, and with its memory it is lost");
	}
}

void ending_tell(const struct service *service)
{
	if (memory_is_kept(service))
		return;
	for (const struct model *model = service->models; model; model = model->next)
		for (uint32_t r = 0; model->serving && !model->doomed && r < model->world; r++)
			rank_tell(service, model, r);
}
