/*
 * Asking: hello, views, facts; and removing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/core/report.h"

int hello_handle(struct call *call)
{
	const struct service *service = call->service;
	struct reply reply = { 0 };

	reply_set(&reply, agent, text_of(service->facts.agent));
	reply_set(&reply, instance, service->instance);
	reply_set(&reply, pid, service->facts.pid);
	reply_set(&reply, uptime_ms, call->now->monotonic_ms - service->facts.started_ms);
	reply_set(&reply, header_bytes_max, MESSAGE_HEADER_BYTES_MAX);
	reply_set(&reply, body_bytes_max, service->settings.body_bytes_max);
	call_reply(call, &reply, NULL);
	return 0;
}

int call_profile(struct call *call, const struct model *model, const struct geometry *geometry, uint32_t *ret_index)
{
	const struct request *request = call->request;
	char shown[PROFILE_NAME_BYTES_MAX + 1], known[300] = "";

	if (!(request->present & REQUEST_HAS(profile))) {
		*ret_index = 0;
		return 0;
	}
	for (uint32_t p = 0; p < geometry->profile_count; p++) {
		size_t used = strlen(known);

		if (text_equal(request->profile, geometry->profiles[p].name)) {
			*ret_index = p;
			return 0;
		}
		snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", geometry->profiles[p].name);
	}
	if (profile_name_check(request->profile.bytes, request->profile.count, &call->reason) != 0)
		return STATUS_ENAME;
	(void)text_copy(request->profile, shown, sizeof shown);
	return reason_set(&call->reason, STATUS_ENOPROFILE, "model '%s' has no profile '%s'; it has: %s", model->name,
	                  shown, known);
}

static int view_late(struct call *call, const struct model *model, const struct slot_header *newest)
{
	if (!newest)
		return reason_set(&call->reason, STATUS_ENOVERSION,
		                  "model '%s' has no averaged version yet: its first snapshot has not been applied",
		                  model->name);
	return reason_set(&call->reason, STATUS_ETIMEOUT,
	                  "no version of step %" PRIu64 " or later came in time: the newest version of '%s' holds step "
	                  "%" PRIu64,
	                  call->request->min_step, model->name, newest->step);
}

int view_handle(struct call *call)
{
	const struct request *request = call->request;
	bool waits = request->present & REQUEST_HAS(min_step) && request->present & REQUEST_HAS(timeout_ms);
	struct attachment attachment = { 0 };
	struct reply reply = { 0 };
	const struct geometry *geometry;
	const struct slot_header *newest;
	struct model *model;
	uint32_t profile = 0, slot;
	int error = call_model(call, &model);

	if (error)
		return error;
	newest = versions_newest(&model->versions);
	geometry = model_newest_geometry(model);
	/* A profile that is wanted but not yet there comes with the next version. */
	if (waits && !call->expired && call_profile(call, model, geometry, &profile) == STATUS_ENOPROFILE &&
	    call_profile(call, model, model->geometry, &profile) == 0) {
		call->waits = model;
		return CALL_PARK;
	}
	error = call_profile(call, model, geometry, &profile);
	if (error)
		return error;
	if (!newest || (request->present & REQUEST_HAS(min_step) && newest->step < request->min_step)) {
		if (!waits || call->expired)
			return view_late(call, model, newest);
		call->waits = model;
		return CALL_PARK;
	}
	error = versions_lease(&model->versions, call->exchange->peer.id, call->now->monotonic_ms, &slot);
	if (error)
		return error;
	call->service->counters.views_opened++;
	attachment.fd = model_newest_memory(model)->fd_read_only;
	reply_set(&reply, version, newest->version);
	reply_set(&reply, step, newest->step);
	reply_set(&reply, segment, newest->segment.segment);
	reply_set(&reply, segment_bytes, model_newest_memory(model)->bytes);
	reply_set(&reply, fence, newest->fence);
	reply_set(&reply, profile_index, profile);
	reply_set(&reply, region_offset, geometry->region_offsets[profile]);
	reply_set(&reply, region_bytes, geometry->images[profile]->image_bytes);
	call_reply(call, &reply, &attachment);
	return 0;
}

static int json_reply(struct call *call, char *json)
{
	struct attachment attachment = { .body = json, .body_bytes = json ? strlen(json) : 0, .fd = -1 };
	struct reply reply = { 0 };

	if (!json)
		return -ENOMEM;
	call_reply(call, &reply, &attachment);
	free(json);
	return 0;
}

int status_handle(struct call *call)
{
	return json_reply(call, report_status(call->service, call->now));
}

int list_handle(struct call *call)
{
	return json_reply(call, report_list(call->service));
}

int show_handle(struct call *call)
{
	struct model *model;
	int error = call_model(call, &model);

	return error ? error : json_reply(call, report_show(call->service, model, true));
}

int remove_handle(struct call *call)
{
	struct event about = { .severity = EVENT_NOTICE, .kind = EVENT_MODEL_REMOVED, .pid = call->exchange->peer.pid };
	struct reply reply = { 0 };
	struct model *model;
	int error = call_model(call, &model);

	if (error)
		return error;
	error = checkpoint_discard(call, model);
	if (error)
		return error;
	about.model = model->name;
	about.step = model->has_step ? model->step : UINT64_MAX;
	service_event_about(call->service, &about, "%s: removed on request", model->name);
	reply_set(&reply, freed_bytes, model->memory_bytes);
	service_doom(call->service, model);
	call_reply(call, &reply, NULL);
	return 0;
}
