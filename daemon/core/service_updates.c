/*
 * Updates: begun when a model settles, ended when the workers are through, and what people are told of them.
 */
#include "daemon/core/service_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/keep.h"
#include "daemon/core/update.h"

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

void service_update(struct service *service, const struct instant *now, struct model *model)
{
	uint64_t revoked_before = service->counters.leases_revoked;
	bool begun;

	update_begin(model, &service->settings, now, &service->counters, &begun);
	if (service->counters.leases_revoked > revoked_before)
		views_revoked(service, model, service->counters.leases_revoked - revoked_before);
	if (begun)
		service->host.apply_start(service->host.context, &model->apply);
	drops_tell(service, model);
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
