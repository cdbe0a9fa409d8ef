/*
 * The shared memory: three kinds of segments, each created by the daemon, each beginning with the same header.
 *
 *   head  (one a model)      what the daemon must not forget: registrations, READY stages, the last answers, and the
 *                            model's facts as text. Written by the daemon only; nobody else maps it.
 *   slot  (2..16 a model)    one version: a page of facts, then one safetensors image per profile, page-aligned, and
 *                            behind them what only the daemon reads. Readers map it read-only.
 *   stage (one a rank)       1..8 stages into which the trainer writes its pieces, and a list of these pieces. The
 *                            trainer maps it read-write; the daemon believes nothing in it but the weights.
 *
 *   slot:   | slot_header, padded to a page | image of profile 0 | pad | image of profile 1 | pad | ...
 *           | slot_notes | sum x^2 of each tensor | pad | description: tensors and profiles |
 *   stage:  | stage_header, padded to a page | stage 0 | pad to a page | stage 1 | ... | pieces of the rank |
 *   head:   | head_header | rank_record x world | metadata x stages | pad | book 0 | book 1 |
 *
 * A segment's identity says its kind, and stands in its name wherever it is kept: what a trainer writes into its stages'
 * header makes no head of them.
 *
 * A segment's layout_version is written last: until then a reader sees 0 and knows that the segment is not ready.
 * All numbers are in the byte order of the host: the memory never leaves it.
 *
 * The segments outlive the daemon, which may be killed between any two instructions; the next one goes on from what it
 * finds. What is written in several stores is therefore committed by the last of them, behind layout_barrier().
 *
 * A record of a rank is believed only as it was committed: its last store is of one word, the seal, which says in its
 * lowest byte what the record is, and in the others a checksum over it (daemon/core/seal.h). What changes while a seal
 * stands is left out of it. 0 is the seal of a record that holds nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/status.h"

#define SEGMENT_MAGIC UINT64_C(0x4745532d44414d45) /* the bytes "EMAD-SEG" */

enum {
	LAYOUT_VERSION = 5, /* no power of two: no single bit makes it of 0, or 0 of it */
	LAYOUT_PAGE_BYTES = 4096,
	ANSWER_COUNT = 16, /* answers remembered per rank */
	BOOK_BYTES = 192 * 1024, /* of one book, in whole pages */
	BOOK_COUNT = 2,    /* one is valid while the other one is written */
};

enum segment_kind {
	SEGMENT_HEAD = 1,
	SEGMENT_SLOT = 2,
	SEGMENT_STAGE = 3,
};

/* The identity of a segment of that kind. */
static inline uint64_t segment_identity(uint64_t random, enum segment_kind kind)
{
	return random << 2 | (uint64_t)kind;
}

static inline enum segment_kind segment_identity_kind(uint64_t segment)
{
	return (enum segment_kind)(segment & 3);
}

struct segment_header {
	uint64_t magic;
	_Atomic uint32_t layout_version; /* written last, with release */
	uint32_t kind;
	uint64_t segment_bytes;
	uint64_t segment; /* random identity of this segment, made by segment_identity */
	uint64_t model;   /* number of the model's memory: equal in all its segments */
	uint64_t geometry; /* checksum over manifest and profiles, as they were when it was made */
	uint64_t index;    /* slot number, or rank */
	uint64_t checksum; /* over the members above, layout_version taken as LAYOUT_VERSION */
};

/* One profile of one version. */
struct slot_profile {
	uint64_t region_offset; /* bytes from the segment's start */
	uint64_t region_bytes;
	uint64_t updates; /* updates since the start of the shadow */
	uint64_t calls;   /* of the schedule, also those that did not count as updates */
	double decay_rest; /* 1 - the product of all decays since the start */
	double decay;     /* of the last update */
	uint32_t action;  /* enum schedule_action of the last update */
	uint32_t reserved;
	uint64_t nonfinite; /* tensors whose average holds NaN or infinity; only where the guards let them in */
	double drift;      /* sqrt(sum (x-s)^2) over all averaged elements, x the snapshot, s the shadow before */
	double value_norm; /* sqrt(sum x^2) */
};

struct slot_header {
	struct segment_header segment;
	_Atomic uint64_t fence;   /* bumped before the slot is overwritten; a reader compares it with its lease's */
	_Atomic uint64_t version; /* sequence number; 0 while the slot is being written; stored last, with release */
	uint64_t step;
	uint64_t updates;
	uint64_t calls; /* that its snapshot stood for */
	uint64_t published_us; /* wall clock, microseconds since 1970 */
	uint32_t profile_count;
	uint32_t reserved;
	uint64_t notes_offset;       /* bytes from the segment's start, like the next */
	uint64_t description_offset;
	uint64_t description_bytes;
	uint64_t description_checksum;
	struct slot_profile profiles[PROFILE_COUNT_MAX];
	uint64_t checksum; /* over version .. profiles */
};

/* What else the daemon knows of a version. Behind it sum x^2 of each tensor's snapshot, as doubles. */
struct slot_notes {
	uint64_t checksum;       /* over all that follows, also behind this struct */
	uint64_t metadata_bytes; /* 0: none was pushed with it */
	char metadata[METADATA_BYTES_MAX];
};

enum stage_state {
	STAGE_FREE,     /* the trainer may fill it */
	STAGE_READY,    /* a whole snapshot, acknowledged */
	STAGE_APPLYING, /* the workers read it */
};

struct stage_header {
	struct segment_header segment;
	uint32_t stage_count;
	uint32_t reserved;
	uint64_t stage_stride; /* bytes from one stage to the next; the first begins at LAYOUT_PAGE_BYTES */
	uint64_t stage_bytes;  /* bytes of the pieces in one stage */
	_Atomic uint32_t state[STAGE_COUNT_MAX]; /* a mirror for the trainer; the daemon's own record is in the head */
};

/* An answer kept so that a repeated request is answered and not applied again. */
struct answer_record {
	_Atomic uint64_t seal; /* 1 more than the enum outcome; 0: no answer */
	uint64_t sequence;
	uint64_t step;
	uint64_t version; /* this and the next are sealed once the snapshot is decided */
	uint64_t calls;   /* that the snapshot stood for, once it is applied */
	uint64_t stage;
};

/* What is known of the snapshot in a stage; valid while it is not FREE. */
struct stage_record {
	_Atomic uint64_t seal; /* enum stage_state */
	uint64_t step;
	uint64_t sequence;
	uint64_t version; /* that it becomes a part of; sealed when it is APPLYING */
	uint64_t updates;
	uint32_t seeds; /* 1: the snapshot is the average itself, of this profile after so many updates */
	uint32_t metadata_bytes;    /* of the metadata pushed with it, which of rank 0 is kept behind the records */
	uint64_t metadata_checksum; /* over these */
	char profile[PROFILE_NAME_BYTES_MAX + 8];
};

enum claim_state {
	CLAIM_NONE,    /* nobody holds the rank */
	CLAIM_HELD,    /* the client does */
	CLAIM_VACATED, /* the client did: another registration is taking over */
};

struct rank_record {
	_Atomic uint64_t seal; /* enum claim_state, over the next three */
	uint64_t client;
	uint64_t epoch; /* also of a rank that is being claimed; 0: it never was */
	uint64_t register_sequence;
	_Atomic uint64_t refused;   /* a count in the lower half and its complement in the upper one; 0 for 0 as well */
	_Atomic uint64_t coalesced; /* the same */
	uint64_t stage_segment;   /* identity of its stages' segment; 0: none */
	uint64_t pieces_bytes;    /* of the list of pieces at the end of that segment, */
	uint64_t pieces_checksum; /* which the trainer could write to */
	struct stage_record stages[STAGE_COUNT_MAX];
	struct answer_record answers[ANSWER_COUNT]; /* ring, by sequence % ANSWER_COUNT */
};

enum { HEAD_GONE = 0x656e6f67 }; /* the bytes "gone": no single bit makes it of 0, or 0 of it */

struct head_header {
	struct segment_header segment;
	char name[MODEL_NAME_BYTES_MAX + 8];
	uint32_t world;
	uint32_t slot_count;
	uint32_t stage_count;
	uint32_t gone; /* 0, or HEAD_GONE: the model was removed or replaced, and its memory is about to be given back */
	uint64_t epoch; /* the newest handed out */
	uint64_t leased; /* slots that readers hold: bits by index, behind the slots the heirloom's */
	uint64_t version; /* the newest published: written behind the slot's own */
	uint64_t checksum; /* over name .. stage_count, which stay as they were made */
};

/*
 * A model's facts: all but the averages, the tensors and what stands in the records. The newer one of two that check is
 * valid. The text is that of generation_text.h.
 */
struct book {
	uint64_t number; /* counts the books of a head; 0: this one was never written */
	uint64_t checksum; /* over number and everything behind this member, up to the end of the text */
	uint64_t text_bytes;
	uint64_t ancestor; /* number of the model whose newest version it waits to inherit; 0: none */
	uint64_t heirloom; /* identity of the segment of an earlier geometry that holds the newest version; 0: none */
	uint64_t checkpoint_version; /* the newest on disk of this very average; 0: none */
	uint64_t checkpoint_step;
	uint64_t checkpoint_lags; /* 1: more was said of the model since */
	uint64_t slots[SLOT_COUNT_MAX]; /* identities of the slots' segments */
	uint8_t text[];
};

/* Stores before it are not moved behind those after it: whoever dies between them has done the former. */
static inline void layout_barrier(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* Bytes of a head with that many ranks and stages, in whole pages. */
uint64_t layout_head_bytes(uint32_t world, uint32_t stage_count);

/* Where the metadata of a stage of rank 0, and where a book begins; bytes from the head's start. */
uint64_t layout_metadata_offset(uint32_t world, uint32_t stage);
uint64_t layout_book_offset(uint32_t world, uint32_t stage_count, uint32_t book);

/*
 * Bytes of the stages' part of a stage segment, in whole pages: the pieces begin there. *ret_stride receives the
 * distance between stages. -EOVERFLOW.
 */
int layout_stage_bytes(uint64_t stage_bytes, uint32_t stage_count, uint64_t *ret_stride, uint64_t *ret_bytes);

/* Where things lie in a slot, in bytes from its start. */
struct slot_places {
	uint64_t regions[PROFILE_COUNT_MAX]; /* the images */
	uint64_t notes;
	uint64_t description;
	uint64_t end; /* in whole pages */
};

/* -EOVERFLOW. */
int layout_slot(const uint64_t *image_bytes, uint32_t profile_count, uint32_t tensor_count, uint64_t description_bytes,
                struct slot_places *ret_places);

static inline uint64_t layout_page_round(uint64_t bytes)
{
	return (bytes + LAYOUT_PAGE_BYTES - 1) & ~(uint64_t)(LAYOUT_PAGE_BYTES - 1);
}

/* The 64-bit checksum (xxh3) used by all layouts. */
uint64_t layout_checksum(const void *bytes, size_t count);

/*
 * The same of bytes that come one part after the other, as long as they are in the processor's cache. NULL: no memory.
 * layout_sum_end frees it, and NULL is allowed.
 */
struct layout_sum;
struct layout_sum *layout_sum_begin(void);
void layout_sum_add(struct layout_sum *sum, const void *bytes, size_t count);
uint64_t layout_sum_end(struct layout_sum *sum);

/* Fills in magic and checksum, and layout_version last. Everything else must be set. */
void segment_header_seal(struct segment_header *header);

/*
 * 0 when the header is whole and says what is expected. STATUS_ECORRUPT or STATUS_EVERSION with a sentence naming
 * the member and both values. segment_bytes: the real size of the mapping.
 */
int segment_header_check(const struct segment_header *header, enum segment_kind kind, uint64_t segment_bytes,
                         struct reason *reason);

/*
 * The checksum over a slot's facts: version .. profiles. As version is stored last, the writer computes it over a copy
 * of the header in which version is already set.
 */
uint64_t slot_header_checksum(const struct slot_header *header);

/* The checksum over what stays the same in a head: name .. stage_count. */
uint64_t head_header_checksum(const struct head_header *header);
