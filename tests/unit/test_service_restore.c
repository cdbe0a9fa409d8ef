/*
 * Checkpoints and the way back from them through the whole service, on a disk in memory: bits are turned, files are cut
 * off, every allocation fails. What is damaged is set aside and the one before is served; what is not, never.
 * (test_generation_faults.c turns every bit, without the service.)
 *
 * EMAD_DAMAGE_ALL=1 turns every bit and cuts at every length (`make check-faults`); else a sample of them.
 */
#include "tests/unit/failing_heap.h"
#include "tests/unit/fake_host.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/edge/files_generation.h"
#include "tests/unit/disk_model.h"

enum { OLDER = 3, NEWEST = 5 }; /* steps on disk */

static const char DIRECTORY[] = "/state/checkpoints/run42%net";
static const char NEWEST_NAME[] = "00000000000000000005-00000000000000000005";

static struct fake_host host;
static struct fake_trainer trainer;
static struct disk *disk;
static float averages[NEWEST + 2]; /* by step */
static atomic_bool abandons;

static void file_do(struct file_order *order)
{
	static const struct files_place place = {
		.state_dir = "/state",
		.calls = &disk_calls,
		.abandons = &abandons,
		.space_hint = "; make room",
	};

	files_generation_do(&place, order);
}

static void push(uint64_t step)
{
	fake_trainer_fill(&trainer, 0, (float)(step * step));
	(void)fake_host_expect(&host, fake_trainer_push(&trainer, step, 0, true), 0);
}

static void checkpoint(void)
{
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "run42/net"), 0);
}

/*
 * jansson lives in a shared library, where nothing is wrapped. With all allocations failing it ends the process by an
 * assertion of its own, so then it has memory.
 */
static void *json_room(size_t bytes)
{
	return malloc(bytes);
}

/* A model with two generations on disk. */
static void setup(void)
{
	disk = disk_create();
	disk_use(disk);
	fake_host_init(&host);
	host.state_dir = "/state";
	host.file_do = file_do;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "run42/net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5";
	fake_trainer_join(&trainer);
	for (uint64_t step = 1; step <= NEWEST; step++) {
		push(step);
		averages[step] = fake_average(&host, "run42/net", "ema");
		if (step == OLDER || step == NEWEST)
			checkpoint();
	}
}

static void teardown(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
	disk_destroy(disk);
}

/* Another daemon, which begins with what is on disk. False: it had no memory to begin. */
static bool restart(void)
{
	int error;

	fake_host_restart(&host);
	error = service_recover(host.service, &host.now);
	ck_assert_int_eq(error, error ? -ENOMEM : 0);
	fake_host_settle(&host);
	ck_assert(!service_recovering(host.service));
	return error == 0;
}

static const struct counters *counters(void)
{
	return service_counters(host.service);
}

/* The step that is served; 0: there is no such model. Asserts that its average is that of the step, by its last element. */
static uint64_t step_served(void)
{
	const struct fake_reply *answer = fake_host_answer(&host, fake_view(&host, 7, "run42/net", "ema", 0, 0));
	const uint8_t *image_end;
	uint64_t step;
	float last;

	if (answer->reply.status == STATUS_ENOMODEL)
		return 0;
	ck_assert_int_eq(answer->reply.status, 0);
	step = answer->reply.step;
	ck_assert_uint_le(step, NEWEST + 1);
	image_end = fake_host_map(&host, answer->fd) + answer->reply.region_offset + answer->reply.region_bytes;
	memcpy(&last, image_end - sizeof last, sizeof last);
	ck_assert(last == averages[step]);
	fake_host_gone(&host, 7);
	return step;
}

/* The same, looking at everything. */
static uint64_t served(void)
{
	uint64_t step = step_served();

	ck_assert(step == 0 || fake_average(&host, "run42/net", "ema") == averages[step]);
	return step;
}

static bool is_aside(void)
{
	char aside[64];

	snprintf(aside, sizeof aside, "%s.bad-", NEWEST_NAME);
	return disk_has(disk, DIRECTORY, aside);
}

static void path_of(const char *file, char ret_path[160])
{
	snprintf(ret_path, 160, "%s/%s/%s", DIRECTORY, NEWEST_NAME, file);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* The disk with a damage, for one recovery from it. */
static void damaged_check(struct disk *damaged, const char *file, const char *what, uint64_t at)
{
	struct disk *pristine = disk;
	uint64_t step;

	disk = damaged;
	disk_use(disk);
	ck_assert(restart());
	step = at % 64 == 0 ? served() : step_served();
	ck_assert_msg(step == OLDER, "%s: %s %lu: step %lu is served", file, what, (unsigned long)at,
	              (unsigned long)step);
	ck_assert_msg(is_aside() && !disk_has(disk, DIRECTORY, "00000000000000000003-00000000000000000003.bad-"),
	              "%s: %s %lu: it is not aside", file, what, (unsigned long)at);
	ck_assert_uint_eq(counters()->checkpoints_bad, 1);
	ck_assert_uint_eq(counters()->models_recovered, 1);
	disk_destroy(disk);
	disk = pristine;
	disk_use(disk);
}

static uint64_t stride_of(uint64_t sampled)
{
	return getenv("EMAD_DAMAGE_ALL") ? 1 : sampled;
}

static const char *const files[] = { "ema.safetensors", "manifest.json" };

START_TEST(a_bit_that_is_turned_is_found_and_the_generation_before_is_served)
{
	const uint64_t stride = stride_of(_i == 0 ? 13 : 3); /* each time another bit of a byte */
	char path[160];
	uint64_t bytes;

	path_of(files[_i], path);
	ck_assert_ptr_nonnull(disk_file(disk, path, &bytes));
	ck_assert_uint_gt(bytes, 500);
	for (uint64_t bit = 0; bit < 8 * bytes; bit += stride) {
		struct disk *damaged = disk_copy(disk);

		disk_file(damaged, path, &bytes)[bit / 8] ^= (uint8_t)(1 << bit % 8);
		damaged_check(damaged, files[_i], "bit", bit);
	}
	/* All that was turned was turned on copies. */
	ck_assert(restart());
	ck_assert_uint_eq(served(), NEWEST);
}
END_TEST

START_TEST(a_file_that_is_cut_off_is_found_and_the_generation_before_is_served)
{
	const uint64_t stride = stride_of(7);
	char path[160];
	uint64_t bytes;

	path_of(files[_i], path);
	ck_assert_ptr_nonnull(disk_file(disk, path, &bytes));
	for (uint64_t left = 0; left < bytes; left += stride) {
		struct disk *damaged = disk_copy(disk);

		disk_file_cut(damaged, path, left);
		damaged_check(damaged, files[_i], "cut after", left);
	}
	disk_remove(disk, path);
	damaged_check(disk_copy(disk), files[_i], "missing", 0);
}
END_TEST

START_TEST(without_a_whole_generation_there_is_no_model)
{
	char path[160];
	uint64_t bytes;

	path_of(files[_i], path);
	disk_file(disk, path, &bytes)[100] ^= 1;
	snprintf(path, sizeof path, "%s/00000000000000000003-00000000000000000003/%s", DIRECTORY, files[1 - _i]);
	disk_file(disk, path, &bytes)[101] ^= 1;
	ck_assert(restart());
	ck_assert_uint_eq(served(), 0);
	ck_assert_uint_eq(counters()->checkpoints_bad, 2);
	ck_assert_uint_eq(counters()->models_recovered, 0);
}
END_TEST

/* ---- owners ------------------------------------------------------------------------------------------------------ */

/* Whose a model is is known where it lies on disk, and counts for as much as before. */
START_TEST(a_recovered_model_is_its_user_s)
{
	enum { ALICE = 1000, BOB = 1001 };
	struct fake_trainer net, next;
	const struct fake_reply *answer;
	uint64_t bytes;

	fake_trainer_init(&net, &host, "alice/net", fake_manifest(0, 1));
	fake_trainer_init(&next, &host, "alice/next", fake_manifest(0, 1));
	host.uid = ALICE;
	fake_trainer_join(&net);
	fake_trainer_fill(&net, 0, 3);
	(void)fake_host_expect(&host, fake_trainer_push(&net, 1, 0, true), 0);
	(void)fake_host_expect(&host, fake_query(&host, OP_CHECKPOINT, "alice/net"), 0);
	bytes = service_model_bytes(service_find(host.service, "alice/net", 9));
	/* Less than it takes: it comes back as it was all the same. */
	host.settings.owner_memory_bytes_max = bytes / 2;
	ck_assert(restart());
	ck_assert_uint_eq(counters()->models_recovered, 2);
	ck_assert_int_eq(service_find(host.service, "alice/net", 9)->owner, ALICE);
	ck_assert_uint_eq(service_model_bytes(service_find(host.service, "alice/net", 9)), bytes);
	ck_assert_float_eq(fake_average(&host, "alice/net", NULL), 3);
	/* So much is left to its user, and to another one all. */
	host.settings.owner_memory_bytes_max = 2 * bytes - 1;
	service_reconfigure(host.service, &host.now, &host.settings);
	answer = fake_host_expect(&host, fake_trainer_register(&next), STATUS_EMEMORY);
	ck_assert_msg(strstr(answer->error, "(memory-max-per-user) are left to uid 1000") != NULL, "%s", answer->error);
	host.uid = BOB;
	fake_trainer_join(&next);
	ck_assert_int_eq(service_find(host.service, "alice/next", 10)->owner, BOB);
	fake_trainer_finish(&next);
	fake_trainer_finish(&net);
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* A recovery with its nth allocation failing; false when it needed fewer. */
static bool recovery_attempt(uint64_t nth, bool for_ever)
{
	bool begun, failed;

	host.event[0] = '\0';
	fake_host_restart(&host);
	failing_heap_arm(nth, for_ever);
	begun = service_recover(host.service, &host.now) == 0;
	if (begun)
		fake_host_settle(&host);
	failed = failing_heap_disarm();
	ck_assert(!service_recovering(host.service));
	/* Either way nothing good was condemned, and what is not served is named. */
	ck_assert_msg(!is_aside() && counters()->checkpoints_bad == 0, "allocation %lu: %s", (unsigned long)nth,
	              host.event);
	if (begun && served() != NEWEST)
		ck_assert_str_ne(host.event, "");
	if (!failed)
		ck_assert_uint_eq(served(), NEWEST);
	return failed;
}

START_TEST(a_recovery_without_memory_condemns_nothing_and_the_next_one_finds_all)
{
	uint64_t nth = 1, less_count = 0;

	if (!_i)
		json_set_alloc_funcs(json_room, free);
	while (recovery_attempt(nth, _i)) {
		less_count += counters()->models_recovered == 0 || served() != NEWEST;
		ck_assert(restart());
		ck_assert_uint_eq(served(), NEWEST);
		nth++;
	}
	ck_assert_uint_gt(nth, 20);
	ck_assert_uint_gt(less_count, 15);
}
END_TEST

START_TEST(a_checkpoint_without_memory_is_refused_and_changes_nothing)
{
	uint64_t nth = 1, refused_count = 0;

	if (!_i)
		json_set_alloc_funcs(json_room, free);
	for (bool failed = true; failed; nth++) {
		const struct fake_reply *answer;
		uint64_t number;

		teardown();
		setup();
		push(NEWEST + 1);
		averages[NEWEST + 1] = fake_average(&host, "run42/net", "ema");
		failing_heap_arm(nth, _i);
		number = fake_query(&host, OP_CHECKPOINT, "run42/net");
		failed = failing_heap_disarm();
		answer = fake_host_answer(&host, number);
		ck_assert_ptr_nonnull(answer);
		ck_assert(answer->reply.status == 0 || failed);
		if (answer->reply.status != 0) {
			refused_count++;
			ck_assert_int_eq(answer->reply.status, -ENOMEM);
			ck_assert_uint_eq(served(), NEWEST + 1);
			/* The next one is due in a second, and succeeds. */
			fake_host_wait(&host, 1000);
			checkpoint();
		}
		ck_assert(restart());
		ck_assert_uint_eq(served(), NEWEST + 1);
	}
	ck_assert_uint_gt(refused_count, _i ? 3 : 20);
}
END_TEST

START_TEST(a_removal_without_memory_says_what_stays_on_disk)
{
	bool failed = true;

	for (uint64_t nth = 1; failed; nth++) {
		const struct fake_reply *answer;
		uint64_t number;

		teardown();
		setup();
		failing_heap_arm(nth, _i);
		number = fake_query(&host, OP_REMOVE, "run42/net");
		failed = failing_heap_disarm();
		answer = fake_host_answer(&host, number);
		ck_assert_ptr_nonnull(answer);
		if (answer->reply.status == 0 && disk_has(disk, DIRECTORY, NEWEST_NAME))
			ck_assert_ptr_nonnull(strstr(host.event, "on disk"));
		ck_assert(failed || !disk_has(disk, DIRECTORY, NEWEST_NAME));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_restore");
	TCase *tcase = tcase_create("service_restore");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, getenv("EMAD_DAMAGE_ALL") ? 1000 : 100);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, a_bit_that_is_turned_is_found_and_the_generation_before_is_served, 0, 2);
	tcase_add_loop_test(tcase, a_file_that_is_cut_off_is_found_and_the_generation_before_is_served, 0, 2);
	tcase_add_test(tcase, a_recovered_model_is_its_user_s);
	tcase_add_loop_test(tcase, without_a_whole_generation_there_is_no_model, 0, 2);
	tcase_add_loop_test(tcase, a_recovery_without_memory_condemns_nothing_and_the_next_one_finds_all, 0, 2);
	tcase_add_loop_test(tcase, a_checkpoint_without_memory_is_refused_and_changes_nothing, 0, 2);
	tcase_add_loop_test(tcase, a_removal_without_memory_says_what_stays_on_disk, 0, 2);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
