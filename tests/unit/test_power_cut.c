/*
 * The power goes, at every call of a history of generations, and the disk in memory shows what might be left: whatever
 * it is, the newest generation that was reported written is found, or the one that was being written.
 *
 *     history, up to the nth call --power--> disks that may be left --power, during recovery--> disks
 *                                 --kill---> the same disk, a new daemon, then the power
 *
 * Where there are few disks all of them are looked at, else some by chance; EMAD_TEST_SEED repeats a run, and
 * EMAD_POWER_ROUNDS says how many there are, each with a seed of its own.
 */
#include "tests/unit/disk_generations.h"
#include "tests/unit/disk_model.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/edge/files_generation.h"

enum { NEXT = 999, DISKS_MAX = 32, RECOVERY_DISKS_MAX = 3 };

static const char MODEL[] = "run42%net";

/* ---- a history --------------------------------------------------------------------------------------------------- */

enum kind { WRITE, START, FACTS, OTHER, BAD, DISCARD };

struct step {
	enum kind kind;
	struct generation_name name;
};

/* Step and version of a training that goes on, goes back, starts anew twice, is found damaged, is removed, and starts. */
static const struct step history[] = {
	{ START, { 10, 1 } }, { WRITE, { 20, 2 } }, { OTHER, { 1, 1 } }, { WRITE, { 30, 3 } }, { FACTS, { 30, 3 } },
	{ FACTS, { 30, 3 } }, { WRITE, { 25, 4 } },
	{ START, { 10, 1 } }, { WRITE, { 20, 2 } }, { BAD, { 20, 2 } }, { WRITE, { 20, 2 } }, { START, { 5, 9 } },
	{ DISCARD, { 5, 9 } }, { START, { 10, 1 } }, { WRITE, { 11, 2 } },
};

enum { STEP_COUNT = sizeof history / sizeof history[0] };

/* What may be found: one of these serials; 0: nothing. */
struct truth {
	uint64_t kept[STEP_COUNT + 2]; /* reported written, the newest last */
	int count;
	uint64_t pending; /* being written, or what would be left; as the newest if nothing is under way */
};

static uint64_t newest(const struct truth *truth)
{
	return truth->count > 0 ? truth->kept[truth->count - 1] : 0;
}

static int step_do(const struct step *step, uint64_t serial, uint64_t newest_serial)
{
	switch (step->kind) {
	case START:
		return generation_put(MODEL, &step->name, serial, true);
	case WRITE:
		return generation_put(MODEL, &step->name, serial, false);
	case FACTS:
		return generation_facts_put(MODEL, &step->name, newest_serial + DISK_FACTS);
	case OTHER:
		return generation_put("other", &step->name, serial, true);
	case BAD:
	case DISCARD:
		break;
	}
	return generation_take(step->kind == BAD ? FILE_BAD : FILE_DISCARD, MODEL, &step->name);
}

/* What is true after a step, of which serials are its number from 1 on. */
static void step_end(struct truth *truth, const struct step *step, uint64_t serial)
{
	switch (step->kind) {
	case START:
		truth->count = 0;
		truth->kept[truth->count++] = serial;
		break;
	case WRITE:
		truth->kept[truth->count++] = serial;
		break;
	case FACTS:
		truth->kept[truth->count - 1] += DISK_FACTS;
		break;
	case OTHER:
		break;
	case BAD:
		truth->count--;
		break;
	case DISCARD:
		truth->count = 0;
		break;
	}
	truth->pending = newest(truth);
}

/* Goes through the history until the power goes; true when it has. */
static bool history_run(struct disk *disk, uint64_t nth, struct truth *ret_truth)
{
	struct truth truth = { .count = 0 };

	disk_use(disk);
	disk_power_set(disk, nth);
	for (int i = 0; i < STEP_COUNT; i++) {
		struct truth after = truth;
		int status = step_do(&history[i], (uint64_t)i + 1, newest(&truth));

		step_end(&after, &history[i], (uint64_t)i + 1);
		if (disk_is_off(disk)) {
			truth.pending = newest(&after);
			*ret_truth = truth;
			return true;
		}
		ck_assert_int_eq(status, 0);
		ck_assert_uint_eq(disk_open_count(disk), 0);
		truth = after;
	}
	*ret_truth = truth;
	return false;
}

/* ---- disks that may be left -------------------------------------------------------------------------------------- */

static uint64_t seed;

static uint64_t random_next(uint64_t bound)
{
	seed = seed * 6364136223846793005U + 1442695040888963407U;
	return (seed >> 33) % bound;
}

/* Counts through all choices like the digits of a number, or takes them by chance. */
struct choices {
	uint64_t number; /* of this disk */
	uint64_t total;  /* product of all bounds; UINT64_MAX: more than can be counted */
	bool by_chance;
	uint64_t left, product;
};

static uint64_t choices_take(void *context, uint64_t bound)
{
	struct choices *choices = context;
	uint64_t digit;

	if (__builtin_mul_overflow(choices->product, bound, &choices->product))
		choices->product = UINT64_MAX;
	if (choices->by_chance)
		return random_next(bound);
	digit = choices->left % bound;
	choices->left /= bound;
	return digit;
}

/* The next disk that may be left of one, to be destroyed; NULL: these were enough. */
static struct disk *choices_next(struct choices *choices, const struct disk *from, uint64_t count_max)
{
	struct disk *left;

	if (choices->number > 0 && choices->number >= (choices->total < count_max ? choices->total : count_max))
		return NULL;
	left = disk_copy(from);
	choices->left = choices->number++;
	choices->product = 1;
	/* The first of all is that with everything old: it also counts them. */
	choices->by_chance = choices->number > 1 && choices->total > count_max;
	disk_lose(left, choices_take, choices);
	choices->total = choices->product;
	return left;
}

static uint64_t everything_old(void *context, uint64_t bound)
{
	(void)context;
	(void)bound;
	return 0;
}

/* ---- what must hold ---------------------------------------------------------------------------------------------- */

static uint64_t disk_count;

/* What went wrong first; "": nothing. Not asserted at once, because a planted fault must go wrong. */
static char finding[400];

static bool is_true(const struct truth *truth, struct found found, uint64_t nth, const char *when)
{
	bool holds = (found.serial == newest(truth) || found.serial == truth->pending) &&
	             (found.status == 0 || found.status == STATUS_ECORRUPT);

	disk_count++;
	if (!holds && !finding[0])
		snprintf(finding, sizeof finding,
		         "call %lu, %s: generation %lu was found, not %lu, nor %lu: status %d, %d set aside",
		         (unsigned long)nth, when, (unsigned long)found.serial, (unsigned long)newest(truth),
		         (unsigned long)truth->pending, found.status, found.count_bad);
	return holds;
}

/* The next checkpoint works, whatever is there, and outlives the worst that the power can do. */
static void goes_on(struct disk *left, const struct found *found, uint64_t nth, const char *when)
{
	struct truth truth = { .kept = { NEXT }, .count = 1, .pending = NEXT };
	const struct generation_name name = { found->name.step + 1, found->name.version + 1 };
	int status = generation_put(MODEL, &name, NEXT, found->serial == 0);

	if (status != 0 && !finding[0])
		snprintf(finding, sizeof finding, "call %lu, %s: the next one cannot be written: %d", (unsigned long)nth,
		         when, status);
	disk_lose(left, everything_old, NULL);
	(void)is_true(&truth, generation_look_for(MODEL), nth, "after the next one");
}

/* The power goes once more at every call of the recovery. */
static void recovery_cut(const struct disk *left, const struct truth *truth, uint64_t nth)
{
	bool is_off = true;

	for (uint64_t n = 1; is_off && !finding[0]; n++) {
		struct disk *again = disk_copy(left), *last;
		struct choices choices = { 0 };

		disk_use(again);
		disk_power_set(again, n);
		(void)generation_look_for(MODEL);
		is_off = disk_is_off(again);
		while ((last = choices_next(&choices, again, RECOVERY_DISKS_MAX))) {
			disk_use(last);
			(void)is_true(truth, generation_look_for(MODEL), nth, "cut off in recovery");
			disk_destroy(last);
		}
		disk_destroy(again);
	}
}

static void power_cut(const struct disk *disk, const struct truth *truth, uint64_t nth)
{
	struct choices choices = { 0 };
	struct disk *left;

	while (!finding[0] && (left = choices_next(&choices, disk, DISKS_MAX))) {
		struct found found;

		if (choices.number % 8 == 1)
			recovery_cut(left, truth, nth);
		disk_use(left);
		found = generation_look_for(MODEL);
		if (is_true(truth, found, nth, "power cut"))
			goes_on(left, &found, nth, "power cut");
		disk_destroy(left);
	}
}

/* The process alone dies. What its successor has taken up is then as good as reported, also when the power goes. */
static void kill_then_power_cut(const struct disk *disk, const struct truth *truth, uint64_t nth)
{
	struct disk *killed = disk_copy(disk), *left;
	struct choices choices = { 0 };
	struct truth taken = { .count = 0 };
	struct found found;

	disk_process_ends(killed);
	disk_use(killed);
	found = generation_look_for(MODEL);
	if (is_true(truth, found, nth, "killed")) {
		/* What was being removed may be back. */
		if (found.serial > 0)
			taken.kept[taken.count++] = found.serial;
		taken.pending = found.serial > 0 ? found.serial : newest(truth);
		while (!finding[0] && (left = choices_next(&choices, killed, DISKS_MAX))) {
			disk_use(left);
			(void)is_true(&taken, generation_look_for(MODEL), nth, "killed, taken up, power cut");
			disk_destroy(left);
		}
		disk_use(killed);
		goes_on(killed, &found, nth, "killed");
	}
	disk_destroy(killed);
}

/* All of it, with a disk that lies or does not. Returns the number of calls. */
static uint64_t everything(const struct disk_faults *faults)
{
	uint64_t nth = 1;
	bool goes = true;

	finding[0] = '\0';
	disk_count = 0;
	for (; goes && !finding[0]; nth++) {
		struct disk *disk = disk_create();
		struct truth truth;

		disk_faults_set(disk, faults);
		goes = history_run(disk, nth, &truth);
		disk_faults_set(disk, &(struct disk_faults){ 0 });
		if (goes) {
			power_cut(disk, &truth, nth);
			kill_then_power_cut(disk, &truth, nth);
		}
		disk_destroy(disk);
	}
	return nth - 1;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Another run has another seed. */
static void seed_set(uint64_t run)
{
	seed = number_of("EMAD_TEST_SEED", (uint64_t)getpid() * 2654435761U) + run;
	printf("EMAD_TEST_SEED=%lu\n", (unsigned long)seed);
	fflush(stdout);
}

START_TEST(whatever_the_power_leaves_the_newest_that_was_reported_is_found)
{
	const struct disk_faults none = { 0 };

	for (uint64_t run = 0; run < number_of("EMAD_POWER_ROUNDS", 1); run++) {
		uint64_t count;

		seed_set(run);
		count = everything(&none);
		ck_assert_msg(!finding[0], "%s", finding);
		printf("%lu calls, %lu recoveries\n", (unsigned long)count, (unsigned long)disk_count);
		ck_assert_uint_gt(count, 400);
	}
}
END_TEST

/* Each of them must be found out: else this program proves nothing. */
START_TEST(a_disk_that_does_not_synchronise_is_found_out)
{
	static const struct disk_faults lies[] = {
		{ .file_fsync_lies = true },
		{ .directory_fsync_lies = true },
	};

	seed_set(0);
	(void)everything(&lies[_i]);
	ck_assert_str_ne(finding, "");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("power_cut");
	TCase *tcase = tcase_create("power_cut");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 100.0 * (double)number_of("EMAD_POWER_ROUNDS", 1));
	tcase_add_test(tcase, whatever_the_power_leaves_the_newest_that_was_reported_is_found);
	tcase_add_loop_test(tcase, a_disk_that_does_not_synchronise_is_found_out, 0, 2);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
