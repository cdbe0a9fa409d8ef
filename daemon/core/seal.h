/*
 * Seals: the words by which the records in a head are committed, and by which the next daemon knows that they are still
 * as they were.
 *
 *     seal:   | checksum over the record, 56 bits | what the record is, 8 bits |
 *     count:  | complement of the count, 32 bits  | count, 32 bits             |
 *
 * A daemon may be killed between any two stores, so a checksum beside a state would make good records look bad. In one
 * word they come into force together: a record that does not match its seal was not written so by any daemon. What is
 * written while a seal stands, for the next one, is not under it:
 *
 *     stage:   FREE (0) --> READY (not version) --> APPLYING --> FREE
 *     answer:  none (0) --> ACCEPTED (not version, calls) --> decided
 *     claim:   NONE (0) --> HELD <--> VACATED
 *
 * A bit that turns in a record whose seal is 0 changes nothing but that seal. One damaged record in 2^56 is believed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/layout.h"
#include "proto/message.h"

/* The seal that makes the record what is said. */
uint64_t seal_stage(const struct stage_record *stage, enum stage_state state);
uint64_t seal_answer(const struct answer_record *answer, enum outcome outcome);
uint64_t seal_claim(const struct rank_record *record, enum claim_state state);

/* Whether the record is as it was sealed. */
bool seal_stage_holds(const struct stage_record *stage);
bool seal_answer_holds(const struct answer_record *answer);
bool seal_claim_holds(const struct rank_record *record);

/* Commits a record, behind everything that was written before. */
static inline void seal_set(_Atomic uint64_t *seal, uint64_t value)
{
	layout_barrier();
	atomic_store_explicit(seal, value, memory_order_release);
	layout_barrier();
}

/* What a seal says of its record, whether it holds or not. */
static inline uint8_t seal_value(const _Atomic uint64_t *seal)
{
	return (uint8_t)atomic_load_explicit(seal, memory_order_relaxed);
}

static inline enum stage_state stage_state(const struct stage_record *stage)
{
	return (enum stage_state)seal_value(&stage->seal);
}

/* A count that says of itself whether it is whole. It stays at its largest value. */
uint64_t seal_count(uint64_t count);
bool seal_count_holds(uint64_t word);

static inline uint64_t seal_counted(const _Atomic uint64_t *word)
{
	return (uint32_t)atomic_load_explicit(word, memory_order_relaxed);
}
