/*
 * What an average must be. See reference.h.
 */
#include "tests/integration/reference.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Both differences, the product and the sum are rounded, each by at most half a unit of twice the largest value; so is
 * the decay.
 */
static const long double ROUNDING_MAX = 4 * 0x1p-53L * 2 * 0x1p23L;

void reference_init(struct reference *reference, const struct sample_kind *kind, uint32_t profile)
{
	const char *text = kind->profiles[profile];
	struct reason reason = {.text = ""};

	*reference = (struct reference){.kind = kind};
	if (profile_parse(text, strlen(text), &reference->profile, &reason) != 0) {
		fprintf(stderr, "%s: %s\n", text, reason.text);
		exit(EXIT_FAILURE);
	}
}

static double f64_blend(enum schedule_form form, double shadow, double value, double decay)
{
	double take = 1.0 - decay;

	switch (form) {
	case FORM_LERP:
		return shadow + take * (value - shadow);
	case FORM_MUL_ADD:
		return shadow * decay + take * value;
	case FORM_SUB:
		return shadow - take * (shadow - value);
	}
	abort();
}

static float f32_blend(enum schedule_form form, float shadow, float value, double decay)
{
	float keep = (float)decay, take = (float)(1.0 - decay);

	switch (form) {
	case FORM_LERP:
		return shadow + take * (value - shadow);
	case FORM_MUL_ADD:
		return shadow * keep + take * value;
	case FORM_SUB:
		return shadow - take * (shadow - value);
	}
	abort();
}

static bool is_kind(const struct reference *reference, const char *name)
{
	return strcmp(reference->profile.schedule.kind->name, name) == 0;
}

/* The other way, by the formulas themselves. The first call of a mean replaces the start. */
static void independent_apply(struct reference *reference, uint64_t call_count, bool starts)
{
	long double base = (long double)sample_base(reference->kind, SAMPLE_WIDE, reference->step);
	uint64_t calls = reference->state.calls;

	if (is_kind(reference, "swa")) {
		reference->sum += (__int128)base * (__int128)call_count;
		if (starts)
			reference->sum = 0;
		if (calls > 0)
			reference->bound *= (long double)(calls - call_count) / (long double)calls;
	} else if (is_kind(reference, "constant")) {
		long double decay = powl((long double)reference->profile.schedule.values[0], (long double)call_count);

		reference->constant = starts ? base : decay * reference->constant + (1 - decay) * base;
		reference->bound *= decay;
	}
	/* A decay of a gap is a product, rounded once for each call. */
	if (!starts)
		reference->bound += ROUNDING_MAX * (long double)(call_count + 1);
}

static void advance(struct reference *reference, uint64_t step, uint64_t call_count)
{
	struct schedule_gap gap = {.call_count = call_count, .step = step, .step_previous = reference->step};
	struct schedule_result result = {.action = ACTION_COPY};
	enum schedule_form form = reference->profile.schedule.form;
	bool starts = !reference->started;

	if (!starts)
		result = schedule_advance(&reference->profile.schedule, &reference->state, &gap);
	reference->started = true;
	reference->step = step;
	for (int class = 0; class < SAMPLE_CLASS_COUNT; class++) {
		double base = sample_base(reference->kind, (enum sample_class)class, step);

		if (class == SAMPLE_STEP || result.action == ACTION_COPY) {
			reference->f64[class] = base;
			reference->f32[class] = (float)base;
		} else if (result.action == ACTION_LERP) {
			reference->f64[class] = f64_blend(form, reference->f64[class], base, result.decay);
			reference->f32[class] = f32_blend(form, reference->f32[class], (float)base, result.decay);
		}
	}
	independent_apply(reference, call_count, starts);
}

void reference_apply(struct reference *reference, uint64_t step)
{
	advance(reference, step, step - reference->step);
}

void reference_repeat(struct reference *reference)
{
	advance(reference, reference->step, 1);
}

unsigned reference_tensors(const struct reference *reference, const struct sample_values *values)
{
	unsigned equal = 0;

	for (uint64_t i = 0; i < values->tensor_count; i++) {
		enum sample_class class = sample_class_of(i);
		double wanted = values->dtypes[i] == EMAD_F32 ? (double)reference->f32[class] : reference->f64[class];

		if (values->bases[i] == wanted)
			equal |= 1u << i;
	}
	return equal;
}

/* What the wide class is in F64 by the other way; false where there is none. */
static bool independent_value(const struct reference *reference, long double *ret_value)
{
	uint64_t calls = reference->state.calls;

	if (is_kind(reference, "constant"))
		*ret_value = reference->constant;
	else if (is_kind(reference, "swa") && calls > 0)
		*ret_value = (long double)reference->sum / (long double)calls;
	else
		return false;
	return true;
}

const char *reference_differs(const struct reference *reference, const struct sample_values *values,
                              const struct emad_view_info *info)
{
	enum schedule_precision precision = reference->profile.schedule.precision;
	long double independent;

	if (!reference->started || reference->step != info->step)
		return "the step";
	if (reference->state.updates != info->updates)
		return "the number of updates";
	if (reference_tensors(reference, values) != (1u << values->tensor_count) - 1)
		return "the values";
	for (uint64_t i = 0; i < values->tensor_count; i++)
		if (precision == PRECISION_F64 && values->dtypes[i] == EMAD_F32)
			return "the dtype";
	if (independent_value(reference, &independent) &&
	    fabsl((long double)reference->f64[SAMPLE_WIDE] - independent) > reference->bound)
		return "the values of the other reference";
	return NULL;
}
