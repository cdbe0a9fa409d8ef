/*
 * Trainers, readers, passers and changers. See crew.h.
 */
#include "tests/integration/crew.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/process.h"
#include "tests/integration/reference.h"

enum {
	CALL_MAX_MS = 20000,
	LOOK_MAX_MS = 200, /* for a version that is newer than the latest */
	PASSING_STEPS = 6,
	HELD_ROUNDS = 20, /* that a reader keeps a view */
};

struct member {
	struct ledger *ledger;
	const struct sample_kind *kind;
	uint32_t rank;
	uint64_t seed;
	bool forgets;
	struct emad_client *client;
};

static bool stops(const struct member *member)
{
	return atomic_load(&member->ledger->stop) || atomic_load(&member->ledger->failed);
}

/*
 * What a call has said. True when it must be made again: the daemon is away, or there was no time. Whatever else is
 * wrong is a mistake.
 */
static bool again(struct member *member, const char *what, int code)
{
	if (code == 0 || stops(member))
		return false;
	if (code == EMAD_EAWAY || code == EMAD_ESHUTDOWN || code == EMAD_ETIMEOUT || code == EMAD_EBUSY) {
		atomic_fetch_add(&member->ledger->errors, 1);
		process_sleep_ms(1);
		return true;
	}
	ledger_fail(member->ledger, "%s of '%s': %s: %s", what, member->kind->model, emad_code_name(code),
	            emad_error());
	return false;
}

/* ---- trainers ---------------------------------------------------------------------------------------------------- */

static bool trainer_open(struct member *member, struct sample *sample, enum emad_resume resume,
                         struct emad_trainer **ret_trainer)
{
	const struct emad_trainer_options options = {
		.profiles = member->kind->profiles,
		.profile_count = member->kind->profile_count,
		.rank = member->rank,
		.world = member->kind->world,
		.resume = resume,
		.timeout_ms = CALL_MAX_MS,
	};
	int code;

	do
		code = emad_trainer_open(member->client, member->kind->model, sample->tensors, sample->tensor_count,
		                         &options, ret_trainer);
	while (again(member, "a registration", code));
	return code == 0;
}

static enum ledger_entry entry_of(enum emad_outcome outcome)
{
	switch (outcome) {
	case EMAD_ACCEPTED:
	case EMAD_STARTED:
	case EMAD_APPLIED:
	case EMAD_DUPLICATE:
		return LEDGER_TAKEN;
	case EMAD_STALE:
	case EMAD_NONFINITE:
	case EMAD_INCOMPLETE:
	case EMAD_LOSS:
	case EMAD_JUMP:
	case EMAD_COALESCED:
	case EMAD_SKIPPED:
		break;
	}
	return LEDGER_REFUSED;
}

/* A daemon that comes back from a checkpoint has to be registered with again; the model must be there in any case. */
static void trainer_look(struct member *member, struct emad_trainer *trainer)
{
	struct emad_trainer_info info;

	if (emad_trainer_info(trainer, &info) != 0 || info.restart_count == atomic_load(&member->ledger->again))
		return;
	atomic_store(&member->ledger->again, info.restart_count);
	if (!info.resumed)
		ledger_fail(member->ledger,
		            "the daemon has lost '%s': rank %u had to make it anew; newest step taken %" PRIu64,
		            member->kind->model, member->rank, atomic_load(&member->ledger->taken));
}

/* What the library has of pushes before is gone. False when the member stops. */
static bool trainer_forget(struct member *member, struct sample *sample, struct emad_trainer **trainer)
{
	emad_trainer_close(*trainer);
	*trainer = NULL;
	return trainer_open(member, sample, EMAD_RESUME_AUTO, trainer);
}

/*
 * Pushes a step until there is an answer, or leaves it after a failed call: like a training that goes on, and once only
 * before it has got another answer, so that what is not known stays countable. False when it is left or the member
 * stops.
 */
static bool step_push(struct member *member, struct emad_trainer **trainer, struct sample *sample, uint64_t step,
                      bool may_leave)
{
	struct ledger *ledger = member->ledger;
	unsigned flags = step % 5 == 0 ? EMAD_PUSH_WAIT : 0;
	struct emad_push_result result;
	enum ledger_entry entry;
	int code;

	sample_fill(sample, step);
	atomic_store(&ledger->entries[step], LEDGER_TRIED);
	atomic_store(&ledger->tried, step);
	for (;;) {
		code = emad_push(*trainer, step, sample->data, flags, CALL_MAX_MS, &result);
		if (!again(member, "a push", code))
			break;
		trainer_look(member, *trainer);
		if (member->forgets && !trainer_forget(member, sample, trainer))
			return false;
		if (may_leave && seed_next(&member->seed, 4) == 0) {
			atomic_fetch_add(&ledger->left, 1);
			return false;
		}
	}
	if (code)
		return false;
	trainer_look(member, *trainer);
	entry = entry_of(result.outcome);
	atomic_fetch_add(&ledger->duplicates, result.outcome == EMAD_DUPLICATE);
	if (entry == LEDGER_REFUSED && result.outcome != EMAD_INCOMPLETE)
		ledger_fail(ledger, "step %" PRIu64 " of '%s' was answered with outcome %d: %s", step,
		            member->kind->model, (int)result.outcome, result.refusal);
	atomic_store(&ledger->entries[step], (uint8_t)entry);
	if (entry == LEDGER_TAKEN)
		atomic_store(&ledger->taken, step);
	atomic_fetch_add(&ledger->rounds, 1);
	return true;
}

static void trainer_pause(struct member *member, uint64_t step)
{
	const _Atomic uint64_t *pause = &member->ledger->pause;

	if (atomic_load(pause) == 0 || step < atomic_load(pause))
		return;
	atomic_store(&member->ledger->paused, 1);
	while (atomic_load(pause) != 0 && !stops(member))
		process_sleep_ms(1);
	atomic_store(&member->ledger->paused, 0);
}

static void trainer_run(struct member *member)
{
	struct emad_trainer *trainer = NULL;
	uint64_t step = atomic_load(&member->ledger->tried) + 1;
	struct sample sample;
	bool answered = false;

	if (sample_init(&sample, member->kind, member->rank, member->kind->world) != 0)
		ledger_fail(member->ledger, "no memory");
	else if (trainer_open(member, &sample, EMAD_RESUME_AUTO, &trainer))
		for (; step < LEDGER_STEP_MAX && !stops(member); step++) {
			answered = step_push(member, &trainer, &sample, step, answered);
			trainer_pause(member, step);
		}
	emad_trainer_close(trainer);
	sample_finish(&sample);
}

static void forgetful_run(struct member *member)
{
	member->forgets = true;
	trainer_run(member);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

struct held {
	struct emad_view *view;
	uint32_t profile;
	struct sample_values values;
};

/* What was read once is read again, or the daemon says that it has taken it back. */
static void held_release(struct member *member, const struct sample *whole, struct held *held)
{
	struct sample_values values;
	const char *mistake;

	if (!held->view)
		return;
	mistake = sample_read(whole, held->view, &values);
	for (int i = 0; i < SAMPLE_TENSOR_COUNT && !mistake; i++)
		if (!(values.bases[i] == held->values.bases[i]))
			mistake = "it has changed";
	if (emad_view_check(held->view) == EMAD_EREVOKED)
		atomic_fetch_add(&member->ledger->revoked, 1);
	else if (mistake)
		ledger_fail(member->ledger, "a view of '%s' that was held: %s", member->kind->model, mistake);
	emad_view_close(held->view);
	held->view = NULL;
}

/* Whether the view is good; version and step never go back. */
static bool view_judge(struct member *member, const struct sample *whole, uint32_t profile, struct emad_view *view,
                       struct emad_view_info *newest, struct sample_values *ret_values)
{
	struct emad_view_info info;
	const char *mistake;

	if (emad_view_info(view, &info) != 0) {
		atomic_fetch_add(&member->ledger->revoked, 1);
		return false;
	}
	mistake = profile == 0 ? sample_read_newest(whole, view, ret_values) : sample_read(whole, view, ret_values);
	if (emad_view_check(view) == EMAD_EREVOKED) {
		atomic_fetch_add(&member->ledger->revoked, 1);
		return false;
	}
	if (mistake)
		ledger_fail(member->ledger, "version %" PRIu64 " of '%s', profile %u, step %" PRIu64 ": %s",
		            info.version, member->kind->model, profile, info.step, mistake);
	if (info.version < newest->version || info.step < newest->step)
		ledger_fail(member->ledger,
		            "'%s' went back from version %" PRIu64 ", step %" PRIu64 " to version %" PRIu64
		            ", step %" PRIu64,
		            member->kind->model, newest->version, newest->step, info.version, info.step);
	*newest = info;
	return true;
}

static void reader_run(struct member *member)
{
	struct emad_view_info newest = {0};
	struct sample whole;
	struct held held = {0};
	int code = sample_init(&whole, member->kind, 0, 1);

	if (code)
		ledger_fail(member->ledger, "no memory");
	for (unsigned round = 0; !stops(member); round++) {
		uint32_t profile = round % member->kind->profile_count;
		char name[16] = "";
		struct sample_values values;
		struct emad_view *view;

		sscanf(member->kind->profiles[profile], "%15[^=]", name);
		code = emad_view_open(member->client, member->kind->model, name, newest.step + 1, LOOK_MAX_MS, &view);
		/* At the beginning there is none. */
		if (newest.version == 0 && (code == EMAD_ENOMODEL || code == EMAD_ENOVERSION))
			code = EMAD_EAWAY;
		/* A daemon that ends takes versions back at once, also before they are looked at. */
		if (code == EMAD_EREVOKED) {
			atomic_fetch_add(&member->ledger->revoked, 1);
			continue;
		}
		if (again(member, "a view", code) || code)
			continue;
		if (view_judge(member, &whole, profile, view, &newest, &values))
			atomic_fetch_add(&member->ledger->rounds, 1);
		if (round % HELD_ROUNDS == 0) {
			held_release(member, &whole, &held);
			held = (struct held){.view = view, .profile = profile, .values = values};
		} else {
			emad_view_close(view);
		}
	}
	held_release(member, &whole, &held);
	sample_finish(&whole);
}

/* ---- passers ----------------------------------------------------------------------------------------------------- */

/* Some steps, as a new model or as one that goes on with other tensors. False when the member stops. */
static bool passing_train(struct member *member, struct sample *sample, uint64_t first_step, enum emad_resume resume)
{
	struct emad_trainer *trainer;
	struct emad_trainer_info info;
	uint64_t step = first_step;

	atomic_store(&member->ledger->phase, LEDGER_REGISTERING);
	if (!trainer_open(member, sample, resume, &trainer))
		return false;
	if (emad_trainer_info(trainer, &info) == 0 && (resume == EMAD_RESUME_AUTO) != (info.version == 0))
		ledger_fail(member->ledger, "'%s' %s, at step %" PRIu64, member->kind->model,
		            info.version ? "was removed and is there again" : "was there and is new", info.last_step);
	atomic_store(&member->ledger->phase, LEDGER_PUSHING);
	while (step < first_step + PASSING_STEPS && step_push(member, &trainer, sample, step, false))
		step++;
	emad_trainer_close(trainer);
	return step == first_step + PASSING_STEPS;
}

static bool passing_look(struct member *member, const struct sample *whole, uint64_t first_step, uint64_t last_step)
{
	const char *mistake;
	struct sample_values values;
	struct emad_view_info info = {0};
	struct emad_view *view;
	struct reference reference;
	int code;

	reference_init(&reference, member->kind, 1);
	for (uint64_t step = first_step; step <= last_step; step++)
		reference_apply(&reference, step);
	do
		code = emad_view_open(member->client, member->kind->model, "mean", last_step, CALL_MAX_MS, &view);
	while (again(member, "a view", code));
	if (code)
		return false;
	mistake = sample_read(whole, view, &values);
	if (!mistake && emad_view_info(view, &info) == 0)
		mistake = reference_differs(&reference, &values, &info);
	if (mistake && emad_view_check(view) == 0)
		ledger_fail(member->ledger, "'%s' from step %" PRIu64 " at step %" PRIu64 ": wrong is %s",
		            member->kind->model, first_step, info.step, mistake);
	emad_view_close(view);
	return true;
}

/* Once it is said to be gone it must not come back. */
static bool passing_remove(struct member *member)
{
	char *json;
	int code;

	/* Now and then there is something on disk that must go, too; whether a daemon lives to write it is another matter. */
	if (atomic_load(&member->ledger->rounds) % 2 == 0)
		(void)emad_checkpoint(member->client, member->kind->model, CALL_MAX_MS, NULL);
	atomic_store(&member->ledger->phase, LEDGER_REMOVING);
	do {
		code = emad_remove(member->client, member->kind->model, CALL_MAX_MS, NULL);
		/* It was there a moment ago: a call whose answer was lost has done it, and the library repeats it. */
		if (code == EMAD_ENOMODEL)
			code = 0;
	} while (again(member, "a removal", code));
	if (code)
		return false;
	for (int i = 0; i < 2; i++) {
		do {
			code = emad_show_json(member->client, member->kind->model, CALL_MAX_MS, &json);
			if (code == 0) {
				emad_free(json);
				ledger_fail(member->ledger, "'%s' was removed and is there again", member->kind->model);
			}
			if (code == EMAD_ENOMODEL)
				code = 0;
		} while (again(member, "a look", code));
	}
	return code == 0;
}

static void passer_run(struct member *member)
{
	struct sample whole;
	uint64_t step = 1;
	bool goes_on = sample_init(&whole, member->kind, 0, 1) == 0;

	while (goes_on && !stops(member)) {
		uint64_t middle = step + PASSING_STEPS, end = middle + PASSING_STEPS;

		whole.tensor_count = SAMPLE_TENSOR_COUNT;
		goes_on = passing_train(member, &whole, step, EMAD_RESUME_AUTO) &&
		          passing_look(member, &whole, step, middle - 1);
		whole.tensor_count = SAMPLE_TENSOR_COUNT - 1;
		goes_on = goes_on && passing_train(member, &whole, middle, EMAD_RESUME_ADAPT) &&
		          passing_look(member, &whole, step, end - 1) && passing_remove(member);
		atomic_fetch_add(&member->ledger->rounds, 1);
		step = end + 3 < LEDGER_STEP_MAX - 2 * PASSING_STEPS ? end + 3 : 1;
	}
	sample_finish(&whole);
}

/* ---- changers ---------------------------------------------------------------------------------------------------- */

static bool profile_set(struct member *member, const char *profile)
{
	int code;

	do
		code = emad_profile_set(member->client, member->kind->model, &profile, 1, CALL_MAX_MS, NULL);
	while (again(member, "a change of profiles", code));
	return code == 0;
}

/* The trainer may come later. */
static void model_wait(struct member *member)
{
	char *json = NULL;

	while (!stops(member) && emad_show_json(member->client, member->kind->model, CALL_MAX_MS, &json) != 0)
		process_sleep_ms(1);
	emad_free(json);
}

/* What was said to be changed must be there, from the next update on. */
static bool profile_look(struct member *member)
{
	struct emad_view *view = NULL;
	int code, left_ms = CALL_MAX_MS;

	do {
		code = emad_view_open(member->client, member->kind->model, "extra", 0, CALL_MAX_MS, &view);
		if ((code == EMAD_ENOPROFILE || code == EMAD_ENOVERSION) && left_ms-- > 0)
			code = EMAD_EAWAY;
	} while (again(member, "a view of the new profile", code));
	emad_view_close(view);
	return code == 0;
}

static bool profile_remove(struct member *member)
{
	int code;

	do {
		code = emad_profile_remove(member->client, member->kind->model, "extra", CALL_MAX_MS, NULL);
		/* As with a model. */
		if (code == EMAD_ENOPROFILE)
			code = 0;
	} while (again(member, "the removal of a profile", code));
	return code == 0;
}

static void changer_run(struct member *member)
{
	bool goes_on = true;

	model_wait(member);
	atomic_store(&member->ledger->phase, LEDGER_CHANGING);
	while (goes_on && !stops(member)) {
		goes_on = profile_set(member, "extra=constant:decay=0.5;copy=step") && profile_look(member) &&
		          profile_set(member, "extra=averaged-model:decay=0.25,precision=f64;copy=step") &&
		          profile_look(member) && profile_remove(member);
		atomic_fetch_add(&member->ledger->rounds, 1);
		process_sleep_ms((int)seed_next(&member->seed, 20));
	}
}

/* ---- starting and ending them ------------------------------------------------------------------------------------ */

static const char *const roles[] = {"trainer", "forgetful", "reader", "passer", "changer"};

int crew_main(int argc, char **argv)
{
	static void (*const runs[])(struct member *) = {trainer_run, forgetful_run, reader_run, passer_run,
	                                                changer_run};
	struct member member = {0};
	unsigned long kind;
	int code;

	/* It must not outlive a test that has failed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc < 8)
		return EXIT_FAILURE;
	kind = strtoul(argv[5], NULL, 10);
	member.ledger = ledger_open(argv[3]);
	member.kind = kind < SAMPLE_KIND_COUNT ? &sample_kinds[kind] : &sample_passing;
	member.rank = (uint32_t)strtoul(argv[6], NULL, 10);
	member.seed = strtoull(argv[7], NULL, 10);
	do
		code = emad_client_open(argv[4], CALL_MAX_MS, &member.client);
	while (again(&member, "a connection", code));
	for (size_t i = 0; code == 0 && i < sizeof(roles) / sizeof(roles[0]); i++)
		if (strcmp(argv[2], roles[i]) == 0)
			runs[i](&member);
	emad_client_close(member.client);
	return atomic_load(&member.ledger->failed) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void ledger_place(const char *directory, int index, const char *role, char path[LEDGER_PATH_BYTES])
{
	snprintf(path, LEDGER_PATH_BYTES, "%s/ledger-%d-%s", directory, index, role);
}

static struct ledger *member_start(struct crew *crew, int index, const char *directory, const char *url,
                                   const char *role, unsigned kind, uint32_t rank, uint64_t seed)
{
	char path[LEDGER_PATH_BYTES], numbers[3][24];
	const char *arguments[] = {"--crew", role, path, url, numbers[0], numbers[1], numbers[2], NULL};

	ledger_place(directory, index, role, path);
	snprintf(numbers[0], sizeof(numbers[0]), "%u", kind);
	snprintf(numbers[1], sizeof(numbers[1]), "%u", rank);
	snprintf(numbers[2], sizeof(numbers[2]), "%" PRIu64, seed + (unsigned)index);
	crew->ledgers[index] = ledger_open(path);
	ledger_restart(crew->ledgers[index]);
	crew->pids[index] = process_spawn(PROCESS_SELF, arguments, NULL);
	return crew->ledgers[index];
}

void crew_start(struct crew *crew, const char *directory, const char *url, uint64_t seed, unsigned which)
{
	const char *trainer = which & CREW_FORGETS ? "forgetful" : "trainer";
	int index = 0;

	*crew = (struct crew){.passer = NULL};
	for (unsigned kind = 0; kind < SAMPLE_KIND_COUNT && which & CREW_TRAINERS; kind++)
		for (uint32_t rank = 0; rank < sample_kinds[kind].world; rank++)
			crew->trainers[kind][rank] =
			        member_start(crew, index++, directory, url, trainer, kind, rank, seed);
	for (unsigned kind = 0; kind < SAMPLE_KIND_COUNT && which & CREW_READERS; kind++)
		crew->readers[kind] = member_start(crew, index++, directory, url, "reader", kind, 0, seed);
	if (which & CREW_PASSER)
		crew->passer = member_start(crew, index++, directory, url, "passer", SAMPLE_KIND_COUNT, 0, seed);
	if (which & CREW_CHANGER)
		crew->changer = member_start(crew, index++, directory, url, "changer", 0, 0, seed);
}

void crew_open(struct crew *crew, const char *directory)
{
	char path[LEDGER_PATH_BYTES];
	int index = 0;

	*crew = (struct crew){.passer = NULL};
	for (unsigned kind = 0; kind < SAMPLE_KIND_COUNT; kind++)
		for (uint32_t rank = 0; rank < sample_kinds[kind].world; rank++, index++) {
			ledger_place(directory, index, "trainer", path);
			crew->trainers[kind][rank] = crew->ledgers[index] = ledger_open(path);
		}
}

bool crew_begins(struct crew *crew, int timeout_ms)
{
	for (int i = 0; i < CREW_COUNT; i++)
		for (; crew->ledgers[i] && atomic_load(&crew->ledgers[i]->rounds) == 0; timeout_ms--) {
			const char *mistake = crew_mistake(crew);

			if (mistake || timeout_ms <= 0) {
				fprintf(stderr, "member %d does not begin: %s\n", i,
				        mistake ? mistake : "no time is left");
				return false;
			}
			process_sleep_ms(1);
		}
	return true;
}

/* A step that no rank has begun: all of them end with it, because a rank that is ahead waits for the others. */
static uint64_t pause_step(struct ledger *const *ranks)
{
	enum { AHEAD_MAX = 64 };
	uint64_t newest = 0;

	for (int r = 0; r < SAMPLE_WORLD_MAX; r++)
		if (ranks[r] && atomic_load(&ranks[r]->tried) > newest)
			newest = atomic_load(&ranks[r]->tried);
	return newest + AHEAD_MAX;
}

bool crew_pause(struct crew *crew, bool pauses, int timeout_ms)
{
	for (int k = 0; k < SAMPLE_KIND_COUNT; k++) {
		uint64_t step = pauses ? pause_step(crew->trainers[k]) : 0;

		for (int r = 0; r < SAMPLE_WORLD_MAX; r++)
			if (crew->trainers[k][r])
				atomic_store(&crew->trainers[k][r]->pause, step);
	}
	for (int i = 0; i < SAMPLE_KIND_COUNT * SAMPLE_WORLD_MAX; i++) {
		struct ledger *ledger = crew->trainers[i / SAMPLE_WORLD_MAX][i % SAMPLE_WORLD_MAX];

		for (; ledger && (atomic_load(&ledger->paused) != 0) != pauses; timeout_ms--) {
			if (timeout_ms <= 0)
				return false;
			process_sleep_ms(1);
		}
	}
	return true;
}

const char *crew_mistake(struct crew *crew)
{
	for (int i = 0; i < CREW_COUNT; i++)
		if (crew->ledgers[i] && atomic_load(&crew->ledgers[i]->failed))
			return crew->ledgers[i]->text;
	for (int i = 0; i < CREW_COUNT; i++)
		if (crew->pids[i] && waitpid(crew->pids[i], NULL, WNOHANG) == crew->pids[i]) {
			crew->pids[i] = 0;
			return "a process of the load has ended";
		}
	return NULL;
}

bool crew_stop(struct crew *crew, int timeout_ms)
{
	bool well = true;

	/* At one step: a rank that is ahead of another one that has ended would wait for it until its call gives up. */
	(void)crew_pause(crew, true, timeout_ms);
	for (int i = 0; i < CREW_COUNT; i++)
		if (crew->ledgers[i])
			atomic_store(&crew->ledgers[i]->stop, 1);
	for (int i = 0; i < CREW_COUNT; i++) {
		int status = crew->pids[i] ? process_wait(crew->pids[i], timeout_ms) : 0;

		if (status != 0)
			fprintf(stderr, "member %d ended with status %#x: %s\n", i, (unsigned)status,
			        crew->ledgers[i]->text);
		well = well && status == 0;
		crew->pids[i] = 0;
	}
	return well;
}

void crew_finish(struct crew *crew)
{
	for (int i = 0; i < CREW_COUNT; i++) {
		if (crew->pids[i]) {
			kill(crew->pids[i], SIGKILL);
			(void)process_wait(crew->pids[i], CALL_MAX_MS);
		}
		ledger_close(crew->ledgers[i]);
	}
	*crew = (struct crew){.passer = NULL};
}
