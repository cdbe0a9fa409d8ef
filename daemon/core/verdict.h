/*
 * The verdict on an update: what the pass found in the snapshot, measured by the model's guards.
 *
 * Loop thread only; reads the results and the slot that the workers filled.
 */
#pragma once

#include "daemon/core/model.h"
#include "proto/message.h"
#include "proto/status.h"

enum verdict {
	VERDICT_PASS, /* with a sentence where something was let pass that the guards could have refused */
	VERDICT_KEEP, /* the tensors marked in model->kept must get their old average back, for the reason given */
	VERDICT_REFUSE, /* *ret_outcome says which guard, with a sentence */
};

/* model->results_next holds the sums of the pass. */
enum verdict verdict_reach(struct model *model, enum outcome *ret_outcome, struct reason *reason);

/*
 * The same after the second pass, in which tensors got their old average back: REFUSE where one of them does not fit
 * the type that it has now.
 */
enum verdict verdict_confirm(const struct model *model, enum outcome *ret_outcome, struct reason *reason);

/* Tensors whose average in a profile holds NaN or infinity, after a pass whose values were let in. */
uint64_t verdict_nonfinite(const struct model *model, uint32_t profile, uint64_t before);
