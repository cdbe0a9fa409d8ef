/*
 * The push states. See intake.h.
 */
#include "daemon/core/intake.h"

#include "daemon/core/failpoint.h"

#include <inttypes.h>
#include <string.h>

void intake_claim(struct rank_record *record, uint64_t client, uint64_t register_sequence, uint64_t epoch)
{
	/* Whoever dies in between leaves a rank that nobody holds. */
	record->client = 0;
	layout_barrier();
	memset(&record->epoch, 0, sizeof *record - offsetof(struct rank_record, epoch));
	record->register_sequence = register_sequence;
	record->epoch = epoch;
	FAILPOINT("rank-unheld");
	layout_barrier();
	record->client = client;
}

int intake_holds(const struct rank_record *record, uint64_t client, uint64_t epoch, struct reason *reason)
{
	if (record->client != 0 && record->client == client && record->epoch == epoch)
		return 0;
	if (record->epoch == 0)
		return reason_set(reason, STATUS_ENOMODEL,
		                  "nobody has registered this rank since the model was made: register it again");
	if (record->client == 0)
		return reason_set(reason, STATUS_EFENCED,
		                  "epoch %" PRIu64 " no longer holds this rank: a newer registration is taking over; "
		                  "if this trainer should go on, register it again and stop the other",
		                  epoch);
	return reason_set(reason, STATUS_EFENCED,
	                  "epoch %" PRIu64 " no longer holds this rank: epoch %" PRIu64 " of another trainer does; if "
	                  "this trainer should go on, register it again and stop the other",
	                  epoch, record->epoch);
}

const struct answer *intake_answer(const struct rank_record *record, uint64_t sequence)
{
	const struct answer *answer = &record->answers[sequence % ANSWER_COUNT];

	return sequence != 0 && answer->sequence == sequence ? answer : NULL;
}

static void answer_put(struct rank_record *record, const struct answer *answer)
{
	struct answer *at = &record->answers[answer->sequence % ANSWER_COUNT];

	at->sequence = 0;
	layout_barrier();
	at->step = answer->step;
	at->version = answer->version;
	at->calls = answer->calls;
	at->outcome = answer->outcome;
	at->stage = answer->stage;
	FAILPOINT("answer-unnumbered");
	layout_barrier();
	at->sequence = answer->sequence;
}

/* The newest step that was accepted or is in a version; false when there is none. */
static bool newest_accepted(const struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step,
                            uint64_t *ret_step)
{
	bool found = newest_step != NULL;
	uint64_t step = found ? *newest_step : 0;

	for (uint32_t i = 0; i < stage_count; i++) {
		if (record->stages[i].state == STAGE_FREE)
			continue;
		if (!found || record->stages[i].step > step)
			step = record->stages[i].step;
		found = true;
	}
	*ret_step = step;
	return found;
}

int intake_push(struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step, const struct push *push,
                struct answer *ret_answer, struct reason *reason)
{
	const struct answer *known = intake_answer(record, push->sequence);
	struct stage_record *stage;
	uint64_t accepted_step;
	int error = intake_holds(record, push->client, push->epoch, reason);

	if (error)
		return error;
	if (known) {
		*ret_answer = *known;
		return 0;
	}
	if (push->stage >= stage_count)
		return reason_set(reason, STATUS_EARGUMENT, "stage %" PRIu64 " is not there: this rank has %" PRIu32,
		                  push->stage, stage_count);
	if (record->stages[push->stage].state != STAGE_FREE)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "stage %" PRIu64 " still holds step %" PRIu64 ": ask for a free one with reserve",
		                  push->stage, record->stages[push->stage].step);
	*ret_answer = (struct answer){ .sequence = push->sequence, .step = push->step, .stage = (uint32_t)push->stage };
	if (!push->seeds && newest_accepted(record, stage_count, newest_step, &accepted_step) &&
	    push->step <= accepted_step) {
		ret_answer->outcome = push->step == accepted_step ? OUTCOME_DUPLICATE : OUTCOME_STALE;
		answer_put(record, ret_answer);
		return 0;
	}
	if (push->sequence < push->sequence_min)
		return reason_set(reason, STATUS_ETIMEOUT,
		                  "push %" PRIu64 " of step %" PRIu64 " came behind request %" PRIu64
		                  " of its trainer, which no longer waits for it",
		                  push->sequence, push->step, push->sequence_min);
	ret_answer->outcome = OUTCOME_ACCEPTED;
	stage = &record->stages[push->stage];
	stage->step = push->step;
	stage->sequence = push->sequence;
	stage->version = 0;
	FAILPOINT("push-noted");
	answer_put(record, ret_answer);
	FAILPOINT("push-answered");
	layout_barrier();
	stage->state = STAGE_READY;
	FAILPOINT("push-ready");
	return 0;
}

uint32_t intake_pending(const struct rank_record *record, uint32_t stage_count)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < stage_count; i++)
		count += record->stages[i].state != STAGE_FREE;
	return count;
}

int32_t intake_free_stage(const struct rank_record *record, uint32_t stage_count)
{
	for (uint32_t i = 0; i < stage_count; i++)
		if (record->stages[i].state == STAGE_FREE)
			return (int32_t)i;
	return -1;
}

void intake_refuse(struct rank_record *record, const struct push *push, enum outcome outcome,
                   struct answer *ret_answer)
{
	*ret_answer = (struct answer){
		.sequence = push->sequence,
		.step = push->step,
		.stage = (uint32_t)push->stage,
		.outcome = outcome,
	};
	record->refused_count++;
	answer_put(record, ret_answer);
}

static int32_t oldest_ready(const struct rank_record *record, uint32_t stage_count)
{
	int32_t oldest = -1;

	for (uint32_t i = 0; i < stage_count; i++)
		if (record->stages[i].state == STAGE_READY &&
		    (oldest < 0 || record->stages[i].step < record->stages[oldest].step))
			oldest = (int32_t)i;
	return oldest;
}

/* Whether every rank has a step ready that is newer than the one that is chosen. */
static bool newer_is_whole(const struct rank_record *records, uint32_t world, uint32_t stage_count, uint64_t step)
{
	for (uint32_t i = 0; i < stage_count; i++) {
		uint64_t newer = records[0].stages[i].step;
		bool whole = records[0].stages[i].state == STAGE_READY && newer > step;

		for (uint32_t r = 1; whole && r < world; r++) {
			bool found = false;

			for (uint32_t j = 0; j < stage_count; j++)
				found = found || (records[r].stages[j].state == STAGE_READY &&
				                  records[r].stages[j].step == newer);
			whole = found;
		}
		if (whole)
			return true;
	}
	return false;
}

void intake_select(const struct rank_record *records, uint32_t world, uint32_t stage_count, bool coalesce,
                   struct intake_next *ret_next)
{
	struct intake_next *next = ret_next;

	next->choice = INTAKE_NOTHING;
	next->step = 0;
	for (uint32_t r = 0; r < world; r++) {
		int32_t stage = oldest_ready(&records[r], stage_count);

		if (stage < 0)
			return;
		next->stages[r] = (uint32_t)stage;
		if (records[r].stages[stage].step > next->step)
			next->step = records[r].stages[stage].step;
	}
	for (uint32_t r = 0; r < world; r++) {
		if (records[r].stages[next->stages[r]].step == next->step)
			continue;
		next->choice = INTAKE_DROP;
		next->rank = r;
		return;
	}
	next->choice = coalesce && newer_is_whole(records, world, stage_count, next->step) ? INTAKE_COALESCE
	                                                                                   : INTAKE_APPLY;
}

void intake_begin(struct rank_record *record, uint32_t stage, uint64_t version)
{
	record->stages[stage].version = version;
	layout_barrier();
	record->stages[stage].state = STAGE_APPLYING;
	FAILPOINT("stage-applying");
}

void intake_settle(struct rank_record *record, uint32_t stage, enum outcome outcome, uint64_t version, uint64_t calls)
{
	struct stage_record *at = &record->stages[stage];
	struct answer *answer = &record->answers[at->sequence % ANSWER_COUNT];

	if (answer->sequence == at->sequence) {
		answer->version = version;
		answer->calls = calls;
		layout_barrier();
		answer->outcome = outcome;
	}
	FAILPOINT("stage-decided");
	if (outcome_refuses(outcome))
		record->refused_count++;
	if (outcome == OUTCOME_COALESCED)
		record->coalesced_count++;
	layout_barrier();
	at->state = STAGE_FREE;
	FAILPOINT("stage-freed");
}

/* Whether the answer belongs to a snapshot that is there. */
static bool answer_stands(const struct rank_record *record, uint32_t stage_count, const struct answer *answer)
{
	const struct stage_record *stage;

	if (answer->outcome != OUTCOME_ACCEPTED)
		return answer->outcome < OUTCOME_COUNT;
	if (answer->stage >= stage_count)
		return false;
	stage = &record->stages[answer->stage];
	return stage->state == STAGE_READY && stage->sequence == answer->sequence;
}

void intake_adopt(struct rank_record *record, uint32_t stage_count, uint64_t version, uint64_t calls)
{
	for (uint32_t i = 0; i < stage_count; i++) {
		struct stage_record *stage = &record->stages[i];
		struct answer *answer = &record->answers[stage->sequence % ANSWER_COUNT];

		if (stage->state == STAGE_APPLYING && stage->version <= version)
			intake_settle(record, i, stage->version == 1 ? OUTCOME_STARTED : OUTCOME_APPLIED, stage->version,
			              stage->version == version ? calls : 0);
		else if (stage->state != STAGE_FREE)
			stage->state = STAGE_READY;
		/* It was about to be decided, and nobody has heard of it: it will be decided again. */
		if (stage->state == STAGE_READY && answer->sequence == stage->sequence)
			answer->outcome = OUTCOME_ACCEPTED;
	}
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		if (!answer_stands(record, stage_count, &record->answers[i]))
			record->answers[i] = (struct answer){ .sequence = 0 };
}
