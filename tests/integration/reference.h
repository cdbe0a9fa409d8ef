/*
 * The reference: what an average must be, computed beside the daemon from the steps that are in it.
 *
 * In two ways. The one performs the operations of the schedules in the arithmetic of the tensor, one after the other,
 * so that the result is the daemon's to the last bit; the decays are those of proto/schedule, which has tests of its
 * own. The other, for a mean and for a constant decay, uses neither: exact integers or long doubles, and a bound for
 * the roundings of the daemon that is carried along: each update rounds four times, at magnitudes of at most twice the
 * largest value, and what was wrong before is multiplied by the decay.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/profile.h"
#include "tests/integration/sample.h"

struct reference {
	const struct sample_kind *kind;
	struct profile profile;
	bool started;
	uint64_t step; /* of the latest snapshot */
	struct schedule_state state;
	double f64[SAMPLE_CLASS_COUNT];
	float f32[SAMPLE_CLASS_COUNT];
	__int128 sum;         /* of the wide class, over all calls */
	long double constant; /* of the wide class, by a constant decay */
	long double bound;    /* how far the daemon may be from those, in F64 */
};

/* Ends the process where the profile is not valid. */
void reference_init(struct reference *reference, const struct sample_kind *kind, uint32_t profile);

/* The snapshot of that step, which is later than any before, is averaged. */
void reference_apply(struct reference *reference, uint64_t step);

/* The latest snapshot is averaged once more, which no daemon may do. */
void reference_repeat(struct reference *reference);

/* NULL, or what differs. */
const char *reference_differs(const struct reference *reference, const struct sample_values *values,
                              const struct emad_view_info *info);

/* A bit for each tensor whose values are those of the reference. */
unsigned reference_tensors(const struct reference *reference, const struct sample_values *values);
