/*
 * Pushing: snapshots, free stages, flushing, attributes.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "daemon/core/attributes.h"
#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/ending.h"
#include "daemon/core/remote.h"

static void count_answer(struct counters *counters, const struct answer *answer)
{
	switch (answer->outcome) {
	case OUTCOME_ACCEPTED:
		counters->pushes_accepted++;
		break;
	case OUTCOME_DUPLICATE:
		counters->pushes_duplicate++;
		break;
	case OUTCOME_STALE:
		counters->pushes_stale++;
		break;
	case OUTCOME_LOSS:
		counters->pushes_loss++;
		break;
	case OUTCOME_STARTED:
	case OUTCOME_APPLIED:
	case OUTCOME_NONFINITE:
	case OUTCOME_INCOMPLETE:
	case OUTCOME_JUMP:
	case OUTCOME_COALESCED:
	case OUTCOME_SKIPPED:
	case OUTCOME_COUNT:
		break; /* a repeated request: counted when it was decided */
	}
}

static void push_reply(struct call *call, const struct model *model, uint32_t rank, const struct answer *answer)
{
	struct reply reply = { 0 };

	reply_set(&reply, outcome, text_of(outcome_name(answer->outcome)));
	reply_set(&reply, step, answer->step);
	reply_set(&reply, version, answer->version);
	reply_set(&reply, calls, answer->calls);
	reply_set(&reply, refused, seal_counted(&model->records[rank].refused));
	reply_set(&reply, coalesced, seal_counted(&model->records[rank].coalesced));
	if (outcome_refuses(answer->outcome))
		reply_set(&reply, refusal, text_of(model->ranks[rank].refusal.text));
	call_reply(call, &reply, NULL);
}

/* A gap must be a number of calls that the schedules can be asked for one by one. */
static int gap_check(struct call *call, const struct model *model, uint64_t step)
{
	uint64_t calls = model->has_step && step > model->step ? (step - model->step) / model->stride : 0;

	if (calls <= GAP_CALL_COUNT_MAX)
		return 0;
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct profile *profile = &model->geometry->profiles[p];

		if (profile->schedule.kind->spans_steps)
			continue;
		return reason_set(
			&call->reason, STATUS_EARGUMENT,
			"step %" PRIu64 " is %" PRIu64 " calls of schedule '%s' behind step %" PRIu64
			", and a gap may have %d: if steps count samples, register with stride=SAMPLES per call "
			"(it is %" PRIu64 "); if training has begun again, with rewind=continue",
			step, calls, profile->schedule.kind->name, model->step, GAP_CALL_COUNT_MAX, model->stride);
	}
	return 0;
}

/* What comes with the snapshot beside its values. */
static int enclosure_make(struct call *call, const struct model *model, struct enclosure *ret_enclosure)
{
	const struct request *request = call->request;
	struct enclosure enclosure = { .seeds = request->present & REQUEST_HAS(profile) };
	int error = 0;

	if (!enclosure.seeds && request->present & REQUEST_HAS(updates))
		return reason_set(
			&call->reason, STATUS_EARGUMENT,
			"updates is the counter of a profile that the snapshot is the average of: name the profile");
	if (enclosure.seeds) {
		error = profile_name_check(request->profile.bytes, request->profile.count, &call->reason);
		if (!error)
			error = text_copy(request->profile, enclosure.profile, sizeof enclosure.profile);
		if (!error && geometry_profile(model->geometry, enclosure.profile) < 0)
			error = reason_set(&call->reason, STATUS_ENOPROFILE, "model '%s' has no profile '%s'",
			                   model->name, enclosure.profile);
		enclosure.updates = request->updates;
	}
	if (!error && request->present & REQUEST_HAS(metadata))
		error = metadata_parse(request->metadata.bytes, request->metadata.count, &enclosure.metadata,
		                       &call->reason);
	if (error)
		return error;
	*ret_enclosure = enclosure;
	return 0;
}

/* Whether the push's loss keeps it out; its stage stays free. */
static bool loss_refuses(struct call *call, struct model *model, uint32_t rank, const struct push *push,
                         struct answer *ret_answer)
{
	const struct request *request = call->request;

	/* Written so that NaN is refused as well. */
	if (!(request->present & REQUEST_HAS(loss)) || !isfinite(model->guards.loss_max) ||
	    request->loss <= model->guards.loss_max)
		return false;
	reason_set(&model->ranks[rank].refusal, STATUS_EREFUSED,
	           "step %" PRIu64 " was refused: its loss %.6g is above loss_max %.6g; the average is unchanged",
	           push->step, request->loss, model->guards.loss_max);
	intake_refuse(&model->records[rank], push, OUTCOME_LOSS, ret_answer);
	return true;
}

/* Nothing fails: without a word somebody would train on, and wonder why the average stands still. */
static void stale_tell(struct call *call, struct model *model, uint32_t rank, uint64_t step)
{
	const uint64_t *newest = model_newest_step(model);
	const struct event about = {
		.severity = EVENT_WARNING,
		.model = model->name,
		.step = step,
		.pid = model->ranks[rank].pid,
	};

	if (model->ranks[rank].stale_told || !newest)
		return;
	model->ranks[rank].stale_told = true;
	service_event_about(call->service, &about,
	                    "%s: step %" PRIu64 " of rank %" PRIu32 " is behind step %" PRIu64 ", which is averaged: nothing "
	                    "changes until training has passed that. Where it began anew, register with resume=never; where "
	                    "it went back, with start_step and rewind=back", model->name, step, rank, *newest);
}

/* A push that was not answered before. */
static int push_take(struct call *call, struct model *model, uint32_t rank, const struct push *push,
                     struct answer *ret_answer)
{
	struct enclosure enclosure;
	int error = 0;

	if (call->service->stopping && !ending_takes(call->service, model, rank, push->step))
		return reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	if (push->sequence == 0)
		return reason_set(&call->reason, STATUS_EARGUMENT, "sequence must not be 0");
	if (!model->ranks[rank].stage.base)
		return reason_set(&call->reason, STATUS_EARGUMENT,
		                  "rank %" PRIu32 " of '%s' has no stages yet: send attach on the attach socket first, or claim",
		                  rank, model->name);
	if (loss_refuses(call, model, rank, push, ret_answer)) {
		count_answer(&call->service->counters, ret_answer);
		return 0;
	}
	if (!push->seeds)
		error = gap_check(call, model, push->step);
	if (!error)
		error = enclosure_make(call, model, &enclosure);
	if (error)
		return error;
	if (push->chunked)
		error = remote_arrived(call, model, rank);
	if (error) {
		enclosure_clear(&enclosure);
		return error;
	}
	if (push->stage < model->stage_count && stage_state(&model->records[rank].stages[push->stage]) == STAGE_FREE)
		model_enclosure_write(model, rank, (uint32_t)push->stage, &enclosure);
	error = intake_push(&model->records[rank], model->stage_count, model_newest_step(model), push, ret_answer,
	                    &call->reason);
	if (error || ret_answer->outcome != OUTCOME_ACCEPTED) {
		enclosure_clear(&enclosure);
	} else {
		remote_settle(call->service, model, rank, (uint32_t)push->stage);
		enclosure_clear(&model->ranks[rank].enclosures[push->stage]);
		model->ranks[rank].enclosures[push->stage] = enclosure;
	}
	if (error)
		return error;
	count_answer(&call->service->counters, ret_answer);
	if (ret_answer->outcome == OUTCOME_STALE)
		stale_tell(call, model, rank, push->step);
	model_stage_mirror(model, rank, ret_answer->stage);
	service_touch(call->service, model);
	return 0;
}

/*
 * A trainer that pushes, or asks for a stage, no longer waits for what it has sent before. That may still be on its way
 * over another connection, and its stage may hold something else by the time it comes.
 */
static void sequence_note(struct rank *rank, uint64_t sequence_min)
{
	if (sequence_min > rank->sequence_min)
		rank->sequence_min = sequence_min;
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
		.seeds = request->present & REQUEST_HAS(profile),
		.chunked = request->present & REQUEST_HAS(chunked) && request->chunked,
	};
	struct answer answer;
	struct model *model;
	uint32_t rank;
	int error = call_rank(call, &model, &rank);

	if (!error)
		error = intake_holds(&model->records[rank], push.client, push.epoch, &call->reason);
	if (error)
		return error;
	push.sequence_min = model->ranks[rank].sequence_min;
	if (!intake_answer(&model->records[rank], push.sequence, &answer))
		error = push_take(call, model, rank, &push, &answer);
	if (error)
		return error == CALL_ANSWERED ? 0 : error;
	sequence_note(&model->ranks[rank], push.sequence);
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
	if (stage < 0 && model->coalesces) {
		stage = update_make_room(model, rank, &call->service->counters);
		/* Somebody may wait for what became of the snapshot. */
		if (stage >= 0)
			service_touch(call->service, model);
	}
	if (stage < 0 && call->expired)
		return reason_set(&call->reason, STATUS_EBUSY,
		                  "the daemon lags: all %" PRIu32 " stages of rank %" PRIu32
		                  " of '%s' still wait to be "
		                  "applied; push less often, or give the daemon more workers",
		                  model->stage_count, rank, model->name);
	if (stage < 0) {
		call->waits = model;
		return CALL_PARK;
	}
	if (call->request->present & REQUEST_HAS(sequence))
		sequence_note(&model->ranks[rank], call->request->sequence);
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
	reply_set(&reply, refused, seal_counted(&model->records[rank].refused));
	reply_set(&reply, coalesced, seal_counted(&model->records[rank].coalesced));
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
	book_change(model);
	call_reply(call, &reply, NULL);
	return 0;
}
