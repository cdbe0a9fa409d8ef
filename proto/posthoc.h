/*
 * Post-hoc averages: which weighted sum of stored power-function averages is the average that is wanted.
 *
 * A power-function average of exponent g at step t weighs the weights of step s by (g+1) s^g / t^(g+1), s <= t. The
 * weighted sum of such profiles that comes nearest (in the mean square) to the profile of another exponent tells how
 * to add up the stored weights.
 *
 * source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3, appendix C
 */
#pragma once

#include <stdint.h>

#include "proto/status.h"

enum {
	POSTHOC_COUNT_MAX = 4096,      /* snapshots of one synthesis */
	POSTHOC_EXPONENT_MAX = 1000000, /* as the schedule's key gamma */
};

/* A power-function average: its exponent in [0, POSTHOC_EXPONENT_MAX], and the step up to which it has averaged. */
struct posthoc_point {
	double exponent;
	uint64_t step;
};

/*
 * The weights of count snapshots (in any order), in the order of the snapshots, that add up to 1. Snapshots of a step
 * behind the target's are left out: their weight is 0. A target that is one of the snapshots is that snapshot alone.
 * STATUS_EARGUMENT with a sentence: no snapshot, an exponent out of range, a step of 0, a snapshot given twice, nothing
 * left at the target's step; STATUS_ELIMIT beyond POSTHOC_COUNT_MAX; -ENOMEM.
 * Takes milliseconds for thousands of snapshots, as long as their exponents are few.
 */
int posthoc_solve(const struct posthoc_point *snapshots, uint32_t count, const struct posthoc_point *target,
                  double *ret_coefficients, struct reason *reason);

/*
 * How far the weighted sum of the snapshots' profiles is from the target's: the L2 norm of the difference as a part of
 * the norm of the target's. 0 is perfect; what is below 1e-8 is rounding. The points must be valid.
 * Takes time by the square of the number of weights that are not 0: half a second for POSTHOC_COUNT_MAX.
 */
double posthoc_error(const struct posthoc_point *snapshots, uint32_t count, const struct posthoc_point *target,
                     const double *coefficients);

/* The range of the relative width, as the schedule's key std; the largest is that of the plain mean, exponent 0. */
#define POSTHOC_STD_MIN 1e-3
#define POSTHOC_STD_MAX 0.28867513459481287 /* 12^-1/2 */

/* The relative width of an exponent's average; the inverse of schedule_power_exponent. */
double posthoc_std(double exponent);

/*
 * The exponent of a written schedule, "power" with std= or gamma= or neither; keys that do not change the average (when
 * snapshots are kept, say) are passed over. STATUS_ESCHEDULE for anything else.
 */
int posthoc_exponent(const char *schedule, double *ret_exponent, struct reason *reason);

/* Writes the canonical schedule of a width in the range above into SCHEDULE_BYTES_MAX + 1 bytes: "power:std=0.15". */
void posthoc_schedule(double std, char *ret_text);
