/*
 * A random walk through the service: trainers that compete, run ahead, repeat themselves, send NaN and vanish; readers
 * that hold their views; models that are removed and replaced, and get other profiles; memory and updates that come at
 * any time; and daemons that die, whose memory the next one adopts. After every step the published averages are compared,
 * bit by bit, with a model of doubles that knows nothing but which pushes were accepted, and every view that is held
 * must show what it showed when it was opened.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	STEPS = 6000,
	MODELS = 2,
	WORLD_MOST = 2,
	ROWS = 4, /* of one rank */
	ELEMENTS_MOST = ROWS * WORLD_MOST,
	ACTORS = 7, /* two trainers for each rank, and one more */
	READERS = 3,
	ENTRIES = 64,
	CRASH_ONE_IN = 60,
};

static const char *const names[MODELS] = { "one", "pair" };

/* An accepted push of one rank. */
struct entry {
	uint64_t step, epoch, sequence;
	bool is_bad;
	double values[ROWS];
};

/* What the walk knows of a model. */
struct reference {
	uint64_t id; /* of the service's model; 0: there is none */
	bool started;
	uint64_t step, updates;
	double average[ELEMENTS_MOST];
	struct entry entries[WORLD_MOST][ENTRIES]; /* by rank; not yet behind a published step */
	uint32_t counts[WORLD_MOST];
};

struct actor {
	struct fake_trainer trainer;
	uint32_t model;
	uint64_t registering, attaching; /* requests that wait; 0: none */
	bool attached;
	uint64_t daemon; /* that has given it its epoch */
};

struct reader {
	uint64_t peer; /* 0: holds nothing */
	uint64_t since_ms, fence;
	const struct slot_header *slot;
	size_t bytes;
	uint8_t *copy;
};

struct walk {
	struct fake_host host;
	uint64_t state;
	struct reference references[MODELS];
	struct actor actors[ACTORS];
	struct reader readers[READERS];
	uint64_t peer_next, step_next;
	uint64_t published_count, revoked_count, inherited_count, nonfinite_count, crash_count;
};

static uint32_t world_of(uint32_t model)
{
	return model + 1;
}

static bool chance(struct walk *walk, uint64_t one_in)
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

	if (id != reference->id)
		*reference = (struct reference){ .id = id };
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
	const struct answer *answer = intake_answer(record, entry->sequence);

	if (record->epoch != entry->epoch || !answer || !outcome_refuses((enum outcome)answer->outcome))
		return false;
	if (answer->outcome == OUTCOME_NONFINITE)
		ck_assert(is_spoilt(reference, model->world, entry->step));
	else if (record->client != 0)
		ck_assert(!is_whole(reference, model->world, entry->step));
	return true;
}

/* Forgets what was refused, or (all) what an earlier registration had pushed. */
static void entries_clean(struct reference *reference, const struct model *model, bool all)
{
	bool gone[WORLD_MOST][ENTRIES];

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
	uint64_t calls = reference->started ? step - reference->step
	                                    : 0; /* also those of steps that nobody pushed whole */
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

		for (uint32_t e = 0; e < ROWS; e++) {
			double *average = &reference->average[r * ROWS + e], kept = *average * decay;

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
	/* Of an earlier geometry, until the first version of the new one. "ema" is always its first profile. */
	geometry = model_newest_geometry(model);
	ck_assert_str_eq(geometry->profiles[0].name, "ema");
	walk->inherited_count += model->heirloom.geometry != NULL;
	ck_assert_uint_eq(newest->updates, reference->updates);
	ck_assert_uint_eq(newest->checksum, slot_header_checksum(newest));
	average = (const void *)((const uint8_t *)newest + geometry->placements[0].offset);
	if (memcmp(average, reference->average, world_of(index) * ROWS * sizeof *average) != 0)
		ck_abort_msg("%s: the average of step %lu differs from the reference", names[index],
		             (unsigned long)newest->step);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static void reader_let_go(struct reader *reader)
{
	free(reader->copy);
	*reader = (struct reader){ 0 };
}

static void reader_act(struct walk *walk, struct reader *reader)
{
	uint32_t index = (uint32_t)random_below(&walk->state, MODELS);
	const struct model *model = model_now(walk, index);
	const struct fake_reply *view;
	uint64_t peer;

	if (reader->peer) {
		peer = reader->peer;
		reader_let_go(reader);
		fake_host_gone(&walk->host, peer);
		return;
	}
	peer = walk->peer_next++ % 900 + 50;
	if (!model || !model->serving || !versions_newest(&model->versions))
		return;
	view = fake_host_expect(&walk->host, fake_view(&walk->host, peer, names[index], NULL, 0, 0), 0);
	*reader = (struct reader){
		.peer = peer,
		.since_ms = walk->host.now.monotonic_ms,
		.fence = view->reply.fence,
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

static void actor_register(struct walk *walk, struct actor *actor)
{
	struct fake_trainer *trainer = &actor->trainer;

	if (actor->registering)
		return;
	trainer->resume = chance(walk, 40) ? "never" : chance(walk, 10) ? "must" : chance(walk, 4) ? "adapt" : "auto";
	actor->attached = false;
	actor->attaching = 0;
	actor->registering = fake_trainer_register(trainer);
}

/* Takes the answer to a registration, when it has come. */
static void actor_registered(struct walk *walk, struct actor *actor)
{
	const struct fake_reply *answer = actor->registering ? fake_host_answer(&walk->host, actor->registering) : NULL;

	if (!answer)
		return;
	actor->registering = 0;
	if (answer->reply.status == STATUS_ENOMODEL && strcmp(actor->trainer.resume, "must") == 0)
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
	if (answer->reply.status == 0) {
		fake_trainer_attached(&actor->trainer, actor->attaching);
		actor->attached = true;
	} else {
		ck_assert_msg(answer->reply.status == STATUS_EFENCED || answer->reply.status == STATUS_ENOMODEL, "%s",
		              answer->error);
	}
	actor->attaching = 0;
}

/* Whether the stages that the trainer maps are still the service's; in truth its mapping would outlive that. */
static bool is_mapped(struct walk *walk, const struct actor *actor)
{
	const struct model *model = model_now(walk, actor->model);

	return actor->attached && model && model->serving &&
	       model->ranks[actor->trainer.rank].stage.base == actor->trainer.stages &&
	       model->records[actor->trainer.rank].epoch == actor->trainer.epoch;
}

static void entry_make(struct walk *walk, const struct actor *actor, uint32_t stage, uint64_t step,
                       struct entry *entry)
{
	*entry = (struct entry){ .step = step, .is_bad = chance(walk, 15) };
	for (int e = 0; e < ROWS; e++)
		entry->values[e] = random_value(&walk->state);
	if (entry->is_bad)
		entry->values[random_below(&walk->state, ROWS)] = chance(walk, 2) ? NAN : -INFINITY;
	memcpy(fake_trainer_stage(&actor->trainer, stage), entry->values, sizeof entry->values);
}

static void entry_accepted(struct walk *walk, struct actor *actor, const struct entry *entry)
{
	struct reference *reference = &walk->references[actor->model];
	uint32_t rank = actor->trainer.rank;
	struct entry *before = entry_find(reference, rank, entry->step);

	ck_assert(!reference->started || entry->step > reference->step);
	ck_assert_ptr_null(before);
	ck_assert_uint_lt(reference->counts[rank], ENTRIES);
	reference->entries[rank][reference->counts[rank]++] = *entry;
}

static void actor_push(struct walk *walk, struct actor *actor)
{
	struct fake_trainer *trainer = &actor->trainer;
	uint64_t step = walk->step_next + random_below(&walk->state, 3), number;
	const struct fake_reply *answer;
	bool mapped = is_mapped(walk, actor);
	struct entry entry;
	uint32_t stage = 0;

	if (mapped) {
		const struct stage_header *header = (const void *)trainer->stages;

		while (stage < header->stage_count && header->state[stage] != STAGE_FREE)
			stage++;
		if (stage == header->stage_count)
			return;
		entry_make(walk, actor, stage, step, &entry);
	}
	/* A trainer that waits to be registered anew, and has lost its connection meanwhile, pushes nothing. */
	if (!mapped && actor->registering)
		return;
	number = fake_trainer_push(trainer, step, stage, false);
	answer = fake_host_answer(&walk->host, number);
	ck_assert_ptr_nonnull(answer);
	if (answer->reply.status != 0 || strcmp(answer->outcome, "accepted") != 0) {
		ck_assert(!mapped || answer->reply.status == STATUS_EFENCED || answer->reply.status == 0);
		return;
	}
	ck_assert(mapped);
	entry.epoch = trainer->epoch;
	entry.sequence = trainer->sequence;
	entry_accepted(walk, actor, &entry);
	if (chance(walk, 4)) {
		trainer->sequence--; /* the very same request once more */
		ck_assert_int_eq(fake_host_expect(&walk->host, fake_trainer_push(trainer, step, stage, false), 0)
		                         ->reply.status,
		                 0);
	}
}

static void actor_act(struct walk *walk, struct actor *actor)
{
	uint64_t what = random_below(&walk->state, 100);

	if (actor->trainer.epoch == 0 || what < 3)
		actor_register(walk, actor);
	else if (what < 80)
		actor_push(walk, actor);
	else if (what < 84)
		fake_trainer_flush(&actor->trainer, 1 + random_below(&walk->state, 100));
	else if (what < 88)
		fake_trainer_reserve(&actor->trainer, 1 + random_below(&walk->state, 100));
	else if (what < 90 && actor->attached && !actor->attaching)
		actor->attaching = fake_trainer_attach(&actor->trainer);
	else if (what < 92) {
		fake_host_gone(&walk->host, actor->trainer.peer);
		actor->trainer.peer = walk->peer_next++ % 900 + 50;
		actor->attached = false;
		actor->attaching = actor->registering ? 0 : fake_trainer_attach(&actor->trainer);
	}
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static void check_all(struct walk *walk)
{
	for (uint32_t i = 0; i < MODELS; i++)
		reference_check(walk, i);
	for (int i = 0; i < ACTORS; i++) {
		actor_registered(walk, &walk->actors[i]);
		actor_attached(walk, &walk->actors[i]);
	}
	for (int i = 0; i < READERS; i++)
		reader_check(walk, &walk->readers[i]);
}

/*
 * The daemon dies and another one takes its place. Trainers do what the library does: they repeat what was not answered,
 * and attach again.
 */
static void crash(struct walk *walk)
{
	walk->nonfinite_count += service_counters(walk->host.service)->pushes_nonfinite;
	ck_assert_int_eq(fake_host_crash(&walk->host), 0);
	walk->crash_count++;
	for (int i = 0; i < ACTORS; i++) {
		struct actor *actor = &walk->actors[i];

		actor->attaching = 0;
		if (actor->registering) {
			actor->trainer.sequence--;
			actor->registering = fake_trainer_register(&actor->trainer);
		} else if (actor->attached && chance(walk, 2)) {
			actor->attaching = fake_trainer_attach(&actor->trainer);
		}
	}
}

/* Another profile beside the one that is followed: it comes, changes with and without other memory, and goes. */
static void profile_act(struct walk *walk)
{
	static const char *const profiles[] = {
		"extra=constant", "extra=constant:decay=0.5", "extra=constant:precision=f32", "more=swa",
	};
	const char *const set[] = { profiles[random_below(&walk->state, 4)], NULL };
	const char *model = names[random_below(&walk->state, MODELS)];
	uint64_t timeout_ms = 1 + random_below(&walk->state, 500);

	if (chance(walk, 3))
		fake_profile_remove(&walk->host, model, chance(walk, 3) ? "more" : "extra", timeout_ms);
	else
		fake_profiles_set(&walk->host, model, set, timeout_ms);
}

static void host_act(struct walk *walk)
{
	struct fake_host *host = &walk->host;
	uint64_t what = random_below(&walk->state, 100);

	if (what < 60 && host->apply_count > 0)
		fake_host_apply(host);
	else if (what < 80 && host->order_count > 0)
		fake_host_make(host);
	else if (what >= 80 && what < 86)
		profile_act(walk);
	else if (what < 95)
		fake_host_wait(host, random_below(&walk->state, 300));
	else if (what < 96)
		fake_query(host, OP_REMOVE, names[random_below(&walk->state, MODELS)]);
	else
		fake_query(host, what < 98 ? OP_LIST : OP_STATUS, NULL);
}

static void walk_init(struct walk *walk, uint64_t seed)
{
	memset(walk, 0, sizeof *walk);
	walk->state = seed;
	walk->peer_next = 1;
	walk->step_next = 10;
	fake_host_init(&walk->host);
	walk->host.prompt = false;
	walk->host.keeps = true;
	walk->host.settings.lease_min_ms = 400;
	walk->host.settings.slot_count = 2 + random_below(&walk->state, 3);
	walk->host.settings.stage_count = 1 + random_below(&walk->state, 3);
	fake_host_start(&walk->host);
	for (uint32_t i = 0; i < ACTORS; i++) {
		struct actor *actor = &walk->actors[i];
		uint32_t model = i % 3 == 0 ? 0 : 1, rank = i % 3 == 2, world = world_of(model);
		const struct tensor_row row = { "w", DTYPE_F64, false, { ROWS * world, UINT64_MAX } };

		actor->model = model;
		fake_trainer_init(&actor->trainer, &walk->host, names[model], manifest_shard(&row, 1, rank, world));
		actor->trainer.rank = rank;
		actor->trainer.world = world;
	}
}

static void walk_finish(struct walk *walk)
{
	while (walk->host.apply_count > 0 || walk->host.order_count > 0) {
		if (walk->host.apply_count > 0)
			fake_host_apply(&walk->host);
		else
			fake_host_make(&walk->host);
		check_all(walk);
	}
	for (int i = 0; i < READERS; i++)
		if (walk->readers[i].peer)
			reader_let_go(&walk->readers[i]);
	for (int i = 0; i < ACTORS; i++)
		fake_trainer_finish(&walk->actors[i].trainer);
	fake_host_finish(&walk->host);
}

static const uint64_t seeds[] = {
	0x9e3779b97f4a7c15, 0xd1b54a32d192ed03, 0x2545f4914f6cdd1d, 0x853c49e6748fea9b, 0xda942042e4dd58b5,
	0x94d049bb133111eb, 0xbf58476d1ce4e5b9, 0x5851f42d4c957f2d, 0x14057b7ef767814f, 0xaf251af3b0f025b5,
};

START_TEST(averages_follow_the_reference_wherever_chance_leads)
{
	static struct walk walk;
	printf("seed %#lx\n", (unsigned long)seeds[_i]);
	fflush(stdout);
	walk_init(&walk, seeds[_i]);
	for (int step = 0; step < STEPS; step++) {
		uint64_t what = random_below(&walk.state, 100);

		walk.step_next += chance(&walk, 3);
		if (chance(&walk, CRASH_ONE_IN))
			crash(&walk);
		else if (what < 55)
			actor_act(&walk, &walk.actors[random_below(&walk.state, ACTORS)]);
		else if (what < 60)
			reader_act(&walk, &walk.readers[random_below(&walk.state, READERS)]);
		else
			host_act(&walk);
		check_all(&walk);
	}
	walk.nonfinite_count += service_counters(walk.host.service)->pushes_nonfinite;
	ck_assert_uint_gt(walk.published_count, 50);
	ck_assert_uint_gt(walk.inherited_count, 3);
	ck_assert_uint_gt(walk.nonfinite_count, 3);
	ck_assert_uint_gt(walk.crash_count, 50);
	printf("%lu versions, %lu snapshots refused, %lu views revoked, %lu daemons\n", (unsigned long)walk.published_count,
	       (unsigned long)walk.nonfinite_count, (unsigned long)walk.revoked_count, (unsigned long)walk.crash_count + 1);
	walk_finish(&walk);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_walk");
	TCase *tcase = tcase_create("walk");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, averages_follow_the_reference_wherever_chance_leads, 0,
	                    sizeof seeds / sizeof seeds[0]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
