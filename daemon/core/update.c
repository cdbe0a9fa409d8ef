/*
 * Beginning and ending updates. See update.h.
 */
#include "daemon/core/update.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void settle(struct model *model, uint32_t rank, uint32_t stage, enum outcome outcome, uint64_t version)
{
	intake_settle(&model->records[rank], stage, outcome, version);
	model_stage_mirror(model, rank, stage);
}

static void drop_incomplete(struct model *model, const struct intake_next *next, struct counters *counters)
{
	uint32_t stage = next->stages[next->rank];
	uint64_t step = model->records[next->rank].stages[stage].step;

	reason_set(&model->ranks[next->rank].refusal, STATUS_EREFUSED,
	           "step %" PRIu64 " of rank %" PRIu32 " was dropped: another rank has gone on to step %" PRIu64
	           " without it",
	           step, next->rank, next->step);
	settle(model, next->rank, stage, OUTCOME_INCOMPLETE, 0);
	counters->pushes_incomplete++;
}

/* The next whole step; snapshots that can never be whole are dropped. */
static bool select_step(struct model *model, struct intake_next *next, struct counters *counters)
{
	for (;;) {
		intake_select(model->records, model->world, model->stage_count, next);
		if (next->choice != INTAKE_DROP)
			return next->choice == INTAKE_APPLY;
		drop_incomplete(model, next, counters);
	}
}

static int slot_take(struct model *model, const struct settings *settings, const struct instant *now,
                     struct counters *counters, uint32_t *ret_slot)
{
	int error = versions_begin(&model->versions, settings->lease_min_ms, ret_slot, &model->room_due_ms);

	if (error && model->room_due_ms <= now->monotonic_ms) {
		model->room_due_ms = 0;
		counters->leases_revoked +=
		        versions_reclaim(&model->versions, settings->lease_min_ms, now->monotonic_ms);
		error = versions_begin(&model->versions, settings->lease_min_ms, ret_slot, &model->room_due_ms);
	}
	return error;
}

static void actions_make(struct model *model, const struct slot_header *old, struct slot_header *target, uint64_t step)
{
	for (uint32_t p = 0; p < model->profile_count; p++) {
		struct slot_profile *facts = &target->profiles[p];
		struct schedule_result *action = &model->apply.actions[p];

		*action = (struct schedule_result){ .action = ACTION_COPY, .decay = 0 };
		facts->updates = 0;
		if (old) {
			struct schedule_call call = {
				.n = old->profiles[p].updates + 1,
				.step = step,
				.step_previous = old->step,
			};

			*action = schedule_at(&model->profiles[p].schedule, &call);
			facts->updates = call.n;
		}
		facts->action = action->action;
		facts->decay = action->decay;
	}
}

void update_begin(struct model *model, const struct settings *settings, const struct instant *now,
                  struct counters *counters, bool *ret_begun)
{
	const struct slot_header *old = versions_newest(&model->versions);
	struct intake_next *next = &model->applying_next;
	struct slot_header *target;
	uint32_t slot;

	*ret_begun = false;
	model->room_due_ms = 0;
	if (!model->serving || model->doomed || model->applying || !model->plan)
		return;
	if (!select_step(model, next, counters) || slot_take(model, settings, now, counters, &slot) != 0)
		return;
	target = model->versions.slots[slot];
	target->step = next->step;
	target->updates = old ? old->updates + 1 : 0;
	actions_make(model, old, target, next->step);
	for (uint32_t r = 0; r < model->world; r++) {
		const struct stage_header *header = (void *)model->ranks[r].stage.base;

		/* The stride is worked out again: the trainer can write to its stages' header. */
		uint64_t stride = layout_page_round(model->ranks[r].manifest->stage_bytes);

		model->apply.stages[r] = (const uint8_t *)header + LAYOUT_PAGE_BYTES + next->stages[r] * stride;
		intake_begin(&model->records[r], next->stages[r]);
		model_stage_mirror(model, r, next->stages[r]);
	}
	model->apply.shadow = (const uint8_t *)old;
	model->apply.target = (uint8_t *)target;
	model->applying = true;
	model->applying_since_us = now->wall_us;
	*ret_begun = true;
}

/* The first refused tensor with the number of bad values, and how many more there are. True when there is one. */
static bool nonfinite_find(const struct model *model, struct reason *reason)
{
	const struct tensor_result *first = NULL;
	uint64_t tensors = 0, values = 0;

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct tensor_result *result = &model->results_next[t];

		if (result->nonfinite == 0)
			continue;
		if (!first)
			first = result;
		tensors++;
		values += result->nonfinite;
	}
	if (!first)
		return false;
	reason_set(reason, STATUS_EREFUSED,
	           "step %" PRIu64 " was refused: tensor '%.200s' holds %" PRIu64
	           " NaN or infinite values (in all %" PRIu64 " in %" PRIu64 " tensors); the average is unchanged",
	           model->applying_next.step, model->manifest->tensors[first - model->results_next].name,
	           first->nonfinite, values, tensors);
	return true;
}

/*
 * Finite values can still overflow on the way (x - s). A drift that is not finite is the sign; the shadow itself
 * decides.
 */
static bool overflow_find(const struct model *model, struct reason *reason)
{
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct tensor *tensor = &model->manifest->tensors[t];

		for (uint32_t p = 0; p < model->profile_count; p++) {
			const struct placement *at = &model->plan->placements[(size_t)t * model->profile_count + p];
			uint64_t count;

			if (isfinite(model->results_next[t].drift_squares[p]))
				continue;
			count = kernel_count_nonfinite(at->dtype, model->apply.target + at->offset,
			                               tensor->element_count);
			if (count == 0)
				continue;
			reason_set(reason, STATUS_EREFUSED,
			           "step %" PRIu64 " was refused: in tensor '%.200s' the average of %" PRIu64
			           " values would overflow; the average is unchanged",
			           model->applying_next.step, tensor->name, count);
			return true;
		}
	}
	return false;
}

static void drift_record(const struct model *model, struct slot_header *target)
{
	for (uint32_t p = 0; p < model->profile_count; p++) {
		double drift = 0, values = 0;

		for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
			drift += model->results_next[t].drift_squares[p];
			values += model->results_next[t].value_squares;
		}
		target->profiles[p].drift = sqrt(drift);
		target->profiles[p].value_norm = sqrt(values);
	}
}

/* The image's metadata, strings all, as safetensors wants them. */
static void header_write(const struct model *model, const struct slot_header *target, uint32_t p, uint64_t version)
{
	const struct slot_profile *facts = &target->profiles[p];
	char step[24], updates[24], decay[32], number[24], schedule[SCHEDULE_BYTES_MAX + 1];
	int error = schedule_format(&model->profiles[p].schedule, schedule, sizeof schedule);
	struct image_metadata metadata[] = {
		{ "format", "pt", 2 },
		{ "emad.model", model->name, strlen(model->name) },
		{ "emad.profile", model->profiles[p].name, strlen(model->profiles[p].name) },
		{ "emad.schedule", schedule, strlen(schedule) },
		{ "emad.version", number, (size_t)snprintf(number, sizeof number, "%" PRIu64, version) },
		{ "emad.step", step, (size_t)snprintf(step, sizeof step, "%" PRIu64, target->step) },
		{ "emad.updates", updates, (size_t)snprintf(updates, sizeof updates, "%" PRIu64, facts->updates) },
		{ "emad.decay", decay, (size_t)snprintf(decay, sizeof decay, "%.17g", facts->decay) },
		{ "emad.attributes", model->attributes, strlen(model->attributes) },
	};

	if (!error)
		error = image_header_write(model->images[p], (uint8_t *)(uintptr_t)target + model->region_offsets[p],
		                           metadata, sizeof metadata / sizeof metadata[0], NULL);
	assert(!error); /* model_create reserves room for the largest metadata */
}

static void publish(struct model *model, const struct instant *now, struct counters *counters)
{
	uint32_t slot = (uint32_t)model->versions.writing;
	struct slot_header *target = model->versions.slots[slot];
	uint64_t version = model->version_next++;
	struct tensor_result *results = model->results;

	model->results = model->results_next;
	model->results_next = results;
	target->published_us = now->wall_us;
	versions_publish(&model->versions, version);
	/* Pairs with an acquire load by whoever adopts the head: the slot is whole before it is named. */
	atomic_store_explicit(&model->head->current, version << 8 | slot, memory_order_release);
	counters->versions_published++;
	counters->pushes_applied += model->world;
	counters->apply_bytes += model->payload_bytes;
}

enum outcome update_end(struct model *model, const struct instant *now, struct counters *counters,
                        struct reason *reason)
{
	struct slot_header *target = model->versions.slots[model->versions.writing];
	enum outcome outcome = model->apply.shadow ? OUTCOME_APPLIED : OUTCOME_STARTED;
	uint64_t version = model->version_next;

	/* The wall clock may have been set back meanwhile. */
	if (now->wall_us > model->applying_since_us)
		counters->apply_us += now->wall_us - model->applying_since_us;
	apply_results(&model->apply, model->results_next);
	if (nonfinite_find(model, reason) || overflow_find(model, reason)) {
		outcome = OUTCOME_NONFINITE;
		versions_abandon(&model->versions);
		counters->pushes_nonfinite += model->world;
		version = 0;
	} else {
		for (uint32_t p = 0; p < model->profile_count; p++)
			header_write(model, target, p, version);
		drift_record(model, target);
		publish(model, now, counters);
	}
	for (uint32_t r = 0; r < model->world; r++) {
		if (outcome == OUTCOME_NONFINITE)
			model->ranks[r].refusal = *reason;
		settle(model, r, model->applying_next.stages[r], outcome, version);
	}
	model->applying = false;
	return outcome;
}
