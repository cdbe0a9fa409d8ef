/*
 * Settling: what has been touched is looked at, one model after the other, until nothing is left to do.
 */
#include "daemon/core/service_state.h"

#include "daemon/core/book.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/ending.h"
#include "daemon/core/intake.h"
#include "daemon/core/keep.h"
#include "daemon/core/parking.h"
#include "daemon/core/relay.h"
#include "daemon/core/restore.h"

void service_touch(struct service *service, struct model *model)
{
	if (model->touched)
		return;
	model->touched = true;
	model->touched_next = NULL;
	*service->touched_end = model;
	service->touched_end = &model->touched_next;
}

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

static void model_settle(struct service *service, const struct instant *now, struct model *model)
{
	if (model->ancestor)
		inherit(service, model);
	/* Also the one that has just become visible, or was given up. */
	if (model->doomed)
		return;
	restore_sweep(service, model);
	adopt(service, model);
	if (model->book_is_stale)
		book_note(model);
	service_update(service, now, model);
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
			service_unlink(service, model);
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
