/*
 * The choices of emad.h against a real daemon: profiles that change, what a push carries beside its values, gaps,
 * guards, going back, and models whose tensors have changed.
 *
 * Runs in one process (NNG aborts in forked children), hence CK_NOFORK.
 */
#include "client/emad.h"
#include "tests/integration/harness.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { WIDTH = 5, TIMEOUT_MS = 20000 };

static struct harness shared;
static struct emad_client *client;

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

static const uint64_t shape[] = {WIDTH};
static const struct emad_tensor tensors[] = {
	{.name = "body.weight", .dtype = EMAD_F64, .dimension_count = 1, .shape = shape},
	{.name = "head.weight", .dtype = EMAD_F64, .dimension_count = 1, .shape = shape},
};

static const char *const half[] = {"ema=constant:decay=0.5"};
static const struct emad_trainer_options half_options = {.profiles = half, .profile_count = 1, .timeout_ms = -1};

static struct emad_trainer *trainer_of(const char *model, const struct emad_trainer_options *options)
{
	struct emad_trainer *trainer = NULL;

	OK(emad_trainer_open(client, model, tensors, 2, options, &trainer));
	return trainer;
}

static struct emad_push_result push(struct emad_trainer *trainer, uint64_t step, double value)
{
	struct emad_push_result result;
	double values[WIDTH];
	const void *data[] = {values, values};

	for (int i = 0; i < WIDTH; i++)
		values[i] = value;
	OK(emad_push(trainer, step, data, EMAD_PUSH_WAIT, TIMEOUT_MS, &result));
	return result;
}

/* A trainer of a new model whose average is 0 at step 0, 1 - 2^-n at step n. */
static struct emad_trainer *trained(const char *model, const struct emad_trainer_options *options, uint64_t last_step)
{
	struct emad_trainer *trainer = trainer_of(model, options);

	ck_assert_int_eq(push(trainer, 0, 0).outcome, EMAD_STARTED);
	for (uint64_t step = 1; step <= last_step; step++)
		ck_assert_int_eq(push(trainer, step, 1).outcome, EMAD_APPLIED);
	return trainer;
}

static double average(const char *model, const char *profile, const char *tensor)
{
	struct emad_view_tensor found;
	struct emad_view *view;
	double value;

	OK(emad_view_open(client, model, profile, 0, -1, &view));
	OK(emad_view_find(view, tensor, &found));
	ck_assert_int_eq(found.dtype, EMAD_F64);
	value = *(const double *)found.data;
	OK(emad_view_check(view));
	emad_view_close(view);
	return value;
}

/* Whether the metadata of a view's image hold a text under a key; "" stands for no such key. */
static void metadata_is(const char *model, const char *key, const char *text)
{
	struct emad_view *view;
	const char *found;

	OK(emad_view_open(client, model, NULL, 0, -1, &view));
	found = emad_view_metadata(view, key);
	if (*text)
		ck_assert_msg(found && strstr(found, text), "%s is %s", key, found ? found : "not there");
	else
		ck_assert_ptr_null(found);
	emad_view_close(view);
}

START_TEST(profiles_change_while_a_trainer_goes_on)
{
	static const char *const wanted[] = {"slow=constant:decay=0.75", "ema=constant:decay=0.25;freeze=head.*"};
	struct emad_trainer *trainer = trained("profiles", &half_options, 1);
	char *report = NULL;

	OK(emad_profile_set(client, "profiles", wanted, 2, -1, &report));
	ck_assert_str_eq(report, "ema: 1 averaged, 1 frozen, 1 by freeze=head.*; slow: 2 averaged");
	emad_free(report);
	push(trainer, 2, 1);
	push(trainer, 3, 0);
	ck_assert_double_eq(average("profiles", "ema", "body.weight"), (0.5 * 0.25 + 0.75) * 0.25);
	ck_assert_double_eq(average("profiles", "ema", "head.weight"), 0.5);
	ck_assert_double_eq(average("profiles", "slow", "body.weight"), 0.75);
	metadata_is("profiles", "emad.history", "\"change\":\"schedule\"");

	OK(emad_profile_remove(client, "profiles", "ema", -1, NULL));
	FAILS(EMAD_ENOPROFILE, emad_profile_remove(client, "profiles", "ema", -1, NULL));
	FAILS(EMAD_EPROFILE, emad_profile_remove(client, "profiles", "slow", -1, NULL));
	push(trainer, 4, 0);
	ck_assert_double_eq(average("profiles", NULL, "head.weight"), 0.75 * 0.75);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(profiles_that_are_none_change_nothing)
{
	static const char *const unknown[] = {"ema=yoolo"}, *const nothing[] = {NULL};
	struct emad_trainer *trainer = trained("mistakes", &half_options, 1);
	char *report = (char *)"untouched";

	FAILS(EMAD_ESCHEDULE, emad_profile_set(client, "mistakes", unknown, 1, -1, &report));
	FAILS(EMAD_EARGUMENT, emad_profile_set(client, "mistakes", nothing, 1, -1, &report));
	FAILS(EMAD_EARGUMENT, emad_profile_set(client, "mistakes", NULL, 1, -1, &report));
	FAILS(EMAD_EARGUMENT, emad_profile_set(client, "mistakes", half, 0, -1, &report));
	FAILS(EMAD_EARGUMENT, emad_profile_set(client, "mistakes", half, 17, -1, &report));
	FAILS(EMAD_ENOMODEL, emad_profile_set(client, "nobody", half, 1, -1, &report));
	FAILS(EMAD_ENAME, emad_profile_set(client, "no//body", half, 1, -1, &report));
	FAILS(EMAD_EARGUMENT, emad_profile_remove(client, "mistakes", NULL, -1, NULL));
	ck_assert_str_eq(report, "untouched");
	push(trainer, 2, 1);
	ck_assert_double_eq(average("mistakes", NULL, "body.weight"), 0.75);
	metadata_is("mistakes", "emad.history", "");
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(a_push_carries_its_enclosure_once)
{
	const double low = 1, high = 3, none = NAN;
	const struct emad_enclosure good = {.metadata = "{\"epoch\": 3}", .loss = &low}, bad = {.loss = &high},
				    worse = {.loss = &none};
	struct emad_trainer_options options = half_options;
	struct emad_push_result result;
	struct emad_trainer *trainer;

	options.guards = "loss_max=2";
	trainer = trained("enclosures", &options, 0);
	OK(emad_enclose(trainer, &good));
	ck_assert_int_eq(push(trainer, 1, 1).outcome, EMAD_APPLIED);
	metadata_is("enclosures", "emad.metadata", "{\"epoch\":3}");
	OK(emad_enclose(trainer, &bad));
	result = push(trainer, 2, 9);
	ck_assert_int_eq(result.outcome, EMAD_LOSS);
	ck_assert_uint_eq(result.version, 0);
	ck_assert_ptr_nonnull(strstr(result.refusal, "above loss_max 2"));
	OK(emad_enclose(trainer, &worse));
	ck_assert_int_eq(push(trainer, 3, 9).outcome, EMAD_LOSS);
	OK(emad_enclose(trainer, &worse));
	OK(emad_enclose(trainer, NULL));
	result = push(trainer, 4, 1);
	ck_assert_int_eq(result.outcome, EMAD_APPLIED);
	ck_assert_uint_eq(result.calls, 3);
	metadata_is("enclosures", "emad.metadata", "");
	ck_assert_double_eq(average("enclosures", NULL, "body.weight"), 1 - 0.5 * 0.125);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(metadata_that_are_none_are_told_before_they_are_sent)
{
	static char large[5000];
	struct emad_enclosure enclosure = {.metadata = large};
	struct emad_trainer *trainer = trained("metadata", &half_options, 0);
	const void *data[2] = {large, large};

	memset(large, ' ', sizeof(large) - 1);
	FAILS(EMAD_ELIMIT, emad_enclose(trainer, &enclosure));
	ck_assert_ptr_nonnull(strstr(emad_error(), "4999"));
	ck_assert_ptr_nonnull(strstr(emad_error(), "4096"));
	enclosure.metadata = "[1]";
	OK(emad_enclose(trainer, &enclosure));
	FAILS(EMAD_EARGUMENT, emad_push(trainer, 1, data, 0, -1, NULL));
	ck_assert_int_eq(push(trainer, 1, 1).outcome, EMAD_APPLIED);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(a_seed_is_the_average_of_one_profile)
{
	static const char *const both[] = {"ema=constant:decay=0.5", "swa=swa"};
	const struct emad_trainer_options options = {.profiles = both, .profile_count = 2, .timeout_ms = -1};
	struct emad_enclosure seed = {.seeds = "swa", .updates = 9};
	struct emad_trainer *trainer = trained("seed", &options, 2);
	const double zeros[WIDTH] = {0};
	const void *data[] = {zeros, zeros};

	OK(emad_enclose(trainer, &seed));
	ck_assert_int_eq(push(trainer, 50, 11).outcome, EMAD_APPLIED);
	ck_assert_double_eq(average("seed", "swa", "body.weight"), 11);
	ck_assert_double_eq(average("seed", "ema", "body.weight"), 0.75);
	ck_assert_uint_eq(push(trainer, 51, 1).calls, 1);
	/* The tenth of ten. */
	ck_assert_double_eq_tol(average("seed", "swa", "body.weight"), 10, 1e-14);
	seed.seeds = "other";
	OK(emad_enclose(trainer, &seed));
	FAILS(EMAD_ENOPROFILE, emad_push(trainer, 52, data, EMAD_PUSH_WAIT, TIMEOUT_MS, NULL));
	ck_assert_double_eq_tol(average("seed", "swa", "body.weight"), 10, 1e-14);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(a_stride_counts_steps_as_calls)
{
	struct emad_trainer_options options = half_options;
	struct emad_trainer *trainer;

	options.stride = 100;
	trainer = trained("stride", &options, 0);
	ck_assert_uint_eq(push(trainer, 100, 1).calls, 1);
	ck_assert_uint_eq(push(trainer, 400, 1).calls, 3);
	ck_assert_double_eq(average("stride", NULL, "body.weight"), 1 - 0.0625);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(training_goes_back_in_three_ways)
{
	struct emad_trainer_options options = half_options;
	struct emad_trainer *trainer = trained("back", &options, 4);
	struct emad_trainer_info info;

	emad_trainer_close(trainer);
	options.start_step = 3;
	trainer = trainer_of("back", &options);
	ck_assert_int_eq(push(trainer, 3, 1).outcome, EMAD_STALE);
	emad_trainer_close(trainer);

	options.rewind = EMAD_REWIND_BACK;
	trainer = trainer_of("back", &options);
	OK(emad_trainer_info(trainer, &info));
	ck_assert_uint_eq(info.last_step, 2);
	ck_assert_double_eq(average("back", NULL, "body.weight"), 0.75);
	metadata_is("back", "emad.history", "rewound");
	ck_assert_uint_eq(push(trainer, 3, 1).calls, 1);
	emad_trainer_close(trainer);

	options.rewind = EMAD_REWIND_CONTINUE;
	options.start_step = 2;
	trainer = trainer_of("back", &options);
	ck_assert_uint_eq(push(trainer, 2, 1).calls, 1);
	ck_assert_double_eq(average("back", NULL, "body.weight"), 1 - 0.0625);
	emad_trainer_close(trainer);

	options.rewind = EMAD_REWIND_BACK;
	options.start_step = 1;
	FAILS(EMAD_ENOVERSION, emad_trainer_open(client, "back", tensors, 2, &options, &trainer));
	ck_assert_double_eq(average("back", NULL, "body.weight"), 1 - 0.0625);
}
END_TEST

START_TEST(a_model_adapts_to_other_tensors)
{
	static const struct emad_tensor grown[] = {
		{.name = "body.weight", .dtype = EMAD_F64, .dimension_count = 1, .shape = shape},
		{.name = "neck.weight", .dtype = EMAD_F64, .dimension_count = 1, .shape = shape},
	};
	struct emad_trainer_options options = half_options;
	struct emad_trainer *trainer = trained("adapt", &options, 2);
	struct emad_trainer_info info;

	emad_trainer_close(trainer);
	FAILS(EMAD_EMANIFEST, emad_trainer_open(client, "adapt", grown, 2, &options, &trainer));
	ck_assert_ptr_nonnull(strstr(emad_error(), "adapt"));
	options.resume = EMAD_RESUME_ADAPT;
	OK(emad_trainer_open(client, "adapt", grown, 2, &options, &trainer));
	OK(emad_trainer_info(trainer, &info));
	ck_assert_int_eq(info.resumed, 1);
	ck_assert_ptr_nonnull(strstr(info.report, "1 new ('neck.weight')"));
	ck_assert_ptr_nonnull(strstr(info.report, "1 gone ('head.weight')"));
	push(trainer, 3, 1);
	ck_assert_double_eq(average("adapt", NULL, "body.weight"), 0.875);
	ck_assert_double_eq(average("adapt", NULL, "neck.weight"), 1);
	emad_trainer_close(trainer);
}
END_TEST

START_TEST(choices_that_are_none_are_refused)
{
	struct emad_trainer_options options = half_options;
	struct emad_trainer *trainer = NULL;

	options.rewind = (enum emad_rewind)3;
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, "none", tensors, 2, &options, &trainer));
	options = half_options;
	options.policy = (enum emad_policy)3;
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, "none", tensors, 2, &options, &trainer));
	options = half_options;
	options.guards = "loss_min=3";
	FAILS(EMAD_EARGUMENT, emad_trainer_open(client, "none", tensors, 2, &options, &trainer));
	ck_assert_ptr_nonnull(strstr(emad_error(), "loss_max"));
	ck_assert_ptr_null(trainer);
	FAILS(EMAD_ENOMODEL, emad_show_json(client, "none", -1, &(char *){NULL}));
}
END_TEST

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

static Suite *choices_suite(void)
{
	Suite *suite = suite_create("choices");
	TCase *cases = tcase_create("choices");

	tcase_add_unchecked_fixture(cases, shared_open, shared_close);
	tcase_add_test(cases, profiles_change_while_a_trainer_goes_on);
	tcase_add_test(cases, profiles_that_are_none_change_nothing);
	tcase_add_test(cases, a_push_carries_its_enclosure_once);
	tcase_add_test(cases, metadata_that_are_none_are_told_before_they_are_sent);
	tcase_add_test(cases, a_seed_is_the_average_of_one_profile);
	tcase_add_test(cases, a_stride_counts_steps_as_calls);
	tcase_add_test(cases, training_goes_back_in_three_ways);
	tcase_add_test(cases, a_model_adapts_to_other_tensors);
	tcase_add_test(cases, choices_that_are_none_are_refused);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(choices_suite());
	int failed;

	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
