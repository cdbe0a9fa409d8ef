/*
 * Profiles that are added, changed and removed while a model is trained and read.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;
static struct fake_trainer trainer;

static void setup(void)
{
	fake_host_init(&host);
	host.keeps = true;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5,form=lerp";
}

static void teardown(void)
{
	/* What the service accounts for is what there is. */
	ck_assert_uint_eq(host.order_count, 0);
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

static struct model *net(void)
{
	return service_find(host.service, "net", 3);
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

static const struct fake_reply *push(uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer;

	fake_trainer_fill(&trainer, 0, value);
	answer = fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
	ck_assert_msg(strcmp(answer->outcome, outcome) == 0, "%s, not %s: %s", answer->outcome, outcome,
	              answer->refusal);
	return answer;
}

/* A model whose average is 8 at step 11. */
static void averaged(void)
{
	fake_trainer_join(&trainer);
	push(10, 16, "started");
	push(11, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
}

#define PROFILES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static const struct fake_reply *set(const char *const *profiles)
{
	return fake_host_expect(&host, fake_profiles_set(&host, "net", profiles, 1000), 0);
}

static char *metadata(const char *profile, const char *key)
{
	const struct fake_reply *view = fake_host_expect(&host, fake_view(&host, 901, "net", profile, 0, 0), 0);
	char *text = fake_metadata(&host, view, key);

	fake_host_gone(&host, 901);
	return text;
}

/* The accounts agree with what the host has made: head, slots and an attached stage. */
static void accounts_check(void)
{
	ck_assert_uint_eq(service_memory_bytes(host.service), host.segment_bytes);
}

/* ---- what becomes of the averages -------------------------------------------------------------------------------- */

START_TEST(a_profile_that_is_added_starts_with_the_next_snapshot)
{
	const struct fake_reply *answer;

	averaged();
	answer = set(PROFILES("slow=constant:decay=0.75,form=lerp"));
	says(answer->report, "ema: 1 averaged; slow: 1 averaged");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	push(12, 4, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 6);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 4);
	push(13, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 3);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 3);
	ck_assert_uint_eq(versions_newest(&net()->versions)->profiles[0].updates, 3);
	ck_assert_uint_eq(versions_newest(&net()->versions)->profiles[1].updates, 1);
	accounts_check();
}
END_TEST

START_TEST(a_schedule_changes_without_other_memory)
{
	uint64_t segments, bytes;
	char *text;

	averaged();
	segments = host.segment_count;
	bytes = host.segment_bytes;
	set(PROFILES("ema=constant:decay=0.75,form=lerp"));
	ck_assert_uint_eq(host.segment_count, segments);
	ck_assert_uint_eq(host.segment_bytes, bytes);
	ck_assert_uint_eq(host.kept_count, 0);
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 6);
	text = metadata("ema", "emad.schedule");
	ck_assert_str_eq(text, "constant:decay=0.75");
	free(text);
	text = metadata("ema", "emad.history");
	ck_assert_str_eq(text, "[{\"step\":11,\"updates\":1,\"change\":\"schedule\","
	                       "\"from\":\"ema=constant:decay=0.5\",\"to\":\"ema=constant:decay=0.75\"}]");
	free(text);
	accounts_check();
}
END_TEST

START_TEST(a_shadow_changes_its_precision_and_goes_on)
{
	const struct fake_reply *view;
	const double *wide;

	averaged();
	set(PROFILES("ema=constant:decay=0.5,form=lerp,precision=f64"));
	push(12, 1, "applied");
	view = fake_host_expect(&host, fake_view(&host, 901, "net", NULL, 0, 0), 0);
	wide = (const void *)fake_tensor(&host, view, "w");
	for (int i = 0; i < FAKE_ELEMENTS; i++)
		ck_assert_double_eq(wide[i], 4.5);
	fake_host_gone(&host, 901);
	accounts_check();
	set(PROFILES("ema=constant:decay=0.5,form=lerp"));
	push(13, 1, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2.75F);
	ck_assert_uint_eq(versions_newest(&net()->versions)->updates, 3);
	accounts_check();
}
END_TEST

START_TEST(a_tensor_is_copied_frozen_dropped_and_averaged_again)
{
	averaged();
	set(PROFILES("other=constant", "ema=constant:decay=0.5;copy=w"));
	push(12, 3, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 3);
	set(PROFILES("ema=constant:decay=0.5;freeze=w"));
	push(13, 7, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 3);
	set(PROFILES("ema=constant:decay=0.5"));
	push(14, 7, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 5);
	accounts_check();
}
END_TEST

START_TEST(a_profile_that_would_hold_nothing_is_refused)
{
	averaged();
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("ema=yolo;drop=*"), 1000),
	                      STATUS_EPROFILE)
	             ->error,
	     "holds none of the 1 tensors");
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
}
END_TEST

START_TEST(a_profile_is_removed_and_the_others_go_on)
{
	char *text;

	trainer.profiles[1] = "slow=constant:decay=0.75,form=lerp";
	trainer.profile_count = 2;
	averaged();
	says(fake_host_expect(&host, fake_profile_remove(&host, "net", "ema", 1000), 0)->report, "slow: 1 averaged");
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 9);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 9);
	says(fake_host_expect(&host, fake_view(&host, 901, "net", "ema", 0, 0), STATUS_ENOPROFILE)->error,
	     "it has: slow");
	says(fake_host_expect(&host, fake_profile_remove(&host, "net", "slow", 1000), STATUS_EPROFILE)->error,
	     "only profile");
	says(fake_host_expect(&host, fake_profile_remove(&host, "net", "ema", 1000), STATUS_ENOPROFILE)->error,
	     "'ema'");
	/* Its history is that of its name, not of its place. */
	ck_assert_ptr_null(text = metadata("slow", "emad.history"));
	set(PROFILES("ema=constant"));
	push(13, 100, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 100);
	text = metadata("ema", "emad.history");
	ck_assert_str_eq(text, "[{\"step\":12,\"updates\":0,\"change\":\"started\",\"to\":\"ema=constant\"}]");
	free(text);
	accounts_check();
}
END_TEST

START_TEST(several_changes_before_the_next_snapshot_are_one)
{
	averaged();
	set(PROFILES("slow=constant:decay=0.75,form=lerp"));
	set(PROFILES("wide=constant:decay=0.75,precision=f64"));
	accounts_check();
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	fake_host_expect(&host, fake_profile_remove(&host, "net", "slow", 1000), 0);
	set(PROFILES("ema=constant:decay=0.25,form=lerp"));
	accounts_check();
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
	ck_assert_uint_eq(net()->geometry->profile_count, 2);
	accounts_check();
	push(13, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 0.5F);
}
END_TEST

START_TEST(profiles_change_before_there_is_any_version)
{
	fake_trainer_join(&trainer);
	set(PROFILES("slow=constant:decay=0.75,form=lerp"));
	accounts_check();
	push(10, 16, "started");
	push(11, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 12);
	ck_assert_ptr_null(metadata("slow", "emad.history"));
}
END_TEST

START_TEST(a_start_at_zero_that_is_added_is_debiased_from_its_own_first_call)
{
	averaged();
	set(PROFILES("adam=optax:decay=0.5"));
	push(12, 6, "applied");
	push(13, 6, "applied");
	push(14, 6, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "adam"), 6);
}
END_TEST

START_TEST(a_refused_snapshot_leaves_everything_where_it_was)
{
	averaged();
	set(PROFILES("slow=constant:decay=0.75,form=lerp"));
	push(12, 0.0F / 0.0F, "nonfinite");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	fake_host_expect(&host, fake_view(&host, 901, "net", "slow", 0, 0), STATUS_ENOPROFILE);
	push(13, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 0);
}
END_TEST

/* ---- readers ----------------------------------------------------------------------------------------------------- */

START_TEST(who_reads_an_earlier_version_may_read_on)
{
	const struct fake_reply *view;
	const struct slot_header *slot;
	const float *before;
	uint64_t fence;

	averaged();
	view = fake_host_expect(&host, fake_view(&host, 51, "net", "ema", 0, 0), 0);
	slot = (const void *)fake_host_map(&host, view->fd);
	before = (const void *)fake_tensor(&host, view, "w");
	fence = view->reply.fence;
	set(PROFILES("slow=constant:decay=0.75"));
	for (uint64_t step = 12; step < 20; step++)
		push(step, 0, "applied");
	ck_assert_uint_eq(slot->fence, fence);
	ck_assert_float_eq(before[0], 8);
	fake_host_gone(&host, 51);
	/* Nothing of the old slots is left in the daemon. */
	ck_assert_uint_eq(host.kept_count, 3);
	accounts_check();
}
END_TEST

START_TEST(a_view_waits_for_a_profile_that_is_on_its_way)
{
	const struct fake_reply *answer;
	uint64_t waiting, late;

	averaged();
	set(PROFILES("slow=constant:decay=0.75"));
	says(fake_host_expect(&host, fake_view(&host, 51, "net", "slow", 0, 0), STATUS_ENOPROFILE)->error, "'slow'");
	waiting = fake_view(&host, 52, "net", "slow", 1, 5000);
	late = fake_view(&host, 53, "net", "slow", 1, 100);
	ck_assert_ptr_null(fake_host_answer(&host, waiting));
	fake_host_wait(&host, 200);
	fake_host_expect(&host, late, STATUS_ENOPROFILE);
	push(12, 4, "applied");
	answer = fake_host_expect(&host, waiting, 0);
	ck_assert_uint_eq(answer->reply.step, 12);
	ck_assert_uint_eq(answer->reply.profile_index, 1);
	fake_host_gone(&host, 52);
}
END_TEST

/* ---- while pushes go on ------------------------------------------------------------------------------------------ */

/* Pushes into every stage that is free, so that an update always runs. */
static void stages_fill(uint64_t *step)
{
	int32_t stage;

	while ((stage = intake_free_stage(&net()->records[0], net()->stage_count)) >= 0) {
		fake_trainer_fill(&trainer, (uint32_t)stage, 8);
		fake_trainer_push(&trainer, (*step)++, (uint32_t)stage, false);
	}
}

START_TEST(a_trainer_that_never_pauses_does_not_hold_a_change_back)
{
	uint64_t step = 12, number, updates;
	const char *const *wanted[] = {
		PROFILES("slow=constant:decay=0.75"),
		PROFILES("ema=constant:decay=0.25"),
		PROFILES("ema=constant:decay=0.25;copy=w"),
	};

	averaged();
	host.prompt = false;
	stages_fill(&step);
	number = fake_profiles_set(&host, "net", wanted[_i], 60000);
	for (updates = 0; updates < 3 && !fake_host_answer(&host, number); updates++) {
		ck_assert_uint_gt(host.apply_count, 0);
		fake_host_apply(&host);
		if (host.order_count > 0)
			fake_host_make(&host);
		stages_fill(&step);
	}
	fake_host_expect(&host, number, 0);
	host.prompt = true;
	fake_host_settle(&host);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 8);
	ck_assert_uint_eq(counters()->pushes_applied, step - 10);
	accounts_check();
}
END_TEST

START_TEST(changes_that_are_asked_for_at_once_are_all_made)
{
	uint64_t numbers[4];

	trainer.profiles[1] = "slow=constant";
	trainer.profile_count = 2;
	averaged();
	host.prompt = false;
	numbers[0] = fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 60000);
	numbers[1] = fake_profiles_set(&host, "net", PROFILES("b=constant:decay=0.125"), 60000);
	numbers[2] = fake_profile_remove(&host, "net", "slow", 60000);
	numbers[3] = fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.75"), 60000);
	ck_assert_uint_eq(host.order_count, 1);
	host.prompt = true;
	fake_host_settle(&host);
	for (int i = 0; i < 4; i++)
		fake_host_expect(&host, numbers[i], 0);
	ck_assert_uint_eq(net()->geometry->profile_count, 3);
	ck_assert_str_eq(net()->geometry->profiles[0].name, "ema");
	ck_assert_str_eq(net()->geometry->profiles[1].name, "a");
	ck_assert_double_eq(net()->geometry->profiles[1].schedule.values[0], 0.75);
	ck_assert_str_eq(net()->geometry->profiles[2].name, "b");
	push(12, 4, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "b"), 4);
	accounts_check();
}
END_TEST

START_TEST(a_model_that_is_removed_meanwhile_is_gone)
{
	uint64_t number;

	averaged();
	host.prompt = false;
	number = fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 60000);
	fake_query(&host, OP_REMOVE, "net");
	fake_host_expect(&host, number, STATUS_ENOMODEL);
	fake_host_settle(&host);
	ck_assert_uint_eq(host.segment_count, 0);
}
END_TEST

START_TEST(who_gives_up_waiting_leaves_the_change_to_be_made)
{
	uint64_t number;

	averaged();
	host.prompt = false;
	number = fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 100);
	fake_host_wait(&host, 200);
	fake_host_expect(&host, number, STATUS_ETIMEOUT);
	host.prompt = true;
	fake_host_settle(&host);
	push(12, 4, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "a"), 4);
	/* A registration with the profiles of before takes it as it is. */
	fake_trainer_join(&trainer);
	push(13, 4, "applied");
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

START_TEST(memory_that_is_not_there_is_refused_with_both_numbers)
{
	uint64_t bytes, needed;
	char both[200];

	averaged();
	bytes = service_memory_bytes(host.service);
	host.service->settings.memory_bytes_max = bytes + 4096;
	/* Twice as many profiles over the same facts, notes (two pages) and description, and the old slots meanwhile. */
	needed = bytes + 3 * (net()->geometry->slot_bytes * 2 - 4 * LAYOUT_PAGE_BYTES);
	snprintf(both, sizeof both, "model 'net' needs %lu bytes", (unsigned long)needed);
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 1000),
	                      STATUS_EMEMORY)
	             ->error,
	     both);
	snprintf(both, sizeof both, "but %lu of %lu (memory-max) are left", (unsigned long)bytes + 4096,
	         (unsigned long)bytes + 4096);
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 1000),
	                      STATUS_EMEMORY)
	             ->error,
	     both);
	ck_assert_uint_eq(service_memory_bytes(host.service), bytes);
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
	host.service->settings.memory_bytes_max = needed;
	set(PROFILES("a=constant:decay=0.25"));
}
END_TEST

START_TEST(memory_that_cannot_be_made_leaves_everything_as_it_was)
{
	uint64_t bytes, segments;

	averaged();
	bytes = service_memory_bytes(host.service);
	segments = host.segment_count;
	host.memory_status = STATUS_EMEMORY;
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 1000),
	                      STATUS_EMEMORY)
	             ->error,
	     "9 bytes are needed and 3 are available");
	ck_assert_uint_eq(service_memory_bytes(host.service), bytes);
	ck_assert_uint_eq(host.segment_count, segments);
	ck_assert(!net()->managed);
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
	host.memory_status = 0;
	set(PROFILES("a=constant:decay=0.25"));
	push(13, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
	accounts_check();
}
END_TEST

START_TEST(a_registration_that_waits_for_something_else_hears_nothing_of_it)
{
	uint64_t number, other;
	struct fake_trainer second;

	averaged();
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 0);
	fake_trainer_push(&trainer, 12, 0, false);
	fake_trainer_init(&second, &host, "net", fake_manifest(0, 1));
	second.profiles[0] = trainer.profiles[0];
	other = fake_trainer_register(&second);
	ck_assert_ptr_null(fake_host_answer(&host, other));
	number = fake_profiles_set(&host, "net", PROFILES("a=constant:decay=0.25"), 1000);
	host.memory_status = STATUS_EMEMORY;
	fake_host_make(&host);
	fake_host_expect(&host, number, STATUS_EMEMORY);
	ck_assert_ptr_null(fake_host_answer(&host, other));
	host.memory_status = 0;
	fake_host_settle(&host);
	fake_host_expect(&host, other, 0);
	fake_trainer_finish(&second);
}
END_TEST

/* ---- requests ---------------------------------------------------------------------------------------------------- */

START_TEST(mistakes_are_refused)
{
	const char *many[PROFILE_COUNT_MAX + 1] = { NULL };
	char texts[PROFILE_COUNT_MAX][24];

	averaged();
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("a=yoloo"), 1000), STATUS_ESCHEDULE)
	             ->error,
	     "yolo");
	fake_host_expect(&host, fake_profiles_set(&host, "nett", PROFILES("a=yolo"), 1000), STATUS_ENOMODEL);
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES("a=yolo", "a=timm"), 1000),
	                      STATUS_EPROFILE)
	             ->error,
	     "two profiles have the name 'a'");
	fake_host_expect(&host, fake_profiles_set(&host, "net", PROFILES(NULL), 1000), STATUS_EPROFILE);
	fake_host_expect(&host, fake_profile_remove(&host, "net", "a/b", 1000), STATUS_ENAME);
	for (int i = 0; i < PROFILE_COUNT_MAX; i++) {
		snprintf(texts[i], sizeof texts[i], "p%d=yolo", i);
		many[i] = texts[i];
	}
	says(fake_host_expect(&host, fake_profiles_set(&host, "net", many, 1000), STATUS_ELIMIT)->error,
	     "more than 16 profiles");
	many[PROFILE_COUNT_MAX - 1] = NULL;
	set(many);
	push(12, 4, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "p14"), 4);
	ck_assert_uint_eq(net()->geometry->profile_count, 16);
}
END_TEST

START_TEST(what_there_is_already_is_done)
{
	averaged();
	set(PROFILES(trainer.profiles[0]));
	ck_assert_uint_eq(host.kept_count, 0);
	ck_assert_ptr_null(metadata("ema", "emad.history"));
}
END_TEST

START_TEST(a_registration_takes_changed_profiles_as_they_are)
{
	const struct fake_reply *answer;

	averaged();
	set(PROFILES("ema=constant:decay=0.75,form=lerp", "slow=constant:decay=0.875"));
	answer = fake_host_expect(&host, fake_trainer_register(&trainer), 0);
	ck_assert(answer->reply.resumed);
	says(answer->report, "slow: 1 averaged");
	fake_trainer_registered(&trainer, host.request_count);
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 6);
	/* Unless the trainer insists. */
	trainer.resume = "adapt";
	fake_trainer_join(&trainer);
	push(13, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 3);
	ck_assert_uint_eq(net()->geometry->profile_count, 1);
}
END_TEST

START_TEST(other_profiles_are_refused_where_nobody_asked_for_a_change)
{
	averaged();
	trainer.profiles[0] = "ema=constant:decay=0.75,form=lerp";
	says(fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EPROFILE)->error, "resume=adapt");
	trainer.resume = "adapt";
	fake_trainer_join(&trainer);
	push(12, 0, "applied");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 6);
}
END_TEST

START_TEST(an_average_for_a_profile_that_was_removed_meanwhile_is_refused)
{
	const struct fake_push seed = { .step = 12, .stage = 1, .waits = true, .profile = "slow", .updates = 5 };
	const struct fake_reply *answer;
	uint64_t number, removal;

	trainer.profiles[1] = "slow=constant:decay=0.75,form=lerp";
	trainer.profile_count = 2;
	averaged();
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 0);
	fake_trainer_push(&trainer, 12, 0, false);
	fake_trainer_fill(&trainer, 1, 100);
	number = fake_trainer_push_with(&trainer, &seed);
	removal = fake_profile_remove(&host, "net", "slow", 1000);
	fake_host_make(&host);
	host.prompt = true;
	fake_host_settle(&host);
	fake_host_expect(&host, removal, 0);
	answer = fake_host_expect(&host, number, 0);
	ck_assert_str_eq(answer->outcome, "incomplete");
	says(answer->refusal, "the average of a profile that was removed meanwhile");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_profiles");
	TCase *averages = tcase_create("averages"), *meanwhile = tcase_create("meanwhile"),
	      *requests = tcase_create("requests");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(averages, setup, teardown);
	tcase_add_test(averages, a_profile_that_is_added_starts_with_the_next_snapshot);
	tcase_add_test(averages, a_schedule_changes_without_other_memory);
	tcase_add_test(averages, a_shadow_changes_its_precision_and_goes_on);
	tcase_add_test(averages, a_tensor_is_copied_frozen_dropped_and_averaged_again);
	tcase_add_test(averages, a_profile_that_would_hold_nothing_is_refused);
	tcase_add_test(averages, a_profile_is_removed_and_the_others_go_on);
	tcase_add_test(averages, several_changes_before_the_next_snapshot_are_one);
	tcase_add_test(averages, profiles_change_before_there_is_any_version);
	tcase_add_test(averages, a_start_at_zero_that_is_added_is_debiased_from_its_own_first_call);
	tcase_add_test(averages, a_refused_snapshot_leaves_everything_where_it_was);
	suite_add_tcase(suite, averages);
	tcase_add_checked_fixture(meanwhile, setup, teardown);
	tcase_add_test(meanwhile, who_reads_an_earlier_version_may_read_on);
	tcase_add_test(meanwhile, a_view_waits_for_a_profile_that_is_on_its_way);
	tcase_add_loop_test(meanwhile, a_trainer_that_never_pauses_does_not_hold_a_change_back, 0, 3);
	tcase_add_test(meanwhile, changes_that_are_asked_for_at_once_are_all_made);
	tcase_add_test(meanwhile, a_model_that_is_removed_meanwhile_is_gone);
	tcase_add_test(meanwhile, who_gives_up_waiting_leaves_the_change_to_be_made);
	tcase_add_test(meanwhile, memory_that_is_not_there_is_refused_with_both_numbers);
	tcase_add_test(meanwhile, memory_that_cannot_be_made_leaves_everything_as_it_was);
	tcase_add_test(meanwhile, a_registration_that_waits_for_something_else_hears_nothing_of_it);
	suite_add_tcase(suite, meanwhile);
	tcase_add_checked_fixture(requests, setup, teardown);
	tcase_add_test(requests, mistakes_are_refused);
	tcase_add_test(requests, what_there_is_already_is_done);
	tcase_add_test(requests, a_registration_takes_changed_profiles_as_they_are);
	tcase_add_test(requests, other_profiles_are_refused_where_nobody_asked_for_a_change);
	tcase_add_test(requests, an_average_for_a_profile_that_was_removed_meanwhile_is_refused);
	suite_add_tcase(suite, requests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
