/*
 * Schedules as texts: what is accepted, what is refused with which sentence, and that every schedule survives being
 * written and read again. The decays are tested in test_schedule_formula.c.
 */
#include "proto/schedule.h"

#include "proto/limits.h"

#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
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

/* What the sentence must contain, or be where it is exact. */
static void assert_refused(const char *specification, const char *sentence, bool is_exact)
{
	struct schedule schedule = {.form = FORM_SUB};
	struct reason reason = {""};

	ck_assert_msg(schedule_parse(specification, &schedule, &reason) == STATUS_ESCHEDULE, "%s", specification);
	if (is_exact)
		ck_assert_str_eq(reason.text, sentence);
	else
		ck_assert_msg(strstr(reason.text, sentence) != NULL, "%s: %s", specification, reason.text);
	ck_assert(schedule.kind == NULL && schedule.form == FORM_SUB);
	ck_assert_int_eq(schedule_parse(specification, &schedule, NULL), STATUS_ESCHEDULE);
}

static void assert_formats_as(const char *specification, const char *canonical)
{
	struct schedule schedule = parsed(specification);
	char text[SCHEDULE_BYTES_MAX + 1];

	ck_assert_int_eq(schedule_format(&schedule, text, sizeof(text)), 0);
	ck_assert_str_eq(text, canonical);
}

START_TEST(every_row_of_the_table_is_complete)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	ck_assert_uint_eq(kind_count, 25);
	for (size_t i = 0; i < kind_count; i++) {
		struct schedule schedule = parsed(kinds[i].name);

		ck_assert_ptr_eq(schedule.kind, &kinds[i]);
		ck_assert_int_eq(schedule.form, kinds[i].form);
		ck_assert(kinds[i].source && kinds[i].formula && kinds[i].at);
		ck_assert(kinds[i].key_count >= 1 && kinds[i].key_count <= SCHEDULE_KEY_COUNT_MAX);
		ck_assert(!kinds[i].keys[0].is_alternative);
		ck_assert(kinds[i].debias_key < (int)kinds[i].key_count && kinds[i].buffers_key < (int)kinds[i].key_count);
		ck_assert(kinds[i].scale_key < (int)kinds[i].key_count);
		ck_assert(kinds[i].starts_at_zero == (kinds[i].debias_key >= 0));
		ck_assert((kinds[i].is_scalable && kinds[i].scale_key < 0) == (kinds[i].unscaled == NULL));
		ck_assert(!kinds[i].spans_steps || kinds[i].uses_step);
		for (uint32_t j = 0; j < kinds[i].key_count; j++) {
			const struct schedule_key *key = &kinds[i].keys[j];

			ck_assert(key->name && key->text);
			ck_assert_double_lt(key->minimum, key->maximum);
			ck_assert_double_eq(schedule.values[j], key->fallback);
			if (key->is_integer)
				ck_assert_double_eq(key->fallback, floor(key->fallback));
			if (key->words)
				ck_assert(key->is_integer && key->minimum == 0);
		}
	}
}
END_TEST

START_TEST(keys_aliases_and_the_form_are_accepted)
{
	struct schedule schedule = parsed("yolo:tau=500,decay=0.999,updates=7,form=lerp");

	ck_assert_str_eq(schedule.kind->name, "yolo");
	ck_assert_double_eq(schedule.values[0], 0.999);
	ck_assert_double_eq(schedule.values[1], 500);
	ck_assert_double_eq(schedule.values[2], 7);
	ck_assert_int_eq(schedule.form, FORM_LERP);
	assert_formats_as("timm:update_after_step=5,use_warmup=1,inv_gamma=2,warmup_power=.75",
	                  "timm:after=5,warmup=1,gamma=2,power=0.75");
	assert_formats_as("diffusers:use_ema_warmup=1,min_value=.1,max_value=.5",
	                  "diffusers:decay=0.5,min_decay=0.1,warmup=1");
	assert_formats_as("ema-pytorch:beta=0.99,update_every=2,min_value=.25",
	                  "ema-pytorch:decay=0.99,every=2,min=0.25");
	assert_formats_as("half-life:halflife=50", "half-life:half_life=50");
	assert_formats_as("keras:ema_momentum=0.5", "keras:momentum=0.5");
	assert_formats_as("mmdet-exp:momentum=0.1,total_iter=20", "mmdet-exp:momentum=0.1,gamma=20");
	assert_formats_as("power:exp=6.94", "power:gamma=6.94");
	assert_formats_as("paddle:ema_decay_type=exponential", "paddle:mode=exponential");
	assert_formats_as("paddle:mode=threshold,debias=0", "paddle:debias=0");
}
END_TEST

START_TEST(the_keys_of_all_schedules_stand_behind_their_own)
{
	struct schedule schedule = parsed("yolo");

	ck_assert_int_eq(schedule.precision, PRECISION_AUTO);
	ck_assert_uint_eq(schedule.begin, 0);
	ck_assert_uint_eq(schedule.cadence, 1);
	ck_assert_uint_eq(schedule.snapshot, 0);
	ck_assert_uint_eq(schedule.keep, 0);
	schedule = parsed("swa:keep=5,precision=f64,begin=7,cadence=3,snapshot=1000,form=sub");
	ck_assert_int_eq(schedule.form, FORM_SUB);
	ck_assert_int_eq(schedule.precision, PRECISION_F64);
	ck_assert_uint_eq(schedule.begin, 7);
	ck_assert_uint_eq(schedule.cadence, 3);
	ck_assert_uint_eq(schedule.snapshot, 1000);
	ck_assert_uint_eq(schedule.keep, 5);
	assert_formats_as("swa:keep=5,precision=f64,begin=7,cadence=3,snapshot=1000,form=sub,interval=2",
	                  "swa:interval=2,form=sub,precision=f64,begin=7,cadence=3,snapshot=1000,keep=5");
	assert_formats_as("swa:keep=0,snapshot=0,cadence=1,begin=0,form=lerp", "swa");
	assert_formats_as("swa:precision=f32,begin=1e3", "swa:precision=f32,begin=1000");
	assert_formats_as("swa:begin=9e15", "swa:begin=9e+15");
	assert_refused("swa:cadence=0", "cadence=0 is outside [1, 9e+15] for schedule 'swa'", true);
	assert_refused("swa:begin=-1", "begin=-1 is outside [0, 9e+15] for schedule 'swa'", true);
	assert_refused("swa:keep=1.5", "keep=1.5 is not a whole number", false);
	assert_refused("swa:snapshot=9.1e15", "is outside [0, 9e+15]", false);
	assert_refused("swa:precision=auto", "precision 'auto' is unknown; did you mean 'f32'? known: f32, f64", true);
	assert_refused("swa:precision=float64", "did you mean 'f64'? known: f32, f64", false);
	assert_refused("swa:cadense=2", "did you mean 'cadence'?", false);
	assert_refused("swa:begin=1,begin=1", "key 'begin' of schedule 'swa' is given twice", true);
	assert_refused("paddle:mode=treshold",
	               "mode 'treshold' is unknown; did you mean 'threshold'? known: threshold, exponential", true);
	assert_refused("paddle:mode=1", "mode '1' is unknown", false);
	assert_refused("optax:decay=1", "decay=1 is outside [0, 0.9999999999999999] for schedule 'optax'", true);
}
END_TEST

START_TEST(a_schedule_that_could_not_be_written_out_is_refused)
{
	/* Short as it is given, but 9e14 is written in full. */
	assert_refused("diffusers:decay=1.2345678901234567e-5,min_decay=1.2345678901234567e-5,after=9e14,"
	               "gamma=1.2345678901234567e-5,power=1.2345678901234567e-5,begin=9e14,cadence=9e14,snapshot=9e14,"
	               "keep=9e14,form=lerp,warmup=1,precision=f32",
	               "written out, the schedule 'diffusers' has 276 bytes; the limit is 256", false);
}
END_TEST

START_TEST(the_canonical_text_is_short_and_exact)
{
	assert_formats_as("yolo", "yolo");
	assert_formats_as("yolo:decay=0.9999,tau=2000,form=mul-add", "yolo");
	assert_formats_as("yolo:form=sub,tau=2e3,decay=.99990", "yolo:form=sub");
	assert_formats_as("yolo:decay=0.30000000000000004", "yolo:decay=0.30000000000000004");
	assert_formats_as("yolo:decay=1e-5,tau=123456789", "yolo:decay=1e-05,tau=123456789");
	assert_formats_as("constant:decay=-0", "constant:decay=0");
	assert_formats_as("constant:decay=0.999999999999999999999", "constant:decay=1");
	assert_formats_as("edm:halflife=500000", "edm:halflife=500000");
	assert_formats_as("torchtitan:bias=-12", "torchtitan:bias=-12");
	assert_formats_as("fairseq:start=9000000000000000", "fairseq:start=9e+15");
}
END_TEST

START_TEST(unknown_names_are_answered_with_the_nearest_and_all)
{
	assert_refused("yollo",
	               "schedule 'yollo' is unknown; did you mean 'yolo'? known: constant, yolo, tf, torch-ema, timm, "
	               "diffusers, k-diffusion, ema-pytorch, ema-pytorch-karras, power, edm, half-life, torchtitan, "
	               "swa, averaged-model, mmengine, mmengine-annealing, mmdet-exp, keras, lightning, fairseq, "
	               "linear, cosine, optax, paddle",
	               true);
	assert_refused("Timm:decay=1", "did you mean 'timm'?", false);
	assert_refused("", "the schedule has no name; known: constant, ", false);
	assert_refused(":decay=0.5", "the schedule has no name", false);
	assert_refused("yolo:taw=5",
	               "schedule 'yolo' has no key 'taw'; did you mean 'tau'? known: decay, tau, updates, form, "
	               "precision, begin, cadence, snapshot, keep",
	               true);
	assert_refused("timm:update_after=5", "did you mean 'update_after_step'? known: decay, min_decay, after, ",
	               false);
	assert_refused("constant:fork=lerp", "did you mean 'form'?", false);
	assert_refused("constant:form=muladd",
	               "form 'muladd' is unknown; did you mean 'mul-add'? known: lerp, mul-add, sub", true);
	assert_refused("mmengine:decay=0.99", "schedule 'mmengine' has no key 'decay'", false);
}
END_TEST

START_TEST(values_out_of_range_are_answered_with_the_range)
{
	assert_refused("yolo:decay=1.2", "decay=1.2 is outside [0, 1] for schedule 'yolo'", true);
	assert_refused("yolo:decay=-0.1", "decay=-0.1 is outside [0, 1] for schedule 'yolo'", true);
	assert_refused("yolo:tau=0", "tau=0 is outside [1e-09, 1e+18] for schedule 'yolo'", true);
	assert_refused("yolo:tau=1e999", "tau=1e999 is outside [1e-09, 1e+18] for schedule 'yolo'", true);
	assert_refused("power:std=.3", "std=.3 is outside [0.001, 0.28867513459481287] for schedule 'power'", true);
	assert_refused("timm:warmup=2", "warmup=2 is outside [0, 1] for schedule 'timm'", true);
	assert_refused("timm:after=-1", "after=-1 is outside [0, 9e+15] for schedule 'timm'", true);
	assert_refused("swa:interval=0", "interval=0 is outside [1, 9e+15]", false);
	assert_refused("timm:after=1.5",
	               "after=1.5 is not a whole number for schedule 'timm'; write one in [0, 9e+15]", true);
	assert_refused("power:gamma=-1", "gamma=-1 is outside [0, 1000000]", false);
	assert_refused("edm:halflife=inf", "halflife=inf is not a decimal number", false);
}
END_TEST

START_TEST(what_is_no_decimal_number_is_refused)
{
	static const char *const VALUES[] = {
	        "nan", "NaN", "inf", "-inf", "infinity", "0x1p-1", "0x0", "1.", ".", "-", "+0.5", "1e", "1e+", "1e5.",
	        "0.5f", "0,5", "--1", "1e--1", "0.5e", "true", "1_0", "0.9.9", "0.5=", "=0.5", "-.", "e5", ".e5",
	};
	char text[64];

	for (size_t i = 0; i < COUNT(VALUES); i++) {
		snprintf(text, sizeof(text), "constant:decay=%s", VALUES[i]);
		assert_refused(text, strchr(VALUES[i], ',') ? "has no key '5'" : "is not a decimal number", false);
	}
}
END_TEST

START_TEST(malformed_specifications_are_refused)
{
	char text[SCHEDULE_BYTES_MAX + 2], sentence[64];
	struct schedule schedule;

	assert_refused("yolo:", "has an empty key", false);
	assert_refused("yolo:tau=5,", "has an empty key; write yolo:key=value,key=value, no comma at the end", false);
	assert_refused("yolo:,tau=5", "has an empty key", false);
	assert_refused("yolo:tau=5,,decay=1", "has an empty key", false);
	assert_refused("yolo:=5", "has an empty key", false);
	assert_refused("yolo:tau", "key 'tau' of schedule 'yolo' has no value; write tau=VALUE", true);
	assert_refused("yolo:tau=", "has no value", false);
	assert_refused("yolo:form", "key 'form' of schedule 'yolo' has no value", false);
	assert_refused("yolo:tau=5,tau=5", "key 'tau' of schedule 'yolo' is given twice", true);
	assert_refused("timm:after=5,update_after_step=5", "key 'after' of schedule 'timm' is given twice", true);
	assert_refused("yolo:form=sub,form=sub", "key 'form' of schedule 'yolo' is given twice", true);
	assert_refused("power:std=.1,gamma=5", "schedule 'power' takes either std or gamma, not both", true);
	assert_refused("power:gamma=5,std=.1", "takes either std or gamma, not both", false);
	assert_refused("torchtitan:decay=.5,start=3,fraction=.1", "takes either fraction or decay, not both", false);
	assert_refused("yolo: tau=5", "space, control or non-ASCII character at byte 6", false);
	assert_refused("yolo\n", "at byte 5", false);
	assert_refused("y\xc3\xb6lo", "at byte 2", false);
	assert_refused("yolo:tau:5", "has no key 'tau:5'", false);
	memset(text, '0', sizeof(text) - 1);
	memcpy(text, "constant:decay=0.", 17);
	text[sizeof(text) - 1] = '\0';
	snprintf(sentence, sizeof(sentence), "the schedule has %d bytes; the limit is %d", SCHEDULE_BYTES_MAX + 1,
	         SCHEDULE_BYTES_MAX);
	assert_refused(text, sentence, true);
	text[SCHEDULE_BYTES_MAX] = '\0';
	ck_assert_int_eq(schedule_parse(text, &schedule, NULL), 0);
}
END_TEST

START_TEST(long_names_do_not_push_the_known_ones_out_of_the_sentence)
{
	char text[SCHEDULE_BYTES_MAX + 1];

	memset(text, 'x', SCHEDULE_BYTES_MAX);
	text[SCHEDULE_BYTES_MAX] = '\0';
	assert_refused(text, ", paddle", false);
	memcpy(text, "ema-pytorch:", 12);
	assert_refused(text, "gamma, power, min, form, precision, begin, cadence, snapshot, keep", false);
	text[100] = '=';
	assert_refused(text, "gamma, power, min, form, precision, begin, cadence, snapshot, keep", false);
	memcpy(text, "ema-pytorch:every=", 18);
	assert_refused(text, "write one in [1, 9e+15]", false);
}
END_TEST

static uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 11; /* 53 bits */
}

/* A value of the key's range: a bound, the default, or spread over the range or its magnitudes. */
static double random_value(const struct schedule_key *key, uint64_t *state)
{
	double fraction = (double)random_next(state) / 9007199254740992.0, value = key->fallback;

	switch (random_next(state) % 5) {
	case 0:
		value = key->minimum;
		break;
	case 1:
		value = key->maximum;
		break;
	case 2:
		value = key->minimum + (key->maximum - key->minimum) * fraction;
		break;
	case 3:
		value = key->minimum + pow(key->maximum - key->minimum, fraction) * fraction;
		break;
	}
	if (key->is_integer)
		value = floor(value);
	return value == key->fallback ? value : fmin(fmax(value, key->minimum), key->maximum);
}

static struct schedule random_schedule(uint64_t *state)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);
	struct schedule schedule = {.kind = &kinds[random_next(state) % kind_count], .cadence = 1};

	schedule.form = (enum schedule_form)(random_next(state) % 3);
	/* One of them at a time, so that the text always fits. */
	switch (random_next(state) % 8) {
	case 0:
		schedule.precision = (enum schedule_precision)(random_next(state) % 3);
		break;
	case 1:
		schedule.begin = random_next(state) % UINT64_C(9000000000000001);
		break;
	case 2:
		schedule.cadence = 1 + random_next(state) % UINT64_C(9000000000000000);
		break;
	case 3:
		schedule.snapshot = random_next(state) % 100000;
		break;
	case 4:
		schedule.keep = random_next(state) % 100;
		break;
	}
	for (uint32_t i = 0; i < schedule.kind->key_count; i++) {
		schedule.values[i] = random_value(&schedule.kind->keys[i], state);
		if (schedule.kind->keys[i].is_alternative && schedule.values[i] != schedule.kind->keys[i].fallback)
			schedule.values[0] = schedule.kind->keys[0].fallback;
	}
	return schedule;
}

static void assert_round_trip(const struct schedule *schedule)
{
	char text[SCHEDULE_BYTES_MAX + 1], small[SCHEDULE_BYTES_MAX + 1] = "untouched";
	struct schedule again;

	ck_assert_int_eq(schedule_format(schedule, text, sizeof(text)), 0);
	again = parsed(text);
	ck_assert_ptr_eq(again.kind, schedule->kind);
	ck_assert_int_eq(again.form, schedule->form);
	ck_assert_int_eq(again.precision, schedule->precision);
	ck_assert_uint_eq(again.begin, schedule->begin);
	ck_assert_uint_eq(again.cadence, schedule->cadence);
	ck_assert_uint_eq(again.snapshot, schedule->snapshot);
	ck_assert_uint_eq(again.keep, schedule->keep);
	for (uint32_t i = 0; i < schedule->kind->key_count; i++)
		ck_assert_msg(again.values[i] == schedule->values[i], "%s: %.17g", text, schedule->values[i]);
	ck_assert_int_eq(schedule_format(schedule, small, strlen(text)), STATUS_ELIMIT);
	ck_assert_str_eq(small, "untouched");
	ck_assert_int_eq(schedule_format(schedule, small, strlen(text) + 1), 0);
	ck_assert_str_eq(small, text);
}

START_TEST(any_schedule_survives_its_text)
{
	uint64_t state = 1;

	for (int i = 0; i < 20000; i++) {
		struct schedule schedule = random_schedule(&state);

		assert_round_trip(&schedule);
	}
}
END_TEST

START_TEST(the_longest_text_of_own_keys_fits)
{
	size_t kind_count;
	const struct schedule_kind *kinds = schedule_kinds(&kind_count);

	for (size_t i = 0; i < kind_count; i++) {
		struct schedule schedule = {
		        .kind = &kinds[i],
		        .form = kinds[i].form == FORM_MUL_ADD ? FORM_SUB : FORM_MUL_ADD,
		        .precision = PRECISION_F32,
		        .cadence = 1,
		};

		for (uint32_t j = 0; j < kinds[i].key_count; j++) {
			const struct schedule_key *key = &kinds[i].keys[j];

			if (key->is_integer && key->maximum > 1)
				schedule.values[j] = 8123456789012345.0;
			else if (key->is_integer)
				schedule.values[j] = 1 - key->fallback;
			else
				schedule.values[j] = key->minimum + 1.2345678901234567e-05;
			if (key->is_alternative)
				schedule.values[0] = key->fallback == 0 ? 1 : kinds[i].keys[0].fallback;
		}
		assert_round_trip(&schedule);
	}
}
END_TEST

START_TEST(numbers_do_not_depend_on_the_locale)
{
	static const char *const LOCALES[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8", "pl_PL.UTF-8", "de_DE"};
	uint64_t state = 2;

	for (size_t i = 0; i < COUNT(LOCALES); i++) {
		if (!setlocale(LC_ALL, LOCALES[i]))
			continue; /* not installed here */
		ck_assert_double_eq(parsed("constant:decay=0.75").values[0], 0.75);
		assert_refused("constant:decay=0,75", "has no key '75'", false);
		assert_refused("power:std=.3", "[0.001, 0.28867513459481287]", false);
		assert_formats_as("yolo:decay=.5,tau=1500.5", "yolo:decay=0.5,tau=1500.5");
		for (int j = 0; j < 1000; j++) {
			struct schedule schedule = random_schedule(&state);

			assert_round_trip(&schedule);
		}
	}
	setlocale(LC_ALL, "C");
}
END_TEST

START_TEST(every_call_of_every_schedule_has_a_decay)
{
	static const uint64_t EDGES[] = {0, 1, 2, 3, 10, 101, 2000, UINT64_C(1) << 53, UINT64_MAX - 1, UINT64_MAX};
	uint64_t state = 3;

	for (int i = 0; i < 200000; i++) {
		struct schedule schedule = random_schedule(&state);
		struct schedule_call call = {
		        .n = EDGES[random_next(&state) % (COUNT(EDGES) - 1) + 1],
		        .step = EDGES[random_next(&state) % COUNT(EDGES)],
		        .step_previous = EDGES[random_next(&state) % COUNT(EDGES)],
		};
		struct schedule_result result = schedule_at(&schedule, &call);

		ck_assert(result.decay >= 0 && result.decay <= 1);
		ck_assert_int_eq(result.action == ACTION_COPY, result.decay == 0);
		ck_assert(result.action != ACTION_NOOP || result.decay == 1);
	}
	ck_assert_str_eq(schedule_action_name(ACTION_COPY), "copy");
	ck_assert_str_eq(schedule_action_name(ACTION_LERP), "lerp");
	ck_assert_str_eq(schedule_action_name(ACTION_NOOP), "noop");
	ck_assert_str_eq(schedule_action_name(ACTION_ZERO), "zero");
	ck_assert_str_eq(schedule_form_name(FORM_MUL_ADD), "mul-add");
	ck_assert_str_eq(schedule_entry_name(ENTRY_AVERAGE), "average");
	ck_assert_str_eq(schedule_entry_name(ENTRY_DROP), "drop");
	ck_assert_str_eq(schedule_entry_name(ENTRY_FIRST), "first");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("schedule");
	TCase *tcase = tcase_create("schedule");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, every_row_of_the_table_is_complete);
	tcase_add_test(tcase, keys_aliases_and_the_form_are_accepted);
	tcase_add_test(tcase, the_canonical_text_is_short_and_exact);
	tcase_add_test(tcase, unknown_names_are_answered_with_the_nearest_and_all);
	tcase_add_test(tcase, values_out_of_range_are_answered_with_the_range);
	tcase_add_test(tcase, what_is_no_decimal_number_is_refused);
	tcase_add_test(tcase, malformed_specifications_are_refused);
	tcase_add_test(tcase, long_names_do_not_push_the_known_ones_out_of_the_sentence);
	tcase_add_test(tcase, any_schedule_survives_its_text);
	tcase_add_test(tcase, the_longest_text_of_own_keys_fits);
	tcase_add_test(tcase, the_keys_of_all_schedules_stand_behind_their_own);
	tcase_add_test(tcase, a_schedule_that_could_not_be_written_out_is_refused);
	tcase_add_test(tcase, numbers_do_not_depend_on_the_locale);
	tcase_add_test(tcase, every_call_of_every_schedule_has_a_decay);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
