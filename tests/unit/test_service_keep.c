/*
 * Keeping averages on disk, through a host that writes when the test says so: what is due, that its slot stays as it is
 * until it is written, and that nobody waits for that.
 */
#include "tests/unit/fake_host.h"

#include "tests/unit/failing_heap.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;
static struct fake_trainer trainer;

static void start(uint64_t slot_count, const char *state_dir)
{
	fake_host_init(&host);
	host.settings.slot_count = slot_count;
	host.state_dir = state_dir;
	host.holds_files = true;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
}

/* Two profiles, of which the one has a file every 4 steps and the other every 6, 3 of them at most. */
static void start_two(uint64_t slot_count)
{
	start(slot_count, "/state");
	trainer.profiles[0] = "short=power:std=0.05,snapshot=4";
	trainer.profiles[1] = "long=power:std=0.1,snapshot=6,keep=3";
	trainer.profile_count = 2;
	fake_trainer_join(&trainer);
}

static void setup(void)
{
	start_two(3);
}

static void teardown(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

static void push(uint64_t step)
{
	fake_trainer_fill(&trainer, 0, (float)step);
	(void)fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
}

static void push_until(uint64_t first, uint64_t last)
{
	for (uint64_t step = first; step <= last; step++)
		push(step);
}

/* The one order that waits. */
static struct file_order *order(void)
{
	ck_assert_uint_eq(host.file_count, 1);
	return host.files[0];
}

/* A member of what show says of the model, or of one of its profiles; free with json_decref. */
static json_t *shown(const char *profile, const char *member)
{
	const struct fake_reply *answer = fake_host_expect(&host, fake_query(&host, OP_SHOW, "run42/net"), 0);
	json_t *root = json_loads(answer->body, 0, NULL), *value = NULL, *row;
	size_t i;

	ck_assert_ptr_nonnull(root);
	if (!profile)
		value = json_incref(json_object_get(root, member));
	json_array_foreach(json_object_get(root, "profiles"), i, row)
		if (profile && strcmp(json_string_value(json_object_get(row, "name")), profile) == 0)
			value = json_incref(json_object_get(row, member));
	json_decref(root);
	ck_assert_ptr_nonnull(value);
	return value;
}

static void expect_shown(const char *profile, uint64_t step, const char *error_part)
{
	json_t *at = shown(profile, "snapshot_step"), *error = shown(profile, "snapshot_error");

	ck_assert(step == 0 ? json_is_null(at) : (uint64_t)json_integer_value(at) == step);
	ck_assert(error_part ? strstr(json_string_value(error), error_part) != NULL : json_is_null(error));
	json_decref(at);
	json_decref(error);
}

/* ---- due --------------------------------------------------------------------------------------------------------- */

START_TEST(each_profile_is_due_by_its_own_steps)
{
	push_until(1, 3);
	ck_assert_uint_eq(host.file_count, 0);
	push(4);
	ck_assert_uint_eq(order()->step, 4);
	ck_assert_uint_eq(order()->count, 1);
	ck_assert_str_eq(order()->items[0].directory, "snapshots/run42/net/short");
	ck_assert_uint_eq(order()->items[0].interval, 4);
	ck_assert_uint_eq(order()->items[0].keep_count, 0);
	fake_host_write(&host);
	push_until(5, 6);
	ck_assert_uint_eq(order()->step, 6);
	ck_assert_str_eq(order()->items[0].directory, "snapshots/run42/net/long");
	ck_assert_uint_eq(order()->items[0].interval, 6);
	ck_assert_uint_eq(order()->items[0].keep_count, 3);
	fake_host_write(&host);
	push_until(7, 8);
	fake_host_write(&host);
	push_until(9, 12);
	ck_assert_uint_eq(order()->step, 12);
	ck_assert_uint_eq(order()->count, 2);
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->snapshots_written, 5);
	ck_assert_uint_eq(counters()->snapshots_skipped, 0);
	expect_shown("short", 12, NULL);
	expect_shown("long", 12, NULL);
}
END_TEST

START_TEST(a_gap_over_several_multiples_is_one_file)
{
	push_until(1, 2);
	push(23);
	ck_assert_uint_eq(order()->step, 23);
	ck_assert_uint_eq(order()->count, 2);
	fake_host_write(&host);
	push(24);
	ck_assert_uint_eq(order()->step, 24);
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
}
END_TEST

START_TEST(a_training_that_begins_late_has_no_file_of_its_start)
{
	push(1003);
	ck_assert_uint_eq(host.file_count, 0);
	push(1004);
	ck_assert_uint_eq(order()->step, 1004);
}
END_TEST

START_TEST(a_file_is_the_image_that_readers_see)
{
	const struct fake_reply *view;
	const uint8_t *image;

	push_until(1, 12);
	while (host.file_count > 0)
		fake_host_write(&host);
	push_until(13, 16);
	view = fake_host_expect(&host, fake_view(&host, 700, "run42/net", "short", 0, 0), 0);
	image = fake_host_map(&host, view->fd) + view->reply.region_offset;
	ck_assert_uint_eq(order()->step, view->reply.step);
	ck_assert_uint_eq(order()->items[0].byte_count, view->reply.region_bytes);
	ck_assert_int_eq(memcmp(order()->items[0].bytes, image, view->reply.region_bytes), 0);
	fake_host_gone(&host, 700);
}
END_TEST

/* ---- pinned ------------------------------------------------------------------------------------------------------ */

START_TEST(the_slot_stays_as_it_is_while_updates_go_on)
{
	uint8_t *before;
	uint64_t bytes;

	push_until(1, 4);
	bytes = order()->items[0].byte_count;
	before = malloc(bytes);
	memcpy(before, order()->items[0].bytes, bytes);
	/* Longer than any lease. */
	fake_host_wait(&host, 100 * host.settings.lease_min_ms);
	push_until(5, 40);
	ck_assert_uint_eq(order()->step, 4);
	ck_assert_int_eq(memcmp(before, order()->items[0].bytes, bytes), 0);
	ck_assert_uint_eq(counters()->leases_revoked, 0);
	free(before);
	fake_host_write(&host);
	push_until(41, 60);
}
END_TEST

START_TEST(what_comes_due_meanwhile_is_skipped_where_updates_need_its_slot)
{
	push_until(1, 20);
	ck_assert_uint_eq(order()->step, 4);
	/* 6, 8, 12 of both, 16, 18 gave way; 20 waits and is still there. */
	ck_assert_uint_eq(counters()->snapshots_skipped, 6);
	fake_host_write(&host);
	ck_assert_uint_eq(order()->step, 20);
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->snapshots_written, 2);
	ck_assert_uint_eq(counters()->snapshots_skipped, 6);
	/* 28 and 30 give way, and 32 has lost its slot to 34 before the disk is ready. */
	push_until(21, 34);
	ck_assert_uint_eq(order()->step, 24);
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert_uint_eq(counters()->snapshots_skipped, 6 + 3);
}
END_TEST

START_TEST(with_a_fourth_slot_the_newest_one_waits_until_it_is_written)
{
	teardown();
	start_two(4);
	push_until(1, 11);
	ck_assert_uint_eq(order()->step, 4);
	/* 6 gave way to 8. */
	ck_assert_uint_eq(counters()->snapshots_skipped, 1);
	push_until(12, 15);
	ck_assert_uint_eq(counters()->snapshots_skipped, 2);
	fake_host_write(&host);
	ck_assert_uint_eq(order()->step, 12);
	ck_assert_uint_eq(order()->count, 2);
	push_until(16, 40);
	ck_assert_uint_eq(order()->step, 12);
	fake_host_write(&host);
	ck_assert_uint_eq(order()->step, 40);
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	/* No pin is left over: all slots can be used again. */
	push_until(41, 43);
}
END_TEST

START_TEST(skipped_ones_are_told_with_the_next_that_is_written)
{
	push_until(1, 20);
	host.event[0] = '\0';
	fake_host_write(&host);
	ck_assert_ptr_nonnull(strstr(host.event, "6 averages were not kept"));
	host.event[0] = '\0';
	fake_host_write(&host);
	ck_assert_str_eq(host.event, "");
}
END_TEST

/* ---- failures ---------------------------------------------------------------------------------------------------- */

START_TEST(a_file_that_cannot_be_written_is_given_up_and_told)
{
	push_until(1, 4);
	host.file_status = -ENOSPC;
	fake_host_write(&host);
	ck_assert_ptr_nonnull(strstr(host.event, "run42/net/short: step 4 is not kept on disk: writing 'it'"));
	ck_assert_uint_eq(counters()->snapshots_failed, 1);
	expect_shown("short", 0, "step 4: writing 'it'");
	expect_shown("long", 0, NULL);
	host.file_status = 0;
	push_until(5, 8);
	ck_assert_uint_eq(order()->step, 6);
	fake_host_write(&host);
	/* 8 has waited. */
	fake_host_write(&host);
	expect_shown("short", 8, NULL);
	expect_shown("long", 6, NULL);
	ck_assert_uint_eq(counters()->snapshots_failed, 1);
}
END_TEST

START_TEST(without_memory_a_file_is_given_up_and_the_training_goes_on)
{
	uint64_t number;
	bool failed;

	push_until(1, 3);
	host.prompt = false;
	fake_trainer_fill(&trainer, 0, 4);
	number = fake_trainer_push(&trainer, 4, 0, true);
	failing_heap_arm(1, true);
	fake_host_apply(&host);
	failed = failing_heap_disarm();
	host.prompt = true;
	ck_assert(failed);
	ck_assert_str_eq(fake_host_expect(&host, number, 0)->outcome, "applied");
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert_uint_eq(counters()->snapshots_failed, 1);
	push_until(5, 8);
	ck_assert_uint_eq(order()->step, 6);
}
END_TEST

START_TEST(files_of_an_earlier_average_go_aside_once)
{
	push_until(1, 4);
	ck_assert(order()->items[0].starts);
	host.file_status = -EIO;
	fake_host_write(&host);
	host.file_status = 0;
	push_until(5, 6);
	ck_assert(order()->items[0].starts);
	fake_host_write(&host);
	push_until(7, 8);
	/* Nothing of it was written yet. */
	ck_assert_str_eq(order()->items[0].profile, "short");
	ck_assert(order()->items[0].starts);
	fake_host_write(&host);
	push_until(9, 12);
	ck_assert_uint_eq(order()->count, 2);
	ck_assert(!order()->items[0].starts);
	ck_assert(!order()->items[1].starts);
}
END_TEST

START_TEST(a_model_that_starts_anew_moves_the_files_aside)
{
	push_until(1, 4);
	fake_host_write(&host);
	trainer.resume = "never";
	fake_trainer_join(&trainer);
	push_until(1, 4);
	ck_assert(order()->items[0].starts);
}
END_TEST

START_TEST(an_adapted_model_goes_on_with_its_files)
{
	struct fake_trainer other;

	push_until(1, 4);
	fake_host_write(&host);
	fake_trainer_init(&other, &host, "run42/net", fake_manifest(0, 1));
	other.profiles[0] = "short=power:std=0.05,snapshot=2";
	other.profiles[1] = "new=yolo:snapshot=2";
	other.profile_count = 2;
	other.resume = "adapt";
	fake_trainer_join(&other);
	fake_trainer_finish(&trainer);
	trainer = other;
	push_until(5, 6);
	ck_assert_uint_eq(order()->count, 2);
	ck_assert_str_eq(order()->items[0].profile, "short");
	ck_assert(!order()->items[0].starts);
	ck_assert_str_eq(order()->items[1].profile, "new");
	ck_assert(order()->items[1].starts);
}
END_TEST

/* ---- the model changes or goes while a file is written ----------------------------------------------------------- */

START_TEST(a_removed_model_keeps_its_memory_until_its_file_is_written)
{
	uint64_t segments, number;

	push_until(1, 4);
	number = fake_query(&host, OP_REMOVE, "run42/net");
	(void)fake_host_expect(&host, number, 0);
	segments = host.segment_count;
	ck_assert_uint_ge(segments, 3);
	(void)fake_host_expect(&host, fake_query(&host, OP_SHOW, "run42/net"), STATUS_ENOMODEL);
	ck_assert(!service_idle(host.service));
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->snapshots_written, 1);
	ck_assert_uint_eq(host.segment_count, 0);
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(the_memory_of_a_removed_model_still_counts)
{
	struct fake_trainer other;
	uint64_t bytes;

	teardown();
	start(3, "/state");
	trainer.profiles[0] = "ema=power:std=0.1,snapshot=1";
	fake_trainer_join(&trainer);
	bytes = host.segment_bytes;
	teardown();
	/* Room for one model and a half. */
	fake_host_init(&host);
	host.state_dir = "/state";
	host.holds_files = true;
	host.settings.memory_bytes_max = bytes + bytes / 2;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	fake_trainer_init(&other, &host, "other", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=power:std=0.1,snapshot=1";
	fake_trainer_join(&trainer);
	push(1);
	(void)fake_host_expect(&host, fake_query(&host, OP_REMOVE, "run42/net"), 0);
	(void)fake_host_expect(&host, fake_trainer_register(&other), STATUS_EMEMORY);
	fake_host_write(&host);
	fake_trainer_join(&other);
	fake_trainer_finish(&other);
}
END_TEST

START_TEST(other_slots_wait_until_the_file_is_written)
{
	struct request request = { .operation = OP_PROFILE_SET };
	struct text_list list = { .count = 1, .items = { text_of("new=yolo") } };
	uint64_t number, bytes;
	uint8_t *before;

	push_until(1, 4);
	bytes = order()->items[0].byte_count;
	before = malloc(bytes);
	memcpy(before, order()->items[0].bytes, bytes);
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, profiles, list);
	number = fake_host_ask(&host, 9999, &request, NULL, 0);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	push_until(5, 9);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	ck_assert_int_eq(memcmp(before, order()->items[0].bytes, bytes), 0);
	free(before);
	fake_host_write(&host);
	/* Nothing that waited in the old slots is begun. */
	ck_assert_uint_eq(host.file_count, 0);
	(void)fake_host_expect(&host, number, 0);
	push_until(10, 12);
	ck_assert_uint_eq(order()->count, 2);
	ck_assert_uint_eq(order()->step, 12);
}
END_TEST

START_TEST(keeping_begins_and_ends_on_request)
{
	struct request request = { .operation = OP_PROFILE_SET };
	struct text_list list = { .count = 2 };
	uint64_t segments = host.segment_count;

	list.items[0] = text_of("short=power:std=0.05");
	list.items[1] = text_of("long=power:std=0.1");
	push_until(1, 4);
	fake_host_write(&host);
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, profiles, list);
	(void)fake_host_expect(&host, fake_host_ask(&host, 9999, &request, NULL, 0), 0);
	push_until(5, 12);
	ck_assert_uint_eq(host.file_count, 0);
	list.items[0] = text_of("short=power:std=0.05,snapshot=5");
	request_set(&request, profiles, list);
	(void)fake_host_expect(&host, fake_host_ask(&host, 9999, &request, NULL, 0), 0);
	push_until(13, 15);
	ck_assert_uint_eq(order()->step, 15);
	/* It is the same average all along. */
	ck_assert(!order()->items[0].starts);
	ck_assert_uint_eq(host.segment_count, segments);
}
END_TEST

START_TEST(an_heir_waits_until_the_file_of_its_ancestor_is_written)
{
	struct fake_trainer other;
	uint64_t number;

	push_until(1, 4);
	fake_trainer_init(&other, &host, "run42/net", fake_manifest(0, 2));
	other.world = 2;
	other.profiles[0] = trainer.profiles[0];
	other.resume = "adapt";
	number = fake_trainer_register(&other);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(counters()->snapshots_written, 1);
	fake_trainer_finish(&other);
}
END_TEST

static uint64_t register_back(uint64_t start_step)
{
	struct request request = { .operation = OP_REGISTER };
	struct text_list list = { .count = trainer.profile_count };

	for (uint32_t p = 0; p < list.count; p++)
		list.items[p] = text_of(trainer.profiles[p]);
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, client, 12345);
	request_set(&request, sequence, 1);
	request_set(&request, rank, 0);
	request_set(&request, world, 1);
	request_set(&request, profiles, list);
	request_set(&request, start_step, start_step);
	request_set(&request, rewind, text_of("back"));
	return fake_host_ask(&host, 5000, &request, trainer.manifest, trainer.manifest_bytes);
}

START_TEST(going_back_to_a_version_waits_until_it_is_written)
{
	uint64_t number;

	push_until(1, 5);
	number = register_back(5);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(counters()->rewinds, 1);
}
END_TEST

/* ---- may it, and the end ----------------------------------------------------------------------------------------- */

START_TEST(without_a_state_directory_nothing_can_be_kept)
{
	const struct fake_reply *answer;
	struct request request = { .operation = OP_PROFILE_SET };
	struct text_list list = { .count = 1, .items = { text_of("ema=yolo:snapshot=7") } };
	json_t *directory;

	teardown();
	for (int empty = 0; empty < 2; empty++) {
		start(3, empty ? "" : NULL);
		trainer.profiles[0] = "ema=power:snapshot=4";
		answer = fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EPROFILE);
		ck_assert_ptr_nonnull(strstr(answer->error, "snapshot=4"));
		ck_assert_ptr_nonnull(strstr(answer->error, "--state-dir"));
		trainer.profiles[0] = "ema=yolo";
		fake_trainer_join(&trainer);
		request_set(&request, model, text_of("run42/net"));
		request_set(&request, profiles, list);
		answer = fake_host_expect(&host, fake_host_ask(&host, 9999, &request, NULL, 0), STATUS_EPROFILE);
		ck_assert_ptr_nonnull(strstr(answer->error, "--state-dir"));
		directory = shown(NULL, "snapshot_dir");
		ck_assert(json_is_null(directory));
		json_decref(directory);
		if (!empty)
			teardown();
	}
}
END_TEST

START_TEST(two_slots_are_too_few)
{
	const struct fake_reply *answer;

	teardown();
	start(2, "/state");
	trainer.profiles[0] = "ema=power:snapshot=4";
	answer = fake_host_expect(&host, fake_trainer_register(&trainer), STATUS_EPROFILE);
	ck_assert_ptr_nonnull(strstr(answer->error, "needs 3 slots"));
	ck_assert_ptr_nonnull(strstr(answer->error, "has 2"));
}
END_TEST

START_TEST(the_directory_is_shown_where_something_is_kept)
{
	json_t *directory = shown(NULL, "snapshot_dir");

	ck_assert_str_eq(json_string_value(directory), "/state/snapshots/run42/net");
	json_decref(directory);
	teardown();
	start(3, "/state");
	fake_trainer_join(&trainer);
	directory = shown(NULL, "snapshot_dir");
	ck_assert(json_is_null(directory));
	json_decref(directory);
}
END_TEST

START_TEST(the_end_waits_for_the_file_and_begins_none_but_a_checkpoint)
{
	push_until(1, 6);
	ck_assert_uint_eq(order()->step, 4);
	ck_assert(!service_idle(host.service));
	service_stop(host.service, &host.now);
	ck_assert(!service_idle(host.service));
	fake_host_write(&host);
	ck_assert_int_eq(order()->work, FILE_CHECKPOINT);
	ck_assert(!service_idle(host.service));
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert(service_idle(host.service));
	ck_assert_uint_eq(counters()->snapshots_skipped, 1);
}
END_TEST

START_TEST(what_was_not_begun_at_the_end_is_no_failure)
{
	push_until(1, 4);
	host.file_status = STATUS_ESHUTDOWN;
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->snapshots_failed, 0);
	ck_assert_uint_eq(counters()->snapshots_skipped, 1);
	expect_shown("short", 0, NULL);
}
END_TEST

/* ---- anything in any order --------------------------------------------------------------------------------------- */

/* The orders that wait, with what their bytes were when they were made. */
struct watched {
	const struct file_order *order;
	uint64_t step, sums[PROFILE_COUNT_MAX];
};

static struct watched watched[FAKE_WAITING_MAX];
static uint64_t watched_count, random_state, step_newest;

static uint64_t item_sum(const struct file_item *item)
{
	return layout_checksum(item->bytes, item->byte_count);
}

/* Every order has a whole image of its step, and keeps it. */
static void watch(void)
{
	for (uint64_t i = 0; i < host.file_count; i++) {
		const struct file_order *at = host.files[i];

		for (uint32_t k = 0; k < at->count; k++) {
			const struct file_item *item = &at->items[k];
			char member[64];

			if (i >= watched_count) {
				snprintf(member, sizeof member, "\"emad.step\":\"%lu\"", (unsigned long)at->step);
				ck_assert_ptr_nonnull(memmem(item->bytes, item->byte_count, member, strlen(member)));
				snprintf(member, sizeof member, "\"emad.profile\":\"%.32s\"", item->profile);
				ck_assert_ptr_nonnull(memmem(item->bytes, item->byte_count, member, strlen(member)));
				watched[i].sums[k] = item_sum(item);
			}
			ck_assert_uint_eq(watched[i].sums[k], item_sum(item));
		}
		if (i >= watched_count) {
			watched[i].order = at;
			watched[i].step = at->step;
		}
		ck_assert_ptr_eq(watched[i].order, at);
		ck_assert_uint_eq(watched[i].step, at->step);
	}
	watched_count = host.file_count;
}

static void walk_write(void)
{
	static const int results[] = { 0, 0, 0, -EIO, -ENOSPC, STATUS_ESHUTDOWN };

	if (host.file_count == 0)
		return;
	host.file_status = results[random_below(&random_state, sizeof results / sizeof results[0])];
	memmove(watched, watched + 1, --watched_count * sizeof *watched);
	fake_host_write(&host);
	fake_host_settle(&host);
}

static void walk_push(void)
{
	uint64_t number;

	step_newest += 1 + (random_below(&random_state, 8) == 0 ? random_below(&random_state, 30) : 0);
	fake_trainer_fill(&trainer, 0, (float)step_newest);
	number = fake_trainer_push(&trainer, step_newest, 0, true);
	/* Readers may hold an update back for their time, files for none. */
	if (!fake_host_answer(&host, number))
		fake_host_wait(&host, host.settings.lease_min_ms);
	(void)fake_host_expect(&host, number, 0);
}

static const char *const walk_profiles[] = {
	"a=power:std=0.05,snapshot=1",  "a=power:std=0.05,snapshot=7,keep=2", "a=yolo:snapshot=2",  "a=yolo",
	"b=power:std=0.1,snapshot=3",   "b=constant:decay=0.5,snapshot=5;freeze=w", "c=swa:snapshot=4", "c=yolo",
};

static void walk_profile_set(void)
{
	struct request request = { .operation = OP_PROFILE_SET };
	struct text_list list = { .count = 1 };

	list.items[0] = text_of(walk_profiles[random_below(&random_state, 8)]);
	request_set(&request, model, text_of("run42/net"));
	request_set(&request, profiles, list);
	(void)fake_host_ask(&host, 9999, &request, NULL, 0);
}

static void walk_profile_remove(void)
{
	static const char *const names[] = { "a", "b", "c" };
	struct request request = { .operation = OP_PROFILE_REMOVE };

	request_set(&request, model, text_of("run42/net"));
	request_set(&request, profile, text_of(names[random_below(&random_state, 3)]));
	(void)fake_host_ask(&host, 9999, &request, NULL, 0);
}

static void walk_answered(uint64_t number)
{
	while (!fake_host_answer(&host, number)) {
		ck_assert_uint_gt(host.file_count, 0);
		walk_write();
		watch();
	}
}

/* Anew, or adapted; now and then by way of another world, which makes an heir. */
static void walk_register(void)
{
	bool anew = random_below(&random_state, 2);
	uint64_t number;

	for (uint32_t world = anew ? 1 : 1 + (uint32_t)random_below(&random_state, 2); world > 0; world--) {
		fake_trainer_finish(&trainer);
		fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, world));
		trainer.world = world;
		trainer.profiles[0] = walk_profiles[random_below(&random_state, 4)];
		trainer.profiles[1] = walk_profiles[4 + random_below(&random_state, 2)];
		trainer.profile_count = 2;
		trainer.resume = anew ? "never" : "adapt";
		number = fake_trainer_register(&trainer);
		walk_answered(number);
		fake_trainer_registered(&trainer, number);
	}
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	step_newest = anew ? 0 : step_newest;
}

static void walk_remove(void)
{
	(void)fake_host_expect(&host, fake_query(&host, OP_REMOVE, "run42/net"), 0);
	walk_register();
}

static void walk_read(void)
{
	uint64_t peer = 800 + random_below(&random_state, 6);

	if (random_below(&random_state, 2))
		(void)fake_view(&host, peer, "run42/net", NULL, 0, 0);
	else
		fake_host_gone(&host, peer);
}

START_TEST(whatever_happens_a_file_is_one_version_and_nobody_waits)
{
	uint64_t seed = 0x9e3779b97f4a7c15 * (uint64_t)(_i + 1);

	teardown();
	start_two(3 + (uint64_t)_i % 3);
	watched_count = 0;
	random_state = seed;
	step_newest = 0;
	for (int i = 0; i < 1500; i++) {
		switch (random_below(&random_state, 40)) {
		case 0:
			walk_profile_set();
			break;
		case 1:
			walk_profile_remove();
			break;
		case 2:
			walk_register();
			break;
		case 3:
			walk_remove();
			break;
		case 4: case 5: case 6:
			walk_read();
			break;
		case 7:
			fake_host_wait(&host, random_below(&random_state, 2 * host.settings.lease_min_ms));
			break;
		case 8: case 9: case 10: case 11: case 12:
			walk_write();
			break;
		default:
			walk_push();
			break;
		}
		watch();
	}
	while (host.file_count > 0) {
		walk_write();
		watch();
	}
	ck_assert_uint_gt(counters()->snapshots_written, 20);
	ck_assert_uint_gt(counters()->snapshots_failed, 10);
	ck_assert_uint_gt(counters()->snapshots_skipped, 10);
	service_stop(host.service, &host.now);
	while (host.file_count > 0)
		fake_host_write(&host);
	ck_assert(service_idle(host.service));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_keep");
	TCase *tcase = tcase_create("service_keep");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, each_profile_is_due_by_its_own_steps);
	tcase_add_test(tcase, a_gap_over_several_multiples_is_one_file);
	tcase_add_test(tcase, a_training_that_begins_late_has_no_file_of_its_start);
	tcase_add_test(tcase, a_file_is_the_image_that_readers_see);
	tcase_add_test(tcase, the_slot_stays_as_it_is_while_updates_go_on);
	tcase_add_test(tcase, what_comes_due_meanwhile_is_skipped_where_updates_need_its_slot);
	tcase_add_test(tcase, with_a_fourth_slot_the_newest_one_waits_until_it_is_written);
	tcase_add_test(tcase, skipped_ones_are_told_with_the_next_that_is_written);
	tcase_add_test(tcase, a_file_that_cannot_be_written_is_given_up_and_told);
	tcase_add_test(tcase, without_memory_a_file_is_given_up_and_the_training_goes_on);
	tcase_add_test(tcase, files_of_an_earlier_average_go_aside_once);
	tcase_add_test(tcase, a_model_that_starts_anew_moves_the_files_aside);
	tcase_add_test(tcase, an_adapted_model_goes_on_with_its_files);
	tcase_add_test(tcase, a_removed_model_keeps_its_memory_until_its_file_is_written);
	tcase_add_test(tcase, the_memory_of_a_removed_model_still_counts);
	tcase_add_test(tcase, other_slots_wait_until_the_file_is_written);
	tcase_add_test(tcase, keeping_begins_and_ends_on_request);
	tcase_add_test(tcase, an_heir_waits_until_the_file_of_its_ancestor_is_written);
	tcase_add_test(tcase, going_back_to_a_version_waits_until_it_is_written);
	tcase_add_test(tcase, without_a_state_directory_nothing_can_be_kept);
	tcase_add_test(tcase, two_slots_are_too_few);
	tcase_add_test(tcase, the_directory_is_shown_where_something_is_kept);
	tcase_add_test(tcase, the_end_waits_for_the_file_and_begins_none_but_a_checkpoint);
	tcase_add_test(tcase, what_was_not_begun_at_the_end_is_no_failure);
	tcase_add_loop_test(tcase, whatever_happens_a_file_is_one_version_and_nobody_waits, 0, 12);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
