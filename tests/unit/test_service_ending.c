/*
 * The end of a service: what it still takes of steps that some ranks have pushed, for how long, and what it tells of
 * those that are left.
 */
#include "tests/unit/fake_host.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { RANK_COUNT = 2, LINGER_MS = 1000 };

static struct fake_host host;
static struct fake_trainer ranks[RANK_COUNT];

static void begin(void)
{
	fake_host_start(&host);
	for (uint32_t r = 0; r < RANK_COUNT; r++) {
		fake_trainer_init(&ranks[r], &host, "net", fake_manifest(r, RANK_COUNT));
		ranks[r].rank = r;
		ranks[r].world = RANK_COUNT;
		fake_trainer_join(&ranks[r]);
	}
}

static void setup(void)
{
	fake_host_init(&host);
}

static void teardown(void)
{
	for (uint32_t r = 0; r < RANK_COUNT; r++)
		fake_trainer_finish(&ranks[r]);
	fake_host_finish(&host);
}

static uint64_t push(uint32_t rank, uint64_t step, uint32_t stage, bool wait)
{
	fake_trainer_fill(&ranks[rank], stage, (float)step);
	return fake_trainer_push(&ranks[rank], step, stage, wait);
}

static void stop(void)
{
	service_stop(host.service, &host.now);
}

START_TEST(takes_what_completes_a_step_and_nothing_newer)
{
	uint64_t waiting;

	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	waiting = push(0, 6, 1, true);
	stop();
	ck_assert(!service_idle(host.service));
	fake_host_expect(&host, push(1, 7, 0, false), STATUS_ESHUTDOWN);
	fake_host_expect(&host, push(1, 5, 0, false), 0);
	ck_assert(!service_idle(host.service));
	fake_host_expect(&host, push(0, 7, 0, false), STATUS_ESHUTDOWN);
	fake_host_expect(&host, push(1, 6, 1, false), 0);
	ck_assert_str_eq(fake_host_expect(&host, waiting, 0)->outcome, "applied");
	ck_assert(service_idle(host.service));
	/* Once it is idle it takes nothing at all. */
	fake_host_expect(&host, push(1, 7, 0, false), STATUS_ESHUTDOWN);
	host.event_count = 0;
	service_leave(host.service);
	ck_assert_uint_eq(host.event_count, 0);
}
END_TEST

START_TEST(waits_no_longer_than_a_moment_and_tells_what_is_left)
{
	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	stop();
	fake_host_wait(&host, LINGER_MS - 1);
	ck_assert(!service_idle(host.service));
	fake_host_wait(&host, 1);
	ck_assert(service_idle(host.service));
	fake_host_expect(&host, push(1, 5, 0, false), STATUS_ESHUTDOWN);
	host.complaint_count = 0;
	service_leave(host.service);
	ck_assert_int_eq((int)host.event_kind, EVENT_SNAPSHOT_LEFT);
	ck_assert_uint_eq(host.event_step, 5);
	ck_assert_msg(strstr(host.event, "net: step 5 of rank 0 was accepted and is in no average yet"), "%s", host.event);
	ck_assert_uint_eq(host.complaint_count, 0);
}
END_TEST

START_TEST(does_not_wait_for_a_trainer_that_is_not_there)
{
	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	fake_host_gone(&host, ranks[1].peer);
	stop();
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(complains_of_what_nobody_pushes_again)
{
	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	fake_host_gone(&host, ranks[0].peer);
	stop();
	ck_assert(!service_idle(host.service));
	fake_host_wait(&host, LINGER_MS);
	ck_assert(service_idle(host.service));
	host.complaint_count = 0;
	service_leave(host.service);
	ck_assert_uint_eq(host.complaint_count, 1);
}
END_TEST

START_TEST(waits_for_nothing_where_the_memory_is_kept)
{
	host.segments_dir = "/dev/shm/emad";
	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	stop();
	ck_assert(service_idle(host.service));
	host.event_count = 0;
	service_leave(host.service);
	ck_assert_uint_eq(host.event_count, 0);
}
END_TEST

START_TEST(tells_of_steps_that_other_ranks_have_left_out)
{
	begin();
	fake_host_expect(&host, push(0, 5, 0, false), 0);
	host.event_count = 0;
	fake_host_expect(&host, push(1, 6, 0, false), 0);
	ck_assert_uint_eq(host.event_count, 1);
	ck_assert_int_eq((int)host.event_kind, EVENT_SNAPSHOT_REFUSED);
	ck_assert_uint_eq(host.event_step, 5);
	ck_assert_msg(strstr(host.event, "net: step 5 of rank 0 was dropped"), "%s", host.event);
	ck_assert_uint_eq(service_counters(host.service)->pushes_incomplete, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service ending");
	TCase *tcase = tcase_create("service ending");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, takes_what_completes_a_step_and_nothing_newer);
	tcase_add_test(tcase, waits_no_longer_than_a_moment_and_tells_what_is_left);
	tcase_add_test(tcase, does_not_wait_for_a_trainer_that_is_not_there);
	tcase_add_test(tcase, complains_of_what_nobody_pushes_again);
	tcase_add_test(tcase, waits_for_nothing_where_the_memory_is_kept);
	tcase_add_test(tcase, tells_of_steps_that_other_ranks_have_left_out);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
