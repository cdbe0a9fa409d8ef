/*
 * A random walk through the service: trainers that compete, run ahead, repeat themselves, send NaN and vanish; readers
 * that hold their views; models that are removed and replaced, get other profiles and other tensors; memory and updates
 * that come at any time; and daemons that die, whose memory the next one adopts.
 *
 * After every step the published averages are compared, bit by bit, with a model of doubles that knows nothing but which
 * pushes were acknowledged, and every view that is held must show what it showed when it was opened.
 *
 * A step is chosen first and done then, so that it can be done by a process that dies of it: what is repeated afterwards
 * is the same request.
 */
#pragma once

#include "tests/unit/fake_host.h"

enum {
	WALK_MODELS = 2,
	WALK_WORLD_MOST = 2,
	WALK_ROWS = 4, /* of one rank */
	WALK_ELEMENTS_MOST = WALK_ROWS * WALK_WORLD_MOST,
	WALK_ACTORS = 7, /* two trainers for each rank, and one more */
	WALK_READERS = 3,
	WALK_ENTRIES = 64,
};

/* An accepted push of one rank. */
struct entry {
	uint64_t step, epoch, sequence;
	bool is_bad;
	double values[WALK_ROWS];
};

/* What the walk knows of a model. */
struct reference {
	uint64_t id; /* of the service's model; 0: there is none */
	bool started;
	uint64_t step, updates, version;
	double average[WALK_ELEMENTS_MOST];
	struct entry entries[WALK_WORLD_MOST][WALK_ENTRIES]; /* by rank; not yet behind a published step */
	uint32_t counts[WALK_WORLD_MOST];
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
	uint64_t segment; /* its identity */
	const struct fake_segment *at;
	const struct slot_header *slot;
	size_t bytes;
	uint8_t *copy;
};

struct walk {
	struct fake_host host;
	uint64_t state;
	struct reference references[WALK_MODELS];
	struct actor actors[WALK_ACTORS];
	struct reader readers[WALK_READERS];
	uint64_t peer_next, step_next;
	uint64_t published_count, revoked_count, inherited_count, nonfinite_count, crash_count, heir_count;
};

enum step_kind {
	STEP_NOTHING,
	STEP_REGISTER,
	STEP_ATTACH,
	STEP_PUSH,
	STEP_FLUSH,
	STEP_RESERVE,
	STEP_LEAVE,
	STEP_OPEN,
	STEP_CLOSE,
	STEP_APPLY,
	STEP_MAKE,
	STEP_PROFILE_SET,
	STEP_PROFILE_REMOVE,
	STEP_WAIT,
	STEP_REMOVE,
	STEP_LIST,
	STEP_STATUS,
};

/* One step, chosen. */
struct step {
	enum step_kind kind;
	struct actor *actor;
	struct reader *reader;
	uint32_t model;
	const char *profile;
	uint64_t milliseconds, peer;
	bool is_contested; /* a push: somebody else has asked for its rank, or its model */
	bool mapped;       /* its values are in the stage */
	bool repeats;
	uint32_t stage;
	struct entry entry;
};

/* A walk of that seed, which is not 0; arena: NULL for the heap. */
void walk_init(struct walk *walk, uint64_t seed, struct fake_arena *arena);
void walk_finish(struct walk *walk);

bool walk_chance(struct walk *walk, uint64_t one_in);

/* Whether a model is about to take over from another one. */
bool walk_has_heir(const struct walk *walk);

void walk_choose(struct walk *walk, struct step *ret_step);
void walk_do(struct walk *walk, const struct step *step);

/* Compares everything with the reference, and takes the answers that have come. */
void walk_check(struct walk *walk);

/*
 * The daemon dies, and another one takes its place. Trainers do what the library does: they repeat what was not
 * answered, and attach again. Asserts that everything acknowledged is there. step: in which it has died; NULL: between
 * two.
 */
void walk_crash(struct walk *walk, const struct step *step);

/* Behind walk_crash: whoever asked for the step asks again. */
void walk_repeat(struct walk *walk, const struct step *step);
