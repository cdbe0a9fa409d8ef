/*
 * Schedules for other batch sizes, and with other decays. Whether an average keeps its reach in samples is tested on
 * averages: K small calls against one large one.
 */
#include "proto/schedule.h"

#include "proto/limits.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static struct schedule parsed(const char *specification)
{
	struct schedule schedule;
	struct reason reason = {""};

	ck_assert_msg(schedule_parse(specification, &schedule, &reason) == 0, "%s: %s", specification, reason.text);
	return schedule;
}

/* K, a schedule, and what it becomes. */
static const struct {
	double factor;
	const char *specification, *scaled;
} SCALED[] = {
	{2, "constant:decay=0.5", "constant:decay=0.25"},
	{0.5, "constant:decay=0.25", "constant:decay=0.5"},
	{1, "yolo", "yolo"},
	{4, "yolo:decay=0.5,updates=100", "yolo:decay=0.0625,tau=500,updates=25"},
	{2, "tf:decay=0.5", "tf:decay=0.25"},
	{2, "torch-ema:decay=0.5,use_num_updates=0", "torch-ema:decay=0.25,use_num_updates=0"},
	{4, "timm:decay=0.5,after=10,min_decay=0.1,warmup=1",
	 "timm:decay=0.0625,min_decay=0.00010000000000000002,after=2,warmup=1,gamma=2"},
	{4, "timm:decay=0.5", "timm:decay=0.0625"},
	{2, "k-diffusion:max=0.5,start_at=7,gamma=3", "k-diffusion:gamma=3,max=0.25,start_at=4"},
	{4, "k-diffusion:power=0.5", "k-diffusion:gamma=4,power=0.5"},
	{2, "ema-pytorch:decay=0.5,power=1", "ema-pytorch:decay=0.25,after=50,power=1"},
	{7, "power:std=0.1", "power:std=0.1"},
	{7, "power:gamma=3,begin=70", "power:gamma=3,begin=70"},
	{7, "edm:halflife=500", "edm:halflife=500"},
	{8, "half-life:start=80", "half-life:half_life=125,start=10"},
	{2, "torchtitan:start=10,bias=-4,every=3", "torchtitan:start=5,every=3,bias=-2"},
	{2, "torchtitan:decay=0.5", "torchtitan:decay=0.25"},
	{2, "averaged-model:decay=0.5,use_buffers=1", "averaged-model:decay=0.25,use_buffers=1"},
	{2, "mmengine:momentum=0.5,interval=5", "mmengine:momentum=0.75,interval=5"},
	{2, "mmengine-annealing:momentum=0.5", "mmengine-annealing:momentum=0.75"},
	{2, "mmdet-exp:momentum=0.5", "mmdet-exp:momentum=0.75,gamma=1000"},
	{2, "keras:momentum=0.5", "keras:momentum=0.25"},
	{2, "lightning:decay=0.5,start=10,every=4", "lightning:decay=0.25,every=4,start=5"},
	{2, "fairseq:decay=0.5,start=9", "fairseq:decay=0.25,start=4"},
	{2, "linear:start=0.25,end=0.5", "linear:start=0.0625,end=0.25,total=50000"},
	{2, "cosine:start=0.25", "cosine:start=0.0625,total=50000"},
	{2, "optax:decay=0.5,debias=0", "optax:decay=0.25,debias=0"},
	{4, "constant:decay=0.5,begin=100,cadence=3,snapshot=50,keep=4,precision=f64,form=sub",
	 "constant:decay=0.0625,form=sub,precision=f64,begin=25,cadence=3,snapshot=50,keep=4"},
};

START_TEST(every_key_is_scaled_by_what_it_means)
{
	struct schedule schedule = parsed(SCALED[_i].specification), scaled;
	char text[SCHEDULE_BYTES_MAX + 1];
	struct reason reason = {""};

	ck_assert_msg(schedule_scale_batch(&schedule, SCALED[_i].factor, &scaled, &reason) == 0, "%s", reason.text);
	ck_assert_int_eq(schedule_format(&scaled, text, sizeof(text)), 0);
	ck_assert_str_eq(text, SCALED[_i].scaled);
}
END_TEST

static const struct {
	const char *specification, *part;
} UNSCALED[] = {
	{"tf:num_updates=1", "schedule 'tf' cannot be scaled: its warm-up rises with the call number alone, and no key "
			     "is its length; with num_updates=0 it can be"},
	{"torch-ema", "with use_num_updates=0 it can be"},
	{"diffusers", "with warmup=1 it can be"},
	{"swa", "reaches back over the same share of the run at any batch size"},
	{"ema-pytorch-karras", "reaches back over the same share of the run"},
	{"paddle", "schedule 'paddle' cannot be scaled"},
};

START_TEST(what_cannot_be_scaled_says_why)
{
	struct schedule schedule = parsed(UNSCALED[_i].specification), scaled = {.form = FORM_SUB};
	struct reason reason = {""};

	ck_assert_int_eq(schedule_scale_batch(&schedule, 2, &scaled, &reason), STATUS_ESCHEDULE);
	ck_assert_msg(strstr(reason.text, UNSCALED[_i].part) != NULL, "%s", reason.text);
	ck_assert(scaled.kind == NULL && scaled.form == FORM_SUB);
}
END_TEST

START_TEST(a_value_that_would_leave_its_range_is_refused)
{
	struct schedule schedule = parsed("linear:total=2"), scaled = {.kind = NULL};
	struct reason reason = {""};

	ck_assert_int_eq(schedule_scale_batch(&schedule, 8, &scaled, &reason), STATUS_ESCHEDULE);
	ck_assert_str_eq(reason.text,
			 "for this batch, total=2 of schedule 'linear' would have to be 0, which is outside "
			 "[1, 9e+15]");
	ck_assert_ptr_null(scaled.kind);
	schedule = parsed("timm:warmup=1,power=0.01");
	ck_assert_int_eq(schedule_scale_batch(&schedule, 8, &scaled, &reason), STATUS_ESCHEDULE);
	ck_assert_ptr_nonnull(strstr(reason.text, "gamma=1 of schedule 'timm'"));
	schedule = parsed("optax:decay=0.9999999999999999");
	ck_assert_int_eq(schedule_scale_batch(&schedule, 0.1, &scaled, &reason), STATUS_ESCHEDULE);
}
END_TEST

START_TEST(a_factor_is_a_number_above_0)
{
	static const double FACTORS[] = {0, -1, INFINITY, NAN, 2e9};
	struct schedule schedule = parsed("yolo"), scaled = {.kind = NULL};
	struct reason reason;

	for (size_t i = 0; i < COUNT(FACTORS); i++) {
		reason.text[0] = '\0';
		ck_assert_int_eq(schedule_scale_batch(&schedule, FACTORS[i], &scaled, &reason), STATUS_EARGUMENT);
		ck_assert_ptr_nonnull(strstr(reason.text, "give a factor above 0, at most 1e+09"));
		ck_assert_ptr_null(scaled.kind);
	}
}
END_TEST

/* How far back an average reaches at a call: the mean age, in samples of the small batch. */
static double mean_age(const struct schedule *schedule, uint64_t calls, double samples)
{
	struct schedule_state state = {0};
	double age = 0;

	for (uint64_t call = 1; call <= calls; call++) {
		struct schedule_result result =
			schedule_advance(schedule, &state, &(struct schedule_gap){1, call, call - 1});

		/* The new value has no age, what there was grows older by a call. */
		age = result.decay * (age + samples);
	}
	return age;
}

static const char *const REACHES[] = {
	"constant:decay=0.999",
	"yolo:decay=0.999,tau=500",
	"timm:warmup=1",
	"timm:warmup=1,decay=0.999",
	"diffusers:warmup=1,power=0.75",
	"k-diffusion:gamma=5",
	"ema-pytorch:after=80,every=1",
	"ema-pytorch:decay=0.99",
	"half-life:half_life=800",
	"torchtitan",
	"averaged-model",
	"mmengine:momentum=0.002",
	"mmengine-annealing:momentum=0.002",
	"mmdet-exp:momentum=0.002,gamma=500",
	"keras:momentum=0.999",
	"lightning",
	"fairseq:decay=0.999",
	"linear:total=9000",
	"cosine:total=9000,end=0.9999",
	"optax",
	"power",
	"constant:decay=0.99,cadence=10",
};

START_TEST(the_average_reaches_as_far_back_in_samples)
{
	const double factor = 4;
	struct schedule schedule = parsed(REACHES[_i]), scaled;
	const uint64_t calls = 10000;
	double before, after;

	ck_assert_int_eq(schedule_scale_batch(&schedule, factor, &scaled, NULL), 0);
	before = mean_age(&schedule, calls, 1);
	after = mean_age(&scaled, calls / (uint64_t)factor, factor);
	/* The age is that of calls, and a larger batch is a coarser one: half of its size, twice. */
	ck_assert_msg(fabs(after / before - 1) < .03 || fabs(after - before) < 2 * factor, "%s: %g, %g", REACHES[_i],
		      before, after);
}
END_TEST

START_TEST(another_decay_replaces_the_key_of_that_name_or_alias)
{
	struct schedule schedule = parsed("keras"), changed;
	struct reason reason;

	ck_assert_int_eq(schedule_with_decay(&schedule, .5, &changed, NULL), 0);
	ck_assert_double_eq(changed.values[0], .5);
	schedule = parsed("k-diffusion:min=.1");
	ck_assert_int_eq(schedule_with_decay(&schedule, .5, &changed, NULL), 0);
	ck_assert_double_eq(schedule_at(&changed, &(struct schedule_call){.n = 1000}).decay, .5);
	changed.kind = NULL;
	schedule = parsed("mmengine");
	ck_assert_int_eq(schedule_with_decay(&schedule, .5, &changed, &reason), STATUS_ESCHEDULE);
	ck_assert_ptr_nonnull(strstr(reason.text, "schedule 'mmengine' has no key 'decay'"));
	schedule = parsed("paddle");
	ck_assert_int_eq(schedule_with_decay(&schedule, .5, &changed, &reason), STATUS_ESCHEDULE);
	ck_assert_ptr_nonnull(strstr(reason.text, "with debias=0"));
	schedule = parsed("yolo");
	ck_assert_int_eq(schedule_with_decay(&schedule, NAN, &changed, &reason), STATUS_ESCHEDULE);
	ck_assert_int_eq(schedule_with_decay(&schedule, -.5, &changed, &reason), STATUS_ESCHEDULE);
	ck_assert_str_eq(reason.text, "decay -0.5 is outside [0, 1] for schedule 'yolo'");
	ck_assert_ptr_null(changed.kind);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("schedule_scale");
	TCase *tcase = tcase_create("schedule_scale");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tcase, every_key_is_scaled_by_what_it_means, 0, (int)COUNT(SCALED));
	tcase_add_loop_test(tcase, what_cannot_be_scaled_says_why, 0, (int)COUNT(UNSCALED));
	tcase_add_test(tcase, a_value_that_would_leave_its_range_is_refused);
	tcase_add_test(tcase, a_factor_is_a_number_above_0);
	tcase_add_loop_test(tcase, the_average_reaches_as_far_back_in_samples, 0, (int)COUNT(REACHES));
	tcase_add_test(tcase, another_decay_replaces_the_key_of_that_name_or_alias);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
