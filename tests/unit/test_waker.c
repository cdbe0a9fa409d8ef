/*
 * The waker: nothing that threads do before they wake the loop is overlooked, and nobody is woken for nothing for ever.
 */
#include "daemon/edge/waker.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>

enum { THREAD_COUNT = 4, WAKE_COUNT = 20000 };

struct hearing {
	uv_loop_t loop;
	struct waker waker;
	_Atomic int said; /* by all threads */
	int heard, run_count;
};

static void run(void *context)
{
	struct hearing *hearing = context;

	hearing->run_count++;
	hearing->heard = atomic_load(&hearing->said);
	if (hearing->heard == THREAD_COUNT * WAKE_COUNT)
		uv_stop(&hearing->loop);
}

static void *say(void *context)
{
	struct hearing *hearing = context;

	for (int i = 0; i < WAKE_COUNT; i++) {
		atomic_fetch_add(&hearing->said, 1);
		waker_wake(&hearing->waker);
	}
	return NULL;
}

static void hearing_finish(struct hearing *hearing)
{
	uv_close((uv_handle_t *)&hearing->waker.poll, NULL);
	(void)uv_run(&hearing->loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&hearing->loop), 0);
	waker_finish(&hearing->waker);
}

START_TEST(the_last_word_of_every_thread_is_heard)
{
	struct hearing hearing = { .heard = 0 };
	pthread_t threads[THREAD_COUNT];

	ck_assert_int_eq(uv_loop_init(&hearing.loop), 0);
	ck_assert_int_eq(waker_init(&hearing.waker, &hearing.loop, run, &hearing), 0);
	for (int i = 0; i < THREAD_COUNT; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, say, &hearing), 0);
	/* Comes back when all is heard; a wake-up that is lost leaves it waiting until Check ends it. */
	(void)uv_run(&hearing.loop, UV_RUN_DEFAULT);
	for (int i = 0; i < THREAD_COUNT; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(hearing.heard, THREAD_COUNT * WAKE_COUNT);
	hearing_finish(&hearing);
}
END_TEST

START_TEST(wake_ups_before_the_loop_runs_are_one)
{
	struct hearing hearing = { .heard = 0 };

	ck_assert_int_eq(uv_loop_init(&hearing.loop), 0);
	ck_assert_int_eq(waker_init(&hearing.waker, &hearing.loop, run, &hearing), 0);
	for (int i = 0; i < 3; i++)
		waker_wake(&hearing.waker);
	(void)uv_run(&hearing.loop, UV_RUN_NOWAIT);
	(void)uv_run(&hearing.loop, UV_RUN_NOWAIT);
	ck_assert_int_eq(hearing.run_count, 1);
	waker_wake(&hearing.waker);
	(void)uv_run(&hearing.loop, UV_RUN_NOWAIT);
	ck_assert_int_eq(hearing.run_count, 2);
	hearing_finish(&hearing);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("waker");
	TCase *tcase = tcase_create("waker");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, the_last_word_of_every_thread_is_heard);
	tcase_add_test(tcase, wake_ups_before_the_loop_runs_are_one);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
