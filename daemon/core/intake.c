/*
 * The push states. See intake.h.
 */
#include "daemon/core/intake.h"

#include "daemon/core/failpoint.h"
#include "daemon/core/seal.h"

#include <inttypes.h>

void intake_claim(struct rank_record *record, uint64_t client, uint64_t register_sequence, uint64_t epoch)
{
	/* Whoever dies in between leaves a rank that nobody holds. What is sealed is undone word by word. */
	seal_set(&record->seal, seal_claim(record, CLAIM_NONE));
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		seal_set(&record->answers[i].seal, 0);
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		seal_set(&record->stages[i].seal, seal_stage(&record->stages[i], STAGE_FREE));
	seal_set(&record->refused, seal_count(0));
	seal_set(&record->coalesced, seal_count(0));
	record->stage_segment = 0;
	record->client = client;
	record->register_sequence = register_sequence;
	record->epoch = epoch;
	FAILPOINT("rank-unheld");
	if (client != 0)
		seal_set(&record->seal, seal_claim(record, CLAIM_HELD));
}

static enum claim_state claim_state(const struct rank_record *record)
{
	return (enum claim_state)seal_value(&record->seal);
}

void intake_vacate(struct rank_record *record)
{
	if (claim_state(record) == CLAIM_HELD)
		seal_set(&record->seal, seal_claim(record, CLAIM_VACATED));
}

void intake_reclaim(struct rank_record *record)
{
	if (claim_state(record) == CLAIM_VACATED)
		seal_set(&record->seal, seal_claim(record, CLAIM_HELD));
}

bool intake_is_held(const struct rank_record *record)
{
	return claim_state(record) == CLAIM_HELD;
}

int intake_holds(const struct rank_record *record, uint64_t client, uint64_t epoch, struct reason *reason)
{
	if (intake_is_held(record) && record->client == client && record->epoch == epoch)
		return 0;
	if (record->epoch == 0)
		return reason_set(reason, STATUS_ENOMODEL,
		                  "nobody has registered this rank since the model was made: register it again");
	if (!intake_is_held(record))
		return reason_set(reason, STATUS_EFENCED,
		                  "epoch %" PRIu64 " no longer holds this rank: a newer registration is taking over; "
		                  "if this trainer should go on, register it again and stop the other",
		                  epoch);
	return reason_set(reason, STATUS_EFENCED,
	                  "epoch %" PRIu64 " no longer holds this rank: epoch %" PRIu64 " of another trainer does; if "
	                  "this trainer should go on, register it again and stop the other",
	                  epoch, record->epoch);
}

/* Which outcome an answer has that is there. */
static enum outcome answer_outcome(const struct answer_record *at)
{
	return (enum outcome)(seal_value(&at->seal) - 1);
}

static void answer_read(const struct answer_record *at, struct answer *ret_answer)
{
	bool is_decided = answer_outcome(at) != OUTCOME_ACCEPTED;

	*ret_answer = (struct answer){
		.sequence = at->sequence,
		.step = at->step,
		.version = is_decided ? at->version : 0,
		.calls = is_decided ? at->calls : 0,
		.outcome = answer_outcome(at),
		.stage = (uint32_t)at->stage,
	};
}

/* Where the answer to a sequence number is; NULL when it is not remembered. */
static struct answer_record *answer_find(struct rank_record *record, uint64_t sequence)
{
	struct answer_record *at = &record->answers[sequence % ANSWER_COUNT];

	return at->seal != 0 && at->sequence == sequence ? at : NULL;
}

bool intake_answer(const struct rank_record *record, uint64_t sequence, struct answer *ret_answer)
{
	const struct answer_record *at = answer_find((struct rank_record *)(uintptr_t)record, sequence);

	if (at)
		answer_read(at, ret_answer);
	return at != NULL;
}

static void answer_put(struct rank_record *record, const struct answer *answer)
{
	struct answer_record *at = &record->answers[answer->sequence % ANSWER_COUNT];

	seal_set(&at->seal, 0);
	at->sequence = answer->sequence;
	at->step = answer->step;
	at->version = answer->version;
	at->calls = answer->calls;
	at->stage = answer->stage;
	FAILPOINT("answer-unsealed");
	seal_set(&at->seal, seal_answer(at, answer->outcome));
}

/* While an answer is ACCEPTED, version and calls are not under its seal. */
static void answer_open(struct answer_record *at)
{
	if (answer_outcome(at) != OUTCOME_ACCEPTED)
		seal_set(&at->seal, seal_answer(at, OUTCOME_ACCEPTED));
}

/* The newest step that was accepted or is in a version; false when there is none. */
static bool newest_accepted(const struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step,
                            uint64_t *ret_step)
{
	bool found = newest_step != NULL;
	uint64_t step = found ? *newest_step : 0;

	for (uint32_t i = 0; i < stage_count; i++) {
		if (stage_state(&record->stages[i]) == STAGE_FREE)
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
	const struct answer_record *known = answer_find(record, push->sequence);
	struct stage_record *stage;
	uint64_t accepted_step;
	int error = intake_holds(record, push->client, push->epoch, reason);

	if (error)
		return error;
	if (known) {
		answer_read(known, ret_answer);
		return 0;
	}
	if (push->stage >= stage_count)
		return reason_set(reason, STATUS_EARGUMENT, "stage %" PRIu64 " is not there: this rank has %" PRIu32,
		                  push->stage, stage_count);
	if (stage_state(&record->stages[push->stage]) != STAGE_FREE)
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
	FAILPOINT("push-noted");
	answer_put(record, ret_answer);
	FAILPOINT("push-answered");
	seal_set(&stage->seal, seal_stage(stage, STAGE_READY));
	FAILPOINT("push-ready");
	return 0;
}

uint32_t intake_pending(const struct rank_record *record, uint32_t stage_count)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < stage_count; i++)
		count += stage_state(&record->stages[i]) != STAGE_FREE;
	return count;
}

int32_t intake_free_stage(const struct rank_record *record, uint32_t stage_count)
{
	for (uint32_t i = 0; i < stage_count; i++)
		if (stage_state(&record->stages[i]) == STAGE_FREE)
			return (int32_t)i;
	return -1;
}

static void count_up(_Atomic uint64_t *count)
{
	seal_set(count, seal_count(seal_counted(count) + 1));
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
	count_up(&record->refused);
	answer_put(record, ret_answer);
}

static int32_t oldest_ready(const struct rank_record *record, uint32_t stage_count)
{
	int32_t oldest = -1;

	for (uint32_t i = 0; i < stage_count; i++)
		if (stage_state(&record->stages[i]) == STAGE_READY &&
		    (oldest < 0 || record->stages[i].step < record->stages[oldest].step))
			oldest = (int32_t)i;
	return oldest;
}

/* Whether every rank has a step ready that is newer than the one that is chosen. */
static bool newer_is_whole(const struct rank_record *records, uint32_t world, uint32_t stage_count, uint64_t step)
{
	for (uint32_t i = 0; i < stage_count; i++) {
		uint64_t newer = records[0].stages[i].step;
		bool whole = stage_state(&records[0].stages[i]) == STAGE_READY && newer > step;

		for (uint32_t r = 1; whole && r < world; r++) {
			bool found = false;

			for (uint32_t j = 0; j < stage_count; j++)
				found = found || (stage_state(&records[r].stages[j]) == STAGE_READY &&
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
	struct stage_record *at = &record->stages[stage];

	at->version = version;
	seal_set(&at->seal, seal_stage(at, STAGE_APPLYING));
	FAILPOINT("stage-applying");
}

void intake_settle(struct rank_record *record, uint32_t stage, enum outcome outcome, uint64_t version, uint64_t calls)
{
	struct stage_record *at = &record->stages[stage];
	struct answer_record *answer = answer_find(record, at->sequence);

	if (answer) {
		/* A daemon may have died behind this very decision. */
		answer_open(answer);
		answer->version = version;
		answer->calls = calls;
		seal_set(&answer->seal, seal_answer(answer, outcome));
	}
	FAILPOINT("stage-decided");
	if (outcome_refuses(outcome))
		count_up(&record->refused);
	if (outcome == OUTCOME_COALESCED)
		count_up(&record->coalesced);
	seal_set(&at->seal, seal_stage(at, STAGE_FREE));
	FAILPOINT("stage-freed");
}

/* Whether the answer belongs to a snapshot that is there. */
static bool answer_stands(const struct rank_record *record, uint32_t stage_count, const struct answer_record *answer)
{
	const struct stage_record *stage;

	if (answer_outcome(answer) != OUTCOME_ACCEPTED)
		return true;
	if (answer->stage >= stage_count)
		return false;
	stage = &record->stages[answer->stage];
	return stage_state(stage) == STAGE_READY && stage->sequence == answer->sequence;
}

void intake_adopt(struct rank_record *record, uint32_t stage_count, uint64_t version, uint64_t calls)
{
	for (uint32_t i = 0; i < stage_count; i++) {
		struct stage_record *stage = &record->stages[i];
		struct answer_record *answer;

		if (stage_state(stage) == STAGE_FREE)
			continue;
		if (stage_state(stage) == STAGE_APPLYING && stage->version <= version) {
			intake_settle(record, i, stage->version == 1 ? OUTCOME_STARTED : OUTCOME_APPLIED, stage->version,
			              stage->version == version ? calls : 0);
			continue;
		}
		seal_set(&stage->seal, seal_stage(stage, STAGE_READY));
		/* It was about to be decided, and nobody has heard of it: it will be decided again. */
		answer = answer_find(record, stage->sequence);
		if (answer)
			answer_open(answer);
	}
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		if (record->answers[i].seal != 0 && !answer_stands(record, stage_count, &record->answers[i]))
			seal_set(&record->answers[i].seal, 0);
}

bool intake_is_damaged(const struct rank_record *record, struct intake_damage *ret_damage)
{
	struct intake_damage damage = {
		.claim = !seal_claim_holds(record),
		.refused = !seal_count_holds(record->refused),
		.coalesced = !seal_count_holds(record->coalesced),
	};

	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		damage.stages |= (uint32_t)!seal_stage_holds(&record->stages[i]) << i;
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		damage.answers |= (uint32_t)!seal_answer_holds(&record->answers[i]) << i;
	*ret_damage = damage;
	return damage.claim || damage.refused || damage.coalesced || damage.stages != 0 || damage.answers != 0;
}

void intake_mend(struct rank_record *record, const struct intake_damage *damage)
{
	if (damage->claim) {
		record->epoch = 0;
		seal_set(&record->seal, seal_claim(record, CLAIM_NONE));
	}
	if (damage->refused)
		seal_set(&record->refused, seal_count(0));
	if (damage->coalesced)
		seal_set(&record->coalesced, seal_count(0));
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		if (damage->stages >> i & 1)
			seal_set(&record->stages[i].seal, seal_stage(&record->stages[i], STAGE_FREE));
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		if (damage->answers >> i & 1)
			seal_set(&record->answers[i].seal, 0);
}

void intake_lose(struct rank_record *record)
{
	count_up(&record->refused);
}

bool intake_accepted(const struct rank_record *record, uint32_t stage, struct answer *ret_answer)
{
	for (uint32_t i = 0; i < ANSWER_COUNT; i++) {
		const struct answer_record *at = &record->answers[i];

		if (at->seal == 0 || answer_outcome(at) != OUTCOME_ACCEPTED || at->stage != stage || !seal_answer_holds(at))
			continue;
		answer_read(at, ret_answer);
		return true;
	}
	return false;
}
