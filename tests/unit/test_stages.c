/*
 * Stages: which snapshots are kept when a daemon has lost them, in what order they are handed out again, and that what
 * was decided, or removed by somebody, is not among them.
 */
#include "client/stages.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STAGE_COUNT = 4, STAGE_BYTES = 5000, STRIDE = 2 * LAYOUT_PAGE_BYTES };

static struct stages stages;

/* As the daemon makes it; the header is not looked at here but for the states. */
static struct stage_map map_make(bool is_shared)
{
	uint64_t bytes = LAYOUT_PAGE_BYTES + STAGE_COUNT * STRIDE;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(memory, MAP_FAILED);
	return (struct stage_map){memory, bytes, STAGE_COUNT, STRIDE, is_shared};
}

static void state_set(uint32_t stage, enum stage_state state)
{
	atomic_store(&((struct stage_header *)stages.map.bytes)->state[stage], state);
}

static void setup(void)
{
	struct stage_map map = map_make(true);

	stages = (struct stages){.keepsake_count = 0};
	stages_replace(&stages, &map, STAGE_BYTES, true);
}

static void teardown(void)
{
	stages_finish(&stages);
}

/* The daemon has taken the snapshot, and every byte of it is the step. */
static void push(uint32_t stage, uint64_t step)
{
	struct stage_note *note = stages_overwrite(&stages, stage);

	memset(stage_map_stage(&stages.map, stage), (int)step, STAGE_BYTES);
	*note = (struct stage_note){.step = step, .pushed = true};
	stages_accepted(&stages, step);
	state_set(stage, STAGE_READY);
}

static void lose(bool repeats)
{
	struct stage_map map = map_make(true);

	stages_replace(&stages, &map, STAGE_BYTES, repeats);
}

/* Takes the oldest. */
static void kept(uint64_t step)
{
	struct keepsake *keepsake = stages_keepsake(&stages);

	ck_assert_ptr_nonnull(keepsake);
	ck_assert_uint_eq(keepsake->step, step);
	for (int i = 0; i < STAGE_BYTES; i++)
		ck_assert_uint_eq(keepsake->bytes[i], step);
	stages_drop(&stages, keepsake);
}

START_TEST(keeps_what_was_accepted_and_not_decided_by_its_step)
{
	push(2, 5);
	push(0, 6);
	push(3, 7);
	push(1, 8);
	state_set(2, STAGE_FREE);
	state_set(0, STAGE_APPLYING);
	ck_assert(stages_hold(&stages));
	lose(true);
	ck_assert(stages_hold(&stages));
	kept(6);
	kept(7);
	kept(8);
	ck_assert_ptr_null(stages_keepsake(&stages));
	ck_assert(!stages_hold(&stages));
	/* That one is averaged, or gone. */
	ck_assert(stages.has_settled);
	ck_assert_uint_eq(stages.settled_step, 5);
}
END_TEST

START_TEST(keeps_nothing_of_a_model_that_was_removed)
{
	push(0, 5);
	push(1, 6);
	lose(false);
	ck_assert_ptr_null(stages_keepsake(&stages));
	ck_assert_uint_eq(stages.settled_step, 6);
}
END_TEST

START_TEST(keeps_what_is_not_acknowledged_for_its_own_push_alone)
{
	push(0, 5);
	memset(stage_map_stage(&stages.map, 1), 6, STAGE_BYTES);
	stages.notes[1] = (struct stage_note){.step = 6, .pushed = true, .is_own = true};
	stages.notes[2] = (struct stage_note){.step = 7, .pushed = true, .in_doubt = true};
	state_set(2, STAGE_READY);
	lose(true);
	ck_assert_uint_eq(stages.keepsake_count, 2);
	kept(5);
	ck_assert_ptr_null(stages_keepsake(&stages));
	ck_assert_uint_eq(stages_own_keepsake(&stages)->step, 6);
	stages_drop(&stages, stages_own_keepsake(&stages));
	ck_assert_ptr_null(stages_own_keepsake(&stages));
}
END_TEST

START_TEST(a_duplicate_says_that_the_push_in_doubt_was_accepted)
{
	stages.notes[2] = (struct stage_note){.step = 7, .pushed = true, .in_doubt = true};
	memset(stage_map_stage(&stages.map, 2), 7, STAGE_BYTES);
	state_set(2, STAGE_READY);
	ck_assert_int_eq(stages_free(&stages), 0);
	stages_answered(&stages);
	stages_accepted(&stages, 7);
	lose(true);
	kept(7);
	ck_assert(!stages.has_settled);
}
END_TEST

/* The daemon has decided about everything that has come. A push may be on its way over a connection that is left. */
START_TEST(a_stage_in_doubt_is_not_free_before_a_later_push_is_answered)
{
	stages.notes[0] = (struct stage_note){.step = 7, .pushed = true, .in_doubt = true};
	push(1, 8);
	state_set(1, STAGE_FREE);
	stages_decided(&stages);
	ck_assert_int_eq(stages_free(&stages), 1);
	stages_answered(&stages);
	ck_assert_int_eq(stages_free(&stages), 0);
}
END_TEST

START_TEST(what_is_lost_twice_is_kept_in_order)
{
	push(0, 5);
	push(1, 6);
	push(2, 7);
	lose(true);
	kept(5);
	/* It is there again, and lost again. */
	push(0, 5);
	lose(true);
	kept(5);
	kept(6);
	kept(7);
}
END_TEST

START_TEST(memory_of_the_trainers_own_is_kept_until_it_is_overwritten)
{
	struct stage_map map = map_make(false);

	stages_replace(&stages, &map, STAGE_BYTES, true);
	ck_assert_int_eq(stages_free(&stages), -1);
	for (uint32_t i = 0; i < 3; i++) {
		memset(stage_map_stage(&stages.map, i), (int)(5 + i), STAGE_BYTES);
		*stages_overwrite(&stages, i) = (struct stage_note){.step = 5 + i, .pushed = true};
		stages_accepted(&stages, 5 + i);
	}
	/* The daemon offers this one again: it has decided. */
	stages_overwrite(&stages, 0);
	ck_assert_uint_eq(stages.settled_step, 5);
	lose(true);
	kept(6);
	kept(7);
	ck_assert_ptr_null(stages_keepsake(&stages));
}
END_TEST

START_TEST(nothing_is_kept_when_everything_was_decided)
{
	push(0, 5);
	push(1, 6);
	stages_decided(&stages);
	ck_assert(!stages_hold(&stages));
	lose(true);
	ck_assert_ptr_null(stages_keepsake(&stages));
	ck_assert_uint_eq(stages.settled_step, 6);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stages");
	TCase *tcase = tcase_create("stages");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, keeps_what_was_accepted_and_not_decided_by_its_step);
	tcase_add_test(tcase, keeps_nothing_of_a_model_that_was_removed);
	tcase_add_test(tcase, keeps_what_is_not_acknowledged_for_its_own_push_alone);
	tcase_add_test(tcase, a_duplicate_says_that_the_push_in_doubt_was_accepted);
	tcase_add_test(tcase, a_stage_in_doubt_is_not_free_before_a_later_push_is_answered);
	tcase_add_test(tcase, what_is_lost_twice_is_kept_in_order);
	tcase_add_test(tcase, memory_of_the_trainers_own_is_kept_until_it_is_overwritten);
	tcase_add_test(tcase, nothing_is_kept_when_everything_was_decided);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
