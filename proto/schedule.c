/*
 * What schedules do, call by call and gap by gap.
 *
 * Everything here is driven by the rows of schedule_table.c; no schedule is named in this file. An average moves in two
 * layers: which calls count at all (begin, cadence), and what the schedule's formula makes of the n-th that counts. A
 * gap is the product of its calls' decays, because with a snapshot that stays the same each call leaves the shadow at
 * that many parts of what it was.
 */
#include "proto/schedule.h"

#include "proto/schedule_formula.h"

#include <assert.h>
#include <math.h>

/* A shadow of which less is left than this has nothing left of it: that share of a double is lost in any sum. */
#define PRODUCT_MIN 1e-300

/* 1 - a product whose logarithm is below this is 1. */
#define LOGARITHM_NEGLIGIBLE (-40.0)

static const char *const ACTION_NAMES[] = {
	[ACTION_COPY] = "copy",
	[ACTION_LERP] = "lerp",
	[ACTION_NOOP] = "noop",
	[ACTION_ZERO] = "zero",
};

static const char *const FORM_NAMES[] = {
	[FORM_LERP] = "lerp",
	[FORM_MUL_ADD] = "mul-add",
	[FORM_SUB] = "sub",
};

static const char *const ENTRY_NAMES[] = {
	[ENTRY_AVERAGE] = "average", [ENTRY_COPY] = "copy",   [ENTRY_FREEZE] = "freeze",
	[ENTRY_DROP] = "drop",       [ENTRY_FIRST] = "first",
};

const char *schedule_action_name(enum schedule_action action)
{
	return ACTION_NAMES[action];
}

const char *schedule_form_name(enum schedule_form form)
{
	return FORM_NAMES[form];
}

const char *schedule_entry_name(enum schedule_entry entry)
{
	return ENTRY_NAMES[entry];
}

enum schedule_entry schedule_entry_default(const struct schedule *schedule, bool is_float, bool is_buffer)
{
	const struct schedule_kind *kind = schedule->kind;
	bool averages_buffers = kind->buffers_key >= 0 && schedule->values[kind->buffers_key] != 0;

	/* Libraries that hold parameters only hold no integer buffers either. */
	if (is_buffer && kind->float_buffer == ENTRY_DROP)
		return ENTRY_DROP;
	if (!is_float)
		return averages_buffers ? kind->integer_with_buffers : kind->integer;
	return is_buffer && !averages_buffers ? kind->float_buffer : ENTRY_AVERAGE;
}

struct schedule_result schedule_at(const struct schedule *schedule, const struct schedule_call *call)
{
	struct schedule_result result = schedule->kind->at(schedule->values, call);

	if (result.action == ACTION_LERP && result.decay == 0)
		result.action = ACTION_COPY;
	return result;
}

/* Whether the average is kept divided by the weight that a start at zero lacks. */
static bool is_debiased(const struct schedule *schedule)
{
	return schedule->kind->starts_at_zero && schedule->kind->debias_key >= 0 &&
	       schedule->values[schedule->kind->debias_key] != 0;
}

struct schedule_result schedule_start(const struct schedule *schedule)
{
	/* Divided out, a start at zero is a first call that copies; with begin there are copies before it anyway. */
	bool is_zero = schedule->kind->starts_at_zero && !is_debiased(schedule) && schedule->begin == 0;

	return (struct schedule_result){.action = is_zero ? ACTION_ZERO : ACTION_COPY, .decay = 0};
}

/* The calls of a gap, evenly spread between its steps. */
struct spread {
	uint64_t count;
	uint64_t step_previous;
	uint64_t quotient, remainder; /* of the steps divided by count */
};

static struct spread spread_of(const struct schedule *schedule, const struct schedule_gap *gap)
{
	uint64_t delta = gap->step > gap->step_previous ? gap->step - gap->step_previous : 0;
	uint64_t count = schedule->kind->spans_steps ? 1 : gap->call_count;

	return (struct spread){
		.count = count,
		.step_previous = gap->step - delta,
		.quotient = delta / count,
		.remainder = delta % count,
	};
}

/* Of call 1..count; 0 is the snapshot before. Both products are below 2^64, unlike delta * index. */
static uint64_t spread_step(const struct spread *spread, uint64_t index)
{
	return spread->step_previous + spread->quotient * index + spread->remainder * index / spread->count;
}

/* The step of the call that many calls before one of the gap, also from before the gap, where calls were as dense. */
static uint64_t spread_step_before(const struct spread *spread, uint64_t index, uint64_t distance)
{
	uint64_t back;

	if (distance <= index)
		return spread_step(spread, index - distance);
	if (__builtin_mul_overflow(distance - index, spread->quotient, &back) || back > spread->step_previous)
		return 0;
	return spread->step_previous - back;
}

/* How many calls of the gap are at steps up to `begin`. */
static uint64_t spread_count_until(const struct spread *spread, uint64_t begin)
{
	uint64_t low = 0, high = spread->count;

	if (begin == 0)
		return 0;
	while (low < high) {
		uint64_t middle = (low + high + 1) / 2;

		if (spread_step(spread, middle) <= begin)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

/* What the calls of a gap come to. */
struct effect {
	double product; /* of their decays */
	double rest;    /* decay_rest behind them */
	bool acts;      /* some call does something */
};

/* Makes the calls that count behind the first `skipped` ones, before which the state stands. */
static void calls_make(const struct schedule *schedule, const struct schedule_state *state, const struct spread *spread,
                       uint64_t skipped, struct effect *effect)
{
	const uint64_t cadence = schedule->cadence, first = skipped + cadence - state->calls % cadence;
	struct schedule prepared = *schedule;
	struct schedule_call call = {.n = state->updates};

	schedule_values_prepare(schedule->kind, prepared.values);
	for (uint64_t i = first; i <= spread->count && effect->product >= PRODUCT_MIN; i += cadence) {
		struct schedule_result result;

		call.n++;
		if (schedule->kind->uses_step) {
			call.step = spread_step(spread, i);
			call.step_previous = spread_step_before(spread, i, cadence);
		}
		result = schedule_at(&prepared, &call);
		if (result.action == ACTION_NOOP)
			continue;
		effect->acts = true;
		effect->product *= result.decay;
		/* Not 1 - product at the end: that would lose the digits of a small rest. */
		effect->rest = effect->rest * result.decay + (1 - result.decay);
	}
	if (effect->product < PRODUCT_MIN) {
		effect->product = 0;
		effect->rest = 1;
	}
}

struct schedule_result schedule_advance(const struct schedule *schedule, struct schedule_state *state,
                                        const struct schedule_gap *gap)
{
	struct spread spread = spread_of(schedule, gap);
	uint64_t copy_count = spread_count_until(&spread, schedule->begin);
	double rest = copy_count > 0 && !schedule->kind->starts_at_zero ? 1 : state->decay_rest;
	struct effect effect = {.product = 1, .rest = rest, .acts = copy_count > 0};
	double decay;

	assert(gap->call_count >= 1 && gap->call_count <= GAP_CALL_COUNT_MAX);
	calls_make(schedule, state, &spread, copy_count, &effect);
	state->calls += spread.count - copy_count;
	state->updates = state->calls / schedule->cadence;
	state->decay_rest = fmin(effect.rest, 1);
	if (!effect.acts)
		return (struct schedule_result){.action = ACTION_NOOP, .decay = 1};
	decay = copy_count > 0 ? 0 : effect.product;
	if (is_debiased(schedule) && decay > 0)
		decay = rest > 0 ? fmin(decay * rest / state->decay_rest, 1) : 0;
	return (struct schedule_result){.action = decay > 0 ? ACTION_LERP : ACTION_COPY, .decay = decay};
}

/* 1 - the product of the first decays of a schedule whose decay, once it stops changing, changes no more. */
static double rest_after(const struct schedule *schedule, uint64_t updates, uint64_t step)
{
	const struct schedule_call last = {.n = updates, .step = step, .step_previous = step};
	const double last_decay = schedule_at(schedule, &last).decay;
	double logarithm = 0;

	for (uint64_t n = 1; n <= updates && logarithm >= LOGARITHM_NEGLIGIBLE; n++) {
		struct schedule_call call = {.n = n, .step = step, .step_previous = step};
		double decay = schedule_at(schedule, &call).decay;

		if (decay == last_decay)
			return -expm1(logarithm + log(decay) * (double)(updates - n + 1));
		logarithm += log(decay);
	}
	return -expm1(logarithm);
}

struct schedule_state schedule_resumed(const struct schedule *schedule, uint64_t updates, uint64_t step)
{
	struct schedule_state state = {.updates = updates};

	if (__builtin_mul_overflow(updates, schedule->cadence, &state.calls))
		state.calls = UINT64_MAX / schedule->cadence * schedule->cadence;
	/* The start of an average that starts as a copy is not known to be without weight, but nothing depends on it.
	 */
	if (updates > 0)
		state.decay_rest = schedule->kind->starts_at_zero ? rest_after(schedule, updates, step) : 1;
	return state;
}
