/*
 * Models made of chance: tensors of any dtype and shape, cut into random boxes that lie on several ranks.
 *
 * Everything follows from the seed, so that a failure can be had again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/plan.h"
#include "proto/manifest.h"
#include "proto/profile.h"

enum { RANDOM_WORLD_MAX = 4 };

/* Xorshift; *state must not be 0. */
uint64_t random_next(uint64_t *state);

/* 0 .. bound - 1. */
uint64_t random_below(uint64_t *state, uint64_t bound);

/* Finite, of very different sizes, of both signs, sometimes 0. */
double random_value(uint64_t *state);

struct random_model {
	uint32_t world;
	struct manifest *ranks[RANDOM_WORLD_MAX]; /* owned; of equal tensors; the pieces of all tile them */
};

/* The first tensor is an F32 parameter, so that no schedule drops everything. */
void random_model_init(struct random_model *model, uint64_t *state, uint32_t world, uint32_t tensor_count);
void random_model_finish(struct random_model *model);

/* A manifest of these tensors, each whole, on one rank. Extents end with UINT64_MAX. */
struct tensor_row {
	const char *name;
	enum dtype dtype;
	bool is_buffer;
	uint64_t extents[5];
};
#define SHAPE(...) { __VA_ARGS__, UINT64_MAX }
#define SCALAR { UINT64_MAX }
struct manifest *manifest_of_rows(const struct tensor_row *rows, uint32_t count);

/* The part of such a manifest that one of several ranks holds: a share of every tensor's first dimension. */
struct manifest *manifest_shard(const struct tensor_row *rows, uint32_t count, uint32_t rank, uint32_t world);

/* A plan with everything that it is made of. */
struct laid_out {
	struct geometry *geometry; /* owned */
	struct plan *plan;         /* owned */
};

/* ranks[0] is the manifest of the geometry. */
void laid_out_init(struct laid_out *out, struct manifest *const *ranks, uint32_t world, const char *const *profiles,
                   uint32_t profile_count);
void laid_out_finish(struct laid_out *out);
