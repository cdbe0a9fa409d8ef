/*
 * The shared memory: sizes, checksums, and the format pinned down.
 *
 * Segments outlive the program that made them, so the place of every member is asserted: whoever changes a structure
 * finds out here that this changes LAYOUT_VERSION. Implicit padding would put undefined bytes under the checksums.
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
#include "proto/layout.h"
#pragma GCC diagnostic pop

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#define MEMBER_AT(type, member, offset)                                                                               \
	_Static_assert(offsetof(struct type, member) == (offset), "the place of " #type "." #member)
#define TYPE_IS(type, bytes)                                                                                          \
	_Static_assert(sizeof(struct type) == (bytes), "the size of " #type);                                         \
	_Static_assert(_Alignof(struct type) == 8, "the alignment of " #type)

_Static_assert(sizeof(_Atomic uint32_t) == 4 && sizeof(_Atomic uint64_t) == 8, "atomics are plain numbers in memory");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LONG_LOCK_FREE == 2, "atomics work between processes");
_Static_assert(PROFILE_COUNT_MAX == 16 && STAGE_COUNT_MAX == 8 && SLOT_COUNT_MAX == 16 && ANSWER_COUNT == 16 &&
                       METADATA_BYTES_MAX == 4096 && PROFILE_NAME_BYTES_MAX == 64,
               "array sizes of version 5");
_Static_assert((LAYOUT_VERSION & (LAYOUT_VERSION - 1)) != 0, "one bit more or less is not 0");
_Static_assert(LAYOUT_VERSION == 5, "the places below are those of version 5");

TYPE_IS(segment_header, 64);
MEMBER_AT(segment_header, magic, 0);
MEMBER_AT(segment_header, layout_version, 8);
MEMBER_AT(segment_header, kind, 12);
MEMBER_AT(segment_header, segment_bytes, 16);
MEMBER_AT(segment_header, segment, 24);
MEMBER_AT(segment_header, model, 32);
MEMBER_AT(segment_header, geometry, 40);
MEMBER_AT(segment_header, index, 48);
MEMBER_AT(segment_header, checksum, 56);

TYPE_IS(slot_profile, 80);
MEMBER_AT(slot_profile, region_offset, 0);
MEMBER_AT(slot_profile, region_bytes, 8);
MEMBER_AT(slot_profile, updates, 16);
MEMBER_AT(slot_profile, calls, 24);
MEMBER_AT(slot_profile, decay_rest, 32);
MEMBER_AT(slot_profile, decay, 40);
MEMBER_AT(slot_profile, action, 48);
MEMBER_AT(slot_profile, reserved, 52);
MEMBER_AT(slot_profile, nonfinite, 56);
MEMBER_AT(slot_profile, drift, 64);
MEMBER_AT(slot_profile, value_norm, 72);

TYPE_IS(slot_header, 1440);
MEMBER_AT(slot_header, segment, 0);
MEMBER_AT(slot_header, fence, 64);
MEMBER_AT(slot_header, version, 72);
MEMBER_AT(slot_header, step, 80);
MEMBER_AT(slot_header, updates, 88);
MEMBER_AT(slot_header, calls, 96);
MEMBER_AT(slot_header, published_us, 104);
MEMBER_AT(slot_header, profile_count, 112);
MEMBER_AT(slot_header, reserved, 116);
MEMBER_AT(slot_header, notes_offset, 120);
MEMBER_AT(slot_header, description_offset, 128);
MEMBER_AT(slot_header, description_bytes, 136);
MEMBER_AT(slot_header, description_checksum, 144);
MEMBER_AT(slot_header, profiles, 152);
MEMBER_AT(slot_header, checksum, 1432);
_Static_assert(sizeof(struct slot_header) <= LAYOUT_PAGE_BYTES, "a slot's facts are one page");

TYPE_IS(slot_notes, 4112);
MEMBER_AT(slot_notes, checksum, 0);
MEMBER_AT(slot_notes, metadata_bytes, 8);
MEMBER_AT(slot_notes, metadata, 16);

TYPE_IS(stage_header, 120);
MEMBER_AT(stage_header, segment, 0);
MEMBER_AT(stage_header, stage_count, 64);
MEMBER_AT(stage_header, reserved, 68);
MEMBER_AT(stage_header, stage_stride, 72);
MEMBER_AT(stage_header, stage_bytes, 80);
MEMBER_AT(stage_header, state, 88);
_Static_assert(sizeof(struct stage_header) <= LAYOUT_PAGE_BYTES, "the first stage begins behind one page");

TYPE_IS(answer_record, 48);
MEMBER_AT(answer_record, seal, 0);
MEMBER_AT(answer_record, sequence, 8);
MEMBER_AT(answer_record, step, 16);
MEMBER_AT(answer_record, version, 24);
MEMBER_AT(answer_record, calls, 32);
MEMBER_AT(answer_record, stage, 40);

TYPE_IS(stage_record, 128);
MEMBER_AT(stage_record, seal, 0);
MEMBER_AT(stage_record, step, 8);
MEMBER_AT(stage_record, sequence, 16);
MEMBER_AT(stage_record, version, 24);
MEMBER_AT(stage_record, updates, 32);
MEMBER_AT(stage_record, seeds, 40);
MEMBER_AT(stage_record, metadata_bytes, 44);
MEMBER_AT(stage_record, metadata_checksum, 48);
MEMBER_AT(stage_record, profile, 56);

TYPE_IS(rank_record, 1864);
MEMBER_AT(rank_record, seal, 0);
MEMBER_AT(rank_record, client, 8);
MEMBER_AT(rank_record, epoch, 16);
MEMBER_AT(rank_record, register_sequence, 24);
MEMBER_AT(rank_record, refused, 32);
MEMBER_AT(rank_record, coalesced, 40);
MEMBER_AT(rank_record, stage_segment, 48);
MEMBER_AT(rank_record, pieces_bytes, 56);
MEMBER_AT(rank_record, pieces_checksum, 64);
MEMBER_AT(rank_record, stages, 72);
MEMBER_AT(rank_record, answers, 1096);

TYPE_IS(head_header, 320);
MEMBER_AT(head_header, segment, 0);
MEMBER_AT(head_header, name, 64);
MEMBER_AT(head_header, world, 272);
MEMBER_AT(head_header, slot_count, 276);
MEMBER_AT(head_header, stage_count, 280);
MEMBER_AT(head_header, gone, 284);
MEMBER_AT(head_header, epoch, 288);
MEMBER_AT(head_header, leased, 296);
MEMBER_AT(head_header, version, 304);
MEMBER_AT(head_header, checksum, 312);

TYPE_IS(book, 192);
MEMBER_AT(book, number, 0);
MEMBER_AT(book, checksum, 8);
MEMBER_AT(book, text_bytes, 16);
MEMBER_AT(book, ancestor, 24);
MEMBER_AT(book, heirloom, 32);
MEMBER_AT(book, checkpoint_version, 40);
MEMBER_AT(book, checkpoint_step, 48);
MEMBER_AT(book, checkpoint_lags, 56);
MEMBER_AT(book, slots, 64);
MEMBER_AT(book, text, 192);
_Static_assert(BOOK_BYTES % LAYOUT_PAGE_BYTES == 0, "books begin on pages");

uint64_t layout_metadata_offset(uint32_t world, uint32_t stage)
{
	return sizeof(struct head_header) + (uint64_t)world * sizeof(struct rank_record) +
	       (uint64_t)stage * METADATA_BYTES_MAX;
}

uint64_t layout_book_offset(uint32_t world, uint32_t stage_count, uint32_t book)
{
	return layout_page_round(layout_metadata_offset(world, stage_count)) + (uint64_t)book * BOOK_BYTES;
}

uint64_t layout_head_bytes(uint32_t world, uint32_t stage_count)
{
	return layout_book_offset(world, stage_count, BOOK_COUNT);
}

/* Adds bytes, rounded up to pages, to *total, which is a multiple of a page. False beyond what can be addressed. */
static bool pages_add(uint64_t *total, uint64_t bytes)
{
	uint64_t sum;

	if (__builtin_add_overflow(*total, bytes, &sum) || sum > INT64_MAX - LAYOUT_PAGE_BYTES)
		return false;
	*total = layout_page_round(sum);
	return true;
}

int layout_stage_bytes(uint64_t stage_bytes, uint32_t stage_count, uint64_t *ret_stride, uint64_t *ret_bytes)
{
	uint64_t stride = 0, total = LAYOUT_PAGE_BYTES;

	if (!pages_add(&stride, stage_bytes))
		return -EOVERFLOW;
	for (uint32_t i = 0; i < stage_count; i++) {
		if (!pages_add(&total, stride))
			return -EOVERFLOW;
	}
	*ret_stride = stride;
	*ret_bytes = total;
	return 0;
}

int layout_slot(const uint64_t *image_bytes, uint32_t profile_count, uint32_t tensor_count, uint64_t description_bytes,
                struct slot_places *ret_places)
{
	uint64_t total = LAYOUT_PAGE_BYTES;
	struct slot_places places = { .end = 0 };

	assert(profile_count <= PROFILE_COUNT_MAX);
	for (uint32_t i = 0; i < profile_count; i++) {
		places.regions[i] = total;
		if (!pages_add(&total, image_bytes[i]))
			return -EOVERFLOW;
	}
	places.notes = total;
	if (!pages_add(&total, sizeof(struct slot_notes) + tensor_count * sizeof(double)))
		return -EOVERFLOW;
	places.description = total;
	if (!pages_add(&total, description_bytes))
		return -EOVERFLOW;
	places.end = total;
	*ret_places = places;
	return 0;
}

uint64_t layout_checksum(const void *bytes, size_t count)
{
	return XXH3_64bits(bytes, count);
}

/* Nobody else knows the library's own. */
static XXH3_state_t *state_of(struct layout_sum *sum)
{
	return (XXH3_state_t *)sum;
}

struct layout_sum *layout_sum_begin(void)
{
	XXH3_state_t *state = XXH3_createState();

	if (state)
		(void)XXH3_64bits_reset(state);
	return (struct layout_sum *)state;
}

void layout_sum_add(struct layout_sum *sum, const void *bytes, size_t count)
{
	(void)XXH3_64bits_update(state_of(sum), bytes, count);
}

uint64_t layout_sum_end(struct layout_sum *sum)
{
	uint64_t checksum = sum ? XXH3_64bits_digest(state_of(sum)) : 0;

	(void)XXH3_freeState(state_of(sum));
	return checksum;
}

static uint64_t segment_header_checksum(const struct segment_header *header)
{
	struct segment_header copy;

	memcpy(&copy, header, sizeof(copy));
	atomic_init(&copy.layout_version, LAYOUT_VERSION);
	return layout_checksum(&copy, offsetof(struct segment_header, checksum));
}

void segment_header_seal(struct segment_header *header)
{
	header->magic = SEGMENT_MAGIC;
	header->checksum = segment_header_checksum(header);
	/* Pairs with the acquire in segment_header_check. */
	atomic_store_explicit(&header->layout_version, LAYOUT_VERSION, memory_order_release);
}

static int version_check(uint32_t version, uint64_t magic, struct reason *reason)
{
	/* Before the magic: a segment that is just being made is all zeros. */
	if (version == 0)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the segment's layout_version is 0, %d expected: it is not complete", LAYOUT_VERSION);
	if (magic != SEGMENT_MAGIC)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the segment's magic is 0x%016" PRIx64 ", 0x%016" PRIx64 " expected", magic,
		                  SEGMENT_MAGIC);
	if (version != LAYOUT_VERSION)
		return reason_set(reason, STATUS_EVERSION, "the segment's layout_version is %u, %d expected", version,
		                  LAYOUT_VERSION);
	return 0;
}

int segment_header_check(const struct segment_header *header, enum segment_kind kind, uint64_t segment_bytes,
                         struct reason *reason)
{
	struct segment_header copy;
	uint64_t checksum;
	uint32_t version;
	int r;

	if (segment_bytes < sizeof(copy))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the segment has %" PRIu64 " bytes, fewer than the %zu of its header", segment_bytes,
		                  sizeof(copy));
	/* Pairs with the release in segment_header_seal. */
	version = atomic_load_explicit(&header->layout_version, memory_order_acquire);
	/* A trainer may write into its stage's header at any time: what is checked is a copy. */
	memcpy(&copy, header, sizeof(copy));
	r = version_check(version, copy.magic, reason);
	if (r != 0)
		return r;
	checksum = segment_header_checksum(&copy);
	if (copy.checksum != checksum)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the segment header's checksum is 0x%016" PRIx64 ", 0x%016" PRIx64 " expected",
		                  copy.checksum, checksum);
	if (copy.kind != kind)
		return reason_set(reason, STATUS_ECORRUPT, "the segment's kind is %u, %u expected", copy.kind,
		                  (unsigned)kind);
	if (copy.segment_bytes != segment_bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the segment's segment_bytes is %" PRIu64 ", %" PRIu64 " expected",
		                  copy.segment_bytes, segment_bytes);
	return 0;
}

uint64_t slot_header_checksum(const struct slot_header *header)
{
	const size_t begin = offsetof(struct slot_header, version);

	return layout_checksum((const char *)header + begin, offsetof(struct slot_header, checksum) - begin);
}

uint64_t head_header_checksum(const struct head_header *header)
{
	const size_t begin = offsetof(struct head_header, name);

	return layout_checksum((const char *)header + begin, offsetof(struct head_header, gone) - begin);
}
