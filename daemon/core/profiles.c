/*
 * Changing profiles: on request while training runs, or because a registration adapts the model.
 *
 * Like every request these are written as if asked for the first time: each works out the profiles that it wants from
 * those that there are, and waits until the model averages by them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/registration_report.h"
#include "daemon/core/relay.h"

int profiles_parse(const struct text_list *list, struct profile *ret_profiles, uint32_t *ret_count,
                   struct reason *reason)
{
	if (list->count == 0)
		return reason_set(reason, STATUS_EPROFILE,
		                  "a model needs at least one profile, for example \"ema=yolo\"");
	for (uint32_t i = 0; i < list->count; i++) {
		int error = profile_parse(list->items[i].bytes, list->items[i].count, &ret_profiles[i], reason);

		if (error)
			return error;
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(ret_profiles[i].name, ret_profiles[j].name) == 0)
				return reason_set(reason, STATUS_EPROFILE, "two profiles have the name '%s'",
				                  ret_profiles[i].name);
	}
	*ret_count = list->count;
	return 0;
}

int profiles_want(struct call *call, struct model *model, const struct profile *profiles, uint32_t profile_count)
{
	struct segment_order order;
	bool is_done = false, wants_order = false, is_busy = model->relay.geometry != NULL;
	int error = keep_check(call->service, model, profiles, profile_count, &call->reason);

	if (!error)
		error = relay_begin(model, profiles, profile_count, &is_done, &wants_order, &order, &call->reason);
	/* Whoever asked may be gone when it is adopted. */
	if (!error && !is_busy && model->relay.geometry)
		model->relay.manages = call->request->operation != OP_REGISTER;
	if (!error && wants_order) {
		error = service_memory_check(call->service, model, NULL, &call->reason);
		if (!error)
			error = service_order(call->service, &order);
		if (error)
			relay_drop(model, &call->service->host);
	}
	if (error || is_done)
		return error;
	call->waits = model;
	return CALL_PARK;
}

static int profiles_reply(struct call *call, const struct model *model)
{
	struct reply reply = { 0 };
	char report[REPORT_BYTES_MAX];

	registration_report(model, report, sizeof report);
	reply_set(&reply, report, text_of(report));
	call_reply(call, &reply, NULL);
	return 0;
}

/* The wanted profiles take the places of those of their names, or go behind them. */
static int profiles_merge(struct call *call, const struct model *model, struct profile *profiles, uint32_t *count)
{
	const struct geometry *geometry = model->geometry;
	struct profile *wanted = calloc(PROFILE_COUNT_MAX, sizeof *wanted);
	uint32_t wanted_count;
	int error = wanted ? profiles_parse(&call->request->profiles, wanted, &wanted_count, &call->reason) : -ENOMEM;

	memcpy(profiles, geometry->profiles, geometry->profile_count * sizeof *profiles);
	*count = geometry->profile_count;
	for (uint32_t i = 0; !error && i < wanted_count; i++) {
		int32_t index = geometry_profile(geometry, wanted[i].name);

		if (index < 0 && *count == PROFILE_COUNT_MAX)
			error = reason_set(&call->reason, STATUS_ELIMIT, "model '%s' would have more than %d profiles",
			                   model->name, PROFILE_COUNT_MAX);
		else
			profiles[index < 0 ? (*count)++ : (uint32_t)index] = wanted[i];
	}
	free(wanted);
	return error;
}

static int profile_drop(struct call *call, const struct model *model, struct profile *profiles, uint32_t *count)
{
	const struct geometry *geometry = model->geometry;
	char name[PROFILE_NAME_BYTES_MAX + 1];
	int error = profile_name_check(call->request->profile.bytes, call->request->profile.count, &call->reason);
	int32_t index;

	if (!error)
		error = text_copy(call->request->profile, name, sizeof name);
	if (error)
		return error;
	index = geometry_profile(geometry, name);
	/* Waited for and done: the profile is not there any more. */
	if (index < 0 && call->retried) {
		memcpy(profiles, geometry->profiles, geometry->profile_count * sizeof *profiles);
		*count = geometry->profile_count;
		return 0;
	}
	if (index < 0)
		return reason_set(&call->reason, STATUS_ENOPROFILE, "model '%s' has no profile '%s'", model->name,
		                  name);
	if (geometry->profile_count == 1)
		return reason_set(
			&call->reason, STATUS_EPROFILE,
			"'%s' is the only profile of model '%s': a model needs one; 'emactl remove' forgets both", name,
			model->name);
	*count = 0;
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		if (p != (uint32_t)index)
			profiles[(*count)++] = geometry->profiles[p];
	return 0;
}

static int profiles_change(struct call *call,
                           int (*change)(struct call *, const struct model *, struct profile *, uint32_t *))
{
	struct profile *profiles = calloc(PROFILE_COUNT_MAX, sizeof *profiles);
	struct model *model;
	uint32_t count;
	int result = profiles ? call_model(call, &model) : -ENOMEM;

	if (!result)
		result = change(call, model, profiles, &count);
	if (!result)
		result = profiles_want(call, model, profiles, count);
	free(profiles);
	if (result)
		return result;
	model->managed = true;
	book_change(model);
	service_event(call->service, EVENT_NOTICE, model->name, 0, "%s: profiles changed on request: %" PRIu32 " now",
	              model->name, model->geometry->profile_count);
	return profiles_reply(call, model);
}

int profile_set_handle(struct call *call)
{
	return profiles_change(call, profiles_merge);
}

int profile_remove_handle(struct call *call)
{
	return profiles_change(call, profile_drop);
}
