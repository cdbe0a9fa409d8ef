/*
 * Memory that is not as the daemon has left it: single bits flipped, segments missing, cut short, exchanged, there twice,
 * of another kind, or forged by the trainer that may write to one of them. The next daemon adopts the model as it was, or
 * says what it has lost, or gives the memory back and says why; and it never reads what is not there (the segments are
 * from the heap, byte by byte, for the sanitizer to watch).
 *
 * Every fifth byte gets one bit flipped; EMAD_DAMAGE_ALL=1 flips all bits.
 */
#include "tests/unit/fake_host.h"
#include "tests/unit/memory_left.h"
#include "tests/unit/random_model.h"

#include "daemon/core/call.h"
#include "daemon/core/notes.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_STRIDE = 5 };

static struct memory_left left;
static struct {
	uint32_t head, stage, newest; /* which segment is which; the newest version's slot */
	double average; /* when the snapshot that waits is in it */
} legacy;

static struct fake_host host;
static struct fake_trainer trainer;

/* The schedule's: its first update, and so on. */
static double blend(double average, double value, double update)
{
	double decay = 0.9999 * (1 - exp(-update / 2000));

	return average * decay + (1 - decay) * value;
}

static void push(uint64_t step, uint32_t stage, float value, const char *metadata)
{
	const struct fake_push what = { .step = step, .stage = stage, .metadata = metadata };

	fake_trainer_fill(&trainer, stage, value);
	ck_assert_str_eq(fake_host_expect(&host, fake_trainer_push_with(&trainer, &what), 0)->outcome, "accepted");
}

/* Two versions, and an acknowledged snapshot that waits for its update. */
static void legacy_make(void)
{
	const struct model *model;

	fake_host_init(&host);
	host.settings.stage_count = 2;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	trainer.attributes = "{\"nc\":80}";
	trainer.guards = "loss_max=9";
	fake_trainer_join(&trainer);
	push(10, 0, 4, "{\"epoch\":1}");
	push(11, 1, 8, "{\"epoch\":2}");
	/* A lease, and a book that is not the first. */
	fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), 0);
	host.prompt = false;
	push(12, 0, 16, "{\"epoch\":3}");
	model = service_find(host.service, "net", 3);
	ck_assert_ptr_nonnull(model);
	memory_left_take(&left, &host);
	for (uint32_t i = 0; i < left.count; i++) {
		const struct memory *at = &left.segments[i];

		if (at->base == model->head_memory.base)
			legacy.head = i;
		if (at->base == model->ranks[0].stage.base)
			legacy.stage = i;
		if (at->base == (const uint8_t *)versions_newest(&model->versions))
			legacy.newest = i;
	}
	legacy.average = blend(blend(4, 8, 1), 16, 2);
}

static struct fake_segment *segment_of(uint32_t index)
{
	return memory_left_segment(&left, &host, index);
}

static void legacy_lay_out(void)
{
	memory_left_lay_out(&left, &host);
}

/* Adopts what was laid out. Whether the model is there. */
static bool adopt(void)
{
	const struct model *model;

	host.prompt = true;
	host.complaint_count = 0;
	ck_assert_int_eq(fake_host_crash(&host), 0);
	model = service_find(host.service, "net", 3);
	if (!model) {
		ck_assert_uint_eq(host.segment_count, 0);
		ck_assert_uint_eq(host.segment_bytes, 0);
	}
	return model != NULL;
}

/* As if nothing had happened. */
static bool is_right(void)
{
	const struct model *model = service_find(host.service, "net", 3);
	const struct slot_header *newest = versions_newest(&model->versions);
	const struct slot_header *first = model->versions.slots[0];
	const float *values = (const void *)((const uint8_t *)newest + model->geometry->placements[0].offset);

	return newest->version == 3 && newest->step == 12 && newest->updates == 2 && first != NULL &&
	       fabs((double)values[0] - legacy.average) < 1e-5 && model->metadata &&
	       strcmp(model->metadata, "{\"epoch\":3}") == 0 && strcmp(model->attributes, "{\"nc\":80}") == 0 &&
	       model->guards.loss_max == 9 && model->version_next == 4 && model->ranks[0].stage.base != NULL;
}

/* The model is as it was, or something was said. */
static void adopt_damaged(const char *what, uint64_t byte, uint32_t bit)
{
	bool there = adopt();

	ck_assert_msg(host.complaint_count > 0 || (there && is_right()), "%s, byte %lu, bit %u: %s, and nothing was said", what,
	              (unsigned long)byte, bit, there ? "otherwise" : "gone");
	/* And its daemon works. */
	fake_host_expect(&host, fake_query(&host, OP_STATUS, NULL), 0);
	fake_host_expect(&host, fake_query(&host, OP_LIST, NULL), 0);
	if (there) {
		fake_host_expect(&host, fake_query(&host, OP_SHOW, "net"), 0);
		fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	}
	ck_assert_uint_eq(host.segment_count, 0);
}

static void legacy_finish(void)
{
	fake_host_finish(&host);
	fake_trainer_finish(&trainer);
	memory_left_finish(&left);
}

/* ---- bits -------------------------------------------------------------------------------------------------------- */

static bool wants_all(void)
{
	return getenv("EMAD_DAMAGE_ALL") != NULL;
}

/* A book without a number is one that was just being written: then the facts of before hold. */
static bool is_unvouched(uint32_t segment, const uint8_t *base)
{
	for (uint32_t i = 0; segment == legacy.head && i < BOOK_COUNT; i++)
		if (((const struct book *)(const void *)(base + layout_book_offset(1, 2, i)))->number == 0)
			return true;
	return false;
}

static void flip(const char *what, uint32_t segment, uint64_t byte, uint32_t bit)
{
	legacy_lay_out();
	segment_of(segment)->base[byte] ^= (uint8_t)(1U << bit);
	if (is_unvouched(segment, segment_of(segment)->base)) {
		if (adopt())
			fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
		ck_assert_uint_eq(host.segment_count, 0);
	} else {
		adopt_damaged(what, byte, bit);
	}
}

static void flip_all(const char *what, uint32_t segment, uint64_t begin, uint64_t end)
{
	for (uint64_t byte = begin; byte < end; byte += wants_all() ? 1 : BYTES_STRIDE) {
		if (!wants_all()) {
			flip(what, segment, byte, (uint32_t)(byte * 5 / BYTES_STRIDE % 8));
			continue;
		}
		for (uint32_t bit = 0; bit < 8; bit++)
			flip(what, segment, byte, bit);
	}
}

static const struct slot_header *slot_of(uint32_t segment)
{
	return (const void *)left.bytes[segment];
}

static bool is_slot(uint32_t segment)
{
	return segment != legacy.head && segment != legacy.stage;
}

START_TEST(any_bit_of_a_head_may_be_wrong)
{
	legacy_make();
	flip_all("head", legacy.head, 0, sizeof(struct head_header));
	flip_all("records", legacy.head, sizeof(struct head_header),
	         sizeof(struct head_header) + sizeof(struct rank_record));
	flip_all("metadata", legacy.head, layout_metadata_offset(1, 0), layout_metadata_offset(1, 0) + 32);
	legacy_finish();
}
END_TEST

START_TEST(any_bit_of_a_book_may_be_wrong)
{
	legacy_make();
	for (uint32_t i = 0; i < BOOK_COUNT; i++) {
		uint64_t at = layout_book_offset(1, 2, i);
		const struct book *book = (const void *)(left.bytes[legacy.head] + at);

		flip_all(i == 0 ? "book 0" : "book 1", legacy.head, at, at + sizeof *book + book->text_bytes + 16);
	}
	legacy_finish();
}
END_TEST

START_TEST(any_bit_of_a_slot_may_be_wrong)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++) {
		const struct slot_header *slot = slot_of(i);

		if (!is_slot(i))
			continue;
		flip_all("slot", i, 0, sizeof *slot);
		flip_all("description", i, slot->description_offset, slot->description_offset + slot->description_bytes);
		flip_all("notes", i, slot->notes_offset, slot->notes_offset + 64);
		flip_all("norms", i, slot->notes_offset + sizeof(struct slot_notes),
		         slot->notes_offset + sizeof(struct slot_notes) + 8);
	}
	legacy_finish();
}
END_TEST

START_TEST(any_bit_of_a_stage_may_be_wrong)
{
	const struct rank_record *record;
	uint64_t pieces;

	legacy_make();
	record = (const void *)(left.bytes[legacy.head] + sizeof(struct head_header));
	pieces = left.segments[legacy.stage].bytes - layout_page_round(record->pieces_bytes);
	flip_all("stage", legacy.stage, 0, sizeof(struct stage_header));
	flip_all("pieces", legacy.stage, pieces, pieces + record->pieces_bytes);
	legacy_finish();
}
END_TEST

/* ---- segments ---------------------------------------------------------------------------------------------------- */

START_TEST(everything_as_it_was_is_adopted)
{
	legacy_make();
	legacy_lay_out();
	ck_assert(adopt());
	ck_assert_msg(is_right(), "%s", host.event);
	ck_assert_uint_eq(host.complaint_count, 0);
	ck_assert_uint_eq(host.segment_bytes, left.total_bytes);
	legacy_finish();
}
END_TEST

/* As after an upgrade: nothing in it is looked at. */
START_TEST(memory_of_another_layout_is_given_back)
{
	/* That of before, and the next. */
	static const uint32_t versions[] = { 3, LAYOUT_VERSION + 1 };

	legacy_make();
	for (size_t v = 0; v < sizeof versions / sizeof versions[0]; v++) {
		char sentence[80];

		legacy_lay_out();
		snprintf(sentence, sizeof sentence, "layout_version is %u, %d expected", versions[v],
		         LAYOUT_VERSION);
		for (uint32_t i = 0; i < left.count; i++)
			((struct segment_header *)(void *)segment_of(i)->base)->layout_version = versions[v];
		ck_assert(!adopt());
		ck_assert_uint_eq(host.complaint_count, 1);
		ck_assert_msg(strstr(host.event, sentence) != NULL, "%s", host.event);
	}
	legacy_finish();
}
END_TEST

START_TEST(any_segment_may_be_missing)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++) {
		legacy_lay_out();
		free(segment_of(i)->base);
		*segment_of(i) = (struct fake_segment){ NULL, 0, 0 };
		if (i != legacy.head) {
			adopt_damaged("missing", i, 0);
			continue;
		}
		/* Nothing is left that says that there was a model. */
		ck_assert(!adopt());
	}
	legacy_finish();
}
END_TEST

START_TEST(any_segment_may_be_of_another_size)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++) {
		const uint64_t whole = left.segments[i].bytes;
		const uint64_t sizes[] = { 64,    200,   LAYOUT_PAGE_BYTES, whole / 2 / LAYOUT_PAGE_BYTES * LAYOUT_PAGE_BYTES,
			                   whole - LAYOUT_PAGE_BYTES, whole - 1, whole + LAYOUT_PAGE_BYTES };

		for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
			uint8_t *base = calloc(1, sizes[s] ? sizes[s] : 1);

			legacy_lay_out();
			memcpy(base, left.bytes[i], sizes[s] < whole ? sizes[s] : whole);
			free(segment_of(i)->base);
			segment_of(i)->base = base;
			segment_of(i)->bytes = sizes[s];
			adopt_damaged("size", sizes[s], i);
		}
	}
	legacy_finish();
}
END_TEST

/* Two segments have changed their names, their contents are as they were. */
START_TEST(any_two_segments_may_be_exchanged)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++)
		for (uint32_t j = 0; j < i; j++) {
			uint64_t segment;

			legacy_lay_out();
			segment = segment_of(i)->segment;
			segment_of(i)->segment = segment_of(j)->segment;
			segment_of(j)->segment = segment;
			adopt_damaged("exchanged", i, j);
		}
	legacy_finish();
}
END_TEST

/* By the same name, or with the contents of another one below its own name. */
START_TEST(any_segment_may_be_there_twice)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++) {
		struct fake_segment *extra = &host.segments[FAKE_SEGMENT_COUNT_MAX - 1];

		legacy_lay_out();
		*extra = *segment_of(i);
		extra->base = aligned_alloc(LAYOUT_PAGE_BYTES, extra->bytes);
		memcpy(extra->base, segment_of(i)->base, extra->bytes);
		ck_assert(adopt());
		ck_assert(is_right());
		ck_assert_uint_eq(host.segment_bytes, left.total_bytes);
		for (uint32_t j = 0; j < left.count; j++) {
			if (j == i || left.segments[j].bytes != left.segments[i].bytes)
				continue;
			legacy_lay_out();
			memcpy(segment_of(j)->base, left.bytes[i], left.segments[i].bytes);
			adopt_damaged("copied", i, j);
		}
	}
	legacy_finish();
}
END_TEST

START_TEST(any_segment_may_be_called_one_of_another_kind)
{
	legacy_make();
	for (uint32_t i = 0; i < left.count; i++)
		for (uint64_t kind = 0; kind < 4; kind++) {
			if (kind == (left.segments[i].segment & 3))
				continue;
			legacy_lay_out();
			segment_of(i)->segment = (segment_of(i)->segment & ~UINT64_C(3)) | kind;
			adopt_damaged("kind", kind, i);
		}
	legacy_finish();
}
END_TEST

/* A trainer that has been handed a stage makes it look like the head of a model that outranks every other. */
START_TEST(a_trainer_cannot_make_a_head_of_its_stages)
{
	struct head_header *head;
	struct fake_segment *stage;

	legacy_make();
	legacy_lay_out();
	stage = segment_of(legacy.stage);
	free(stage->base);
	/* As large as a head, which the trainer's stages may well be. */
	stage->bytes = left.segments[legacy.head].bytes;
	stage->base = aligned_alloc(LAYOUT_PAGE_BYTES, stage->bytes);
	memcpy(stage->base, left.bytes[legacy.head], stage->bytes);
	head = (void *)stage->base;
	head->segment.segment = stage->segment;
	head->segment.model = 1000;
	segment_header_seal(&head->segment);
	ck_assert(adopt());
	/* The model is its own, and goes on; only what was in these stages is lost, which is said. */
	ck_assert_uint_eq(service_find(host.service, "net", 3)->id, 1);
	ck_assert_uint_gt(host.complaint_count, 0);
	legacy_finish();
}
END_TEST

/* Whatever a trainer writes into the part of its segment that it may write to. */
START_TEST(a_trainer_may_write_anything_into_its_stages)
{
	uint64_t state = 88172645463325252;

	legacy_make();
	for (int i = 0; i < 300; i++) {
		struct fake_segment *stage;

		legacy_lay_out();
		stage = segment_of(legacy.stage);
		for (uint64_t n = 1 + random_below(&state, 40); n > 0; n--) {
			uint64_t at = random_below(&state, 3) ? random_below(&state, sizeof(struct stage_header))
			                                      : stage->bytes - 1 - random_below(&state, LAYOUT_PAGE_BYTES);

			stage->base[at] = (uint8_t)random_next(&state);
		}
		/* Its header is sealed anew, as if it were right. */
		if (random_below(&state, 2))
			segment_header_seal((void *)stage->base);
		if (adopt())
			fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
		ck_assert_uint_eq(host.segment_count, 0);
	}
	legacy_finish();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_damage");
	TCase *bits = tcase_create("bits"), *segments = tcase_create("segments");
	SRunner *runner;
	int failed;

	tcase_set_timeout(bits, wants_all() ? 1800 : 60);
	tcase_set_timeout(segments, 60);
	tcase_add_test(bits, any_bit_of_a_head_may_be_wrong);
	tcase_add_test(bits, any_bit_of_a_book_may_be_wrong);
	tcase_add_test(bits, any_bit_of_a_slot_may_be_wrong);
	tcase_add_test(bits, any_bit_of_a_stage_may_be_wrong);
	tcase_add_test(segments, everything_as_it_was_is_adopted);
	tcase_add_test(segments, memory_of_another_layout_is_given_back);
	tcase_add_test(segments, any_segment_may_be_missing);
	tcase_add_test(segments, any_segment_may_be_of_another_size);
	tcase_add_test(segments, any_two_segments_may_be_exchanged);
	tcase_add_test(segments, any_segment_may_be_there_twice);
	tcase_add_test(segments, any_segment_may_be_called_one_of_another_kind);
	tcase_add_test(segments, a_trainer_cannot_make_a_head_of_its_stages);
	tcase_add_test(segments, a_trainer_may_write_anything_into_its_stages);
	suite_add_tcase(suite, bits);
	suite_add_tcase(suite, segments);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
