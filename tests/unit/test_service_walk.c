/*
 * The random walk of service_walk.h in one process.
 */
#include "tests/unit/service_walk.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 6000, CRASH_ONE_IN = 60 };

static const uint64_t seeds[] = {
	0x9e3779b97f4a7c15, 0xd1b54a32d192ed03, 0x2545f4914f6cdd1d, 0x853c49e6748fea9b, 0xda942042e4dd58b5,
	0x94d049bb133111eb, 0xbf58476d1ce4e5b9, 0x5851f42d4c957f2d, 0x14057b7ef767814f, 0xaf251af3b0f025b5,
};

START_TEST(averages_follow_the_reference_wherever_chance_leads)
{
	static struct walk walk;

	printf("seed %#lx\n", (unsigned long)seeds[_i]);
	fflush(stdout);
	walk_init(&walk, seeds[_i], NULL);
	for (int step = 0; step < STEPS; step++) {
		struct step chosen;

		if (walk_chance(&walk, CRASH_ONE_IN)) {
			walk_crash(&walk, NULL);
		} else {
			walk_choose(&walk, &chosen);
			walk_do(&walk, &chosen);
		}
		walk_check(&walk);
	}
	walk.nonfinite_count += service_counters(walk.host.service)->pushes_nonfinite;
	ck_assert_uint_gt(walk.published_count, 50);
	ck_assert_uint_gt(walk.inherited_count, 3);
	ck_assert_uint_gt(walk.nonfinite_count, 3);
	ck_assert_uint_gt(walk.crash_count, 50);
	printf("%lu versions, %lu heirs, %lu snapshots refused, %lu views revoked, %lu daemons\n", (unsigned long)walk.published_count,
	       (unsigned long)walk.heir_count, (unsigned long)walk.nonfinite_count, (unsigned long)walk.revoked_count, (unsigned long)walk.crash_count + 1);
	walk_finish(&walk);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_walk");
	TCase *tcase = tcase_create("walk");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, averages_follow_the_reference_wherever_chance_leads, 0,
	                    sizeof seeds / sizeof seeds[0]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
