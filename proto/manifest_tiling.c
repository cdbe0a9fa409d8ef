/*
 * Whether the pieces of all ranks tile every tensor: no two overlap, and together they have all elements.
 *
 * Tensor by tensor, the boxes of all ranks are swept along the first dimension in which they differ: sorted by where
 * they begin, each is compared only with those before it that have not ended. For the usual sharding along one
 * dimension that is none, for a mesh of a x b ranks it is b. Only boxes arranged against the sweep make it quadratic
 * in the pieces of one tensor, whose number is bounded.
 */
#include "proto/manifest.h"

#include "proto/sentence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* A piece as the sweep sees it: an interval along the swept dimension. */
struct box {
	uint64_t begin, end;
	const struct piece *piece;
	uint32_t rank;
};

struct tiling {
	const struct manifest *const *ranks;
	uint32_t rank_count;
	uint32_t *next; /* owned; per rank, its first piece not yet looked at */
	uint32_t box_count;
	uint32_t box_capacity;
	struct box *boxes;  /* owned; of the tensor at hand */
	uint32_t *open;     /* owned; as large as boxes: those that have not ended */
};

static int tiling_grow(struct tiling *tiling)
{
	uint32_t capacity = tiling->box_capacity ? 2 * tiling->box_capacity : 64;
	struct box *boxes;
	uint32_t *open;

	boxes = realloc(tiling->boxes, capacity * sizeof(*boxes));
	if (!boxes)
		return -ENOMEM;
	tiling->boxes = boxes;
	open = realloc(tiling->open, capacity * sizeof(*open));
	if (!open)
		return -ENOMEM;
	tiling->open = open;
	tiling->box_capacity = capacity;
	return 0;
}

/* Collects the boxes of a tensor, but for empty ones, which neither cover nor collide. */
static int boxes_gather(struct tiling *tiling, uint32_t tensor)
{
	tiling->box_count = 0;
	for (uint32_t rank = 0; rank < tiling->rank_count; rank++) {
		const struct manifest *manifest = tiling->ranks[rank];
		uint32_t at = tiling->next[rank];

		for (; at < manifest->piece_count && manifest->pieces[at].tensor == tensor; at++) {
			const struct piece *piece = &manifest->pieces[at];

			if (piece->element_count == 0)
				continue;
			if (tiling->box_count == tiling->box_capacity && tiling_grow(tiling) != 0)
				return -ENOMEM;
			tiling->boxes[tiling->box_count++] = (struct box){.piece = piece, .rank = rank};
		}
		tiling->next[rank] = at;
	}
	return 0;
}

static int box_compare(const void *left, const void *right)
{
	const struct box *a = left, *b = right;

	return (a->begin > b->begin) - (a->begin < b->begin);
}

/* Sets the intervals along the first dimension in which the boxes begin differently, and sorts by it. */
static void boxes_sort(struct tiling *tiling, const struct tensor *tensor)
{
	struct box *boxes = tiling->boxes;
	bool is_sorted = true, differs = false;
	uint32_t dimension = 0;

	for (uint32_t d = 0; d < tensor->dimension_count && !differs; d++) {
		for (uint32_t i = 1; i < tiling->box_count && !differs; i++)
			differs = boxes[i].piece->offsets[d] != boxes[0].piece->offsets[d];
		if (differs)
			dimension = d;
	}
	for (uint32_t i = 0; i < tiling->box_count; i++) {
		const struct piece *piece = boxes[i].piece;

		/* Without dimensions there is one element, the interval [0, 1). */
		boxes[i].begin = piece->offsets[dimension];
		boxes[i].end = boxes[i].begin + (tensor->dimension_count > 0 ? piece->extents[dimension] : 1);
		if (i > 0 && boxes[i].begin < boxes[i - 1].begin)
			is_sorted = false;
	}
	if (!is_sorted)
		qsort(boxes, tiling->box_count, sizeof(*boxes), box_compare);
}

static bool pieces_overlap(const struct piece *a, const struct piece *b, uint32_t dimension_count)
{
	for (uint32_t d = 0; d < dimension_count; d++) {
		if (a->offsets[d] + a->extents[d] <= b->offsets[d] || b->offsets[d] + b->extents[d] <= a->offsets[d])
			return false;
	}
	return true;
}

static int overlap_report(const struct box *a, const struct box *b, const struct tensor *tensor,
                          struct reason *reason)
{
	const struct box *low = a->rank <= b->rank ? a : b;
	const struct box *high = low == a ? b : a;

	if (low->rank == high->rank)
		return reason_set(reason, STATUS_EMANIFEST, "tensor '%.*s': rank %u holds some elements twice",
		                  sentence_name_bytes(tensor->name), tensor->name, low->rank);
	return reason_set(
		reason, STATUS_EMANIFEST,
		"tensor '%.*s': ranks %u and %u overlap: %s at %s, and %s at %s; each element must have one owner",
		sentence_name_bytes(tensor->name), tensor->name, low->rank, high->rank,
		sentence_shape(low->piece->extents, tensor->dimension_count).text,
		sentence_shape(low->piece->offsets, tensor->dimension_count).text,
		sentence_shape(high->piece->extents, tensor->dimension_count).text,
		sentence_shape(high->piece->offsets, tensor->dimension_count).text);
}

static int boxes_sweep(struct tiling *tiling, const struct tensor *tensor, struct reason *reason)
{
	const struct box *boxes = tiling->boxes;
	uint32_t open_count = 0;
	uint64_t covered = 0;

	for (uint32_t i = 0; i < tiling->box_count; i++) {
		uint32_t kept = 0;

		for (uint32_t j = 0; j < open_count; j++) {
			const struct box *before = &boxes[tiling->open[j]];

			if (before->end <= boxes[i].begin)
				continue;
			if (pieces_overlap(before->piece, boxes[i].piece, tensor->dimension_count))
				return overlap_report(before, &boxes[i], tensor, reason);
			tiling->open[kept++] = tiling->open[j];
		}
		tiling->open[kept++] = i;
		open_count = kept;
		/* Cannot wrap: boxes that do not overlap lie side by side in the tensor. */
		covered += boxes[i].piece->element_count;
	}
	if (covered == tensor->element_count)
		return 0;
	return reason_set(reason, STATUS_EMANIFEST,
	                  "tensor '%.*s': %" PRIu64 " of %" PRIu64 " elements are held by none of the %u ranks",
	                  sentence_name_bytes(tensor->name), tensor->name, tensor->element_count - covered,
	                  tensor->element_count, tiling->rank_count);
}

int manifest_tiling_check(const struct manifest *const *ranks, uint32_t rank_count, struct reason *reason)
{
	struct tiling tiling = {.ranks = ranks, .rank_count = rank_count};
	int r = -ENOMEM;

	assert(rank_count > 0);
	for (uint32_t rank = 1; rank < rank_count; rank++)
		assert(ranks[rank]->tensor_count == ranks[0]->tensor_count);
	tiling.next = calloc(rank_count, sizeof(*tiling.next));
	if (!tiling.next)
		goto done;
	for (uint32_t i = 0; i < ranks[0]->tensor_count; i++) {
		r = boxes_gather(&tiling, i);
		if (r != 0)
			goto done;
		boxes_sort(&tiling, &ranks[0]->tensors[i]);
		r = boxes_sweep(&tiling, &ranks[0]->tensors[i], reason);
		if (r != 0)
			goto done;
	}
done:
	free(tiling.next);
	free(tiling.boxes);
	free(tiling.open);
	return r;
}
