/*
 * Registering: who may push what into which model.
 *
 * A registration may have to wait twice: for the memory of a new model, and for what an earlier trainer of the same
 * rank still has in its stages. Either way it is parked, and everything here is looked at afresh when it is handled
 * again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attributes.h"
#include "daemon/core/call.h"

enum resume { RESUME_AUTO, RESUME_NEVER, RESUME_MUST };

/* What a register request asks for, checked by itself. */
struct wish {
	char name[MODEL_NAME_BYTES_MAX + 1];
	enum resume resume;
	uint32_t world;
	uint32_t rank;
	uint32_t profile_count;
	struct profile profiles[PROFILE_COUNT_MAX];
	char *attributes;          /* owned; NULL when none are given */
	struct manifest *manifest; /* owned; its pieces are this rank's */
};

static void wish_finish(struct wish *wish)
{
	free(wish->attributes);
	manifest_destroy(wish->manifest);
}

static int resume_parse(const struct request *request, enum resume *ret_resume, struct reason *reason)
{
	static const char *const names[] = { "auto", "never", "must" };

	*ret_resume = RESUME_AUTO;
	if (!(request->present & REQUEST_HAS(resume)))
		return 0;
	for (int i = 0; i < 3; i++) {
		if (!text_equal(request->resume, names[i]))
			continue;
		*ret_resume = (enum resume)i;
		return 0;
	}
	return reason_set(reason, STATUS_EARGUMENT, "resume must be auto, never or must");
}

static int profiles_parse(const struct request *request, struct wish *wish, struct reason *reason)
{
	if (request->profiles.count == 0)
		return reason_set(reason, STATUS_EPROFILE, "a model needs at least one profile, for example \"ema=yolo\"");
	for (uint32_t i = 0; i < request->profiles.count; i++) {
		int error = profile_parse(request->profiles.items[i].bytes, request->profiles.items[i].count,
		                          &wish->profiles[i], reason);

		if (error)
			return error;
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(wish->profiles[i].name, wish->profiles[j].name) == 0)
				return reason_set(reason, STATUS_EPROFILE, "two profiles have the name '%s'",
				                  wish->profiles[i].name);
	}
	wish->profile_count = request->profiles.count;
	return 0;
}

/* Fills in the wish; wish_finish is right on failure too. */
static int wish_make(struct call *call, struct wish *wish)
{
	const struct request *request = call->request;
	struct reason *reason = &call->reason;
	int error = model_name_check(request->model.bytes, request->model.count, reason);

	if (!error)
		error = text_copy(request->model, wish->name, sizeof wish->name);
	if (!error && (request->world < 1 || request->world > WORLD_MAX))
		error = reason_set(reason, STATUS_ELIMIT, "world is %" PRIu64 ", and must be 1 to %d", request->world,
		                   WORLD_MAX);
	if (!error && request->rank >= request->world)
		error = reason_set(reason, STATUS_EARGUMENT, "rank %" PRIu64 " is not below world %" PRIu64, request->rank,
		                   request->world);
	if (!error && request->client == 0)
		error = reason_set(reason, STATUS_EARGUMENT, "client must not be 0");
	if (!error)
		error = resume_parse(request, &wish->resume, reason);
	if (!error)
		error = profiles_parse(request, wish, reason);
	if (!error && request->present & REQUEST_HAS(attributes))
		error = attributes_parse(request->attributes.bytes, request->attributes.count, &wish->attributes, reason);
	if (!error)
		error = manifest_decode(call->body, call->body_bytes, &wish->manifest, reason);
	wish->world = (uint32_t)request->world;
	wish->rank = (uint32_t)request->rank;
	return error;
}

/* Makes a model for the wish, in the place of another or of none (NULL), and waits for its memory. */
static int model_start(struct call *call, struct wish *wish, struct model *replaced)
{
	struct manifest *manifest = wish->manifest;
	struct model *model;
	int error;

	if (call->service->stopping)
		return reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	wish->manifest = NULL;
	error = model_create(&call->service->settings, wish->name, wish->world, manifest, wish->profiles,
	                     wish->profile_count, &model, &call->reason);
	if (error)
		return error;
	error = service_admit(call->service, model, replaced, &call->reason);
	if (error) {
		model_destroy(model, &call->service->host);
		return error;
	}
	call->waits = model;
	return CALL_PARK;
}

/* A model that another rank of the same start has just made, not one to be replaced. */
static bool model_is_fresh(const struct model *model, const struct wish *wish)
{
	return model->world == wish->world && !model_newest_step(model) && model->records[wish->rank].client == 0;
}

/* The very request by which the rank is held. */
static bool is_repeated(const struct call *call, const struct model *model, const struct wish *wish)
{
	const struct rank_record *record = &model->records[wish->rank];

	return model->world == wish->world && record->client == call->request->client &&
	       record->register_sequence == call->request->sequence;
}

static int wish_fits(const struct model *model, const struct wish *wish, struct reason *reason)
{
	int error;

	if (model->world != wish->world)
		return reason_set(reason, STATUS_EMANIFEST,
		                  "world is %" PRIu32 " here and %" PRIu32 " in the model '%s'; resume=never replaces it",
		                  wish->world, model->world, model->name);
	error = manifest_compare(wish->manifest, model->manifest, reason);
	if (error)
		return error;
	return profile_compare(wish->profiles, wish->profile_count, model->profiles, model->profile_count, reason);
}

/*
 * Ends an earlier registration of the rank: nobody holds it from now on, and of a sharded model what only this rank had
 * pushed is dropped, because the other ranks' trainers start anew as well. True when nothing is pending any more.
 */
static bool rank_vacate(struct service *service, struct model *model, uint32_t rank)
{
	struct rank_record *record = &model->records[rank];
	bool changed = record->client != 0;

	record->client = 0;
	for (uint32_t i = 0; model->world > 1 && i < model->stage_count; i++) {
		if (record->stages[i].state != STAGE_READY)
			continue;
		reason_set(&model->ranks[rank].refusal, STATUS_EREFUSED,
		           "step %" PRIu64 " was dropped: the rank was registered anew before all ranks had pushed it",
		           record->stages[i].step);
		intake_settle(record, i, OUTCOME_INCOMPLETE, 0);
		model_stage_mirror(model, rank, i);
		service->counters.pushes_incomplete++;
	}
	/* Only then: a registration that waits is handled again whenever its model was touched. */
	if (changed)
		service_touch(service, model);
	return intake_pending(record, model->stage_count) == 0;
}

static void rank_claim(struct call *call, struct model *model, struct wish *wish)
{
	struct service *service = call->service;
	struct rank *rank = &model->ranks[wish->rank];

	intake_claim(&model->records[wish->rank], call->request->client, call->request->sequence,
	             service->epoch_next++);
	model->head->epoch = model->records[wish->rank].epoch;
	rank->attached_peer = 0;
	rank->stage_ordered = false;
	rank->pid = call->exchange->peer.pid;
	rank->refusal.text[0] = '\0';
	if (rank->stage.base)
		service->host.memory_drop(service->host.context, &rank->stage);
	if (wish->attributes) {
		free(model->attributes);
		model->attributes = wish->attributes;
		wish->attributes = NULL;
	}
	service_event(service, EVENT_NOTICE, model->name, 0,
	              "%s: rank %" PRIu32 " of %" PRIu32 " registered as epoch %" PRIu64 ", %" PRIu32
	              " tensors, %" PRIu64 " bytes a snapshot",
	              model->name, wish->rank, model->world, model->records[wish->rank].epoch,
	              model->manifest->tensor_count, rank->manifest->stage_bytes);
}

/* "ema: 2 averaged, 1 frozen; ..." */
static void report_write(const struct model *model, char *text, size_t capacity)
{
	static const char *const words[] = { "averaged", "copied", "frozen", "dropped", "copied once" };
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t p = 0; p < model->profile_count && used < capacity; p++) {
		uint32_t counts[5] = { 0 };
		const char *separator = ": ";

		for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
			counts[profile_choose(&model->profiles[p], &model->manifest->tensors[t]).entry]++;
		used += (size_t)snprintf(text + used, capacity - used, "%s%s", p ? "; " : "", model->profiles[p].name);
		for (int i = 0; i < 5 && used < capacity; i++) {
			if (counts[i] == 0)
				continue;
			used += (size_t)snprintf(text + used, capacity - used, "%s%" PRIu32 " %s", separator, counts[i],
			                         words[i]);
			separator = ", ";
		}
	}
}

static void register_reply(struct call *call, struct model *model, uint32_t rank)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	struct reply reply = { 0 };
	char report[512];

	report_write(model, report, sizeof report);
	reply_set(&reply, epoch, model->records[rank].epoch);
	reply_set(&reply, resumed, newest != NULL);
	reply_set(&reply, last_step, newest ? newest->step : 0);
	reply_set(&reply, updates, newest ? newest->updates : 0);
	reply_set(&reply, version, newest ? newest->version : 0);
	reply_set(&reply, stage_count, model->stage_count);
	reply_set(&reply, report, text_of(report));
	call_reply(call, &reply, NULL);
}

static int model_join(struct call *call, struct model *model, struct wish *wish)
{
	struct manifest *pieces = wish->manifest;
	uint64_t holder;
	int error;

	if (is_repeated(call, model, wish)) {
		register_reply(call, model, wish->rank);
		return 0;
	}
	error = wish_fits(model, wish, &call->reason);
	if (!error)
		error = model_pieces_check(model, wish->rank, pieces, &call->reason);
	if (error)
		return error;
	holder = model->records[wish->rank].client;
	if (!rank_vacate(call->service, model, wish->rank)) {
		call->waits = model;
		return CALL_PARK;
	}
	wish->manifest = NULL;
	error = model_rank_pieces(model, wish->rank, pieces, &call->reason);
	if (error) {
		model->records[wish->rank].client = holder;
		return error;
	}
	rank_claim(call, model, wish);
	register_reply(call, model, wish->rank);
	return 0;
}

static int wish_grant(struct call *call, struct wish *wish)
{
	struct model *model = service_find(call->service, wish->name, strlen(wish->name));

	if (!model && wish->resume == RESUME_MUST)
		return reason_set(&call->reason, STATUS_ENOMODEL,
		                  "there is no model '%s' to resume; resume=auto starts one", wish->name);
	if (!model)
		return model_start(call, wish, NULL);
	call->waits = model;
	if (!model->serving)
		return CALL_PARK;
	if (wish->resume == RESUME_NEVER && !model_is_fresh(model, wish) && !is_repeated(call, model, wish))
		return model_start(call, wish, model);
	return model_join(call, model, wish);
}

int register_handle(struct call *call)
{
	struct wish wish = { 0 };
	int result = wish_make(call, &wish);

	if (!result)
		result = wish_grant(call, &wish);
	wish_finish(&wish);
	return result;
}

int attach_handle(struct call *call)
{
	struct model *model;
	struct segment_order order;
	struct reply reply = { 0 };
	struct attachment attachment = { 0 };
	struct rank *rank;
	uint32_t index;
	int error = call_rank(call, &model, &index);

	if (error)
		return error;
	rank = &model->ranks[index];
	error = intake_holds(&model->records[index], call_client(call, &model->records[index]), call->request->epoch,
	                     &call->reason);
	if (error)
		return error;
	rank->attached_peer = call->exchange->peer.id;
	if (!rank->stage.base) {
		call->waits = model;
		if (rank->stage_ordered)
			return CALL_PARK;
		model_order_stage(model, index, &order);
		error = service_order(call->service, &order);
		rank->stage_ordered = !error;
		return error ? error : CALL_PARK;
	}
	attachment.fd = rank->stage.fd;
	reply_set(&reply, segment_bytes, rank->stage.bytes);
	reply_set(&reply, stage_count, model->stage_count);
	reply_set(&reply, segment, ((struct segment_header *)rank->stage.base)->segment);
	call_reply(call, &reply, &attachment);
	return 0;
}
