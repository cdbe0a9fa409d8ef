/*
 * What one user's models may take of memory and how many they may be, over changes of everything else.
 */
#include "tests/unit/fake_host.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/core/owner.h"

enum { ALICE = 1000, BOB = 1001 };

static struct fake_host host;
static struct fake_trainer trainers[4];

static void setup(void)
{
	static const char *const names[] = { "first", "second", "third", "fourth" };

	fake_host_init(&host);
	host.uid = ALICE;
	fake_host_start(&host);
	for (int i = 0; i < 4; i++)
		fake_trainer_init(&trainers[i], &host, names[i], fake_manifest(0, 1));
}

static void teardown(void)
{
	for (int i = 0; i < 4; i++)
		fake_trainer_finish(&trainers[i]);
	fake_host_finish(&host);
}

static void reconfigure(uint64_t bytes_max, uint64_t count_max)
{
	host.settings.owner_memory_bytes_max = bytes_max;
	host.settings.owner_model_count_max = count_max;
	service_reconfigure(host.service, &host.now, &host.settings);
}

static struct model *model_of(const char *name)
{
	struct model *model = service_find(host.service, name, strlen(name));

	ck_assert_ptr_nonnull(model);
	return model;
}

/* The status's row of a user. */
static void row_check(const char *uid, uint64_t models, uint64_t bytes)
{
	const struct fake_reply *answer = fake_host_expect(&host, fake_query(&host, OP_STATUS, NULL), 0);
	char row[120];

	snprintf(row, sizeof row, "{\"uid\":%s,\"models\":%lu,\"memory_bytes\":%lu}", uid, (unsigned long)models,
	         (unsigned long)bytes);
	ck_assert_msg(strstr(answer->body, row) != NULL, "no %s in %s", row, answer->body);
}

START_TEST(one_user_s_memory_is_bounded_and_another_s_is_not_touched)
{
	const struct fake_reply *answer;
	uint64_t bytes;
	char part[160];

	fake_trainer_join(&trainers[0]);
	bytes = service_memory_bytes(host.service);
	reconfigure(2 * bytes + 7, 0);
	fake_trainer_join(&trainers[1]);
	answer = fake_host_expect(&host, fake_trainer_register(&trainers[2]), STATUS_EMEMORY);
	snprintf(part, sizeof part, "'third' needs %lu bytes, but 7 of %lu (memory-max-per-user) are left to uid 1000",
	         (unsigned long)bytes, (unsigned long)(2 * bytes + 7));
	ck_assert_msg(strstr(answer->error, part) != NULL, "%s", answer->error);
	host.uid = BOB;
	fake_trainer_join(&trainers[2]);
	row_check("1000", 2, 2 * bytes);
	row_check("1001", 1, bytes);
	answer = fake_host_expect(&host, fake_query(&host, OP_SHOW, "third"), 0);
	ck_assert_msg(strstr(answer->body, "\"owner\":1001") != NULL, "%s", answer->body);
	/* What is given back is room again. */
	host.uid = ALICE;
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "first"), 0);
	fake_trainer_join(&trainers[3]);
	row_check("1000", 2, 2 * bytes);
}
END_TEST

START_TEST(one_user_s_models_are_counted)
{
	const struct fake_reply *answer;

	reconfigure(0, 1);
	fake_trainer_join(&trainers[0]);
	answer = fake_host_expect(&host, fake_trainer_register(&trainers[1]), STATUS_ELIMIT);
	ck_assert_msg(strstr(answer->error, "1 models of uid 1000 are the limit of 1 (models-max-per-user)") != NULL, "%s",
	              answer->error);
	/* One in the place of another is none more. */
	trainers[0].resume = "never";
	fake_trainer_join(&trainers[0]);
	host.uid = BOB;
	fake_trainer_join(&trainers[1]);
	/* What takes another user's place is one's own. */
	trainers[0].resume = "never";
	fake_host_expect(&host, fake_trainer_register(&trainers[0]), STATUS_ELIMIT);
	ck_assert_int_eq(model_of("first")->owner, ALICE);
}
END_TEST

START_TEST(nobody_is_exempt_and_those_who_are_not_known_are_one)
{
	uint64_t bytes;

	host.uid = 0;
	fake_trainer_join(&trainers[0]);
	bytes = service_memory_bytes(host.service);
	reconfigure(bytes, 0);
	fake_host_expect(&host, fake_trainer_register(&trainers[1]), STATUS_EMEMORY);
	host.uid = -1;
	fake_trainer_join(&trainers[1]);
	fake_host_expect(&host, fake_trainer_register(&trainers[2]), STATUS_EMEMORY);
	row_check("0", 1, bytes);
	row_check("null", 1, bytes);
	reconfigure(2 * bytes, 0);
	fake_trainer_join(&trainers[2]);
}
END_TEST

START_TEST(a_lowered_limit_is_told_and_what_is_there_stays)
{
	uint64_t events;
	uint64_t bytes;

	fake_trainer_join(&trainers[0]);
	fake_trainer_join(&trainers[1]);
	bytes = service_memory_bytes(host.service);
	host.uid = BOB;
	fake_trainer_join(&trainers[2]);
	events = host.event_count;
	reconfigure(bytes - 1, 0);
	ck_assert_uint_eq(host.event_count, events + 1);
	ck_assert_msg(strstr(host.event, "memory-max-per-user is ") && strstr(host.event, "the models of uid 1000 use "),
	              "%s", host.event);
	reconfigure(0, 1);
	ck_assert_uint_eq(host.event_count, events + 2);
	ck_assert_msg(strstr(host.event, "models-max-per-user is 1 now, and there are 2 of uid 1000") != NULL, "%s",
	              host.event);
	fake_trainer_fill(&trainers[0], 0, 3);
	fake_host_expect(&host, fake_trainer_push(&trainers[0], 1, 0, true), 0);
	reconfigure(0, 0);
	ck_assert_uint_eq(host.event_count, events + 2);
}
END_TEST

START_TEST(a_model_stays_its_user_s_over_a_restart_and_whoever_changes_it)
{
	static const char *const slow[] = { "slow=swa", NULL }, *const third[] = { "third=swa", NULL };
	struct fake_trainer ranks[2];
	uint64_t bytes;

	fake_trainer_join(&trainers[0]);
	fake_trainer_fill(&trainers[0], 0, 3);
	fake_host_expect(&host, fake_trainer_push(&trainers[0], 1, 0, true), 0);
	/* Another world: an heir takes its place. */
	host.uid = BOB;
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_init(&ranks[r], &host, "first", fake_manifest(r, 2));
		ranks[r].rank = r;
		ranks[r].world = 2;
		ranks[r].resume = "adapt";
	}
	for (uint32_t r = 0; r < 2; r++)
		fake_trainer_join(&ranks[r]);
	ck_assert_uint_eq(model_of("first")->world, 2);
	ck_assert_int_eq(model_of("first")->owner, ALICE);
	fake_host_expect(&host, fake_profiles_set(&host, "first", slow, 1000), 0);
	ck_assert_int_eq(model_of("first")->owner, ALICE);
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_int_eq(model_of("first")->owner, ALICE);
	bytes = service_memory_bytes(host.service);
	row_check("1000", 1, bytes);
	/* Its growth is its owner's. */
	reconfigure(bytes, 0);
	fake_host_expect(&host, fake_profiles_set(&host, "first", third, 1000), STATUS_EMEMORY);
	host.uid = ALICE;
	fake_host_expect(&host, fake_trainer_register(&trainers[1]), STATUS_EMEMORY);
	for (uint32_t r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_owners");
	TCase *tcase = tcase_create("service_owners");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, one_user_s_memory_is_bounded_and_another_s_is_not_touched);
	tcase_add_test(tcase, one_user_s_models_are_counted);
	tcase_add_test(tcase, nobody_is_exempt_and_those_who_are_not_known_are_one);
	tcase_add_test(tcase, a_lowered_limit_is_told_and_what_is_there_stays);
	tcase_add_test(tcase, a_model_stays_its_user_s_over_a_restart_and_whoever_changes_it);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
