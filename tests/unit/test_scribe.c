/*
 * Messages through the scribe: whole, in order, and without waiting for a log that nobody reads.
 */
#include "daemon/edge/scribe.h"

#include <check.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 2 * SCRIBE_WAITING_MAX };

static struct scribe *scribe;
static sem_t begun, released;
static atomic_bool holds; /* a write waits for `released` */
static atomic_int written_count;
static char written[ROOM][200];

static void write_down(const struct event *event)
{
	if (holds) {
		sem_post(&begun);
		sem_wait(&released);
	}
	ck_assert_int_lt(written_count, ROOM);
	snprintf(written[written_count], sizeof written[0], "%d %s|%s|%s|%" PRIu64 "|%" PRId64, (int)event->severity,
	         event->text, event->model ? event->model : "-", event->error ? event->error : "-", event->step, event->pid);
	written_count++;
}

static void setup(void)
{
	holds = false;
	written_count = 0;
	ck_assert_int_eq(sem_init(&begun, 0, 0) | sem_init(&released, 0, 0), 0);
	ck_assert_int_eq(scribe_start(write_down, &scribe), 0);
}

static void tell(uint64_t number)
{
	char text[32], model[32];
	const struct event event = {
		.severity = EVENT_NOTICE, .text = text, .model = number % 2 ? model : NULL, .step = number, .pid = -1,
	};

	snprintf(text, sizeof text, "message %" PRIu64, number);
	snprintf(model, sizeof model, "net%" PRIu64, number);
	scribe_tell(scribe, &event);
	/* They are the caller's: what it does with them afterwards is not seen. */
	memset(text, 'x', sizeof text - 1);
	memset(model, 'x', sizeof model - 1);
}

static void is_message(int index, uint64_t number)
{
	char wanted[200];

	if (number % 2)
		snprintf(wanted, sizeof wanted, "2 message %" PRIu64 "|net%" PRIu64 "|-|%" PRIu64 "|-1", number, number, number);
	else
		snprintf(wanted, sizeof wanted, "2 message %" PRIu64 "|-|-|%" PRIu64 "|-1", number, number);
	ck_assert_str_eq(written[index], wanted);
}

START_TEST(everything_is_written_in_order_before_the_end)
{
	for (uint64_t i = 0; i < 500; i++)
		tell(i);
	ck_assert(scribe_stop(scribe, 10000));
	ck_assert_int_eq(written_count, 500);
	for (int i = 0; i < 500; i++)
		is_message(i, (uint64_t)i);
}
END_TEST

START_TEST(nobody_waits_for_a_log_that_is_not_read_and_it_says_how_many_are_lost)
{
	const int there = SCRIBE_WAITING_MAX + 1;

	holds = true;
	tell(0);
	sem_wait(&begun);
	/* The one in hand, as many as may wait, and 77 more. */
	for (int i = 1; i < there + 77; i++)
		tell((uint64_t)i);
	holds = false;
	sem_post(&released);
	ck_assert(scribe_stop(scribe, 10000));
	ck_assert_int_eq(written_count, there + 1);
	for (int i = 0; i < there; i++)
		is_message(i, (uint64_t)i);
	ck_assert_ptr_nonnull(strstr(written[there], "1 77 messages before this one are lost"));
}
END_TEST

START_TEST(it_can_be_waited_for_a_while)
{
	for (uint64_t i = 0; i < 100; i++) {
		tell(i);
		scribe_settle(scribe, 10000);
		ck_assert_int_eq(written_count, (int)i + 1);
	}
	holds = true;
	tell(100);
	scribe_settle(scribe, 20);
	ck_assert_int_eq(written_count, 100);
	holds = false;
	sem_post(&released);
	ck_assert(scribe_stop(scribe, 10000));
}
END_TEST

START_TEST(the_end_does_not_wait_for_it_either)
{
	holds = true;
	tell(0);
	tell(1);
	sem_wait(&begun);
	ck_assert(!scribe_stop(scribe, 20));
	holds = false;
	sem_post(&released);
	ck_assert(scribe_stop(scribe, 10000));
	ck_assert_int_eq(written_count, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("scribe");
	TCase *tcase = tcase_create("scribe");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, everything_is_written_in_order_before_the_end);
	tcase_add_test(tcase, nobody_waits_for_a_log_that_is_not_read_and_it_says_how_many_are_lost);
	tcase_add_test(tcase, it_can_be_waited_for_a_while);
	tcase_add_test(tcase, the_end_does_not_wait_for_it_either);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
