/*
 * The client library against a real daemon: what emad.h promises, from registering to reading, and what it promises
 * when the daemon is away, stopped, killed, or the process has forked.
 *
 * Runs in one process (NNG aborts in forked children), hence CK_NOFORK.
 */
#include "client/emad.h"
#include "tests/integration/harness.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	WEIGHT_COUNT = 3 * 40000, /* more than a streamed copy's minimum, and no round number of lines */
	BIAS_COUNT = 3,
	TENSOR_COUNT = 4,
	TIMEOUT_MS = 20000,
};

static struct harness shared;      /* for tests that leave the daemon alive */
static struct emad_client *client; /* of it */

/* Fails the test with the library's own sentence. */
#define OK(call)                                                                                                      \
	do {                                                                                                          \
		int code_ = (call);                                                                                   \
		ck_assert_msg(code_ == 0, "%s: %s: %s", #call, emad_code_name(code_), emad_error());                  \
	} while (0)

#define FAILS(code, call)                                                                                             \
	do {                                                                                                          \
		int code_ = (call);                                                                                   \
		ck_assert_msg(code_ == (code), "%s: %s and not %s: %s", #call, emad_code_name(code_),                 \
		              emad_code_name(code), emad_error());                                                    \
		ck_assert_uint_gt(strlen(emad_error()), 10);                                                          \
	} while (0)

/* A small model: averaged weights, a scalar, a counter that is copied. */
struct model {
	float weight[WEIGHT_COUNT];
	float bias[BIAS_COUNT];
	float scale;
	int64_t counter;
	const void *data[TENSOR_COUNT];
};

static const uint64_t weight_shape[] = {3, 40000}, bias_shape[] = {BIAS_COUNT};

static const struct emad_tensor tensors[TENSOR_COUNT] = {
	{.name = "module.net.weight", .dtype = EMAD_F32, .dimension_count = 2, .shape = weight_shape},
	{.name = "net.bias", .dtype = EMAD_F32, .dimension_count = 1, .shape = bias_shape},
	{.name = "net.counter", .dtype = EMAD_I64, .flags = EMAD_TENSOR_BUFFER},
	{.name = "net.scale", .dtype = EMAD_F32},
};

static const char *const halves[] = {"ema=constant:decay=0.5", "slow=constant:decay=0.75"};
static const struct emad_trainer_options halves_options = {
	.profiles = halves,
	.profile_count = 2,
	.timeout_ms = -1,
};

static void model_fill(struct model *model, float value)
{
	for (int i = 0; i < WEIGHT_COUNT; i++)
		model->weight[i] = value + (float)(i % 1000);
	for (int i = 0; i < BIAS_COUNT; i++)
		model->bias[i] = value;
	model->scale = value;
	model->counter = (int64_t)value;
	model->data[0] = model->weight;
	model->data[1] = model->bias;
	model->data[2] = &model->counter;
	model->data[3] = &model->scale;
}

static struct emad_trainer *trainer_of(const char *name, const struct emad_trainer_options *options)
{
	struct emad_trainer *trainer = NULL;

	OK(emad_trainer_open(client, name, tensors, TENSOR_COUNT, options, &trainer));
	return trainer;
}

/* Pushes and waits until it is applied. */
static void push_value(struct emad_trainer *trainer, uint64_t step, float value, enum emad_outcome expected)
{
	static struct model model;
	struct emad_push_result result;

	model_fill(&model, value);
	OK(emad_push(trainer, step, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, &result));
	ck_assert_int_eq(result.outcome, expected);
	ck_assert_uint_eq(result.step, step);
}

/* Checks that a view holds model_fill's pattern of a value in every averaged tensor. */
static void view_holds(struct emad_view *view, float value, int64_t counter)
{
	struct emad_view_tensor tensor;

	OK(emad_view_find(view, "net.weight", &tensor));
	ck_assert_uint_eq(tensor.bytes, WEIGHT_COUNT * sizeof(float));
	ck_assert_uint_eq(tensor.dimension_count, 2);
	ck_assert_uint_eq(tensor.shape[1], 40000);
	for (int i = 0; i < WEIGHT_COUNT; i++)
		ck_assert_float_eq_tol(((const float *)tensor.data)[i], value + (float)(i % 1000), 1e-3f);
	OK(emad_view_find(view, "net.bias", &tensor));
	ck_assert_float_eq_tol(((const float *)tensor.data)[BIAS_COUNT - 1], value, 1e-5f);
	OK(emad_view_find(view, "net.scale", &tensor));
	ck_assert_uint_eq(tensor.dimension_count, 0);
	ck_assert_float_eq_tol(*(const float *)tensor.data, value, 1e-5f);
	OK(emad_view_find(view, "net.counter", &tensor));
	ck_assert_int_eq(tensor.dtype, EMAD_I64);
	ck_assert(*(const int64_t *)tensor.data == counter);
	OK(emad_view_check(view));
}

static void shared_open(void)
{
	harness_open(&shared, NULL);
	OK(emad_client_open(shared.url, TIMEOUT_MS, &client));
}

static void shared_close(void)
{
	int status;

	emad_client_close(client);
	status = harness_stop(&shared);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the daemon ended with status %#x", (unsigned)status);
	harness_close(&shared);
}

/* ---- the connection ---- */

START_TEST(says_who_answers)
{
	struct emad_daemon daemon;

	OK(emad_hello(client, -1, &daemon));
	ck_assert_int_eq((int)daemon.pid, shared.pid);
	ck_assert_uint_ne(daemon.instance, 0);
	ck_assert_ptr_nonnull(strstr(daemon.agent, "emad"));
}
END_TEST

START_TEST(says_what_to_start_when_there_is_no_daemon)
{
	struct emad_client *none = NULL;
	long long begin_ms = harness_now_ms();

	FAILS(EMAD_EAWAY, emad_client_open("ipc:///tmp/emad-test-nobody/emad.sock", 100, &none));
	ck_assert_ptr_null(none);
	ck_assert_ptr_nonnull(strstr(emad_error(), "/tmp/emad-test-nobody"));
	ck_assert_ptr_nonnull(strstr(emad_error(), "EMAD_SOCKET"));
	ck_assert_int_lt(harness_now_ms() - begin_ms, 5000);
}
END_TEST

START_TEST(refuses_a_socket_path_that_is_too_long_with_both_numbers)
{
	char url[256] = "ipc:///";
	struct emad_client *none = NULL;

	memset(url + 7, 'x', 150);
	FAILS(EMAD_EARGUMENT, emad_client_open(url, 100, &none));
	ck_assert_ptr_nonnull(strstr(emad_error(), "107"));
}
END_TEST

START_TEST(names_the_user_who_may_not_connect)
{
	struct emad_client *none = NULL;
	char path[96];

	if (geteuid() == 0)
		return; /* root may everything */
	snprintf(path, sizeof(path), "%s/emad.sock", shared.directory);
	ck_assert_int_eq(chmod(path, 0), 0);
	FAILS(-EACCES, emad_client_open(path, 500, &none));
	ck_assert_int_eq(chmod(path, 0600), 0);
}
END_TEST

START_TEST(lists_and_shows_models_as_json)
{
	struct emad_trainer *trainer = trainer_of("json/model", &halves_options);
	char *json = NULL;

	OK(emad_status_json(client, -1, &json));
	ck_assert_int_eq(json[0], '{');
	emad_free(json);
	OK(emad_list_json(client, -1, &json));
	ck_assert_ptr_nonnull(strstr(json, "json/model"));
	emad_free(json);
	OK(emad_show_json(client, "json/model", -1, &json));
	ck_assert_ptr_nonnull(strstr(json, "net.weight"));
	emad_free(json);
	FAILS(EMAD_ENOMODEL, emad_show_json(client, "json/none", -1, &json));
	FAILS(EMAD_ENAME, emad_show_json(client, "json/../none", -1, &json));
	emad_trainer_close(trainer);
}
END_TEST

static void *ask_often(void *context)
{
	struct emad_daemon daemon;
	char *json;

	(void)context;
	for (int i = 0; i < 50; i++) {
		if (emad_hello(client, TIMEOUT_MS, &daemon) || emad_list_json(client, TIMEOUT_MS, &json))
			return "failed";
		emad_free(json);
	}
	return NULL;
}

START_TEST(serves_several_threads_at_once)
{
	pthread_t threads[4];
	void *result;

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_often, NULL), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &result);
		ck_assert_ptr_null(result);
	}
}
END_TEST

/* ---- pushing and reading ---- */

START_TEST(averages_what_is_pushed)
{
	struct emad_trainer *trainer = trainer_of("average", &halves_options);
	struct emad_trainer_info info;
	struct emad_flush_result flushed;
	struct emad_view_info facts;
	struct emad_view *view;

	OK(emad_trainer_info(trainer, &info));
	ck_assert_int_eq(info.resumed, 0);
	ck_assert_uint_eq(info.version, 0);
	ck_assert_uint_eq(info.payload_bytes, (WEIGHT_COUNT + BIAS_COUNT + 1) * sizeof(float) + 8);
	ck_assert_ptr_nonnull(strstr(info.report, "slow"));
	push_value(trainer, 10, 4, EMAD_STARTED);
	push_value(trainer, 11, 8, EMAD_APPLIED);
	OK(emad_flush(trainer, -1, &flushed));
	ck_assert_uint_eq(flushed.step, 11);
	ck_assert_uint_eq(flushed.refused_count, 0);

	OK(emad_view_open(client, "average", NULL, 0, -1, &view));
	OK(emad_view_info(view, &facts));
	ck_assert_uint_eq(facts.step, 11);
	ck_assert_uint_eq(facts.updates, 1);
	ck_assert_uint_eq(facts.version, flushed.version);
	ck_assert_double_eq(facts.decay, 0.5);
	ck_assert_uint_eq(facts.tensor_count, TENSOR_COUNT);
	ck_assert_uint_eq(facts.fd_offset % 4096, 0);
	view_holds(view, 6, 8);
	emad_view_close(view);

	OK(emad_view_open(client, "average", "slow", 11, -1, &view));
	view_holds(view, 5, 8);
	ck_assert_str_eq(emad_view_metadata(view, "format"), "pt");
	ck_assert_ptr_null(emad_view_metadata(view, "no such key"));
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(lists_a_views_tensors_in_order_without_holes)
{
	struct emad_trainer *trainer = trainer_of("order", NULL);
	struct emad_view_tensor tensor, found;
	struct emad_view_info facts;
	struct emad_view *view;
	const uint8_t *end = NULL;

	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open(client, "order", NULL, 1, -1, &view));
	OK(emad_view_info(view, &facts));
	for (uint64_t i = 0; i < facts.tensor_count; i++) {
		OK(emad_view_tensor(view, i, &tensor));
		OK(emad_view_find(view, tensor.name, &found));
		ck_assert_ptr_eq(found.data, tensor.data);
		if (end)
			ck_assert_ptr_eq(tensor.data, end);
		end = (const uint8_t *)tensor.data + tensor.bytes;
	}
	ck_assert_ptr_eq(end, facts.image + facts.image_bytes);
	FAILS(-ENOENT, emad_view_tensor(view, facts.tensor_count, &tensor));
	FAILS(-ENOENT, emad_view_find(view, "module.net.weight", &tensor));
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(keeps_a_view_readable_behind_its_client_and_its_model)
{
	struct emad_trainer *trainer = trainer_of("outlive", &halves_options);
	struct emad_client *other;
	struct emad_view *view;
	uint64_t freed_bytes = 0;

	push_value(trainer, 1, 3, EMAD_STARTED);
	OK(emad_client_open(shared.url, -1, &other));
	OK(emad_view_open(other, "outlive", NULL, 0, -1, &view));
	emad_client_close(other);
	emad_trainer_close(trainer);
	OK(emad_remove(client, "outlive", -1, &freed_bytes));
	ck_assert_uint_gt(freed_bytes, 0);
	FAILS(EMAD_ENOMODEL, emad_remove(client, "outlive", -1, NULL));
	view_holds(view, 3, 3);
	emad_view_close(view);
}
END_TEST

START_TEST(says_which_view_cannot_be_had)
{
	struct emad_trainer *trainer = trainer_of("views", &halves_options);
	struct emad_view *view = NULL;

	FAILS(EMAD_ENOMODEL, emad_view_open(client, "views/none", NULL, 0, -1, &view));
	FAILS(EMAD_ENOVERSION, emad_view_open(client, "views", NULL, 0, -1, &view));
	push_value(trainer, 5, 1, EMAD_STARTED);
	FAILS(EMAD_ENOPROFILE, emad_view_open(client, "views", "none", 0, -1, &view));
	FAILS(EMAD_ETIMEOUT, emad_view_open(client, "views", NULL, 6, 100, &view));
	ck_assert_ptr_nonnull(strstr(emad_error(), "5"));
	ck_assert_ptr_null(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(answers_duplicate_and_stale_steps)
{
	struct emad_trainer *trainer = trainer_of("steps", &halves_options);

	push_value(trainer, 7, 2, EMAD_STARTED);
	push_value(trainer, 7, 100, EMAD_DUPLICATE);
	push_value(trainer, 6, 100, EMAD_STALE);
	push_value(trainer, 8, 4, EMAD_APPLIED);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(reports_a_snapshot_that_is_not_finite_once)
{
	static struct model model;
	struct emad_trainer *trainer = trainer_of("nan", &halves_options);
	struct emad_push_result result;
	struct emad_flush_result flushed = {.refused_count = 99};
	struct emad_view *view;

	push_value(trainer, 1, 2, EMAD_STARTED);
	model_fill(&model, 2);
	model.weight[WEIGHT_COUNT - 1] = NAN;
	OK(emad_push(trainer, 2, model.data, EMAD_PUSH_WAIT, TIMEOUT_MS, &result));
	ck_assert_int_eq(result.outcome, EMAD_NONFINITE);
	ck_assert_ptr_nonnull(strstr(result.refusal, "net.weight"));
	FAILS(EMAD_EREFUSED, emad_flush(trainer, -1, &flushed));
	ck_assert_uint_eq(flushed.refused_count, 1);
	ck_assert_ptr_nonnull(strstr(flushed.refusal, "net.weight"));
	OK(emad_flush(trainer, -1, &flushed));
	push_value(trainer, 3, 4, EMAD_APPLIED);
	OK(emad_view_open(client, "nan", NULL, 3, -1, &view));
	/* It stands for the refused call as well: 2 is left a quarter. */
	view_holds(view, 3.5F, 4);
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(pushes_behind_the_callers_back)
{
	static struct model model;
	struct emad_trainer *trainer = trainer_of("async", &halves_options);
	struct emad_flush_result flushed;
	struct emad_view *view;

	OK(emad_fence(trainer, -1));
	for (uint64_t step = 1; step <= 20; step++) {
		model_fill(&model, 1);
		OK(emad_push_begin(trainer, step, model.data));
		OK(emad_fence(trainer, TIMEOUT_MS));
		/* What is written now must not reach the average. */
		memset(model.weight, 0xff, sizeof(model.weight));
	}
	OK(emad_flush(trainer, TIMEOUT_MS, &flushed));
	ck_assert_uint_eq(flushed.step, 20);
	ck_assert_uint_eq(flushed.refused_count, 0);
	OK(emad_view_open(client, "async", NULL, 20, -1, &view));
	view_holds(view, 1, 1);
	emad_view_close(view);
	model_fill(&model, 1);
	OK(emad_push_begin(trainer, 21, model.data));
	emad_trainer_close(trainer);
	OK(emad_view_open(client, "async", NULL, 21, TIMEOUT_MS, &view));
	emad_view_close(view);
}
END_TEST

START_TEST(sends_attributes_along)
{
	struct emad_trainer_options options = halves_options;
	struct emad_trainer *trainer;
	struct emad_view *view;
	char *large = malloc(40000);

	options.attributes = "{\"nc\": 80}";
	trainer = trainer_of("attributes", &options);
	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open(client, "attributes", NULL, 1, -1, &view));
	ck_assert_ptr_nonnull(strstr(emad_view_metadata(view, "emad.attributes"), "80"));
	emad_view_close(view);
	OK(emad_attributes_set(trainer, "{\"nc\": 91}", -1));
	push_value(trainer, 2, 1, EMAD_APPLIED);
	OK(emad_view_open(client, "attributes", NULL, 2, -1, &view));
	ck_assert_ptr_nonnull(strstr(emad_view_metadata(view, "emad.attributes"), "91"));
	emad_view_close(view);

	ck_assert_ptr_nonnull(large);
	memset(large, 'x', 39999);
	large[39999] = '\0';
	FAILS(EMAD_ELIMIT, emad_attributes_set(trainer, large, -1));
	ck_assert_ptr_nonnull(strstr(emad_error(), "39999"));
	ck_assert_ptr_nonnull(strstr(emad_error(), "32768"));
	free(large);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(continues_a_model_and_refuses_another_shape)
{
	struct emad_trainer_options must = halves_options;
	struct emad_tensor other[TENSOR_COUNT];
	uint64_t shape[] = {BIAS_COUNT + 1};
	struct emad_trainer *trainer;
	struct emad_trainer_info before, info;

	must.resume = EMAD_RESUME_MUST;
	FAILS(EMAD_ENOMODEL, emad_trainer_open(client, "resume", tensors, TENSOR_COUNT, &must, &trainer));
	trainer = trainer_of("resume", &halves_options);
	push_value(trainer, 40, 1, EMAD_STARTED);
	OK(emad_trainer_info(trainer, &before));
	emad_trainer_close(trainer);

	trainer = trainer_of("resume", &must);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_int_eq(info.resumed, 1);
	ck_assert_uint_eq(info.last_step, 40);
	ck_assert_uint_gt(info.epoch, before.epoch);
	emad_trainer_close(trainer);

	memcpy(other, tensors, sizeof(other));
	other[1].shape = shape;
	FAILS(EMAD_EMANIFEST, emad_trainer_open(client, "resume", other, TENSOR_COUNT, &halves_options, &trainer));
	ck_assert_ptr_nonnull(strstr(emad_error(), "net.bias"));
	FAILS(EMAD_EPROFILE, emad_trainer_open(client, "resume", tensors, TENSOR_COUNT, NULL, &trainer));
}
END_TEST

START_TEST(fences_the_older_of_two_trainers_for_ever)
{
	static struct model model;
	struct emad_client *other;
	struct emad_trainer *older = trainer_of("fence", &halves_options), *newer;

	push_value(older, 1, 1, EMAD_STARTED);
	OK(emad_client_open(shared.url, -1, &other));
	OK(emad_trainer_open(other, "fence", tensors, TENSOR_COUNT, &halves_options, &newer));
	model_fill(&model, 9);
	for (int i = 0; i < 3; i++)
		FAILS(EMAD_EFENCED, emad_push(older, 2, model.data, 0, -1, NULL));
	FAILS(EMAD_EFENCED, emad_flush(older, -1, NULL));
	push_value(newer, 2, 1, EMAD_APPLIED);
	emad_trainer_close(older);
	push_value(newer, 3, 1, EMAD_APPLIED);
	emad_trainer_close(newer);
	emad_client_close(other);
}
END_TEST

START_TEST(registers_again_when_the_model_was_removed)
{
	static struct model model;
	struct emad_trainer *trainer = trainer_of("removed", &halves_options);
	struct emad_trainer_info info;
	struct emad_view *view;

	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_remove(client, "removed", -1, NULL));
	push_value(trainer, 2, 5, EMAD_STARTED);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_uint_eq(info.restart_count, 1);
	ck_assert_uint_eq(info.lost_count, 0);

	OK(emad_remove(client, "removed", -1, NULL));
	model_fill(&model, 6);
	OK(emad_push_begin(trainer, 3, model.data));
	OK(emad_fence(trainer, TIMEOUT_MS));
	model_fill(&model, 0);
	OK(emad_flush(trainer, TIMEOUT_MS, NULL));
	OK(emad_view_open(client, "removed", NULL, 3, -1, &view));
	view_holds(view, 6, 6);
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(assembles_the_boxes_of_two_ranks)
{
	static struct model model;
	const uint64_t extent[] = {3, 20000}, offsets[2][2] = {{0, 0}, {0, 20000}}, none[] = {0}, zero[] = {0};
	struct emad_tensor boxes[2] = {
		{.name = "net.weight", .dtype = EMAD_F32, .dimension_count = 2, .shape = weight_shape, .extent = extent},
		{.name = "net.bias", .dtype = EMAD_F32, .dimension_count = 1, .shape = bias_shape},
	};
	struct emad_trainer_options options = halves_options;
	struct emad_trainer *trainers[2];
	struct emad_view_tensor tensor;
	struct emad_view *view;

	model_fill(&model, 0);
	options.world = 2;
	for (uint32_t rank = 0; rank < 2; rank++) {
		options.rank = rank;
		boxes[0].offset = offsets[rank];
		boxes[1].offset = rank == 0 ? NULL : zero;
		boxes[1].extent = rank == 0 ? NULL : none;
		OK(emad_trainer_open(client, "sharded", boxes, 2, &options, &trainers[rank]));
	}
	/* One rank alone completes nothing, and its stages fill up. */
	for (uint64_t step = 1; step <= 8; step++) {
		int code = emad_push(trainers[0], step, model.data, 0, 0, NULL);

		ck_assert(code == 0 || code == EMAD_EBUSY);
		if (code == EMAD_EBUSY)
			break;
		ck_assert_uint_lt(step, 8);
	}
	FAILS(EMAD_ETIMEOUT, emad_flush(trainers[0], 100, NULL));
	{
		const void *data[] = {model.weight + 500, NULL};
		struct emad_push_result result;

		OK(emad_push(trainers[1], 1, data, EMAD_PUSH_WAIT, TIMEOUT_MS, &result));
		ck_assert_int_eq(result.outcome, EMAD_STARTED);
	}
	OK(emad_view_open(client, "sharded", NULL, 1, -1, &view));
	OK(emad_view_find(view, "net.weight", &tensor));
	for (int row = 0; row < 3; row++) {
		const float *values = (const float *)tensor.data + 40000 * row;

		for (int i = 0; i < 20000; i++) {
			ck_assert_float_eq(values[i], (float)((20000 * row + i) % 1000));
			ck_assert_float_eq(values[20000 + i], (float)((500 + 20000 * row + i) % 1000));
		}
	}
	emad_view_close(view);
	emad_trainer_close(trainers[0]);
	emad_trainer_close(trainers[1]);
}
END_TEST

/* ---- files ---- */

static int stop_at_once(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t *calls = context;

	ck_assert_uint_le(done_bytes, total_bytes);
	++*calls;
	return 1;
}

static int count_calls(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t *last = context;

	/* The first call comes before there is a file. */
	ck_assert(done_bytes > *last || done_bytes == 0);
	ck_assert_uint_le(done_bytes, total_bytes);
	*last = done_bytes;
	return 0;
}

START_TEST(exports_the_image_as_it_is_or_leaves_the_path_alone)
{
	struct emad_trainer *trainer = trainer_of("export", &halves_options);
	uint64_t calls = 0, last = 0;
	const struct emad_export_options stopped = {0, -1, EMAD_DTYPE_KEPT, stop_at_once, &calls};
	const struct emad_export_options counted = {1, -1, EMAD_DTYPE_KEPT, count_calls, &last};
	struct emad_export_info exported;
	struct emad_view_info facts;
	struct emad_view *view;
	struct stat file;
	char path[96];
	uint8_t *bytes;
	FILE *stream;

	push_value(trainer, 1, 1, EMAD_STARTED);
	snprintf(path, sizeof(path), "%s/file.safetensors", shared.directory);
	FAILS(-ECANCELED, emad_export(client, "export", NULL, path, &stopped, NULL));
	ck_assert_uint_eq(calls, 1);
	ck_assert_int_eq(stat(path, &file), -1);
	FAILS(-EISDIR, emad_export(client, "export", NULL, shared.directory, NULL, NULL));
	FAILS(-ENOENT, emad_export(client, "export", NULL, "/nonexistent/file", NULL, NULL));

	OK(emad_export(client, "export", "slow", path, &counted, &exported));
	ck_assert_uint_eq(exported.step, 1);
	ck_assert_uint_eq(exported.overflow_count, 0);
	ck_assert_uint_eq(last, exported.file_bytes);
	OK(emad_view_open(client, "export", "slow", 1, -1, &view));
	OK(emad_view_info(view, &facts));
	ck_assert_uint_eq(exported.tensor_count, facts.tensor_count);
	ck_assert_int_eq(stat(path, &file), 0);
	ck_assert_uint_eq((uint64_t)file.st_size, facts.image_bytes);
	bytes = malloc(facts.image_bytes);
	stream = fopen(path, "re");
	ck_assert(bytes && stream);
	ck_assert_uint_eq(fread(bytes, 1, facts.image_bytes, stream), facts.image_bytes);
	ck_assert_mem_eq(bytes, facts.image, facts.image_bytes);
	fclose(stream);
	free(bytes);
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

/* The bytes of a file; the caller frees them. */
static uint8_t *file_bytes(const char *path, uint64_t *ret_bytes)
{
	struct stat facts;
	uint8_t *bytes;
	FILE *stream;

	ck_assert_int_eq(stat(path, &facts), 0);
	bytes = malloc((size_t)facts.st_size + 1);
	stream = fopen(path, "re");
	ck_assert(bytes && stream);
	ck_assert_uint_eq(fread(bytes, 1, (size_t)facts.st_size, stream), (size_t)facts.st_size);
	fclose(stream);
	bytes[facts.st_size] = '\0';
	*ret_bytes = (uint64_t)facts.st_size;
	return bytes;
}

static uint16_t bf16_at(const uint8_t *bytes, uint64_t index)
{
	uint16_t bits;

	memcpy(&bits, bytes + 2 * index, sizeof(bits));
	return bits;
}

START_TEST(exports_another_dtype_behind_a_header_of_its_own)
{
	/* Zeroed but for the dtype: what there is, at once. */
	const struct emad_export_options options = {.dtype = EMAD_AS_BF16}, wrong = {.dtype = EMAD_AS_F8_E5M2 + 1};
	struct emad_trainer *trainer = trainer_of("export-bf16", &halves_options);
	const uint64_t elements = WEIGHT_COUNT + BIAS_COUNT + 1;
	struct emad_export_info info;
	uint64_t calls = 0, last = 0, begin, bytes;
	const struct emad_export_options stopped = {0, -1, EMAD_AS_BF16, stop_at_once, &calls};
	const struct emad_export_options counted = {0, -1, EMAD_AS_F64, count_calls, &last};
	char path[96];
	uint8_t *file;

	push_value(trainer, 4, 1, EMAD_STARTED);
	snprintf(path, sizeof(path), "%s/bf16.safetensors", shared.directory);
	FAILS(EMAD_EARGUMENT, emad_export(client, "export-bf16", NULL, path, &wrong, NULL));
	FAILS(-ECANCELED, emad_export(client, "export-bf16", NULL, path, &stopped, NULL));
	ck_assert_int_eq(access(path, F_OK), -1);
	OK(emad_export(client, "export-bf16", NULL, path, &options, &info));
	ck_assert_uint_eq(info.step, 4);
	ck_assert_uint_eq(info.tensor_count, TENSOR_COUNT);
	ck_assert_uint_eq(info.overflow_count, 0);
	ck_assert_str_eq(info.overflow_tensor, "");
	file = file_bytes(path, &bytes);
	ck_assert_uint_eq(bytes, info.file_bytes);
	memcpy(&begin, file, sizeof(begin));
	begin += sizeof(begin);
	ck_assert_uint_eq(begin % 4096, 0);
	ck_assert_uint_eq(bytes, begin + sizeof(int64_t) + 2 * elements);
	ck_assert_ptr_nonnull(strstr((const char *)file + 8, "\"emad.dtype\":\"BF16\""));
	ck_assert_ptr_nonnull(strstr((const char *)file + 8, "\"emad.step\":\"4\""));
	/* The counter is first now; behind it the weights, from 1 on: 257 is a tie. */
	ck_assert_uint_eq(file[begin], 1);
	ck_assert_uint_eq(bf16_at(file + begin + 8, 0), 0x3f80);
	ck_assert_uint_eq(bf16_at(file + begin + 8, 256), 0x4380);
	ck_assert_uint_eq(bf16_at(file + begin + 8, 999), 0x447a);
	free(file);
	OK(emad_export(client, "export-bf16", NULL, path, &counted, &info));
	ck_assert_uint_eq(last, info.file_bytes);
	ck_assert_uint_eq(info.file_bytes, begin + sizeof(int64_t) + sizeof(double) * elements);
	OK(emad_export(client, "export-bf16", NULL, path, NULL, &info));
	ck_assert_uint_eq(info.file_bytes % 4096, (sizeof(int64_t) + sizeof(float) * elements) % 4096);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(counts_what_is_too_large_for_the_dtype_and_names_the_first_tensor)
{
	const struct emad_export_options f16 = {.dtype = EMAD_AS_F16}, bf16 = {.dtype = EMAD_AS_BF16};
	const struct emad_export_options e4m3 = {.dtype = EMAD_AS_F8_E4M3};
	struct emad_trainer *trainer = trainer_of("export-large", &halves_options);
	struct emad_export_info info;
	char path[96];

	/* 65519 is the last that F16 rounds down; the pattern ends at 65519. */
	push_value(trainer, 1, 64520, EMAD_STARTED);
	snprintf(path, sizeof(path), "%s/large.safetensors", shared.directory);
	OK(emad_export(client, "export-large", NULL, path, &f16, &info));
	ck_assert_uint_eq(info.overflow_count, 0);
	push_value(trainer, 2, 64520 + 3 * 2, EMAD_APPLIED);
	OK(emad_export(client, "export-large", NULL, path, &f16, &info));
	ck_assert_uint_eq(info.overflow_count, 3 * WEIGHT_COUNT / 1000);
	ck_assert_str_eq(info.overflow_tensor, "net.weight");
	OK(emad_export(client, "export-large", NULL, path, &bf16, &info));
	ck_assert_uint_eq(info.overflow_count, 0);
	OK(emad_export(client, "export-large", NULL, path, &e4m3, &info));
	ck_assert_uint_eq(info.overflow_count, WEIGHT_COUNT + BIAS_COUNT + 1);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(reads_tensors_in_the_dtype_asked_for)
{
	struct emad_trainer *trainer = trainer_of("read", &halves_options);
	static uint16_t halves_read[WEIGHT_COUNT + 1];
	struct emad_view_info facts;
	struct emad_view *view;
	uint64_t i;

	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open(client, "read", NULL, 0, -1, &view));
	OK(emad_view_info(view, &facts));
	for (i = 0; i < facts.tensor_count; i++) {
		struct emad_view_tensor tensor;
		int64_t counter = 0;

		OK(emad_view_tensor(view, i, &tensor));
		if (tensor.dtype == EMAD_I64) {
			OK(emad_view_read(view, i, EMAD_AS_BF16, &counter, sizeof(counter)));
			ck_assert(counter == 1);
			FAILS(EMAD_EARGUMENT, emad_view_read(view, i, EMAD_AS_BF16, &counter, sizeof(counter) - 1));
		} else if (tensor.dimension_count == 2) {
			memset(halves_read, 0xff, sizeof(halves_read));
			OK(emad_view_read(view, i, EMAD_AS_F16, halves_read, 2 * WEIGHT_COUNT));
			ck_assert_uint_eq(halves_read[0], 0x3c00);
			ck_assert_uint_eq(halves_read[WEIGHT_COUNT - 1], 0x63d0);
			ck_assert_uint_eq(halves_read[WEIGHT_COUNT], 0xffff);
			FAILS(EMAD_EARGUMENT, emad_view_read(view, i, EMAD_AS_F16, halves_read, 2 * WEIGHT_COUNT - 1));
			ck_assert_ptr_nonnull(strstr(emad_error(), "120000 elements of 2 bytes as F16"));
			ck_assert_ptr_nonnull(strstr(emad_error(), "239999"));
			FAILS(EMAD_EARGUMENT, emad_view_read(view, i, EMAD_AS_F16, NULL, 2 * WEIGHT_COUNT));
			FAILS(EMAD_EARGUMENT, emad_view_read(view, i, 77, halves_read, sizeof(halves_read)));
		} else {
			float kept = 0;

			OK(emad_view_read(view, i, EMAD_DTYPE_KEPT, tensor.bytes == 4 ? &kept : (void *)halves_read,
			                  tensor.bytes));
			ck_assert(tensor.bytes != 4 || kept == 1);
		}
	}
	FAILS(-ENOENT, emad_view_read(view, i, EMAD_AS_F16, halves_read, sizeof(halves_read)));
	FAILS(EMAD_EARGUMENT, emad_view_read(NULL, 0, EMAD_AS_F16, halves_read, sizeof(halves_read)));
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(opens_a_view_of_some_tensors_and_of_one_dtype)
{
	const char *const names[] = {"net.w*"}, *const wrong[] = {"net.weihgt"};
	const struct emad_view_options options = {
		.timeout_ms = -1, .dtype = EMAD_AS_F16, .tensors = names, .tensor_count = 1};
	const struct emad_view_options none = {.timeout_ms = -1, .tensors = wrong, .tensor_count = 1};
	const struct emad_view_options other = {.timeout_ms = -1, .dtype = 77};
	struct emad_trainer *trainer = trainer_of("some", &halves_options);
	static uint16_t halves_read[WEIGHT_COUNT];
	struct emad_view_tensor tensor;
	struct emad_view_info facts;
	struct emad_view *view;

	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open_with(client, "some", NULL, &options, &view));
	OK(emad_view_info(view, &facts));
	ck_assert_uint_eq(facts.tensor_count, 1);
	OK(emad_view_tensor(view, 0, &tensor));
	ck_assert_str_eq(tensor.name, "net.weight");
	FAILS(-ENOENT, emad_view_tensor(view, 1, &tensor));
	FAILS(-ENOENT, emad_view_find(view, "net.bias", &tensor));
	for (int turn = 0; turn < 2; turn++) {
		memset(halves_read, 0, sizeof(halves_read));
		OK(emad_view_read(view, 0, turn ? EMAD_AS_F16 : EMAD_DTYPE_KEPT, halves_read, sizeof(halves_read)));
		ck_assert_uint_eq(halves_read[0], 0x3c00);
		ck_assert_uint_eq(halves_read[WEIGHT_COUNT - 1], 0x63d0);
	}
	FAILS(EMAD_EARGUMENT, emad_view_read(view, 0, EMAD_AS_BF16, halves_read, sizeof(halves_read)));
	ck_assert_ptr_nonnull(strstr(emad_error(), "was opened as F16, and is asked for BF16"));
	emad_view_close(view);
	FAILS(-ENOENT, emad_view_open_with(client, "some", NULL, &none, &view));
	ck_assert_ptr_nonnull(strstr(emad_error(), "the nearest is 'net.weight'"));
	FAILS(EMAD_EARGUMENT, emad_view_open_with(client, "some", NULL, &other, &view));
	OK(emad_view_open_with(client, "some", NULL, NULL, &view));
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(copies_a_range_of_an_image)
{
	struct emad_trainer *trainer = trainer_of("range", &halves_options);
	uint8_t bytes[100];
	struct emad_range range = {.offset = 3, .bytes = sizeof(bytes), .buffer = bytes, .timeout_ms = -1};
	struct emad_view_info facts, found;
	struct emad_view *view;

	FAILS(EMAD_ENOVERSION, emad_image_read(client, "range", NULL, &range, NULL));
	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open(client, "range", NULL, 0, -1, &view));
	OK(emad_view_info(view, &facts));
	OK(emad_image_read(client, "range", NULL, &range, &found));
	ck_assert_mem_eq(bytes, facts.image + 3, sizeof(bytes));
	ck_assert_uint_eq(found.image_bytes, facts.image_bytes);
	ck_assert_uint_eq(found.version, facts.version);
	ck_assert_ptr_null(found.image);
	range.offset = facts.image_bytes - sizeof(bytes) + 1;
	FAILS(EMAD_EARGUMENT, emad_image_read(client, "range", NULL, &range, &found));
	range.buffer = NULL;
	FAILS(EMAD_EARGUMENT, emad_image_read(client, "range", NULL, &range, &found));
	FAILS(EMAD_EARGUMENT, emad_image_read(client, "range", NULL, NULL, &found));
	range = (struct emad_range){.timeout_ms = -1};
	OK(emad_image_read(client, "range", NULL, &range, NULL));
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

/* ---- misuse ---- */

START_TEST(refuses_arguments_that_cannot_be)
{
	struct emad_trainer *trainer = NULL;
	struct emad_trainer_options options = halves_options;
	struct emad_tensor bad = tensors[0];
	static struct model model;

	FAILS(EMAD_EARGUMENT, emad_hello(NULL, -1, NULL));
	FAILS(EMAD_EARGUMENT, emad_hello(client, -1, NULL));
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, NULL, tensors, 1, NULL, &trainer));
	FAILS(EMAD_ENAME, emad_trainer_open(client, "a//b", tensors, 1, NULL, &trainer));
	FAILS(EMAD_EMANIFEST, emad_trainer_open(client, "bad", tensors, 0, NULL, &trainer));
	bad.dtype = (enum emad_dtype)99;
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, "bad", &bad, 1, NULL, &trainer));
	options.rank = 1;
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, "bad", tensors, TENSOR_COUNT, &options, &trainer));
	options = halves_options;
	options.profiles = (const char *const[]){"ema=nonsense", "b=yolo"};
	FAILS(EMAD_ESCHEDULE, emad_trainer_open(client, "bad", tensors, TENSOR_COUNT, &options, &trainer));
	ck_assert_ptr_null(trainer);

	trainer = trainer_of("misuse", &halves_options);
	model_fill(&model, 1);
	model.data[1] = NULL;
	FAILS(EMAD_EARGUMENT, emad_push(trainer, 1, model.data, 0, -1, NULL));
	ck_assert_ptr_nonnull(strstr(emad_error(), "net.bias"));
	FAILS(EMAD_EARGUMENT, emad_push(trainer, 1, model.data, 64, -1, NULL));
	FAILS(EMAD_EARGUMENT, emad_push_begin(trainer, 1, NULL));
	FAILS(EMAD_EARGUMENT, emad_view_check(NULL));
	emad_trainer_close(trainer);
	emad_trainer_close(NULL);
	emad_view_close(NULL);
	emad_client_close(NULL);
}
END_TEST

/* ---- forks and faults ---- */

/* What a forked child finds: the number of the first promise that is broken, or 0. */
static int child_check(struct emad_trainer *trainer, struct emad_view *view)
{
	static struct model model;
	struct emad_client *own;
	struct emad_daemon daemon;

	model_fill(&model, 1);
	if (emad_hello(client, 100, &daemon) != EMAD_EFORKED || strlen(emad_error()) < 10)
		return 1;
	if (emad_push(trainer, 9, model.data, 0, 100, NULL) != EMAD_EFORKED)
		return 2;
	if (emad_push_begin(trainer, 9, model.data) != EMAD_EFORKED || emad_fence(trainer, 100) != EMAD_EFORKED)
		return 3;
	if (emad_view_check(view) != EMAD_EFORKED)
		return 4;
	if (emad_client_open(shared.url, 100, &own) != EMAD_EFORKED)
		return 5;
	emad_view_close(view);
	emad_trainer_close(trainer);
	emad_client_close(client);
	return 0;
}

START_TEST(refuses_to_work_in_a_forked_child_and_goes_on_in_the_parent)
{
	struct emad_trainer *trainer = trainer_of("fork", &halves_options);
	struct emad_view *view;
	int status;
	pid_t child;

	push_value(trainer, 1, 1, EMAD_STARTED);
	OK(emad_view_open(client, "fork", NULL, 1, -1, &view));
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(child_check(trainer, view));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	view_holds(view, 1, 1);
	push_value(trainer, 2, 1, EMAD_APPLIED);
	emad_view_close(view);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(gives_up_in_time_on_a_daemon_that_hangs)
{
	struct emad_trainer *trainer = trainer_of("hang", &halves_options);
	struct emad_daemon daemon;
	struct emad_client *other;
	static struct model model;
	struct emad_trainer_info info;
	struct emad_view *view;
	long long begin_ms;

	push_value(trainer, 1, 1, EMAD_STARTED);
	ck_assert_int_eq(kill(shared.pid, SIGSTOP), 0);
	begin_ms = harness_now_ms();
	model_fill(&model, 2);
	FAILS(EMAD_ETIMEOUT, emad_hello(client, 200, &daemon));
	FAILS(EMAD_ETIMEOUT, emad_client_open(shared.url, 200, &other)); /* the kernel takes the connection */
	ck_assert_ptr_nonnull(strstr(emad_error(), "it may be stopped"));
	FAILS(EMAD_ETIMEOUT, emad_view_open(client, "hang", NULL, 0, 200, &view));
	FAILS(EMAD_ETIMEOUT, emad_push(trainer, 2, model.data, 0, 200, NULL));
	ck_assert_int_lt(harness_now_ms() - begin_ms, 10000);
	ck_assert_int_eq(kill(shared.pid, SIGCONT), 0);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_uint_eq(info.lost_count, 1);
	/* The lost push may have been read after all: then its step is a duplicate. Nothing is mixed either way. */
	push_value(trainer, 3, 3, EMAD_APPLIED);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(tells_a_reader_whose_version_was_taken_back)
{
	char path[] = "/tmp/emad-test-XXXXXX";
	const char *const arguments[] = {"--config", path, NULL};
	struct harness own;
	struct emad_client *other;
	struct emad_trainer *trainer;
	struct emad_view_tensor tensor;
	static uint16_t copy[WEIGHT_COUNT];
	struct emad_view *view;
	FILE *config = fdopen(mkstemp(path), "w");

	ck_assert_ptr_nonnull(config);
	fputs("[limits]\nslots = 2\nlease-min = 0s\n", config);
	fclose(config);
	harness_open(&own, arguments);
	OK(emad_client_open(own.url, TIMEOUT_MS, &other));
	OK(emad_trainer_open(other, "revoked", tensors, TENSOR_COUNT, &halves_options, &trainer));
	push_value(trainer, 1, 2, EMAD_STARTED);
	OK(emad_view_open(other, "revoked", NULL, 0, -1, &view));
	push_value(trainer, 2, 2, EMAD_APPLIED);
	OK(emad_view_check(view));
	push_value(trainer, 3, 2, EMAD_APPLIED);
	FAILS(EMAD_EREVOKED, emad_view_check(view));
	FAILS(EMAD_EREVOKED, emad_view_tensor(view, 0, &tensor));
	FAILS(EMAD_EREVOKED, emad_view_read(view, 0, EMAD_AS_F16, copy, sizeof(copy)));
	emad_view_close(view);
	OK(emad_view_open(other, "revoked", NULL, 3, -1, &view));
	view_holds(view, 2, 2);
	OK(emad_view_read(view, 1, EMAD_AS_F16, copy, sizeof(copy)));
	push_value(trainer, 4, 2, EMAD_APPLIED);
	push_value(trainer, 5, 2, EMAD_APPLIED);
	FAILS(EMAD_EREVOKED, emad_view_read(view, 1, EMAD_AS_F16, copy, sizeof(copy)));
	emad_view_close(view);
	emad_trainer_close(trainer);
	emad_client_close(other);
	ck_assert_int_eq(harness_stop(&own), 0);
	harness_close(&own);
	remove(path);
}
END_TEST

/* Pushes until the connection is back. */
static void push_until_back(struct emad_trainer *trainer, uint64_t step, const void *const *data)
{
	long long deadline_ms = harness_now_ms() + TIMEOUT_MS;
	int code;

	do {
		code = emad_push(trainer, step, data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL);
		if (code)
			usleep(20000);
	} while (code == EMAD_EAWAY && harness_now_ms() < deadline_ms);
	OK(code);
}

START_TEST(goes_on_by_itself_when_the_daemon_comes_back)
{
	struct harness own;
	struct emad_client *other;
	struct emad_trainer *trainer;
	struct emad_trainer_info info;
	struct emad_daemon before, after;
	struct emad_view *view;
	static struct model model;
	long long begin_ms;

	harness_open(&own, NULL);
	OK(emad_client_open(own.url, TIMEOUT_MS, &other));
	OK(emad_trainer_open(other, "restart", tensors, TENSOR_COUNT, &halves_options, &trainer));
	push_value(trainer, 1, 2, EMAD_STARTED);
	OK(emad_hello(other, -1, &before));
	harness_kill(&own);

	model_fill(&model, 2);
	begin_ms = harness_now_ms();
	FAILS(EMAD_EAWAY, emad_push(trainer, 2, model.data, 0, TIMEOUT_MS, NULL));
	OK(emad_push_begin(trainer, 3, model.data));
	FAILS(EMAD_EAWAY, emad_fence(trainer, TIMEOUT_MS));
	OK(emad_fence(trainer, TIMEOUT_MS));
	FAILS(EMAD_EAWAY, emad_flush(trainer, TIMEOUT_MS, NULL));
	FAILS(EMAD_EAWAY, emad_view_open(other, "restart", NULL, 0, TIMEOUT_MS, &view));
	FAILS(EMAD_EAWAY, emad_hello(other, TIMEOUT_MS, &after));
	ck_assert_int_lt(harness_now_ms() - begin_ms, 8000);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_uint_eq(info.lost_count, 2);

	harness_start(&own);
	push_until_back(trainer, 4, model.data);
	OK(emad_hello(other, -1, &after));
	ck_assert_uint_ne(before.instance, after.instance);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_uint_le(info.restart_count, 1); /* 0 when the daemon came back with its memory */
	OK(emad_view_open(other, "restart", NULL, 4, TIMEOUT_MS, &view));
	view_holds(view, 2, 2);
	emad_view_close(view);
	emad_trainer_close(trainer);
	emad_client_close(other);
	ck_assert_int_eq(harness_stop(&own), 0);
	harness_close(&own);
}
END_TEST

static Suite *client_suite(void)
{
	Suite *suite = suite_create("client");
	TCase *cases = tcase_create("client");

	tcase_add_unchecked_fixture(cases, shared_open, shared_close);
	tcase_add_test(cases, says_who_answers);
	tcase_add_test(cases, says_what_to_start_when_there_is_no_daemon);
	tcase_add_test(cases, refuses_a_socket_path_that_is_too_long_with_both_numbers);
	tcase_add_test(cases, names_the_user_who_may_not_connect);
	tcase_add_test(cases, lists_and_shows_models_as_json);
	tcase_add_test(cases, serves_several_threads_at_once);
	tcase_add_test(cases, averages_what_is_pushed);
	tcase_add_test(cases, lists_a_views_tensors_in_order_without_holes);
	tcase_add_test(cases, keeps_a_view_readable_behind_its_client_and_its_model);
	tcase_add_test(cases, says_which_view_cannot_be_had);
	tcase_add_test(cases, answers_duplicate_and_stale_steps);
	tcase_add_test(cases, reports_a_snapshot_that_is_not_finite_once);
	tcase_add_test(cases, pushes_behind_the_callers_back);
	tcase_add_test(cases, sends_attributes_along);
	tcase_add_test(cases, continues_a_model_and_refuses_another_shape);
	tcase_add_test(cases, fences_the_older_of_two_trainers_for_ever);
	tcase_add_test(cases, registers_again_when_the_model_was_removed);
	tcase_add_test(cases, assembles_the_boxes_of_two_ranks);
	tcase_add_test(cases, exports_the_image_as_it_is_or_leaves_the_path_alone);
	tcase_add_test(cases, exports_another_dtype_behind_a_header_of_its_own);
	tcase_add_test(cases, counts_what_is_too_large_for_the_dtype_and_names_the_first_tensor);
	tcase_add_test(cases, reads_tensors_in_the_dtype_asked_for);
	tcase_add_test(cases, opens_a_view_of_some_tensors_and_of_one_dtype);
	tcase_add_test(cases, copies_a_range_of_an_image);
	tcase_add_test(cases, refuses_arguments_that_cannot_be);
	tcase_add_test(cases, refuses_to_work_in_a_forked_child_and_goes_on_in_the_parent);
	tcase_add_test(cases, gives_up_in_time_on_a_daemon_that_hangs);
	tcase_add_test(cases, tells_a_reader_whose_version_was_taken_back);
	tcase_add_test(cases, goes_on_by_itself_when_the_daemon_comes_back);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(client_suite());
	int failed;

	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
