/*
 * Checkpoints through the whole service: when one begins, what it says, what a failure does, and the way back from one
 * into a new service. The host's disk is one generation in this file.
 */
#include "tests/unit/fake_host.h"

#include "daemon/core/generation_text.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTERVAL_MS = 600000 };

static struct fake_host host;
static struct fake_trainer trainer;

static struct {
	bool there;
	char directory[GENERATION_DIRECTORY_BYTES];
	struct generation_name name;
	char *text;
	size_t text_bytes;
	uint32_t count;
	uint64_t byte_counts[PROFILE_COUNT_MAX];
	uint8_t *images[PROFILE_COUNT_MAX];
} disk;

static void start(void)
{
	fake_host_init(&host);
	host.state_dir = "/state";
	host.holds_files = true;
	host.settings.checkpoint_interval_ms = INTERVAL_MS;
	fake_host_start(&host);
}

static void setup(void)
{
	start();
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5";
	trainer.profiles[1] = "slow=constant:decay=0.9";
	trainer.profile_count = 2;
	fake_trainer_join(&trainer);
}

static void teardown(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	free(disk.text);
	for (uint32_t i = 0; i < disk.count; i++)
		free(disk.images[i]);
	memset(&disk, 0, sizeof disk);
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

static struct file_order *order(enum file_work work)
{
	ck_assert_uint_eq(host.file_count, 1);
	ck_assert_int_eq(host.files[0]->work, work);
	return host.files[0];
}

/* Does the checkpoint that waits. */
static void disk_write(void)
{
	struct file_order *at = order(FILE_CHECKPOINT);
	struct generation_file files[PROFILE_COUNT_MAX];

	ck_assert(!disk.there);
	disk.there = true;
	disk.name = at->generation;
	strcpy(disk.directory, at->directory);
	disk.count = at->count;
	for (uint32_t i = 0; i < at->count; i++) {
		struct file_item *item = &at->items[i];

		disk.images[i] = malloc(item->byte_count);
		memcpy(disk.images[i], item->bytes, item->byte_count);
		disk.byte_counts[i] = item->byte_count;
		item->checksum = layout_checksum(item->bytes, item->byte_count);
		files[i] = (struct generation_file){ item->profile, item->byte_count,
		                                     layout_checksum(item->bytes, item->byte_count) };
	}
	disk.text_bytes = generation_text_end(at->text, at->text_bytes, files, at->count);
	disk.text = malloc(disk.text_bytes);
	memcpy(disk.text, at->text, disk.text_bytes);
	fake_host_write(&host);
}

/* Writes the manifest anew that waits. */
static void disk_write_facts(void)
{
	struct file_order *at = order(FILE_FACTS);
	struct generation_file files[PROFILE_COUNT_MAX];

	ck_assert(disk.there);
	ck_assert_int_eq(generation_compare(&at->generation, &disk.name), 0);
	ck_assert_uint_eq(at->count, disk.count);
	for (uint32_t i = 0; i < at->count; i++) {
		struct file_item *item = &at->items[i];

		ck_assert_uint_eq(item->byte_count, disk.byte_counts[i]);
		ck_assert_uint_eq(item->checksum, layout_checksum(disk.images[i], disk.byte_counts[i]));
		files[i] = (struct generation_file){ item->profile, item->byte_count, item->checksum };
	}
	free(disk.text);
	disk.text_bytes = generation_text_end(at->text, at->text_bytes, files, at->count);
	disk.text = malloc(disk.text_bytes);
	memcpy(disk.text, at->text, disk.text_bytes);
	fake_host_write(&host);
}

/* Answers a search with what the disk holds, once. */
static void disk_find(void)
{
	struct file_order *at = order(FILE_FIND);

	if (disk.there) {
		strcpy(at->directory, disk.directory);
		at->generation = disk.name;
		at->text = malloc(disk.text_bytes);
		memcpy(at->text, disk.text, disk.text_bytes);
		at->text_bytes = disk.text_bytes;
	}
	disk.there = false;
	fake_host_write(&host);
	/* The memory of what it found. */
	fake_host_settle(&host);
}

static void disk_fill(void)
{
	struct file_order *at = order(FILE_FILL);

	ck_assert_uint_eq(at->count, disk.count);
	for (uint32_t i = 0; i < at->count; i++) {
		ck_assert_uint_eq(at->items[i].byte_count, disk.byte_counts[i]);
		memcpy(at->items[i].target, disk.images[i], disk.byte_counts[i]);
	}
	fake_host_write(&host);
}

/* Another daemon, which begins with what is on disk. */
static void restart(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	start();
	ck_assert_int_eq(service_recover(host.service, &host.now), 0);
	ck_assert(service_recovering(host.service));
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5";
	trainer.profiles[1] = "slow=constant:decay=0.9";
	trainer.profile_count = 2;
}

START_TEST(how_many_stay_is_set_for_all_and_by_the_models_name)
{
	const struct defaults defaults = { .pattern = "run42/*", .stride = 1, .checkpoint_keep_count = 5 };

	host.settings.checkpoint_keep_count = 3;
	host.settings.checkpoint_keep_steps = 1000;
	service_reconfigure(host.service, &host.now, &host.settings);
	push_until(1, 3);
	fake_host_wait(&host, INTERVAL_MS);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->keep_count, 3);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->keep_steps, 1000);
	fake_host_write(&host);
	host.settings.defaults = &defaults;
	host.settings.default_count = 1;
	service_reconfigure(host.service, &host.now, &host.settings);
	push(4);
	fake_host_wait(&host, INTERVAL_MS);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->keep_count, 5);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->keep_steps, 1000);
	fake_host_write(&host);
}
END_TEST

START_TEST(one_is_due_when_the_interval_is_over_and_there_is_something_new)
{
	push_until(1, 3);
	fake_host_wait(&host, INTERVAL_MS - 1);
	ck_assert_uint_eq(host.file_count, 0);
	fake_host_wait(&host, 1);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.step, 3);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.version, 3);
	ck_assert_str_eq(order(FILE_CHECKPOINT)->directory, "run42%net");
	ck_assert(order(FILE_CHECKPOINT)->starts);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->keep_count, 2);
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->checkpoints_written, 1);
	fake_host_wait(&host, 10 * INTERVAL_MS);
	ck_assert_uint_eq(host.file_count, 0);
	push(4);
	fake_host_wait(&host, 1);
	ck_assert(!order(FILE_CHECKPOINT)->starts);
	fake_host_write(&host);
}
END_TEST

START_TEST(one_is_due_after_so_many_updates)
{
	host.settings.checkpoint_updates = 4;
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	fake_host_init(&host);
	host.state_dir = "/state";
	host.holds_files = true;
	host.settings.checkpoint_updates = 4;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	push_until(1, 3);
	ck_assert_uint_eq(host.file_count, 0);
	push(4);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.step, 4);
	push_until(5, 6);
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	push_until(7, 8);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.step, 8);
	fake_host_write(&host);
}
END_TEST

START_TEST(a_slot_stays_as_it_is_until_it_is_written_while_updates_go_on)
{
	uint64_t number, sum;

	push_until(1, 5);
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	ck_assert_ptr_null(fake_host_answer(&host, number));
	sum = layout_checksum(order(FILE_CHECKPOINT)->items[1].bytes, order(FILE_CHECKPOINT)->items[1].byte_count);
	push_until(6, 60);
	ck_assert_uint_eq(layout_checksum(order(FILE_CHECKPOINT)->items[1].bytes,
	                                  order(FILE_CHECKPOINT)->items[1].byte_count), sum);
	disk_write();
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.step, 5);
	ck_assert_uint_eq(host.file_count, 0);
}
END_TEST

START_TEST(a_request_is_answered_when_it_is_on_disk_and_at_once_when_it_was)
{
	uint64_t early = fake_query(&host, OP_CHECKPOINT, "run42/net"), first, second;

	(void)fake_host_expect(&host, early, STATUS_ENOVERSION);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, NULL), 0);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "no/such"), STATUS_ENOMODEL);
	push(1);
	first = fake_query(&host, OP_CHECKPOINT, NULL);
	push(2);
	second = fake_query(&host, OP_CHECKPOINT, "run42/net");
	fake_host_write(&host);
	(void)fake_host_expect(&host, first, 0);
	ck_assert_ptr_null(fake_host_answer(&host, second));
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.step, 2);
	fake_host_write(&host);
	ck_assert_uint_eq(fake_host_expect(&host, second, 0)->reply.step, 2);
	ck_assert_uint_eq(fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "run42/net"), 0)->reply.version, 2);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, NULL), 0);
	ck_assert_uint_eq(counters()->checkpoints_written, 2);
}
END_TEST

START_TEST(a_failure_is_told_counted_and_tried_again_later_and_later)
{
	static const uint64_t waits_ms[] = {
		1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 300000, 300000,
	};
	uint64_t number;

	push(1);
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	host.file_status = -ENOSPC;
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, -ENOSPC);
	ck_assert_ptr_nonnull(strstr(fake_host_answer(&host, number)->error, "cannot be written"));
	for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
		ck_assert_uint_eq(counters()->checkpoints_failed, i + 1);
		ck_assert_uint_eq(host.file_count, 0);
		push(i + 2);
		fake_host_wait(&host, waits_ms[i] - 1);
		ck_assert_uint_eq(host.file_count, 0);
		fake_host_wait(&host, 1);
		(void)order(FILE_CHECKPOINT);
		fake_host_write(&host);
	}
	/* Who asks does not wait for that. */
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	host.file_status = 0;
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(counters()->checkpoints_written, 1);
}
END_TEST

START_TEST(the_end_writes_what_is_newer_and_tries_once)
{
	push_until(1, 3);
	service_stop(host.service, &host.now);
	ck_assert(!service_idle(host.service));
	ck_assert(service_checkpointing(host.service));
	host.file_status = -EIO;
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert(service_idle(host.service));
	host.file_status = 0;
}
END_TEST

START_TEST(a_removed_model_does_not_come_back)
{
	uint64_t first, second;

	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	fake_host_write(&host);
	first = fake_query(&host, OP_REMOVE, "run42/net");
	second = fake_query(&host, OP_REMOVE, "run42/net");
	ck_assert_str_eq(order(FILE_DISCARD)->directory, "run42%net");
	ck_assert(!service_idle(host.service));
	/* A daemon that dies now finds all of it or its memory alone, so nobody has been told anything. */
	ck_assert_ptr_null(fake_host_answer(&host, first));
	fake_host_write(&host);
	ck_assert(service_idle(host.service));
	(void)fake_host_expect(&host, first, 0);
	(void)fake_host_expect(&host, second, STATUS_ENOMODEL);
}
END_TEST

START_TEST(a_removal_waits_for_the_checkpoint_under_way_and_no_other_begins)
{
	uint64_t number;

	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	number = fake_query(&host, OP_REMOVE, "run42/net");
	push(2);
	fake_host_write(&host);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	ck_assert_str_eq(order(FILE_DISCARD)->directory, "run42%net");
	fake_host_write(&host);
	ck_assert_uint_eq(host.file_count, 0);
	(void)fake_host_expect(&host, number, 0);
}
END_TEST

START_TEST(a_model_that_is_replaced_while_an_update_waits_for_readers_wants_nothing_more)
{
	struct fake_trainer heir;

	/* All memory is leased, or the newest: an update waits when the model goes, which its checkpoint keeps there. */
	for (uint64_t step = 1; step <= 3; step++) {
		push(step);
		(void)fake_host_expect(&host, fake_view(&host, 50 + step, "run42/net", NULL, 0, 0), 0);
	}
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	(void)fake_trainer_push(&trainer, 4, 0, false);
	ck_assert_uint_eq(host.apply_count, 0);
	ck_assert_uint_ne(service_due_ms(host.service), UINT64_MAX);
	fake_trainer_init(&heir, &host, "run42/net", fake_manifest(0, 1));
	heir.resume = "never";
	fake_trainer_join(&heir);
	fake_host_wait(&host, 2 * host.settings.lease_min_ms);
	(void)order(FILE_CHECKPOINT);
	fake_host_write(&host);
	fake_trainer_finish(&heir);
}
END_TEST

START_TEST(a_model_is_removed_although_its_checkpoints_cannot_be)
{
	uint64_t number;

	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	fake_host_write(&host);
	number = fake_query(&host, OP_REMOVE, "run42/net");
	host.file_status = -EROFS;
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, 0);
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(an_end_is_not_put_off_by_who_goes_on_changing_models)
{
	uint64_t begun;

	push(1);
	begun = fake_query(&host, OP_REMOVE, "run42/net");
	fake_host_expect(&host, begun, 0);
	fake_trainer_join(&trainer);
	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	fake_host_write(&host);
	begun = fake_query(&host, OP_REMOVE, "run42/net");
	service_stop(host.service, &host.now);
	/* What has begun goes on, though nobody waits for it; what is written then is the last. */
	fake_host_expect(&host, begun, STATUS_ESHUTDOWN);
	ck_assert_str_eq(order(FILE_DISCARD)->directory, "run42%net");
	fake_host_write(&host);
	fake_host_write(&host);
	ck_assert(service_idle(host.service));
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "run42/net"), STATUS_ESHUTDOWN);
	ck_assert_uint_eq(host.file_count, 0);
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(without_a_state_directory_there_are_none)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	fake_host_init(&host);
	host.settings.checkpoint_interval_ms = INTERVAL_MS;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	push(1);
	ck_assert_uint_eq(service_due_ms(host.service), UINT64_MAX);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "run42/net"), STATUS_EARGUMENT);
	service_stop(host.service, &host.now);
	ck_assert(service_idle(host.service));
}
END_TEST

START_TEST(a_model_comes_back_as_it_was_and_is_continued)
{
	const struct fake_reply *answer;
	uint64_t number, epoch = trainer.epoch;
	float ema, slow;

	push_until(1, 9);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	ema = fake_average(&host, "run42/net", "ema");
	slow = fake_average(&host, "run42/net", "slow");
	restart();
	disk_find();
	disk_fill();
	ck_assert(service_recovering(host.service));
	disk_find();
	ck_assert(!service_recovering(host.service));
	ck_assert_uint_eq(counters()->models_recovered, 1);
	ck_assert(fake_average(&host, "run42/net", "ema") == ema);
	ck_assert(fake_average(&host, "run42/net", "slow") == slow);
	number = fake_trainer_register(&trainer);
	answer = fake_host_expect(&host, number, 0);
	ck_assert(answer->reply.resumed);
	ck_assert_uint_eq(answer->reply.last_step, 9);
	ck_assert_uint_eq(answer->reply.version, 9);
	ck_assert_uint_gt(answer->reply.epoch, epoch);
	fake_trainer_registered(&trainer, number);
	fake_trainer_attached(&trainer, fake_trainer_attach(&trainer));
	push(10);
	ck_assert(fake_average(&host, "run42/net", "ema") == ema + 0.5f * (10 - ema));
	ck_assert_uint_eq(host.file_count, 0);
}
END_TEST

static void attributes_set(const char *json)
{
	struct request request = { .operation = OP_ATTRIBUTES };

	request_set(&request, model, text_of(trainer.model));
	request_set(&request, rank, trainer.rank);
	request_set(&request, client, trainer.client);
	request_set(&request, epoch, trainer.epoch);
	request_set(&request, sequence, 0);
	request_set(&request, attributes, text_of(json));
	(void)fake_host_expect(&host, fake_host_ask(&host, trainer.peer, &request, NULL, 0), 0);
}

static void shown_has(const char *words)
{
	const char *text = fake_host_expect(&host, fake_query(&host, OP_SHOW, "run42/net"), 0)->body;

	ck_assert_msg(strstr(text, words) != NULL, "%s", text);
}

START_TEST(what_is_said_of_a_model_after_its_checkpoint_is_written_beside_the_same_averages)
{
	push_until(1, 9);
	fake_host_wait(&host, INTERVAL_MS);
	disk_write();
	fake_host_wait(&host, INTERVAL_MS);
	ck_assert_uint_eq(host.file_count, 0);
	attributes_set("{\"lr\":0.5}");
	fake_host_wait(&host, 1);
	disk_write_facts();
	fake_host_wait(&host, 10 * INTERVAL_MS);
	ck_assert_uint_eq(host.file_count, 0);
	/* A trainer that is started again with other guards, and the end. */
	trainer.guards = "nonfinite=refuse,loss_max=7";
	trainer.policy = "coalesce";
	trainer.stride = 3;
	fake_trainer_join(&trainer);
	service_stop(host.service, &host.now);
	ck_assert(!service_idle(host.service));
	disk_write_facts();
	ck_assert(service_idle(host.service));
	restart();
	disk_find();
	disk_fill();
	disk_find();
	shown_has("\"lr\":0.5");
	shown_has("loss_max=7");
	shown_has("coalesce");
	shown_has("\"stride\":3");
	ck_assert_uint_eq(counters()->checkpoints_bad, 0);
	/* What was recovered is on disk, and can be added to. */
	ck_assert_uint_eq(host.file_count, 0);
	fake_trainer_join(&trainer);
	attributes_set("{\"lr\":0.25}");
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	disk.there = true;
	disk_write_facts();
}
END_TEST

START_TEST(a_request_brings_what_is_said_to_disk_too_and_a_newer_version_all_of_it)
{
	uint64_t number;

	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	attributes_set("{\"a\":1}");
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	ck_assert_ptr_null(fake_host_answer(&host, number));
	/* Said while it is being written: that is for the next time. */
	attributes_set("{\"a\":2}");
	disk_write_facts();
	(void)fake_host_expect(&host, number, 0);
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	disk_write_facts();
	(void)fake_host_expect(&host, number, 0);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "run42/net"), 0);
	attributes_set("{\"a\":3}");
	push(2);
	(void)fake_query(&host, OP_CHECKPOINT, "run42/net");
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.version, 2);
	fake_host_write(&host);
}
END_TEST

START_TEST(a_generation_that_somebody_removed_is_written_whole)
{
	uint64_t number;

	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	attributes_set("{\"a\":1}");
	number = fake_query(&host, OP_CHECKPOINT, "run42/net");
	host.file_status = -EIO;
	(void)order(FILE_FACTS);
	fake_host_write(&host);
	(void)fake_host_expect(&host, number, -EIO);
	fake_host_wait(&host, 1000);
	host.file_status = -ENOENT;
	(void)order(FILE_FACTS);
	fake_host_write(&host);
	host.file_status = 0;
	fake_host_wait(&host, 2000);
	ck_assert_uint_eq(order(FILE_CHECKPOINT)->generation.version, 1);
	ck_assert(!order(FILE_CHECKPOINT)->starts);
	fake_host_write(&host);
	ck_assert_uint_eq(counters()->checkpoints_failed, 2);
	ck_assert_uint_eq(counters()->checkpoints_written, 2);
}
END_TEST

static void summary_is(const char *wanted)
{
	char text[256];

	service_summary(host.service, &host.now, text, sizeof text);
	ck_assert_str_eq(text, wanted);
}

static void status_has(const char *words)
{
	const char *text = fake_host_expect(&host, fake_query(&host, OP_STATUS, NULL), 0)->body;

	ck_assert_msg(strstr(text, words) != NULL, "%s", text);
}

START_TEST(the_line_for_people_tells_of_the_last_checkpoint)
{
	char head[64], line[256];
	uint64_t number = 0;

	push_until(1, 3);
	service_summary(host.service, &host.now, head, sizeof head);
	ck_assert_msg(strncmp(head, "1 model, step 3, lag 0, ", 24) == 0 && strstr(head, " MiB") + 4 == head + strlen(head),
	              "%s", head);
	status_has("\"checkpoint\":{\"model\":null,\"step\":null,\"written_us\":null,\"writing\":[],\"failing\":null,");
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	for (uint32_t i = 0; i < host.files[0]->count; i++)
		number += host.files[0]->items[i].byte_count;
	snprintf(line, sizeof line, "\"writing\":[{\"model\":\"run42/net\",\"bytes\":%" PRIu64 ",\"written_bytes\":7}]",
	         number);
	atomic_store(&host.files[0]->written_bytes, 7);
	status_has(line);
	fake_host_write(&host);
	for (size_t i = 0; i < 6; i++) {
		static const struct {
			uint64_t wait_ms;
			const char *age;
		} rows[] = {
			{ 0, "0 s" }, { 1999, "1 s" }, { 118000, "119 s" }, { 1000, "2 min" }, { 7080000, "2 h" },
			{ 2 * 86400000 - 7200000, "2 d" },
		};

		fake_host_wait(&host, rows[i].wait_ms);
		snprintf(line, sizeof line, "%s, checkpoint %s ago", head, rows[i].age);
		summary_is(line);
	}
	status_has("\"checkpoint\":{\"model\":\"run42/net\",\"step\":3,\"written_us\":1");
	push(4);
	number = host.file_count;
	ck_assert_uint_eq(number, 1); /* the interval was over long ago */
	host.file_status = -ENOSPC;
	fake_host_write(&host);
	host.file_status = 0;
	service_summary(host.service, &host.now, line, sizeof line);
	ck_assert_msg(strstr(line, ", checkpoint of run42/net failing: writing 'it': it cannot be written"), "%s", line);
	status_has("\"failing\":\"run42/net\",\"failures\":1,\"error\":\"writing");
	/* Too little room cuts it. */
	for (size_t capacity = 1; capacity < 100; capacity++) {
		service_summary(host.service, &host.now, line, capacity);
		ck_assert_uint_lt(strlen(line), capacity);
	}
	fake_host_wait(&host, 1000);
	fake_host_write(&host);
	service_summary(host.service, &host.now, line, sizeof line);
	ck_assert_ptr_nonnull(strstr(line, ", checkpoint 0 s ago"));
}
END_TEST

START_TEST(norms_are_judged_across_a_restart)
{
	trainer.guards = "norm_jump=0.5";
	fake_trainer_join(&trainer);
	for (uint64_t step = 1; step <= 3; step++) {
		fake_trainer_fill(&trainer, 0, 1 + (float)step / 8);
		(void)fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
	}
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	restart();
	trainer.guards = "norm_jump=0.5";
	disk_find();
	disk_fill();
	disk_find();
	fake_trainer_join(&trainer);
	fake_trainer_fill(&trainer, 0, 1.375f * 1.51f);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push(&trainer, 4, 0, true), 0)->outcome, "norm-jump");
	fake_trainer_fill(&trainer, 0, 1.375f * 1.49f);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push(&trainer, 5, 0, true), 0)->outcome, "applied");
}
END_TEST

START_TEST(a_model_that_does_not_fit_stays_on_disk)
{
	push_until(1, 2);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	fake_host_init(&host);
	host.state_dir = "/state";
	host.holds_files = true;
	host.settings.memory_bytes_max = 4096;
	fake_host_start(&host);
	ck_assert_int_eq(service_recover(host.service, &host.now), 0);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	disk_find();
	ck_assert_uint_eq(order(FILE_FIND)->generation.version, 0); /* none older is wanted */
	ck_assert_str_eq(order(FILE_FIND)->directory, "run42%net");
	disk_find();
	ck_assert(!service_recovering(host.service));
	ck_assert_uint_eq(counters()->checkpoints_bad, 0);
	ck_assert_uint_eq(counters()->models_recovered, 0);
}
END_TEST

START_TEST(damaged_averages_are_never_served)
{
	struct file_order *at;

	push_until(1, 2);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	restart();
	disk_find();
	at = order(FILE_FILL);
	for (uint32_t i = 0; i < at->count; i++)
		memset(at->items[i].target, 0x7f, at->items[i].byte_count);
	host.file_status = STATUS_ECORRUPT;
	fake_host_write(&host);
	host.file_status = 0;
	ck_assert_uint_eq(counters()->checkpoints_bad, 1);
	(void)fake_host_expect(&host, fake_view(&host, 7, "run42/net", NULL, 0, 0), STATUS_ENOMODEL);
	/* The search goes on behind it. */
	ck_assert_uint_eq(order(FILE_FIND)->generation.version, 2);
	disk_find();
	ck_assert(!service_recovering(host.service));
}
END_TEST

START_TEST(a_manifest_in_another_place_goes_aside)
{
	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	strcpy(disk.directory, "other");
	restart();
	disk_find();
	(void)order(FILE_BAD);
	fake_host_write(&host);
	disk_find();
	ck_assert_uint_eq(counters()->checkpoints_bad, 1);
	ck_assert(!service_recovering(host.service));
}
END_TEST

/* Its memory is made and its averages are still on their way into it: the next daemon must not take it as it is. */
START_TEST(a_recovery_that_dies_begins_anew)
{
	float ema;

	push_until(1, 9);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	ema = fake_average(&host, "run42/net", "ema");
	restart();
	disk_find();
	(void)order(FILE_FILL);
	ck_assert_uint_gt(host.segment_count, 0);
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_uint_eq(host.segment_count, 0);
	ck_assert_uint_eq(counters()->models_abandoned, 0);
	ck_assert_int_eq(service_recover(host.service, &host.now), 0);
	disk.there = true;
	disk_find();
	disk_fill();
	/* From here on it outlives its daemon in memory. */
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_uint_eq(counters()->models_adopted, 1);
	ck_assert(fake_average(&host, "run42/net", "ema") == ema);
	fake_trainer_join(&trainer);
	push(10);
	ck_assert(fake_average(&host, "run42/net", "ema") == ema + 0.5f * (10 - ema));
}
END_TEST

START_TEST(the_end_does_not_wait_for_a_recovery)
{
	push(1);
	(void)fake_query(&host, OP_CHECKPOINT, NULL);
	disk_write();
	restart();
	service_stop(host.service, &host.now);
	disk_find();
	disk_fill();
	ck_assert(!service_recovering(host.service));
	ck_assert(service_idle(host.service));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_checkpoint");
	TCase *tcase = tcase_create("service_checkpoint");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, how_many_stay_is_set_for_all_and_by_the_models_name);
	tcase_add_test(tcase, one_is_due_when_the_interval_is_over_and_there_is_something_new);
	tcase_add_test(tcase, one_is_due_after_so_many_updates);
	tcase_add_test(tcase, a_slot_stays_as_it_is_until_it_is_written_while_updates_go_on);
	tcase_add_test(tcase, a_request_is_answered_when_it_is_on_disk_and_at_once_when_it_was);
	tcase_add_test(tcase, a_failure_is_told_counted_and_tried_again_later_and_later);
	tcase_add_test(tcase, the_end_writes_what_is_newer_and_tries_once);
	tcase_add_test(tcase, a_removed_model_does_not_come_back);
	tcase_add_test(tcase, a_removal_waits_for_the_checkpoint_under_way_and_no_other_begins);
	tcase_add_test(tcase, a_model_that_is_replaced_while_an_update_waits_for_readers_wants_nothing_more);
	tcase_add_test(tcase, a_model_is_removed_although_its_checkpoints_cannot_be);
	tcase_add_test(tcase, an_end_is_not_put_off_by_who_goes_on_changing_models);
	tcase_add_test(tcase, without_a_state_directory_there_are_none);
	tcase_add_test(tcase, a_model_comes_back_as_it_was_and_is_continued);
	tcase_add_test(tcase, what_is_said_of_a_model_after_its_checkpoint_is_written_beside_the_same_averages);
	tcase_add_test(tcase, a_request_brings_what_is_said_to_disk_too_and_a_newer_version_all_of_it);
	tcase_add_test(tcase, a_generation_that_somebody_removed_is_written_whole);
	tcase_add_test(tcase, the_line_for_people_tells_of_the_last_checkpoint);
	tcase_add_test(tcase, norms_are_judged_across_a_restart);
	tcase_add_test(tcase, a_model_that_does_not_fit_stays_on_disk);
	tcase_add_test(tcase, damaged_averages_are_never_served);
	tcase_add_test(tcase, a_manifest_in_another_place_goes_aside);
	tcase_add_test(tcase, a_recovery_that_dies_begins_anew);
	tcase_add_test(tcase, the_end_does_not_wait_for_a_recovery);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
