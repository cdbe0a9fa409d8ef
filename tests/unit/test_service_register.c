/*
 * The service through a host of its own: who may push into which model, alone and with other ranks.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;

static void setup(void)
{
	fake_host_init(&host);
	fake_host_start(&host);
}

static void teardown(void)
{
	fake_host_finish(&host);
}

/* A trainer of the model "net" that holds the whole of it, or its share. */
static struct fake_trainer trainer_of(uint32_t rank, uint32_t world)
{
	struct fake_trainer trainer;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(rank, world));
	trainer.rank = rank;
	trainer.world = world;
	return trainer;
}

/* Pushes a value and asserts the outcome. */
static const struct fake_reply *push(struct fake_trainer *trainer, uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer;

	fake_trainer_fill(trainer, 0, value);
	answer = fake_host_expect(&host, fake_trainer_push(trainer, step, 0, true), 0);
	ck_assert_str_eq(answer->outcome, outcome);
	ck_assert_uint_eq(answer->reply.step, step);
	return answer;
}

/* The n-th update of the schedule "yolo" by its own loop. */
static float yolo(float shadow, float value, int n)
{
	double decay = 0.9999 * (1 - exp(-n / 2000.0));
	float kept = shadow * (float)decay;

	return kept + (float)(1 - decay) * value;
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

/* ---- registering ------------------------------------------------------------------------------------------------- */

START_TEST(a_registration_says_what_it_found)
{
	struct fake_trainer trainer = trainer_of(0, 1), again = trainer_of(0, 1);
	const struct fake_reply *answer;

	answer = fake_host_expect(&host, fake_trainer_register(&trainer), 0);
	ck_assert(!answer->reply.resumed);
	ck_assert_uint_eq(answer->reply.stage_count, 2);
	ck_assert_str_eq(answer->report, "ema: 1 averaged");
	fake_trainer_registered(&trainer, host.request_count);
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	push(&trainer, 41, 1, "started");
	push(&trainer, 42, 1, "applied");
	answer = fake_host_expect(&host, fake_trainer_register(&again), 0);
	ck_assert(answer->reply.resumed);
	ck_assert_uint_eq(answer->reply.last_step, 42);
	ck_assert_uint_eq(answer->reply.updates, 1);
	ck_assert_uint_eq(answer->reply.version, 2);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&again);
}
END_TEST

START_TEST(a_repeated_registration_gets_the_same_epoch)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	uint64_t first;

	fake_trainer_join(&trainer);
	first = trainer.epoch;
	trainer.sequence--;
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_register(&trainer), 0)->reply.epoch, first);
	/* Its stages were not taken away. */
	push(&trainer, 5, 1, "started");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(the_newest_of_two_trainers_holds_the_rank)
{
	struct fake_trainer older = trainer_of(0, 1), newer = trainer_of(0, 1);
	struct fake_trainer *both[] = { &older, &newer };

	fake_trainer_join(&older);
	push(&older, 5, 1, "started");
	fake_trainer_join(&newer);
	ck_assert_uint_gt(newer.epoch, older.epoch);
	fake_host_expect(&host, fake_trainer_push(&older, 6, 0, false), STATUS_EFENCED);
	fake_host_expect(&host, fake_trainer_attach(&older), STATUS_EFENCED);
	fake_host_expect(&host, fake_trainer_reserve(&older, 0), STATUS_EFENCED);
	fake_host_expect(&host, fake_trainer_flush(&older, 0), STATUS_EFENCED);
	push(&newer, 6, 2, "applied");
	/* The older connection's end takes nothing from the newer. */
	fake_host_gone(&host, older.peer);
	push(&newer, 7, 2, "applied");
	for (int i = 0; i < 2; i++)
		fake_trainer_finish(both[i]);
}
END_TEST

START_TEST(resume_says_whether_a_model_is_continued)
{
	struct fake_trainer first = trainer_of(0, 1), second = trainer_of(0, 1), third = trainer_of(0, 1);
	const struct fake_reply *answer;

	first.resume = "must";
	answer = fake_host_expect(&host, fake_trainer_register(&first), STATUS_ENOMODEL);
	ck_assert_msg(strstr(answer->error, "'net'") != NULL, "%s", answer->error);
	ck_assert_uint_eq(host.segment_count, 0);
	first.resume = "auto";
	fake_trainer_join(&first);
	push(&first, 50, 1, "started");
	second.resume = "must";
	fake_trainer_join(&second);
	push(&second, 51, 1, "applied");
	third.resume = "never";
	answer = fake_host_expect(&host, fake_trainer_register(&third), 0);
	ck_assert(!answer->reply.resumed);
	/* A repeat of it replaces nothing. */
	fake_trainer_registered(&third, host.request_count);
	third.sequence--;
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_register(&third), 0)->reply.epoch, third.epoch);
	fake_trainer_attached(&third, fake_trainer_attach(&third));
	push(&third, 3, 9, "started");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 9);
	ck_assert_uint_ne(fake_host_expect(&host, fake_trainer_push(&second, 52, 0, false), STATUS_EFENCED)->number, 0);
	fake_trainer_finish(&first);
	fake_trainer_finish(&second);
	fake_trainer_finish(&third);
}
END_TEST

START_TEST(a_replacement_that_cannot_be_had_leaves_the_model_alone)
{
	static const struct tensor_row large = { "w", DTYPE_F32, false, { 1 << 28, UINT64_MAX } };
	struct fake_trainer trainer = trainer_of(0, 1), other;
	uint64_t bytes;

	fake_trainer_join(&trainer);
	push(&trainer, 5, 3, "started");
	bytes = host.segment_bytes;
	fake_trainer_init(&other, &host, "net", manifest_of_rows(&large, 1));
	other.resume = "never";
	fake_host_expect(&host, fake_trainer_register(&other), STATUS_EMEMORY);
	ck_assert_uint_eq(host.segment_bytes, bytes);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 3);
	push(&trainer, 6, 3, "applied");
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(a_model_may_be_replaced_by_one_that_needs_its_room)
{
	struct fake_trainer trainer = trainer_of(0, 1), other = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	push(&trainer, 5, 3, "started");
	service_destroy(host.service);
	host.settings.model_count_max = 1;
	unpacked_destroy(host.unpacked);
	fake_host_start(&host);
	trainer.epoch = 0;
	fake_trainer_join(&trainer);
	other.resume = "never";
	fake_trainer_join(&other);
	push(&other, 1, 4, "started");
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(the_first_difference_is_named)
{
	static const struct tensor_row other_shape = { "w", DTYPE_F32, false, SHAPE(12, 3) };
	static const struct tensor_row other_name = { "v", DTYPE_F32, false, SHAPE(12, 2) };
	struct fake_trainer trainer = trainer_of(0, 1), shape, name, profile = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	fake_trainer_init(&shape, &host, "net", manifest_of_rows(&other_shape, 1));
	answer = fake_host_expect(&host, fake_trainer_register(&shape), STATUS_EMANIFEST);
	ck_assert_msg(strstr(answer->error, "[12,3]") && strstr(answer->error, "[12,2]"), "%s", answer->error);
	fake_trainer_init(&name, &host, "net", manifest_of_rows(&other_name, 1));
	answer = fake_host_expect(&host, fake_trainer_register(&name), STATUS_EMANIFEST);
	ck_assert_msg(strstr(answer->error, "'v'") && strstr(answer->error, "'w'"), "%s", answer->error);
	profile.profiles[0] = "ema=yolo:decay=0.99";
	answer = fake_host_expect(&host, fake_trainer_register(&profile), STATUS_EPROFILE);
	ck_assert_msg(strstr(answer->error, "0.99") != NULL, "%s", answer->error);
	/* None of them took the rank. */
	push(&trainer, 6, 1, "applied");
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&shape);
	fake_trainer_finish(&name);
	fake_trainer_finish(&profile);
}
END_TEST

struct bad_wish {
	uint32_t rank, world;
	const char *resume, *profile;
	int status;
	const char *part;
};

static const struct bad_wish bad_wishes[] = {
	{ 0, 0, NULL, "ema=yolo", STATUS_ELIMIT, "world is 0, and must be 1 to 1024" },
	{ 0, 1025, NULL, "ema=yolo", STATUS_ELIMIT, "world is 1025" },
	{ 1, 1, NULL, "ema=yolo", STATUS_EARGUMENT, "rank 1 is not below world 1" },
	{ 0, 1, "maybe", "ema=yolo", STATUS_EARGUMENT, "auto, adapt, never or must" },
	{ 0, 1, NULL, "yolo", STATUS_EPROFILE, "" },
	{ 0, 1, NULL, "ema=yoloo", STATUS_ESCHEDULE, "yolo" },
	{ 0, 1, NULL, "e/ma=yolo", STATUS_ENAME, "" },
};

START_TEST(a_registration_that_makes_no_sense_is_refused)
{
	const struct bad_wish *bad = &bad_wishes[_i];
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;
	uint64_t number;

	trainer.rank = bad->rank;
	trainer.world = bad->world;
	trainer.resume = bad->resume;
	trainer.profiles[0] = bad->profile;
	number = fake_trainer_register(&trainer);
	answer = fake_host_answer(&host, number);
	ck_assert_ptr_nonnull(answer);
	ck_assert_int_lt(answer->reply.status, 0);
	if (bad->status != STATUS_EPROFILE)
		fake_host_expect(&host, number, bad->status);
	ck_assert_msg(strstr(answer->error, bad->part) != NULL, "%s", answer->error);
	ck_assert_uint_eq(host.segment_count, 0);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(profiles_must_have_names_of_their_own)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	trainer.profiles[1] = "ema=constant";
	trainer.profile_count = 2;
	fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EPROFILE);
	trainer.profile_count = 0;
	fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EPROFILE);
	trainer.client = 0;
	trainer.profile_count = 1;
	fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EARGUMENT);
	fake_trainer_finish(&trainer);
}
END_TEST

/* Rank 1000 of 1024 of a model that has one rank: the ranks that the model has are all there are to look at. */
START_TEST(another_world_is_refused_whatever_the_rank)
{
	static const char *const resumes[] = { "auto", "must", "never" };
	struct fake_trainer trainer = trainer_of(0, 1), other = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	other.rank = 1000;
	other.world = 1024;
	for (int started = 0; started < 2; started++) {
		for (int i = 0; i < 2; i++) {
			other.resume = resumes[i];
			answer = fake_host_expect(&host, fake_trainer_register(&other), STATUS_EMANIFEST);
			ck_assert_msg(strstr(answer->error, "1024 here and 1 in") != NULL, "%s", answer->error);
		}
		push(&trainer, 5 + (uint64_t)started, 1, started ? "applied" : "started");
	}
	other.resume = "never";
	fake_host_expect(&host, fake_trainer_register(&other), 0);
	fake_host_expect(&host, fake_trainer_push(&trainer, 9, 0, false), STATUS_ENOMODEL);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(a_rank_that_is_not_there_is_refused_everywhere)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	trainer.rank = 1;
	fake_host_expect(&host, fake_trainer_push(&trainer, 9, 0, false), STATUS_EARGUMENT);
	fake_host_expect(&host, fake_trainer_attach(&trainer), STATUS_EARGUMENT);
	fake_host_expect(&host, fake_trainer_reserve(&trainer, 0), STATUS_EARGUMENT);
	fake_host_expect(&host, fake_trainer_flush(&trainer, 0), STATUS_EARGUMENT);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(descriptors_are_passed_on_the_attach_socket_only)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	trainer.peer = 5000;
	answer = fake_host_expect(&host, fake_trainer_attach(&trainer), STATUS_EARGUMENT);
	ck_assert_msg(strstr(answer->error, "attach.sock") != NULL, "%s", answer->error);
	fake_host_expect(&host, fake_view(&host, 5000, "net", NULL, 0, 0), STATUS_EARGUMENT);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_push_needs_stages_and_a_sequence_number)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_registered(&trainer, fake_trainer_register(&trainer));
	answer = fake_host_expect(&host, fake_trainer_push(&trainer, 9, 0, false), STATUS_EARGUMENT);
	ck_assert_msg(strstr(answer->error, "no stages yet") != NULL, "%s", answer->error);
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	fake_host_expect(&host, fake_trainer_push(&trainer, 9, 2, false), STATUS_EARGUMENT);
	trainer.sequence = UINT64_MAX;
	fake_host_expect(&host, fake_trainer_push(&trainer, 9, 0, false), STATUS_EARGUMENT);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_trainer_that_comes_back_finds_its_registration)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	uint64_t count;

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	count = host.segment_count;
	fake_host_gone(&host, trainer.peer);
	ck_assert_uint_eq(host.segment_count, count - 1); /* its stages */
	fake_host_expect(&host, fake_trainer_push(&trainer, 6, 0, false), STATUS_EARGUMENT);
	trainer.peer = 77;
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	ck_assert_uint_eq(host.segment_count, count);
	push(&trainer, 6, 1, "applied");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(what_was_accepted_is_averaged_although_its_trainer_has_gone)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 2);
	fake_trainer_fill(&trainer, 1, 3);
	fake_trainer_push(&trainer, 6, 0, false);
	fake_trainer_push(&trainer, 7, 1, false);
	fake_host_gone(&host, trainer.peer);
	fake_host_settle(&host);
	ck_assert_float_eq(fake_average(&host, "net", NULL), yolo(yolo(1, 2, 1), 3, 2));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_new_registration_waits_for_what_the_old_one_had_accepted)
{
	struct fake_trainer older = trainer_of(0, 1), newer = trainer_of(0, 1);
	const struct fake_reply *answer;
	uint64_t number;

	fake_trainer_join(&older);
	push(&older, 5, 1, "started");
	host.prompt = false;
	fake_trainer_fill(&older, 0, 2);
	fake_trainer_fill(&older, 1, 3);
	fake_trainer_push(&older, 6, 0, false);
	fake_trainer_push(&older, 7, 1, false);
	number = fake_trainer_register(&newer);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	/* From now on the old one is not listened to. */
	fake_host_expect(&host, fake_trainer_push(&older, 8, 0, false), STATUS_EFENCED);
	fake_host_apply(&host);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_apply(&host);
	answer = fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(answer->reply.last_step, 7);
	host.prompt = true;
	ck_assert_float_eq(fake_average(&host, "net", NULL), yolo(yolo(1, 2, 1), 3, 2));
	fake_trainer_registered(&newer, number);
	fake_trainer_attached(&newer, fake_trainer_attach(&newer));
	push(&newer, 8, 3, "applied");
	fake_trainer_finish(&older);
	fake_trainer_finish(&newer);
}
END_TEST

/* ---- several ranks ----------------------------------------------------------------------------------------------- */

START_TEST(several_ranks_make_one_average)
{
	struct fake_trainer ranks[4];
	uint32_t world = (uint32_t)_i;
	float average = 5;
	uint64_t number = 0;

	for (uint32_t r = 0; r < world; r++) {
		ranks[r] = trainer_of(r, world);
		fake_trainer_join(&ranks[r]);
	}
	for (uint64_t step = 1; step < 20; step++) {
		float value = step == 1 ? 5 : (float)(step % 5);
		const struct fake_reply *answer;

		for (uint32_t i = 0; i < world; i++) {
			struct fake_trainer *rank = &ranks[(i + step) % world];

			ck_assert_uint_eq(counters()->versions_published, step - 1);
			fake_trainer_fill(rank, 0, value);
			number = fake_trainer_push(rank, step, 0, true);
		}
		answer = fake_host_expect(&host, number, 0);
		ck_assert_str_eq(answer->outcome, step == 1 ? "started" : "applied");
		if (step > 1)
			average = yolo(average, value, (int)step - 1);
		ck_assert_float_eq(fake_average(&host, "net", NULL), average);
	}
	for (uint32_t r = 0; r < world; r++)
		fake_trainer_finish(&ranks[r]);
}
END_TEST

START_TEST(a_step_that_one_rank_left_out_is_dropped)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) };
	const struct fake_reply *answer;
	uint64_t number;

	for (int r = 0; r < 2; r++)
		fake_trainer_join(&ranks[r]);
	fake_trainer_fill(&ranks[0], 0, 1);
	number = fake_trainer_push(&ranks[0], 1, 0, true);
	fake_trainer_fill(&ranks[0], 1, 2);
	fake_trainer_push(&ranks[0], 2, 1, false);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_trainer_fill(&ranks[1], 0, 2);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push(&ranks[1], 2, 0, true), 0)->outcome, "started");
	answer = fake_host_expect(&host, number, 0);
	ck_assert_str_eq(answer->outcome, "incomplete");
	ck_assert_str_eq(answer->refusal,
	                 "step 1 of rank 0 was dropped: another rank has gone on to step 2 without it");
	ck_assert_float_eq(fake_average(&host, "net", NULL), 2);
	ck_assert_uint_eq(counters()->pushes_incomplete, 1);
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
}
END_TEST

START_TEST(a_bad_value_of_one_rank_refuses_the_step_of_all)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) };
	uint64_t numbers[2];

	for (int r = 0; r < 2; r++)
		fake_trainer_join(&ranks[r]);
	for (int r = 0; r < 2; r++) {
		fake_trainer_fill(&ranks[r], 0, r ? NAN : 1);
		numbers[r] = fake_trainer_push(&ranks[r], 1, 0, true);
	}
	for (int r = 0; r < 2; r++) {
		const struct fake_reply *answer = fake_host_expect(&host, numbers[r], 0);

		ck_assert_str_eq(answer->outcome, "nonfinite");
		ck_assert_msg(strstr(answer->refusal, "12 NaN or infinite values") != NULL, "%s", answer->refusal);
	}
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
}
END_TEST

START_TEST(pieces_that_do_not_tile_are_refused_and_change_nothing)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) }, bad;
	const struct fake_reply *answer;

	/* As the second of two ranks, with the first one's rows. */
	fake_trainer_init(&bad, &host, "net", fake_manifest(0, 2));
	bad.rank = 1;
	bad.world = 2;
	fake_trainer_join(&ranks[0]);
	answer = fake_host_expect(&host, fake_trainer_register(&bad), STATUS_EMANIFEST);
	ck_assert_msg(strstr(answer->error, "'w'") != NULL, "%s", answer->error);
	fake_trainer_join(&ranks[1]);
	fake_host_expect(&host, fake_trainer_register(&bad), STATUS_EMANIFEST);
	for (int r = 0; r < 2; r++) {
		fake_trainer_fill(&ranks[r], 0, 4);
		fake_host_expect(&host, fake_trainer_push(&ranks[r], 1, 0, false), 0);
	}
	ck_assert_float_eq(fake_average(&host, "net", NULL), 4);
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
	fake_trainer_finish(&bad);
}
END_TEST

START_TEST(a_rank_that_starts_anew_drops_what_it_had_pushed_alone)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) }, again = trainer_of(0, 2);

	for (int r = 0; r < 2; r++)
		fake_trainer_join(&ranks[r]);
	fake_trainer_fill(&ranks[0], 0, 1);
	fake_trainer_push(&ranks[0], 1, 0, false);
	fake_trainer_join(&again);
	ck_assert_uint_eq(counters()->pushes_incomplete, 1);
	fake_trainer_fill(&ranks[1], 0, 7);
	fake_trainer_push(&ranks[1], 1, 0, false);
	ck_assert_uint_eq(counters()->versions_published, 0);
	fake_trainer_fill(&again, 0, 7);
	fake_trainer_push(&again, 1, 0, false);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 7);
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
	fake_trainer_finish(&again);
}
END_TEST

START_TEST(ranks_that_all_ask_for_a_new_model_get_one)
{
	struct fake_trainer ranks[2], others[2];
	uint64_t numbers[2];

	for (uint32_t r = 0; r < 2; r++) {
		ranks[r] = trainer_of(r, 2);
		fake_trainer_join(&ranks[r]);
	}
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_fill(&ranks[r], 0, 1);
		fake_trainer_push(&ranks[r], 1, 0, false);
	}
	host.prompt = false;
	for (uint32_t r = 0; r < 2; r++) {
		others[r] = trainer_of(r, 2);
		others[r].resume = "never";
		numbers[r] = fake_trainer_register(&others[r]);
	}
	host.prompt = true;
	fake_host_settle(&host);
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_registered(&others[r], numbers[r]);
		fake_trainer_attached(&others[r], fake_trainer_attach(&others[r]));
	}
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_fill(&others[r], 0, 6);
		fake_trainer_push(&others[r], 1, 0, false);
	}
	ck_assert_float_eq(fake_average(&host, "net", NULL), 6);
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_finish(&ranks[r]);
		fake_trainer_finish(&others[r]);
	}
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static TCase *register_tests(void)
{
	TCase *tcase = tcase_create("register");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_registration_says_what_it_found);
	tcase_add_test(tcase, a_repeated_registration_gets_the_same_epoch);
	tcase_add_test(tcase, the_newest_of_two_trainers_holds_the_rank);
	tcase_add_test(tcase, resume_says_whether_a_model_is_continued);
	tcase_add_test(tcase, a_replacement_that_cannot_be_had_leaves_the_model_alone);
	tcase_add_test(tcase, a_model_may_be_replaced_by_one_that_needs_its_room);
	tcase_add_test(tcase, the_first_difference_is_named);
	tcase_add_loop_test(tcase, a_registration_that_makes_no_sense_is_refused, 0, COUNT(bad_wishes));
	tcase_add_test(tcase, profiles_must_have_names_of_their_own);
	tcase_add_test(tcase, another_world_is_refused_whatever_the_rank);
	tcase_add_test(tcase, a_rank_that_is_not_there_is_refused_everywhere);
	tcase_add_test(tcase, descriptors_are_passed_on_the_attach_socket_only);
	tcase_add_test(tcase, a_push_needs_stages_and_a_sequence_number);
	tcase_add_test(tcase, a_trainer_that_comes_back_finds_its_registration);
	tcase_add_test(tcase, what_was_accepted_is_averaged_although_its_trainer_has_gone);
	tcase_add_test(tcase, a_new_registration_waits_for_what_the_old_one_had_accepted);
	return tcase;
}

static TCase *rank_tests(void)
{
	TCase *tcase = tcase_create("ranks");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, several_ranks_make_one_average, 2, 5);
	tcase_add_test(tcase, a_step_that_one_rank_left_out_is_dropped);
	tcase_add_test(tcase, a_bad_value_of_one_rank_refuses_the_step_of_all);
	tcase_add_test(tcase, pieces_that_do_not_tile_are_refused_and_change_nothing);
	tcase_add_test(tcase, a_rank_that_starts_anew_drops_what_it_had_pushed_alone);
	tcase_add_test(tcase, ranks_that_all_ask_for_a_new_model_get_one);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("service_register");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, register_tests());
	suite_add_tcase(suite, rank_tests());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
