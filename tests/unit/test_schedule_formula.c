/*
 * Decays: against the formulas in long double, against the golden values of the specification, and the recorded
 * trajectories of the reference implementations (tests/vectors) replayed in float64.
 */
#include "proto/schedule.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRACES "tests/vectors/reference_traces.json"
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static struct schedule parsed(const char *specification)
{
	struct schedule schedule;
	struct reason reason = {""};

	ck_assert_msg(schedule_parse(specification, &schedule, &reason) == 0, "%s: %s", specification, reason.text);
	return schedule;
}

static struct schedule_result result_at(const char *specification, uint64_t n, uint64_t step, uint64_t step_previous)
{
	struct schedule schedule = parsed(specification);

	return schedule_at(&schedule, &(struct schedule_call){n, step, step_previous});
}

/* With one step a call. */
static struct schedule_result result_of(const char *specification, uint64_t n)
{
	return result_at(specification, n, n, n - 1);
}

/* The formulas as their libraries' papers write them, in long double, at one step a call. */
static long double inverse_power(long double s, long double gamma, long double power)
{
	return 1 - powl(1 + s / gamma, -power);
}

static long double exact_yolo(long double n)
{
	return .9999L * (1 - expl(-n / 2000));
}

static long double exact_tf(long double n)
{
	return fminl(.9999L, n / (9 + n));
}

static long double exact_torch_ema(long double n)
{
	return fminl(.995L, (1 + n) / (10 + n));
}

static long double exact_timm(long double n)
{
	return fminl(inverse_power(n - 1, 1, (double)(2. / 3)), .9999L);
}

static long double exact_diffusers(long double n)
{
	return fminl(n / (9 + n), .9999L);
}

static long double exact_k_diffusion(long double n)
{
	return inverse_power(n - 1, 50, .75L);
}

static long double exact_ema_pytorch(long double n)
{
	return fminl(inverse_power(n - 1, 1, (double)(2. / 3)), .9999L);
}

static long double exact_exponent(long double std)
{
	long double t = powl(std, -2), low = 0, high = 1 / std;

	while (high - low > 1e-17L * high) {
		long double g = (low + high) / 2, f = ((g + 7) * g + (16 - t)) * g + (12 - t);

		if (g == low || g == high)
			break;
		*(f > 0 ? &high : &low) = g;
	}
	return low;
}

static long double exact_karras(long double n)
{
	return powl(1 - 1 / (n + 1), 1 + exact_exponent(.05L));
}

static long double exact_power(long double n)
{
	return powl(1 - 1 / n, 1 + exact_exponent(.05L));
}

static long double exact_power_narrow(long double n)
{
	return powl(1 - 1 / n, 1 + exact_exponent(.01L));
}

static long double exact_edm(long double n)
{
	return powl(.5L, 1 / (.09L * n));
}

static long double exact_half_life(long double n)
{
	(void)n;
	return powl(2, -1 / 1000.0L);
}

static long double exact_torchtitan(long double n)
{
	return powl(2, -1 / (.05L * n));
}

static long double exact_swa(long double n)
{
	return (n - 1) / n;
}

static long double exact_mmengine(long double n)
{
	(void)n;
	return 1 - .0002L;
}

static long double exact_annealing(long double n)
{
	return 1 - fmaxl(.0002L, 100 / (99 + n));
}

static long double exact_mmdet(long double n)
{
	return 1 - ((1 - .0002L) * expl(-n / 2000) + .0002L);
}

static long double exact_linear(long double n)
{
	return n - 1 >= 100000 ? .9999L : .9999L - (.9999L - .999L) * (1 - (n - 1) / 100000);
}

static long double exact_cosine(long double n)
{
	const long double pi = 3.14159265358979323846264338327950288L;

	return n - 1 >= 99999 ? 1 : 1 - (1 - .996L) * (cosl(pi * (n - 1) / 99999) + 1) / 2;
}

static long double exact_cosine_wide(long double n)
{
	const long double pi = 3.14159265358979323846264338327950288L;

	return n - 1 >= 999 ? 1 : 1 - (cosl(pi * (n - 1) / 999) + 1) / 2;
}

static long double exact_constant(long double n)
{
	(void)n;
	return .9999L;
}

static long double exact_thousandth(long double n)
{
	(void)n;
	return .999L;
}

static long double exact_keras(long double n)
{
	(void)n;
	return .99L;
}

static long double exact_threshold(long double n)
{
	return fminl(.9998L, n / (9 + n));
}

static long double exact_exponential(long double n)
{
	return .9998L * (1 - expl(-n / 2000));
}

static const struct {
	const char *specification;
	long double (*exact)(long double n);
	bool copies_first;
} FORMULAS[] = {
        {"constant", exact_constant, false},
        {"averaged-model", exact_thousandth, true},
        {"keras", exact_keras, true},
        {"lightning", exact_thousandth, true},
        {"fairseq", exact_constant, false},
        {"optax", exact_thousandth, false},
        {"paddle", exact_threshold, false},
        {"paddle:mode=exponential", exact_exponential, false},
        {"yolo", exact_yolo, false},
        {"tf:num_updates=1", exact_tf, false},
        {"torch-ema", exact_torch_ema, false},
        {"timm:warmup=1", exact_timm, false},
        {"diffusers", exact_diffusers, true},
        {"diffusers:warmup=1", exact_timm, false},
        {"k-diffusion:gamma=50,power=0.75", exact_k_diffusion, false},
        {"ema-pytorch:after=0,every=1", exact_ema_pytorch, false},
        {"ema-pytorch-karras:every=1", exact_karras, true},
        {"power", exact_power, false},
        {"power:std=0.01", exact_power_narrow, false},
        {"edm", exact_edm, false},
        {"half-life", exact_half_life, false},
        {"torchtitan", exact_torchtitan, false},
        {"swa", exact_swa, false},
        {"mmengine", exact_mmengine, true},
        {"mmengine-annealing", exact_annealing, false},
        {"mmdet-exp", exact_mmdet, true},
        {"linear", exact_linear, false},
        {"cosine", exact_cosine, false},
        {"cosine:start=0,total=1000", exact_cosine_wide, false},
};

START_TEST(decays_are_within_1e_15_of_the_formula_at_any_call)
{
	static const uint64_t CALLS[] = {1,   2,   3,   10,  99,   100,  101,   102,    103,     104,           105,
	                                 106, 107, 108, 109,  110,  111,   1000,   10000,   99999,         100000,
	                                 100001, 1000000, 1000000000, UINT64_C(1000000000000), UINT64_C(1) << 60};

	for (size_t i = 0; i < COUNT(FORMULAS); i++) {
		for (size_t j = 0; j < COUNT(CALLS); j++) {
			double decay = result_of(FORMULAS[i].specification, CALLS[j]).decay;
			bool copies = CALLS[j] == 1 && FORMULAS[i].copies_first;
			long double error = fabsl(decay - (copies ? 0 : FORMULAS[i].exact((long double)CALLS[j])));

			ck_assert_msg(error <= 1e-15L, "%s at %llu: %.17g is off by %.3Lg", FORMULAS[i].specification,
			              (unsigned long long)CALLS[j], decay, error);
		}
	}
}
END_TEST

START_TEST(the_formula_of_every_schedule_is_tested)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++) {
		bool is_tested = false;

		for (size_t j = 0; j < COUNT(FORMULAS); j++)
			is_tested |= parsed(FORMULAS[j].specification).kind == &kinds[i];
		ck_assert_msg(is_tested, "%s", kinds[i].name);
	}
}
END_TEST

START_TEST(yolo_computes_its_decay_in_the_order_of_its_library)
{
	/* Not merely close: float32 shadows are to be equal to the bit with the loop in PyTorch. */
	for (uint64_t n = 1; n < 100000; n = n < 3000 ? n + 1 : n * 2)
		ck_assert(result_of("yolo", n).decay == 0.9999 * (1 - exp(-(double)n / 2000)));
}
END_TEST

START_TEST(the_first_call_is_exact)
{
	ck_assert_double_eq(result_of("yolo", 1).decay, 0.9999 * (1 - exp(-1 / 2000.0)));
	ck_assert_double_eq(result_of("tf:num_updates=1", 1).decay, 0.1);
	ck_assert_double_eq(result_of("torch-ema", 1).decay, 2 / 11.0);
	ck_assert_double_eq(result_of("linear", 1).decay, 0.999);
	ck_assert_double_eq(result_of("cosine", 1).decay, 0.996);
	ck_assert_double_eq(result_of("torchtitan", 1).decay, 0x1p-20);
	ck_assert_double_eq(result_of("fairseq", 1).decay, 0.9999);
	ck_assert_double_eq(result_of("tf", 1).decay, 0.9999);
	ck_assert_double_eq(result_of("torch-ema:use_num_updates=0", 1).decay, 0.995);
}
END_TEST

/* From the specification; decay -1 stands for NOOP, 0 for COPY. One step a call. */
static const struct {
	const char *specification;
	uint64_t n;
	double decay, tolerance;
} GOLDEN[] = {
        {"yolo", 1, .000499825033, 5e-13},
        {"yolo", 10, .00498702206, 5e-12},
        {"yolo", 2000, .632057347, 5e-10},
        {"yolo", 100000, .9999, 1e-15},
        {"yolo:updates=1999", 1, .632057347, 5e-10},
        {"timm:warmup=1", 1, 0, 0},
        {"timm:warmup=1", 2, .370039475, 5e-10},
        {"timm:warmup=1", 1000, .99, 1e-15},
        {"timm:warmup=1,min_decay=.5", 2, .5, 0},
        {"timm:min_decay=1,decay=.5", 2, .5, 0},
        {"timm:min_decay=.5,after=3", 4, 0, 0},
        {"timm:after=3", 5, .9999, 0},
        {"diffusers", 2, .181818182, 5e-10},
        {"diffusers", 100, .917431193, 5e-10},
        {"diffusers:min_decay=.3,after=4", 5, 0, 0},
        {"diffusers:min_decay=.3,after=4", 6, .3, 0},
        {"diffusers:min_decay=.3,after=4", 7, .3, 0},
        {"diffusers:min_decay=.3,after=4", 8, .307692, 5e-7},
        {"torch-ema", 1, .181818182, 5e-10},
        {"mmengine-annealing", 1, 0, 0},
        {"mmengine-annealing", 2, .0099009901, 5e-12},
        {"mmdet-exp", 2, .000999300267, 5e-13},
        {"torchtitan", 1, 9.53674316e-7, 5e-16},
        {"torchtitan", 10, .25, 0},
        {"torchtitan:start=5", 5, -1, 0},
        {"torchtitan:start=5,every=2", 6, -1, 0},
        {"torchtitan:start=5,every=2,bias=9", 7, .25, 0},
        {"torchtitan:bias=-20", 1, 9.53674316e-7, 5e-16},
        {"torchtitan:decay=.5", 10, .5, 0},
        {"power", 1, 0, 0},
        {"power", 2, 3.88892111e-6, 5e-15},
        {"power", 10, .150534932, 5e-10},
        {"power:gamma=0", 2, .5, 0},
        {"ema-pytorch", 1, 0, 0},
        {"ema-pytorch", 2, -1, 0},
        {"ema-pytorch", 11, 0, 0},
        {"ema-pytorch", 101, 0, 0},
        {"ema-pytorch", 102, -1, 0},
        {"ema-pytorch", 111, .797820, 5e-7},
        {"ema-pytorch", 121, .868623, 5e-7},
        {"half-life", 7, .99930709299, 5e-12},
        {"half-life:interval=2", 3, -1, 0},
        {"half-life:interval=2", 4, .99861466610, 5e-12},
        {"half-life:start=5", 4, -1, 0},
        {"half-life:start=5", 5, 0, 0},
        {"half-life:start=5", 6, .99930709299, 5e-12},
        {"swa:interval=3", 1, 0, 0},
        {"swa:interval=3", 3, -1, 0},
        {"swa:interval=3", 7, 2 / 3., 0},
        {"averaged-model", 1, 0, 0},
        {"averaged-model", 2, .999, 0},
        {"mmengine:interval=4", 4, -1, 0},
        {"mmengine:interval=4", 5, .9998, 0},
        {"keras", 1, 0, 0},
        {"keras", 2, .99, 0},
        {"k-diffusion:min=.2,start_at=5", 1, .2, 0},
        {"k-diffusion:max=.6", 100, .6, 0},
        {"lightning", 1, 0, 0},
        {"lightning", 2, .999, 0},
        {"lightning:start=5,every=3", 4, -1, 0},
        {"lightning:start=5,every=3", 5, 0, 0},
        {"lightning:start=5,every=3", 7, -1, 0},
        {"lightning:start=5,every=3", 8, .999, 0},
        {"fairseq:start=3", 3, 0, 0},
        {"fairseq:start=3", 4, .9999, 0},
        {"fairseq:every=2", 3, -1, 0},
        {"linear:total=10", 11, .9999, 0},
        {"cosine:total=1", 1, 1, 0},
        {"cosine:total=3", 2, .998, 1e-15},
        {"cosine:start=0", 1, 0, 0},
        {"constant:decay=0", 5, 0, 0},
        {"optax", 1, .999, 0},
        {"paddle", 1, .1, 0},
        {"paddle", 2, 2 / 11., 0},
        {"paddle:mode=exponential", 1, .000499775046, 5e-13},
        {"paddle:mode=exponential", 2000, .631994135, 5e-10},
};

START_TEST(golden_values_of_the_specification)
{
	for (size_t i = 0; i < COUNT(GOLDEN); i++) {
		struct schedule_result result = result_of(GOLDEN[i].specification, GOLDEN[i].n);
		double decay = result.action == ACTION_NOOP ? -1 : result.decay;

		ck_assert_msg(fabs(decay - GOLDEN[i].decay) <= GOLDEN[i].tolerance, "%s at %llu: %.17g",
		              GOLDEN[i].specification, (unsigned long long)GOLDEN[i].n, decay);
	}
}
END_TEST

START_TEST(steps_that_jump_are_followed)
{
	/* 128 images a call: the same decays as one step a call. */
	ck_assert_double_eq_tol(result_at("power", 10, 1280, 1152).decay, .150534932, 5e-10);
	/* A shadow started at step 1000 copies first, whatever the step. */
	ck_assert_int_eq(result_at("power", 1, 1001, 1000).action, ACTION_COPY);
	ck_assert_double_eq(result_at("power:gamma=1", 2, 1002, 1001).decay, result_of("power:gamma=1", 1002).decay);
	ck_assert_double_eq(result_at("power", 5, 7, 9).decay, 1); /* a step that goes back */
	/* The first firing, seen without memory: started at step 20, ten steps a call, every 15 from 25 on. */
	ck_assert_int_eq(result_at("lightning:start=25,every=15", 2, 40, 30).action, ACTION_COPY);
	ck_assert_int_eq(result_at("lightning:start=25,every=15", 3, 50, 40).action, ACTION_NOOP);
	ck_assert_int_eq(result_at("lightning:start=25,every=15", 5, 70, 60).action, ACTION_LERP);
	ck_assert_int_eq(result_at("half-life:start=25", 3, 40, 20).action, ACTION_COPY);
	ck_assert_int_eq(result_at("half-life:start=25", 1, 41, 40).action, ACTION_LERP);
}
END_TEST

/* The recorded traces, the schedule of each, steps a call, and where its entry policies are not the defaults. */
static const struct {
	const char *trace, *specification;
	uint64_t stride;
	bool freezes_buffers;
} TRACES_OF[] = {
        {"yolov7.ModelEMA", "yolo", 1, false},
        {"torch_ema", "torch-ema", 1, false},
        {"ema_pytorch.EMA(defaults)", "ema-pytorch", 1, false},
        {"ema_pytorch.EMA(after=3,every=2)", "ema-pytorch:after=3,every=2,beta=0.99", 1, false},
        {"ema_pytorch.EMA(after=0,every=1,min=.2)", "ema-pytorch:after=0,every=1,min=0.2", 1, false},
        {"ema_pytorch.KarrasEMA(sigma=.05,every=1)", "ema-pytorch-karras:every=1", 1, false},
        {"edm2.PowerFunctionEMA(std=0.05,batch=128)", "power:std=0.05", 128, false},
        {"edm2.PowerFunctionEMA(std=0.1,batch=128)", "power:std=0.1", 128, false},
        {"edm2.TraditionalEMA", "edm", 128, false},
        {"mmengine.SWA", "swa", 1, false},
        {"mmengine.EMA(m=.0002)", "mmengine", 1, false},
        {"mmengine.EMA(m=.1,buffers)", "mmengine:momentum=0.1,update_buffers=1", 1, false},
        {"mmengine.MomentumAnnealing", "mmengine-annealing", 1, false},
        {"k_diffusion.EMAWarmup({})", "k-diffusion", 1, false},
        {"diffusers.EMAModel({})", "diffusers", 1, false},
        {"diffusers.EMAModel({'use_ema_warmup': True})", "diffusers:use_ema_warmup=1", 1, false},
        {"diffusers.EMAModel({'min_decay': 0.3, 'update_after_step': 4})",
         "diffusers:min_decay=0.3,update_after_step=4", 1, false},
        {"torch.AveragedModel SWA (torch 1.13.0a0)", "swa", 1, true},
};

static json_t *traces_load(void)
{
	json_error_t error;
	json_t *traces = json_load_file(TRACES, 0, &error);

	ck_assert_msg(traces != NULL, "%s: %s (run from the root of the source tree)", TRACES, error.text);
	return traces;
}

static double averaged(const struct schedule *schedule, struct schedule_result result, double s, double x)
{
	double d = result.decay;

	if (result.action == ACTION_COPY)
		return x;
	if (result.action == ACTION_NOOP)
		return s;
	switch (schedule->form) {
	case FORM_LERP:
		return s + (1 - d) * (x - s);
	case FORM_MUL_ADD:
		return s * d + (1 - d) * x;
	case FORM_SUB:
		return s - (1 - d) * (s - x);
	}
	return NAN;
}

static double entry_after(enum schedule_entry policy, double s, double x, double average)
{
	return policy == ENTRY_AVERAGE ? average : policy == ENTRY_COPY ? x : s;
}

static void replay(json_t *trace, size_t index)
{
	struct schedule schedule = parsed(TRACES_OF[index].specification);
	enum schedule_entry buffer = schedule_entry_default(&schedule, true, true);
	enum schedule_entry integer = schedule_entry_default(&schedule, false, true);
	double w[3] = {1, cos(1), cos(2)}, rb = 0, nb = 3;
	json_t *row;
	size_t i;

	if (TRACES_OF[index].freezes_buffers)
		buffer = integer = ENTRY_FREEZE;
	ck_assert_uint_ge(json_array_size(trace), 40);
	json_array_foreach(trace, i, row) {
		double n = (double)i + 1;
		uint64_t stride = TRACES_OF[index].stride;
		struct schedule_call call = {i + 1, (i + 1) * stride, i * stride};
		struct schedule_result result = schedule_at(&schedule, &call);
		json_t *rb_json = json_object_get(row, "rb"), *nb_json = json_object_get(row, "nb");

		ck_assert_double_eq_tol(result.decay, json_number_value(json_object_get(row, "d")), 2e-14);
		for (size_t j = 0; j < 3; j++) {
			json_t *recorded = json_array_get(json_object_get(row, "w"), j);

			w[j] = averaged(&schedule, result, w[j], cos(0.37 * n + (double)j) + 0.01 * n);
			ck_assert_double_eq_tol(w[j], json_number_value(recorded), 1e-14);
		}
		rb = entry_after(buffer, rb, sin(0.11 * n), averaged(&schedule, result, rb, sin(0.11 * n)));
		nb = entry_after(integer == ENTRY_FIRST && i == 0 ? ENTRY_COPY : integer, nb, 7 * n + 3, nb);
		ck_assert(buffer != ENTRY_DROP || json_is_null(rb_json));
		ck_assert(integer != ENTRY_DROP || json_is_null(nb_json));
		if (!json_is_null(rb_json))
			ck_assert_double_eq_tol(rb, json_number_value(rb_json), 1e-14);
		if (!json_is_null(nb_json))
			ck_assert_double_eq(nb, json_number_value(nb_json));
	}
}

START_TEST(the_trajectory_of_each_reference_implementation_is_reproduced)
{
	json_t *traces = traces_load(), *trace = json_object_get(traces, TRACES_OF[_i].trace);

	ck_assert_msg(trace != NULL, "no trace %s", TRACES_OF[_i].trace);
	replay(json_object_get(trace, "trace"), (size_t)_i);
	json_decref(traces);
}
END_TEST

START_TEST(no_recorded_trajectory_is_left_out)
{
	json_t *traces = traces_load(), *trace;
	const char *name;

	json_object_foreach(traces, name, trace) {
		bool is_replayed = false;

		for (size_t i = 0; i < COUNT(TRACES_OF); i++)
			is_replayed |= strcmp(name, TRACES_OF[i].trace) == 0;
		ck_assert_msg(is_replayed || !json_object_get(trace, "trace"), "%s", name);
	}
	json_decref(traces);
}
END_TEST

START_TEST(the_exponent_of_a_width_is_the_recorded_one)
{
	json_t *traces = traces_load(), *exponent;
	const char *std;

	json_object_foreach(json_object_get(traces, "edm2.std_to_exp"), std, exponent) {
		double recorded = json_number_value(exponent), computed = schedule_power_exponent(strtod(std, NULL));

		ck_assert_double_eq_tol(computed, recorded, 1e-13 * (1 + recorded));
		ck_assert_double_eq_tol(computed, (double)exact_exponent(strtod(std, NULL)), 4e-15 * (1 + recorded));
	}
	ck_assert_double_eq_tol(schedule_power_exponent(0.28867513459481287), 0, 1e-14);
	json_decref(traces);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("schedule_formula");
	TCase *tcase = tcase_create("schedule_formula");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, decays_are_within_1e_15_of_the_formula_at_any_call);
	tcase_add_test(tcase, the_formula_of_every_schedule_is_tested);
	tcase_add_test(tcase, yolo_computes_its_decay_in_the_order_of_its_library);
	tcase_add_test(tcase, the_first_call_is_exact);
	tcase_add_test(tcase, golden_values_of_the_specification);
	tcase_add_test(tcase, steps_that_jump_are_followed);
	tcase_add_loop_test(tcase, the_trajectory_of_each_reference_implementation_is_reproduced, 0,
	                    (int)COUNT(TRACES_OF));
	tcase_add_test(tcase, no_recorded_trajectory_is_left_out);
	tcase_add_test(tcase, the_exponent_of_a_width_is_the_recorded_one);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
