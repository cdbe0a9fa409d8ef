/*
 * Schedules: how much of the old shadow survives an update.
 *
 * A schedule is a pure function from (call number, trainer's step) to one action. It is written `name` or
 * `name:key=value,key=value`, for example `yolo:decay=0.9999,tau=2000`. One table (schedule_table.c) holds every
 * schedule with its keys, aliases, defaults, ranges, formula and source; daemon, library and `emactl explain` share it.
 *
 * Beside its own keys every schedule takes
 *
 *     form=lerp|mul-add|sub   the order of the floating-point operations
 *     precision=f32|f64       of the shadow; unless given, f64 for float64 tensors and f32 for all others
 *     begin=STEP              the shadow follows the weights up to this step; the first call behind it is number 1
 *     cadence=CALLS           each CALLS-th call alone counts; the calls between leave the average as it is
 *     snapshot=STEPS          keep the average on disk whenever its step passes a multiple of STEPS; 0: never
 *     keep=COUNT              at most that many of them, thinned evenly; 0: all
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

enum schedule_action {
	ACTION_COPY, /* the shadow becomes the pushed value; decay 0 */
	ACTION_LERP, /* shadow = decay * shadow + (1 - decay) * value, in the schedule's form */
	ACTION_NOOP, /* the shadow stays; decay 1 */
	ACTION_ZERO, /* the shadow becomes zero: the start of an average that is not debiased */
};

/* The order of the floating-point operations of a LERP; s the shadow, x the pushed value, d the decay. */
enum schedule_form {
	FORM_LERP,    /* s + (1-d)*(x-s) */
	FORM_MUL_ADD, /* s*d, rounded, then + (1-d)*x */
	FORM_SUB,     /* s - (1-d)*(s-x) */
};

/* What becomes of an entry of the state. */
enum schedule_entry {
	ENTRY_AVERAGE,
	ENTRY_COPY,   /* the latest value */
	ENTRY_FREEZE, /* the value at the start */
	ENTRY_DROP,   /* not held at all */
	ENTRY_FIRST,  /* the value of the first call, then kept */
};

/* The type in which averaged entries are kept. */
enum schedule_precision {
	PRECISION_AUTO, /* f64 for float64 tensors, f32 for all other floats */
	PRECISION_F32,
	PRECISION_F64,
};

enum { SCHEDULE_KEY_COUNT_MAX = 8 };

/* What becomes of a key's value when the batch grows K-fold and the average's horizon in samples is to stay. */
enum schedule_scale {
	SCALE_NONE,   /* nothing: a ratio, a power, a flag */
	SCALE_DECAY,  /* value^K: the weight of the old shadow */
	SCALE_WEIGHT, /* 1-(1-value)^K: the weight of the new value */
	SCALE_LENGTH, /* value/K: a number of calls */
	SCALE_RAMP,   /* value*K^(1/power-1): the length of a warm-up 1-(1+s/value)^-power */
};

/* One key of a schedule's table row. */
struct schedule_key {
	const char *name;
	const char *aliases; /* the libraries' own parameter names, space-separated; may be NULL */
	double fallback;     /* the default; outside the range it stands for "not given" (infinity, or -1) */
	double minimum, maximum;
	bool is_integer;
	bool is_alternative; /* instead of the row's first key: naming both is an error */
	const char *text; /* what it means, a phrase */
	enum schedule_scale scale;
	const char *words; /* the values' names, space-separated, the first for 0; NULL: the value is a number */
};

struct schedule_call;
struct schedule_result;

/* One row of the table. */
struct schedule_kind {
	const char *name;
	const char *source;  /* the reference implementation */
	const char *text;    /* what it is, a sentence or two */
	const char *formula; /* the action at call n, in words and symbols */
	enum schedule_form form;
	enum schedule_entry float_buffer; /* default policy for floating-point buffers */
	enum schedule_entry integer;      /* default policy for integer and bool entries */
	bool uses_step;       /* depends on the trainer's step, not on the call number alone */
	bool spans_steps;     /* its formula covers any distance between two steps: a gap is one call, not many */
	bool is_scalable;     /* its horizon can be kept by scaling its keys (schedule_scale_batch) */
	const char *unscaled; /* why not, or with which flag it can; NULL: always */
	int8_t scale_key;     /* index of the flag that decides whether it can; -1: none */
	double scale_value;   /* what that flag must be */
	bool starts_at_zero;
	int8_t debias_key;  /* index of the key that says whether a zero start is divided out; -1: none */
	int8_t buffers_key; /* index of the flag that averages floating-point buffers; -1: none */
	enum schedule_entry integer_with_buffers; /* policy for integers when that flag is set */
	struct schedule_result (*at)(const double *values, const struct schedule_call *call);
	uint32_t key_count;
	struct schedule_key keys[SCHEDULE_KEY_COUNT_MAX];
};

/* A parsed schedule. Plain value: copy it freely. */
struct schedule {
	const struct schedule_kind *kind; /* static storage */
	enum schedule_form form;          /* the kind's, unless `form=` forced one */
	enum schedule_precision precision;
	uint64_t begin;
	uint64_t cadence;  /* at least 1 */
	uint64_t snapshot; /* 0: none are kept on disk */
	uint64_t keep;     /* 0: all */
	double values[SCHEDULE_KEY_COUNT_MAX]; /* by the index of kind->keys */
};

/* When an update happens. */
struct schedule_call {
	uint64_t n;             /* 1-based call number since the shadow's start */
	uint64_t step;          /* the trainer's step of this call */
	uint64_t step_previous; /* the trainer's step of the call before (the start's at n = 1) */
};

/* What to do at a call. decay is the weight of the OLD shadow: 0 for COPY, 1 for NOOP. */
struct schedule_result {
	enum schedule_action action;
	double decay;
};

/* The table's rows, for listings and documentation. *ret_count receives their number. */
const struct schedule_kind *schedule_kinds(size_t *ret_count);

/*
 * Parses a specification. STATUS_ESCHEDULE with a sentence otherwise: an unknown name or key names the nearest known
 * one and lists all; a value out of range names the range; one that would be longer than SCHEDULE_BYTES_MAX in its
 * canonical form is refused; *ret_schedule untouched.
 */
int schedule_parse(const char *specification, struct schedule *ret_schedule, struct reason *reason);

/*
 * Writes the canonical specification: the name, then every key whose value is not the default, in table order, with
 * the fewest digits that parse back to the same double (whole numbers in full), then in the same way the keys that all
 * schedules take. STATUS_ELIMIT when it does not fit; SCHEDULE_BYTES_MAX + 1 bytes always do.
 */
int schedule_format(const struct schedule *schedule, char *text, size_t text_capacity);

/*
 * The action at a call. Total: any parsed schedule, any n >= 1, any steps; decay is always in [0, 1].
 * A LERP whose decay comes out as exactly 0 is answered as COPY: the same value without the rounding of the form.
 */
struct schedule_result schedule_at(const struct schedule *schedule, const struct schedule_call *call);

/* Where an average stands. All zero at its start. */
struct schedule_state {
	uint64_t calls;     /* since the start, also those that did not count */
	uint64_t updates;   /* the calls that counted: n of the latest */
	double decay_rest;  /* 1 - the product of all decays so far */
};

/* From one applied snapshot to the next. */
struct schedule_gap {
	uint64_t call_count;    /* calls that the snapshot stands for: 1, or more when some were skipped; 1..GAP_CALL_COUNT_MAX */
	uint64_t step;          /* the trainer's step of the snapshot */
	uint64_t step_previous; /* of the one applied before it */
};

enum { GAP_CALL_COUNT_MAX = 1 << 20 };

/* What happens at the start, to which no call belongs: COPY, or ZERO. */
struct schedule_result schedule_start(const struct schedule *schedule);

/*
 * Advances the state by the calls of a gap and answers their common effect on a shadow whose snapshot held the same
 * values all along: NOOP when no call did anything, COPY when one copied and none after it left something of the old
 * shadow, else a LERP by the exact product of the decays. Call i of k is at step step_previous + (step - step_previous)
 * * i / k; a schedule that spans steps makes one call of the gap. Where a zero start is divided out the answer is the
 * decay of the divided average: D * r / r', D the product of the gap, r and r' the decay_rest before and after.
 *
 * Calls at steps up to `begin` copy and move neither calls nor updates. With a cadence a call that counts sees the step
 * of the counting call before it as step_previous, calls before the gap being as dense as those in it.
 */
struct schedule_result schedule_advance(const struct schedule *schedule, struct schedule_state *state,
                                        const struct schedule_gap *gap);

/* The state of an average that was made elsewhere by that many updates. */
struct schedule_state schedule_resumed(const struct schedule *schedule, uint64_t updates, uint64_t step);

/*
 * The same schedule for a batch that is factor times as large, so that the average reaches as far back in samples as
 * before. STATUS_ESCHEDULE with a sentence where no setting of the keys does that (the decay is a function of the call
 * number that has no length among its keys) or a value would leave its range.
 */
int schedule_scale_batch(const struct schedule *schedule, double factor, struct schedule *ret_scaled,
                         struct reason *reason);

/* The policies of entries that no rule names. Buffers and integers as the schedule's library treats them. */
enum schedule_entry schedule_entry_default(const struct schedule *schedule, bool is_float, bool is_buffer);

/*
 * The same schedule with another value for its key `decay` (or the key that has this alias). STATUS_ESCHEDULE with a
 * sentence where it has none, where its start is divided out, or where the value is out of range.
 */
int schedule_with_decay(const struct schedule *schedule, double decay, struct schedule *ret_schedule,
                        struct reason *reason);

/* "copy", "lerp", "noop", "zero". */
const char *schedule_action_name(enum schedule_action action);

/* "lerp", "mul-add", "sub". */
const char *schedule_form_name(enum schedule_form form);

/* "average", "copy", "freeze", "drop", "first". */
const char *schedule_entry_name(enum schedule_entry entry);

/*
 * The exponent of the power-function average whose relative width is std, in (0, 12^-1/2]: the largest real root g of
 * g^3 + 7g^2 + (16 - t)g + (12 - t), t = std^-2.
 * source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", appendix C
 */
double schedule_power_exponent(double std);
