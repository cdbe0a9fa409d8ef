/*
 * The service under other settings: defaults by the name of a model, limits that change while it runs, and requests that
 * a peer may not make.
 */
#include "tests/unit/fake_host.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/access.h"
#include "proto/manifest.h"

static struct fake_host host;

static struct defaults vision = {
	.pattern = "vision/*",
	.profiles = "ema=yolo slow=swa",
	.guards = "nonfinite=skip-tensor,loss_max=10",
	.coalesces = 1,
	.stride = 5,
	.slot_count = 4,
	.stage_count = 3,
};

static void setup(void)
{
	fake_host_init(&host);
	host.settings.defaults = &vision;
	host.settings.default_count = 1;
	fake_host_start(&host);
}

static void teardown(void)
{
	fake_host_finish(&host);
}

/* A registration that says nothing but what it must. */
static uint64_t register_plainly(const struct fake_trainer *trainer, const char *resume, uint64_t client)
{
	struct request request = { .operation = OP_REGISTER };

	request_set(&request, model, text_of(trainer->model));
	request_set(&request, client, client);
	request_set(&request, sequence, 1);
	request_set(&request, rank, 0);
	request_set(&request, world, 1);
	if (resume)
		request_set(&request, resume, text_of(resume));
	return fake_host_ask(&host, trainer->peer + 1000, &request, trainer->manifest, trainer->manifest_bytes);
}

static const char *shown(const char *model)
{
	static char text[8192];
	const struct fake_reply *answer = fake_host_expect(&host, fake_query(&host, OP_SHOW, model), 0);

	snprintf(text, sizeof text, "%s", answer->body);
	return text;
}

static void reconfigure(void)
{
	service_reconfigure(host.service, &host.now, &host.settings);
}

/* ---- defaults ---------------------------------------------------------------------------------------------------- */

START_TEST(what_a_registration_leaves_out_is_that_of_its_model_s_section)
{
	struct fake_trainer trainer;
	const struct fake_reply *answer;
	const char *json;

	fake_trainer_init(&trainer, &host, "vision/net", fake_manifest(0, 1));
	answer = fake_host_expect(&host, register_plainly(&trainer, NULL, 7), 0);
	ck_assert_uint_eq(answer->reply.stage_count, 3);
	ck_assert_uint_eq(host.segment_count, 1 + 4);
	ck_assert_msg(strstr(answer->report, "ema: ") && strstr(answer->report, "slow: "), "%s", answer->report);
	json = shown("vision/net");
	ck_assert_msg(strstr(json, "\"guards\":\"nonfinite=skip-tensor,loss_max=10\""), "%s", json);
	ck_assert_msg(strstr(json, "\"stride\":5") && strstr(json, "\"policy\":\"coalesce\""), "%s", json);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(what_a_registration_says_counts_more)
{
	struct fake_trainer trainer;
	struct request request = { .operation = OP_REGISTER };
	struct text_list list = { .count = 1, .items = { text_of("mine=constant") } };
	const char *json;

	fake_trainer_init(&trainer, &host, "vision/net", fake_manifest(0, 1));
	request_set(&request, model, text_of("vision/net"));
	request_set(&request, client, 7);
	request_set(&request, sequence, 1);
	request_set(&request, rank, 0);
	request_set(&request, world, 1);
	request_set(&request, profiles, list);
	request_set(&request, guards, text_of("norm_jump=2"));
	request_set(&request, stride, 3);
	request_set(&request, policy, text_of("block"));
	fake_host_expect(&host, fake_host_ask(&host, 1001, &request, trainer.manifest, trainer.manifest_bytes), 0);
	json = shown("vision/net");
	ck_assert_msg(strstr(json, "\"guards\":\"nonfinite=refuse,norm_jump=2\""), "%s", json);
	ck_assert_msg(strstr(json, "\"stride\":3") && strstr(json, "\"policy\":\"block\""), "%s", json);
	ck_assert_msg(strstr(json, "mine") && !strstr(json, "slow"), "%s", json);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(without_a_section_profiles_must_be_named)
{
	struct fake_trainer trainer;
	const struct fake_reply *answer;

	fake_trainer_init(&trainer, &host, "speech/net", fake_manifest(0, 1));
	answer = fake_host_expect(&host, register_plainly(&trainer, NULL, 7), STATUS_EPROFILE);
	ck_assert_msg(strstr(answer->error, "names no profiles") && strstr(answer->error, "'speech/net'") &&
	              strstr(answer->error, "[model PATTERN]"), "%s", answer->error);
	vision.profiles[0] = '\0';
	trainer.model = "vision/net";
	fake_host_expect(&host, register_plainly(&trainer, NULL, 7), STATUS_EPROFILE);
	strcpy(vision.profiles, "ema=yolo slow=swa");
	ck_assert_uint_eq(host.segment_count, 0);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_model_that_is_there_keeps_its_profiles_when_the_defaults_change)
{
	struct fake_trainer trainer;
	struct defaults other = vision;

	fake_trainer_init(&trainer, &host, "vision/net", fake_manifest(0, 1));
	fake_host_expect(&host, register_plainly(&trainer, NULL, 7), 0);
	strcpy(other.profiles, "new=constant");
	host.settings.defaults = &other;
	reconfigure();
	fake_host_expect(&host, register_plainly(&trainer, NULL, 8), 0);
	ck_assert_ptr_nonnull(strstr(shown("vision/net"), "slow"));
	/* Who starts anew gets the new ones. */
	fake_host_expect(&host, register_plainly(&trainer, "never", 9), 0);
	ck_assert_ptr_null(strstr(shown("vision/net"), "slow"));
	ck_assert_ptr_nonnull(strstr(shown("vision/net"), "new"));
	fake_trainer_finish(&trainer);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

START_TEST(a_memory_limit_below_what_is_in_use_refuses_what_is_new)
{
	struct fake_trainer trainer, second;
	const struct fake_reply *answer;
	uint64_t events;

	fake_trainer_init(&trainer, &host, "first", fake_manifest(0, 1));
	fake_trainer_init(&second, &host, "second", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	events = host.event_count;
	host.settings.memory_bytes_max = 4096;
	reconfigure();
	ck_assert_uint_eq(host.event_count, events + 1);
	ck_assert_msg(strstr(host.event, "memory-max is 4096 bytes now, and the models use ") &&
	              strstr(host.event, "they stay"), "%s", host.event);
	/* What is there goes on. */
	fake_trainer_fill(&trainer, 0, 3);
	fake_host_expect(&host, fake_trainer_push(&trainer, 1, 0, true), 0);
	ck_assert_float_eq(fake_average(&host, "first", NULL), 3);
	answer = fake_host_expect(&host, fake_trainer_register(&second), STATUS_EMEMORY);
	ck_assert_msg(strstr(answer->error, "of 4096 (memory-max)") != NULL, "%s", answer->error);
	/* And room that is given back is room again. */
	host.settings.memory_bytes_max = UINT64_C(1) << 30;
	reconfigure();
	ck_assert_uint_eq(host.event_count, events + 1);
	fake_trainer_join(&second);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&second);
}
END_TEST

START_TEST(a_lower_number_of_models_refuses_what_is_new)
{
	struct fake_trainer trainer, second, third;

	fake_trainer_init(&trainer, &host, "first", fake_manifest(0, 1));
	fake_trainer_init(&second, &host, "second", fake_manifest(0, 1));
	fake_trainer_init(&third, &host, "third", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	fake_trainer_join(&second);
	host.settings.model_count_max = 1;
	reconfigure();
	ck_assert_msg(strstr(host.event, "models-max is 1 now, and there are 2 models") != NULL, "%s", host.event);
	fake_host_expect(&host, fake_trainer_register(&third), STATUS_ELIMIT);
	fake_host_expect(&host, fake_query(&host, OP_SHOW, "second"), 0);
	host.settings.model_count_max = 3;
	reconfigure();
	fake_trainer_join(&third);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&second);
	fake_trainer_finish(&third);
}
END_TEST

START_TEST(the_number_of_segments_is_bounded)
{
	static const char *const profiles[] = { "ema=yolo", "slow=swa", NULL };
	struct fake_trainer trainer, second;
	uint64_t number;

	/* One, three slots and a rank each. */
	host.settings.segment_count_max = 9;
	reconfigure();
	fake_trainer_init(&trainer, &host, "first", fake_manifest(0, 1));
	fake_trainer_init(&second, &host, "second", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_register(&second), STATUS_ELIMIT)->error,
	                 "model 'second' needs 5 segments (one, 3 slots, 1 ranks), but 4 of 9 (segments-max) are left: remove "
	                 "a model with 'emactl remove MODEL', or raise segments-max");
	host.settings.segment_count_max = 10;
	reconfigure();
	fake_trainer_join(&second);
	ck_assert_uint_eq(host.segment_count, 10);
	/* Slots of other profiles are made before the old ones go. */
	number = fake_profiles_set(&host, "first", profiles, 1000);
	ck_assert_str_eq(fake_host_expect(&host, number, STATUS_ELIMIT)->error,
	                 "model 'first' needs 8 segments (one, 3 slots, 1 ranks, and its old slots meanwhile), but 5 of 10 "
	                 "(segments-max) are left: remove a model with 'emactl remove MODEL', or raise segments-max");
	host.settings.segment_count_max = 7;
	reconfigure();
	ck_assert_str_eq(host.event, "segments-max is 7 now, and the models take 10: they stay, and new ones are refused until "
	                 "'emactl remove' has made room");
	/* Those that are there get all that they were promised. */
	fake_host_gone(&host, trainer.peer);
	fake_trainer_join(&trainer);
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "second"), 0);
	host.settings.segment_count_max = 8;
	reconfigure();
	fake_host_expect(&host, fake_profiles_set(&host, "first", profiles, 1000), 0);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&second);
}
END_TEST

/* A file cannot be sealed, and whoever cuts it short makes the daemon fault. */
START_TEST(stages_that_are_files_are_for_the_daemon_s_own_user_and_root)
{
	struct fake_trainer trainer;

	fake_host_finish(&host);
	fake_host_init(&host);
	host.segments_dir = "/dev/shm/emad";
	host.daemon_uid = 990;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	host.uid = 1000;
	fake_trainer_registered(&trainer, fake_trainer_register(&trainer));
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_attach(&trainer), -EACCES)->error,
	                 "a trainer of uid 1000 may not attach to a daemon of uid 990 whose segments are files in "
	                 "'/dev/shm/emad' (segments-dir): their size cannot be sealed, and whoever cuts a stage short kills the "
	                 "daemon. Run both as the same user, or the daemon as a systemd service without segments-dir");
	ck_assert_uint_eq(host.segment_count, 1 + 3);
	host.uid = -1;
	fake_host_expect(&host, fake_trainer_attach(&trainer), -EACCES);
	host.uid = 990;
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	host.uid = 0;
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(slots_and_stages_are_those_of_the_time_of_the_registration)
{
	struct fake_trainer trainer, second;

	fake_trainer_init(&trainer, &host, "first", fake_manifest(0, 1));
	fake_trainer_init(&second, &host, "second", fake_manifest(0, 1));
	fake_host_expect(&host, fake_trainer_register(&trainer), 0);
	ck_assert_uint_eq(host.segment_count, 1 + 3);
	host.settings.slot_count = 5;
	host.settings.stage_count = 1;
	reconfigure();
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_register(&second), 0)->reply.stage_count, 1);
	ck_assert_uint_eq(host.segment_count, 1 + 3 + 1 + 5);
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_register(&trainer), 0)->reply.stage_count, 2);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&second);
}
END_TEST

/* Readers hold every slot but the one that is written; an update waits for the lease's time, which becomes shorter. */
START_TEST(a_shorter_lease_frees_an_update_that_waits)
{
	struct fake_trainer trainer;
	uint64_t number;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	for (uint64_t step = 1; step <= 2; step++) {
		fake_trainer_fill(&trainer, 0, 1);
		fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
		fake_host_expect(&host, fake_view(&host, 500 + step, "net", NULL, 0, 0), 0);
	}
	fake_trainer_fill(&trainer, 0, 1);
	fake_host_expect(&host, fake_trainer_push(&trainer, 3, 0, true), 0);
	fake_host_expect(&host, fake_view(&host, 503, "net", NULL, 0, 0), 0);
	fake_trainer_fill(&trainer, 0, 1);
	number = fake_trainer_push(&trainer, 4, 0, true);
	fake_host_wait(&host, 1000);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	host.settings.lease_min_ms = 500;
	reconfigure();
	fake_host_wait(&host, 1);
	fake_host_settle(&host);
	fake_host_expect(&host, number, 0);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(fewer_waits_refuse_the_next_and_not_those_that_are_there)
{
	struct fake_trainer trainer;
	uint64_t first;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	first = fake_view(&host, 500, "net", NULL, 9, 5000);
	host.settings.parked_count_max = 1;
	reconfigure();
	fake_host_expect(&host, fake_view(&host, 501, "net", NULL, 9, 5000), STATUS_EBUSY);
	ck_assert_ptr_null(fake_host_answer(&host, first));
	host.settings.parked_count_max = 10;
	host.settings.parked_bytes_max = 10;
	reconfigure();
	ck_assert_msg(strstr(fake_host_expect(&host, fake_view(&host, 501, "net", NULL, 9, 5000), STATUS_EBUSY)->error,
	                     "and 10 (waiting-memory-max) may") != NULL, "waiting-memory-max is not named");
	fake_host_wait(&host, 6000);
	fake_host_expect(&host, first, STATUS_ENOVERSION);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_service_that_stops_waits_for_no_reader_whatever_the_settings)
{
	struct fake_trainer trainer;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	for (uint64_t step = 1; step <= 3; step++) {
		fake_trainer_fill(&trainer, 0, 1);
		fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
		fake_host_expect(&host, fake_view(&host, 500 + step, "net", NULL, 0, 0), 0);
	}
	fake_trainer_fill(&trainer, 0, 1);
	fake_host_expect(&host, fake_trainer_push(&trainer, 4, 0, false), 0);
	ck_assert(!service_idle(host.service));
	service_stop(host.service, &host.now);
	reconfigure();
	fake_host_settle(&host);
	ck_assert(service_idle(host.service));
	fake_trainer_finish(&trainer);
}
END_TEST

/* ---- access ------------------------------------------------------------------------------------------------------ */

START_TEST(requests_of_a_refused_class_are_answered_with_the_key_to_change)
{
	static const struct {
		enum operation operation;
		enum access access;
	} rows[] = {
		{ OP_HELLO, ACCESS_OPEN }, { OP_STATUS, ACCESS_READ }, { OP_LIST, ACCESS_READ }, { OP_SHOW, ACCESS_READ },
		{ OP_REMOVE, ACCESS_ADMIN },
	};
	struct fake_trainer trainer;
	char part[64];

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_host_expect(&host, fake_trainer_register(&trainer), 0);
	for (uint32_t refused = 0; refused < 1U << ACCESS_COUNT; refused += 2) {
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
			bool denies = refused & 1U << rows[i].access;
			const struct fake_reply *answer;

			if (rows[i].operation == OP_REMOVE && !denies)
				continue;
			host.refused = refused;
			answer = fake_host_expect(&host, fake_query(&host, rows[i].operation, rows[i].access > ACCESS_OPEN &&
			                          rows[i].operation != OP_STATUS && rows[i].operation != OP_LIST ? "net" : NULL),
			                          denies ? -EACCES : 0);
			snprintf(part, sizeof part, "uid 0 may not %s ('%s'", access_name(rows[i].access),
			         message_operations[rows[i].operation].name);
			ck_assert_msg(!denies || strstr(answer->error, part), "%s", answer->error);
			snprintf(part, sizeof part, "%s-users=", access_name(rows[i].access));
			ck_assert_msg(!denies || strstr(answer->error, part), "%s", answer->error);
		}
	}
	host.refused = 1U << ACCESS_PUSH;
	fake_host_expect(&host, fake_trainer_register(&trainer), -EACCES);
	fake_host_expect(&host, fake_trainer_attach(&trainer), -EACCES);
	fake_host_expect(&host, fake_trainer_push(&trainer, 1, 0, false), -EACCES);
	ck_assert_uint_gt(service_counters(host.service)->requests_denied, 3);
	host.refused = 0;
	fake_trainer_finish(&trainer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_settings");
	TCase *tcase = tcase_create("service_settings");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, what_a_registration_leaves_out_is_that_of_its_model_s_section);
	tcase_add_test(tcase, what_a_registration_says_counts_more);
	tcase_add_test(tcase, without_a_section_profiles_must_be_named);
	tcase_add_test(tcase, a_model_that_is_there_keeps_its_profiles_when_the_defaults_change);
	tcase_add_test(tcase, a_memory_limit_below_what_is_in_use_refuses_what_is_new);
	tcase_add_test(tcase, a_lower_number_of_models_refuses_what_is_new);
	tcase_add_test(tcase, the_number_of_segments_is_bounded);
	tcase_add_test(tcase, stages_that_are_files_are_for_the_daemon_s_own_user_and_root);
	tcase_add_test(tcase, slots_and_stages_are_those_of_the_time_of_the_registration);
	tcase_add_test(tcase, a_shorter_lease_frees_an_update_that_waits);
	tcase_add_test(tcase, fewer_waits_refuse_the_next_and_not_those_that_are_there);
	tcase_add_test(tcase, a_service_that_stops_waits_for_no_reader_whatever_the_settings);
	tcase_add_test(tcase, requests_of_a_refused_class_are_answered_with_the_key_to_change);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
