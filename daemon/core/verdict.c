/*
 * Guarding the averages. See verdict.h.
 */
#include "daemon/core/verdict.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bad tensors, and the first of them. */
struct finding {
	uint64_t tensors;
	uint64_t values; /* NaN or infinite ones in the snapshot */
	uint32_t first;
	bool overflows; /* the first is finite in the snapshot, and its average is not */
};

static const struct placement *placements_of(const struct model *model, uint32_t tensor)
{
	return &model->geometry->placements[(size_t)tensor * model->geometry->profile_count];
}

static const struct placement *sources_of(const struct model *model, uint32_t tensor)
{
	return &model->apply.sources[(size_t)tensor * model->geometry->profile_count];
}

/* NaN and infinite values of a tensor in the new slot. */
static uint64_t target_nonfinite(const struct model *model, uint32_t tensor, const struct placement *at)
{
	return kernel_count_nonfinite(at->dtype, model->apply.target + at->offset,
	                              model->manifest->tensors[tensor].element_count);
}

/*
 * Finite values can still overflow on the way (x - s). A drift that is not finite is the sign; the shadow itself
 * decides.
 */
static bool blend_overflows(const struct model *model, uint32_t tensor, uint32_t profile)
{
	return !isfinite(model->results_next[tensor].drift_squares[profile]) &&
	       target_nonfinite(model, tensor, &placements_of(model, tensor)[profile]) > 0;
}

/*
 * Narrowing can overflow too, and leaves no drift where nothing is blended: a double that a float shadow cannot hold,
 * at the start or because the shadow was of doubles before.
 */
static bool narrowing_overflows(const struct model *model, uint32_t tensor, uint32_t profile)
{
	const struct placement *at = &placements_of(model, tensor)[profile];
	const struct placement *from = &sources_of(model, tensor)[profile];
	bool starts = !model->apply.shadow || from->entry == ENTRY_DROP;
	enum dtype dtype = starts ? model->manifest->tensors[tensor].dtype : from->dtype;

	return at->entry == ENTRY_AVERAGE && at->dtype == DTYPE_F32 && dtype == DTYPE_F64 &&
	       target_nonfinite(model, tensor, at) > 0;
}

static bool overflows(const struct model *model, uint32_t tensor)
{
	for (uint32_t p = 0; p < model->geometry->profile_count; p++)
		if (blend_overflows(model, tensor, p) || narrowing_overflows(model, tensor, p))
			return true;
	return false;
}

static struct finding nonfinite_find(const struct model *model, bool *ret_bad)
{
	struct finding finding = { 0 };

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		uint64_t values = model->results_next[t].nonfinite;

		ret_bad[t] = values > 0 || overflows(model, t);
		if (!ret_bad[t])
			continue;
		if (finding.tensors == 0) {
			finding.first = t;
			finding.overflows = values == 0;
		}
		finding.tensors++;
		finding.values += values;
	}
	return finding;
}

/* "tensor 'w' holds 3 NaN or infinite values (in all 5 in 2 tensors)" */
static void finding_format(const struct model *model, const struct finding *finding, char *text, size_t capacity)
{
	const struct tensor_result *first = &model->results_next[finding->first];
	const char *name = model->manifest->tensors[finding->first].name;

	if (finding->overflows)
		snprintf(text, capacity, "the average of tensor '%.150s' would overflow (in all %" PRIu64 " tensors)",
		         name, finding->tensors);
	else
		snprintf(text, capacity,
		         "tensor '%.150s' holds %" PRIu64 " NaN or infinite values (in all %" PRIu64 " in %" PRIu64
		         " tensors), one is %s at element %" PRIu64,
		         name, first->nonfinite, finding->values, finding->tensors,
		         isnan(first->bad_value) ? "NaN" : first->bad_value > 0 ? "infinity" : "-infinity",
		         first->bad_element);
}

/* Whether every bad tensor has an old average in every profile that holds it. */
static bool all_continue(const struct model *model, const bool *bad)
{
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct placement *at = placements_of(model, t), *from = sources_of(model, t);

		for (uint32_t p = 0; bad[t] && p < model->geometry->profile_count; p++)
			if (at[p].entry != ENTRY_DROP && (!model->apply.shadow || from[p].entry == ENTRY_DROP))
				return false;
	}
	return true;
}

static enum verdict nonfinite_judge(struct model *model, struct reason *reason)
{
	uint64_t step = model->applying_next.step;
	struct finding finding = nonfinite_find(model, model->kept);
	char text[300];

	if (finding.tensors == 0)
		return VERDICT_PASS;
	finding_format(model, &finding, text, sizeof text);
	switch (model->guards.nonfinite) {
	case NONFINITE_APPLY:
		reason_set(reason, STATUS_EREFUSED, "step %" PRIu64 " was applied although %s: nonfinite=apply", step,
		           text);
		return VERDICT_PASS;
	case NONFINITE_SKIP_TENSOR:
		if (!all_continue(model, model->kept))
			break;
		reason_set(reason, STATUS_EREFUSED, "step %" PRIu64 ": %s: %" PRIu64 " tensor%s kept the old average",
		           step, text, finding.tensors, finding.tensors == 1 ? "" : "s");
		return VERDICT_KEEP;
	case NONFINITE_REFUSE:
		break;
	}
	reason_set(reason, STATUS_EREFUSED, "step %" PRIu64 " was refused: %s; the average is unchanged", step, text);
	return VERDICT_REFUSE;
}

/* The first tensor whose norm has jumped. kept: tensors that do not count; NULL: all do. */
static bool jump_find(const struct model *model, const bool *kept, struct reason *reason)
{
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		double before = sqrt(model->results[t].value_squares), now = sqrt(model->results_next[t].value_squares);

		/* 0: not measured, because no profile has averaged it. Not finite: another guard's to judge. */
		if (before == 0 || now == 0 || (kept && kept[t]) || !isfinite(before) ||
		    model->results_next[t].nonfinite > 0 || fabs(now - before) <= model->guards.norm_jump * before)
			continue;
		reason_set(reason, STATUS_EREFUSED,
		           "step %" PRIu64
		           " was refused: the norm of tensor '%.150s' went from %.6g to %.6g, a change of %.4g "
		           "times what it was, above norm_jump %.6g; the average is unchanged",
		           model->applying_next.step, model->manifest->tensors[t].name, before, now,
		           fabs(now - before) / before, model->guards.norm_jump);
		return true;
	}
	return false;
}

enum verdict verdict_reach(struct model *model, enum outcome *ret_outcome, struct reason *reason)
{
	enum verdict verdict = nonfinite_judge(model, reason);

	if (verdict == VERDICT_REFUSE) {
		*ret_outcome = OUTCOME_NONFINITE;
		return verdict;
	}
	if (isfinite(model->guards.norm_jump) && !model->applying_enclosure.seeds &&
	    jump_find(model, verdict == VERDICT_KEEP ? model->kept : NULL, reason)) {
		*ret_outcome = OUTCOME_JUMP;
		return VERDICT_REFUSE;
	}
	return verdict;
}

enum verdict verdict_confirm(const struct model *model, enum outcome *ret_outcome, struct reason *reason)
{
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		for (uint32_t p = 0; model->kept[t] && p < model->geometry->profile_count; p++) {
			if (!narrowing_overflows(model, t, p))
				continue;
			reason_set(reason, STATUS_EREFUSED,
			           "step %" PRIu64
			           " was refused: the average of tensor '%.150s', which it should keep, does not "
			           "fit float32 any more; the average is unchanged",
			           model->applying_next.step, model->manifest->tensors[t].name);
			*ret_outcome = OUTCOME_NONFINITE;
			return VERDICT_REFUSE;
		}
	}
	return VERDICT_PASS;
}

/* Whether a profile's shadow of the tensor was blended: that leaves the sign of what it has met. */
static bool is_blended(const struct model *model, uint32_t tensor, uint32_t profile)
{
	const struct placement *at = &placements_of(model, tensor)[profile];
	const struct apply_profile *apply = &model->apply.profiles[profile];

	return at->entry == ENTRY_AVERAGE && apply->mode == APPLY_UPDATE &&
	       apply->actions[at->group].action != ACTION_NOOP && !(model->apply.kept && model->kept[tensor]);
}

uint64_t verdict_nonfinite(const struct model *model, uint32_t p, uint64_t before)
{
	uint64_t count = 0;

	if (before == 0 && model->guards.nonfinite != NONFINITE_APPLY)
		return 0;
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct placement *at = &placements_of(model, t)[p];
		const struct tensor_result *result = &model->results_next[t];
		bool may_hold = result->nonfinite > 0 || !isfinite(result->drift_squares[p]) ||
		                (before > 0 && !is_blended(model, t, p));

		if (at->entry != ENTRY_DROP && dtype_is_float(at->dtype))
			count += (may_hold && target_nonfinite(model, t, at) > 0) || narrowing_overflows(model, t, p);
	}
	return count;
}
