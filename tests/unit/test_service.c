/*
 * The service through a host of its own: what is pushed is averaged and served.
 */
#include "tests/unit/fake_host.h"

#include "proto/safetensors.h"

#include <check.h>
#include <float.h>
#include <jansson.h>
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

/* ---- the way of the data ----------------------------------------------------------------------------------------- */

START_TEST(averages_what_is_pushed_and_serves_it)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;
	float average = 8;

	fake_trainer_join(&trainer);
	answer = push(&trainer, 100, 8, "started");
	ck_assert_uint_eq(answer->reply.version, 1);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 8);
	for (int n = 1; n <= 50; n++) {
		float value = (float)(n % 7) - 3;

		answer = push(&trainer, 100 + (uint64_t)n, value, "applied");
		ck_assert_uint_eq(answer->reply.version, (uint64_t)n + 1);
		average = yolo(average, value, n);
		ck_assert_float_eq(fake_average(&host, "net", "ema"), average);
	}
	ck_assert_uint_eq(counters()->versions_published, 51);
	ck_assert_uint_eq(counters()->pushes_applied, 51);
	ck_assert_uint_eq(counters()->apply_bytes, 51 * FAKE_ELEMENTS * sizeof(float));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_view_says_what_it_shows)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *view;
	const struct slot_header *slot;
	struct safetensors *image;
	struct reason reason = { "" };

	trainer.profiles[1] = "slow=constant:decay=0.5";
	trainer.profile_count = 2;
	trainer.attributes = "{ \"names\": [\"cat\", \"d\\u00f6g\"], \"nc\": 2 }";
	fake_trainer_join(&trainer);
	push(&trainer, 8, 8, "started");
	push(&trainer, 9, 4, "applied");
	view = fake_host_expect(&host, fake_view(&host, 50, "net", "slow", 0, 0), 0);
	ck_assert_uint_eq(view->reply.version, 2);
	ck_assert_uint_eq(view->reply.step, 9);
	ck_assert_uint_eq(view->reply.profile_index, 1);
	slot = (const void *)fake_host_map(&host, view->fd);
	ck_assert_int_eq(segment_header_check(&slot->segment, SEGMENT_SLOT, view->reply.segment_bytes, &reason), 0);
	ck_assert_uint_eq(slot->segment.segment, view->reply.segment);
	ck_assert_uint_eq(slot->fence, view->reply.fence);
	ck_assert_uint_eq(slot->version, 2);
	ck_assert_uint_eq(slot->checksum, slot_header_checksum(slot));
	ck_assert_double_eq(slot->profiles[1].decay, 0.5);
	ck_assert_uint_eq(slot->profiles[1].updates, 1);
	ck_assert_double_eq_tol(slot->profiles[1].drift, sqrt(FAKE_ELEMENTS * 16), 1e-9);
	ck_assert_double_eq_tol(slot->profiles[1].value_norm, sqrt(FAKE_ELEMENTS * 16), 1e-9);
	ck_assert_uint_eq(slot->published_us, host.now.wall_us);
	ck_assert_int_eq(safetensors_parse((const uint8_t *)slot + view->reply.region_offset, view->reply.region_bytes,
	                                   view->reply.region_bytes, &image, &reason),
	                 0);
	ck_assert_str_eq(safetensors_metadata_get(image, "format"), "pt");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.model"), "net");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.profile"), "slow");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.step"), "9");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.updates"), "1");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.schedule"), "constant:decay=0.5");
	ck_assert_str_eq(safetensors_metadata_get(image, "emad.attributes"),
	                 "{\"names\":[\"cat\",\"d\xc3\xb6g\"],\"nc\":2}");
	safetensors_destroy(image);
	ck_assert_float_eq(fake_average(&host, "net", "slow"), 6);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_profile_that_is_not_there_is_named)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	answer = fake_host_expect(&host, fake_view(&host, 50, "net", "slow", 0, 0), STATUS_ENOPROFILE);
	ck_assert_str_eq(answer->error, "model 'net' has no profile 'slow'; it has: ema");
	fake_host_expect(&host, fake_view(&host, 50, "net", "no/such", 0, 0), STATUS_ENAME);
	answer = fake_host_expect(&host, fake_view(&host, 50, "other", NULL, 0, 0), STATUS_ENOMODEL);
	ck_assert_str_eq(answer->error, "there is no model 'other'; there are: net");
	fake_host_expect(&host, fake_view(&host, 50, "../etc", NULL, 0, 0), STATUS_ENAME);
	fake_trainer_finish(&trainer);
}
END_TEST

static json_t *json_of(uint64_t number)
{
	const struct fake_reply *answer = fake_host_expect(&host, number, 0);
	json_t *root = json_loads(answer->body, JSON_REJECT_DUPLICATES, NULL);

	ck_assert_msg(root != NULL, "%s", answer->body);
	return root;
}

START_TEST(tells_its_facts_as_json)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	json_t *root, *row;

	fake_trainer_join(&trainer);
	/* Before anything was averaged, and after. */
	for (int started = 0; started < 2; started++) {
		root = json_of(fake_query(&host, OP_SHOW, "net"));
		ck_assert_str_eq(json_string_value(json_object_get(root, "model")), "net");
		ck_assert_int_eq(json_is_null(json_object_get(root, "step")), !started);
		ck_assert_uint_eq(json_array_size(json_object_get(root, "tensors")), 1);
		ck_assert_uint_eq(json_array_size(json_object_get(root, "slots")), 3);
		row = json_array_get(json_object_get(root, "ranks"), 0);
		ck_assert(json_is_true(json_object_get(row, "attached")));
		json_decref(root);
		push(&trainer, 5 + (uint64_t)started, 1, started ? "applied" : "started");
	}
	root = json_of(fake_query(&host, OP_LIST, NULL));
	row = json_array_get(json_object_get(root, "models"), 0);
	ck_assert_int_eq(json_integer_value(json_object_get(row, "step")), 6);
	ck_assert_int_eq(json_integer_value(json_object_get(row, "parameters")), FAKE_ELEMENTS);
	json_decref(root);
	root = json_of(fake_query(&host, OP_STATUS, NULL));
	ck_assert_int_eq(json_integer_value(json_object_get(root, "models")), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(root, "counters"), "pushes_applied")), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(root, "uptime_ms")), 1000);
	json_decref(root);
	fake_host_expect(&host, fake_query(&host, OP_SHOW, "none"), STATUS_ENOMODEL);
	ck_assert_uint_eq(fake_host_expect(&host, fake_query(&host, OP_HELLO, NULL), 0)->reply.uptime_ms, 1000);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_removed_model_gives_its_memory_back)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	answer = fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	ck_assert_uint_gt(answer->reply.freed_bytes, 0);
	ck_assert_uint_eq(host.segment_count, 0);
	answer = fake_host_expect(&host, fake_trainer_push(&trainer, 6, 0, false), STATUS_ENOMODEL);
	ck_assert_str_eq(answer->error, "there is no model 'net'; no model is registered");
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), STATUS_ENOMODEL);
	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(repeats_are_answered_and_not_applied)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	push(&trainer, 6, 2, "applied");
	trainer.sequence--;
	ck_assert_uint_eq(push(&trainer, 6, 2, "applied")->reply.version, 2);
	push(&trainer, 6, 3, "duplicate");
	push(&trainer, 5, 3, "stale");
	ck_assert_uint_eq(counters()->versions_published, 2);
	ck_assert_uint_eq(counters()->pushes_accepted, 2);
	ck_assert_uint_eq(counters()->pushes_duplicate, 1);
	ck_assert_uint_eq(counters()->pushes_stale, 1);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_value_that_is_not_finite_is_refused_and_the_next_push_works)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	fake_trainer_join(&trainer);
	/* As the start too. */
	answer = push(&trainer, 4, NAN, "nonfinite");
	ck_assert_uint_eq(answer->reply.version, 0);
	fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), STATUS_ENOVERSION);
	push(&trainer, 5, 1, "started");
	fake_trainer_fill(&trainer, 0, 2);
	((float *)fake_trainer_stage(&trainer, 0))[0] = INFINITY;
	((float *)fake_trainer_stage(&trainer, 0))[FAKE_ELEMENTS - 1] = -NAN;
	answer = fake_host_expect(&host, fake_trainer_push(&trainer, 6, 0, true), 0);
	ck_assert_str_eq(answer->outcome, "nonfinite");
	ck_assert_msg(strstr(answer->refusal, "step 6") && strstr(answer->refusal, "'w'") &&
	                      strstr(answer->refusal, "2 NaN or infinite values"),
	              "%s", answer->refusal);
	ck_assert_uint_eq(answer->reply.refused, 2);
	ck_assert_float_eq(fake_average(&host, "net", NULL), 1);
	push(&trainer, 6, 2, "applied");
	ck_assert_float_eq(fake_average(&host, "net", NULL), yolo(1, 2, 1));
	ck_assert_uint_eq(counters()->pushes_nonfinite, 2);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(finite_values_whose_average_overflows_are_refused)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	const struct fake_reply *answer;

	trainer.profiles[0] = "ema=constant";
	fake_trainer_join(&trainer);
	push(&trainer, 5, -FLT_MAX, "started");
	answer = push(&trainer, 6, FLT_MAX, "nonfinite");
	ck_assert_msg(strstr(answer->refusal, "overflow") != NULL, "%s", answer->refusal);
	ck_assert_float_eq(fake_average(&host, "net", NULL), -FLT_MAX);
	push(&trainer, 6, -FLT_MAX, "applied");
	fake_trainer_finish(&trainer);
	/* The other form does not overflow on the way. */
	trainer = trainer_of(0, 1);
	trainer.model = "mul-add";
	fake_trainer_join(&trainer);
	push(&trainer, 5, -FLT_MAX, "started");
	push(&trainer, 6, FLT_MAX, "applied");
	ck_assert(isfinite(fake_average(&host, "mul-add", NULL)));
	fake_trainer_finish(&trainer);
}
END_TEST

/* Days by which the wall clock is set while an update runs. */
static const int jumps[] = { -30, 30 };

START_TEST(a_wall_clock_that_is_set_does_not_count_as_time_of_updates)
{
	struct fake_trainer trainer = trainer_of(0, 1);

	fake_trainer_join(&trainer);
	push(&trainer, 5, 1, "started");
	host.prompt = false;
	fake_trainer_push(&trainer, 6, 0, false);
	host.now.wall_us += (uint64_t)(INT64_C(86400000000) * jumps[_i]);
	fake_host_pass(&host, 7);
	fake_host_settle(&host);
	ck_assert_uint_eq(counters()->apply_us, 7000);
	ck_assert_uint_eq(counters()->versions_published, 2);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(attributes_are_replaced_and_checked)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	struct request request = { .operation = OP_ATTRIBUTES };
	json_t *root;

	fake_trainer_join(&trainer);
	request_set(&request, model, text_of("net"));
	request_set(&request, rank, 0);
	request_set(&request, epoch, trainer.epoch);
	request_set(&request, client, trainer.client);
	request_set(&request, sequence, 99);
	request_set(&request, attributes, text_of("{\"nc\": 80}"));
	fake_host_expect(&host, fake_host_ask(&host, 2000, &request, NULL, 0), 0);
	request.attributes = text_of("[1]");
	fake_host_expect(&host, fake_host_ask(&host, 2000, &request, NULL, 0), STATUS_EARGUMENT);
	request.epoch--;
	request.attributes = text_of("{}");
	fake_host_expect(&host, fake_host_ask(&host, 2000, &request, NULL, 0), STATUS_EFENCED);
	root = json_of(fake_query(&host, OP_SHOW, "net"));
	ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(root, "attributes"), "nc")), 80);
	json_decref(root);
	fake_trainer_finish(&trainer);
}
END_TEST

/* The largest attributes that are allowed, of what takes most room as JSON inside JSON. */
START_TEST(the_largest_attributes_fit_into_the_image)
{
	struct fake_trainer trainer = trainer_of(0, 1);
	static char text[ATTRIBUTES_BYTES_MAX + 1];
	size_t room = ATTRIBUTES_BYTES_MAX - strlen("{\"a\":\"\"}") - 1;

	strcpy(text, "{\"a\":\"");
	for (size_t i = 0; i < room / 2; i++)
		strcat(text + 6 + 2 * i, i % 2 ? "\\\\" : "\\\"");
	strcat(text, "\"}");
	trainer.attributes = text;
	fake_trainer_join(&trainer);
	push(&trainer, UINT64_MAX - 1, 1, "started");
	fake_trainer_finish(&trainer);
}
END_TEST

static TCase *data_tests(void)
{
	TCase *tcase = tcase_create("data");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, averages_what_is_pushed_and_serves_it);
	tcase_add_test(tcase, a_view_says_what_it_shows);
	tcase_add_test(tcase, a_profile_that_is_not_there_is_named);
	tcase_add_test(tcase, tells_its_facts_as_json);
	tcase_add_test(tcase, a_removed_model_gives_its_memory_back);
	tcase_add_test(tcase, repeats_are_answered_and_not_applied);
	tcase_add_test(tcase, a_value_that_is_not_finite_is_refused_and_the_next_push_works);
	tcase_add_test(tcase, finite_values_whose_average_overflows_are_refused);
	tcase_add_loop_test(tcase, a_wall_clock_that_is_set_does_not_count_as_time_of_updates, 0, 2);
	tcase_add_test(tcase, attributes_are_replaced_and_checked);
	tcase_add_test(tcase, the_largest_attributes_fit_into_the_image);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("service");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, data_tests());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
