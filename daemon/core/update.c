/*
 * Beginning and ending updates. See update.h.
 */
#include "daemon/core/update.h"

#include "daemon/core/failpoint.h"
#include "daemon/core/history.h"
#include "daemon/core/notes.h"
#include "daemon/core/relay.h"
#include "daemon/core/verdict.h"
#include "daemon/core/version_metadata.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void settle(struct model *model, uint32_t rank, uint32_t stage, enum outcome outcome, uint64_t version,
                   uint64_t calls)
{
	enclosure_clear(&model->ranks[rank].enclosures[stage]);
	intake_settle(&model->records[rank], stage, outcome, version, calls);
	model_stage_mirror(model, rank, stage);
}

/* The rank's refusal says why. */
static void drop(struct model *model, uint32_t rank, uint32_t stage, struct counters *counters)
{
	model->drop_count++;
	model->drop_rank = rank;
	model->drop_step = model->records[rank].stages[stage].step;
	settle(model, rank, stage, OUTCOME_INCOMPLETE, 0, 0);
	counters->pushes_incomplete++;
}

static void drop_incomplete(struct model *model, const struct intake_next *next, struct counters *counters)
{
	uint32_t stage = next->stages[next->rank];
	uint64_t step = model->records[next->rank].stages[stage].step;

	reason_set(&model->ranks[next->rank].refusal, STATUS_EREFUSED,
	           "step %" PRIu64 " of rank %" PRIu32 " was dropped: another rank has gone on to step %" PRIu64
	           " without it",
	           step, next->rank, next->step);
	drop(model, next->rank, stage, counters);
}

static void coalesce(struct model *model, uint32_t rank, uint32_t stage, struct counters *counters)
{
	settle(model, rank, stage, OUTCOME_COALESCED, 0, 0);
	counters->pushes_coalesced++;
	model->coalesced_count += rank == 0;
}

int32_t update_make_room(struct model *model, uint32_t rank, struct counters *counters)
{
	const struct rank_record *record = &model->records[rank];
	int32_t oldest = -1;

	for (uint32_t i = 0; i < model->stage_count; i++)
		if (stage_state(&record->stages[i]) == STAGE_READY && !model->ranks[rank].enclosures[i].seeds &&
		    (oldest < 0 || record->stages[i].step < record->stages[oldest].step))
			oldest = (int32_t)i;
	if (oldest >= 0)
		coalesce(model, rank, (uint32_t)oldest, counters);
	return oldest;
}

/* Whether a snapshot waits that is an average itself: no other can stand for it, nor it for another. */
static bool seed_waits(const struct model *model)
{
	for (uint32_t r = 0; r < model->world; r++)
		for (uint32_t i = 0; i < model->stage_count; i++)
			if (model->ranks[r].enclosures[i].seeds && stage_state(&model->records[r].stages[i]) == STAGE_READY)
				return true;
	return false;
}

/* Why the ranks' snapshots of a step make no average, or NULL. */
static const char *contradiction_find(const struct model *model, const struct intake_next *next)
{
	const struct enclosure *first = &model->ranks[0].enclosures[next->stages[0]];

	for (uint32_t r = 1; r < model->world; r++) {
		const struct enclosure *other = &model->ranks[r].enclosures[next->stages[r]];

		if (first->seeds != other->seeds || strcmp(first->profile, other->profile) != 0)
			return "the ranks pushed averages of different profiles, or some of them ordinary snapshots";
	}
	if (first->seeds && geometry_profile(model->geometry, first->profile) < 0)
		return "it is the average of a profile that was removed meanwhile";
	return NULL;
}

static bool drop_contradiction(struct model *model, const struct intake_next *next, struct counters *counters)
{
	const char *why = contradiction_find(model, next);

	for (uint32_t r = 0; why && r < model->world; r++) {
		reason_set(&model->ranks[r].refusal, STATUS_EREFUSED, "step %" PRIu64 " was dropped: %s", next->step,
		           why);
		drop(model, r, next->stages[r], counters);
	}
	return why != NULL;
}

/* The next whole step; snapshots that can never be whole are dropped. */
static bool select_step(struct model *model, struct intake_next *next, struct counters *counters)
{
	for (;;) {
		intake_select(model->records, model->world, model->stage_count, model->coalesces, next);
		if (next->choice == INTAKE_COALESCE && seed_waits(model))
			next->choice = INTAKE_APPLY;
		switch (next->choice) {
		case INTAKE_NOTHING:
			return false;
		case INTAKE_APPLY:
			if (drop_contradiction(model, next, counters))
				break;
			return true;
		case INTAKE_DROP:
			/* Another rank has let go of the step for a newer one, or will be taken to have done so. */
			if (model->coalesces && !model->ranks[next->rank].enclosures[next->stages[next->rank]].seeds)
				coalesce(model, next->rank, next->stages[next->rank], counters);
			else
				drop_incomplete(model, next, counters);
			break;
		case INTAKE_COALESCE:
			for (uint32_t r = 0; r < model->world; r++)
				coalesce(model, r, next->stages[r], counters);
			break;
		}
	}
}

int update_slot_take(struct model *model, const struct settings *settings, const struct instant *now,
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

/* From the latest averaged step to this one. Without an earlier step it is one call, a stride behind another. */
static struct schedule_gap gap_of(const struct model *model, uint64_t step)
{
	struct schedule_gap gap = { .call_count = 1, .step = step };
	uint64_t distance;

	if (!model->has_step || step <= model->step) {
		gap.step_previous = step > model->stride ? step - model->stride : 0;
		return gap;
	}
	gap.step_previous = model->step;
	distance = (step - model->step) / model->stride;
	if (distance > 1)
		gap.call_count = distance < GAP_CALL_COUNT_MAX ? distance : GAP_CALL_COUNT_MAX;
	return gap;
}

/* How one profile goes on from the facts of the version before; NULL: it starts. */
static void profile_advance(const struct profile *profile, const struct slot_profile *old,
                            const struct schedule_gap *gap, struct apply_profile *apply, struct slot_profile *facts)
{
	struct schedule_state before = { 0 }, after;
	struct schedule_result result = apply->start;

	apply->mode = APPLY_UPDATE;
	apply->is_first = false;
	if (old) {
		before = (struct schedule_state){
			.calls = old->calls,
			.updates = old->updates,
			.decay_rest = old->decay_rest,
		};
		after = before;
		result = schedule_advance(&profile->schedule, &after, gap);
		apply->is_first = before.calls == 0 && after.calls > 0;
		for (uint32_t i = 0; i < profile->rule_count; i++) {
			struct schedule schedule = profile_schedule(profile, (int32_t)i);
			struct schedule_state state = before;

			apply->actions[i + 1] =
			        profile->rules[i].has_decay ? schedule_advance(&schedule, &state, gap) : result;
		}
		before = after;
	}
	apply->actions[0] = result;
	facts->calls = before.calls;
	facts->updates = before.updates;
	facts->decay_rest = before.decay_rest;
	facts->action = result.action;
	facts->decay = result.decay;
}

/* The snapshot is the average of one profile; the others stay. */
static void profile_seed(const struct model *model, const struct profile *profile, const struct slot_profile *old,
                         uint64_t step, struct apply_profile *apply, struct slot_profile *facts)
{
	const struct enclosure *seed = &model->applying_enclosure;
	struct schedule_state state;

	if (strcmp(profile->name, seed->profile) == 0) {
		state = schedule_resumed(&profile->schedule, seed->updates, step);
		apply->mode = APPLY_SEED;
		apply->start = (struct schedule_result){ ACTION_COPY, 0 };
		*facts = (struct slot_profile){
			.region_offset = facts->region_offset,
			.region_bytes = facts->region_bytes,
			.calls = state.calls,
			.updates = state.updates,
			.decay_rest = state.decay_rest,
			.action = ACTION_COPY,
		};
	} else if (old) {
		apply->mode = APPLY_HOLD;
		facts->calls = old->calls;
		facts->updates = old->updates;
		facts->decay_rest = old->decay_rest;
		facts->action = ACTION_NOOP;
		facts->decay = 1;
	}
}

static void profiles_begin(struct model *model, struct slot_header *target, const struct schedule_gap *gap)
{
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct profile *profile = &model->geometry->profiles[p];
		const struct slot_profile *old = model_newest_facts(model, p);
		struct apply_profile *apply = &model->apply.profiles[p];
		struct slot_profile *facts = &target->profiles[p];

		apply->form = profile->schedule.form;
		apply->start = schedule_start(&profile->schedule);
		facts->nonfinite = 0;
		profile_advance(profile, old, gap, apply, facts);
		if (model->applying_enclosure.seeds)
			profile_seed(model, profile, old, gap->step, apply, facts);
	}
	target->step = gap->step;
	target->updates = target->profiles[0].updates;
	target->calls = gap->call_count;
}

/* The ranks' snapshots, and where the old shadows are. */
static void apply_begin(struct model *model, const struct slot_header *old, struct slot_header *target)
{
	for (uint32_t r = 0; r < model->world; r++) {
		const struct stage_header *header = (void *)model->ranks[r].stage.base;
		uint32_t stage = model->applying_next.stages[r];

		/* The stride is worked out again: the trainer can write to its stages' header. */
		uint64_t stride = layout_page_round(model->ranks[r].manifest->stage_bytes);

		model->apply.stages[r] = (const uint8_t *)header + LAYOUT_PAGE_BYTES + stage * stride;
		intake_begin(&model->records[r], stage, model->version_next);
		model_stage_mirror(model, r, stage);
	}
	model->apply.shadow = (const uint8_t *)old;
	model->apply.sources = model->heirloom.sources ? model->heirloom.sources : model->geometry->placements;
	model->apply.target = (uint8_t *)target;
	model->apply.kept = NULL;
}

void update_begin(struct model *model, const struct settings *settings, const struct instant *now,
                  struct counters *counters, bool *ret_begun)
{
	const struct slot_header *old = versions_newest(&model->versions);
	struct intake_next *next = &model->applying_next;
	struct enclosure *enclosure;
	struct schedule_gap gap;
	uint32_t slot;

	*ret_begun = false;
	model->room_due_ms = 0;
	if (!model->serving || model->doomed || model->ancestor || model->applying || model->restore.holds ||
	    !model->plan)
		return;
	if (!select_step(model, next, counters) || update_slot_take(model, settings, now, counters, &slot) != 0)
		return;
	enclosure = &model->ranks[0].enclosures[next->stages[0]];
	enclosure_clear(&model->applying_enclosure);
	model->applying_enclosure = *enclosure;
	*enclosure = (struct enclosure){ 0 };
	gap = gap_of(model, next->step);
	/* An average that comes from elsewhere may be of any step; that of the others does not move. */
	if (model->applying_enclosure.seeds) {
		gap.call_count = 1;
		if (model->has_step && gap.step < model->step)
			gap.step = model->step;
	}
	model->applying_after = model->has_step && gap.step == model->step ? model->step : gap.step_previous;
	profiles_begin(model, model->versions.slots[slot], &gap);
	apply_begin(model, old, model->versions.slots[slot]);
	model->applying_coalesced_count = model->coalesced_count;
	model->coalesced_count = 0;
	model->applying = true;
	model->applying_since_us = now->monotonic_us;
	*ret_begun = true;
}

static void results_record(const struct model *model, struct slot_header *target)
{
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct slot_profile *old = model_newest_facts(model, p);
		double drift = 0, values = 0;

		for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
			drift += model->results_next[t].drift_squares[p];
			values += model->results_next[t].value_squares;
		}
		target->profiles[p].drift = sqrt(drift);
		target->profiles[p].value_norm = sqrt(values);
		target->profiles[p].nonfinite = verdict_nonfinite(model, p, old ? old->nonfinite : 0);
	}
	/* What no profile averaged this time keeps its norm, for the next comparison. */
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		if (model->results_next[t].value_squares == 0)
			model->results_next[t].value_squares = model->results[t].value_squares;
}

static void publish(struct model *model, const struct instant *now, struct counters *counters)
{
	struct slot_header *target = model->versions.slots[model->versions.writing];
	uint64_t version = model->version_next++;

	target->published_us = now->wall_us;
	versions_publish(&model->versions, version);
	layout_barrier();
	model->head->version = version;
	counters->versions_published++;
	model->has_step = true;
	model->step = target->step;
}

static void accept(struct model *model, const struct host *host, const struct instant *now, struct counters *counters)
{
	struct slot_header *target = model->versions.slots[model->versions.writing];
	struct tensor_result *results = model->results;
	uint64_t skipped = target->calls - 1;

	results_record(model, target);
	version_metadata_write(model, target, model->applying_enclosure.metadata);
	notes_write(model, target, model->applying_enclosure.metadata, model->results_next);
	model->results = model->results_next;
	model->results_next = results;
	FAILPOINT("version-unpublished");
	publish(model, now, counters);
	FAILPOINT("version-published");
	free(model->metadata);
	model->metadata = model->applying_enclosure.metadata;
	model->applying_enclosure.metadata = NULL;
	if (model->heirloom.geometry) {
		versions_disinherit(&model->versions);
		heirloom_drop(model, host);
	}
	counters->pushes_applied += model->world;
	counters->apply_bytes += model->payload_bytes;
	if (skipped > model->applying_coalesced_count)
		counters->calls_skipped += skipped - model->applying_coalesced_count;
}

static void seed_record(struct model *model, const struct slot_header *target)
{
	int32_t p = geometry_profile(model->geometry, model->applying_enclosure.profile);
	struct history_entry entry = {
		.step = target->step,
		.updates = model->applying_enclosure.updates,
		.change = "seeded",
	};

	/* Without memory the average is right and its history lacks a line. */
	if (p >= 0)
		(void)history_append(&model->histories[p], &entry);
}

static void decide(struct model *model, enum outcome outcome, uint64_t version, uint64_t calls,
                   const struct reason *reason)
{
	for (uint32_t r = 0; r < model->world; r++) {
		if (reason->text[0])
			model->ranks[r].refusal = *reason;
		settle(model, r, model->applying_next.stages[r], outcome, version, calls);
	}
	enclosure_clear(&model->applying_enclosure);
	model->apply.kept = NULL;
	model->applying = false;
}

static void refuse(struct model *model, enum outcome outcome, struct counters *counters, const struct reason *reason)
{
	versions_abandon(&model->versions);
	model->coalesced_count += model->applying_coalesced_count;
	if (outcome == OUTCOME_JUMP)
		counters->pushes_jump += model->world;
	else
		counters->pushes_nonfinite += model->world;
	decide(model, outcome, 0, 0, reason);
}

/* Some tensors get their old average back. */
static void keep_begin(struct model *model, struct counters *counters, const struct reason *reason)
{
	model->keeping = *reason;
	model->apply.kept = model->kept;
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		counters->tensors_skipped += model->kept[t];
}

enum update_result update_end(struct model *model, const struct host *host, const struct instant *now,
                              struct counters *counters, struct reason *reason)
{
	struct slot_header *target = model->versions.slots[model->versions.writing];
	enum outcome outcome = model->apply.shadow ? OUTCOME_APPLIED : OUTCOME_STARTED;
	uint64_t version = model->version_next, calls = target->calls;
	enum verdict verdict;

	reason->text[0] = '\0';
	counters->apply_us += now->monotonic_us - model->applying_since_us;
	model->applying_since_us = now->monotonic_us;
	apply_results(&model->apply, model->results_next);
	if (model->apply.kept)
		*reason = model->keeping;
	verdict = model->apply.kept ? verdict_confirm(model, &outcome, reason) : verdict_reach(model, &outcome, reason);
	switch (verdict) {
	case VERDICT_PASS:
		break;
	case VERDICT_KEEP:
		keep_begin(model, counters, reason);
		return UPDATE_AGAIN;
	case VERDICT_REFUSE:
		refuse(model, outcome, counters, reason);
		return UPDATE_REFUSED;
	}
	if (model->applying_enclosure.seeds)
		seed_record(model, target);
	accept(model, host, now, counters);
	decide(model, outcome, version, calls, reason);
	return UPDATE_PUBLISHED;
}

void update_drop_ready(struct model *model, uint32_t rank, const char *why, struct counters *counters)
{
	for (uint32_t i = 0; i < model->stage_count; i++) {
		const struct stage_record *stage = &model->records[rank].stages[i];

		if (stage_state(stage) != STAGE_READY)
			continue;
		reason_set(&model->ranks[rank].refusal, STATUS_EREFUSED, "step %" PRIu64 " was dropped: %s", stage->step,
		           why);
		drop(model, rank, i, counters);
	}
}

static void back_record(struct model *model, const struct slot_header *target, const char *change, uint64_t step)
{
	char from[64], to[64];

	snprintf(from, sizeof from, "step %" PRIu64, step);
	snprintf(to, sizeof to, "step %" PRIu64, target->step);
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		struct history_entry entry = {
			.step = target->step,
			.updates = target->profiles[p].updates,
			.change = change,
			.from = from,
			.to = strcmp(change, "rewound") == 0 ? NULL : to,
		};

		/* Without memory the average is right and its history lacks a line. */
		(void)history_append(&model->histories[p], &entry);
	}
}

void update_rewind(struct model *model, const struct host *host, const struct instant *now,
                   const struct update_back *back, struct counters *counters)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	struct slot_header *target = model->versions.slots[back->slot];
	uint64_t step = newest ? newest->step : model->step;
	char *metadata = NULL;

	if (back->generation) {
		generation_slot_write(back->generation, target);
		metadata = back->generation->metadata;
		back->generation->metadata = NULL;
	} else {
		counters->leases_revoked += versions_reopen(&model->versions, back->slot);
	}
	back_record(model, target, back->change, step);
	version_metadata_write(model, target, metadata);
	notes_write(model, target, metadata, NULL);
	publish(model, now, counters);
	if (model->heirloom.geometry) {
		versions_disinherit(&model->versions);
		heirloom_drop(model, host);
	}
	free(model->metadata);
	model->metadata = metadata;
	model->coalesced_count = 0;
	memset(model->results, 0, model->manifest->tensor_count * sizeof *model->results);
}
