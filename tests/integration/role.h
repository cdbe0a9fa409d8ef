/*
 * The other processes of a load test: trainers, readers and victims. Each is the test program itself, started again
 * with
 * --role; it shares a page of progress with the test.
 *
 * Every snapshot has the same value in every element: role_value of its step. Whatever an average mixes, two steps in
 * one version or half a snapshot, shows as elements that differ.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/emad.h"

enum {
	ROLE_TENSOR_COUNT = 3,
	ROLE_PROFILE_COUNT = 2,
	ROLE_PROGRESS_PATH_BYTES = 96,
	ROLE_COUNT_MAX = 16, /* that share one page */
};

/* "now": decay 0, exactly the newest snapshot; "mean": the mean of all snapshots. */
extern const char *const role_profiles[ROLE_PROFILE_COUNT];

/* What one role has done so far. Written by the role, but for `stop`. */
struct progress {
	_Atomic uint32_t stop;     /* the test wants it to end */
	_Atomic uint32_t ready;    /* it has begun */
	_Atomic uint64_t accepted; /* newest step that the daemon took */
	_Atomic uint64_t applied;  /* newest step that is in a version */
	_Atomic uint64_t errors;   /* calls that failed on the way */
	_Atomic uint64_t versions; /* whole versions read */
	_Atomic uint64_t revoked;  /* views that were taken back */
	_Atomic uint64_t resumed;  /* first step of a trainer that goes on */
};

/* A page of progress for all roles of a test. */
struct progress_page {
	char path[ROLE_PROGRESS_PATH_BYTES];
	struct progress *all; /* ROLE_COUNT_MAX */
};

void progress_open(struct progress_page *page, const char *directory);
void progress_close(struct progress_page *page);

/* Waits until the counter has reached the value; false when it has not within the time. */
bool progress_reaches(const _Atomic uint64_t *counter, uint64_t value, int timeout_ms);

/* bfloat16 holds it exactly. */
static inline float role_value(uint64_t step)
{
	return (float)(step % 128);
}

/* The tensors of a model of that many float32 elements; they are cut into boxes for world ranks. */
struct role_model {
	uint64_t shapes[ROLE_TENSOR_COUNT][2];
	uint64_t offsets[ROLE_TENSOR_COUNT][2];
	uint64_t extents[ROLE_TENSOR_COUNT][2];
	struct emad_tensor tensors[ROLE_TENSOR_COUNT];
	const void *data[ROLE_TENSOR_COUNT];
	void *owned[ROLE_TENSOR_COUNT];
};

void role_model_init(struct role_model *model, uint64_t rows, uint32_t rank, uint32_t world);
void role_model_fill(struct role_model *model, uint64_t step);
void role_model_finish(struct role_model *model);

/*
 * 0 when the view is one whole version and holds what its profile must, EMAD_EREVOKED when it was taken back meanwhile;
 * else 1, with a sentence on the standard error stream.
 */
int role_view_judge(struct emad_view *view);

/* How a trainer behaves. */
enum role_trainer {
	ROLE_WAITS = 1,    /* for each push to be applied */
	ROLE_PERSISTS = 2, /* goes on after errors, instead of ending with 0 at the first */
	ROLE_SKIPS = 4,    /* leaves some steps out, and lags */
};

/* Starts a trainer: pushes from first_step (0: where the model is) up to last_step (0: for ever). */
pid_t role_trainer_start(const struct progress_page *page, uint32_t index, const char *url, const char *model,
                         uint64_t rows, uint32_t rank, uint32_t world, uint64_t first_step, uint64_t last_step,
                         unsigned behaviour);

/* Starts a reader: judges every version that it can get, of each profile in turn, until it is told to stop. */
pid_t role_reader_start(const struct progress_page *page, uint32_t index, const char *url, const char *model);

/* When a victim kills itself, with SIGKILL. */
enum role_moment { ROLE_WHILE_FILLING, ROLE_BEFORE_PUSH, ROLE_AFTER_PUSH, ROLE_WHILE_ATTACHING, ROLE_MOMENT_COUNT };

/* Starts a trainer that speaks the protocol by hand and dies while it pushes the step. */
pid_t role_victim_start(const char *directory, const char *model, uint64_t rows, uint64_t step, enum role_moment moment);

/* What main does when argv[1] is "--role". The exit status. */
int role_main(int argc, char **argv);
