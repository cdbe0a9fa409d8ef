/*
 * The models of the crash tests. See sample.h.
 */
#include "tests/integration/sample.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proto/convert.h"

enum { COLUMN_COUNT = 24 };

/* Different lengths of memory: what is lost or doubled must be visible a hundred thousand steps later. */
const struct sample_kind sample_kinds[SAMPLE_KIND_COUNT] = {
	{
		.model = "crash/one",
		.seed = 1,
		.rows = 1000,
		.world = 1,
		.profile_count = 4,
		.profiles = {"now=constant:decay=0;copy=step", "mean=swa:precision=f64;copy=step",
	                     "slow=constant:decay=0.9999,precision=f64;copy=step",
	                     "yolo=yolo:decay=0.999,tau=500;copy=step"},
	},
	{
		.model = "crash/two",
		.seed = 2,
		.rows = 2000,
		.world = 2,
		.profile_count = 3,
		.profiles = {"now=constant:decay=0;copy=step", "mean=swa:precision=f64;copy=step",
	                     "warm=timm:decay=0.9999,warmup=1;copy=step"},
	},
};

const struct sample_kind sample_passing = {
	.model = "crash/passing",
	.seed = 3,
	.rows = 100,
	.world = 1,
	.profile_count = 2,
	.profiles = {"now=constant:decay=0;copy=step", "mean=swa:precision=f64;copy=step"},
};

static const struct {
	const char *name;
	enum emad_dtype dtype;
	enum sample_class class;
	int rows_part; /* of the model's rows */
	int cut;       /* along which dimension ranks share it; -1: the last one has all of it */
} plan[SAMPLE_TENSOR_COUNT] = {
	{"step", EMAD_I64, SAMPLE_STEP, 100, 0},
	{"rows", EMAD_F32, SAMPLE_WIDE, 1, 0},
	{"columns", EMAD_F64, SAMPLE_WIDE, 20, 1},
	{"half", EMAD_F16, SAMPLE_NARROW, 40, 0},
	{"brain", EMAD_BF16, SAMPLE_NARROW, 30, -1},
	{"eighth", EMAD_F8_E5M2, SAMPLE_TINY, 50, 1},
	{"quarter", EMAD_F8_E4M3, SAMPLE_TINY, 50, 0},
};

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

enum sample_class sample_class_of(uint64_t tensor)
{
	return plan[tensor].class;
}

double sample_base(const struct sample_kind *kind, enum sample_class class, uint64_t step)
{
	uint64_t bits = mix(mix(kind->seed) + step * UINT64_C(0x9e3779b97f4a7c15));

	switch (class) {
	case SAMPLE_WIDE:
		return (double)(int64_t)(bits & 0xffffff) - 0x800000;
	case SAMPLE_NARROW:
		return (double)(int64_t)(bits >> 24 & 0xff) - 0x80;
	case SAMPLE_TINY:
		return (double)(int64_t)(bits >> 32 & 0x7) - 4;
	case SAMPLE_STEP:
	case SAMPLE_CLASS_COUNT:
		break;
	}
	return (double)step;
}

/* The power of two of a place: the same however the tensor is cut. */
static double scale_of(uint64_t tensor, uint64_t row, uint64_t column)
{
	if (plan[tensor].class == SAMPLE_STEP)
		return 1;
	return ldexp(1, (int)(mix(tensor << 48 | row << 16 | column) % 5) - 2);
}

static int tensor_init(struct sample *sample, uint64_t i, uint32_t rank, uint32_t world)
{
	uint64_t *shape = sample->shapes[i], *offset = sample->offsets[i], *extent = sample->extents[i], count;
	int cut = plan[i].cut;

	shape[0] = extent[0] = sample->kind->rows / (uint64_t)plan[i].rows_part;
	shape[1] = extent[1] = COLUMN_COUNT;
	if (cut >= 0) {
		offset[cut] = shape[cut] * rank / world;
		extent[cut] = shape[cut] * (rank + 1) / world - offset[cut];
	} else if (rank + 1 < world) {
		extent[0] = 0;
	}
	sample->tensors[i] = (struct emad_tensor){
		.name = plan[i].name,
		.dtype = plan[i].dtype,
		.dimension_count = 2,
		.shape = shape,
		.offset = offset,
		.extent = extent,
	};
	count = extent[0] * extent[1];
	sample->scales[i] = malloc(count * sizeof(double) + 1);
	sample->widened[i] = malloc(count * sizeof(double) + 1);
	sample->owned[i] = malloc(count * sizeof(double) + 1);
	sample->data[i] = sample->owned[i];
	if (!sample->scales[i] || !sample->widened[i] || !sample->owned[i])
		return -ENOMEM;
	for (uint64_t e = 0; e < count; e++)
		sample->scales[i][e] = scale_of(i, offset[0] + e / extent[1], offset[1] + e % extent[1]);
	return 0;
}

int sample_init(struct sample *sample, const struct sample_kind *kind, uint32_t rank, uint32_t world)
{
	int code = 0;

	*sample = (struct sample){.kind = kind, .tensor_count = SAMPLE_TENSOR_COUNT};
	for (uint64_t i = 0; i < SAMPLE_TENSOR_COUNT && code == 0; i++)
		code = tensor_init(sample, i, rank, world);
	return code;
}

void sample_fill(struct sample *sample, uint64_t step)
{
	for (uint64_t i = 0; i < SAMPLE_TENSOR_COUNT; i++) {
		uint64_t count = sample->extents[i][0] * sample->extents[i][1];
		double base = sample_base(sample->kind, plan[i].class, step), *widened = sample->widened[i];

		if (plan[i].class == SAMPLE_STEP) {
			for (uint64_t e = 0; e < count; e++)
				((int64_t *)sample->owned[i])[e] = (int64_t)step;
			continue;
		}
		for (uint64_t e = 0; e < count; e++)
			widened[e] = base * sample->scales[i][e];
		convert_elements(DTYPE_F64, widened, (enum dtype)plan[i].dtype, sample->owned[i], count);
	}
}

void sample_finish(struct sample *sample)
{
	for (uint64_t i = 0; i < SAMPLE_TENSOR_COUNT; i++) {
		free(sample->scales[i]);
		free(sample->widened[i]);
		free(sample->owned[i]);
	}
}

/* Whether every element is the first one's number times its own power of two; that number. */
static bool tensor_read(const struct emad_view_tensor *tensor, const double *scales, uint64_t count, double *ret_base)
{
	double base = 0;
	bool differs = false;

	for (uint64_t e = 0; e < count; e++) {
		double value;

		if (tensor->dtype == EMAD_F64)
			value = ((const double *)tensor->data)[e] / scales[e];
		else if (tensor->dtype == EMAD_F32)
			value = (double)((const float *)tensor->data)[e] / scales[e];
		else
			value = (double)((const int64_t *)tensor->data)[e];
		if (e == 0)
			base = value;
		/* Written so that NaN differs. */
		differs |= !(value == base);
	}
	*ret_base = base;
	return !differs;
}

const char *sample_read(const struct sample *whole, struct emad_view *view, struct sample_values *ret_values)
{
	const char *text = emad_view_metadata(view, "emad.step");
	struct emad_view_tensor tensor;
	struct emad_view_info info;
	uint64_t step;

	if (emad_view_info(view, &info) != 0)
		return "it has no facts";
	step = info.step;
	ret_values->tensor_count = whole->tensor_count;
	if (info.tensor_count != whole->tensor_count)
		return "it has not the model's tensors";
	if (!text || strtoull(text, NULL, 10) != step)
		return "the image's step is not the slot's";
	for (uint64_t i = 0; i < whole->tensor_count; i++) {
		uint64_t count = whole->extents[i][0] * whole->extents[i][1];

		if (emad_view_find(view, plan[i].name, &tensor) != 0)
			return "a tensor is missing";
		if (tensor.dtype != EMAD_F64 && tensor.dtype != EMAD_F32 && tensor.dtype != EMAD_I64)
			return "a tensor has a dtype that no average has";
		if (tensor.bytes != count * (tensor.dtype == EMAD_F32 ? 4 : 8))
			return "a tensor is not of its size";
		ret_values->dtypes[i] = tensor.dtype;
		if (!tensor_read(&tensor, whole->scales[i], count, &ret_values->bases[i]))
			return "a tensor is not of one piece: it mixes several snapshots";
		if (plan[i].class == SAMPLE_STEP && !(ret_values->bases[i] == (double)step))
			return "it is not of the step that it says";
	}
	return NULL;
}

const char *sample_read_newest(const struct sample *whole, struct emad_view *view, struct sample_values *ret_values)
{
	const char *mistake = sample_read(whole, view, ret_values);
	struct emad_view_info info;

	if (mistake || emad_view_info(view, &info) != 0)
		return mistake ? mistake : "it has no facts";
	for (uint64_t i = 0; i < whole->tensor_count; i++)
		if (!(ret_values->bases[i] == sample_base(whole->kind, plan[i].class, info.step)))
			return "it is not the snapshot of its step";
	return NULL;
}
