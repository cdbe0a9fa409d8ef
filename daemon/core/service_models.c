/*
 * Which models there are: how they come into the service, are found in it, and leave it.
 */
#include "daemon/core/service_state.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/core/failpoint.h"
#include "daemon/core/owner.h"

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

void service_unlink(struct service *service, struct model *model)
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
