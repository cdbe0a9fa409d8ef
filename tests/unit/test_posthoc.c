/*
 * Post-hoc averages: against the reference implementation's coefficients, against what a dense solution of the same
 * equations says, and on averages of random weights whose sums are known.
 */
#include "proto/posthoc.h"

#include "proto/limits.h"
#include "proto/schedule.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRACES "tests/vectors/reference_traces.json"
#define TRACE "edm2.solve_posthoc(in 8 snapshots 1024..8192 x std .05,.10 ; out 8192)"
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static struct posthoc_point point(double std, uint64_t step)
{
	return (struct posthoc_point){.exponent = schedule_power_exponent(std), .step = step};
}

/* Snapshots of the given stds every `every` steps up to step, the stds of one step together. */
static uint32_t grid_make(struct posthoc_point *snapshots, const double *stds, uint32_t std_count, uint64_t every,
                          uint64_t step)
{
	uint32_t count = 0;

	for (uint64_t at = every; at <= step; at += every) {
		for (uint32_t i = 0; i < std_count; i++)
			snapshots[count++] = point(stds[i], at);
	}
	return count;
}

static double sum_of(const double *values, uint32_t count)
{
	double sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += values[i];
	return sum;
}

static void solve(const struct posthoc_point *snapshots, uint32_t count, struct posthoc_point target,
                  double *ret_coefficients)
{
	struct reason reason = {""};

	ck_assert_msg(posthoc_solve(snapshots, count, &target, ret_coefficients, &reason) == 0, "%s", reason.text);
}

START_TEST(agrees_with_the_reference_implementation)
{
	struct posthoc_point snapshots[16];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 1024, 8192);
	json_t *traces = json_load_file(TRACES, 0, NULL), *golden = json_object_get(traces, TRACE), *row;
	double coefficients[16];
	const char *std;
	unsigned rows = 0;

	ck_assert_uint_eq(count, 16);
	ck_assert_ptr_nonnull(golden);
	json_object_foreach(golden, std, row) {
		solve(snapshots, count, point(strtod(std, NULL), 8192), coefficients);
		for (uint32_t i = 0; i < count; i++)
			ck_assert_double_eq_tol(coefficients[i], json_real_value(json_array_get(row, i)), 2e-15);
		rows++;
	}
	ck_assert_uint_eq(rows, 3);
	json_decref(traces);
}
END_TEST

/* The equations as the paper writes them, dense and without thought for their condition. */
static long double dense_product(const struct posthoc_point *p, const struct posthoc_point *q)
{
	const long double a = p->exponent, b = q->exponent, ta = p->step, tb = q->step;

	return (a + 1) * (b + 1) * powl(ta / tb, ta < tb ? b : -a) / ((a + b + 1) * fmaxl(ta, tb));
}

static void dense_solve(const struct posthoc_point *snapshots, uint32_t count, struct posthoc_point target,
                        long double *ret_coefficients)
{
	long double a[32][33], sum = 0;

	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t j = 0; j < count; j++)
			a[i][j] = dense_product(&snapshots[i], &snapshots[j]);
		a[i][count] = dense_product(&snapshots[i], &target);
	}
	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t k = i + 1; k < count; k++) {
			for (uint32_t j = count + 1; j-- > i;)
				a[k][j] -= a[i][j] * (a[k][i] / a[i][i]);
		}
	}
	for (uint32_t i = count; i-- > 0;) {
		ret_coefficients[i] = a[i][count];
		for (uint32_t j = i + 1; j < count; j++)
			ret_coefficients[i] -= a[i][j] * ret_coefficients[j];
		ret_coefficients[i] /= a[i][i];
	}
	for (uint32_t i = 0; i < count; i++)
		sum += ret_coefficients[i];
	for (uint32_t i = 0; i < count; i++)
		ret_coefficients[i] /= sum;
}

START_TEST(agrees_with_the_dense_equations_on_random_points_in_any_order)
{
	uint64_t seed = 1;

	for (int round = 0; round < 300; round++) {
		struct posthoc_point snapshots[12], target;
		long double exact[12];
		double coefficients[12];
		const uint32_t count = 1 + (uint32_t)(round % 12);

		for (uint32_t i = 0; i < count; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			/* Exponents and steps apart from each other, so that the dense equations keep their digits. */
			snapshots[i] = (struct posthoc_point){
				.exponent = (double)(seed >> 40 & 3) * 4 + 1,
				.step = 1000 + i * 500 + (seed >> 50) % 200,
			};
		}
		for (uint32_t i = count - 1; i > 0; i--) {
			struct posthoc_point other = snapshots[seed % (i + 1)];

			snapshots[seed % (i + 1)] = snapshots[i];
			snapshots[i] = other;
		}
		target = (struct posthoc_point){.exponent = 2.5 + (double)(seed >> 60), .step = 8000};
		solve(snapshots, count, target, coefficients);
		dense_solve(snapshots, count, target, exact);
		for (uint32_t i = 0; i < count; i++)
			ck_assert_double_eq_tol(coefficients[i], (double)exact[i],
			                        1e-12 * fmax(1, fabs((double)exact[i])));
	}
}
END_TEST

START_TEST(a_snapshot_that_is_the_target_is_taken_alone)
{
	struct posthoc_point snapshots[16];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 1024, 8192);
	double coefficients[16];

	for (uint32_t wanted = 0; wanted < count; wanted++) {
		solve(snapshots, count, snapshots[wanted], coefficients);
		for (uint32_t i = 0; i < count; i++)
			ck_assert_double_eq(coefficients[i], i == wanted ? 1 : 0);
		ck_assert_double_lt(posthoc_error(snapshots, count, &snapshots[wanted], coefficients), 1e-8);
	}
}
END_TEST

START_TEST(a_target_beside_a_snapshot_is_nearly_that_snapshot)
{
	struct posthoc_point snapshots[16];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 1024, 8192);
	double coefficients[16];

	solve(snapshots, count, point(.1000000001, 8192), coefficients);
	for (uint32_t i = 0; i < count; i++)
		ck_assert_double_eq_tol(coefficients[i], i == count - 1 ? 1 : 0, 1e-7);
}
END_TEST

START_TEST(weights_add_up_to_1_so_constants_stay)
{
	struct posthoc_point snapshots[128];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 64, 4096);
	double coefficients[128];

	for (double std = .03; std < .28; std += .01) {
		solve(snapshots, count, point(std, 4096), coefficients);
		ck_assert_double_eq_tol(sum_of(coefficients, count), 1, 1e-14);
	}
}
END_TEST

START_TEST(later_snapshots_are_left_out)
{
	struct posthoc_point snapshots[32];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 256, 4096), half = count / 2;
	double all[32], early[32];

	solve(snapshots, count, point(.15, 2048), all);
	solve(snapshots, half, point(.15, 2048), early);
	for (uint32_t i = 0; i < count; i++)
		ck_assert_double_eq(all[i], i < half ? early[i] : 0);
}
END_TEST

/* Measured: 3.3 % from 8 steps, .9 %, .23 %, .058 %, .015 %, .0036 % from 256. */
START_TEST(the_error_falls_with_the_number_of_snapshots)
{
	struct posthoc_point snapshots[512];
	double coefficients[512], before = 1;

	for (uint64_t every = 1024; every >= 32; every /= 2) {
		const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, every, 8192);
		const struct posthoc_point target = point(.15, 8192);
		double error;

		solve(snapshots, count, target, coefficients);
		error = posthoc_error(snapshots, count, &target, coefficients);
		ck_assert_double_gt(error, 0);
		ck_assert_double_lt(error, before / 2);
		before = error;
	}
	ck_assert_double_lt(before, 1e-4);
}
END_TEST

/* The profiles themselves, summed up step by step: the error must be that of the integrals. */
START_TEST(the_error_is_that_of_the_summed_profiles)
{
	struct posthoc_point snapshots[16];
	const uint32_t count = grid_make(snapshots, (const double[]){.05, .10}, 2, 1024, 8192);
	const struct posthoc_point target = point(.15, 8192);
	const uint32_t parts = 8192 * 16;
	double coefficients[16], difference = 0, norm = 0;

	solve(snapshots, count, target, coefficients);
	for (uint32_t at = 0; at < parts; at++) {
		const double s = (at + .5) / parts * 8192;
		double wanted = (target.exponent + 1) * pow(s / 8192, target.exponent) / 8192, got = 0;

		for (uint32_t i = 0; i < count; i++) {
			const double g = snapshots[i].exponent, t = (double)snapshots[i].step;

			got += s < t ? coefficients[i] * (g + 1) * pow(s / t, g) / t : 0;
		}
		difference += (got - wanted) * (got - wanted);
		norm += wanted * wanted;
	}
	ck_assert_double_eq_tol(posthoc_error(snapshots, count, &target, coefficients), sqrt(difference / norm), 1e-6);
}
END_TEST

START_TEST(a_wrong_sum_has_a_large_error)
{
	const struct posthoc_point snapshots[] = {point(.05, 4096), point(.10, 4096)}, target = point(.2, 4096);

	ck_assert_double_gt(posthoc_error(snapshots, 2, &target, (const double[]){1, 0}), .5);
	ck_assert_double_eq_tol(posthoc_error(snapshots, 2, &target, (const double[]){0, 0}), 1, 1e-15);
}
END_TEST

START_TEST(thousands_of_snapshots_keep_their_digits_and_take_no_time)
{
	static struct posthoc_point snapshots[POSTHOC_COUNT_MAX];
	static double coefficients[POSTHOC_COUNT_MAX];
	const double stds[] = {.04, .05, .10, .2};
	const uint32_t count = grid_make(snapshots, stds, 4, 1000, 1024 * 1000);
	const struct posthoc_point target = point(.15, 1024 * 1000);
	const clock_t begun = clock();
	double largest = 0;

	ck_assert_uint_eq(count, POSTHOC_COUNT_MAX);
	solve(snapshots, count, target, coefficients);
	ck_assert_double_lt((double)(clock() - begun) / CLOCKS_PER_SEC, 5);
	for (uint32_t i = 0; i < count; i++)
		largest = fmax(largest, fabs(coefficients[i]));
	ck_assert_double_eq_tol(sum_of(coefficients, count), 1, 1e-12);
	ck_assert_double_lt(largest, 2);
	ck_assert_double_lt(posthoc_error(snapshots, count, &target, coefficients), 1e-6);
}
END_TEST

START_TEST(neighbouring_steps_and_nearly_equal_exponents_are_harmless)
{
	struct posthoc_point snapshots[300];
	const struct posthoc_point target = point(.15, 1000000099);
	double coefficients[300];

	for (uint32_t i = 0; i < 100; i++) {
		snapshots[3 * i] = point(.05, 1000000000 + i);
		snapshots[3 * i + 1] = point(.10, 1000000000 + i);
		snapshots[3 * i + 2] = point(.10000000000001, 1000000000 + i);
	}
	solve(snapshots, 300, target, coefficients);
	ck_assert_double_eq_tol(sum_of(coefficients, 300), 1, 1e-6);
	for (uint32_t i = 0; i < 300; i++)
		ck_assert(isfinite(coefficients[i]));
	ck_assert_double_lt(posthoc_error(snapshots, 300, &target, coefficients), 1);
}
END_TEST

START_TEST(the_extremes_of_the_range_are_taken)
{
	const struct posthoc_point snapshots[] = {
		{0, 1}, {POSTHOC_EXPONENT_MAX, 1}, {0, UINT64_MAX}, {POSTHOC_EXPONENT_MAX, UINT64_MAX},
	};
	double coefficients[4];

	solve(snapshots, 4, (struct posthoc_point){10, UINT64_MAX}, coefficients);
	ck_assert_double_eq_tol(sum_of(coefficients, 4), 1, 1e-12);
	solve(snapshots, 1, (struct posthoc_point){POSTHOC_EXPONENT_MAX, 1}, coefficients);
	ck_assert_double_eq(coefficients[0], 1);
}
END_TEST

START_TEST(whatever_the_points_the_weights_are_finite_and_add_up_to_1)
{
	uint64_t seed = 5;
	unsigned solved = 0;

	for (int round = 0; round < 3000; round++) {
		struct posthoc_point snapshots[24], target;
		struct reason reason = {""};
		double coefficients[24];
		const uint32_t count = 1 + (uint32_t)round % 24;
		int r;

		for (uint32_t i = 0; i <= count; i++) {
			struct posthoc_point *at = i < count ? &snapshots[i] : &target;

			seed = seed * 6364136223846793005u + 1442695040888963407u;
			*at = (struct posthoc_point){
				.exponent = ldexp((double)(seed >> 40 & 1023), (int)(seed >> 50 & 15) - 10),
				.step = (seed >> 8 & 0xffff) << (seed >> 55 & 31) | 1,
			};
		}
		for (uint32_t i = 0; i < count; i++)
			target.step = target.step < snapshots[i].step ? snapshots[i].step : target.step;
		r = posthoc_solve(snapshots, count, &target, coefficients, &reason);
		if (r != 0) {
			ck_assert_int_eq(r, STATUS_EARGUMENT);
			ck_assert_str_ne(reason.text, "");
			continue;
		}
		solved++;
		for (uint32_t i = 0; i < count; i++)
			ck_assert(isfinite(coefficients[i]));
		ck_assert_double_eq_tol(sum_of(coefficients, count), 1, 1e-6);
		ck_assert(isfinite(posthoc_error(snapshots, count, &target, coefficients)));
	}
	ck_assert_uint_gt(solved, 2900);
}
END_TEST

static const struct {
	uint32_t count;
	struct posthoc_point snapshots[2], target;
	int code;
	const char *sentence;
} bad_points[] = {
	{0, {{5, 10}}, {5, 10}, STATUS_EARGUMENT, "at least 1"},
	{1, {{5, 10}}, {5, 0}, STATUS_EARGUMENT, "the wanted average is of step 0"},
	{1, {{5, 0}}, {5, 10}, STATUS_EARGUMENT, "snapshot 1 is of step 0"},
	{2, {{5, 10}, {-1, 10}}, {5, 10}, STATUS_EARGUMENT,
	 "snapshot 2 has the exponent -1; it must be from 0 to 1000000"},
	{1, {{5, 10}}, {1e6 + 1, 10}, STATUS_EARGUMENT, "from 0 to 1000000"},
	{1, {{5, 10}}, {(double)NAN, 10}, STATUS_EARGUMENT, "the wanted average has the exponent"},
	{2, {{5, 10}, {6, 20}}, {5, 9}, STATUS_EARGUMENT, "step 9 is wanted, but the oldest snapshot is of step 10"},
	{2, {{5, 10}, {5, 10}}, {5, 20}, STATUS_EARGUMENT, "snapshots 1 and 2 are both of exponent 5 and step 10"},
	{POSTHOC_COUNT_MAX + 1, {{5, 10}}, {5, 10}, STATUS_ELIMIT, "4097 snapshots, at most 4096"},
};

START_TEST(refuses_with_a_sentence)
{
	double coefficients[2] = {7, 7};
	struct reason reason = {""};

	ck_assert_int_eq(posthoc_solve(bad_points[_i].snapshots, bad_points[_i].count, &bad_points[_i].target,
	                               coefficients, &reason),
	                 bad_points[_i].code);
	ck_assert_msg(strstr(reason.text, bad_points[_i].sentence), "%s", reason.text);
	ck_assert_double_eq(coefficients[0], 7);
	ck_assert_double_eq(coefficients[1], 7);
}
END_TEST

START_TEST(a_width_and_its_exponent_are_inverse)
{
	for (double std = .001; std < .2887; std += .0005)
		ck_assert_double_eq_tol(posthoc_std(schedule_power_exponent(std)), std, 1e-12);
	ck_assert_double_eq_tol(posthoc_std(0), .28867513459481287, 1e-15);
}
END_TEST

START_TEST(reads_the_exponent_of_a_schedule)
{
	static const struct {
		const char *schedule;
		double exponent;
	} rows[] = {
		{"power", 16.9721986023}, {"power:std=0.1", 6.9372039376},
		{"power:std=0.1,snapshot=1000", 6.9372039376}, {"power:snapshot=1000", 16.9721986023},
		{"power:gamma=3", 3}, {"power:keep=2,gamma=0,form=sub", 0},
	};
	double exponent;

	for (size_t i = 0; i < COUNT(rows); i++) {
		ck_assert_int_eq(posthoc_exponent(rows[i].schedule, &exponent, NULL), 0);
		ck_assert_double_eq_tol(exponent, rows[i].exponent, 1e-9);
	}
}
END_TEST

START_TEST(only_power_schedules_have_an_exponent)
{
	const char *const rows[] = {"", "yolo", "powers", "power,std=.1", "power:std=2", "power:std=",
	                            "power:std=.1,gamma=3", "swa:std=.1"};
	double exponent = 7;

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct reason reason = {""};

		ck_assert_msg(posthoc_exponent(rows[i], &exponent, &reason) == STATUS_ESCHEDULE, "%s", rows[i]);
		ck_assert_str_ne(reason.text, "");
		ck_assert_double_eq(exponent, 7);
	}
}
END_TEST

START_TEST(writes_the_schedule_of_a_width)
{
	char text[SCHEDULE_BYTES_MAX + 1];
	double exponent;

	posthoc_schedule(.15, text);
	ck_assert_str_eq(text, "power:std=0.15");
	posthoc_schedule(.05, text);
	ck_assert_str_eq(text, "power");
	for (double std = POSTHOC_STD_MIN; std < POSTHOC_STD_MAX; std += .00123) {
		posthoc_schedule(std, text);
		ck_assert_int_eq(posthoc_exponent(text, &exponent, NULL), 0);
		ck_assert_double_eq(exponent, schedule_power_exponent(std));
	}
}
END_TEST

static int good_solve(void *context)
{
	struct posthoc_point snapshots[16];
	double coefficients[16];

	(void)context;
	grid_make(snapshots, (const double[]){.05, .10}, 2, 1024, 8192);
	return posthoc_solve(snapshots, 16, &(struct posthoc_point){5, 8192}, coefficients, NULL);
}

START_TEST(every_allocation_may_fail)
{
	ck_assert_uint_ge(failing_heap_sweep(good_solve, NULL), 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("posthoc");
	TCase *tcase = tcase_create("posthoc");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, agrees_with_the_reference_implementation);
	tcase_add_test(tcase, agrees_with_the_dense_equations_on_random_points_in_any_order);
	tcase_add_test(tcase, a_snapshot_that_is_the_target_is_taken_alone);
	tcase_add_test(tcase, a_target_beside_a_snapshot_is_nearly_that_snapshot);
	tcase_add_test(tcase, weights_add_up_to_1_so_constants_stay);
	tcase_add_test(tcase, later_snapshots_are_left_out);
	tcase_add_test(tcase, the_error_falls_with_the_number_of_snapshots);
	tcase_add_test(tcase, the_error_is_that_of_the_summed_profiles);
	tcase_add_test(tcase, a_wrong_sum_has_a_large_error);
	tcase_add_test(tcase, thousands_of_snapshots_keep_their_digits_and_take_no_time);
	tcase_add_test(tcase, neighbouring_steps_and_nearly_equal_exponents_are_harmless);
	tcase_add_test(tcase, the_extremes_of_the_range_are_taken);
	tcase_add_test(tcase, whatever_the_points_the_weights_are_finite_and_add_up_to_1);
	tcase_add_loop_test(tcase, refuses_with_a_sentence, 0, COUNT(bad_points));
	tcase_add_test(tcase, a_width_and_its_exponent_are_inverse);
	tcase_add_test(tcase, reads_the_exponent_of_a_schedule);
	tcase_add_test(tcase, only_power_schedules_have_an_exponent);
	tcase_add_test(tcase, writes_the_schedule_of_a_width);
	tcase_add_test(tcase, every_allocation_may_fail);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
