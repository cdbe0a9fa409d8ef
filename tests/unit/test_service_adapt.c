/*
 * Registrations that go on from an average of other tensors or another world: what both have goes on, what is new
 * starts, readers keep what they read, and when anything fails the model is there as before.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_host host;
static struct fake_trainer old, new[2];
static uint32_t new_count;

/* The tensors before: float32 "w", "v", int64 "n"; all elements of a snapshot are equal. */
static const struct tensor_row ROWS[] = {
	{ "w", DTYPE_F32, false, SHAPE(8, 2) },
	{ "v", DTYPE_F32, false, SHAPE(6) },
	{ "n", DTYPE_I64, true, SHAPE(4) },
};

static void setup(void)
{
	fake_host_init(&host);
	host.keeps = true;
	fake_host_start(&host);
	fake_trainer_init(&old, &host, "net", manifest_of_rows(ROWS, 3));
	old.profiles[0] = "ema=constant:decay=0.5;freeze=n";
	new_count = 0;
}

static void teardown(void)
{
	fake_trainer_finish(&old);
	for (uint32_t r = 0; r < new_count; r++)
		fake_trainer_finish(&new[r]);
	fake_host_finish(&host);
}

static struct model *net(void)
{
	return service_find(host.service, "net", 3);
}

static const struct slot_header *newest(void)
{
	return versions_newest(&net()->versions);
}

static void says(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "'%s' says nothing of '%s'", text, part);
}

static void accounts_check(void)
{
	ck_assert_uint_eq(service_memory_bytes(host.service), host.segment_bytes);
}

/* Fills all pieces of the trainer's stage with one value, whatever the type; bfloat16 and integers too. */
static void fill(const struct fake_trainer *trainer, uint32_t stage, float value)
{
	struct manifest *manifest;
	uint8_t *base = fake_trainer_stage(trainer, stage);

	ck_assert_int_eq(manifest_decode(trainer->manifest, trainer->manifest_bytes, &manifest, NULL), 0);
	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];
		enum dtype dtype = manifest->tensors[piece->tensor].dtype;

		for (uint64_t e = 0; e < piece->element_count; e++) {
			uint8_t *at = base + piece->stage_offset + e * dtype_bytes(dtype);
			int64_t integer = (int64_t)value;
			double wide = (double)value;

			if (dtype == DTYPE_F64)
				memcpy(at, &wide, sizeof wide);
			else if (dtype == DTYPE_I64)
				memcpy(at, &integer, sizeof integer);
			else if (dtype == DTYPE_BF16)
				memcpy(at, (const uint8_t *)&value + 2, 2);
			else
				memcpy(at, &value, sizeof value);
		}
	}
	manifest_destroy(manifest);
}

static const struct fake_reply *push(struct fake_trainer *trainer, uint64_t step, float value, const char *outcome)
{
	const struct fake_reply *answer;

	fill(trainer, 0, value);
	answer = fake_host_expect(&host, fake_trainer_push(trainer, step, 0, true), 0);
	ck_assert_msg(strcmp(answer->outcome, outcome) == 0, "%s, not %s: %s", answer->outcome, outcome,
	              answer->refusal);
	return answer;
}

/* "net" with averages 8 at step 11; "n" is frozen at 16. */
static void averaged(void)
{
	fake_trainer_join(&old);
	push(&old, 10, 16, "started");
	push(&old, 11, 0, "applied");
}

/* Trainers of other tensors, which want to adapt. */
static void adapting(const struct tensor_row *rows, uint32_t count, uint32_t world)
{
	new_count = world;
	for (uint32_t r = 0; r < world; r++) {
		fake_trainer_init(&new[r], &host, "net", manifest_shard(rows, count, r, world));
		new[r].profiles[0] = "ema=constant:decay=0.5;freeze=n";
		new[r].resume = "adapt";
		new[r].rank = r;
		new[r].world = world;
	}
}

/* Every element of a tensor of the average, as a float or an integer. */
static void holds(const char *tensor, double value)
{
	const struct fake_reply *view = fake_host_expect(&host, fake_view(&host, 901, "net", NULL, 0, 0), 0);
	const struct model *model = net();
	const struct geometry *geometry = model_newest_geometry(model);
	int64_t index = manifest_find(geometry->manifest, tensor);
	const uint8_t *bytes = fake_tensor(&host, view, tensor);
	const struct placement *at;

	ck_assert_msg(bytes != NULL && index >= 0, "there is no '%s'", tensor);
	at = &geometry->placements[index];
	for (uint64_t e = 0; e < geometry->manifest->tensors[index].element_count; e++) {
		double wide = value;
		float narrow = (float)value;
		int64_t integer = (int64_t)value;
		void *element = at->dtype == DTYPE_F64   ? (void *)&wide
		                : at->dtype == DTYPE_I64 ? (void *)&integer
		                                         : &narrow;

		memcpy(element, bytes + e * dtype_bytes(at->dtype), dtype_bytes(at->dtype));
		ck_assert_double_eq(at->dtype == DTYPE_F64   ? wide
		                    : at->dtype == DTYPE_I64 ? (double)integer
		                                             : (double)narrow,
		                    value);
	}
	fake_host_gone(&host, 901);
}

/* ---- what goes on ------------------------------------------------------------------------------------------------ */

START_TEST(what_both_have_goes_on_and_what_is_new_starts)
{
	const struct tensor_row rows[] = {
		{ "u", DTYPE_F32, false, SHAPE(3) },
		{ "w", DTYPE_F32, false, SHAPE(8, 2) },
		{ "v", DTYPE_F32, false, SHAPE(7) },
	};
	const struct fake_reply *answer;

	averaged();
	adapting(rows, 3, 1);
	answer = fake_host_expect(&host, fake_trainer_register(&new[0]), 0);
	ck_assert(answer->reply.resumed);
	ck_assert_uint_eq(answer->reply.last_step, 11);
	ck_assert_uint_eq(answer->reply.updates, 1);
	says(answer->report, "ema: 3 averaged");
	says(answer->report, "since the registration before: 1 new ('u'), 1 gone ('n'), 1 of another shape ('v')");
	fake_trainer_registered(&new[0], host.request_count);
	fake_trainer_attached(&new[0], fake_trainer_attach(&new[0]));
	/* Until the first update readers have what there was. */
	holds("v", 8);
	holds("n", 16);
	accounts_check();
	ck_assert_uint_eq(push(&new[0], 12, 4, "applied")->reply.calls, 1);
	holds("w", 6);
	holds("u", 4);
	holds("v", 4);
	ck_assert_uint_eq(newest()->updates, 2);
	ck_assert_uint_eq(newest()->version, 3);
	accounts_check();
	push(&new[0], 13, 0, "applied");
	holds("w", 3);
	holds("u", 2);
	fake_host_expect(&host, fake_trainer_push(&old, 14, 0, true), STATUS_EFENCED);
}
END_TEST

struct dtype_change {
	enum dtype dtype;
	const char *profile;
	double average;
};

static const struct dtype_change dtype_changes[] = {
	{ DTYPE_F64, "ema=constant:decay=0.5;freeze=n", 6 },
	{ DTYPE_BF16, "ema=constant:decay=0.5;freeze=n", 6 },
	{ DTYPE_F64, "ema=constant:decay=0.5,precision=f32;freeze=n", 6 },
	{ DTYPE_F32, "ema=constant:decay=0.5,precision=f64;freeze=n", 6 },
	{ DTYPE_I64, "ema=constant:decay=0.5;freeze=n", 4 }, /* nothing to go on from */
};

START_TEST(weights_of_another_type_go_on)
{
	const struct dtype_change *change = &dtype_changes[_i];
	const struct tensor_row rows[] = { { "w", change->dtype, false, SHAPE(8, 2) }, ROWS[1], ROWS[2] };
	const struct fake_reply *answer;

	averaged();
	adapting(rows, 3, 1);
	new[0].profiles[0] = change->profile;
	answer = fake_host_expect(&host, fake_trainer_register(&new[0]), 0);
	if (change->dtype != DTYPE_F32)
		says(answer->report, "since the registration before: 1 of another dtype ('w')");
	fake_trainer_registered(&new[0], host.request_count);
	fake_trainer_attached(&new[0], fake_trainer_attach(&new[0]));
	push(&new[0], 12, 4, "applied");
	holds("w", change->average);
	holds("v", 6);
	holds("n", 16);
	accounts_check();
}
END_TEST

START_TEST(another_world_goes_on)
{
	uint64_t numbers[2];

	averaged();
	adapting(ROWS, 3, 2);
	for (uint32_t r = 0; r < 2; r++)
		fake_trainer_join(&new[r]);
	for (uint32_t r = 0; r < 2; r++) {
		fill(&new[r], 0, 4);
		numbers[r] = fake_trainer_push(&new[r], 12, 0, true);
	}
	for (uint32_t r = 0; r < 2; r++)
		ck_assert_str_eq(fake_host_expect(&host, numbers[r], 0)->outcome, "applied");
	holds("w", 6);
	holds("v", 6);
	holds("n", 16);
	accounts_check();
	/* And back. */
	old.resume = "adapt";
	fake_trainer_join(&old);
	push(&old, 13, 0, "applied");
	holds("w", 3);
	accounts_check();
}
END_TEST

START_TEST(other_profiles_come_with_other_tensors)
{
	const struct tensor_row rows[] = { ROWS[0], { "u", DTYPE_F32, false, SHAPE(3) } };

	averaged();
	adapting(rows, 2, 1);
	new[0].profiles[0] = "fast=constant:decay=0.25";
	new[0].profiles[1] = "ema=constant:decay=0.75";
	new[0].profile_count = 2;
	fake_trainer_join(&new[0]);
	push(&new[0], 12, 4, "applied");
	holds("w", 4);
	fake_host_expect(&host, fake_profile_remove(&host, "net", "fast", 1000), 0);
	push(&new[0], 13, 7, "applied");
	holds("w", 7);
	holds("u", 4.75);
	accounts_check();
}
END_TEST

START_TEST(attributes_and_management_are_inherited)
{
	const struct tensor_row rows[] = { ROWS[0] };

	old.attributes = "{\"nc\":80}";
	averaged();
	fake_host_expect(&host,
	                 fake_profiles_set(&host, "net", (const char *const[]){ "ema=constant:decay=0.25", NULL }, 100),
	                 0);
	adapting(rows, 1, 1);
	fake_trainer_join(&new[0]);
	says(fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0)->body, "\"attributes\":{\"nc\":80}");
	ck_assert(net()->managed);
}
END_TEST

START_TEST(a_model_without_a_version_is_adapted_too)
{
	const struct tensor_row rows[] = { ROWS[0] };

	fake_trainer_join(&old);
	adapting(rows, 1, 1);
	fake_trainer_join(&new[0]);
	push(&new[0], 3, 4, "started");
	holds("w", 4);
	ck_assert_uint_eq(newest()->version, 1);
	accounts_check();
}
END_TEST

START_TEST(adapting_what_fits_is_an_ordinary_registration)
{
	averaged();
	adapting(ROWS, 3, 1);
	fake_trainer_join(&new[0]);
	push(&new[0], 12, 4, "applied");
	holds("w", 6);
	ck_assert_ptr_null(net()->changes);
	ck_assert_uint_eq(host.kept_count, 1); /* the stages */
}
END_TEST

START_TEST(adapting_again_before_the_first_update_loses_nothing)
{
	const struct tensor_row rows[] = { ROWS[0], { "u", DTYPE_F32, false, SHAPE(3) } };

	averaged();
	adapting(rows, 2, 1);
	fake_trainer_join(&new[0]);
	old.resume = "adapt";
	fake_trainer_join(&old);
	accounts_check();
	push(&old, 12, 4, "applied");
	holds("w", 6);
	/* "v" was not among the tensors in between, but nothing had been averaged of those. */
	holds("v", 6);
	holds("n", 16);
	accounts_check();
}
END_TEST

/* ---- meanwhile --------------------------------------------------------------------------------------------------- */

START_TEST(readers_keep_what_they_read)
{
	const struct tensor_row rows[] = { ROWS[0] };
	const struct fake_reply *view;
	const struct slot_header *slot;
	const float *before;
	uint64_t fence;

	averaged();
	view = fake_host_expect(&host, fake_view(&host, 51, "net", NULL, 0, 0), 0);
	slot = (const void *)fake_host_map(&host, view->fd);
	before = (const void *)fake_tensor(&host, view, "v");
	fence = view->reply.fence;
	adapting(rows, 1, 1);
	fake_trainer_join(&new[0]);
	for (uint64_t step = 12; step < 20; step++)
		push(&new[0], step, 0, "applied");
	ck_assert_uint_eq(slot->fence, fence);
	ck_assert_float_eq(before[0], 8);
	fake_host_gone(&host, 51);
	ck_assert_ptr_null(
		fake_tensor(&host, fake_host_expect(&host, fake_view(&host, 52, "net", NULL, 0, 0), 0), "v"));
}
END_TEST

START_TEST(two_ranks_that_adapt_at_once_find_one_heir)
{
	uint64_t numbers[2];

	averaged();
	adapting(ROWS, 3, 2);
	host.prompt = false;
	for (uint32_t r = 0; r < 2; r++)
		numbers[r] = fake_trainer_register(&new[r]);
	ck_assert_uint_eq(host.order_count, 1);
	/* Until then the model is there and can be read. */
	holds("w", 8);
	host.prompt = true;
	fake_host_settle(&host);
	for (uint32_t r = 0; r < 2; r++) {
		fake_trainer_registered(&new[r], numbers[r]);
		fake_trainer_attached(&new[r], fake_trainer_attach(&new[r]));
	}
	for (uint32_t r = 0; r < 2; r++) {
		fill(&new[r], 0, 4);
		numbers[r] = fake_trainer_push(&new[r], 12, 0, true);
	}
	ck_assert_str_eq(fake_host_expect(&host, numbers[1], 0)->outcome, "applied");
	holds("w", 6);
	accounts_check();
}
END_TEST

START_TEST(what_was_accepted_is_averaged_before)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number, pushes[2];

	averaged();
	adapting(rows, 1, 1);
	host.prompt = false;
	for (uint32_t i = 0; i < 2; i++) {
		fill(&old, i, 0);
		pushes[i] = fake_trainer_push(&old, 12 + i, i, false);
	}
	number = fake_trainer_register(&new[0]);
	fake_host_make(&host);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	/* Its trainer is fenced, so that it comes to an end. */
	fake_host_expect(&host, fake_trainer_push(&old, 20, 0, false), STATUS_EFENCED);
	fake_host_apply(&host);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_apply(&host);
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.last_step, 13);
	for (int i = 0; i < 2; i++)
		fake_host_expect(&host, pushes[i], 0);
	ck_assert_uint_eq(service_counters(host.service)->pushes_applied, 4);
	holds("w", 2);
}
END_TEST

START_TEST(readers_that_pin_every_slot_do_not_lose_what_was_accepted)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number;

	averaged();
	for (uint64_t i = 0; i < 3; i++) {
		fake_host_expect(&host, fake_view(&host, 51 + i, "net", NULL, 0, 0), 0);
		if (i < 2)
			push(&old, 12 + i, 0, "applied");
	}
	adapting(rows, 1, 1);
	fill(&old, 0, 0);
	fake_trainer_push(&old, 14, 0, false);
	number = fake_trainer_register(&new[0]);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_gone(&host, 51);
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.last_step, 14);
	holds("w", 1);
}
END_TEST

START_TEST(an_ancestor_that_is_removed_meanwhile_leaves_a_model_that_starts)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number;

	averaged();
	adapting(rows, 1, 1);
	host.prompt = false;
	number = fake_trainer_register(&new[0]);
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	host.prompt = true;
	fake_host_settle(&host);
	ck_assert(!fake_host_expect(&host, number, 0)->reply.resumed);
	fake_trainer_registered(&new[0], number);
	fake_trainer_attached(&new[0], fake_trainer_attach(&new[0]));
	push(&new[0], 5, 4, "started");
	holds("w", 4);
	accounts_check();
}
END_TEST

START_TEST(a_model_that_starts_anew_meanwhile_is_adapted_instead)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number, other;

	averaged();
	adapting(rows, 1, 1);
	host.prompt = false;
	number = fake_trainer_register(&new[0]);
	old.resume = "never";
	other = fake_trainer_register(&old);
	host.prompt = true;
	fake_host_settle(&host);
	fake_host_expect(&host, other, 0);
	ck_assert(!fake_host_expect(&host, number, 0)->reply.resumed);
	fake_trainer_registered(&new[0], number);
	fake_trainer_attached(&new[0], fake_trainer_attach(&new[0]));
	/* Nothing is left of those in between. */
	ck_assert_ptr_null(host.service->models->next);
	accounts_check();
}
END_TEST

START_TEST(who_gives_up_takes_the_heir_along)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number;

	averaged();
	adapting(rows, 1, 1);
	host.prompt = false;
	number = fake_trainer_register(&new[0]);
	fake_host_gone(&host, new[0].peer + 1000);
	host.prompt = true;
	fake_host_settle(&host);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	ck_assert_ptr_null(host.service->models->next);
	push(&old, 12, 0, "applied");
	holds("v", 4);
	accounts_check();
}
END_TEST

START_TEST(profiles_that_change_meanwhile_do_not_get_lost_between_the_two)
{
	const struct tensor_row rows[] = { ROWS[0] };
	uint64_t number, change;

	averaged();
	adapting(rows, 1, 1);
	host.prompt = false;
	number = fake_trainer_register(&new[0]);
	change = fake_profiles_set(&host, "net", (const char *const[]){ "slow=constant:decay=0.75", NULL }, 1000);
	host.prompt = true;
	fake_host_settle(&host);
	fake_trainer_registered(&new[0], number);
	fake_host_expect(&host, change, 0);
	fake_trainer_attached(&new[0], fake_trainer_attach(&new[0]));
	ck_assert_uint_eq(net()->geometry->profile_count, 2);
	holds("w", 8);
	accounts_check();
}
END_TEST

/* ---- what fails -------------------------------------------------------------------------------------------------- */

START_TEST(without_the_word_other_tensors_are_refused)
{
	const struct tensor_row rows[] = {
		{ "u", DTYPE_F32, false, SHAPE(3) },
		{ "w", DTYPE_F64, false, SHAPE(8, 2) },
		{ "v", DTYPE_F32, false, SHAPE(7) },
	};
	const struct fake_reply *answer;

	averaged();
	adapting(rows, 3, 1);
	new[0].resume = NULL;
	answer = fake_host_expect(&host, fake_trainer_register(&new[0]), STATUS_EMANIFEST);
	says(answer->error, "1 new ('u'), 1 gone ('n'), 1 of another shape ('v'), 1 of another dtype ('w')");
	says(answer->error, "resume=adapt goes on with what both have");
	push(&old, 12, 0, "applied");
}
END_TEST

START_TEST(memory_that_is_not_there_is_refused_with_both_numbers)
{
	const struct tensor_row rows[] = { ROWS[0], { "u", DTYPE_F32, false, SHAPE(100000) } };
	uint64_t bytes;
	char left[80];

	averaged();
	bytes = service_memory_bytes(host.service);
	host.service->settings.memory_bytes_max = bytes + 8192;
	adapting(rows, 2, 1);
	snprintf(left, sizeof left, "but 8192 of %lu (memory-max) are left", (unsigned long)bytes + 8192);
	says(fake_host_expect(&host, fake_trainer_register(&new[0]), STATUS_EMEMORY)->error, left);
	ck_assert_ptr_null(host.service->models->next);
	push(&old, 12, 0, "applied");
	holds("w", 4);
	accounts_check();
}
END_TEST

START_TEST(memory_that_cannot_be_made_leaves_everything_as_it_was)
{
	uint64_t numbers[2];

	averaged();
	adapting(ROWS, 3, 2);
	host.prompt = false;
	for (uint32_t r = 0; r < 2; r++)
		numbers[r] = fake_trainer_register(&new[r]);
	host.memory_status = STATUS_EMEMORY;
	fake_host_make(&host);
	for (uint32_t r = 0; r < 2; r++)
		says(fake_host_expect(&host, numbers[r], STATUS_EMEMORY)->error,
		     "9 bytes are needed and 3 are available");
	host.memory_status = 0;
	host.prompt = true;
	fake_host_settle(&host);
	ck_assert_ptr_null(host.service->models->next);
	push(&old, 12, 0, "applied");
	holds("n", 16);
	accounts_check();
}
END_TEST

START_TEST(a_snapshot_of_the_new_tensors_that_is_refused_leaves_the_old_version)
{
	const struct tensor_row rows[] = { ROWS[0], { "u", DTYPE_F32, false, SHAPE(3) } };

	averaged();
	adapting(rows, 2, 1);
	new[0].guards = _i ? "nonfinite=skip-tensor" : NULL;
	fake_trainer_join(&new[0]);
	/* "u" has nothing that it could keep. */
	push(&new[0], 12, 0.0F / 0.0F, "nonfinite");
	holds("v", 8);
	push(&new[0], 13, 0, "applied");
	holds("w", 2);
	ck_assert_uint_eq(newest()->calls, 2);
}
END_TEST

START_TEST(a_tensor_that_goes_on_is_kept_where_its_values_are_bad)
{
	const struct tensor_row rows[] = { { "w", DTYPE_F64, false, SHAPE(8, 2) } };

	averaged();
	adapting(rows, 1, 1);
	new[0].guards = "nonfinite=skip-tensor";
	fake_trainer_join(&new[0]);
	push(&new[0], 12, 0.0F / 0.0F, "applied");
	holds("w", 8);
	push(&new[0], 13, 0, "applied");
	holds("w", 4);
}
END_TEST

START_TEST(integers_that_become_floats_have_nothing_to_keep)
{
	const struct tensor_row rows[] = { ROWS[0], { "n", DTYPE_F32, true, SHAPE(4) } };

	averaged();
	adapting(rows, 2, 1);
	new[0].profiles[0] = "ema=yolo";
	new[0].guards = "nonfinite=skip-tensor";
	fake_trainer_join(&new[0]);
	push(&new[0], 12, 0.0F / 0.0F, "nonfinite");
	push(&new[0], 13, 4, "applied");
	holds("n", 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_adapt");
	TCase *averages = tcase_create("averages"), *meanwhile = tcase_create("meanwhile"),
	      *failures = tcase_create("failures");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(averages, setup, teardown);
	tcase_add_test(averages, what_both_have_goes_on_and_what_is_new_starts);
	tcase_add_loop_test(averages, weights_of_another_type_go_on, 0, sizeof dtype_changes / sizeof dtype_changes[0]);
	tcase_add_test(averages, another_world_goes_on);
	tcase_add_test(averages, other_profiles_come_with_other_tensors);
	tcase_add_test(averages, attributes_and_management_are_inherited);
	tcase_add_test(averages, a_model_without_a_version_is_adapted_too);
	tcase_add_test(averages, adapting_what_fits_is_an_ordinary_registration);
	tcase_add_test(averages, adapting_again_before_the_first_update_loses_nothing);
	suite_add_tcase(suite, averages);
	tcase_add_checked_fixture(meanwhile, setup, teardown);
	tcase_add_test(meanwhile, readers_keep_what_they_read);
	tcase_add_test(meanwhile, two_ranks_that_adapt_at_once_find_one_heir);
	tcase_add_test(meanwhile, what_was_accepted_is_averaged_before);
	tcase_add_test(meanwhile, readers_that_pin_every_slot_do_not_lose_what_was_accepted);
	tcase_add_test(meanwhile, an_ancestor_that_is_removed_meanwhile_leaves_a_model_that_starts);
	tcase_add_test(meanwhile, a_model_that_starts_anew_meanwhile_is_adapted_instead);
	tcase_add_test(meanwhile, who_gives_up_takes_the_heir_along);
	tcase_add_test(meanwhile, profiles_that_change_meanwhile_do_not_get_lost_between_the_two);
	suite_add_tcase(suite, meanwhile);
	tcase_add_checked_fixture(failures, setup, teardown);
	tcase_add_test(failures, without_the_word_other_tensors_are_refused);
	tcase_add_test(failures, memory_that_is_not_there_is_refused_with_both_numbers);
	tcase_add_test(failures, memory_that_cannot_be_made_leaves_everything_as_it_was);
	tcase_add_loop_test(failures, a_snapshot_of_the_new_tensors_that_is_refused_leaves_the_old_version, 0, 2);
	tcase_add_test(failures, a_tensor_that_goes_on_is_kept_where_its_values_are_bad);
	tcase_add_test(failures, integers_that_become_floats_have_nothing_to_keep);
	suite_add_tcase(suite, failures);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
