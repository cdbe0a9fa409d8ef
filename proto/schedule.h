/*
 * Schedules: how much of the old shadow survives an update.
 *
 * A schedule is a pure function from (call number, trainer's step) to one action. It is written `name` or
 * `name:key=value,key=value`, for example `yolo:decay=0.9999,tau=2000`. One table (schedule_table.c) holds every
 * schedule with its keys, aliases, defaults, ranges, formula and source; daemon, library and `emactl explain` share it.
 * Beside its own keys every schedule takes `form=lerp|mul-add|sub`.
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
};

/* The order of the floating-point operations of a LERP; s the shadow, x the pushed value, d the decay. */
enum schedule_form {
	FORM_LERP,    /* s + (1-d)*(x-s) */
	FORM_MUL_ADD, /* s*d, rounded, then + (1-d)*x */
	FORM_SUB,     /* s - (1-d)*(s-x) */
};

/* What becomes of an entry that the schedule's library does not average (SCHEDULES: see policy.h). */
enum schedule_entry {
	ENTRY_AVERAGE,
	ENTRY_COPY,   /* the latest value */
	ENTRY_FREEZE, /* the value at the start */
	ENTRY_DROP,   /* not held at all */
};

enum { SCHEDULE_KEY_COUNT_MAX = 8 };

/* One key of a schedule's table row. */
struct schedule_key {
	const char *name;
	const char *aliases; /* the libraries' own parameter names, space-separated; may be NULL */
	double fallback;     /* the default; outside the range it stands for "not given" (infinity, or -1) */
	double minimum, maximum;
	bool is_integer;
	bool is_alternative; /* instead of the row's first key: naming both is an error */
	const char *text; /* what it means, a phrase */
};

struct schedule_call;
struct schedule_result;

/* One row of the table. */
struct schedule_kind {
	const char *name;
	const char *source;  /* the reference implementation */
	const char *formula; /* the action at call n, in words and symbols */
	enum schedule_form form;
	enum schedule_entry float_buffer; /* default policy for floating-point buffers */
	enum schedule_entry integer;      /* default policy for integer and bool entries */
	bool uses_step;                   /* depends on the trainer's step, not on the call number alone */
	struct schedule_result (*at)(const double *values, const struct schedule_call *call);
	uint32_t key_count;
	struct schedule_key keys[SCHEDULE_KEY_COUNT_MAX];
};

/* A parsed schedule. Plain value: copy it freely. */
struct schedule {
	const struct schedule_kind *kind; /* static storage */
	enum schedule_form form;          /* the kind's, unless `form=` forced one */
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
 * one and lists all; a value out of range names the range; *ret_schedule untouched.
 */
int schedule_parse(const char *specification, struct schedule *ret_schedule, struct reason *reason);

/*
 * Writes the canonical specification: the name, then every key whose value is not the default, in table order, with
 * the fewest digits that parse back to the same double (whole numbers in full), then the form where it was forced to
 * another one. STATUS_ELIMIT when it does not fit; SCHEDULE_BYTES_MAX + 1 bytes always do.
 */
int schedule_format(const struct schedule *schedule, char *text, size_t text_capacity);

/*
 * The action at a call. Total: any parsed schedule, any n >= 1, any steps; decay is always in [0, 1].
 * A LERP whose decay comes out as exactly 0 is answered as COPY: the same value without the rounding of the form.
 */
struct schedule_result schedule_at(const struct schedule *schedule, const struct schedule_call *call);

/* "copy", "lerp", "noop". */
const char *schedule_action_name(enum schedule_action action);

/* "lerp", "mul-add", "sub". */
const char *schedule_form_name(enum schedule_form form);

/*
 * The exponent of the power-function average whose relative width is std, in (0, 12^-1/2]: the largest real root g of
 * g^3 + 7g^2 + (16 - t)g + (12 - t), t = std^-2.
 * source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", appendix C
 */
double schedule_power_exponent(double std);
