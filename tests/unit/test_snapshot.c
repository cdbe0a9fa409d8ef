/*
 * Snapshots: whatever the sizes of the tensors, and whoever copies, every byte of the stage is the right one.
 */
#include "client/snapshot.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_COUNT_MAX_HERE = 400 };

struct fixture {
	struct manifest *manifest;
	uint8_t *values[TENSOR_COUNT_MAX_HERE];
	uint8_t *stage, *expected;
};

static uint32_t random_next(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

static void fixture_make(struct fixture *fixture, const uint64_t *counts, uint32_t tensor_count, uint32_t seed)
{
	memset(fixture, 0, sizeof(*fixture));
	ck_assert_int_eq(manifest_create(&fixture->manifest), 0);
	for (uint32_t i = 0; i < tensor_count; i++) {
		enum dtype dtype = i % 3 == 2 ? DTYPE_U8 : i % 3 == 1 ? DTYPE_F64 : DTYPE_F32;
		char name[16];

		snprintf(name, sizeof(name), "t%u", i);
		ck_assert_int_eq(manifest_add_tensor(fixture->manifest, name, strlen(name), dtype, false, &counts[i], 1, NULL), 0);
		ck_assert_int_eq(manifest_add_piece(fixture->manifest, NULL, NULL, NULL), 0);
		fixture->values[i] = malloc(counts[i] * dtype_bytes(dtype) + 1);
		for (uint64_t at = 0; at < counts[i] * dtype_bytes(dtype); at++)
			fixture->values[i][at] = (uint8_t)random_next(&seed);
	}
	ck_assert_int_eq(manifest_finish(fixture->manifest, NULL), 0);
	fixture->stage = aligned_alloc(64, (fixture->manifest->stage_bytes + 127) / 64 * 64);
	fixture->expected = malloc(fixture->manifest->stage_bytes + 1);
	for (uint32_t i = 0; i < tensor_count; i++) {
		const struct piece *piece = &fixture->manifest->pieces[i];
		uint64_t bytes = piece->element_count * dtype_bytes(fixture->manifest->tensors[i].dtype);

		memcpy(fixture->expected + piece->stage_offset, fixture->values[i], bytes);
	}
}

static void fixture_finish(struct fixture *fixture)
{
	for (uint32_t i = 0; i < fixture->manifest->tensor_count; i++)
		free(fixture->values[i]);
	free(fixture->stage);
	free(fixture->expected);
	manifest_destroy(fixture->manifest);
}

static void copies_right(const uint64_t *counts, uint32_t tensor_count, bool shared_out)
{
	struct fixture fixture;
	struct snapshot snapshot;

	fixture_make(&fixture, counts, tensor_count, tensor_count);
	ck_assert_int_eq(snapshot_init(&snapshot, fixture.manifest), 0);
	for (int round = 0; round < 3; round++) {
		memset(fixture.stage, round, fixture.manifest->stage_bytes);
		snapshot_copy(&snapshot, (const void *const *)fixture.values, fixture.stage, shared_out);
		ck_assert_int_eq(memcmp(fixture.stage, fixture.expected, fixture.manifest->stage_bytes), 0);
	}
	snapshot_finish(&snapshot);
	fixture_finish(&fixture);
}

START_TEST(copies_tensors_of_every_size_alone_and_shared_out)
{
	uint64_t counts[TENSOR_COUNT_MAX_HERE];
	uint32_t seed = 7;

	for (uint32_t i = 0; i < TENSOR_COUNT_MAX_HERE; i++)
		counts[i] = i % 50 == 0 ? random_next(&seed) % 600000 : random_next(&seed) % 3000;
	copies_right(counts, TENSOR_COUNT_MAX_HERE, false);
	copies_right(counts, TENSOR_COUNT_MAX_HERE, true);
}
END_TEST

START_TEST(copies_sizes_around_an_item_and_empty_tensors)
{
	const uint64_t item = 1024 * 1024;
	const uint64_t counts[] = {0, item / 8, item, 0, item / 8 + 1, item - 1, item / 4 + 1, 5 * item / 8, item + 1, 1, 0};

	copies_right(counts, sizeof(counts) / sizeof(counts[0]), false);
	copies_right(counts, sizeof(counts) / sizeof(counts[0]), true);
}
END_TEST

static void count_in(void *context)
{
	atomic_fetch_add((_Atomic uint32_t *)context, 1);
}

START_TEST(a_team_does_each_job_once_in_every_member)
{
	for (unsigned helpers = 0; helpers <= 3; helpers++) {
		_Atomic uint32_t calls = 0;
		struct team *team;

		ck_assert_int_eq(team_create(helpers, &team), 0);
		for (uint32_t job = 1; job <= 200; job++) {
			team_run(team, count_in, (void *)&calls);
			ck_assert_uint_eq(calls, job * (helpers + 1));
		}
		team_destroy(team);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot");
	TCase *tcase = tcase_create("snapshot");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, copies_tensors_of_every_size_alone_and_shared_out);
	tcase_add_test(tcase, copies_sizes_around_an_item_and_empty_tensors);
	tcase_add_test(tcase, a_team_does_each_job_once_in_every_member);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
