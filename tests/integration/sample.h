/*
 * The models of the crash tests: their tensors, their profiles, and what every element is at every step.
 *
 * A tensor's snapshot is one number of its class and step, the base, times a power of two that belongs to the element
 * for ever. Powers of two commute with every rounding, so any average of a tensor is again one number times the same
 * powers of two, to the last bit: whatever mixes two steps, two ranks or half a snapshot shows as an element that does
 * not fit, and one number a class is all that a reference must compute. How many bits a base has is what the smallest
 * dtype of its class holds.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "client/emad.h"

enum {
	SAMPLE_TENSOR_COUNT = 7,
	SAMPLE_PROFILE_COUNT_MAX = 4,
	SAMPLE_WORLD_MAX = 2,
	SAMPLE_KIND_COUNT = 2,
};

enum sample_class {
	SAMPLE_WIDE,   /* 24 bits: F64, F32 */
	SAMPLE_NARROW, /* 8 bits: F16, BF16 */
	SAMPLE_TINY,   /* 3 bits: F8 */
	SAMPLE_STEP,   /* the step itself: I64, which every profile copies */
	SAMPLE_CLASS_COUNT,
};

/* One model. */
struct sample_kind {
	const char *model;
	uint64_t seed; /* of its bases */
	uint64_t rows;
	uint32_t world;
	uint32_t profile_count;
	const char *profiles[SAMPLE_PROFILE_COUNT_MAX]; /* the first is the newest snapshot itself */
};

/* One for each trainer of the load: one of a single rank, one of two. */
extern const struct sample_kind sample_kinds[SAMPLE_KIND_COUNT];

/* One that is made and removed again and again. */
extern const struct sample_kind sample_passing;

enum sample_class sample_class_of(uint64_t tensor);
double sample_base(const struct sample_kind *kind, enum sample_class class, uint64_t step);

/* The tensors as one rank holds them. */
struct sample {
	const struct sample_kind *kind;
	uint64_t tensor_count; /* all; fewer may be registered: the first ones */
	uint64_t shapes[SAMPLE_TENSOR_COUNT][2];
	uint64_t offsets[SAMPLE_TENSOR_COUNT][2];
	uint64_t extents[SAMPLE_TENSOR_COUNT][2];
	struct emad_tensor tensors[SAMPLE_TENSOR_COUNT];
	const void *data[SAMPLE_TENSOR_COUNT];
	double *scales[SAMPLE_TENSOR_COUNT];  /* owned; of the elements of the box */
	double *widened[SAMPLE_TENSOR_COUNT]; /* owned */
	void *owned[SAMPLE_TENSOR_COUNT];
};

/* -ENOMEM; sample_finish in any case. */
int sample_init(struct sample *sample, const struct sample_kind *kind, uint32_t rank, uint32_t world);
void sample_fill(struct sample *sample, uint64_t step);
void sample_finish(struct sample *sample);

/* What a version of a profile holds. */
struct sample_values {
	uint64_t tensor_count;
	double bases[SAMPLE_TENSOR_COUNT];
	enum emad_dtype dtypes[SAMPLE_TENSOR_COUNT];
};

/*
 * Takes a view apart. NULL, or what is wrong with it by itself: tensors that are not one number, or not of the step
 * that it says. The caller then asks emad_view_check whether what was read counts. whole: the sample of the whole
 * model.
 */
const char *sample_read(const struct sample *whole, struct emad_view *view, struct sample_values *ret_values);

/* The same for the profile that is the newest snapshot itself: the values must be those of the step, too. */
const char *sample_read_newest(const struct sample *whole, struct emad_view *view, struct sample_values *ret_values);
