/*
 * The push states: every transition of one rank's stages, and which step of all ranks is next.
 */
#include "daemon/core/intake.h"
#include "daemon/core/seal.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENT = 7, EPOCH = 3, STAGES = 3 };

static struct rank_record claimed(void)
{
	struct rank_record record;

	memset(&record, 0xa5, sizeof record);
	intake_claim(&record, CLIENT, 1, EPOCH);
	return record;
}

/* A push that must succeed. */
static struct answer push(struct rank_record *record, uint64_t sequence, uint64_t step, uint64_t stage)
{
	const struct push request = {
		.client = CLIENT, .epoch = EPOCH, .sequence = sequence, .step = step, .stage = stage
	};
	struct reason reason = { "" };
	struct answer answer;

	ck_assert_msg(intake_push(record, STAGES, NULL, &request, &answer, &reason) == 0, "%s", reason.text);
	ck_assert_uint_eq(answer.sequence, sequence);
	return answer;
}

static void same_answer(const struct answer *here, enum outcome outcome, uint64_t step, uint64_t version)
{
	ck_assert_str_eq(outcome_name((enum outcome)here->outcome), outcome_name(outcome));
	ck_assert_uint_eq(here->step, step);
	ck_assert_uint_eq(here->version, version);
}

static void remembers(const struct rank_record *record, uint64_t sequence, enum outcome outcome, uint64_t step,
                      uint64_t version)
{
	struct answer answer;

	ck_assert(intake_answer(record, sequence, &answer));
	same_answer(&answer, outcome, step, version);
}

START_TEST(a_claim_forgets_everything_before_it)
{
	struct rank_record record = claimed();

	ck_assert_uint_eq(record.client, CLIENT);
	ck_assert_uint_eq(record.epoch, EPOCH);
	ck_assert_uint_eq(record.register_sequence, 1);
	ck_assert_uint_eq(seal_counted(&record.refused), 0);
	ck_assert_uint_eq(intake_pending(&record, STAGES), 0);
	ck_assert_int_eq(intake_free_stage(&record, STAGES), 0);
	for (uint64_t sequence = 0; sequence < 40; sequence++)
		ck_assert(!intake_answer(&record, sequence, &(struct answer){ 0 }));
}
END_TEST

START_TEST(a_stage_goes_from_free_to_ready_to_applying_to_free)
{
	struct rank_record record = claimed();
	struct answer answer = push(&record, 2, 10, 1);

	same_answer(&answer, OUTCOME_ACCEPTED, 10, 0);
	ck_assert_uint_eq(stage_state(&record.stages[1]), STAGE_READY);
	ck_assert_uint_eq(record.stages[1].step, 10);
	ck_assert_uint_eq(intake_pending(&record, STAGES), 1);
	intake_begin(&record, 1, 6);
	ck_assert_uint_eq(stage_state(&record.stages[1]), STAGE_APPLYING);
	ck_assert_uint_eq(intake_pending(&record, STAGES), 1);
	intake_settle(&record, 1, OUTCOME_APPLIED, 6, 1);
	ck_assert_uint_eq(stage_state(&record.stages[1]), STAGE_FREE);
	ck_assert_uint_eq(intake_pending(&record, STAGES), 0);
	remembers(&record, 2, OUTCOME_APPLIED, 10, 6);
}
END_TEST

START_TEST(a_repeated_request_gets_its_answer_again_and_is_not_applied)
{
	static const struct {
		enum outcome outcome;
		uint64_t version, refused_count;
	} ends[] = {
		{ OUTCOME_STARTED, 1, 0 },
		{ OUTCOME_APPLIED, 9, 0 },
		{ OUTCOME_NONFINITE, 0, 1 },
		{ OUTCOME_INCOMPLETE, 0, 1 },
	};

	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		struct rank_record record = claimed();
		struct answer answer;

		push(&record, 2, 10, 1);
		for (int again = 0; again < 3; again++) {
			answer = push(&record, 2, 10, 1);
			same_answer(&answer, OUTCOME_ACCEPTED, 10, 0);
		}
		intake_begin(&record, 1, 6);
		answer = push(&record, 2, 10, 1);
		same_answer(&answer, OUTCOME_ACCEPTED, 10, 0);
		intake_settle(&record, 1, ends[i].outcome, ends[i].version, 1);
		answer = push(&record, 2, 10, 1);
		same_answer(&answer, ends[i].outcome, 10, ends[i].version);
		ck_assert_uint_eq(stage_state(&record.stages[1]), STAGE_FREE);
		ck_assert_uint_eq(seal_counted(&record.refused), ends[i].refused_count);
	}
}
END_TEST

START_TEST(the_last_sixteen_answers_are_remembered)
{
	struct rank_record record = claimed();

	for (uint64_t i = 0; i < ANSWER_COUNT + 1; i++) {
		push(&record, 2 + i, 10 + i, 0);
		intake_settle(&record, 0, OUTCOME_APPLIED, i + 1, 1);
	}
	ck_assert(!intake_answer(&record, 2, &(struct answer){ 0 }));
	for (uint64_t i = 1; i < ANSWER_COUNT + 1; i++)
		remembers(&record, 2 + i, OUTCOME_APPLIED, 10 + i, i + 1);
	ck_assert(!intake_answer(&record, 0, &(struct answer){ 0 }));
}
END_TEST

START_TEST(a_settled_stage_does_not_touch_the_answer_that_took_its_place)
{
	struct rank_record record = claimed();
	struct answer answer;

	push(&record, 2, 10, 0);
	for (uint64_t sequence = 3; sequence < 2 + ANSWER_COUNT; sequence++)
		push(&record, sequence, 10, 1);
	answer = push(&record, 2 + ANSWER_COUNT, 10, 1);
	same_answer(&answer, OUTCOME_DUPLICATE, 10, 0);
	intake_settle(&record, 0, OUTCOME_APPLIED, 5, 1);
	remembers(&record, 2 + ANSWER_COUNT, OUTCOME_DUPLICATE, 10, 0);
}
END_TEST

START_TEST(steps_must_rise)
{
	struct rank_record record = claimed();
	struct answer answer;
	const uint64_t newest = 20;
	const struct push requests[] = {
		{ .client = CLIENT, .epoch = EPOCH, .sequence = 40, .step = 20, .stage = 2 },
		{ .client = CLIENT, .epoch = EPOCH, .sequence = 41, .step = 19, .stage = 2 },
		{ .client = CLIENT, .epoch = EPOCH, .sequence = 42, .step = 21, .stage = 2 },
	};
	static const enum outcome outcomes[] = { OUTCOME_DUPLICATE, OUTCOME_STALE, OUTCOME_ACCEPTED };

	push(&record, 2, 10, 0);
	answer = push(&record, 3, 10, 1);
	same_answer(&answer, OUTCOME_DUPLICATE, 10, 0);
	answer = push(&record, 4, 9, 1);
	same_answer(&answer, OUTCOME_STALE, 9, 0);
	answer = push(&record, 5, 0, 1);
	same_answer(&answer, OUTCOME_STALE, 0, 0);
	ck_assert_uint_eq(stage_state(&record.stages[1]), STAGE_FREE);
	answer = push(&record, 6, 1000, 1);
	same_answer(&answer, OUTCOME_ACCEPTED, 1000, 0);
	/* Against the newest version when nothing is pending. */
	record = claimed();
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(intake_push(&record, STAGES, &newest, &requests[i], &answer, NULL), 0);
		same_answer(&answer, outcomes[i], requests[i].step, 0);
	}
}
END_TEST

START_TEST(step_0_may_be_the_first)
{
	struct rank_record record = claimed();
	struct answer answer = push(&record, 2, 0, 0);

	same_answer(&answer, OUTCOME_ACCEPTED, 0, 0);
	answer = push(&record, 3, 0, 1);
	same_answer(&answer, OUTCOME_DUPLICATE, 0, 0);
}
END_TEST

START_TEST(a_step_that_was_refused_may_be_pushed_again)
{
	struct rank_record record = claimed();
	struct answer answer;

	push(&record, 2, 10, 0);
	intake_begin(&record, 0, 6);
	intake_settle(&record, 0, OUTCOME_NONFINITE, 0, 0);
	answer = push(&record, 3, 10, 0);
	same_answer(&answer, OUTCOME_ACCEPTED, 10, 0);
}
END_TEST

START_TEST(another_epoch_or_client_is_fenced)
{
	static const struct push others[] = {
		{ .client = CLIENT, .epoch = EPOCH - 1, .sequence = 2, .step = 10 },
		{ .client = CLIENT, .epoch = EPOCH + 1, .sequence = 2, .step = 10 },
		{ .client = CLIENT + 1, .epoch = EPOCH, .sequence = 2, .step = 10 },
		{ .client = 0, .epoch = EPOCH, .sequence = 2, .step = 10 },
	};
	struct rank_record record = claimed(), before = record;
	struct answer answer = { .step = 99 };
	struct reason reason;

	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		ck_assert_int_eq(intake_push(&record, STAGES, NULL, &others[i], &answer, &reason), STATUS_EFENCED);
		ck_assert_msg(strstr(reason.text, "epoch 3 of another trainer") != NULL, "%s", reason.text);
	}
	ck_assert_mem_eq(&record, &before, sizeof record);
	ck_assert_uint_eq(answer.step, 99);
}
END_TEST

START_TEST(a_rank_that_was_vacated_is_held_by_nobody)
{
	struct rank_record record = claimed();
	struct reason reason;

	intake_vacate(&record);
	ck_assert_int_eq(intake_holds(&record, CLIENT, EPOCH, &reason), STATUS_EFENCED);
	ck_assert_msg(strstr(reason.text, "taking over") != NULL, "%s", reason.text);
	ck_assert_int_eq(intake_holds(&record, 0, EPOCH, NULL), STATUS_EFENCED);
}
END_TEST

START_TEST(a_rank_that_was_never_registered_is_held_by_nobody)
{
	struct rank_record record = { 0 };

	ck_assert_int_ne(intake_holds(&record, 0, 0, NULL), 0);
	ck_assert_int_ne(intake_holds(&record, CLIENT, EPOCH, NULL), 0);
}
END_TEST

START_TEST(a_stage_that_is_not_free_or_not_there_is_refused)
{
	struct rank_record record = claimed(), before;
	struct push request = { .client = CLIENT, .epoch = EPOCH, .sequence = 3, .step = 11, .stage = 1 };
	struct answer answer;
	struct reason reason;

	push(&record, 2, 10, 1);
	before = record;
	ck_assert_int_eq(intake_push(&record, STAGES, NULL, &request, &answer, &reason), STATUS_EARGUMENT);
	ck_assert_str_eq(reason.text, "stage 1 still holds step 10: ask for a free one with reserve");
	request.stage = STAGES;
	ck_assert_int_eq(intake_push(&record, STAGES, NULL, &request, &answer, &reason), STATUS_EARGUMENT);
	ck_assert_str_eq(reason.text, "stage 3 is not there: this rank has 3");
	request.stage = UINT64_MAX;
	ck_assert_int_eq(intake_push(&record, STAGES, NULL, &request, &answer, NULL), STATUS_EARGUMENT);
	ck_assert_mem_eq(&record, &before, sizeof record);
	/* What was refused so is not remembered as an answer: the same number may be used with a free stage. */
	request.stage = 0;
	ck_assert_int_eq(intake_push(&record, STAGES, NULL, &request, &answer, NULL), 0);
}
END_TEST

START_TEST(the_free_stage_is_one_that_is_free)
{
	struct rank_record record = claimed();

	push(&record, 2, 10, 0);
	ck_assert_int_eq(intake_free_stage(&record, STAGES), 1);
	push(&record, 3, 11, 1);
	push(&record, 4, 12, 2);
	ck_assert_int_eq(intake_free_stage(&record, STAGES), -1);
	intake_begin(&record, 0, 6);
	ck_assert_int_eq(intake_free_stage(&record, STAGES), -1);
	intake_settle(&record, 0, OUTCOME_APPLIED, 1, 1);
	ck_assert_int_eq(intake_free_stage(&record, STAGES), 0);
}
END_TEST

/* ---- which step is next ------------------------------------------------------------------------------------------ */

#define NONE 0 /* no snapshot in the stage; steps of these cases begin with 1 */

struct select_case {
	uint64_t steps[3][STAGES]; /* of each rank's stages */
	uint32_t world;
	enum intake_choice choice;
	uint64_t step;
	uint32_t rank;      /* for DROP */
	uint32_t stages[3]; /* for APPLY; for DROP that of the rank */
};

static const struct select_case select_cases[] = {
	{ { { NONE } }, 1, INTAKE_NOTHING, 0, 0, { 0 } },
	{ { { NONE, 5 } }, 1, INTAKE_APPLY, 5, 0, { 1 } },
	{ { { 7, 5, 6 } }, 1, INTAKE_APPLY, 5, 0, { 1 } },
	{ { { 5 }, { NONE } }, 2, INTAKE_NOTHING, 0, 0, { 0 } },
	{ { { 5, 6, 7 }, { NONE } }, 2, INTAKE_NOTHING, 0, 0, { 0 } },
	{ { { 5 }, { NONE, NONE, 5 } }, 2, INTAKE_APPLY, 5, 0, { 0, 2 } },
	{ { { 6, 5 }, { 5 } }, 2, INTAKE_APPLY, 5, 0, { 1, 0 } },
	{ { { 5, 6 }, { 6 } }, 2, INTAKE_DROP, 6, 0, { 0 } },
	{ { { 9 }, { 7, 8, 9 } }, 2, INTAKE_DROP, 9, 1, { 0, 0 } },
	{ { { 6 }, { 6 }, { 5, 6 } }, 3, INTAKE_DROP, 6, 2, { 0, 0, 0 } },
	{ { { 6 }, { 6 }, { 7, 6 } }, 3, INTAKE_APPLY, 6, 0, { 0, 0, 1 } },
	{ { { 6 }, { 8 }, { 7 } }, 3, INTAKE_DROP, 8, 0, { 0 } },
};

START_TEST(selects_the_oldest_step_that_all_ranks_have)
{
	const struct select_case *at = &select_cases[_i];
	struct rank_record records[3];
	struct intake_next next;

	for (uint32_t r = 0; r < at->world; r++) {
		records[r] = claimed();
		for (uint32_t i = 0; i < STAGES; i++)
			if (at->steps[r][i] != NONE)
				records[r].stages[i] = (struct stage_record){ .seal = STAGE_READY,
					                                      .step = at->steps[r][i] };
	}
	intake_select(records, at->world, STAGES, false, &next);
	ck_assert_int_eq(next.choice, at->choice);
	if (at->choice == INTAKE_NOTHING)
		return;
	ck_assert_uint_eq(next.step, at->step);
	if (at->choice == INTAKE_DROP) {
		ck_assert_uint_eq(next.rank, at->rank);
		ck_assert_uint_eq(next.stages[at->rank], at->stages[at->rank]);
		return;
	}
	for (uint32_t r = 0; r < at->world; r++)
		ck_assert_uint_eq(next.stages[r], at->stages[r]);
}
END_TEST

/* Under the policy coalesce; as above. */
static const struct select_case coalesce_cases[] = {
	{ { { NONE } }, 1, INTAKE_NOTHING, 0, 0, { 0 } },
	{ { { NONE, 5 } }, 1, INTAKE_APPLY, 5, 0, { 1 } },
	{ { { 7, 5, 6 } }, 1, INTAKE_COALESCE, 5, 0, { 1 } },
	{ { { 7, NONE, 6 } }, 1, INTAKE_COALESCE, 6, 0, { 2 } },
	{ { { 5, 6 }, { 5 } }, 2, INTAKE_APPLY, 5, 0, { 0, 0 } },
	{ { { 5, 6 }, { 5, 7 } }, 2, INTAKE_APPLY, 5, 0, { 0, 0 } },
	{ { { 5, 6 }, { 6, 5 } }, 2, INTAKE_COALESCE, 5, 0, { 0, 1 } },
	{ { { 5, 6, 8 }, { 5, 7, 8 } }, 2, INTAKE_COALESCE, 5, 0, { 0, 0 } },
	{ { { 6, 8 }, { 5, 8 } }, 2, INTAKE_DROP, 6, 1, { 0, 0 } },
	{ { { 5, 6 }, { 5, 6 }, { 5 } }, 3, INTAKE_APPLY, 5, 0, { 0, 0, 0 } },
	{ { { 5, 6 }, { 6, 5 }, { 5, NONE, 6 } }, 3, INTAKE_COALESCE, 5, 0, { 0, 1, 0 } },
};

START_TEST(a_step_gives_way_where_a_newer_one_is_whole)
{
	const struct select_case *at = &coalesce_cases[_i];
	struct rank_record records[3];
	struct intake_next next;

	for (uint32_t r = 0; r < at->world; r++) {
		records[r] = claimed();
		for (uint32_t i = 0; i < STAGES; i++)
			if (at->steps[r][i] != NONE)
				records[r].stages[i] = (struct stage_record){ .seal = STAGE_READY,
					                                      .step = at->steps[r][i] };
	}
	intake_select(records, at->world, STAGES, true, &next);
	ck_assert_int_eq(next.choice, at->choice);
	if (at->choice == INTAKE_NOTHING)
		return;
	ck_assert_uint_eq(next.step, at->step);
	for (uint32_t r = 0; r < at->world; r++)
		if (at->choice != INTAKE_DROP || r == at->rank)
			ck_assert_uint_eq(next.stages[r], at->stages[r]);
	/* What is being applied does not count: nothing newer waits behind it. */
	for (uint32_t i = 0; i < STAGES; i++)
		if (records[0].stages[i].step != at->step)
			records[0].stages[i].seal = STAGE_APPLYING;
	intake_select(records, at->world, STAGES, true, &next);
	ck_assert_int_ne(next.choice, INTAKE_COALESCE);
}
END_TEST

START_TEST(what_gave_way_is_counted_and_not_refused)
{
	struct rank_record record = claimed();
	struct answer answer;

	push(&record, 2, 10, 0);
	push(&record, 3, 11, 1);
	intake_settle(&record, 0, OUTCOME_COALESCED, 0, 0);
	intake_settle(&record, 1, OUTCOME_APPLIED, 5, 2);
	remembers(&record, 2, OUTCOME_COALESCED, 10, 0);
	remembers(&record, 3, OUTCOME_APPLIED, 11, 5);
	ck_assert(intake_answer(&record, 2, &answer));
	ck_assert_uint_eq(answer.calls, 0);
	ck_assert(intake_answer(&record, 3, &answer));
	ck_assert_uint_eq(answer.calls, 2);
	ck_assert_uint_eq(seal_counted(&record.coalesced), 1);
	ck_assert_uint_eq(seal_counted(&record.refused), 0);
}
END_TEST

START_TEST(a_push_that_is_refused_at_once_takes_no_stage)
{
	const struct push request = { .client = CLIENT, .epoch = EPOCH, .sequence = 2, .step = 10, .stage = 1 };
	struct rank_record record = claimed();
	struct answer answer;

	intake_refuse(&record, &request, OUTCOME_LOSS, &answer);
	same_answer(&answer, OUTCOME_LOSS, 10, 0);
	remembers(&record, 2, OUTCOME_LOSS, 10, 0);
	ck_assert_uint_eq(seal_counted(&record.refused), 1);
	ck_assert_uint_eq(intake_pending(&record, STAGES), 0);
	/* The step may be pushed again. */
	answer = push(&record, 3, 10, 1);
	same_answer(&answer, OUTCOME_ACCEPTED, 10, 0);
}
END_TEST

START_TEST(an_average_may_be_of_any_step)
{
	static const uint64_t steps[] = { 3, 10, 11, 500 };
	const uint64_t newest = 10;

	for (int i = 0; i < 4; i++) {
		struct push request = {
			.client = CLIENT, .epoch = EPOCH, .sequence = 3, .step = steps[i], .stage = 1, .seeds = true
		};
		struct rank_record record = claimed();
		struct answer answer;

		push(&record, 2, 11, 0);
		ck_assert_int_eq(intake_push(&record, STAGES, &newest, &request, &answer, NULL), 0);
		same_answer(&answer, OUTCOME_ACCEPTED, steps[i], 0);
		ck_assert_uint_eq(intake_pending(&record, STAGES), 2);
		/* But not in a stage that is taken, nor twice. */
		ck_assert_int_eq(intake_push(&record, STAGES, &newest, &request, &answer, NULL), 0);
		ck_assert_uint_eq(intake_pending(&record, STAGES), 2);
		request.sequence = 4;
		ck_assert_int_eq(intake_push(&record, STAGES, &newest, &request, &answer, NULL), STATUS_EARGUMENT);
	}
}
END_TEST

START_TEST(stages_being_applied_are_not_selected_again)
{
	struct rank_record record = claimed();
	struct intake_next next;

	push(&record, 2, 10, 0);
	push(&record, 3, 11, 1);
	intake_begin(&record, 0, 6);
	intake_select(&record, 1, STAGES, false, &next);
	ck_assert_int_eq(next.choice, INTAKE_APPLY);
	ck_assert_uint_eq(next.step, 11);
}
END_TEST

/* Ranks that run ahead of one another and leave steps out: whatever the order, what is applied is whole and rises. */
START_TEST(ranks_in_any_order_apply_each_whole_step_once)
{
	uint64_t state = 0x9e3779b97f4a7c15 + (uint64_t)_i;
	struct rank_record records[3];
	uint64_t next_step[3] = { 1, 1, 1 }, applied = 0, sequence = 1;
	uint32_t applied_count = 0;

	for (int r = 0; r < 3; r++)
		records[r] = claimed();
	for (int round = 0; round < 5000; round++) {
		struct intake_next next;
		uint32_t r;
		int32_t stage;

		state = state * 6364136223846793005 + 1442695040888963407;
		r = (uint32_t)(state >> 33) % 3;
		stage = intake_free_stage(&records[r], STAGES);
		if (stage >= 0) {
			struct answer answer = push(&records[r], ++sequence, next_step[r], (uint64_t)stage);

			ck_assert_uint_eq(answer.outcome, OUTCOME_ACCEPTED);
			next_step[r] += (state >> 50) % 10 == 0 ? 2 : 1;
		}
		intake_select(records, 3, STAGES, false, &next);
		if (next.choice == INTAKE_DROP)
			intake_settle(&records[next.rank], next.stages[next.rank], OUTCOME_INCOMPLETE, 0, 0);
		if (next.choice != INTAKE_APPLY)
			continue;
		ck_assert_uint_gt(next.step, applied);
		applied = next.step;
		applied_count++;
		for (r = 0; r < 3; r++) {
			ck_assert_uint_eq(records[r].stages[next.stages[r]].step, next.step);
			intake_begin(&records[r], next.stages[r], 6);
			intake_settle(&records[r], next.stages[r], OUTCOME_APPLIED, applied_count, 1);
		}
	}
	ck_assert_uint_gt(applied_count, 500);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("intake");
	TCase *tcase = tcase_create("intake");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, a_claim_forgets_everything_before_it);
	tcase_add_test(tcase, a_stage_goes_from_free_to_ready_to_applying_to_free);
	tcase_add_test(tcase, a_repeated_request_gets_its_answer_again_and_is_not_applied);
	tcase_add_test(tcase, the_last_sixteen_answers_are_remembered);
	tcase_add_test(tcase, a_settled_stage_does_not_touch_the_answer_that_took_its_place);
	tcase_add_test(tcase, steps_must_rise);
	tcase_add_test(tcase, step_0_may_be_the_first);
	tcase_add_test(tcase, a_step_that_was_refused_may_be_pushed_again);
	tcase_add_test(tcase, another_epoch_or_client_is_fenced);
	tcase_add_test(tcase, a_rank_that_was_vacated_is_held_by_nobody);
	tcase_add_test(tcase, a_rank_that_was_never_registered_is_held_by_nobody);
	tcase_add_test(tcase, a_stage_that_is_not_free_or_not_there_is_refused);
	tcase_add_test(tcase, the_free_stage_is_one_that_is_free);
	tcase_add_loop_test(tcase, selects_the_oldest_step_that_all_ranks_have, 0,
	                    sizeof select_cases / sizeof select_cases[0]);
	tcase_add_loop_test(tcase, a_step_gives_way_where_a_newer_one_is_whole, 0,
	                    sizeof coalesce_cases / sizeof coalesce_cases[0]);
	tcase_add_test(tcase, what_gave_way_is_counted_and_not_refused);
	tcase_add_test(tcase, a_push_that_is_refused_at_once_takes_no_stage);
	tcase_add_test(tcase, an_average_may_be_of_any_step);
	tcase_add_test(tcase, stages_being_applied_are_not_selected_again);
	tcase_add_loop_test(tcase, ranks_in_any_order_apply_each_whole_step_once, 0, 4);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
