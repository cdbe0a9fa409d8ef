/*
 * Pushing: copying a snapshot into a stage and telling the daemon.
 *
 *   free stage, or reserve one -> copy -> push -> accepted | applied | refused
 *                                  ^        |
 *                                  |        v "no such model": the daemon came back without its memory
 *            from the old stage ---+--- register again
 *
 * emad_push does this in the calling thread, emad_push_begin in the pusher's. Once the values are copied the caller
 * may change them; a second attempt therefore takes them out of the first one's stage. Before it go, in their order,
 * those that the daemon had accepted and has lost (stages.h): they must be there before anything newer is.
 */
#include "client/trainer.h"

#include "client/error.h"
#include "client/remote.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>

/* Beside codes: no stage is free, and the policy is to let the push go. */
enum { PUSH_SKIP = 1 };

/* One push, by whichever thread. */
struct push {
	uint64_t step;
	const void *const *data;
	struct enclosure *enclosure; /* borrowed until an answer says that it was accepted; NULL: nothing, or given away */
	bool wait;             /* until it is applied or refused */
	int64_t until_ms;      /* the end of the caller's timeout */
	struct pusher *pusher; /* told when the values have been copied; NULL for none */
	bool answered;         /* the daemon has decided about it */
};

static int push_data_check(const struct emad_trainer *trainer, const void *const *data, struct reason *reason)
{
	const struct manifest *manifest = trainer->registration.manifest;

	if (!data)
		return reason_set(reason, STATUS_EARGUMENT, "data is NULL");
	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];

		if (!data[piece->tensor] && piece->element_count > 0)
			return reason_set(reason, STATUS_EARGUMENT, "data[%u] of tensor '%s' is NULL", piece->tensor,
			                  manifest->tensors[piece->tensor].name);
	}
	return 0;
}

/* A stage to write into: one that is free, or that the daemon frees within the time. */
static int push_stage(struct emad_trainer *trainer, const struct push *push, uint32_t *ret_stage,
                      struct reason *reason)
{
	struct registration *registration = &trainer->registration;
	bool skips = registration->policy == EMAD_POLICY_SKIP;
	int free_stage = stages_free(&registration->stages);
	struct request request;
	struct client_answer answer;
	const struct reply *reply = &answer.reply;
	int code;

	if (free_stage >= 0) {
		*ret_stage = (uint32_t)free_stage;
		return 0;
	}
	if (skips && !remote_is(trainer->client))
		return PUSH_SKIP;
	request = trainer_request(trainer, OP_RESERVE);
	request_set(&request, sequence, client_stamp_min(trainer->client));
	request_set(&request, timeout_ms, skips ? 0 : (uint64_t)wait_left_ms(push->until_ms));
	code = trainer_call(trainer, &request, push->until_ms + WAIT_MARGIN_MS, &answer, reason);
	if (code)
		return code;
	code = trainer_answer_code(trainer, &answer, reason);
	if (code == 0 && (!(reply->present & REPLY_HAS(stage)) || reply->stage >= registration->stages.map.stage_count))
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon offers stage %" PRIu64 " of %u", reply->stage,
		                  registration->stages.map.stage_count);
	if (code == 0) {
		*ret_stage = (uint32_t)reply->stage;
		stages_answered(&registration->stages);
	}
	client_answer_finish(&answer);
	/* An answer, so the push is not lost on the way: there is no room for it. */
	if (skips && (code == STATUS_ETIMEOUT || code == STATUS_EBUSY))
		return PUSH_SKIP;
	return code == STATUS_ETIMEOUT ? STATUS_EBUSY : code;
}

/* Sends the snapshot from its byte `begin` on. Stages that the daemon has given up meanwhile are claimed again. */
static int push_send(struct emad_trainer *trainer, const struct push *push, const struct request *request,
                     uint64_t begin, struct reason *reason)
{
	struct registration *registration = &trainer->registration;
	struct remote_send send = {
		.registration = registration,
		.stage = (uint32_t)request->stage,
		.sequence = request->sequence,
		.begin = begin,
		/* A seed is an average itself: nothing of it is given away. */
		.wire = push->enclosure && push->enclosure->seeds ? RUNS_AS_KEPT : registration->wire,
		.deadline_ms = push->until_ms + WAIT_MARGIN_MS,
		.patient = trainer->is_patient,
	};
	int code;

	for (;;) {
		code = remote_send(&send, reason);
		if (code == STATUS_EFENCED)
			registration->fenced = true;
		if (code != -EAGAIN || wait_left_ms(push->until_ms) == 0)
			return code;
		code = remote_claim(registration, send.deadline_ms, &registration->stages.map, reason);
		if (code)
			return code;
		send.begin = 0;
	}
}

/* Tells the daemon; where no memory is shared, the snapshot comes first. What did not arrive is sent again. */
static int push_call(struct emad_trainer *trainer, const struct push *push, struct request *request,
                     struct client_answer *ret_answer, struct reason *reason)
{
	uint64_t begin = 0;
	int code;

	for (;;) {
		int64_t deadline_ms = push->until_ms + WAIT_MARGIN_MS;

		if (remote_is(trainer->client)) {
			request_set(request, chunked, true);
			code = push_send(trainer, push, request, begin, reason);
			if (code)
				return code;
			/* A job of the pusher may take as long as it gets on. */
			if (trainer->is_patient)
				deadline_ms = client_deadline(trainer->client->timeout_ms);
		}
		code = trainer_call(trainer, request, deadline_ms, ret_answer, reason);
		if (code || ret_answer->reply.status != -EAGAIN || wait_left_ms(deadline_ms) == 0)
			return code;
		begin = ret_answer->reply.missing;
		client_answer_finish(ret_answer);
	}
}

/* What the answer says of the snapshot in the stage. Takes the enclosure when that may have to be repeated with it. */
static void push_note(struct stages *stages, struct stage_note *note, struct push *push, enum outcome outcome)
{
	note->pushed = outcome == OUTCOME_ACCEPTED;
	if (outcome == OUTCOME_ACCEPTED) {
		note->enclosure = push->enclosure;
		push->enclosure = NULL;
	}
	if (outcome == OUTCOME_ACCEPTED || outcome == OUTCOME_DUPLICATE)
		stages_accepted(stages, push->step);
	else if (outcome == OUTCOME_STARTED || outcome == OUTCOME_APPLIED)
		stages_applied(stages, push->step);
}

static int push_answer(struct emad_trainer *trainer, struct push *push, const struct client_answer *answer,
                       struct emad_push_result *result, enum outcome *ret_outcome, struct reason *reason)
{
	int code = trainer_answer_code(trainer, answer, reason);

	if (code == 0 && !outcome_parse(answer->reply.outcome, ret_outcome))
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer to push has no known outcome");
	if (code)
		return code;
	*result = (struct emad_push_result){
		.outcome = (enum emad_outcome)*ret_outcome,
		.step = push->step,
		.version = answer->reply.version,
		.calls = answer->reply.calls,
	};
	trainer_note_coalesced(trainer, answer->reply.coalesced);
	client_text_copy(answer->reply.refusal, result->refusal, sizeof(result->refusal));
	return 0;
}

/* Tells the daemon that the stage holds the snapshot. */
static int push_doorbell(struct emad_trainer *trainer, struct push *push, uint32_t stage, struct stage_note *note,
                         struct emad_push_result *result, struct reason *reason)
{
	struct request request = trainer_request(trainer, OP_PUSH);
	struct client_answer answer;
	enum outcome outcome;
	int code;

	client_stamp(trainer->client, &request);
	request_set(&request, step, push->step);
	request_set(&request, stage, stage);
	enclosure_fill(push->enclosure, &request);
	if (push->wait) {
		request_set(&request, wait, true);
		request_set(&request, timeout_ms, (uint64_t)wait_left_ms(push->until_ms));
	}
	note->step = push->step;
	note->pushed = true;
	note->in_doubt = true;
	code = push_call(trainer, push, &request, &answer, reason);
	if (code)
		return code;
	push->answered = true;
	note->in_doubt = false;
	code = push_answer(trainer, push, &answer, result, &outcome, reason);
	client_answer_finish(&answer);
	if (code)
		return code;
	stages_answered(&trainer->registration.stages);
	push_note(&trainer->registration.stages, note, push, outcome);
	if (push->wait && outcome == OUTCOME_ACCEPTED)
		return reason_set(reason, STATUS_ETIMEOUT, "step %" PRIu64 " was accepted but is not applied yet; flush waits for it",
		                  push->step);
	return 0;
}

/* ---- again ------------------------------------------------------------------------------------------------------- */

/* Copies a keepsake to a stage of the registration there is now, and pushes it. The enclosure goes with it. */
static int keepsake_push(struct emad_trainer *trainer, struct push *push, struct keepsake *keepsake,
                         struct emad_push_result *result, struct reason *reason)
{
	struct stages *stages = &trainer->registration.stages;
	struct stage_note *note;
	uint32_t stage;
	int code = push_stage(trainer, push, &stage, reason);

	if (code)
		return code;
	note = stages_overwrite(stages, stage);
	copy_bytes(trainer->snapshot.copy_kind, stage_map_stage(&stages->map, stage), keepsake->bytes,
	           trainer->registration.manifest->stage_bytes);
	copy_fence();
	return push_doorbell(trainer, push, stage, note, result, reason);
}

/* Whether the same push may succeed later. */
static bool may_pass(int code)
{
	return code == STATUS_EAWAY || code == STATUS_ETIMEOUT || code == STATUS_ESHUTDOWN || code == STATUS_EBUSY ||
	       code == STATUS_ENOMODEL || code == STATUS_EFENCED || code == -EACCES || code == -ENOMEM || code == PUSH_SKIP;
}

int push_repeat(struct emad_trainer *trainer, int64_t until_ms, struct reason *reason)
{
	struct stages *stages = &trainer->registration.stages;
	struct keepsake *keepsake;

	while ((keepsake = stages_keepsake(stages)) != NULL) {
		struct push push = {.step = keepsake->step, .enclosure = keepsake->enclosure, .until_ms = until_ms};
		struct emad_push_result result;
		int code = keepsake_push(trainer, &push, keepsake, &result, reason);

		keepsake->enclosure = push.enclosure;
		if (code == PUSH_SKIP)
			return reason_set(reason, STATUS_EBUSY,
			                  "the daemon has lost step %" PRIu64 ", and has no stage free to take it again",
			                  push.step);
		if (may_pass(code))
			return code;
		if (code)
			trainer_note_lost(trainer);
		stages_drop(stages, keepsake);
	}
	return 0;
}

/* Registers again and sends the snapshot once more, from the stage of the registration before. */
static int push_again(struct emad_trainer *trainer, struct push *push, struct stage_note *note,
                      struct emad_push_result *result, struct reason *reason)
{
	struct stages *stages = &trainer->registration.stages;
	int64_t deadline_ms = push->until_ms + WAIT_MARGIN_MS;
	struct keepsake *own;
	int code;

	note->is_own = true;
	do {
		push->answered = false;
		code = trainer_reclaim(trainer, deadline_ms, reason);
		own = stages_own_keepsake(stages);
		if (code == 0 && own)
			code = keepsake_push(trainer, push, own, result, reason);
	} while (code == STATUS_ENOMODEL && wait_left_ms(deadline_ms) > 0);
	/* Without a claim it is still where it was. */
	note->is_own = false;
	own = stages_own_keepsake(stages);
	if (own)
		stages_drop(stages, own);
	return code;
}

static int push_attempt(struct emad_trainer *trainer, struct push *push, struct emad_push_result *result,
                        struct reason *reason)
{
	struct registration *registration = &trainer->registration;
	int64_t deadline_ms = push->until_ms + WAIT_MARGIN_MS;
	struct stage_note *note;
	uint32_t stage;
	int code;

	code = trainer_ready(trainer, deadline_ms, NULL, reason);
	if (code == 0)
		code = push_stage(trainer, push, &stage, reason);
	if (code == STATUS_ENOMODEL) {
		code = trainer_reclaim(trainer, deadline_ms, reason);
		if (code == 0)
			code = push_stage(trainer, push, &stage, reason);
	}
	if (code)
		return code == STATUS_EBUSY && registration->policy == EMAD_POLICY_SKIP ? PUSH_SKIP : code;
	note = stages_overwrite(&registration->stages, stage);
	snapshot_copy(&trainer->snapshot, push->data, stage_map_stage(&registration->stages.map, stage), !push->pusher);
	if (push->pusher)
		pusher_copied(push->pusher);
	code = push_doorbell(trainer, push, stage, note, result, reason);
	if (code == STATUS_ENOMODEL)
		code = push_again(trainer, push, note, result, reason);
	return code;
}

static int push_perform(struct emad_trainer *trainer, struct push *push, struct emad_push_result *result,
                        struct reason *reason)
{
	int code = push_attempt(trainer, push, result, reason);

	if (code == PUSH_SKIP) {
		*result = (struct emad_push_result){.outcome = EMAD_SKIPPED, .step = push->step};
		trainer_note_skipped(trainer);
		if (push->pusher)
			pusher_copied(push->pusher);
		return 0;
	}
	if (code && !push->answered && (code == STATUS_EAWAY || code == STATUS_ETIMEOUT || code == -EACCES))
		trainer_note_lost(trainer);
	return code;
}

static int push_now(struct emad_trainer *trainer, struct push *push, struct emad_push_result *ret_result,
                    struct reason *reason)
{
	struct emad_push_result result;
	int code;

	code = push_data_check(trainer, push->data, reason);
	if (code)
		return code;
	code = trainer_settle(trainer, push->until_ms, reason);
	if (code)
		return STATUS_EBUSY;
	push->enclosure = trainer->enclosure;
	trainer->enclosure = NULL;
	code = push_perform(trainer, push, &result, reason);
	enclosure_destroy(push->enclosure);
	if (code == 0 && ret_result)
		*ret_result = result;
	return code;
}

int emad_push(struct emad_trainer *trainer, uint64_t step, const void *const *data, unsigned flags, int timeout_ms,
              struct emad_push_result *ret_result)
{
	struct reason reason = {.text = ""};
	struct push push = {.step = step, .data = data, .wait = flags & EMAD_PUSH_WAIT};
	int code = trainer_check(trainer, &reason);

	if (code == 0 && (flags & ~(unsigned)EMAD_PUSH_WAIT))
		code = reason_set(&reason, STATUS_EARGUMENT, "unknown flags %#x", flags);
	if (code == 0) {
		push.until_ms = wait_deadline(client_timeout(trainer->client, timeout_ms));
		code = push_now(trainer, &push, ret_result, &reason);
	}
	return error_report(code, &reason);
}

/* Runs in the pusher's thread. EMAD_ETIMEOUT is kept for emad_fence, where it says that the copy is under way. */
static int push_job(void *context, struct pusher *pusher, uint64_t step, const void *const *data,
                    struct enclosure *enclosure, struct reason *reason)
{
	struct emad_trainer *trainer = context;
	struct emad_push_result result;
	int code;
	struct push push = {
		.step = step,
		.data = data,
		.enclosure = enclosure,
		.until_ms = wait_deadline(trainer->client->timeout_ms),
		.pusher = pusher,
	};

	trainer->is_patient = true;
	code = push_perform(trainer, &push, &result, reason);
	trainer->is_patient = false;
	enclosure_destroy(push.enclosure);
	return code == STATUS_ETIMEOUT ? STATUS_EAWAY : code;
}

int emad_push_begin(struct emad_trainer *trainer, uint64_t step, const void *const *data)
{
	struct reason reason = {.text = ""};
	int code = trainer_check(trainer, &reason);

	if (code == 0)
		code = push_data_check(trainer, data, &reason);
	if (code == 0 && !trainer->pusher)
		code = pusher_create(trainer->registration.manifest->tensor_count, push_job, trainer, &trainer->pusher);
	if (code == 0)
		code = pusher_begin(trainer->pusher, step, data, trainer->enclosure,
		                    client_deadline(trainer->client->timeout_ms), &reason);
	if (code == 0)
		trainer->enclosure = NULL;
	return error_report(code, &reason);
}

int emad_fence(struct emad_trainer *trainer, int timeout_ms)
{
	struct reason reason = {.text = ""};
	int code = trainer_check(trainer, &reason);

	if (code == 0 && trainer->pusher)
		code = pusher_fence(trainer->pusher, wait_deadline(client_timeout(trainer->client, timeout_ms)), &reason);
	return error_report(code, &reason);
}
