/*
 * The service when something must be waited for, is short, or ends: parked requests, leases, limits, memory that
 * cannot be had, removal, shutdown.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <stdio.h>
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

/* Starts the service anew with the settings as they are now. */
static void restart(void)
{
	service_destroy(host.service);
	unpacked_destroy(host.unpacked);
	fake_host_start(&host);
}

static struct fake_trainer trainer_of(uint32_t rank, uint32_t world)
{
	struct fake_trainer trainer;

	fake_trainer_init(&trainer, &host, "net", fake_manifest(rank, world));
	trainer.rank = rank;
	trainer.world = world;
	return trainer;
}

static struct fake_trainer joined(void)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	return trainer;
}

/* Pushes one value into the first stage without waiting for anything. */
static uint64_t push(struct fake_trainer *trainer, uint64_t step, float value)
{
	fake_trainer_fill(trainer, 0, value);
	return fake_trainer_push(trainer, step, 0, false);
}

static void waits(uint64_t number)
{
	ck_assert_msg(fake_host_answer(&host, number) == NULL, "request %lu was answered", (unsigned long)number);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

/* ---- waiting for versions ---------------------------------------------------------------------------------------- */

START_TEST(a_view_waits_for_its_step)
{
	struct fake_trainer trainer = joined();
	uint64_t number = fake_view(&host, 50, "net", NULL, 11, 5000);

	waits(number);
	push(&trainer, 10, 1);
	waits(number);
	fake_host_wait(&host, 4999);
	push(&trainer, 12, 1);
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.step, 12);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_view_gives_up_in_time_and_says_what_there_is)
{
	struct fake_trainer trainer = joined();
	uint64_t number = fake_view(&host, 50, "net", NULL, 11, 5000);

	fake_host_wait(&host, 5000);
	fake_host_expect(&host, number, STATUS_ENOVERSION);
	fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), STATUS_ENOVERSION);
	push(&trainer, 10, 1);
	number = fake_view(&host, 50, "net", NULL, 11, 5000);
	fake_host_wait(&host, 4999);
	waits(number);
	fake_host_wait(&host, 1);
	ck_assert_str_eq(fake_host_expect(&host, number, STATUS_ETIMEOUT)->error,
	                 "no version of step 11 or later came in time: the newest version of 'net' holds step 10");
	number = fake_view(&host, 50, "net", NULL, 11, 0);
	fake_host_wait(&host, 0);
	fake_host_expect(&host, number, STATUS_ETIMEOUT);
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(no_wait_is_longer_than_allowed)
{
	struct fake_trainer trainer = joined();
	uint64_t number = fake_view(&host, 50, "net", NULL, 11, UINT64_MAX);

	fake_host_wait(&host, host.settings.wait_max_ms - 1);
	waits(number);
	fake_host_wait(&host, 1);
	fake_host_expect(&host, number, STATUS_ENOVERSION);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(what_waits_ends_with_its_connection)
{
	struct fake_trainer trainer = joined();
	uint64_t numbers[] = {
		fake_view(&host, 50, "net", NULL, 11, 5000), fake_view(&host, 51, "net", NULL, 11, 5000),
		fake_view(&host, 50, "net", NULL, 12, 5000),
	};

	fake_host_gone(&host, 50);
	push(&trainer, 20, 1);
	waits(numbers[0]);
	fake_host_expect(&host, numbers[1], 0);
	waits(numbers[2]);
	fake_host_wait(&host, 10000);
	waits(numbers[0]);
	/* The list is whole: what waits next is answered. */
	numbers[0] = fake_view(&host, 52, "net", NULL, 21, 5000);
	push(&trainer, 21, 1);
	fake_host_expect(&host, numbers[0], 0);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_flush_waits_until_all_is_decided)
{
	struct fake_trainer trainer = joined();
	const struct fake_reply *answer;
	uint64_t number;

	host.prompt = false;
	push(&trainer, 10, 1);
	fake_trainer_fill(&trainer, 1, __builtin_nanf(""));
	fake_trainer_push(&trainer, 11, 1, false);
	number = fake_trainer_flush(&trainer, 5000);
	fake_host_apply(&host);
	waits(number);
	fake_host_apply(&host);
	answer = fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(answer->reply.last_step, 10);
	ck_assert_uint_eq(answer->reply.version, 1);
	ck_assert_uint_eq(answer->reply.refused, 1);
	ck_assert_msg(strstr(answer->refusal, "step 11") != NULL, "%s", answer->refusal);
	push(&trainer, 12, 1);
	number = fake_trainer_flush(&trainer, 5000);
	fake_host_wait(&host, 5000);
	ck_assert_str_eq(fake_host_expect(&host, number, STATUS_ETIMEOUT)->error,
	                 "1 snapshot of rank 0 of 'net' still waits: the newest version holds step 10");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_reserve_waits_for_a_stage)
{
	struct fake_trainer trainer = joined();
	const struct fake_reply *answer;
	uint64_t number, late;

	host.prompt = false;
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_reserve(&trainer, 0), 0)->reply.stage, 0);
	push(&trainer, 10, 1);
	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_reserve(&trainer, 0), 0)->reply.stage, 1);
	fake_trainer_fill(&trainer, 1, 2);
	fake_trainer_push(&trainer, 11, 1, false);
	late = fake_trainer_reserve(&trainer, 50);
	number = fake_trainer_reserve(&trainer, 5000);
	fake_host_wait(&host, 50);
	answer = fake_host_expect(&host, late, STATUS_EBUSY);
	ck_assert_msg(strstr(answer->error, "all 2 stages of rank 0 of 'net'") != NULL, "%s", answer->error);
	waits(number);
	fake_host_apply(&host);
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.stage, 0);
	fake_trainer_finish(&trainer);
}
END_TEST

/* Over another connection than the one that it was given up on. What lies in its stage by then is of another step. */
START_TEST(a_push_that_comes_behind_the_next_one_s_reserve_is_not_taken)
{
	struct fake_trainer trainer = joined();
	const struct fake_reply *answer;
	uint64_t given_up = ++trainer.sequence;

	ck_assert_uint_eq(fake_host_expect(&host, fake_trainer_reserve(&trainer, 1000), 0)->reply.stage, 0);
	fake_trainer_fill(&trainer, 0, 2);
	trainer.sequence = given_up - 1;
	answer = fake_host_expect(&host, fake_trainer_push(&trainer, 1, 0, false), STATUS_ETIMEOUT);
	ck_assert_msg(strstr(answer->error, "no longer waits for it"), "%s", answer->error);
	fake_host_expect(&host, fake_trainer_push(&trainer, 2, 0, true), 0);
	/* Once a later one is answered, without a reserve before it, it is the same; steps are looked at first. */
	trainer.sequence += 2;
	fake_trainer_fill(&trainer, 1, 4);
	fake_host_expect(&host, fake_trainer_push(&trainer, 4, 1, true), 0);
	trainer.sequence -= 2;
	fake_host_expect(&host, fake_trainer_push(&trainer, 3, 0, false), 0);
	trainer.sequence -= 2;
	fake_host_expect(&host, fake_trainer_push(&trainer, 5, 0, false), STATUS_ETIMEOUT);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_push_that_waits_too_long_is_told_that_it_was_accepted)
{
	struct fake_trainer trainer = joined();
	uint64_t number;

	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 1);
	number = fake_trainer_push(&trainer, 10, 0, true);
	fake_host_wait(&host, host.settings.wait_max_ms);
	ck_assert_str_eq(fake_host_expect(&host, number, 0)->outcome, "accepted");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(only_so_many_may_wait)
{
	struct fake_trainer trainer;
	uint64_t first;

	host.settings.parked_count_max = 2;
	restart();
	trainer = joined();
	first = fake_view(&host, 50, "net", NULL, 11, 5000);
	fake_view(&host, 51, "net", NULL, 11, 5000);
	ck_assert_str_eq(fake_host_expect(&host, fake_view(&host, 52, "net", NULL, 11, 5000), STATUS_EBUSY)->error,
	                 "2 requests wait already, and 2 (waiting-max) may: try again later");
	push(&trainer, 11, 1);
	fake_host_expect(&host, first, 0);
	waits(fake_view(&host, 52, "net", NULL, 12, 5000));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_model_that_nobody_may_wait_for_is_not_made)
{
	struct fake_trainer trainer;
	uint64_t number;

	host.settings.parked_count_max = 0;
	restart();
	trainer = trainer_of(0, 1);
	number = fake_trainer_register(&trainer);
	fake_host_expect(&host, number, STATUS_EBUSY);
	ck_assert_uint_eq(host.segment_count, 0);
	fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), STATUS_ENOMODEL);
	fake_trainer_finish(&trainer);
}
END_TEST

/* ---- leases ------------------------------------------------------------------------------------------------------ */

/* Leases the newest version of every slot but one, each by a peer of its own from 50 on. */
static void lease_all(struct fake_trainer *trainer)
{
	for (uint64_t i = 0; i < host.settings.slot_count; i++) {
		push(trainer, 10 + i, (float)i);
		if (i + 1 < host.settings.slot_count)
			fake_host_expect(&host, fake_view(&host, 50 + i, "net", NULL, 0, 0), 0);
	}
}

START_TEST(an_update_waits_for_readers_and_goes_on_when_one_leaves)
{
	struct fake_trainer trainer = joined();

	lease_all(&trainer);
	push(&trainer, 20, 9);
	ck_assert_uint_eq(counters()->versions_published, 3);
	fake_host_gone(&host, 51);
	ck_assert_uint_eq(counters()->versions_published, 4);
	ck_assert_uint_eq(counters()->leases_revoked, 0);
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_slot_is_taken_back_when_its_readers_time_is_over)
{
	struct fake_trainer trainer = joined();
	const struct fake_reply *view;
	const struct slot_header *slot;
	uint64_t fence;

	push(&trainer, 5, 1);
	view = fake_host_expect(&host, fake_view(&host, 60, "net", NULL, 0, 0), 0);
	slot = (const void *)fake_host_map(&host, view->fd);
	fence = view->reply.fence;
	fake_host_wait(&host, 1000);
	push(&trainer, 6, 1);
	fake_host_expect(&host, fake_view(&host, 61, "net", NULL, 0, 0), 0);
	push(&trainer, 7, 1);
	push(&trainer, 8, 1);
	ck_assert_uint_eq(counters()->versions_published, 3);
	fake_host_wait(&host, 28999);
	ck_assert_uint_eq(counters()->versions_published, 3);
	ck_assert_uint_eq(slot->fence, fence);
	fake_host_wait(&host, 1);
	ck_assert_uint_eq(counters()->versions_published, 4);
	ck_assert_uint_eq(counters()->leases_revoked, 1);
	ck_assert_uint_ne(slot->fence, fence);
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	fake_trainer_finish(&trainer);
}
END_TEST

/* The snapshots that an update was waiting for room for are dropped: nothing is due any more. */
START_TEST(nothing_is_due_when_the_update_that_waited_is_gone)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) }, again = trainer_of(1, 2);

	for (int r = 0; r < 2; r++)
		fake_trainer_join(&ranks[r]);
	for (uint64_t step = 10; step < 14; step++) {
		for (int r = 0; r < 2; r++)
			push(&ranks[r], step, 1);
		if (step < 12)
			fake_host_expect(&host, fake_view(&host, step, "net", NULL, 0, 0), 0);
	}
	ck_assert_uint_eq(counters()->versions_published, 3);
	ck_assert_uint_ne(service_due_ms(host.service), UINT64_MAX);
	fake_trainer_join(&again);
	fake_host_wait(&host, 100000);
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	service_stop(host.service, &host.now);
	/* Rank 1 may still push what rank 0 has pushed. */
	fake_host_wait(&host, 1000);
	ck_assert(service_idle(host.service));
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
	fake_trainer_finish(&again);
}
END_TEST

/* ---- limits and memory ------------------------------------------------------------------------------------------- */

START_TEST(memory_ends_at_its_limit_with_both_numbers)
{
	struct fake_trainer trainer = trainer_of(0, 1), other = trainer_of(0, 1);
	const struct fake_reply *answer;
	uint64_t bytes;

	fake_trainer_join(&trainer);
	bytes = host.segment_bytes;
	ck_assert_uint_eq(fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0)->reply.freed_bytes, bytes);
	host.settings.memory_bytes_max = 2 * bytes - 1;
	restart();
	fake_trainer_finish(&trainer);
	trainer = joined();
	ck_assert_uint_le(host.segment_bytes, host.settings.memory_bytes_max);
	other.model = "other";
	answer = fake_host_expect(&host, fake_trainer_register(&other), STATUS_EMEMORY);
	{
		char part[200];

		snprintf(part, sizeof part, "needs %lu bytes", (unsigned long)bytes);
		ck_assert_msg(strstr(answer->error, part) != NULL, "%s", answer->error);
		snprintf(part, sizeof part, "%lu of %lu (memory-max) are left", (unsigned long)bytes - 1,
		         (unsigned long)(2 * bytes - 1));
		ck_assert_msg(strstr(answer->error, part) != NULL, "%s", answer->error);
	}
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	fake_trainer_join(&other);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(models_end_at_their_limit)
{
	struct fake_trainer trainer, other = trainer_of(0, 1);

	host.settings.model_count_max = 1;
	restart();
	trainer = joined();
	other.model = "other";
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_register(&other), STATUS_ELIMIT)->error,
	                 "1 models are the limit of 1 (models-max): remove one with 'emactl remove MODEL', or raise "
	                 "models-max");
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

/* Sizes whose sum over all slots and stages is more than 64 bits hold. */
START_TEST(a_model_larger_than_all_numbers_is_refused)
{
	static const uint64_t elements[] = {
		(UINT64_C(1) << 60) - 1024, UINT64_C(1) << 59, (UINT64_C(1) << 60) / 3, UINT64_C(3) << 58,
	};

	host.settings.memory_bytes_max = UINT64_C(1) << 40;
	for (host.settings.slot_count = 2; host.settings.slot_count <= SLOT_COUNT_MAX; host.settings.slot_count++) {
		for (host.settings.stage_count = 1; host.settings.stage_count <= STAGE_COUNT_MAX;
		     host.settings.stage_count++) {
			restart();
			for (int i = 0; i < 4 * 4; i++) {
				const struct tensor_row row = { "w", DTYPE_F32, false, { elements[i / 4], UINT64_MAX } };
				struct fake_trainer trainer;
				const struct fake_reply *answer;

				fake_trainer_init(&trainer, &host, "huge", manifest_of_rows(&row, 1));
				for (int p = 0; p <= i % 4; p++)
					trainer.profiles[p] = (const char *const[]){ "a=yolo", "b=yolo", "c=yolo", "d=yolo" }[p];
				trainer.profile_count = (uint32_t)i % 4 + 1;
				answer = fake_host_answer(&host, fake_trainer_register(&trainer));
				ck_assert_ptr_nonnull(answer);
				if (answer->reply.status != STATUS_EMEMORY && answer->reply.status != STATUS_ELIMIT)
					ck_abort_msg("%s", answer->error);
				fake_trainer_finish(&trainer);
			}
		}
	}
}
END_TEST

START_TEST(memory_that_cannot_be_had_is_told_and_the_model_forgotten)
{
	struct fake_trainer ranks[2] = { trainer_of(0, 2), trainer_of(1, 2) };
	uint64_t numbers[2];

	host.prompt = false;
	for (int r = 0; r < 2; r++)
		numbers[r] = fake_trainer_register(&ranks[r]);
	ck_assert_uint_eq(host.order_count, 1);
	host.memory_status = STATUS_EMEMORY;
	fake_host_make(&host);
	for (int r = 0; r < 2; r++)
		ck_assert_str_eq(fake_host_expect(&host, numbers[r], STATUS_EMEMORY)->error,
		                 "9 bytes are needed and 3 are available");
	fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), STATUS_ENOMODEL);
	ck_assert_uint_eq(host.event_count, 1);
	host.memory_status = 0;
	host.prompt = true;
	for (int r = 0; r < 2; r++) {
		fake_trainer_join(&ranks[r]);
		push(&ranks[r], 1, 3);
	}
	ck_assert_float_eq(fake_average(&host, "net", NULL), 3);
	for (int r = 0; r < 2; r++)
		fake_trainer_finish(&ranks[r]);
}
END_TEST

START_TEST(stages_that_cannot_be_had_are_told_to_their_trainer_alone)
{
	struct fake_trainer trainer = joined(), again = trainer_of(0, 1);
	uint64_t number, view;

	push(&trainer, 5, 1);
	fake_trainer_registered(&again, fake_trainer_register(&again));
	view = fake_view(&host, 50, "net", NULL, 6, 5000);
	host.prompt = false;
	number = fake_trainer_attach(&again);
	host.memory_status = STATUS_EMEMORY;
	fake_host_make(&host);
	fake_host_expect(&host, number, STATUS_EMEMORY);
	waits(view);
	host.memory_status = 0;
	host.prompt = true;
	fake_trainer_attached(&again, fake_trainer_attach(&again));
	push(&again, 6, 2);
	fake_host_expect(&host, view, 0);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&again);
}
END_TEST

START_TEST(memory_that_comes_too_late_is_given_back)
{
	struct fake_trainer trainer = trainer_of(0, 1), again = trainer_of(0, 1);
	uint64_t number;

	/* The stages of a registration that another has replaced. */
	fake_trainer_registered(&trainer, fake_trainer_register(&trainer));
	host.prompt = false;
	number = fake_trainer_attach(&trainer);
	fake_trainer_registered(&again, fake_trainer_register(&again));
	fake_host_expect(&host, number, STATUS_EFENCED);
	number = fake_trainer_attach(&again);
	ck_assert_uint_eq(host.order_count, 2);
	fake_host_make(&host);
	waits(number);
	fake_host_make(&host);
	fake_trainer_attached(&again, number);
	/* Of a trainer that has gone. */
	fake_host_gone(&host, again.peer);
	number = fake_trainer_attach(&again);
	fake_host_gone(&host, again.peer);
	fake_host_settle(&host);
	ck_assert_uint_eq(host.segment_count, 1 + host.settings.slot_count);
	/* Of a model that was removed. */
	number = fake_trainer_attach(&again);
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	fake_host_expect(&host, number, STATUS_ENOMODEL);
	fake_host_settle(&host);
	ck_assert_uint_eq(host.segment_count, 0);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&again);
}
END_TEST

/* ---- ends -------------------------------------------------------------------------------------------------------- */

START_TEST(a_model_removed_during_an_update_goes_when_it_is_done)
{
	struct fake_trainer trainer = joined(), again = trainer_of(0, 1);
	uint64_t number, view;

	push(&trainer, 5, 1);
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 2);
	number = fake_trainer_push(&trainer, 6, 0, true);
	view = fake_view(&host, 50, "net", NULL, 6, 5000);
	ck_assert_uint_eq(host.apply_count, 1);
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	fake_host_expect(&host, number, STATUS_ENOMODEL);
	fake_host_expect(&host, view, STATUS_ENOMODEL);
	ck_assert_uint_gt(host.segment_count, 0);
	/* Its name is free at once. */
	number = fake_trainer_register(&again);
	fake_host_make(&host);
	fake_trainer_registered(&again, number);
	fake_host_apply(&host);
	ck_assert_uint_eq(host.segment_count, 1 + host.settings.slot_count);
	ck_assert_uint_eq(counters()->versions_published, 1);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&again);
}
END_TEST

START_TEST(a_model_removed_before_its_memory_is_there_leaves_nothing)
{
	struct fake_trainer trainer = trainer_of(0, 1), other = trainer_of(0, 1);
	uint64_t number;

	host.prompt = false;
	number = fake_trainer_register(&trainer);
	fake_host_gone(&host, trainer.peer + 1000);
	fake_host_make(&host);
	waits(number);
	ck_assert_uint_eq(host.segment_count, 0);
	other.resume = "never";
	number = fake_trainer_register(&other);
	fake_host_settle(&host);
	fake_trainer_registered(&other, number);
	ck_assert_uint_eq(host.segment_count, 1 + host.settings.slot_count);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(a_stopping_service_finishes_what_was_accepted_and_takes_nothing_new)
{
	struct fake_trainer trainer = joined(), other = trainer_of(0, 1);
	uint64_t waiting, view;

	push(&trainer, 5, 1);
	view = fake_view(&host, 50, "net", NULL, 100, 5000);
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 2);
	waiting = fake_trainer_push(&trainer, 6, 0, true);
	fake_trainer_fill(&trainer, 1, 3);
	fake_trainer_push(&trainer, 7, 1, false);
	service_stop(host.service, &host.now);
	ck_assert(!service_idle(host.service));
	/* Whoever waits for what cannot come any more is told so. */
	fake_host_expect(&host, view, STATUS_ESHUTDOWN);
	fake_host_expect(&host, fake_trainer_push(&trainer, 8, 0, false), STATUS_ESHUTDOWN);
	other.model = "other";
	fake_host_expect(&host, fake_trainer_register(&other), STATUS_ESHUTDOWN);
	fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 100, 5000), STATUS_ESHUTDOWN);
	fake_host_apply(&host);
	ck_assert_str_eq(fake_host_expect(&host, waiting, 0)->outcome, "applied");
	ck_assert(!service_idle(host.service));
	fake_host_apply(&host);
	ck_assert(service_idle(host.service));
	fake_host_expect(&host, fake_trainer_flush(&trainer, 5000), 0);
	fake_trainer_finish(&trainer);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(bytes_that_are_no_request_are_answered)
{
	const struct exchange exchange = { .peer = { .id = 5 }, .tag_bytes = 8, .tag = { 1 } };

	host.request_count = 1;
	service_request(host.service, &host.now, &exchange, (const uint8_t *)"nonsense", 8, NULL, 0);
	fake_host_expect(&host, 1, STATUS_EPROTOCOL);
	ck_assert_uint_eq(counters()->requests, 1);
	ck_assert_uint_eq(counters()->requests_failed, 1);
}
END_TEST

START_TEST(every_operation_has_a_handler)
{
	for (int operation = 0; operation < OPERATION_COUNT; operation++) {
		struct request request = { .operation = (enum operation)operation };
		uint64_t number;

		/* Every field that it may have. */
#define X(type, name, text) request.present |= message_operations[operation].required & REQUEST_HAS(name);
		REQUEST_FIELDS(X)
#undef X
		request.model = text_of("net");
		request.attributes = text_of("{}");
		request.profiles.count = 1;
		request.profiles.items[0] = text_of("ema=yolo");
		number = fake_host_ask(&host, 50, &request, NULL, 0);
		ck_assert_ptr_nonnull(fake_host_answer(&host, number));
	}
}
END_TEST

static TCase *wait_tests(void)
{
	TCase *tcase = tcase_create("waiting");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_view_waits_for_its_step);
	tcase_add_test(tcase, a_view_gives_up_in_time_and_says_what_there_is);
	tcase_add_test(tcase, no_wait_is_longer_than_allowed);
	tcase_add_test(tcase, what_waits_ends_with_its_connection);
	tcase_add_test(tcase, a_flush_waits_until_all_is_decided);
	tcase_add_test(tcase, a_reserve_waits_for_a_stage);
	tcase_add_test(tcase, a_push_that_comes_behind_the_next_one_s_reserve_is_not_taken);
	tcase_add_test(tcase, a_push_that_waits_too_long_is_told_that_it_was_accepted);
	tcase_add_test(tcase, only_so_many_may_wait);
	tcase_add_test(tcase, a_model_that_nobody_may_wait_for_is_not_made);
	tcase_add_test(tcase, an_update_waits_for_readers_and_goes_on_when_one_leaves);
	tcase_add_test(tcase, a_slot_is_taken_back_when_its_readers_time_is_over);
	tcase_add_test(tcase, nothing_is_due_when_the_update_that_waited_is_gone);
	return tcase;
}

static TCase *limit_tests(void)
{
	TCase *tcase = tcase_create("limits");

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, memory_ends_at_its_limit_with_both_numbers);
	tcase_add_test(tcase, models_end_at_their_limit);
	tcase_add_test(tcase, a_model_larger_than_all_numbers_is_refused);
	tcase_add_test(tcase, memory_that_cannot_be_had_is_told_and_the_model_forgotten);
	tcase_add_test(tcase, stages_that_cannot_be_had_are_told_to_their_trainer_alone);
	tcase_add_test(tcase, memory_that_comes_too_late_is_given_back);
	return tcase;
}

static TCase *end_tests(void)
{
	TCase *tcase = tcase_create("ends");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_model_removed_during_an_update_goes_when_it_is_done);
	tcase_add_test(tcase, a_model_removed_before_its_memory_is_there_leaves_nothing);
	tcase_add_test(tcase, a_stopping_service_finishes_what_was_accepted_and_takes_nothing_new);
	tcase_add_test(tcase, bytes_that_are_no_request_are_answered);
	tcase_add_test(tcase, every_operation_has_a_handler);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("service_waits");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, wait_tests());
	suite_add_tcase(suite, limit_tests());
	suite_add_tcase(suite, end_tests());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
