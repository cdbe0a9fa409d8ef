/*
 * Multiples of a distance. See cadence.h.
 */
#include "client/emactl/cadence.h"

/* The first multiple behind a step; the last number when there is none. */
static uint64_t multiple_behind(const struct cadence *cadence, uint64_t step)
{
	const uint64_t count = step / cadence->every + 1;
	uint64_t multiple;

	return __builtin_mul_overflow(count, cadence->every, &multiple) ? UINT64_MAX : multiple;
}

/* The end is due too, whether it is a multiple or not. */
static void due_set(struct cadence *cadence, uint64_t due)
{
	cadence->due = due < cadence->until ? due : cadence->until;
}

void cadence_begin(struct cadence *cadence, uint64_t every, uint64_t until, uint64_t newest)
{
	*cadence = (struct cadence){.every = every, .until = until, .seen = newest};
	due_set(cadence, newest % every == 0 ? newest : multiple_behind(cadence, newest));
}

bool cadence_take(struct cadence *cadence, uint64_t step)
{
	cadence->seen = step;
	due_set(cadence, multiple_behind(cadence, step));
	return step < cadence->until;
}

bool cadence_see(struct cadence *cadence, uint64_t step)
{
	const bool went_back = step < cadence->seen;

	if (went_back)
		cadence_begin(cadence, cadence->every, cadence->until, step);
	cadence->seen = step;
	return went_back;
}
