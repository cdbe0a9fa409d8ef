/*
 * Pairs of tensors, and their walk through both operands. See comparison.h.
 */
#include "client/emactl/comparison.h"

#include "proto/status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool shapes_equal(const struct safetensors_entry *a, const struct safetensors_entry *b)
{
	return a->dimension_count == b->dimension_count &&
	       memcmp(a->extents, b->extents, a->dimension_count * sizeof(a->extents[0])) == 0;
}

int comparison_pair(struct comparison *comparison)
{
	const struct safetensors *a = comparison->a.contents, *b = comparison->b.contents;
	struct pair *pair = calloc((size_t)a->entry_count + b->entry_count + 1, sizeof(*pair));

	if (!pair)
		return -ENOMEM;
	comparison->pairs = pair;
	for (uint32_t i = 0; i < a->entry_count; i++, pair++) {
		pair->a = &a->entries[i];
		pair->b = safetensors_find(b, pair->a->name);
		pair->is_comparable = pair->b && shapes_equal(pair->a, pair->b);
		comparison->compared_count += pair->is_comparable;
		comparison->only_a_count += !pair->b;
		comparison->reshaped_count += pair->b && !pair->is_comparable;
	}
	for (uint32_t i = 0; i < b->entry_count; i++) {
		if (safetensors_find(a, b->entries[i].name))
			continue;
		(pair++)->b = &b->entries[i];
		comparison->only_b_count++;
	}
	comparison->pair_count = (uint32_t)(pair - comparison->pairs);
	return 0;
}

/* Room for a chunk of each side in the widest dtype. */
struct chunks {
	uint8_t a[NUMBERS_CHUNK_COUNT * sizeof(double)];
	uint8_t b[NUMBERS_CHUNK_COUNT * sizeof(double)];
};

static int pair_run(struct comparison *comparison, struct pair *pair, struct chunks *chunks, struct reason *reason)
{
	const uint64_t a_bytes = dtype_bytes(pair->a->dtype), b_bytes = dtype_bytes(pair->b->dtype);
	const uint64_t element_count = pair->a->bytes / a_bytes;
	int code = 0;

	for (uint64_t done = 0; done < element_count && !code;) {
		const uint64_t left = element_count - done;
		const size_t count = left < NUMBERS_CHUNK_COUNT ? (size_t)left : NUMBERS_CHUNK_COUNT;

		code = operand_read(&comparison->a, pair->a->offset + done * a_bytes, chunks->a, count * a_bytes, reason);
		if (!code)
			code = operand_read(&comparison->b, pair->b->offset + done * b_bytes, chunks->b, count * b_bytes,
			                    reason);
		if (!code)
			difference_add(&pair->difference, pair->a->dtype, chunks->a, pair->b->dtype, chunks->b, count);
		done += count;
	}
	return code;
}

/* The most distant first; ties by how much in all, then by name, so that the order is always the same. */
static int pair_compare(const void *left, const void *right)
{
	const struct pair *a = left, *b = right;
	double a_far, b_far;

	if (a->is_comparable != b->is_comparable)
		return a->is_comparable ? -1 : 1;
	if (a->is_comparable) {
		a_far = difference_relative(&a->difference);
		b_far = difference_relative(&b->difference);
		if (a_far > b_far || a_far < b_far)
			return a_far > b_far ? -1 : 1;
		a_far = difference_distance(&a->difference);
		b_far = difference_distance(&b->difference);
		if (a_far > b_far || a_far < b_far)
			return a_far > b_far ? -1 : 1;
	}
	return strcmp(a->a ? a->a->name : a->b->name, b->a ? b->a->name : b->b->name);
}

int comparison_run(struct comparison *comparison, struct progress *progress, struct reason *reason)
{
	struct chunks *chunks = malloc(sizeof(*chunks));
	uint64_t total_bytes = 0, done_bytes = 0;
	int code = chunks ? 0 : reason_set(reason, -ENOMEM, "not enough memory");

	for (uint32_t i = 0; i < comparison->pair_count; i++)
		total_bytes += comparison->pairs[i].is_comparable ? comparison->pairs[i].a->bytes : 0;
	for (uint32_t i = 0; i < comparison->pair_count && !code; i++) {
		struct pair *pair = &comparison->pairs[i];

		if (!pair->is_comparable)
			continue;
		code = pair_run(comparison, pair, chunks, reason);
		done_bytes += pair->a->bytes;
		progress_update(progress, done_bytes, total_bytes);
		comparison->differing_count += pair->difference.differing_count > 0;
		difference_merge(&comparison->total, &pair->difference);
		/* A version that is gone shows soon, not when all of it has been read. */
		if (!code)
			code = operand_check(&comparison->a, reason);
		if (!code)
			code = operand_check(&comparison->b, reason);
	}
	free(chunks);
	if (!code)
		qsort(comparison->pairs, comparison->pair_count, sizeof(*comparison->pairs), pair_compare);
	return code;
}

void comparison_finish(struct comparison *comparison)
{
	free(comparison->pairs);
	operand_close(&comparison->a);
	operand_close(&comparison->b);
	*comparison = (struct comparison){.a.source.fd = -1, .b.source.fd = -1};
}

bool comparison_differs(const struct comparison *comparison)
{
	return comparison->differing_count + comparison->only_a_count + comparison->only_b_count +
	               comparison->reshaped_count >
	       0;
}
