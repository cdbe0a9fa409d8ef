/*
 * Going back through the whole service: to a slot and to the disk, on request and by a registration, whatever happens
 * meanwhile. The host's disk is a few generations in this file.
 */
#include "tests/unit/failing_heap.h"
#include "tests/unit/fake_host.h"

#include "daemon/core/call.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GENERATION_COUNT = 8 };

static struct fake_host host;
static struct fake_trainer trainer;

static struct {
	struct generation_name name;
	bool there, damaged;
	char *text;
	size_t text_bytes;
	uint64_t byte_counts[PROFILE_COUNT_MAX];
	uint8_t *images[PROFILE_COUNT_MAX];
	uint32_t count;
} disk[GENERATION_COUNT];

static uint64_t seek_count, fill_count, back_count, back_step; /* orders of the kinds, items, and for which step */

static void start(uint64_t slot_count)
{
	fake_host_init(&host);
	host.state_dir = "/state";
	host.holds_files = true;
	host.settings.slot_count = slot_count;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5";
	trainer.profiles[1] = "slow=constant:decay=0.75";
	trainer.profile_count = 2;
	fake_trainer_join(&trainer);
	seek_count = fill_count = back_count = 0;
}

static void setup(void)
{
	start(3);
}

static void teardown(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	for (uint32_t g = 0; g < GENERATION_COUNT; g++) {
		free(disk[g].text);
		for (uint32_t i = 0; i < disk[g].count; i++)
			free(disk[g].images[i]);
	}
	memset(disk, 0, sizeof disk);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

static struct model *net(void)
{
	return service_find(host.service, "run42/net", 9);
}

static const struct slot_header *newest(void)
{
	return versions_newest(&net()->versions);
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static void generation_write(struct file_order *order)
{
	struct generation_file files[PROFILE_COUNT_MAX];
	uint32_t g = 0;

	while (disk[g].text)
		ck_assert_uint_lt(++g, GENERATION_COUNT);
	disk[g].there = true;
	disk[g].name = order->generation;
	disk[g].count = order->count;
	for (uint32_t i = 0; i < order->count; i++) {
		struct file_item *item = &order->items[i];

		disk[g].images[i] = malloc(item->byte_count);
		memcpy(disk[g].images[i], item->bytes, item->byte_count);
		disk[g].byte_counts[i] = item->byte_count;
		files[i] = (struct generation_file){ item->profile, item->byte_count,
		                                     layout_checksum(item->bytes, item->byte_count) };
	}
	disk[g].text_bytes = generation_text_end(order->text, order->text_bytes, files, order->count);
	disk[g].text = malloc(disk[g].text_bytes);
	memcpy(disk[g].text, order->text, disk[g].text_bytes);
}

/* Another manifest for the same files. */
static void generation_facts(struct file_order *order)
{
	struct generation_file files[PROFILE_COUNT_MAX];
	uint32_t g = 0;

	while (!disk[g].there || generation_compare(&disk[g].name, &order->generation) != 0)
		ck_assert_uint_lt(++g, GENERATION_COUNT);
	for (uint32_t i = 0; i < order->count; i++)
		files[i] = (struct generation_file){ order->items[i].profile, order->items[i].byte_count,
		                                     order->items[i].checksum };
	free(disk[g].text);
	disk[g].text_bytes = generation_text_end(order->text, order->text_bytes, files, order->count);
	disk[g].text = malloc(disk[g].text_bytes);
	memcpy(disk[g].text, order->text, disk[g].text_bytes);
}

static void generation_seek(struct file_order *order)
{
	int32_t best = -1;

	seek_count++;
	for (int32_t g = 0; g < GENERATION_COUNT; g++)
		if (disk[g].there && disk[g].name.step <= order->step &&
		    generation_compare(&disk[g].name, &order->generation) < 0 &&
		    (best < 0 || disk[g].name.version > disk[best].name.version))
			best = g;
	if (best < 0) {
		reason_set(&order->reason, 0, "nothing so old");
		return;
	}
	order->generation = disk[best].name;
	order->text = malloc(disk[best].text_bytes);
	memcpy(order->text, disk[best].text, disk[best].text_bytes);
	order->text_bytes = disk[best].text_bytes;
}

static int generation_fill(struct file_order *order)
{
	fill_count++;
	for (uint32_t g = 0; g < GENERATION_COUNT; g++) {
		if (!disk[g].there || generation_compare(&disk[g].name, &order->generation) != 0)
			continue;
		for (uint32_t i = 0; i < order->count; i++) {
			ck_assert_uint_eq(order->items[i].byte_count, disk[g].byte_counts[i]);
			ck_assert_uint_eq(order->items[i].checksum, layout_checksum(disk[g].images[i], disk[g].byte_counts[i]));
			memcpy(order->items[i].target, disk[g].images[i], disk[g].byte_counts[i]);
		}
		if (!disk[g].damaged)
			return 0;
		disk[g].there = false;
		return reason_set(&order->reason, STATUS_ECORRUPT, "ema.safetensors is damaged");
	}
	return reason_set(&order->reason, -ENOENT, "opening the directory: it is gone");
}

/* Does the oldest order. */
static void disk_do(void)
{
	struct file_order *order;
	int status = 0;

	ck_assert_uint_gt(host.file_count, 0);
	order = host.files[0];
	host.file_status = 0;
	switch (order->work) {
	case FILE_CHECKPOINT:
		generation_write(order);
		for (uint32_t i = 0; i < order->count; i++)
			order->items[i].checksum = layout_checksum(order->items[i].bytes, order->items[i].byte_count);
		break;
	case FILE_FACTS:
		generation_facts(order);
		break;
	case FILE_SEEK:
		generation_seek(order);
		break;
	case FILE_FILL:
		status = generation_fill(order);
		break;
	case FILE_BACK:
		back_count += order->count;
		back_step = order->step;
		for (uint32_t i = 0; i < order->count; i++)
			order->items[i].step_left = order->step;
		break;
	case FILE_LIST:
		order->listing = calloc(1, sizeof *order->listing);
		break;
	case FILE_KEEP:
	case FILE_MARK:
	case FILE_FIND:
	case FILE_BAD:
	case FILE_DISCARD:
		break;
	}
	host.file_status = status;
	fake_host_write(&host);
	fake_host_settle(&host);
}

static void disk_settle(void)
{
	while (host.file_count > 0)
		disk_do();
	fake_host_settle(&host);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static uint64_t push_ask(uint64_t step, float value)
{
	fake_trainer_fill(&trainer, 0, value);
	return fake_trainer_push(&trainer, step, 0, true);
}

static const struct fake_reply *push(uint64_t step, float value)
{
	return fake_host_expect(&host, push_ask(step, value), 0);
}

/* Pushes steps with the values of their numbers; those that are told are written to disk. */
static void train(uint64_t first, uint64_t last, uint64_t every)
{
	for (uint64_t step = first; step <= last; step++) {
		ck_assert_str_eq(push(step, (float)step)->outcome, step == 1 ? "started" : "applied");
		if (every > 0 && step % every == 0) {
			uint64_t number = fake_query(&host, OP_CHECKPOINT, "run42/net");

			disk_settle();
			(void)fake_host_expect(&host, number, 0);
		}
	}
}

/* The average after steps 1 to last. */
static float expected(uint64_t last)
{
	float average = 1;

	for (uint64_t step = 2; step <= last; step++)
		average = 0.5f * average + 0.5f * (float)step;
	return average;
}

static uint64_t rollback_from(uint64_t peer, uint64_t step, bool dry_run)
{
	struct request request = { .operation = OP_ROLLBACK };

	request_set(&request, model, text_of("run42/net"));
	request_set(&request, step, step);
	if (dry_run)
		request_set(&request, dry_run, true);
	return fake_host_ask(&host, peer, &request, NULL, 0);
}

static uint64_t rollback(uint64_t step)
{
	return rollback_from(5000, step, false);
}

static const struct fake_reply *expect_back(uint64_t number, uint64_t step, const char *source)
{
	const struct fake_reply *answer = fake_host_expect(&host, number, 0);

	ck_assert_uint_eq(answer->reply.step, step);
	ck_assert_msg(text_equal(answer->reply.source, source), "not in %s", source);
	ck_assert_uint_eq(newest()->step, step);
	ck_assert_uint_eq(newest()->version, answer->reply.version);
	ck_assert_uint_eq(newest()->checksum, slot_header_checksum(newest()));
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(step));
	ck_assert_uint_eq(net()->step, step);
	ck_assert(!net()->restore.holds);
	return answer;
}

static void says(const struct fake_reply *answer, const char *part)
{
	ck_assert_msg(strstr(answer->error, part) != NULL, "'%s' says nothing of '%s'", answer->error, part);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

START_TEST(a_version_in_memory_is_the_newest_at_once)
{
	const struct fake_reply *answer;

	train(1, 5, 0);
	answer = expect_back(rollback(4), 4, "memory");
	ck_assert_uint_eq(answer->reply.taken, 4);
	ck_assert_uint_eq(answer->reply.version, 6);
	ck_assert_uint_eq(answer->reply.last_step, 5);
	ck_assert_uint_eq(answer->reply.updates, 3);
	ck_assert_uint_eq(seek_count, 0);
	ck_assert_uint_eq(counters()->rewinds, 1);
	/* Its checkpoint is under way. */
	ck_assert_uint_eq(host.file_count, 1);
	ck_assert_int_eq(host.files[0]->work, FILE_CHECKPOINT);
	ck_assert_str_eq(push(5, 5)->outcome, "applied");
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(5));
}
END_TEST

START_TEST(a_repeat_finds_what_it_went_back_to)
{
	train(1, 5, 0);
	(void)expect_back(rollback(4), 4, "memory");
	ck_assert_uint_eq(expect_back(rollback(4), 4, "memory")->reply.taken, 6);
	ck_assert_uint_eq(newest()->version, 6);
	ck_assert_uint_eq(counters()->rewinds, 1);
	disk_settle();
	(void)expect_back(rollback(1000), 4, "memory");
	ck_assert_uint_eq(seek_count, 0);
}
END_TEST

START_TEST(the_update_under_way_ends_first_and_what_waits_is_dropped)
{
	uint64_t under_way, waiting, number;

	train(1, 5, 0);
	host.prompt = false;
	under_way = push_ask(6, 100);
	fake_trainer_fill(&trainer, 1, 200);
	waiting = fake_trainer_push(&trainer, 7, 1, true);
	number = rollback(4);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_apply(&host);
	ck_assert_str_eq(fake_host_expect(&host, under_way, 0)->outcome, "applied");
	host.prompt = true;
	/* Its slot went to the update: of steps up to 4, there is none left but that. */
	(void)expect_back(number, 4, "memory");
	ck_assert_str_eq(fake_host_expect(&host, waiting, 0)->outcome, "incomplete");
	ck_assert_ptr_nonnull(strstr(fake_host_expect(&host, waiting, 0)->refusal, "rolled back to an earlier step"));
	ck_assert_uint_eq(counters()->pushes_incomplete, 1);
	disk_settle();
	ck_assert_uint_eq(push(9, 9)->reply.calls, 5);
}
END_TEST

START_TEST(a_slot_on_its_way_to_disk_is_waited_for)
{
	uint64_t number, checkpoint;

	train(1, 5, 0);
	checkpoint = fake_query(&host, OP_CHECKPOINT, "run42/net");
	train(6, 6, 0);
	number = rollback(5);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	/* Nothing comes between. */
	ck_assert_ptr_null(fake_host_answer(&host, push_ask(7, 7)));
	disk_do();
	(void)fake_host_expect(&host, checkpoint, 0);
	(void)expect_back(number, 5, "memory");
}
END_TEST

START_TEST(readers_of_that_very_version_lose_it_and_others_keep_theirs)
{
	const struct fake_reply *view;
	uint64_t fence[2];
	const struct slot_header *slots[2];

	train(1, 4, 0);
	view = fake_host_expect(&host, fake_view(&host, 900, "run42/net", NULL, 0, 0), 0);
	fence[0] = view->reply.fence;
	slots[0] = (const void *)fake_host_map(&host, view->fd);
	train(5, 5, 0);
	view = fake_host_expect(&host, fake_view(&host, 901, "run42/net", NULL, 0, 0), 0);
	fence[1] = view->reply.fence;
	slots[1] = (const void *)fake_host_map(&host, view->fd);
	(void)expect_back(rollback(4), 4, "memory");
	ck_assert_uint_ne(slots[0]->fence, fence[0]);
	ck_assert_uint_eq(slots[1]->fence, fence[1]);
	ck_assert_uint_eq(counters()->leases_revoked, 1);
}
END_TEST

/* ---- disk -------------------------------------------------------------------------------------------------------- */

START_TEST(a_version_on_disk_comes_back_with_all_its_facts)
{
	struct slot_profile facts[2];
	const struct fake_reply *answer;
	uint64_t number;
	char *history;

	train(1, 4, 4);
	memcpy(facts, newest()->profiles, sizeof facts);
	train(5, 12, 0);
	number = rollback(6);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	disk_settle();
	answer = expect_back(number, 4, "disk");
	ck_assert_uint_eq(answer->reply.taken, 4);
	ck_assert_uint_eq(answer->reply.version, 13);
	for (int p = 0; p < 2; p++) {
		ck_assert_uint_eq(newest()->profiles[p].updates, facts[p].updates);
		ck_assert_uint_eq(newest()->profiles[p].calls, facts[p].calls);
		ck_assert(newest()->profiles[p].decay_rest == facts[p].decay_rest);
	}
	history = net()->histories[1];
	ck_assert_str_eq(history, "[{\"step\":4,\"updates\":3,\"change\":\"rolled back\",\"from\":\"step 12\",\"to\":\"step 4\"}]");
	train(5, 7, 0);
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(7));
}
END_TEST

START_TEST(the_newer_of_memory_and_disk_is_taken)
{
	uint64_t number;

	/* A reader keeps step 2 in memory; step 4 is on disk. */
	train(1, 2, 0);
	(void)fake_host_expect(&host, fake_view(&host, 900, "run42/net", NULL, 0, 0), 0);
	train(3, 4, 4);
	train(5, 8, 0);
	number = rollback(6);
	disk_settle();
	(void)expect_back(number, 4, "disk");
}
END_TEST

START_TEST(a_dry_run_says_which_and_changes_nothing)
{
	const struct fake_reply *answer;
	uint64_t number, version;

	train(1, 4, 4);
	train(5, 12, 0);
	version = newest()->version;
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		number = rollback_from(5000, on_disk ? 6 : 11, true);
		disk_settle();
		answer = fake_host_expect(&host, number, 0);
		ck_assert(text_equal(answer->reply.source, on_disk ? "disk" : "memory"));
		ck_assert_uint_eq(answer->reply.step, on_disk ? 4 : 11);
		ck_assert_uint_eq(answer->reply.version, version);
		ck_assert_uint_eq(newest()->version, version);
		ck_assert_uint_eq(newest()->step, 12);
	}
	ck_assert_uint_eq(fill_count, 0);
	ck_assert_uint_eq(counters()->rewinds, 0);
	ck_assert_ptr_null(net()->histories[0]);
}
END_TEST

START_TEST(training_waits_while_it_is_read_and_readers_do_not)
{
	uint64_t number, pushed;

	train(1, 4, 4);
	train(5, 12, 0);
	number = rollback(6);
	disk_do(); /* the seek */
	pushed = push_ask(13, 13);
	ck_assert_ptr_null(fake_host_answer(&host, pushed));
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(12));
	ck_assert_uint_eq(newest()->step, 12);
	disk_do(); /* the fill */
	(void)expect_back(number, 4, "disk");
	ck_assert_str_eq(fake_host_expect(&host, pushed, 0)->outcome, "incomplete");
}
END_TEST

START_TEST(what_is_damaged_or_gone_is_passed_over)
{
	uint64_t number;

	train(1, 9, 3);
	train(10, 15, 0);
	disk[1].damaged = _i == 0;
	number = rollback(7);
	disk_do();
	if (_i == 1)
		disk[1].there = false;
	disk_settle();
	(void)expect_back(number, 3, "disk");
	ck_assert_uint_eq(fill_count, 2);
	ck_assert_uint_eq(counters()->checkpoints_bad, _i == 0 ? 1 : 0);
	train(4, 6, 0);
}
END_TEST

START_TEST(when_nothing_is_left_all_is_as_before)
{
	uint64_t number;

	train(1, 3, 3);
	train(4, 9, 0);
	disk[0].damaged = true;
	number = rollback(3);
	disk_settle();
	says(fake_host_expect(&host, number, STATUS_ENOVERSION), "on disk is nothing so old; in memory: ");
	ck_assert_uint_eq(newest()->step, 9);
	ck_assert(!net()->restore.holds && !restore_busy(net()));
	train(10, 12, 0);
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(12));
}
END_TEST

START_TEST(an_unreadable_disk_is_an_answer)
{
	uint64_t number;

	train(1, 3, 3);
	train(4, 9, 0);
	number = rollback(3);
	host.file_status = -EIO;
	fake_host_write(&host);
	says(fake_host_expect(&host, number, -EIO), "it cannot be written");
	host.file_status = 0;
	train(10, 11, 0);
}
END_TEST

START_TEST(other_profiles_on_disk_are_refused_and_another_decay_is_not)
{
	static const char *const more[] = { "more=constant:decay=0.1", NULL };
	static const char *const other[] = { "slow=constant:decay=0.9", NULL };
	uint64_t number;

	train(1, 3, 3);
	train(4, 6, 0);
	(void)fake_host_expect(&host, fake_profiles_set(&host, "run42/net", more, 1000), 0);
	train(7, 9, 0);
	number = rollback(3);
	disk_settle();
	says(fake_host_expect(&host, number, STATUS_EPROFILE), "the checkpoint of step 3 has other profiles");
	ck_assert_uint_eq(fill_count, 0);
	ck_assert(!net()->restore.holds);
	(void)fake_host_expect(&host, fake_profile_remove(&host, "run42/net", "more", 1000), 0);
	train(10, 12, 0);
	(void)fake_host_expect(&host, fake_profiles_set(&host, "run42/net", other, 1000), 0);
	number = rollback(3);
	disk_settle();
	(void)expect_back(number, 3, "disk");
}
END_TEST

START_TEST(straight_after_a_change_of_profiles_the_disk_still_serves)
{
	static const char *const more[] = { "more=constant:decay=0.1", NULL };
	uint64_t number;

	train(1, 3, 0);
	(void)fake_host_expect(&host, fake_profiles_set(&host, "run42/net", more, 1000), 0);
	train(4, 4, 4);
	train(5, 6, 0);
	(void)fake_host_expect(&host, fake_profile_remove(&host, "run42/net", "more", 1000), 0);
	(void)fake_host_expect(&host, fake_profiles_set(&host, "run42/net", more, 1000), 0);
	ck_assert_ptr_nonnull(net()->heirloom.geometry);
	number = rollback(5);
	disk_settle();
	(void)expect_back(number, 4, "disk");
	ck_assert_ptr_null(net()->heirloom.geometry);
	train(5, 6, 0);
}
END_TEST

START_TEST(checkpoints_of_an_average_before_are_not_gone_back_to)
{
	train(1, 3, 3);
	trainer.resume = "never";
	fake_trainer_join(&trainer);
	push(10, 10);
	push(11, 10);
	says(fake_host_expect(&host, rollback(5), STATUS_ENOVERSION), "the oldest of its 3 slots holds step 10; in memory: 10 11");
	ck_assert_uint_eq(seek_count, 0);
}
END_TEST

enum { PHASE_ASKED, PHASE_SOUGHT, PHASE_FILLED, PHASE_COUNT };

/* One way to the disk whose nth allocation in a phase fails; false when it needed fewer. */
static bool without_memory(int phase, uint64_t nth)
{
	const struct fake_reply *answer;
	uint64_t number;
	bool failed = false;

	train(1, 4, 4);
	train(5, 12, 0);
	if (phase == PHASE_ASKED)
		failing_heap_arm(nth, false);
	number = rollback(6);
	if (phase == PHASE_ASKED)
		failed = failing_heap_disarm();
	if (phase == PHASE_FILLED)
		disk_do();
	if (phase != PHASE_ASKED) {
		if (phase == PHASE_SOUGHT)
			generation_seek(host.files[0]);
		else
			ck_assert_int_eq(generation_fill(host.files[0]), 0);
		host.file_status = 0;
		failing_heap_arm(nth, false);
		fake_host_write(&host);
		failed = failing_heap_disarm();
	}
	disk_settle();
	answer = fake_host_answer(&host, number);
	ck_assert_msg(answer != NULL, "phase %d: no answer when allocation %lu fails", phase, (unsigned long)nth);
	ck_assert(answer->reply.status == 0 || (failed && answer->reply.status == -ENOMEM));
	ck_assert_uint_eq(newest()->step, answer->reply.status == 0 ? 4 : 12);
	ck_assert(!net()->restore.holds && !restore_busy(net()));
	train(newest()->step + 1, newest()->step + 2, 0);
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(newest()->step));
	return failed;
}

START_TEST(without_memory_on_the_way_to_the_disk_nothing_has_happened)
{
	uint64_t nth = 1;

	while (without_memory(_i, nth)) {
		teardown();
		setup();
		nth++;
	}
	ck_assert_uint_gt(nth, 1);
}
END_TEST

/* ---- whoever goes away ------------------------------------------------------------------------------------------- */

START_TEST(one_who_goes_away_has_changed_nothing)
{
	train(1, 4, 4);
	train(5, 12, 0);
	(void)rollback(6);
	for (int i = 0; i < _i; i++)
		disk_do();
	fake_host_gone(&host, 5000);
	disk_settle();
	ck_assert_uint_eq(newest()->step, 12);
	ck_assert(!net()->restore.holds && !restore_busy(net()));
	train(13, 15, 0);
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(15));
	(void)expect_back(rollback(14), 14, "memory");
}
END_TEST

START_TEST(a_request_that_waits_too_long_lets_go)
{
	struct request request = { .operation = OP_ROLLBACK };
	uint64_t number;

	train(1, 4, 4);
	train(5, 12, 0);
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, step, 6);
	request_set(&request, timeout_ms, 500);
	number = fake_host_ask(&host, 5000, &request, NULL, 0);
	disk_do();
	fake_host_wait(&host, 1000);
	(void)fake_host_expect(&host, number, STATUS_ETIMEOUT);
	disk_settle();
	ck_assert_uint_eq(newest()->step, 12);
	train(13, 14, 0);
}
END_TEST

START_TEST(two_at_once_come_one_after_the_other)
{
	uint64_t first, second;

	train(1, 8, 4);
	train(9, 12, 0);
	first = rollback_from(5000, 9, false);
	second = rollback_from(5001, 6, false);
	disk_settle();
	(void)fake_host_expect(&host, first, 0);
	(void)expect_back(second, 4, "disk");
	ck_assert_uint_eq(counters()->rewinds, 2);
}
END_TEST

START_TEST(a_model_that_is_removed_meanwhile_is_gone_when_the_disk_lets_go)
{
	uint64_t number, removal;

	train(1, 4, 4);
	train(5, 12, 0);
	number = rollback(6);
	for (int i = 0; i < _i; i++)
		disk_do();
	removal = fake_query(&host, OP_REMOVE, "run42/net");
	disk_settle();
	(void)fake_host_expect(&host, removal, 0);
	/* What had begun may have come to its end before. */
	ck_assert_ptr_nonnull(fake_host_answer(&host, number));
	if (_i == 0)
		(void)fake_host_expect(&host, number, STATUS_ENOMODEL);
	ck_assert_ptr_null(net());
	ck_assert_uint_eq(service_memory_bytes(host.service), 0);
}
END_TEST

START_TEST(the_end_waits_for_what_is_being_read)
{
	train(1, 4, 4);
	train(5, 12, 0);
	(void)rollback(6);
	disk_do();
	service_stop(host.service, &host.now);
	ck_assert(!service_idle(host.service));
	disk_settle();
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(slots_that_readers_hold_are_waited_for_and_taken_back)
{
	uint64_t number;

	train(1, 4, 4);
	for (uint64_t peer = 900; peer < 903; peer++) {
		train(5 + peer - 900, 5 + peer - 900, 0);
		(void)fake_host_expect(&host, fake_view(&host, peer, "run42/net", NULL, 0, 0), 0);
	}
	number = rollback(4);
	disk_do();
	ck_assert_ptr_null(fake_host_answer(&host, number));
	ck_assert_uint_eq(host.file_count, 0);
	fake_host_wait(&host, host.settings.lease_min_ms);
	disk_settle();
	(void)expect_back(number, 4, "disk");
	ck_assert_uint_eq(counters()->leases_revoked, 1);
}
END_TEST

/* ---- registrations ----------------------------------------------------------------------------------------------- */

START_TEST(a_registration_goes_back_to_the_disk)
{
	const uint64_t start_step = 7;
	uint64_t number;

	train(1, 5, 5);
	train(6, 20, 0);
	trainer.start_step = &start_step;
	trainer.rewind = "back";
	number = fake_trainer_register(&trainer);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	disk_settle();
	fake_trainer_registered(&trainer, number);
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	ck_assert_uint_eq(newest()->step, 5);
	ck_assert_uint_eq(newest()->version, 21);
	ck_assert_float_eq(fake_average(&host, "run42/net", "ema"), expected(5));
	ck_assert_ptr_nonnull(strstr(net()->histories[0], "\"rewound\",\"from\":\"step 20\""));
	ck_assert_uint_eq(push(7, 7)->reply.calls, 2);
}
END_TEST

START_TEST(a_registration_that_finds_nothing_leaves_the_one_before)
{
	const uint64_t start_step = 3;
	struct fake_trainer other;
	uint64_t number;

	train(1, 5, 5);
	train(6, 9, 0);
	fake_trainer_init(&other, &host, "run42/net", fake_manifest(0, 1));
	memcpy(other.profiles, trainer.profiles, sizeof other.profiles);
	other.profile_count = 2;
	other.start_step = &start_step;
	other.rewind = "back";
	number = fake_trainer_register(&other);
	disk_settle();
	says(fake_host_expect(&host, number, STATUS_ENOVERSION), "and on disk is nothing so old; rewind=continue goes on from step 9");
	train(10, 12, 0);
	fake_trainer_finish(&other);
}
END_TEST

/* ---- what goes along --------------------------------------------------------------------------------------------- */

START_TEST(averages_kept_of_later_steps_go_aside)
{
	static const char *const keeps[] = { "ema=constant:decay=0.5,snapshot=2", NULL };

	(void)fake_host_expect(&host, fake_profiles_set(&host, "run42/net", keeps, 1000), 0);
	for (uint64_t step = 1; step <= 7; step++) {
		train(step, step, 0);
		disk_settle();
	}
	(void)expect_back(rollback(5), 5, "memory");
	disk_settle();
	ck_assert_uint_eq(back_count, 1);
	ck_assert_uint_eq(back_step, 5);
	ck_assert_uint_eq(keep_find(net(), "ema")->step, 5);
}
END_TEST

START_TEST(history_and_marks_wait_for_the_disk_and_for_nothing_else)
{
	struct request request = { .operation = OP_CHECKPOINT_KEEP };
	uint64_t listed, marked;

	train(1, 3, 0);
	listed = fake_query(&host, OP_HISTORY, "run42/net");
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, step, 3);
	request_set(&request, keep, true);
	marked = fake_host_ask(&host, 5000, &request, NULL, 0);
	ck_assert_ptr_null(fake_host_answer(&host, listed));
	train(4, 5, 0);
	ck_assert_uint_eq(host.file_count, 2);
	ck_assert(!service_idle(host.service));
	disk_settle();
	ck_assert_ptr_nonnull(strstr(fake_host_expect(&host, listed, 0)->body, "\"versions\":[{\"step\":5,"));
	(void)fake_host_expect(&host, marked, 0);
	ck_assert(service_idle(host.service));
	/* And who asks and goes away leaves nothing. */
	(void)fake_query(&host, OP_HISTORY, "run42/net");
	fake_host_gone(&host, 9999);
	disk_settle();
	ck_assert_ptr_null(host.service->inquiries);
	(void)fake_host_expect(&host, fake_query(&host, OP_HISTORY, "no/such"), STATUS_ENOMODEL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_rollback");
	TCase *tcase = tcase_create("service_rollback");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_version_in_memory_is_the_newest_at_once);
	tcase_add_test(tcase, a_repeat_finds_what_it_went_back_to);
	tcase_add_test(tcase, the_update_under_way_ends_first_and_what_waits_is_dropped);
	tcase_add_test(tcase, a_slot_on_its_way_to_disk_is_waited_for);
	tcase_add_test(tcase, readers_of_that_very_version_lose_it_and_others_keep_theirs);
	tcase_add_test(tcase, a_version_on_disk_comes_back_with_all_its_facts);
	tcase_add_test(tcase, the_newer_of_memory_and_disk_is_taken);
	tcase_add_test(tcase, a_dry_run_says_which_and_changes_nothing);
	tcase_add_test(tcase, training_waits_while_it_is_read_and_readers_do_not);
	tcase_add_loop_test(tcase, what_is_damaged_or_gone_is_passed_over, 0, 2);
	tcase_add_test(tcase, when_nothing_is_left_all_is_as_before);
	tcase_add_test(tcase, an_unreadable_disk_is_an_answer);
	tcase_add_test(tcase, other_profiles_on_disk_are_refused_and_another_decay_is_not);
	tcase_add_test(tcase, straight_after_a_change_of_profiles_the_disk_still_serves);
	tcase_add_test(tcase, checkpoints_of_an_average_before_are_not_gone_back_to);
	tcase_add_loop_test(tcase, one_who_goes_away_has_changed_nothing, 0, 2);
	tcase_add_test(tcase, a_request_that_waits_too_long_lets_go);
	tcase_add_test(tcase, two_at_once_come_one_after_the_other);
	tcase_add_loop_test(tcase, a_model_that_is_removed_meanwhile_is_gone_when_the_disk_lets_go, 0, 2);
	tcase_add_test(tcase, the_end_waits_for_what_is_being_read);
	tcase_add_test(tcase, slots_that_readers_hold_are_waited_for_and_taken_back);
	tcase_add_test(tcase, a_registration_goes_back_to_the_disk);
	tcase_add_test(tcase, a_registration_that_finds_nothing_leaves_the_one_before);
	tcase_add_loop_test(tcase, without_memory_on_the_way_to_the_disk_nothing_has_happened, 0, PHASE_COUNT);
	tcase_add_test(tcase, averages_kept_of_later_steps_go_aside);
	tcase_add_test(tcase, history_and_marks_wait_for_the_disk_and_for_nothing_else);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
