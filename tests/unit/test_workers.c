/*
 * The worker threads: the same bits as one thread makes, every update handed back once, and an end in time.
 */
#include "daemon/edge/workers.h"

#include "proto/layout.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

enum { JOBS = 12 };

/* An update of a model of chance with memory of its own. */
struct job {
	struct random_model model;
	struct laid_out out;
	uint8_t *stages[RANDOM_WORLD_MAX], *shadow, *target, *expected;
	struct apply apply;
	struct tensor_result *results, *results_expected;
	int done_count;
};

static sem_t woken;

static void wake(void *context)
{
	(void)context;
	sem_post(&woken);
}

static void done(void *context, struct apply *apply)
{
	int *count = context;

	((struct job *)apply->owner)->done_count++;
	++*count;
}

/* Zeroed memory in which every fourth byte is a little number: small floats, whatever the type. */
static uint8_t *memory_make(uint64_t bytes, uint64_t *state)
{
	uint64_t rounded = layout_page_round(bytes + 1);
	uint8_t *memory = aligned_alloc(LAYOUT_PAGE_BYTES, rounded);

	ck_assert_ptr_nonnull(memory);
	memset(memory, 0, rounded);
	for (uint64_t i = 0; state && i < bytes; i += 4)
		memory[i] = (uint8_t)random_below(state, 60);
	return memory;
}

static void job_finish(struct job *job)
{
	apply_finish(&job->apply);
	laid_out_finish(&job->out);
	for (uint32_t r = 0; r < job->model.world; r++)
		free(job->stages[r]);
	random_model_finish(&job->model);
	free(job->shadow);
	free(job->target);
	free(job->expected);
	free(job->results);
	free(job->results_expected);
}

/* Everything but the model, which is there; with what one thread makes of it. */
static void job_init(struct job *job, uint64_t *state)
{
	static const char *const profiles[] = { "a=yolo", "b=constant" };
	uint32_t tensor_count = job->model.ranks[0]->tensor_count;

	laid_out_init(&job->out, job->model.ranks, job->model.world, profiles, 2);
	ck_assert_int_eq(apply_init(&job->apply, job->out.plan), 0);
	for (uint32_t r = 0; r < job->model.world; r++)
		job->apply.stages[r] = job->stages[r] = memory_make(job->model.ranks[r]->stage_bytes, state);
	job->apply.shadow = job->shadow = memory_make(job->out.geometry->slot_bytes, state);
	job->target = memory_make(job->out.geometry->slot_bytes, NULL);
	job->expected = memory_make(job->out.geometry->slot_bytes, NULL);
	job->results = calloc(tensor_count, sizeof *job->results);
	job->results_expected = calloc(tensor_count, sizeof *job->results_expected);
	job->apply.owner = job;
	job->apply.sources = job->out.geometry->placements;
	for (int p = 0; p < 2; p++) {
		job->apply.profiles[p].form = job->out.geometry->profiles[p].schedule.form;
		job->apply.profiles[p].actions[0] = (struct schedule_result){ .action = ACTION_LERP, .decay = 0.75 };
	}
	job->apply.target = job->expected;
	for (uint32_t b = 0; b < job->out.plan->block_count; b++)
		apply_block(&job->apply, b);
	apply_results(&job->apply, job->results_expected);
	job->apply.target = job->target;
}

static void job_check(struct job *job)
{
	uint32_t tensor_count = job->model.ranks[0]->tensor_count;

	apply_results(&job->apply, job->results);
	ck_assert_mem_eq(job->target, job->expected, job->out.geometry->slot_bytes);
	ck_assert_mem_eq(job->results, job->results_expected, tensor_count * sizeof *job->results);
}

/* One tensor of several blocks, or many small ones. */
static void jobs_init(struct job *jobs, uint64_t *state)
{
	for (int i = 0; i < JOBS; i++) {
		struct tensor_row row = { "w", i % 3 ? DTYPE_F32 : DTYPE_BF16, false, SHAPE(900001) };

		memset(&jobs[i], 0, sizeof jobs[i]);
		if (i % 4 == 0) {
			jobs[i].model.world = 1;
			jobs[i].model.ranks[0] = manifest_of_rows(&row, 1);
		} else {
			random_model_init(&jobs[i].model, state, 1 + (uint32_t)i % 3, 9);
		}
		job_init(&jobs[i], state);
	}
}

static void await(struct workers *workers, int *count, int wanted)
{
	while (*count < wanted) {
		sem_wait(&woken);
		workers_poll(workers, done, count);
	}
}

static void setup(void)
{
	ck_assert_int_eq(sem_init(&woken, 0, 0), 0);
}

static void teardown(void)
{
	sem_destroy(&woken);
}

START_TEST(any_number_of_threads_makes_the_same_bits)
{
	static struct job jobs[JOBS];
	uint64_t state = 0x9e3779b97f4a7c15 + (uint64_t)_i;
	struct workers *workers;
	int count = 0;

	jobs_init(jobs, &state);
	ck_assert_int_eq(workers_start((uint32_t)_i, wake, NULL, &workers), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < JOBS; i++) {
			memset(jobs[i].target, 0, jobs[i].out.geometry->slot_bytes);
			workers_submit(workers, &jobs[i].apply);
		}
		await(workers, &count, JOBS * (round + 1));
		for (int i = 0; i < JOBS; i++) {
			ck_assert_int_eq(jobs[i].done_count, round + 1);
			job_check(&jobs[i]);
		}
	}
	workers_poll(workers, done, &count);
	ck_assert_int_eq(count, JOBS * 3);
	workers_stop(workers);
	for (int i = 0; i < JOBS; i++)
		job_finish(&jobs[i]);
}
END_TEST

START_TEST(updates_one_after_the_other_are_handed_back_each)
{
	static struct job job;
	uint64_t state = 0xd1b54a32d192ed03;
	struct workers *workers;
	int count = 0;

	random_model_init(&job.model, &state, 2, 5);
	job_init(&job, &state);
	ck_assert_int_eq(workers_start(3, wake, NULL, &workers), 0);
	for (int round = 0; round < 2000; round++) {
		workers_submit(workers, &job.apply);
		await(workers, &count, round + 1);
	}
	job_check(&job);
	workers_stop(workers);
	job_finish(&job);
}
END_TEST

START_TEST(an_update_without_elements_is_done_at_once)
{
	static const struct tensor_row row = { "w", DTYPE_F32, false, SHAPE(3, 0) };
	static struct job job;
	uint64_t state = 1;
	struct workers *workers;
	int count = 0;

	job.model.world = 1;
	job.model.ranks[0] = manifest_of_rows(&row, 1);
	job_init(&job, &state);
	ck_assert_uint_eq(job.out.plan->block_count, 0);
	ck_assert_int_eq(workers_start(2, wake, NULL, &workers), 0);
	workers_submit(workers, &job.apply);
	await(workers, &count, 1);
	workers_stop(workers);
	job_finish(&job);
}
END_TEST

START_TEST(stopping_does_not_wait_for_what_is_queued)
{
	static struct job jobs[JOBS];
	uint64_t state = 0x2545f4914f6cdd1d;
	struct workers *workers;

	jobs_init(jobs, &state);
	for (int round = 0; round < 20; round++) {
		ck_assert_int_eq(workers_start(2, wake, NULL, &workers), 0);
		for (int i = 0; i < JOBS; i++)
			workers_submit(workers, &jobs[i].apply);
		workers_stop(workers);
	}
	workers_stop(NULL);
	for (int i = 0; i < JOBS; i++)
		job_finish(&jobs[i]);
}
END_TEST

static void await_pulse(struct workers *workers)
{
	while (!workers_pulse_end(workers))
		sem_wait(&woken);
}

START_TEST(every_worker_gives_a_sign_of_life)
{
	struct workers *workers;

	ck_assert_int_eq(workers_start((uint32_t)_i, wake, NULL, &workers), 0);
	ck_assert(!workers_pulse_end(workers));
	for (int round = 0; round < 500; round++) {
		workers_pulse_begin(workers);
		await_pulse(workers);
		ck_assert(!workers_pulse_end(workers));
	}
	workers_stop(workers);
}
END_TEST

/* Signs are given in the middle of updates, and asking anew while some are missing neither loses nor doubles any. */
START_TEST(signs_of_life_come_while_updates_run)
{
	static struct job jobs[JOBS];
	uint64_t state = 0xbf58476d1ce4e5b9;
	struct workers *workers;
	int count = 0;

	jobs_init(jobs, &state);
	ck_assert_int_eq(workers_start(3, wake, NULL, &workers), 0);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < JOBS; i++)
			workers_submit(workers, &jobs[i].apply);
		for (int n = 0; n < 10; n++) {
			workers_pulse_begin(workers);
			workers_pulse_begin(workers);
			await_pulse(workers);
			ck_assert(!workers_pulse_end(workers));
		}
		workers_poll(workers, done, &count);
		await(workers, &count, JOBS * (round + 1));
	}
	workers_stop(workers);
	for (int i = 0; i < JOBS; i++) {
		job_check(&jobs[i]);
		job_finish(&jobs[i]);
	}
}
END_TEST

/* An update whose blocks cost nothing but turns: all are empty but the first, in which a worker can be held. */
struct paced {
	struct random_model model;
	struct laid_out out;
	struct plan plan;
	struct kernel_set kernels;
	uint8_t *stage, *target;
	struct apply apply;
	uint32_t profile_count;
	uint32_t blocks_at_end; /* of `huge` that were begun when this one was handed back */
};

static sem_t reached, gate;
static struct paced *huge;

static void move_held(void *target, const void *source, size_t bytes)
{
	(void)target;
	(void)source;
	(void)bytes;
	sem_post(&reached);
	sem_wait(&gate);
}

static void paced_init(struct paced *paced, uint32_t profile_count, uint32_t block_count, bool is_held)
{
	static const char *const profiles[] = { "a=yolo", "b=swa", "c=constant", "d=yolo:decay=0.9" };
	static const struct tensor_row row = { "counts", DTYPE_I64, false, SHAPE(16) };

	memset(paced, 0, sizeof *paced);
	paced->profile_count = profile_count;
	paced->model.world = 1;
	paced->model.ranks[0] = manifest_of_rows(&row, 1);
	laid_out_init(&paced->out, paced->model.ranks, 1, profiles, profile_count);
	paced->plan = *paced->out.plan;
	ck_assert_uint_eq(paced->plan.run_count, 1);
	paced->plan.block_count = block_count;
	paced->plan.blocks = calloc((size_t)block_count + 1, sizeof *paced->plan.blocks);
	ck_assert_ptr_nonnull(paced->plan.blocks);
	for (uint32_t b = 1; b <= block_count; b++)
		paced->plan.blocks[b] = 1;
	ck_assert_int_eq(apply_init(&paced->apply, &paced->plan), 0);
	paced->kernels = *paced->apply.kernels;
	if (is_held)
		paced->kernels.move = move_held;
	paced->apply.kernels = &paced->kernels;
	paced->apply.stages[0] = paced->stage = memory_make(paced->model.ranks[0]->stage_bytes, NULL);
	paced->apply.target = paced->target = memory_make(paced->out.geometry->slot_bytes, NULL);
	paced->apply.sources = paced->out.geometry->placements;
	paced->apply.owner = paced;
	for (uint32_t p = 0; p < profile_count; p++)
		paced->apply.profiles[p].start = (struct schedule_result){ .action = ACTION_COPY };
}

static void paced_finish(struct paced *paced)
{
	apply_finish(&paced->apply);
	free(paced->plan.blocks);
	laid_out_finish(&paced->out);
	random_model_finish(&paced->model);
	free(paced->stage);
	free(paced->target);
}

/* In the worker's thread: with one worker nothing else is done meanwhile. */
static void wake_noting(void *context)
{
	uint32_t *blocks = context;

	if (*blocks == 0)
		*blocks = atomic_load(&huge->apply.block_next);
	sem_post(&woken);
}

static void done_counting(void *context, struct apply *apply)
{
	int *count = context;

	(void)apply;
	++*count;
}

static const struct {
	uint32_t huge_profiles, small_profiles, small_blocks;
	uint32_t blocks; /* of the huge one, until the small one is done */
} shares[] = {
	/* By what they move, not by blocks: (1 + 2 * 4) / (1 + 2 * 1) = 3 blocks of one profile go for one of four. */
	{ 1, 1, 216, 200 }, { 4, 1, 216, 200 / 3 }, { 1, 4, 216, 216 * 3 - 16 }, { 4, 4, 216, 216 - 5 },
	/* What takes less than was saved up waits for nothing but the block in hand. */
	{ 1, 1, 15, 1 }, { 4, 1, 15, 1 }, { 1, 4, 5, 1 },
};

START_TEST(a_small_update_gets_its_share_beside_a_huge_one)
{
	struct paced large, small;
	struct workers *workers;
	uint32_t blocks = 0;
	int count = 0;

	sem_init(&reached, 0, 0);
	sem_init(&gate, 0, 0);
	huge = &large;
	paced_init(&large, shares[_i].huge_profiles, 100000, true);
	paced_init(&small, shares[_i].small_profiles, shares[_i].small_blocks, false);
	ck_assert_int_eq(workers_start(1, wake_noting, &blocks, &workers), 0);
	workers_submit(workers, &large.apply);
	sem_wait(&reached);
	workers_submit(workers, &small.apply);
	for (uint32_t p = 0; p < large.profile_count; p++)
		sem_post(&gate);
	while (count < 2) {
		sem_wait(&woken);
		workers_poll(workers, done_counting, &count);
	}
	ck_assert_uint_ge(blocks + 2, shares[_i].blocks);
	ck_assert_uint_le(blocks, shares[_i].blocks + 2);
	workers_stop(workers);
	paced_finish(&large);
	paced_finish(&small);
	sem_destroy(&reached);
	sem_destroy(&gate);
}
END_TEST

static void done_in_turn(void *context, struct apply *apply)
{
	const struct paced *paced = apply->owner;
	uint32_t *block_count = context;

	ck_assert_uint_gt(paced->plan.block_count, *block_count);
	*block_count = paced->plan.block_count;
}

START_TEST(of_updates_under_way_the_smallest_is_done_first_whenever_it_came)
{
	struct paced paced[JOBS];
	struct workers *workers;
	uint32_t blocks = 1, block_count = 0;

	sem_init(&reached, 0, 0);
	sem_init(&gate, 0, 0);
	huge = &paced[0];
	ck_assert_int_eq(workers_start(1, wake_noting, &blocks, &workers), 0);
	for (uint32_t i = 0; i < JOBS; i++) {
		paced_init(&paced[i], 2, (JOBS - i) * 100, i == 0);
		workers_submit(workers, &paced[i].apply);
	}
	sem_wait(&reached);
	sem_post(&gate);
	sem_post(&gate);
	while (block_count < JOBS * 100) {
		sem_wait(&woken);
		workers_poll(workers, done_in_turn, &block_count);
	}
	workers_stop(workers);
	for (int i = 0; i < JOBS; i++)
		paced_finish(&paced[i]);
	sem_destroy(&reached);
	sem_destroy(&gate);
}
END_TEST

/* A sign that will not come must not keep the daemon from ending. */
START_TEST(stopping_does_not_wait_for_signs_of_life)
{
	struct workers *workers;

	for (int round = 0; round < 100; round++) {
		ck_assert_int_eq(workers_start(4, wake, NULL, &workers), 0);
		workers_pulse_begin(workers);
		workers_stop(workers);
	}
}
END_TEST

/* The default size of a stack is more than the address space has: pthread_create has no room for the first. */
START_TEST(threads_that_cannot_be_made_are_an_error)
{
	struct workers *workers = NULL;
	pthread_attr_t attributes;

	ck_assert_int_eq(pthread_attr_init(&attributes), 0);
	ck_assert_int_eq(pthread_attr_setstacksize(&attributes, (size_t)1 << 47), 0);
	ck_assert_int_eq(pthread_setattr_default_np(&attributes), 0);
	ck_assert_int_eq(workers_start(4, wake, NULL, &workers), -EAGAIN);
	ck_assert_ptr_null(workers);
	pthread_attr_destroy(&attributes);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("workers");
	TCase *tcase = tcase_create("workers");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, any_number_of_threads_makes_the_same_bits, 1, 6);
	tcase_add_test(tcase, updates_one_after_the_other_are_handed_back_each);
	tcase_add_test(tcase, an_update_without_elements_is_done_at_once);
	tcase_add_test(tcase, stopping_does_not_wait_for_what_is_queued);
	tcase_add_loop_test(tcase, every_worker_gives_a_sign_of_life, 1, 6);
	tcase_add_test(tcase, signs_of_life_come_while_updates_run);
	tcase_add_loop_test(tcase, a_small_update_gets_its_share_beside_a_huge_one, 0,
	                    sizeof shares / sizeof shares[0]);
	tcase_add_test(tcase, of_updates_under_way_the_smallest_is_done_first_whenever_it_came);
	tcase_add_test(tcase, stopping_does_not_wait_for_signs_of_life);
	tcase_add_test(tcase, threads_that_cannot_be_made_are_an_error);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
