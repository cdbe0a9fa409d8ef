/*
 * The reference, the readers, the trainers, and the steps. See service_walk.h.
 */
#include "tests/unit/service_walk.h"

#include "daemon/core/call.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[WALK_MODELS] = { "one", "pair" };

static uint32_t world_of(uint32_t model)
{
	return model + 1;
}

bool walk_chance(struct walk *walk, uint64_t one_in)
{
	return random_below(&walk->state, one_in) == 0;
}

static struct model *model_now(struct walk *walk, uint32_t index)
{
	return service_find(walk->host.service, names[index], strlen(names[index]));
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static void reference_follow(struct walk *walk, uint32_t index)
{
	struct reference *reference = &walk->references[index];
	const struct model *model = model_now(walk, index);
	uint64_t id = model ? model->id : 0;

	if (id == reference->id)
		return;
	/* An heir goes on from the newest version of its ancestor, which is newer than the reference perhaps. */
	if (model && model->serving && reference->id != 0 && versions_newest(&model->versions)) {
		reference->id = id;
		walk->heir_count++;
	} else {
		*reference = (struct reference){ .id = id };
	}
}

static struct entry *entry_find(struct reference *reference, uint32_t rank, uint64_t step)
{
	for (uint32_t i = 0; i < reference->counts[rank]; i++)
		if (reference->entries[rank][i].step == step)
			return &reference->entries[rank][i];
	return NULL;
}

/* Whether every rank has the step with good values: then it must be averaged and may not be passed over. */
static bool is_whole(struct reference *reference, uint32_t world, uint64_t step)
{
	for (uint32_t r = 0; r < world; r++) {
		const struct entry *entry = entry_find(reference, r, step);

		if (!entry || entry->is_bad)
			return false;
	}
	return true;
}

static void entries_forget(struct reference *reference, uint32_t rank, uint64_t step_max)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < reference->counts[rank]; i++)
		if (reference->entries[rank][i].step > step_max)
			reference->entries[rank][kept++] = reference->entries[rank][i];
	reference->counts[rank] = kept;
}

/* Whether some rank's part of the step is bad: then it may be refused. */
static bool is_spoilt(struct reference *reference, uint32_t world, uint64_t step)
{
	for (uint32_t r = 0; r < world; r++) {
		const struct entry *entry = entry_find(reference, r, step);

		if (entry && entry->is_bad)
			return true;
	}
	return false;
}

/* What the service says it has refused or dropped must have been bad, or not whole. */
static bool is_refused(struct reference *reference, const struct model *model, uint32_t rank, const struct entry *entry)
{
	const struct rank_record *record = &model->records[rank];
	struct answer answer;

	if (record->epoch != entry->epoch || !intake_answer(record, entry->sequence, &answer) ||
	    !outcome_refuses(answer.outcome))
		return false;
	if (answer.outcome == OUTCOME_NONFINITE)
		ck_assert(is_spoilt(reference, model->world, entry->step));
	else if (intake_is_held(record))
		ck_assert(!is_whole(reference, model->world, entry->step));
	return true;
}

/* Forgets what was refused, or (all) what an earlier registration had pushed. */
static void entries_clean(struct reference *reference, const struct model *model, bool all)
{
	bool gone[WALK_WORLD_MOST][WALK_ENTRIES];

	for (uint32_t r = 0; r < model->world; r++)
		for (uint32_t i = 0; i < reference->counts[r]; i++)
			gone[r][i] = is_refused(reference, model, r, &reference->entries[r][i]) ||
			             (all && model->records[r].epoch != reference->entries[r][i].epoch);
	for (uint32_t r = 0; r < model->world; r++) {
		uint32_t kept = 0;

		for (uint32_t i = 0; i < reference->counts[r]; i++)
			if (!gone[r][i])
				reference->entries[r][kept++] = reference->entries[r][i];
		reference->counts[r] = kept;
	}
}

/* A version of this step was published: the reference takes the step too. */
static void reference_advance(struct walk *walk, uint32_t index, uint64_t step)
{
	struct reference *reference = &walk->references[index];
	uint32_t world = world_of(index);
	/* Also those of steps that nobody pushed whole. */
	uint64_t calls = reference->started ? step - reference->step : 0;
	double decay = 1;

	ck_assert(!reference->started || step > reference->step);
	ck_assert_msg(is_whole(reference, world, step), "%s: step %lu was published and not pushed whole", names[index],
	              (unsigned long)step);
	for (uint32_t i = 0; i < reference->counts[0]; i++)
		if (reference->entries[0][i].step < step && is_whole(reference, world, reference->entries[0][i].step))
			ck_abort_msg("%s: step %lu was passed over", names[index],
			             (unsigned long)reference->entries[0][i].step);
	for (uint64_t i = 1; i <= calls; i++)
		decay *= 0.9999 * (1.0 - exp(-(double)(reference->updates + i) / 2000.0));
	/* Less of the old average than can be seen is nothing of it. */
	if (decay < 1e-300)
		decay = 0;
	for (uint32_t r = 0; r < world; r++) {
		const struct entry *entry = entry_find(reference, r, step);

		for (uint32_t e = 0; e < WALK_ROWS; e++) {
			double *average = &reference->average[r * WALK_ROWS + e], kept = *average * decay;

			*average = reference->started ? kept + (1.0 - decay) * entry->values[e] : entry->values[e];
		}
		entries_forget(reference, r, step);
	}
	reference->updates += calls;
	reference->started = true;
	reference->step = step;
	walk->published_count++;
}

static void reference_check(struct walk *walk, uint32_t index)
{
	struct reference *reference = &walk->references[index];
	const struct model *model = model_now(walk, index);
	const struct slot_header *newest;
	const struct geometry *geometry;
	const double *average;
	size_t tensor;

	reference_follow(walk, index);
	newest = model ? versions_newest(&model->versions) : NULL;
	if (model && model->serving)
		entries_clean(reference, model, false);
	if (newest && (!reference->started || newest->step != reference->step))
		reference_advance(walk, index, newest->step);
	if (model && model->serving)
		entries_clean(reference, model, true);
	ck_assert_int_eq(newest != NULL, reference->started);
	if (!newest)
		return;
	ck_assert_uint_ge(newest->version, reference->version);
	reference->version = newest->version;
	/* Of an earlier geometry, until the first version of the new one. "ema" is always its first profile. */
	geometry = model_newest_geometry(model);
	ck_assert_str_eq(geometry->profiles[0].name, "ema");
	tensor = (size_t)manifest_find(geometry->manifest, "w");
	walk->inherited_count += model->heirloom.geometry != NULL;
	ck_assert_uint_eq(newest->updates, reference->updates);
	ck_assert_uint_eq(newest->checksum, slot_header_checksum(newest));
	average = (const void *)((const uint8_t *)newest + geometry->placements[tensor * geometry->profile_count].offset);
	if (memcmp(average, reference->average, world_of(index) * WALK_ROWS * sizeof *average) != 0)
		ck_abort_msg("%s: the average of step %lu differs from the reference", names[index],
		             (unsigned long)newest->step);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static void reader_let_go(struct reader *reader)
{
	free(reader->copy);
	*reader = (struct reader){ 0 };
}

static void reader_close(struct walk *walk, struct reader *reader)
{
	uint64_t peer = reader->peer;

	reader_let_go(reader);
	fake_host_gone(&walk->host, peer);
}

static void reader_open(struct walk *walk, struct reader *reader, uint32_t index, uint64_t peer)
{
	const struct model *model = model_now(walk, index);
	const struct fake_reply *view;

	if (!model || !model->serving || !versions_newest(&model->versions))
		return;
	view = fake_host_expect(&walk->host, fake_view(&walk->host, peer, names[index], NULL, 0, 0), 0);
	*reader = (struct reader){
		.peer = peer,
		.since_ms = walk->host.now.monotonic_ms,
		.fence = view->reply.fence,
		.segment = view->reply.segment,
		.at = &walk->host.segments[view->fd / 2],
		.slot = (const void *)fake_host_map(&walk->host, view->fd),
		.bytes = view->reply.segment_bytes - LAYOUT_PAGE_BYTES,
	};
	reader->copy = malloc(reader->bytes);
	memcpy(reader->copy, (const uint8_t *)reader->slot + LAYOUT_PAGE_BYTES, reader->bytes);
}

/* What the fence vouches for has not changed; and it vouches for as long as was promised. */
static void reader_check(struct walk *walk, struct reader *reader)
{
	if (!reader->peer)
		return;
	/* In the arena another segment has its place. A real reader would still have its own mapping. */
	if (walk->host.arena && (!reader->at->base || reader->at->segment != reader->segment)) {
		reader_let_go(reader);
		return;
	}
	if (reader->slot->fence != reader->fence) {
		ck_assert_uint_ge(walk->host.now.monotonic_ms - reader->since_ms, walk->host.settings.lease_min_ms);
		walk->revoked_count++;
		reader_let_go(reader);
		return;
	}
	if (memcmp(reader->copy, (const uint8_t *)reader->slot + LAYOUT_PAGE_BYTES, reader->bytes) != 0)
		ck_abort_msg("a view has changed under its reader");
}

/* ---- trainers ---------------------------------------------------------------------------------------------------- */

/* Takes the answer to a registration, when it has come. */
static void actor_registered(struct walk *walk, struct actor *actor)
{
	const struct fake_reply *answer = actor->registering ? fake_host_answer(&walk->host, actor->registering) : NULL;

	if (!answer)
		return;
	actor->registering = 0;
	if (answer->reply.status == STATUS_ENOMODEL && strcmp(actor->trainer.resume, "must") == 0)
		return;
	/* Another trainer has other tensors. */
	if (answer->reply.status == STATUS_EMANIFEST && strcmp(actor->trainer.resume, "adapt") != 0)
		return;
	ck_assert_msg(answer->reply.status == 0, "%s", answer->error);
	ck_assert(answer->reply.epoch > actor->trainer.epoch || actor->daemon < walk->crash_count);
	actor->daemon = walk->crash_count;
	actor->trainer.epoch = answer->reply.epoch;
	actor->attaching = fake_trainer_attach(&actor->trainer);
}

static void actor_attached(struct walk *walk, struct actor *actor)
{
	const struct fake_reply *answer = actor->attaching ? fake_host_answer(&walk->host, actor->attaching) : NULL;

	if (!answer)
		return;
	/* Somebody else may have taken the rank since, and the segment of the answer is given back. */
	if (answer->reply.status == 0 && walk->host.segments[answer->fd / 2].base) {
		fake_trainer_attached(&actor->trainer, actor->attaching);
		actor->attached = true;
	} else if (answer->reply.status != 0) {
		ck_assert_msg(answer->reply.status == STATUS_EFENCED || answer->reply.status == STATUS_ENOMODEL, "%s",
		              answer->error);
	}
	actor->attaching = 0;
}

/* Whether the stages that the trainer maps are still the service's; in truth its mapping would outlive that. */
static bool is_mapped(struct walk *walk, const struct actor *actor)
{
	const struct model *model = model_now(walk, actor->model);

	return actor->attached && model && model->serving && actor->trainer.rank < model->world &&
	       model->ranks[actor->trainer.rank].stage.base == actor->trainer.stages &&
	       model->records[actor->trainer.rank].epoch == actor->trainer.epoch;
}

static void entry_make(struct walk *walk, const struct actor *actor, uint32_t stage, uint64_t step,
                       struct entry *entry)
{
	*entry = (struct entry){ .step = step, .is_bad = walk_chance(walk, 15) };
	for (int e = 0; e < WALK_ROWS; e++)
		entry->values[e] = random_value(&walk->state);
	if (entry->is_bad)
		entry->values[random_below(&walk->state, WALK_ROWS)] = walk_chance(walk, 2) ? NAN : -INFINITY;
	memcpy(fake_trainer_stage(&actor->trainer, stage), entry->values, sizeof entry->values);
}

static void entry_accepted(struct walk *walk, const struct actor *actor, const struct entry *entry)
{
	struct reference *reference = &walk->references[actor->model];
	uint32_t rank = actor->trainer.rank;
	struct entry *before = entry_find(reference, rank, entry->step);

	ck_assert(!reference->started || entry->step > reference->step);
	ck_assert_ptr_null(before);
	ck_assert_uint_lt(reference->counts[rank], WALK_ENTRIES);
	reference->entries[rank][reference->counts[rank]++] = *entry;
}

/* Whether somebody else's registration waits, which may take the rank or the whole model over. */
static bool is_contested(const struct walk *walk, const struct actor *actor)
{
	for (int i = 0; i < WALK_ACTORS; i++)
		if (&walk->actors[i] != actor && walk->actors[i].model == actor->model && walk->actors[i].registering)
			return true;
	return false;
}

static void push_choose(struct walk *walk, struct step *step)
{
	struct actor *actor = step->actor;
	uint64_t number = walk->step_next + random_below(&walk->state, 3);
	const struct stage_header *header = (const void *)actor->trainer.stages;

	step->mapped = is_mapped(walk, actor);
	step->is_contested = is_contested(walk, actor);
	step->repeats = walk_chance(walk, 4);
	/* A trainer that waits to be registered anew, and has lost its connection meanwhile, pushes nothing. */
	if (!step->mapped && actor->registering)
		return;
	step->entry.step = number;
	if (step->mapped) {
		while (step->stage < header->stage_count && header->state[step->stage] != STAGE_FREE)
			step->stage++;
		if (step->stage == header->stage_count)
			return;
		entry_make(walk, actor, step->stage, number, &step->entry);
	}
	step->kind = STEP_PUSH;
}

/*
 * Whether the push is there although its trainer was refused: a daemon had taken it, and died before it said so, and then
 * another trainer has asked for the rank.
 */
static bool is_taken(struct walk *walk, const struct step *step)
{
	const struct fake_trainer *trainer = &step->actor->trainer;
	const struct model *model = model_now(walk, step->actor->model);
	const struct rank_record *record = model && model->serving && step->mapped ? &model->records[trainer->rank] : NULL;

	return record && record->epoch == trainer->epoch && stage_state(&record->stages[step->stage]) != STAGE_FREE &&
	       record->stages[step->stage].sequence == trainer->sequence;
}

static void push(struct walk *walk, const struct step *step)
{
	struct fake_trainer *trainer = &step->actor->trainer;
	uint64_t number = fake_trainer_push(trainer, step->entry.step, step->stage, false);
	const struct fake_reply *answer = fake_host_answer(&walk->host, number);
	struct entry entry = step->entry;

	entry.epoch = trainer->epoch;
	entry.sequence = trainer->sequence;
	ck_assert_ptr_nonnull(answer);
	if (answer->reply.status == STATUS_EFENCED && is_taken(walk, step))
		entry_accepted(walk, step->actor, &entry);
	if (answer->reply.status != 0 || strcmp(answer->outcome, "accepted") != 0) {
		ck_assert_msg(!step->mapped || answer->reply.status == STATUS_EFENCED || answer->reply.status == 0 ||
		                      (step->is_contested && answer->reply.status == STATUS_ENOMODEL),
		              "%s", answer->error);
		return;
	}
	ck_assert(step->mapped);
	entry_accepted(walk, step->actor, &entry);
	if (!step->repeats)
		return;
	trainer->sequence--; /* the very same request once more */
	fake_host_expect(&walk->host, fake_trainer_push(trainer, step->entry.step, step->stage, false), 0);
}

static void actor_choose(struct walk *walk, struct actor *actor, struct step *step)
{
	uint64_t what = random_below(&walk->state, 100);

	step->actor = actor;
	step->milliseconds = 1 + random_below(&walk->state, 100);
	if (actor->trainer.epoch == 0 || what < 3) {
		if (actor->registering)
			return;
		actor->trainer.resume = walk_chance(walk, 40)   ? "never"
		                        : walk_chance(walk, 10) ? "must"
		                        : walk_chance(walk, 2)  ? "adapt"
		                                                : "auto";
		actor->attached = false;
		actor->attaching = 0;
		step->kind = STEP_REGISTER;
	} else if (what < 80) {
		push_choose(walk, step);
	} else if (what < 84) {
		step->kind = STEP_FLUSH;
	} else if (what < 88) {
		step->kind = STEP_RESERVE;
	} else if (what < 90 && actor->attached && !actor->attaching) {
		step->kind = STEP_ATTACH;
	} else if (what < 92) {
		step->kind = STEP_LEAVE;
		step->peer = walk->peer_next++ % 900 + 50;
	}
}

static void actor_leave(struct walk *walk, struct actor *actor, uint64_t peer)
{
	fake_host_gone(&walk->host, actor->trainer.peer);
	actor->trainer.peer = peer;
	actor->attached = false;
	actor->attaching = actor->registering ? 0 : fake_trainer_attach(&actor->trainer);
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

void walk_check(struct walk *walk)
{
	for (uint32_t i = 0; i < WALK_MODELS; i++)
		reference_check(walk, i);
	for (int i = 0; i < WALK_ACTORS; i++) {
		actor_registered(walk, &walk->actors[i]);
		actor_attached(walk, &walk->actors[i]);
	}
	for (int i = 0; i < WALK_READERS; i++)
		reader_check(walk, &walk->readers[i]);
}

/* An acknowledged push whose trainer still has its rank. */
static void entry_check(const struct model *model, const struct reference *reference, uint32_t rank,
                        const struct entry *entry)
{
	const struct rank_record *record = &model->records[rank];
	const struct slot_header *newest = versions_newest(&model->versions);
	struct answer answer;

	if (!intake_is_held(record) || record->epoch != entry->epoch || (newest && newest->step >= entry->step))
		return;
	for (uint32_t i = 0; i < model->stage_count; i++)
		if (stage_state(&record->stages[i]) != STAGE_FREE && record->stages[i].sequence == entry->sequence &&
		    record->stages[i].step == entry->step)
			return;
	ck_assert_msg(intake_answer(record, entry->sequence, &answer) && outcome_refuses(answer.outcome),
	              "%s: step %lu of rank %u was acknowledged and is gone; the reference is at step %lu", model->name,
	              (unsigned long)entry->step, rank, (unsigned long)reference->step);
}

/* A model of which no rank has pushed anything may be forgotten with the last one that asks for it. */
static bool holds_something(const struct model *model)
{
	return model && model->serving && (versions_newest(&model->versions) || model_lag(model) > 0);
}

/* Whether a registration waits that replaces the model as soon as it can. */
static bool is_replaced(const struct walk *walk, uint32_t index)
{
	for (int i = 0; i < WALK_ACTORS; i++) {
		const struct actor *actor = &walk->actors[i];

		if (actor->model == index && actor->registering && strcmp(actor->trainer.resume, "never") == 0)
			return true;
	}
	return false;
}

void walk_crash(struct walk *walk, const struct step *step)
{
	bool may_go = step && (step->kind == STEP_REMOVE || step->kind == STEP_REGISTER), there[WALK_MODELS];

	walk->nonfinite_count += service_counters(walk->host.service)->pushes_nonfinite;
	for (uint32_t m = 0; m < WALK_MODELS; m++)
		there[m] = holds_something(model_now(walk, m)) && !is_replaced(walk, m);
	ck_assert_int_eq(fake_host_crash(&walk->host), 0);
	ck_assert_msg(service_counters(walk->host.service)->models_abandoned == 0, "%s", walk->host.event);
	/* Whatever the store behind which it has died: what it left is no damage. */
	ck_assert_msg(walk->host.damage_count == 0, "%s", walk->host.damage);
	walk->crash_count++;
	for (uint32_t m = 0; m < WALK_MODELS; m++)
		ck_assert_msg(may_go || !there[m] || model_now(walk, m), "%s is gone: %s", names[m], walk->host.event);
	for (uint32_t m = 0; m < WALK_MODELS; m++) {
		const struct reference *reference = &walk->references[m];
		const struct model *model = model_now(walk, m);

		/* Before another one is made, perhaps of the same number. */
		reference_follow(walk, m);
		if (!model || model->id != reference->id)
			continue;
		for (uint32_t r = 0; r < model->world; r++)
			for (uint32_t i = 0; i < reference->counts[r]; i++)
				entry_check(model, reference, r, &reference->entries[r][i]);
	}
	for (int i = 0; i < WALK_ACTORS; i++) {
		struct actor *actor = &walk->actors[i];

		if (actor->registering) {
			actor->trainer.sequence--;
			actor->registering = fake_trainer_register(&actor->trainer);
		} else if (actor->attaching || (actor->attached && walk_chance(walk, 2))) {
			actor->attaching = fake_trainer_attach(&actor->trainer);
		}
	}
}

/* Another profile beside the one that is followed: it comes, changes with and without other memory, and goes. */
static void change_choose(struct walk *walk, struct step *step)
{
	static const char *const profiles[] = {
		"extra=constant", "extra=constant:decay=0.5", "extra=constant:precision=f32", "more=swa",
	};

	step->model = (uint32_t)random_below(&walk->state, WALK_MODELS);
	step->milliseconds = 1 + random_below(&walk->state, 500);
	step->kind = walk_chance(walk, 3) ? STEP_PROFILE_REMOVE : STEP_PROFILE_SET;
	if (step->kind == STEP_PROFILE_SET)
		step->profile = profiles[random_below(&walk->state, 4)];
	else
		step->profile = walk_chance(walk, 3) ? "more" : "extra";
}

static void host_choose(struct walk *walk, struct step *step)
{
	uint64_t what = random_below(&walk->state, 100);

	if (what < 60 && walk->host.apply_count > 0) {
		step->kind = STEP_APPLY;
	} else if (what < 80 && walk->host.order_count > 0) {
		step->kind = STEP_MAKE;
	} else if (what >= 80 && what < 86) {
		change_choose(walk, step);
	} else if (what < 95) {
		step->kind = STEP_WAIT;
		step->milliseconds = random_below(&walk->state, 300);
	} else if (what < 96) {
		step->kind = STEP_REMOVE;
		step->model = (uint32_t)random_below(&walk->state, WALK_MODELS);
	} else {
		step->kind = what < 98 ? STEP_LIST : STEP_STATUS;
	}
}

bool walk_has_heir(const struct walk *walk)
{
	for (uint32_t m = 0; m < WALK_MODELS; m++) {
		const struct model *model = service_find(walk->host.service, names[m], strlen(names[m]));

		if (model && model->heir)
			return true;
	}
	return false;
}

void walk_choose(struct walk *walk, struct step *ret_step)
{
	uint64_t what = random_below(&walk->state, 100);
	struct step step = { .kind = STEP_NOTHING };

	walk->step_next += walk_chance(walk, 3);
	if (what < 55) {
		actor_choose(walk, &walk->actors[random_below(&walk->state, WALK_ACTORS)], &step);
	} else if (what < 60) {
		step.reader = &walk->readers[random_below(&walk->state, WALK_READERS)];
		step.model = (uint32_t)random_below(&walk->state, WALK_MODELS);
		step.kind = step.reader->peer ? STEP_CLOSE : STEP_OPEN;
		step.peer = walk->peer_next++ % 900 + 50;
	} else {
		host_choose(walk, &step);
	}
	*ret_step = step;
}

void walk_do(struct walk *walk, const struct step *step)
{
	struct fake_host *host = &walk->host;
	struct actor *actor = step->actor;

	switch (step->kind) {
	case STEP_NOTHING:
		break;
	case STEP_REGISTER:
		actor->registering = fake_trainer_register(&actor->trainer);
		break;
	case STEP_ATTACH:
		actor->attaching = fake_trainer_attach(&actor->trainer);
		break;
	case STEP_PUSH:
		push(walk, step);
		break;
	case STEP_FLUSH:
		fake_trainer_flush(&actor->trainer, step->milliseconds);
		break;
	case STEP_RESERVE:
		fake_trainer_reserve(&actor->trainer, step->milliseconds);
		break;
	case STEP_LEAVE:
		actor_leave(walk, actor, step->peer);
		break;
	case STEP_OPEN:
		reader_open(walk, step->reader, step->model, step->peer);
		break;
	case STEP_CLOSE:
		reader_close(walk, step->reader);
		break;
	case STEP_APPLY:
		fake_host_apply(host);
		break;
	case STEP_MAKE:
		fake_host_make(host);
		break;
	case STEP_PROFILE_SET:
		fake_profiles_set(host, names[step->model], (const char *const[]){ step->profile, NULL },
		                  step->milliseconds);
		break;
	case STEP_PROFILE_REMOVE:
		fake_profile_remove(host, names[step->model], step->profile, step->milliseconds);
		break;
	case STEP_WAIT:
		fake_host_wait(host, step->milliseconds);
		break;
	case STEP_REMOVE:
		fake_query(host, OP_REMOVE, names[step->model]);
		break;
	case STEP_LIST:
		fake_query(host, OP_LIST, NULL);
		break;
	case STEP_STATUS:
		fake_query(host, OP_STATUS, NULL);
		break;
	}
}

void walk_repeat(struct walk *walk, const struct step *step)
{
	switch (step->kind) {
	case STEP_PUSH:
		ck_assert(!step->mapped || step->is_contested || is_mapped(walk, step->actor));
		walk_do(walk, step);
		break;
	case STEP_REGISTER:
		walk_do(walk, step);
		break;
	case STEP_ATTACH:
		if (!step->actor->attaching)
			walk_do(walk, step);
		break;
	case STEP_LEAVE:
	case STEP_CLOSE:
		/* Its connection was that to the daemon that is dead. */
		walk_do(walk, step);
		break;
	case STEP_NOTHING:
	case STEP_FLUSH:
	case STEP_RESERVE:
	case STEP_OPEN:
	case STEP_APPLY:
	case STEP_MAKE:
	case STEP_PROFILE_SET:
	case STEP_PROFILE_REMOVE:
	case STEP_WAIT:
	case STEP_REMOVE:
	case STEP_LIST:
	case STEP_STATUS:
		break;
	}
}

/* Every third actor of the model of one rank has one tensor more, so that its registrations make heirs. */
static struct manifest *actor_manifest(uint32_t actor, uint32_t rank, uint32_t world)
{
	const struct tensor_row rows[] = {
		{ "w", DTYPE_F64, false, { WALK_ROWS * world, UINT64_MAX } },
		{ "x", DTYPE_F64, false, { WALK_ROWS * world, UINT64_MAX } },
	};

	return manifest_shard(rows, actor == 3 ? 2 : 1, rank, world);
}

void walk_init(struct walk *walk, uint64_t seed, struct fake_arena *arena)
{
	memset(walk, 0, sizeof *walk);
	walk->state = seed;
	walk->peer_next = 1;
	walk->step_next = 10;
	fake_host_init(&walk->host);
	if (arena)
		fake_host_use(&walk->host, arena);
	walk->host.prompt = false;
	walk->host.keeps = true;
	walk->host.settings.lease_min_ms = 400;
	walk->host.settings.slot_count = 2 + random_below(&walk->state, 3);
	walk->host.settings.stage_count = 1 + random_below(&walk->state, 3);
	fake_host_start(&walk->host);
	for (uint32_t i = 0; i < WALK_ACTORS; i++) {
		struct actor *actor = &walk->actors[i];
		uint32_t model = i % 3 == 0 ? 0 : 1, rank = i % 3 == 2, world = world_of(model);

		actor->model = model;
		fake_trainer_init(&actor->trainer, &walk->host, names[model], actor_manifest(i, rank, world));
		actor->trainer.rank = rank;
		actor->trainer.world = world;
	}
}

void walk_finish(struct walk *walk)
{
	while (walk->host.apply_count > 0 || walk->host.order_count > 0) {
		if (walk->host.apply_count > 0)
			fake_host_apply(&walk->host);
		else
			fake_host_make(&walk->host);
		walk_check(walk);
	}
	for (int i = 0; i < WALK_READERS; i++)
		if (walk->readers[i].peer)
			reader_let_go(&walk->readers[i]);
	for (int i = 0; i < WALK_ACTORS; i++)
		fake_trainer_finish(&walk->actors[i].trainer);
	fake_host_finish(&walk->host);
}
