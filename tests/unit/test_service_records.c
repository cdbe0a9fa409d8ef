/*
 * A bit that turns in a rank's record while no daemon is there. Each bit of each record is turned before an adoption: in
 * who holds the rank, in its counts, in its stages (one of them is applied, one is ready), in its answers. The next
 * daemon says of which rank it was, averages everything but a snapshot of which nothing is known any more, and answers
 * a push that is repeated as before, or decides it again; never is one averaged twice. What is not found is not used.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/memory_left.h"

#include "daemon/core/call.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD_MOST = 2, PUSHES = 5, STAGES = 3, APPLYING = 0, READY = 1 };

/* What every rank has pushed. The first three of them are averaged already; the fourth is ready; the last was refused. */
static const double loss = 20;
static const struct {
	struct fake_push what;
	float value;
	const char *outcome; /* in the end */
} pushes[PUSHES] = {
	{ { .step = 10, .stage = 0, .metadata = "{\"epoch\":1}" }, 16, "started" },
	{ { .step = 11, .stage = 2, .metadata = "{\"epoch\":2}" }, 8, "applied" },
	{ { .step = 12, .stage = APPLYING, .metadata = "{\"epoch\":3}" }, 32, "applied" },
	{ { .step = 13, .stage = READY, .metadata = "{\"epoch\":4}" }, 64, "applied" },
	{ { .step = 20, .stage = 2, .loss = &loss }, 0, "loss" },
};

static struct fake_host host;
static struct fake_trainer trainers[WORLD_MOST];
static uint32_t world;
static struct memory_left left;
static uint32_t head;    /* its segment */
static double averages[4]; /* without the snapshots of these stages: bits */

static const struct model *net(void)
{
	return service_find(host.service, "net", 3);
}

static void push_all(const struct fake_push *what, float value, const char *outcome)
{
	for (uint32_t r = 0; r < world; r++) {
		const struct fake_reply *answer;

		fake_trainer_fill(&trainers[r], what->stage, value);
		answer = fake_host_expect(&host, fake_trainer_push_with(&trainers[r], what), 0);
		ck_assert_str_eq(answer->outcome, outcome);
	}
}

static struct rank_record *record_of(uint32_t rank)
{
	struct fake_segment *segment = memory_left_segment(&left, &host, head);

	return (struct rank_record *)(void *)(segment->base + sizeof(struct head_header)) + rank;
}

static void adopt(void)
{
	host.prompt = true;
	host.damage_count = 0;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	ck_assert_msg(net() != NULL, "%s", host.event);
}

static void clear(void)
{
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	ck_assert_uint_eq(host.segment_count, 0);
}

/* What the average is when a stage has nothing in it. */
static void averages_find(void)
{
	for (uint32_t lost = 0; lost < 4; lost++) {
		memory_left_lay_out(&left, &host);
		for (uint32_t i = 0; i < 2; i++)
			if (lost >> i & 1)
				record_of(0)->stages[i].seal = 0;
		adopt();
		ck_assert_uint_eq(host.damage_count, 0);
		averages[lost] = fake_average(&host, "net", "ema");
		for (uint32_t other = 0; other < lost; other++)
			ck_assert_double_ne(averages[lost], averages[other]);
		clear();
	}
}

static void setup(void)
{
	world = (uint32_t)WORLD_MOST;
	fake_host_init(&host);
	host.settings.stage_count = STAGES;
	fake_host_start(&host);
	for (uint32_t r = 0; r < world; r++) {
		fake_trainer_init(&trainers[r], &host, "net", fake_manifest(r, world));
		trainers[r].rank = r;
		trainers[r].world = world;
		trainers[r].profiles[0] = "ema=constant:decay=0.5";
		trainers[r].guards = "loss_max=9";
		fake_trainer_join(&trainers[r]);
	}
	for (uint32_t i = 0; i < PUSHES; i++) {
		host.prompt = pushes[i].what.step < 12;
		push_all(&pushes[i].what, pushes[i].value, i < PUSHES - 1 ? "accepted" : "loss");
	}
	ck_assert_uint_eq(versions_newest(&net()->versions)->step, 11);
	memory_left_take(&left, &host);
	for (uint32_t i = 0; i < left.count; i++)
		if (left.segments[i].base == net()->head_memory.base)
			head = i;
	for (uint32_t r = 0; r < world; r++) {
		ck_assert_int_eq(stage_state(&net()->records[r].stages[APPLYING]), STAGE_APPLYING);
		ck_assert_int_eq(stage_state(&net()->records[r].stages[READY]), STAGE_READY);
	}
	averages_find();
}

static void teardown(void)
{
	fake_host_finish(&host);
	for (uint32_t r = 0; r < world; r++)
		fake_trainer_finish(&trainers[r]);
	memory_left_finish(&left);
}

/* ---- what a bit may change --------------------------------------------------------------------------------------- */

struct expectation {
	bool is_unused;    /* the bit says nothing: nothing changes, and nothing is said */
	bool is_unheld;    /* the rank must be registered again */
	uint32_t lost;     /* snapshots: bits by stage */
};

static bool is_in(size_t byte, size_t offset, size_t bytes)
{
	return byte - offset < bytes;
}

#define IS_MEMBER(type, member, byte)                                                                                  \
	is_in(byte, offsetof(struct type, member), sizeof(((struct type *)NULL)->member))

static struct expectation expect_of_stage(const struct stage_record *stage, uint32_t index, size_t byte)
{
	enum stage_state state = stage_state(stage);
	struct expectation expected = { .is_unused = false };

	expected.is_unused = !IS_MEMBER(stage_record, seal, byte) &&
	                     (state == STAGE_FREE || (state == STAGE_READY && IS_MEMBER(stage_record, version, byte)));
	if (!expected.is_unused && state != STAGE_FREE)
		expected.lost = 1U << index;
	return expected;
}

static struct expectation expect_of_answer(const struct answer_record *answer, size_t byte)
{
	struct expectation expected = { .is_unused = false };

	if (IS_MEMBER(answer_record, seal, byte))
		return expected;
	expected.is_unused = answer->seal == 0 || (seal_value(&answer->seal) == OUTCOME_ACCEPTED + 1 &&
	                                           (IS_MEMBER(answer_record, version, byte) ||
	                                            IS_MEMBER(answer_record, calls, byte)));
	return expected;
}

static struct expectation expect_of(const struct rank_record *record, size_t byte)
{
	const size_t stages = offsetof(struct rank_record, stages), answers = offsetof(struct rank_record, answers);

	if (byte >= answers) {
		size_t i = (byte - answers) / sizeof record->answers[0];

		return expect_of_answer(&record->answers[i], (byte - answers) % sizeof record->answers[0]);
	}
	if (byte >= stages) {
		size_t i = (byte - stages) / sizeof record->stages[0];

		return expect_of_stage(&record->stages[i], (uint32_t)i, (byte - stages) % sizeof record->stages[0]);
	}
	if (byte >= offsetof(struct rank_record, stage_segment))
		return (struct expectation){ .is_unheld = true, .lost = 3 };
	return (struct expectation){ .is_unheld = byte < offsetof(struct rank_record, refused) };
}

/* ---- every bit --------------------------------------------------------------------------------------------------- */

static uint64_t repeat(uint32_t rank, uint32_t index)
{
	struct fake_trainer *trainer = &trainers[rank];
	uint64_t sequence = trainer->sequence, exchange;

	trainer->sequence -= PUSHES - index;
	exchange = fake_trainer_push_with(trainer, &pushes[index].what);
	trainer->sequence = sequence;
	return exchange;
}

/* Every push comes again: it is answered as it was or said to be there; one that was lost is taken now. */
static void repeat_all(uint32_t rank, const char *place)
{
	for (uint32_t i = 0; i < PUSHES; i++) {
		const char *outcome = fake_host_expect(&host, repeat(rank, i), 0)->outcome;

		ck_assert_msg(strcmp(outcome, pushes[i].outcome) == 0 || strcmp(outcome, "stale") == 0 ||
		                      strcmp(outcome, "duplicate") == 0 || strcmp(outcome, "accepted") == 0 ||
		                      strcmp(outcome, "incomplete") == 0,
		              "%s: step %lu is %s", place, (unsigned long)pushes[i].what.step, outcome);
	}
}

static void bit_turn(uint32_t rank, size_t byte, uint32_t bit)
{
	struct expectation expected;
	char place[64], name[16];
	double average;

	memory_left_lay_out(&left, &host);
	expected = expect_of(record_of(rank), byte);
	((uint8_t *)record_of(rank))[byte] ^= (uint8_t)(1U << bit);
	snprintf(place, sizeof place, "rank %u, byte %zu, bit %u", rank, byte, bit);
	snprintf(name, sizeof name, "rank %u", rank);
	adopt();
	ck_assert_msg((host.damage_count == 0) == expected.is_unused, "%s: %s", place, host.damage);
	ck_assert_msg(expected.is_unused || strstr(host.damage, name) != NULL, "%s: %s", place, host.damage);
	average = fake_average(&host, "net", "ema");
	ck_assert_msg(average == averages[expected.lost], "%s: %g, and not %g", place, average, averages[expected.lost]);
	ck_assert_msg(intake_is_held(&net()->records[rank]) != expected.is_unheld, "%s", place);
	if (expected.is_unheld) {
		fake_host_expect(&host, repeat(rank, 3), STATUS_ENOMODEL);
	} else {
		repeat_all(rank, place);
		/* The latest is in its stage still. */
		average = fake_average(&host, "net", "ema");
		ck_assert_msg(average == averages[expected.lost & 1U << APPLYING], "%s: %g then", place, average);
	}
	clear();
}

START_TEST(every_bit_that_turns_is_found)
{
	for (size_t byte = 0; byte < sizeof(struct rank_record); byte++)
		for (uint32_t bit = 0; bit < 8; bit++)
			bit_turn((uint32_t)_i, byte, bit);
}
END_TEST

START_TEST(metadata_in_which_a_bit_turns_is_left_out)
{
	const uint64_t bytes = strlen(pushes[3].what.metadata);

	for (uint64_t bit = 0; bit < 8 * bytes; bit++) {
		memory_left_lay_out(&left, &host);
		memory_left_segment(&left, &host, head)->base[layout_metadata_offset(world, READY) + bit / 8] ^=
			(uint8_t)(1U << bit % 8);
		adopt();
		ck_assert_uint_eq(host.damage_count, 1);
		ck_assert_msg(strstr(host.damage, "the metadata of step 13 is damaged") != NULL, "%s", host.damage);
		ck_assert_double_eq(fake_average(&host, "net", "ema"), averages[0]);
		ck_assert_ptr_null(net()->metadata);
		clear();
	}
}
END_TEST

/* The one that is adopted next has nothing to complain of, and finds everything as it was left. */
START_TEST(what_was_mended_is_whole)
{
	for (size_t byte = 0; byte < sizeof(struct rank_record); byte += sizeof(uint64_t)) {
		double average;

		memory_left_lay_out(&left, &host);
		((uint8_t *)record_of(1))[byte] ^= 1;
		adopt();
		average = fake_average(&host, "net", "ema");
		host.damage_count = 0;
		ck_assert_int_eq(fake_host_crash(&host), 0);
		ck_assert_msg(host.damage_count == 0, "byte %zu: %s", byte, host.damage);
		ck_assert_double_eq(fake_average(&host, "net", "ema"), average);
		clear();
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_records");
	TCase *tcase = tcase_create("service_records");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, every_bit_that_turns_is_found, 0, WORLD_MOST);
	tcase_add_test(tcase, metadata_in_which_a_bit_turns_is_left_out);
	tcase_add_test(tcase, what_was_mended_is_whole);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
