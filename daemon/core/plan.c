/*
 * Cutting boxes into runs, and runs into blocks. See plan.h.
 */
#include "daemon/core/plan.h"

#include <errno.h>
#include <stdlib.h>

/* Runs are cut where the tensor's place in the image is a multiple of this, which keeps whole vectors whole. */
static uint64_t run_room(const struct plan *plan, const struct run *run)
{
	return PLAN_BLOCK_ELEMENTS - (plan->geometry->origins[run->tensor] + run->first) % PLAN_BLOCK_ELEMENTS;
}

static int run_append(struct plan *plan, const struct run *run)
{
	if (plan->run_count == PLAN_RUN_COUNT_MAX)
		return STATUS_ELIMIT;
	if (plan->run_count == plan->run_capacity) {
		uint32_t capacity = plan->run_capacity ? plan->run_capacity * 2 : 256;
		struct run *runs = reallocarray(plan->runs, capacity, sizeof *runs);

		if (!runs)
			return -ENOMEM;
		plan->runs = runs;
		plan->run_capacity = capacity;
	}
	plan->runs[plan->run_count++] = *run;
	return 0;
}

/* Appends count dense elements, cut to at most a block each. */
static int dense_append(struct plan *plan, struct run run, uint64_t count)
{
	uint64_t element_bytes = dtype_bytes(plan->geometry->manifest->tensors[run.tensor].dtype);

	run.repeat = 1;
	run.stride = 0;
	while (count > 0) {
		uint64_t room = run_room(plan, &run);
		int error;

		run.count = (uint32_t)(count < room ? count : room);
		error = run_append(plan, &run);
		if (error)
			return error;
		run.first += run.count;
		run.stage_offset += run.count * element_bytes;
		count -= run.count;
	}
	return 0;
}

/* Appends `rows` stretches of `count` elements each, `stride` apart in the tensor. */
static int rows_append(struct plan *plan, struct run run, uint64_t count, uint64_t rows, uint64_t stride)
{
	uint64_t element_bytes = dtype_bytes(plan->geometry->manifest->tensors[run.tensor].dtype);
	uint64_t rows_max = count < PLAN_BLOCK_ELEMENTS ? PLAN_BLOCK_ELEMENTS / count : 0;

	while (rows > 0) {
		uint64_t taken = rows_max > 1 ? (rows < rows_max ? rows : rows_max) : 1;
		int error;

		if (taken == 1) {
			error = dense_append(plan, run, count);
		} else {
			run.count = (uint32_t)count;
			run.repeat = (uint32_t)taken;
			run.stride = stride;
			error = run_append(plan, &run);
		}
		if (error)
			return error;
		run.first += taken * stride;
		run.stage_offset += taken * count * element_bytes;
		rows -= taken;
	}
	return 0;
}

/*
 * A box is dense from its innermost dimension outwards as long as the dimensions inside are covered whole: `inner`
 * is the outermost dimension of that dense part. The dimension around it repeats the part at a fixed stride, and the
 * dimensions around that one are counted through.
 */
static int box_append(struct plan *plan, const struct piece *piece, uint32_t rank)
{
	const struct tensor *tensor = &plan->geometry->manifest->tensors[piece->tensor];
	uint32_t inner = tensor->dimension_count;
	uint64_t dense = 1, strides[DIMENSION_COUNT_MAX + 1] = { 0 }, counter[DIMENSION_COUNT_MAX] = { 0 };
	struct run run = { .tensor = piece->tensor, .rank = rank, .stage_offset = piece->stage_offset };
	uint64_t rows, row_stride;

	if (piece->element_count == 0)
		return 0;
	strides[tensor->dimension_count] = 1;
	for (uint32_t d = tensor->dimension_count; d-- > 0;)
		strides[d] = strides[d + 1] * tensor->extents[d];
	while (inner > 0) {
		inner--;
		dense *= piece->extents[inner];
		if (piece->extents[inner] != tensor->extents[inner])
			break;
	}
	rows = inner > 0 ? piece->extents[inner - 1] : 1;
	row_stride = inner > 0 ? strides[inner] : 0;
	for (;;) {
		uint32_t d = inner > 0 ? inner - 1 : 0;
		int error;

		run.first = 0;
		for (uint32_t i = 0; i < tensor->dimension_count; i++)
			run.first += (piece->offsets[i] + counter[i]) * strides[i + 1];
		error = rows_append(plan, run, dense, rows, row_stride);
		if (error)
			return error;
		run.stage_offset += rows * dense * dtype_bytes(tensor->dtype);
		while (d > 0) {
			d--;
			if (++counter[d] < piece->extents[d])
				break;
			counter[d] = 0;
			if (d == 0)
				return 0;
		}
		if (inner <= 1)
			return 0;
	}
}

/* Tensors in the order in which they lie in memory, so that blocks sweep it: an array of manifest indices. */
static uint32_t *sweep_order(const struct plan *plan, const struct image *image)
{
	uint32_t *order = calloc(plan->geometry->manifest->tensor_count, sizeof *order);
	uint32_t count = 0;

	if (!order)
		return NULL;
	for (uint32_t i = 0; i < image->tensor_count; i++)
		order[count++] = image->tensors[i].tensor;
	for (uint32_t t = 0; t < plan->geometry->manifest->tensor_count; t++)
		if (image->index_of[t] == UINT32_MAX)
			order[count++] = t;
	return order;
}

/* For each tensor a chain of the pieces that the ranks hold of it. */
struct piece_link {
	uint32_t rank;
	uint32_t piece;
	uint32_t next; /* index + 1; 0 ends the chain */
};

static int runs_make(struct plan *plan, const struct image *image, const struct manifest *const *ranks,
                     uint32_t rank_count)
{
	uint64_t piece_count = 0;
	uint32_t link_count = 0;
	uint32_t *order, *chains;
	struct piece_link *links;
	int error = -ENOMEM;

	for (uint32_t r = 0; r < rank_count; r++)
		piece_count += ranks[r]->piece_count;
	order = sweep_order(plan, image);
	chains = calloc(plan->geometry->manifest->tensor_count, sizeof *chains);
	links = calloc(piece_count + 1, sizeof *links);
	if (!order || !chains || !links)
		goto fail;
	for (uint32_t r = rank_count; r-- > 0;) {
		for (uint32_t i = ranks[r]->piece_count; i-- > 0;) {
			uint32_t tensor = ranks[r]->pieces[i].tensor;

			links[link_count] = (struct piece_link){ .rank = r, .piece = i, .next = chains[tensor] };
			chains[tensor] = ++link_count;
		}
	}
	for (uint32_t i = 0; i < plan->geometry->manifest->tensor_count; i++) {
		for (uint32_t link = chains[order[i]]; link != 0; link = links[link - 1].next) {
			const struct piece_link *at = &links[link - 1];

			error = box_append(plan, &ranks[at->rank]->pieces[at->piece], at->rank);
			if (error)
				goto fail;
		}
	}
	error = 0;
fail:
	free(order);
	free(chains);
	free(links);
	return error;
}

static int blocks_make(struct plan *plan)
{
	uint64_t elements = 0;

	plan->blocks = calloc((size_t)plan->run_count + 1, sizeof *plan->blocks);
	if (!plan->blocks)
		return -ENOMEM;
	for (uint32_t r = 0; r < plan->run_count; r++) {
		uint64_t run_elements = (uint64_t)plan->runs[r].count * plan->runs[r].repeat;

		if (r > 0 && elements + run_elements > PLAN_BLOCK_ELEMENTS) {
			plan->blocks[++plan->block_count] = r;
			elements = 0;
		}
		elements += run_elements;
	}
	if (plan->run_count > 0)
		plan->blocks[++plan->block_count] = plan->run_count;
	return 0;
}

int plan_create(const struct geometry *geometry, const struct manifest *const *ranks, uint32_t rank_count,
                struct plan **ret_plan, struct reason *reason)
{
	struct plan *plan = calloc(1, sizeof *plan);
	int error;

	if (!plan)
		return -ENOMEM;
	plan->geometry = geometry;
	for (uint32_t t = 0; t < geometry->manifest->tensor_count; t++)
		plan->element_count += geometry->manifest->tensors[t].element_count;
	error = runs_make(plan, geometry->images[0], ranks, rank_count);
	if (!error)
		error = blocks_make(plan);
	if (error == STATUS_ELIMIT)
		reason_set(reason, error,
		           "the ranks' pieces lie in more than %d stretches of memory: cut the tensors along "
		           "fewer dimensions",
		           PLAN_RUN_COUNT_MAX);
	if (error) {
		plan_destroy(plan);
		return error;
	}
	*ret_plan = plan;
	return 0;
}

void plan_destroy(struct plan *plan)
{
	if (!plan)
		return;
	free(plan->runs);
	free(plan->blocks);
	free(plan);
}
