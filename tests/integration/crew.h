/*
 * The crew of a crash test: the processes that make the load. Each is the test program itself, started again with
 * --crew; it keeps a ledger. None is helped: what the library does by itself when a daemon dies is what there is.
 *
 *   trainers  push steps as fast as they can; after a failed call they push the same step again, or leave it
 *   readers   open views in turn, judge them, and hold one for a while
 *   passers   make a model, push, read, go on with fewer tensors, remove it, and see that it is gone
 *   changers  add a profile to a model that is being trained, change and remove it
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "tests/integration/ledger.h"
#include "tests/integration/sample.h"

enum {
	CREW_TRAINER_COUNT = 3, /* ranks of sample_kinds, all together */
	CREW_READER_COUNT = SAMPLE_KIND_COUNT,
	CREW_COUNT = CREW_TRAINER_COUNT + CREW_READER_COUNT + 2,
};

struct crew {
	pid_t pids[CREW_COUNT]; /* 0 when it has ended */
	struct ledger *ledgers[CREW_COUNT];
	/* The same by what they are. */
	struct ledger *trainers[SAMPLE_KIND_COUNT][SAMPLE_WORLD_MAX];
	struct ledger *readers[CREW_READER_COUNT];
	struct ledger *passer;
	struct ledger *changer;
};

/* Which of them. With CREW_FORGETS trainers are wrong: each time that a call fails they begin as new ones would. */
enum { CREW_TRAINERS = 1, CREW_READERS = 2, CREW_PASSER = 4, CREW_CHANGER = 8, CREW_ALL = 15, CREW_FORGETS = 16 };

/* Starts them, with ledgers in the directory. Where there are some, trainers go on behind the last step in them. */
void crew_start(struct crew *crew, const char *directory, const char *url, uint64_t seed, unsigned which);

/* What the trainers of an earlier crew have left in the directory; nobody is started. */
void crew_open(struct crew *crew, const char *directory);

/* Waits until all of them have done something. False, with a sentence on the error stream, when they do not. */
bool crew_begins(struct crew *crew, int timeout_ms);

/* No trainer begins another step, or all may again. With true: waits until none is in a call. */
bool crew_pause(struct crew *crew, bool pauses, int timeout_ms);

/* What one of them found and must not be, or NULL. Also when one has ended by itself. */
const char *crew_mistake(struct crew *crew);

/* Tells them to end and waits. False, with a sentence on the error stream, where one does not, or fails. */
bool crew_stop(struct crew *crew, int timeout_ms);

/* Kills those that are left, and gives back the ledgers. */
void crew_finish(struct crew *crew);

/* What main does when argv[1] is "--crew". The exit status. */
int crew_main(int argc, char **argv);
