/*
 * An update with memory of its own, from a slot of one geometry into a slot of another, and the same arithmetic written
 * out element by element.
 */
#pragma once

#include "daemon/core/apply.h"
#include "tests/unit/random_model.h"

/* A model with memory to update: stages of every rank, an old and a new slot. */
struct apply_bench {
	struct random_model model;
	struct laid_out out;
	struct geometry *before; /* of the old slot; owned; the new slot's own unless it was made otherwise */
	struct placement *sources; /* owned */
	uint8_t *stages[RANDOM_WORLD_MAX];
	uint8_t *shadow, *target;
	struct apply apply;
	struct tensor_result *results;
};

/* Memory that is filled with a byte that no result is made of. */
uint8_t *apply_bench_memory(uint64_t bytes);

/* A float of any type. */
double element_read(enum dtype dtype, const uint8_t *bytes);

/* Random bytes that are a finite value of the dtype. */
void element_fill(enum dtype dtype, uint8_t *bytes, uint64_t *state);

/* One step of an average, each operation rounded on its own. */
float blend_f32(enum schedule_form form, double decay, float s, float x);
double blend_f64(enum schedule_form form, double decay, double s, double x);

/*
 * Fills in everything of a bench whose model is there. before: profiles of the old slot over its manifest, which the
 * bench does not keep; NULL: as the new one.
 */
void apply_bench_fill(struct apply_bench *bench, uint64_t *state, const char *const *profiles, uint32_t profile_count,
                      struct manifest *before, const char *const *before_profiles, uint32_t before_count);
void apply_bench_finish(struct apply_bench *bench);

/* Every profile's modes, actions and starts by chance. */
void apply_bench_choose(struct apply_bench *bench, uint64_t *state);

/* Does all blocks and adds up. */
void apply_bench_run(struct apply_bench *bench);

/* Asserts that every byte of the new slot and every sum are what the reference says. */
void apply_bench_check(const struct apply_bench *bench);
