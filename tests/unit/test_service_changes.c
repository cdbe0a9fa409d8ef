/*
 * Models whose profiles change by chance while they are trained by one to four ranks, in worlds that change as well:
 * every element of every profile of every version is compared with a model of plain numbers, and what is read between a
 * change and the next version is what there was.
 */
#include "tests/unit/apply_bench.h"
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 3, ELEMENTS_MOST = 16, NAMES = 5, STEPS = 250, WORLD_MOST = 4, SPECIFICATION_BYTES = 96 };

static const struct tensor_row ROWS[TENSORS] = {
	{ "w", DTYPE_F32, false, SHAPE(8, 2) },
	{ "v", DTYPE_F64, false, SHAPE(12) },
	{ "n", DTYPE_I64, true, SHAPE(5) },
};
static const uint32_t COUNTS[TENSORS] = { 16, 12, 5 };

/* What a specification does with each tensor; of the floats as which type and by which decay. */
struct kind {
	const char *text;
	enum schedule_form form;
	enum schedule_entry entries[TENSORS];
	enum dtype dtypes[TENSORS];
	double decays[TENSORS];
};

#define AVERAGE ENTRY_AVERAGE
#define COPY ENTRY_COPY
#define FREEZE ENTRY_FREEZE
#define DROP ENTRY_DROP

static const struct kind KINDS[] = {
	{ "constant:decay=0.5",
	  FORM_LERP,
	  { AVERAGE, AVERAGE, COPY },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { .5, .5 } },
	{ "constant:decay=0.7,form=mul-add",
	  FORM_MUL_ADD,
	  { AVERAGE, AVERAGE, COPY },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { .7, .7 } },
	{ "constant:decay=0.6,precision=f64",
	  FORM_LERP,
	  { AVERAGE, AVERAGE, COPY },
	  { DTYPE_F64, DTYPE_F64, DTYPE_I64 },
	  { .6, .6 } },
	{ "constant:decay=0.6,precision=f32",
	  FORM_LERP,
	  { AVERAGE, AVERAGE, COPY },
	  { DTYPE_F32, DTYPE_F32, DTYPE_I64 },
	  { .6, .6 } },
	{ "constant:decay=0.5;copy=v",
	  FORM_LERP,
	  { AVERAGE, COPY, COPY },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { .5 } },
	{ "constant:decay=0.5;freeze=w",
	  FORM_LERP,
	  { FREEZE, AVERAGE, COPY },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { 0, .5 } },
	{ "constant:decay=0.5;drop=v;average@0.3=w",
	  FORM_LERP,
	  { AVERAGE, DROP, COPY },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { .3 } },
	{ "constant:decay=0.9,form=sub;average@0.1=v;freeze=n",
	  FORM_SUB,
	  { AVERAGE, AVERAGE, FREEZE },
	  { DTYPE_F32, DTYPE_F64, DTYPE_I64 },
	  { .9, .1 } },
	{ "constant:decay=0.9,precision=f64;drop=n",
	  FORM_LERP,
	  { AVERAGE, AVERAGE, DROP },
	  { DTYPE_F64, DTYPE_F64, DTYPE_I64 },
	  { .9, .9 } },
};
enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

/* Numbers of one tensor: floats as doubles that the type can hold, integers as they are. */
struct numbers {
	double floats[ELEMENTS_MOST];
	int64_t integers[ELEMENTS_MOST];
};

struct average {
	int name; /* "p%d" */
	const struct kind *kind;
	struct numbers tensors[TENSORS];
};

struct averages {
	uint32_t count;
	struct average items[NAMES];
};

struct scene {
	struct fake_host host;
	uint64_t state;
	uint32_t world; /* 0: nobody is registered */
	struct fake_trainer trainers[WORLD_MOST];
	struct manifest *manifests[WORLD_MOST];
	bool started;
	uint64_t step;
	struct averages newest, wanted; /* of the wanted ones names and kinds alone */
	struct numbers pushed[TENSORS];
};

static uint64_t below(struct scene *scene, uint64_t bound)
{
	return random_below(&scene->state, bound);
}

static struct average *find(struct averages *averages, int name)
{
	for (uint32_t i = 0; i < averages->count; i++)
		if (averages->items[i].name == name)
			return &averages->items[i];
	return NULL;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static double rounded(enum dtype dtype, double value)
{
	return dtype == DTYPE_F32 ? (double)(float)value : value;
}

static double blended(const struct kind *kind, uint32_t t, double decay, double s, double x)
{
	if (kind->dtypes[t] == DTYPE_F64)
		return blend_f64(kind->form, decay, s, x);
	return (double)blend_f32(kind->form, decay, (float)s, (float)x);
}

/* One tensor of one profile. old: NULL where the profile is new. */
static void tensor_advance(const struct scene *scene, const struct kind *kind, const struct average *old, uint32_t t,
                           uint64_t calls, struct numbers *ret_numbers)
{
	const struct numbers *x = &scene->pushed[t];
	bool had = old && old->kind->entries[t] != ENTRY_DROP;
	enum schedule_entry entry = kind->entries[t];
	double decay = 1;

	if (had && entry == ENTRY_FREEZE && old->kind->dtypes[t] == kind->dtypes[t]) {
		*ret_numbers = old->tensors[t];
		return;
	}
	*ret_numbers = *x;
	if (entry != ENTRY_AVERAGE)
		return;
	for (uint64_t i = 0; i < calls; i++)
		decay *= kind->decays[t];
	for (uint32_t e = 0; e < COUNTS[t]; e++) {
		double s = had ? rounded(kind->dtypes[t], old->tensors[t].floats[e]) : 0;

		ret_numbers->floats[e] =
		        had ? blended(kind, t, decay, s, x->floats[e]) : rounded(kind->dtypes[t], x->floats[e]);
	}
}

static void reference_advance(struct scene *scene, uint64_t calls)
{
	struct averages next = scene->wanted;

	for (uint32_t i = 0; i < next.count; i++)
		for (uint32_t t = 0; t < TENSORS; t++)
			tensor_advance(scene, next.items[i].kind,
			               scene->started ? find(&scene->newest, next.items[i].name) : NULL, t, calls,
			               &next.items[i].tensors[t]);
	scene->newest = next;
	scene->started = true;
}

static void tensor_check(const struct average *average, uint32_t t, const uint8_t *bytes)
{
	enum dtype dtype = average->kind->dtypes[t];

	ck_assert_int_eq(bytes != NULL, average->kind->entries[t] != ENTRY_DROP);
	for (uint32_t e = 0; bytes && e < COUNTS[t]; e++) {
		const uint8_t *at = bytes + e * dtype_bytes(dtype);
		int64_t integer;

		if (dtype == DTYPE_I64) {
			memcpy(&integer, at, sizeof integer);
			ck_assert_int_eq(integer, average->tensors[t].integers[e]);
		} else if (element_read(dtype, at) != average->tensors[t].floats[e]) {
			ck_abort_msg("element %u of %s in p%d (%s) is %.17g, and %.17g in the reference", e,
			             ROWS[t].name, average->name, average->kind->text, element_read(dtype, at),
			             average->tensors[t].floats[e]);
		}
	}
}

/* Everything that the newest version holds. */
static void check(struct scene *scene)
{
	char name[16];

	for (int i = 0; i < NAMES; i++) {
		const struct average *average = find(&scene->newest, i);
		const struct fake_reply *view;
		uint64_t number;

		snprintf(name, sizeof name, "p%d", i);
		number = fake_view(&scene->host, 900, "net", name, 0, 0);
		if (!scene->started || !average) {
			ck_assert_int_lt(fake_host_answer(&scene->host, number)->reply.status, 0);
			continue;
		}
		view = fake_host_expect(&scene->host, number, 0);
		for (uint32_t t = 0; t < TENSORS; t++)
			tensor_check(average, t, fake_tensor(&scene->host, view, ROWS[t].name));
		fake_host_gone(&scene->host, 900);
	}
	ck_assert_uint_eq(service_memory_bytes(scene->host.service), scene->host.segment_bytes);
}

/* ---- what happens ------------------------------------------------------------------------------------------------ */

static void specification_write(const struct average *average, char *text)
{
	snprintf(text, SPECIFICATION_BYTES, "p%d=%s", average->name, average->kind->text);
}

static void trainers_leave(struct scene *scene)
{
	for (uint32_t r = 0; r < scene->world; r++) {
		fake_host_gone(&scene->host, scene->trainers[r].peer);
		fake_trainer_finish(&scene->trainers[r]);
		manifest_destroy(scene->manifests[r]);
	}
	scene->world = 0;
}

/* Another world, with the profiles that are wanted already or with some by chance. */
static void trainers_join(struct scene *scene, bool same)
{
	char texts[NAMES][SPECIFICATION_BYTES];
	struct averages *wanted = &scene->wanted;

	trainers_leave(scene);
	scene->world = 1 + (uint32_t)below(scene, WORLD_MOST);
	if (!same) {
		uint32_t first = (uint32_t)below(scene, NAMES);

		wanted->count = 1 + (uint32_t)below(scene, NAMES);
		for (uint32_t i = 0; i < wanted->count; i++)
			wanted->items[i] = (struct average){
				.name = (int)(first + i) % NAMES,
				.kind = &KINDS[below(scene, KIND_COUNT)],
			};
	}
	for (uint32_t r = 0; r < scene->world; r++) {
		struct fake_trainer *trainer = &scene->trainers[r];

		scene->manifests[r] = manifest_shard(ROWS, TENSORS, r, scene->world);
		fake_trainer_init(trainer, &scene->host, "net", manifest_share(scene->manifests[r]));
		trainer->rank = r;
		trainer->world = scene->world;
		trainer->resume = "adapt";
		trainer->profile_count = wanted->count;
		for (uint32_t i = 0; i < wanted->count; i++) {
			specification_write(&wanted->items[i], texts[i]);
			trainer->profiles[i] = texts[i];
		}
	}
	for (uint32_t r = 0; r < scene->world; r++)
		fake_trainer_join(&scene->trainers[r]);
}

static void profile_change(struct scene *scene)
{
	struct averages *wanted = &scene->wanted;
	char text[SPECIFICATION_BYTES], name[16];
	struct average *average;
	int which = (int)below(scene, NAMES);

	average = find(wanted, which);
	if (average && wanted->count > 1 && below(scene, 2) == 0) {
		snprintf(name, sizeof name, "p%d", which);
		fake_host_expect(&scene->host, fake_profile_remove(&scene->host, "net", name, 1000), 0);
		memmove(average, average + 1, (size_t)(&wanted->items[--wanted->count] - average) * sizeof *average);
		return;
	}
	if (!average)
		average = &wanted->items[wanted->count++];
	*average = (struct average){ .name = which, .kind = &KINDS[below(scene, KIND_COUNT)] };
	specification_write(average, text);
	fake_host_expect(&scene->host,
	                 fake_profiles_set(&scene->host, "net", (const char *const[]){ text, NULL }, 1000), 0);
}

/* A snapshot by chance, in the ranks' stages and in the reference; with something bad in it if so wanted. */
static void snapshot_make(struct scene *scene, bool is_bad)
{
	for (uint32_t t = 0; t < TENSORS; t++) {
		for (uint32_t e = 0; e < COUNTS[t]; e++) {
			scene->pushed[t].floats[e] = rounded(ROWS[t].dtype, random_value(&scene->state));
			scene->pushed[t].integers[e] = (int64_t)below(scene, 1000) - 500;
		}
	}
	for (uint32_t r = 0; r < scene->world; r++) {
		const struct manifest *manifest = scene->manifests[r];

		for (uint32_t i = 0; i < manifest->piece_count; i++) {
			const struct piece *piece = &manifest->pieces[i];
			uint32_t t = piece->tensor, columns = t == 0 ? 2 : 1;
			uint8_t *to = (uint8_t *)fake_trainer_stage(&scene->trainers[r], 0) + piece->stage_offset;

			for (uint64_t e = 0; e < piece->element_count; e++, to += dtype_bytes(ROWS[t].dtype)) {
				uint64_t at = piece->offsets[0] * columns + e;
				double wide = is_bad && t == 0 && at == 3 ? NAN : scene->pushed[t].floats[at];
				float narrow = (float)wide;
				const void *from = t == 0   ? (const void *)&narrow
				                   : t == 1 ? (const void *)&wide
				                            : &scene->pushed[t].integers[at];

				memcpy(to, from, dtype_bytes(ROWS[t].dtype));
			}
		}
	}
}

static void push(struct scene *scene)
{
	uint64_t step = scene->step + 1 + below(scene, 3), number = 0;
	const struct fake_reply *answer;
	bool is_bad = below(scene, 12) == 0;

	snapshot_make(scene, is_bad);
	for (uint32_t r = 0; r < scene->world; r++)
		number = fake_trainer_push(&scene->trainers[r], step, 0, true);
	answer = fake_host_expect(&scene->host, number, 0);
	/* Where every profile has frozen the tensor nobody looks. */
	if (is_bad && strcmp(answer->outcome, "nonfinite") == 0)
		return;
	ck_assert_str_eq(answer->outcome, scene->started ? "applied" : "started");
	ck_assert_uint_eq(answer->reply.calls, scene->started ? step - scene->step : 1);
	reference_advance(scene, step - scene->step);
	scene->step = step;
}

START_TEST(averages_go_on_through_all_that_changes)
{
	static struct scene scene;
	uint64_t changes = 0;

	memset(&scene, 0, sizeof scene);
	scene.state = 0x9e3779b97f4a7c15 * (uint64_t)(_i + 1);
	fake_host_init(&scene.host);
	fake_host_start(&scene.host);
	trainers_join(&scene, false);
	for (int i = 0; i < STEPS; i++) {
		uint64_t what = below(&scene, 100);

		if (what < 70) {
			push(&scene);
		} else if (what < 93) {
			profile_change(&scene);
			changes++;
		} else {
			trainers_join(&scene, what < 97);
			changes++;
		}
		check(&scene);
	}
	ck_assert_uint_gt(changes, 30);
	ck_assert_uint_gt(service_counters(scene.host.service)->versions_published, 100);
	trainers_leave(&scene);
	fake_host_finish(&scene.host);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_changes");
	TCase *tcase = tcase_create("changes");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, averages_go_on_through_all_that_changes, 0, 12);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
