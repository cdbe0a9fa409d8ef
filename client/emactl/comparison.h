/*
 * Two sets of tensors side by side: which are in both, which in one alone, and how far those in both are apart.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emactl/numbers.h"
#include "client/emactl/operand.h"
#include "client/emactl/progress.h"

/* A tensor of a, of b, or of both. */
struct pair {
	const struct safetensors_entry *a, *b; /* borrowed from the operands; NULL: not there */
	bool is_comparable;                    /* in both, and of one shape */
	struct difference difference;          /* when it is */
};

struct comparison {
	struct operand a, b;
	uint32_t pair_count;
	struct pair *pairs; /* owned; after comparison_run the most distant first, those that cannot be compared last */
	uint32_t compared_count, differing_count; /* tensors */
	uint32_t only_a_count, only_b_count, reshaped_count;
	struct difference total;
};

/* Finds the pairs of two operands that are open. -ENOMEM. */
int comparison_pair(struct comparison *comparison);

/* Reads all of both. STATUS_EREVOKED, STATUS_ECORRUPT, -ENOMEM, -errno. */
int comparison_run(struct comparison *comparison, struct progress *progress, struct reason *reason);

/* Closes the operands as well. */
void comparison_finish(struct comparison *comparison);

/* Whether there is any difference. */
bool comparison_differs(const struct comparison *comparison);

/* What `emactl diff` prints; at most `top` tensors that differ. 0 or -ENOMEM. */
int comparison_print(const struct comparison *comparison, uint64_t top, bool is_colour);
void comparison_json(const struct comparison *comparison, uint64_t top);
