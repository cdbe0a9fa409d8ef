/*
 * The seals of a head's records. See seal.h.
 */
#include "daemon/core/seal.h"

#include <string.h>

enum { VALUE_BITS = 8 };

static uint64_t seal_make(uint64_t checksum, unsigned value)
{
	return checksum << VALUE_BITS | value;
}

uint64_t seal_stage(const struct stage_record *stage, enum stage_state state)
{
	struct stage_record copy;

	if (state == STAGE_FREE)
		return 0;
	memcpy(&copy, stage, sizeof copy);
	atomic_init(&copy.seal, (uint64_t)state);
	if (state != STAGE_APPLYING)
		copy.version = 0;
	return seal_make(layout_checksum(&copy, sizeof copy), state);
}

uint64_t seal_answer(const struct answer_record *answer, enum outcome outcome)
{
	struct answer_record copy;

	memcpy(&copy, answer, sizeof copy);
	atomic_init(&copy.seal, (uint64_t)outcome + 1);
	if (outcome == OUTCOME_ACCEPTED)
		copy.version = copy.calls = 0;
	return seal_make(layout_checksum(&copy, sizeof copy), (unsigned)outcome + 1);
}

uint64_t seal_claim(const struct rank_record *record, enum claim_state state)
{
	const uint64_t sealed[] = { state, record->client, record->epoch, record->register_sequence };

	return state == CLAIM_NONE ? 0 : seal_make(layout_checksum(sealed, sizeof sealed), state);
}

bool seal_stage_holds(const struct stage_record *stage)
{
	uint8_t state = seal_value(&stage->seal);

	return state <= STAGE_APPLYING && stage->seal == seal_stage(stage, (enum stage_state)state);
}

bool seal_answer_holds(const struct answer_record *answer)
{
	uint8_t value = seal_value(&answer->seal);

	if (answer->seal == 0)
		return true;
	return value >= 1 && value <= OUTCOME_COUNT &&
	       answer->seal == seal_answer(answer, (enum outcome)(value - 1));
}

bool seal_claim_holds(const struct rank_record *record)
{
	uint8_t state = seal_value(&record->seal);

	return state <= CLAIM_VACATED && record->seal == seal_claim(record, (enum claim_state)state);
}

uint64_t seal_count(uint64_t count)
{
	uint32_t kept = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;

	return (uint64_t)~kept << 32 | kept;
}

bool seal_count_holds(uint64_t word)
{
	/* As in memory that is new. */
	return word == 0 || word == seal_count((uint32_t)word);
}
