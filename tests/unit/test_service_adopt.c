/*
 * A daemon dies, and the next one goes on in its memory: what was acknowledged, what was under way, and what somebody
 * once asked for. Nothing of it was written down for this occasion; all of it is in the segments.
 */
#include "tests/unit/failing_heap.h"
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/book.h"
#include "daemon/core/call.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRAINERS = 4 };

static struct fake_host host;
static struct fake_trainer trainers[TRAINERS];
static uint32_t trainer_count;

static void setup(void)
{
	fake_host_init(&host);
	host.settings.slot_count = 4;
	host.settings.stage_count = 3;
	fake_host_start(&host);
	trainer_count = 0;
}

static void teardown(void)
{
	for (uint32_t i = 0; i < trainer_count; i++)
		fake_trainer_finish(&trainers[i]);
	fake_host_finish(&host);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

static struct model *model_of(const char *name)
{
	return service_find(host.service, name, strlen(name));
}

static struct model *net(void)
{
	return model_of("net");
}

static const struct slot_header *newest(void)
{
	return versions_newest(&net()->versions);
}

/* A trainer of "net" that halves the distance with every step. */
static struct fake_trainer *trainer_make(uint32_t rank, uint32_t world)
{
	struct fake_trainer *trainer = &trainers[trainer_count++];

	ck_assert_uint_le(trainer_count, TRAINERS);
	fake_trainer_init(trainer, &host, "net", fake_manifest(rank, world));
	trainer->rank = rank;
	trainer->world = world;
	trainer->profiles[0] = "ema=constant:decay=0.5";
	return trainer;
}

static struct fake_trainer *trainer_joined(void)
{
	struct fake_trainer *trainer = trainer_make(0, 1);

	fake_trainer_join(trainer);
	return trainer;
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

static uint64_t ask(struct fake_trainer *trainer, uint64_t step, uint32_t stage, float value)
{
	fake_trainer_fill(trainer, stage, value);
	return fake_trainer_push(trainer, step, stage, false);
}

/* An acknowledged push; no update is done where the host is not prompt. */
static void accepted(struct fake_trainer *trainer, uint64_t step, uint32_t stage, float value)
{
	ck_assert_str_eq(fake_host_expect(&host, ask(trainer, step, stage, value), 0)->outcome, "accepted");
}

static void push(struct fake_trainer *trainer, uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer;

	fake_trainer_fill(trainer, 0, value);
	answer = fake_host_expect(&host, fake_trainer_push(trainer, step, 0, true), 0);
	ck_assert_msg(strcmp(answer->outcome, outcome) == 0, "%s, not %s: %s", answer->outcome, outcome, answer->refusal);
}

/* The same request as that of so many sequence numbers ago. */
static const char *again(struct fake_trainer *trainer, uint64_t step, uint32_t stage, uint64_t before)
{
	uint64_t sequence = trainer->sequence;
	const struct fake_reply *answer;

	trainer->sequence -= before + 1;
	answer = fake_host_expect(&host, fake_trainer_push(trainer, step, stage, false), 0);
	trainer->sequence = sequence;
	return answer->outcome;
}

static void holds(const char *profile, float value)
{
	ck_assert_float_eq(fake_average(&host, "net", profile), value);
}

/* Another daemon. Nothing is lost, what there is takes as much memory as before, and nobody complains. */
static void die(void)
{
	uint64_t bytes = service_memory_bytes(host.service), complaints = host.complaint_count;

	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_msg(host.complaint_count == complaints, "%s", host.event);
	ck_assert_uint_eq(counters()->models_abandoned, 0);
	ck_assert_uint_eq(service_memory_bytes(host.service), bytes);
}

/* The same where something was on its way that is not there any more. */
static void die_while_changing(void)
{
	uint64_t complaints = host.complaint_count;

	host.prompt = true;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_msg(host.complaint_count == complaints, "%s", host.event);
	ck_assert_uint_eq(counters()->models_abandoned, 0);
}

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

START_TEST(acknowledged_snapshots_are_averaged_once)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	host.prompt = false;
	accepted(trainer, 11, 0, 8);
	accepted(trainer, 12, 1, 4);
	accepted(trainer, 13, 2, 2);
	die();
	ck_assert_uint_eq(counters()->snapshots_adopted, 3);
	/* The first is under way again, and the daemon dies once more. */
	die();
	ck_assert_str_eq(again(trainer, 13, 2, 0), "accepted");
	ck_assert_str_eq(again(trainer, 11, 0, 2), "accepted");
	fake_host_settle(&host);
	host.prompt = true;
	holds("ema", 5);
	ck_assert_uint_eq(newest()->version, 4);
	ck_assert_uint_eq(newest()->updates, 3);
	die();
	ck_assert_uint_eq(counters()->snapshots_adopted, 0);
	for (uint64_t before = 0; before < 3; before++)
		ck_assert_str_eq(again(trainer, 13 - before, (uint32_t)(2 - before), before), "applied");
	ck_assert_str_eq(fake_host_expect(&host, ask(trainer, 13, 0, 2), 0)->outcome, "duplicate");
	ck_assert_str_eq(fake_host_expect(&host, ask(trainer, 12, 0, 2), 0)->outcome, "stale");
	holds("ema", 5);
	push(trainer, 14, 1, "applied");
	holds("ema", 3);
	ck_assert_uint_eq(newest()->version, 5);
}
END_TEST

START_TEST(a_snapshot_whose_version_was_published_is_settled_and_another_one_is_applied_again)
{
	struct fake_trainer *trainer = trainer_joined();
	struct rank_record *record;
	struct answer_record *at;
	struct answer answer;

	push(trainer, 10, 16, "started");
	push(trainer, 11, 8, "applied");
	/* As it was when the version was there and nothing else was written yet. */
	record = &net()->records[0];
	at = &record->answers[trainer->sequence % ANSWER_COUNT];
	ck_assert(intake_answer(record, trainer->sequence, &answer));
	ck_assert_uint_eq(answer.outcome, OUTCOME_APPLIED);
	seal_set(&at->seal, seal_answer(at, OUTCOME_ACCEPTED));
	at->version = at->calls = 0;
	seal_set(&record->stages[0].seal, seal_stage(&record->stages[0], STAGE_APPLYING));
	ck_assert_uint_eq(record->stages[0].version, 2);
	net()->head->version = 1;
	die();
	ck_assert_uint_eq(newest()->version, 2);
	holds("ema", 12);
	ck_assert_str_eq(again(trainer, 11, 0, 0), "applied");
	ck_assert_uint_eq(net()->records[0].answers[trainer->sequence % ANSWER_COUNT].version, 2);
	ck_assert_uint_eq(net()->records[0].answers[trainer->sequence % ANSWER_COUNT].calls, 1);
	/* Now one that had not come so far. */
	host.prompt = false;
	accepted(trainer, 12, 0, 4);
	ck_assert_uint_eq(stage_state(&net()->records[0].stages[0]), STAGE_APPLYING);
	die_while_changing();
	holds("ema", 8);
	ck_assert_str_eq(again(trainer, 12, 0, 0), "applied");
	ck_assert_uint_eq(newest()->version, 3);
}
END_TEST

START_TEST(metadata_and_averages_of_a_profile_wait_with_their_snapshots)
{
	struct fake_trainer *trainer = trainer_joined();
	const struct fake_push plain = { .step = 11, .stage = 0, .metadata = "{\"epoch\": 3}" };
	const struct fake_push seed = { .step = 12, .stage = 1, .metadata = "{\"from\": \"file\"}", .profile = "ema",
		                        .updates = 77 };
	const struct fake_reply *view;
	char *metadata;

	push(trainer, 10, 16, "started");
	host.prompt = false;
	fake_trainer_fill(trainer, 0, 8);
	fake_host_expect(&host, fake_trainer_push_with(trainer, &plain), 0);
	fake_trainer_fill(trainer, 1, 100);
	fake_host_expect(&host, fake_trainer_push_with(trainer, &seed), 0);
	die();
	fake_host_apply(&host);
	holds("ema", 12);
	view = fake_host_expect(&host, fake_view(&host, 60, "net", NULL, 0, 0), 0);
	metadata = fake_metadata(&host, view, "emad.metadata");
	ck_assert_str_eq(metadata, "{\"epoch\":3}");
	free(metadata);
	die();
	/* Also that of a version which is there. */
	ck_assert_str_eq(net()->metadata, "{\"epoch\":3}");
	fake_host_settle(&host);
	host.prompt = true;
	holds("ema", 100);
	ck_assert_uint_eq(newest()->updates, 77);
	ck_assert_str_eq(net()->metadata, "{\"from\":\"file\"}");
}
END_TEST

START_TEST(sixteen_answers_are_remembered)
{
	struct fake_trainer *trainer = trainer_joined();
	const double loss = 20;
	const struct fake_push lost = { .step = 40, .loss = &loss };

	trainer->guards = "loss_max=9";
	fake_trainer_join(trainer);
	for (uint64_t step = 1; step <= 19; step++)
		push(trainer, step, 4, step == 1 ? "started" : "applied");
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push_with(trainer, &lost), 0)->outcome, "loss");
	die();
	ck_assert_str_eq(again(trainer, 40, 0, 0), "loss");
	for (uint64_t before = 1; before < ANSWER_COUNT; before++)
		ck_assert_str_eq(again(trainer, 20 - before, 0, before), "applied");
	ck_assert_str_eq(again(trainer, 20 - ANSWER_COUNT, 0, ANSWER_COUNT), "stale");
	ck_assert_uint_eq(newest()->version, 19);
}
END_TEST

START_TEST(bad_values_are_refused_by_the_next_daemon)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	host.prompt = false;
	accepted(trainer, 11, 0, NAN);
	accepted(trainer, 12, 1, 8);
	host.prompt = true;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_uint_eq(counters()->pushes_nonfinite, 1);
	ck_assert_str_eq(again(trainer, 11, 0, 1), "nonfinite");
	ck_assert_str_eq(again(trainer, 12, 1, 0), "applied");
	ck_assert_uint_eq(newest()->updates, 2);
	ck_assert_uint_eq(seal_counted(&net()->records[0].refused), 1);
}
END_TEST

/* ---- ranks ------------------------------------------------------------------------------------------------------- */

static void ranks_join(uint32_t world)
{
	for (uint32_t r = 0; r < world; r++)
		fake_trainer_join(trainer_make(r, world));
}

START_TEST(a_step_that_some_ranks_have_pushed_waits_for_the_others)
{
	ranks_join(3);
	accepted(&trainers[0], 10, 0, 6);
	accepted(&trainers[2], 10, 0, 6);
	die();
	ck_assert_ptr_null(newest());
	accepted(&trainers[1], 10, 0, 6);
	ck_assert_uint_eq(newest()->version, 1);
	holds("ema", 6);
	for (uint32_t r = 0; r < 3; r++)
		ck_assert_str_eq(again(&trainers[r], 10, 0, 0), "started");
}
END_TEST

START_TEST(ranks_that_are_ahead_stay_ahead)
{
	ranks_join(2);
	accepted(&trainers[0], 10, 0, 6);
	accepted(&trainers[0], 11, 1, 8);
	accepted(&trainers[0], 12, 2, 4);
	die();
	/* The other one leaves step 10 out. */
	accepted(&trainers[1], 11, 0, 8);
	ck_assert_str_eq(again(&trainers[0], 10, 0, 2), "incomplete");
	ck_assert_str_eq(again(&trainers[0], 11, 1, 1), "started");
	ck_assert_str_eq(again(&trainers[0], 12, 2, 0), "accepted");
	die();
	accepted(&trainers[1], 12, 0, 4);
	holds("ema", 6);
}
END_TEST

START_TEST(whole_steps_that_wait_are_coalesced)
{
	struct fake_trainer *trainer = trainer_make(0, 1);

	trainer->policy = "coalesce";
	fake_trainer_join(trainer);
	push(trainer, 10, 16, "started");
	host.prompt = false;
	accepted(trainer, 11, 0, 100);
	accepted(trainer, 12, 1, 100);
	accepted(trainer, 13, 2, 0);
	die_while_changing();
	/* The gap counts as three calls. */
	holds("ema", 2);
	ck_assert_str_eq(again(trainer, 11, 0, 2), "coalesced");
	ck_assert_str_eq(again(trainer, 12, 1, 1), "coalesced");
	ck_assert_str_eq(again(trainer, 13, 2, 0), "applied");
	ck_assert_uint_eq(seal_counted(&net()->records[0].coalesced), 2);
	ck_assert(net()->coalesces);
}
END_TEST

START_TEST(a_repeated_registration_is_answered_as_it_was)
{
	struct fake_trainer *trainer = trainer_joined();
	uint64_t epoch = trainer->epoch;

	push(trainer, 10, 16, "started");
	trainer->sequence = 0;
	die();
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_register(trainer), 0)->reply.epoch, epoch);
	trainer->sequence = 5;
	fake_host_expect(&host, fake_trainer_attach(trainer), 0);
	push(trainer, 11, 8, "applied");
	/* Another one's is newer than all before. */
	die();
	fake_trainer_registered(trainer, fake_trainer_register(trainer));
	ck_assert_uint_gt(trainer->epoch, epoch);
}
END_TEST

START_TEST(a_registration_that_was_waiting_is_simply_asked_again)
{
	struct fake_trainer *trainer = trainer_joined(), *next = trainer_make(0, 1);
	uint64_t number;

	push(trainer, 10, 16, "started");
	host.prompt = false;
	accepted(trainer, 11, 0, 8);
	number = fake_trainer_register(next);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	die_while_changing();
	next->sequence--;
	fake_trainer_registered(next, fake_trainer_register(next));
	fake_trainer_attached(next, fake_trainer_attach(next));
	holds("ema", 12);
	fake_host_expect(&host, fake_trainer_push(trainer, 12, 0, false), STATUS_EFENCED);
	push(next, 12, 4, "applied");
	holds("ema", 8);
}
END_TEST

START_TEST(a_rank_that_has_not_attached_registers_once_more)
{
	struct fake_trainer *trainer = trainer_joined(), *next = trainer_make(0, 1);
	uint64_t epoch;

	push(trainer, 10, 16, "started");
	fake_trainer_registered(next, fake_trainer_register(next));
	epoch = next->epoch;
	die_while_changing();
	/* What its pieces are stood nowhere. */
	fake_host_expect(&host, fake_trainer_attach(next), STATUS_ENOMODEL);
	fake_trainer_registered(next, fake_trainer_register(next));
	ck_assert_uint_gt(next->epoch, epoch);
	fake_trainer_attached(next, fake_trainer_attach(next));
	push(next, 11, 8, "applied");
	holds("ema", 12);
}
END_TEST

START_TEST(trainers_come_back_to_their_stages)
{
	struct fake_trainer *trainer = trainer_joined();
	const uint8_t *stages = trainer->stages;

	push(trainer, 10, 16, "started");
	die();
	trainer->peer += 500;
	fake_trainer_attached(trainer, fake_trainer_attach(trainer));
	ck_assert_ptr_eq(trainer->stages, stages);
	push(trainer, 11, 8, "applied");
	/* Those of one who does not come back go with whoever was waited for. */
	fake_host_gone(&host, trainer->peer);
	ck_assert_ptr_null(net()->ranks[0].stage.base);
}
END_TEST

/* ---- what was asked for ------------------------------------------------------------------------------------------ */

static void rejoin(struct fake_trainer *trainer, const char *rewind, uint64_t start_step)
{
	trainer->rewind = rewind;
	trainer->start_step = &start_step;
	fake_trainer_join(trainer);
	trainer->rewind = NULL;
	trainer->start_step = NULL;
}

START_TEST(a_training_that_has_begun_again_goes_on_from_there)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	push(trainer, 11, 0, "applied");
	rejoin(trainer, "continue", 5);
	die();
	ck_assert(net()->has_step);
	ck_assert_uint_eq(net()->step, 4);
	says(net()->histories[0], "continued");
	push(trainer, 5, 0, "applied");
	holds("ema", 4);
	die();
	push(trainer, 6, 0, "applied");
	rejoin(trainer, "continue", 0);
	die();
	ck_assert(!net()->has_step);
	push(trainer, 0, 0, "applied");
	holds("ema", 1);
}
END_TEST

START_TEST(an_average_that_went_back_stays_there)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	push(trainer, 11, 0, "applied");
	push(trainer, 12, 0, "applied");
	rejoin(trainer, "back", 12);
	die();
	ck_assert_uint_eq(newest()->version, 4);
	ck_assert_uint_eq(newest()->step, 11);
	holds("ema", 8);
	push(trainer, 12, 0, "applied");
	holds("ema", 4);
	/* Versions of before are still kept. */
	die();
	rejoin(trainer, "back", 11);
	holds("ema", 16);
}
END_TEST

START_TEST(profiles_that_changed_in_their_place_stay_changed)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "ema=constant:decay=0.75", NULL }, 0), 0);
	die();
	ck_assert(net()->managed);
	push(trainer, 11, 0, "applied");
	holds("ema", 12);
	says(net()->histories[0], "schedule");
	die();
	says(net()->histories[0], "schedule");
	/* The slots are larger than those of these profiles would be, or smaller. */
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "b=swa", NULL }, 0), 0);
	die();
	push(trainer, 12, 0, "applied");
	holds("ema", 9);
	holds("b", 0);
}
END_TEST

START_TEST(profiles_in_other_slots_go_on_from_the_version_before)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "b=constant:decay=0.25", NULL }, 0), 0);
	ck_assert_ptr_nonnull(net()->heirloom.geometry);
	die();
	/* The first update is still to come. */
	ck_assert_ptr_nonnull(net()->heirloom.geometry);
	holds("ema", 16);
	ck_assert_uint_eq(newest()->version, 1);
	die();
	push(trainer, 11, 0, "applied");
	ck_assert_ptr_null(net()->heirloom.geometry);
	holds("ema", 8);
	holds("b", 0);
	die();
	push(trainer, 12, 4, "applied");
	holds("ema", 6);
	holds("b", 3);
	fake_host_expect(&host, fake_profile_remove(&host, "net", "ema", 0), 0);
	die();
	ck_assert_uint_eq(net()->geometry->profile_count, 1);
	push(trainer, 13, 4, "applied");
	holds("b", 3.75F);
	die();
	holds("b", 3.75F);
}
END_TEST

START_TEST(slots_that_were_on_their_way_are_given_back)
{
	struct fake_trainer *trainer = trainer_joined();
	uint64_t bytes, segments;

	push(trainer, 10, 16, "started");
	bytes = host.segment_bytes;
	segments = host.segment_count;
	host.prompt = false;
	accepted(trainer, 11, 0, 8);
	(void)fake_profiles_set(&host, "net", (const char *const[]){ "b=swa", NULL }, 1000);
	fake_host_make(&host);
	ck_assert_uint_gt(host.segment_bytes, bytes);
	die_while_changing();
	ck_assert_uint_eq(host.segment_bytes, bytes);
	ck_assert_uint_eq(host.segment_count, segments);
	ck_assert_uint_eq(net()->geometry->profile_count, 1);
	holds("ema", 12);
}
END_TEST

/* ---- other tensors ----------------------------------------------------------------------------------------------- */

/* A trainer with one tensor more. */
static struct fake_trainer *adapter_make(const char *extra)
{
	const struct tensor_row rows[] = {
		{ "w", DTYPE_F32, false, SHAPE(FAKE_ELEMENTS / 2, 2) },
		{ extra, DTYPE_F32, false, SHAPE(2) },
	};
	struct fake_trainer *trainer = &trainers[trainer_count++];

	ck_assert_uint_le(trainer_count, TRAINERS);
	fake_trainer_init(trainer, &host, "net", manifest_of_rows(rows, 2));
	trainer->profiles[0] = "ema=constant:decay=0.5";
	trainer->resume = "adapt";
	return trainer;
}

START_TEST(an_heir_without_memory_leaves_the_model_as_it_was)
{
	struct fake_trainer *trainer = trainer_joined(), *next = adapter_make("x");

	push(trainer, 10, 16, "started");
	host.prompt = false;
	(void)fake_trainer_register(next);
	die_while_changing();
	push(trainer, 11, 8, "applied");
	holds("ema", 12);
	next->sequence--;
	fake_trainer_join(next);
	push(next, 12, 4, "applied");
	holds("ema", 8);
	die();
	holds("ema", 8);
	ck_assert_uint_eq(newest()->version, 3);
}
END_TEST

START_TEST(an_heir_that_has_not_inherited_is_given_back)
{
	struct fake_trainer *trainer = trainer_joined(), *next = adapter_make("x");
	uint64_t segments;

	push(trainer, 10, 16, "started");
	segments = host.segment_count;
	host.prompt = false;
	accepted(trainer, 11, 0, 8);
	(void)fake_trainer_register(next);
	fake_host_make(&host);
	ck_assert_uint_gt(host.segment_count, segments);
	ck_assert_ptr_nonnull(net()->heir);
	die_while_changing();
	ck_assert_uint_eq(host.segment_count, segments);
	/* What its ancestor had accepted is averaged, and then it is asked for again. */
	holds("ema", 12);
	ck_assert_str_eq(newest()->version == 2 ? "applied" : "", "applied");
	next->sequence--;
	fake_trainer_join(next);
	push(next, 12, 4, "applied");
	holds("ema", 8);
}
END_TEST

START_TEST(an_heir_goes_on_from_what_it_has_inherited)
{
	struct fake_trainer *trainer = trainer_joined(), *next = adapter_make("x"), *last = adapter_make("y");
	uint64_t id;

	trainer->attributes = "{\"nc\":80}";
	fake_trainer_join(trainer);
	push(trainer, 10, 16, "started");
	fake_trainer_join(next);
	id = net()->id;
	die();
	ck_assert_uint_eq(net()->id, id);
	ck_assert_str_eq(net()->attributes, "{\"nc\":80}");
	ck_assert_ptr_nonnull(net()->heirloom.geometry);
	holds("ema", 16);
	fake_host_expect(&host, fake_trainer_push(trainer, 11, 0, false), STATUS_EFENCED);
	/* And the heir of the heir, which still reads what the first of them has left. */
	fake_trainer_join(last);
	ck_assert_uint_ne(net()->id, id);
	die();
	holds("ema", 16);
	push(last, 11, 8, "applied");
	holds("ema", 12);
	ck_assert_uint_eq(newest()->version, 2);
	die();
	holds("ema", 12);
	ck_assert_int_ge(manifest_find(net()->manifest, "y"), 0);
}
END_TEST

START_TEST(two_heads_of_one_name_are_the_heirs)
{
	struct fake_trainer *trainer = trainer_joined(), *next = adapter_make("x");
	struct head_header *ancestor = net()->head;
	uint64_t id;

	push(trainer, 10, 16, "started");
	/* The ancestor's memory stays, as if the daemon had died before it was given back. */
	host.crashing = true;
	fake_trainer_join(next);
	host.crashing = false;
	id = net()->id;
	ck_assert_uint_eq(ancestor->gone, HEAD_GONE);
	ancestor->gone = 0;
	die_while_changing();
	ck_assert_uint_eq(net()->id, id);
	holds("ema", 16);
	ck_assert_uint_eq(host.segment_count, 1 + 4 + 1 + 1);
}
END_TEST

/* ---- models ------------------------------------------------------------------------------------------------------ */

START_TEST(a_model_that_starts_anew_does_not_find_the_old_one)
{
	struct fake_trainer *trainer = trainer_joined(), *next = trainer_make(0, 1);

	push(trainer, 10, 16, "started");
	next->resume = "never";
	host.prompt = false;
	(void)fake_trainer_register(next);
	die_while_changing();
	ck_assert_ptr_null(net());
	ck_assert_uint_eq(host.segment_count, 0);
	next->sequence--;
	fake_trainer_join(next);
	push(next, 3, 1, "started");
	die();
	holds("ema", 1);
	ck_assert_uint_eq(newest()->version, 1);
}
END_TEST

START_TEST(a_removed_model_does_not_come_back)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	host.prompt = false;
	accepted(trainer, 11, 0, 8);
	/* Its update runs, so that its memory is still there. */
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	ck_assert_uint_gt(host.segment_count, 0);
	die_while_changing();
	ck_assert_ptr_null(net());
	ck_assert_uint_eq(host.segment_count, 0);
}
END_TEST

START_TEST(every_model_comes_back)
{
	struct fake_trainer *one = trainer_joined(), *two = trainer_make(0, 1);
	uint64_t id;

	two->model = "other";
	two->profiles[0] = "slow=constant:decay=0.75";
	fake_trainer_join(two);
	push(one, 10, 16, "started");
	push(two, 20, 8, "started");
	id = model_of("other")->id;
	die();
	ck_assert_uint_eq(counters()->models_adopted, 2);
	ck_assert_uint_eq(model_of("other")->id, id);
	push(one, 11, 0, "applied");
	push(two, 21, 0, "applied");
	holds("ema", 8);
	ck_assert_float_eq(fake_average(&host, "other", "slow"), 6);
	/* Numbers and epochs go on behind those that there were. */
	two = trainer_make(0, 1);
	two->model = "third";
	fake_trainer_join(two);
	ck_assert_uint_gt(model_of("third")->id, id);
	ck_assert_uint_gt(two->epoch, trainers[1].epoch);
}
END_TEST

/* What is shown of a model, but for what belongs to the daemon that shows it. */
static char *shown(void)
{
	static const char *const passing[] = { "pid", "attached", "leases", "refusal" };
	json_t *root = json_loads(fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0)->body, 0, NULL);
	char *text;
	size_t i;
	json_t *rank;

	ck_assert_ptr_nonnull(root);
	json_array_foreach(json_object_get(root, "ranks"), i, rank)
		for (size_t p = 0; p < sizeof passing / sizeof passing[0]; p++)
			json_object_del(rank, passing[p]);
	json_object_del(root, "ranks_attached");
	text = json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(1));
	json_decref(root);
	return text;
}

START_TEST(everything_that_is_shown_of_a_model_is_shown_again)
{
	struct fake_trainer *trainer = trainer_make(0, 1);
	char *before, *after;

	trainer->attributes = "{\"names\": [\"a\", \"b\"]}";
	trainer->guards = "nonfinite=skip-tensor,norm_jump=0.5,loss_max=12.5";
	trainer->policy = "coalesce";
	trainer->stride = 5;
	fake_trainer_join(trainer);
	push(trainer, 10, 16, "started");
	push(trainer, 15, 16, "applied");
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "ema=constant:decay=0.25", NULL }, 0), 0);
	push(trainer, 20, 16, "applied");
	before = shown();
	die();
	after = shown();
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
	ck_assert_uint_eq(net()->stride, 5);
	ck_assert(net()->coalesces);
	/* It is compared with the norms of before. */
	push(trainer, 25, 160, "norm-jump");
	push(trainer, 30, 17, "applied");
	/* Also across other slots. */
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "b=constant", NULL }, 0), 0);
	die();
	push(trainer, 35, 160, "norm-jump");
	push(trainer, 40, 17, "applied");
}
END_TEST

static struct fake_trainer *keeper_joined(void)
{
	struct fake_trainer *trainer;

	host.state_dir = "/state";
	host.holds_files = true;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	trainer = trainer_make(0, 1);
	trainer->profiles[0] = "ema=constant:decay=0.5,snapshot=4";
	fake_trainer_join(trainer);
	push(trainer, 3, 16, "started");
	push(trainer, 4, 0, "applied");
	ck_assert_uint_eq(host.file_count, 1);
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	return trainer;
}

START_TEST(an_average_that_was_not_written_yet_is_written_now)
{
	struct fake_trainer *trainer = keeper_joined();

	die();
	/* The one of step 4 is there. */
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert_uint_eq(keep_find(net(), "ema")->step, 4);
	push(trainer, 7, 0, "applied");
	push(trainer, 8, 0, "applied");
	ck_assert_uint_eq(host.file_count, 1);
	die();
	ck_assert_uint_eq(host.file_count, 1);
	ck_assert_uint_eq(host.files[0]->step, 8);
	ck_assert(!host.files[0]->items[0].starts);
	fake_host_write(&host);
	ck_assert_uint_eq(keep_find(net(), "ema")->step, 8);
	die();
	ck_assert_uint_eq(host.file_count, 0);
}
END_TEST

START_TEST(a_daemon_that_can_keep_nothing_says_so_and_goes_on)
{
	struct fake_trainer *trainer = keeper_joined();

	host.state_dir = NULL;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_uint_gt(host.complaint_count, 0);
	push(trainer, 8, 0, "applied");
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert_uint_eq(counters()->snapshots_skipped, 1);
	/* With the directory it goes on. */
	host.state_dir = "/state";
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_uint_eq(host.file_count, 1);
}
END_TEST

/* ---- readers ----------------------------------------------------------------------------------------------------- */

START_TEST(a_view_stays_as_it_is_for_its_time)
{
	struct fake_trainer *trainer = trainer_joined();
	const struct fake_reply *view;
	const struct slot_header *slot;
	const float *values;
	uint64_t fence, leased_at_ms;

	push(trainer, 10, 16, "started");
	view = fake_host_expect(&host, fake_view(&host, 60, "net", NULL, 0, 0), 0);
	slot = (const void *)fake_host_map(&host, view->fd);
	values = (const void *)fake_tensor(&host, view, "w");
	fence = view->reply.fence;
	push(trainer, 11, 8, "applied");
	fake_host_expect(&host, fake_view(&host, 61, "net", NULL, 0, 0), 0);
	die();
	leased_at_ms = host.now.monotonic_ms;
	ck_assert_uint_eq(versions_lease_count(&net()->versions, 0) + versions_lease_count(&net()->versions, 1), 2);
	/* Four slots: two are leased, and two take turns. */
	for (uint64_t step = 12; step < 30; step++)
		push(trainer, step, 4, "applied");
	ck_assert_uint_eq(slot->fence, fence);
	for (int i = 0; i < FAKE_ELEMENTS; i++)
		ck_assert_float_eq(values[i], 16);
	/* The other two as well: then an update waits, and not for ever. */
	fake_host_expect(&host, fake_view(&host, 62, "net", NULL, 0, 0), 0);
	push(trainer, 30, 4, "applied");
	fake_host_expect(&host, fake_view(&host, 63, "net", NULL, 0, 0), 0);
	die();
	leased_at_ms = host.now.monotonic_ms;
	accepted(trainer, 31, 0, 4);
	fake_host_wait(&host, host.settings.lease_min_ms - 1);
	ck_assert_uint_eq(slot->fence, fence);
	ck_assert_uint_eq(newest()->step, 30);
	fake_host_wait(&host, 2);
	ck_assert_uint_ge(host.now.monotonic_ms - leased_at_ms, host.settings.lease_min_ms);
	ck_assert_uint_eq(newest()->step, 31);
}
END_TEST

START_TEST(who_does_not_come_back_is_not_waited_for_for_ever)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	fake_host_expect(&host, fake_view(&host, 60, "net", NULL, 0, 0), 0);
	die();
	fake_host_wait(&host, 599000);
	ck_assert_uint_ne(net()->head->leased, 0);
	ck_assert_ptr_nonnull(net()->ranks[0].stage.base);
	fake_host_wait(&host, 1001);
	ck_assert_uint_eq(net()->head->leased, 0);
	ck_assert_ptr_null(net()->ranks[0].stage.base);
	/* It has been away for long, and is still the one that holds the rank. */
	fake_trainer_attached(trainer, fake_trainer_attach(trainer));
	push(trainer, 11, 16, "applied");
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	die();
	ck_assert_uint_eq(net()->versions.lease_count, 0);
	holds("ema", 16);
}
END_TEST

/* ---- without memory ---------------------------------------------------------------------------------------------- */

/* jansson lives in a shared library, where nothing is wrapped. */
static void *json_room(size_t bytes)
{
	return malloc(bytes);
}

/* Two models; one with two profiles of which one is new, a version of before, views, and snapshots that wait. */
static void rich_make(void)
{
	struct fake_trainer *one = trainer_make(0, 1), *two = trainer_make(0, 1);
	const struct fake_push waiting = { .step = 12, .stage = 1, .metadata = "{\"epoch\": 3}" };

	one->attributes = "{\"nc\":80}";
	fake_trainer_join(one);
	two->model = "other";
	fake_trainer_join(two);
	push(one, 10, 16, "started");
	push(two, 20, 8, "started");
	fake_host_expect(&host, fake_view(&host, 60, "other", NULL, 0, 0), 0);
	fake_host_expect(&host, fake_profiles_set(&host, "net", (const char *const[]){ "b=constant:decay=0.25", NULL }, 0), 0);
	fake_host_expect(&host, fake_view(&host, 61, "net", NULL, 0, 0), 0);
	host.prompt = false;
	accepted(one, 11, 0, 8);
	fake_trainer_fill(one, 1, 4);
	fake_host_expect(&host, fake_trainer_push_with(one, &waiting), 0);
}

START_TEST(without_memory_everything_is_left_for_the_next_one)
{
	for (int for_ever = 0; for_ever < 2; for_ever++) {
		uint64_t bytes, leased, nth = 1, count = 0;
		bool failed;
		int error;

		trainer_count = 0;
		rich_make();
		bytes = host.segment_bytes;
		leased = net()->head->leased;
		do {
			failing_heap_arm(nth++, for_ever);
			error = fake_host_crash(&host);
			failed = failing_heap_disarm();
			count += failed;
			ck_assert_msg(failed || error == 0, "%d", error);
			ck_assert_msg(error == 0 || error == -ENOMEM, "%d, allocation %lu", error, (unsigned long)nth - 1);
			ck_assert_msg(host.segment_bytes == bytes, "allocation %lu: %s", (unsigned long)nth - 1, host.event);
			if (!error) {
				ck_assert_uint_eq(counters()->models_abandoned, 0);
				ck_assert_uint_eq(net()->head->leased, leased);
			}
		} while (failed);
		ck_assert_uint_gt(count, 100);
		fake_host_settle(&host);
		holds("ema", 8);
		holds("b", 5);
		ck_assert_str_eq(net()->metadata, "{\"epoch\":3}");
		ck_assert_str_eq(net()->attributes, "{\"nc\":80}");
		ck_assert_float_eq(fake_average(&host, "other", "ema"), 8);
		if (for_ever)
			break;
		host.prompt = true;
		teardown();
		setup();
	}
}
END_TEST

START_TEST(less_memory_than_there_is_in_use_is_said)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	host.settings.memory_bytes_max = 4096;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	says(host.event, "memory-max is 4096 bytes now, and the models use");
	push(trainer, 11, 0, "applied");
	holds("ema", 8);
}
END_TEST

START_TEST(less_segments_than_there_are_are_said)
{
	struct fake_trainer *trainer = trainer_joined();

	push(trainer, 10, 16, "started");
	host.settings.segment_count_max = 4;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	says(host.event, "segments-max is 4 now, and the models take");
	push(trainer, 11, 0, "applied");
	holds("ema", 8);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_adopt");
	TCase *tcase = tcase_create("service_adopt");
	SRunner *runner;
	int failed;

	json_set_alloc_funcs(json_room, free);
	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, acknowledged_snapshots_are_averaged_once);
	tcase_add_test(tcase, a_snapshot_whose_version_was_published_is_settled_and_another_one_is_applied_again);
	tcase_add_test(tcase, metadata_and_averages_of_a_profile_wait_with_their_snapshots);
	tcase_add_test(tcase, sixteen_answers_are_remembered);
	tcase_add_test(tcase, bad_values_are_refused_by_the_next_daemon);
	tcase_add_test(tcase, a_step_that_some_ranks_have_pushed_waits_for_the_others);
	tcase_add_test(tcase, ranks_that_are_ahead_stay_ahead);
	tcase_add_test(tcase, whole_steps_that_wait_are_coalesced);
	tcase_add_test(tcase, a_repeated_registration_is_answered_as_it_was);
	tcase_add_test(tcase, a_registration_that_was_waiting_is_simply_asked_again);
	tcase_add_test(tcase, a_rank_that_has_not_attached_registers_once_more);
	tcase_add_test(tcase, trainers_come_back_to_their_stages);
	tcase_add_test(tcase, a_training_that_has_begun_again_goes_on_from_there);
	tcase_add_test(tcase, an_average_that_went_back_stays_there);
	tcase_add_test(tcase, profiles_that_changed_in_their_place_stay_changed);
	tcase_add_test(tcase, profiles_in_other_slots_go_on_from_the_version_before);
	tcase_add_test(tcase, slots_that_were_on_their_way_are_given_back);
	tcase_add_test(tcase, an_heir_without_memory_leaves_the_model_as_it_was);
	tcase_add_test(tcase, an_heir_that_has_not_inherited_is_given_back);
	tcase_add_test(tcase, an_heir_goes_on_from_what_it_has_inherited);
	tcase_add_test(tcase, two_heads_of_one_name_are_the_heirs);
	tcase_add_test(tcase, a_model_that_starts_anew_does_not_find_the_old_one);
	tcase_add_test(tcase, a_removed_model_does_not_come_back);
	tcase_add_test(tcase, every_model_comes_back);
	tcase_add_test(tcase, everything_that_is_shown_of_a_model_is_shown_again);
	tcase_add_test(tcase, an_average_that_was_not_written_yet_is_written_now);
	tcase_add_test(tcase, a_daemon_that_can_keep_nothing_says_so_and_goes_on);
	tcase_add_test(tcase, a_view_stays_as_it_is_for_its_time);
	tcase_add_test(tcase, who_does_not_come_back_is_not_waited_for_for_ever);
	tcase_add_test(tcase, without_memory_everything_is_left_for_the_next_one);
	tcase_add_test(tcase, less_memory_than_there_is_in_use_is_said);
	tcase_add_test(tcase, less_segments_than_there_are_are_said);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
