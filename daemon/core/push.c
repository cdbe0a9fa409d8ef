/*
 * Pushing: snapshots, free stages, flushing, attributes.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/core/attributes.h"
#include "daemon/core/call.h"

static void count_answer(struct counters *counters, const struct answer *answer)
{
	switch ((enum outcome)answer->outcome) {
	case OUTCOME_ACCEPTED:
		counters->pushes_accepted++;
		break;
	case OUTCOME_DUPLICATE:
		counters->pushes_duplicate++;
		break;
	case OUTCOME_STALE:
		counters->pushes_stale++;
		break;
	case OUTCOME_STARTED:
	case OUTCOME_APPLIED:
	case OUTCOME_NONFINITE:
	case OUTCOME_INCOMPLETE:
	case OUTCOME_COUNT:
		break; /* a repeated request: counted when it was decided */
	}
}

static void push_reply(struct call *call, const struct model *model, uint32_t rank, const struct answer *answer)
{
	struct reply reply = { 0 };

	reply_set(&reply, outcome, text_of(outcome_name((enum outcome)answer->outcome)));
	reply_set(&reply, step, answer->step);
	reply_set(&reply, version, answer->version);
	reply_set(&reply, refused, model->records[rank].refused_count);
	if (answer->outcome == OUTCOME_NONFINITE || answer->outcome == OUTCOME_INCOMPLETE)
		reply_set(&reply, refusal, text_of(model->ranks[rank].refusal.text));
	call_reply(call, &reply, NULL);
}

int push_handle(struct call *call)
{
	const struct request *request = call->request;
	struct push push = {
		.client = request->client,
		.epoch = request->epoch,
		.sequence = request->sequence,
		.step = request->step,
		.stage = request->stage,
	};
	struct answer answer;
	struct model *model;
	uint32_t rank;
	bool repeated;
	int error = call_rank(call, &model, &rank);

	if (error)
		return error;
	repeated = intake_answer(&model->records[rank], push.sequence) != NULL;
	if (!repeated && call->service->stopping)
		return reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	if (!repeated && push.sequence == 0)
		return reason_set(&call->reason, STATUS_EARGUMENT, "sequence must not be 0");
	error = intake_holds(&model->records[rank], push.client, push.epoch, &call->reason);
	if (error)
		return error;
	if (!repeated && !model->ranks[rank].stage.base)
		return reason_set(&call->reason, STATUS_EARGUMENT,
		                  "rank %" PRIu32 " of '%s' has no stages yet: send attach on the attach socket first",
		                  rank, model->name);
	error = intake_push(&model->records[rank], model->stage_count, model_newest_step(model), &push, &answer,
	                    &call->reason);
	if (error)
		return error;
	if (!repeated) {
		count_answer(&call->service->counters, &answer);
		model_stage_mirror(model, rank, answer.stage);
		service_touch(call->service, model);
	}
	if (answer.outcome == OUTCOME_ACCEPTED && request->present & REQUEST_HAS(wait) && request->wait &&
	    !call->expired) {
		call->waits = model;
		return CALL_PARK;
	}
	push_reply(call, model, rank, &answer);
	return 0;
}

/* The rank of the request, held by the request's epoch. */
static int held_rank(struct call *call, struct model **ret_model, uint32_t *ret_rank)
{
	int error = call_rank(call, ret_model, ret_rank);

	if (error)
		return error;
	return intake_holds(&(*ret_model)->records[*ret_rank], call_client(call, &(*ret_model)->records[*ret_rank]),
	                    call->request->epoch, &call->reason);
}

int reserve_handle(struct call *call)
{
	struct reply reply = { 0 };
	struct model *model;
	uint32_t rank;
	int32_t stage;
	int error = held_rank(call, &model, &rank);

	if (error)
		return error;
	stage = intake_free_stage(&model->records[rank], model->stage_count);
	if (stage < 0 && call->expired)
		return reason_set(&call->reason, STATUS_EBUSY,
		                  "the daemon lags: all %" PRIu32 " stages of rank %" PRIu32 " of '%s' still wait to be "
		                  "applied; push less often, or give the daemon more workers",
		                  model->stage_count, rank, model->name);
	if (stage < 0) {
		call->waits = model;
		return CALL_PARK;
	}
	reply_set(&reply, stage, (uint64_t)stage);
	call_reply(call, &reply, NULL);
	return 0;
}

int flush_handle(struct call *call)
{
	const struct slot_header *newest;
	struct reply reply = { 0 };
	struct model *model;
	uint32_t rank, pending;
	int error = held_rank(call, &model, &rank);

	if (error)
		return error;
	newest = versions_newest(&model->versions);
	pending = intake_pending(&model->records[rank], model->stage_count);
	if (pending > 0 && call->expired)
		return reason_set(&call->reason, STATUS_ETIMEOUT,
		                  "%" PRIu32 " snapshot%s of rank %" PRIu32 " of '%s' still wait%s: the newest version "
		                  "holds step %" PRIu64,
		                  pending, pending == 1 ? "" : "s", rank, model->name, pending == 1 ? "s" : "",
		                  newest ? newest->step : 0);
	if (pending > 0) {
		call->waits = model;
		return CALL_PARK;
	}
	reply_set(&reply, version, newest ? newest->version : 0);
	reply_set(&reply, last_step, newest ? newest->step : 0);
	reply_set(&reply, refused, model->records[rank].refused_count);
	if (model->ranks[rank].refusal.text[0])
		reply_set(&reply, refusal, text_of(model->ranks[rank].refusal.text));
	call_reply(call, &reply, NULL);
	return 0;
}

int attributes_handle(struct call *call)
{
	const struct request *request = call->request;
	struct reply reply = { 0 };
	struct model *model;
	uint32_t rank;
	char *json;
	int error = call_rank(call, &model, &rank);

	if (!error)
		error = intake_holds(&model->records[rank], request->client, request->epoch, &call->reason);
	if (!error)
		error = attributes_parse(request->attributes.bytes, request->attributes.count, &json, &call->reason);
	if (error)
		return error;
	free(model->attributes);
	model->attributes = json;
	call_reply(call, &reply, NULL);
	return 0;
}
