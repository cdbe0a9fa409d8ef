/*
 * What the service tells of: the kind of each event, and the step and client that belong to it.
 */
#include "tests/unit/fake_host.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;

static void setup(void)
{
	fake_host_init(&host);
	host.settings.slot_count = 2;
	host.settings.lease_min_ms = 1000;
	fake_host_start(&host);
}

static void teardown(void)
{
	fake_host_finish(&host);
}

static struct fake_trainer joined(void)
{
	struct fake_trainer trainer;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	return trainer;
}

static uint64_t push(struct fake_trainer *trainer, uint64_t step, float value, bool wait)
{
	fake_trainer_fill(trainer, 0, value);
	return fake_trainer_push(trainer, step, 0, wait);
}

static void tells(enum event_kind kind, uint64_t step, const char *text)
{
	ck_assert_int_eq((int)host.event_kind, (int)kind);
	ck_assert_uint_eq(host.event_step, step);
	ck_assert_msg(strstr(host.event, text), "'%s' is not in '%s'", text, host.event);
}

START_TEST(tells_of_a_model_from_its_registration_to_its_end)
{
	struct fake_trainer trainer = joined(), again;

	tells(EVENT_MODEL_REGISTERED, UINT64_MAX, "net: rank 0 of 1");
	fake_host_expect(&host, push(&trainer, 7, 1, true), 0);
	again = joined();
	tells(EVENT_MODEL_REGISTERED, 7, "net: rank 0 of 1");
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	tells(EVENT_MODEL_REMOVED, 7, "net: removed on request");
	ck_assert_uint_eq(host.event_count, 3);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&again);
}
END_TEST

START_TEST(tells_which_step_was_refused)
{
	struct fake_trainer trainer = joined();

	fake_host_expect(&host, push(&trainer, 7, 1, true), 0);
	fake_host_expect(&host, push(&trainer, 9, NAN, true), 0);
	tells(EVENT_SNAPSHOT_REFUSED, 9, "net: ");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(tells_that_views_were_revoked)
{
	struct fake_trainer trainer = joined();
	uint64_t number, count;

	/* With two slots, a view of what was the newest keeps the second update behind it waiting. */
	fake_host_expect(&host, push(&trainer, 7, 1, true), 0);
	fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), 0);
	fake_host_expect(&host, push(&trainer, 8, 2, true), 0);
	count = host.event_count;
	number = push(&trainer, 9, 3, true);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	ck_assert_uint_eq(host.event_count, count);
	fake_host_wait(&host, 1000);
	fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(host.event_count, count + 1);
	tells(EVENT_VIEWS_REVOKED, 8, "net: 1 view was revoked");
	fake_trainer_finish(&trainer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service events");
	TCase *tcase = tcase_create("service events");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, tells_of_a_model_from_its_registration_to_its_end);
	tcase_add_test(tcase, tells_which_step_was_refused);
	tcase_add_test(tcase, tells_that_views_were_revoked);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
