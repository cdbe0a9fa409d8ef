/*
 * Adding up files.
 *
 * The tensors are taken in the order of the new file, and neighbours that lie one behind the other in every input
 * are one run, so that ten thousand small tensors cost a handful of reads. A run is worked through in chunks: of each
 * input in turn the chunk is read, widened to double and added with its weight, then the sums are narrowed and written.
 * So memory is three buffers of a chunk, and what the inputs' headers say is kept only where it differs.
 */
#include "client/blend.h"

#include "client/source.h"
#include "client/target.h"
#include "proto/convert.h"
#include "proto/sentence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHUNK_ELEMENTS = 512 * 1024, /* 4 MiB of doubles */
	CHUNK_BYTES = CHUNK_ELEMENTS * 8,
	WIDE_ELEMENTS = 2048, /* doubles between reading and adding: they stay in the first cache */
};

struct input {
	struct source source;
	bool is_open;
	uint64_t data_offset;
	uint64_t *offsets; /* owned; where each entry of the newest file begins behind data_offset; NULL: as there */
};

struct blender {
	const struct blend *blend;
	const char *path;
	struct input *inputs;         /* owned; of blend->input_count */
	struct safetensors *contents; /* owned; of the newest input */
	struct blend_layout *layout;  /* owned */
	bool *is_copied;              /* owned; by entry: taken from the newest input */
	double *sums;                 /* owned; CHUNK_ELEMENTS */
	uint8_t *raw, *result;        /* owned; CHUNK_BYTES */
	uint64_t done_bytes, total_bytes;
};

/* Tensors first..end-1 of the layout, which lie one behind the other everywhere and are treated alike. */
struct run {
	uint32_t first, end;
	uint64_t elements;
	enum dtype from, to;
	bool is_copied;
};

/* ---- what the inputs hold ------------------------------------------------------------------------------------- */

static const struct safetensors_entry *entry_of(const struct blender *blender, uint32_t tensor)
{
	return &blender->contents->entries[blender->layout->tensors[tensor].entry];
}

/* Where an entry lies behind the header of an input. */
static uint64_t entry_offset(const struct blender *blender, uint32_t input, uint32_t entry)
{
	const uint64_t *offsets = blender->inputs[input].offsets;

	return offsets ? offsets[entry] : blender->contents->entries[entry].offset - blender->contents->data_offset;
}

static int entry_compare(const struct blender *blender, uint32_t input, const struct safetensors_entry *wanted,
                         const struct safetensors_entry *found, struct reason *reason)
{
	const char *path = source_name(blender->blend->inputs[input].path);

	if (!found)
		return reason_set(reason, STATUS_EMANIFEST,
		                  "%s has no tensor '%.*s': only files with the same tensors add up", path,
		                  sentence_name_bytes(wanted->name), wanted->name);
	if (found->dtype == wanted->dtype && found->dimension_count == wanted->dimension_count &&
	    memcmp(found->extents, wanted->extents, wanted->dimension_count * sizeof(*wanted->extents)) == 0)
		return 0;
	return reason_set(reason, STATUS_EMANIFEST,
	                  "%s has '%.*s' as %s %s, not %s %s: only files with the same tensors add up", path,
	                  sentence_name_bytes(wanted->name), wanted->name, dtype_name(found->dtype),
	                  sentence_shape(found->extents, found->dimension_count).text, dtype_name(wanted->dtype),
	                  sentence_shape(wanted->extents, wanted->dimension_count).text);
}

/* Checks that an input has the tensors of the newest, and keeps where they lie if that is elsewhere. */
static int input_compare(struct blender *blender, uint32_t index, const struct safetensors *contents,
                         struct reason *reason)
{
	const struct safetensors *wanted = blender->contents;
	uint64_t *offsets = calloc((size_t)wanted->entry_count + 1, sizeof(*offsets));
	bool is_elsewhere = false;
	int r = offsets ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < wanted->entry_count && r == 0; i++) {
		const struct safetensors_entry *entry = &wanted->entries[i];
		const struct safetensors_entry *found = safetensors_find(contents, entry->name);

		r = entry_compare(blender, index, entry, found, reason);
		if (r == 0) {
			offsets[i] = found->offset - contents->data_offset;
			is_elsewhere |= offsets[i] != entry->offset - wanted->data_offset;
		}
	}
	for (uint32_t i = 0; i < contents->entry_count && r == 0 && contents->entry_count > wanted->entry_count; i++) {
		const char *name = contents->entries[i].name;

		if (!safetensors_find(wanted, name))
			r = reason_set(reason, STATUS_EMANIFEST,
			               "%s has a tensor '%.*s', the newest file has none: only files with the same "
			               "tensors add up",
			               source_name(blender->blend->inputs[index].path), sentence_name_bytes(name),
			               name);
	}
	if (r != 0 || !is_elsewhere) {
		free(offsets);
		return r;
	}
	blender->inputs[index].offsets = offsets;
	return 0;
}

static int input_open(struct blender *blender, uint32_t index, struct reason *reason)
{
	const struct blend *blend = blender->blend;
	const uint32_t open_count = blend->open_count ? blend->open_count : BLEND_OPEN_COUNT;
	struct input *input = &blender->inputs[index];
	struct safetensors *contents;
	int r = source_open(blend->inputs[index].path, index < open_count, &input->source, reason);

	if (r != 0)
		return r;
	input->is_open = true;
	r = source_header(&input->source, &contents, reason);
	if (r != 0)
		return r;
	input->data_offset = contents->data_offset;
	if (index == blend->newest) {
		blender->contents = contents;
		return 0;
	}
	r = input_compare(blender, index, contents, reason);
	safetensors_destroy(contents);
	return r;
}

static int inputs_open(struct blender *blender, struct reason *reason)
{
	/* The newest comes first, because the others are compared with it. */
	int r = input_open(blender, blender->blend->newest, reason);

	for (uint32_t i = 0; i < blender->blend->input_count && r == 0; i++) {
		if (i != blender->blend->newest)
			r = input_open(blender, i, reason);
	}
	return r;
}

/* ---- which tensors are added up ------------------------------------------------------------------------------- */

static int entry_read(struct blender *blender, uint32_t input, uint32_t entry, uint64_t offset, void *bytes,
                      size_t byte_count, struct reason *reason)
{
	return source_read(&blender->inputs[input].source,
	                   blender->inputs[input].data_offset + entry_offset(blender, input, entry) + offset, bytes,
	                   byte_count, reason);
}

/* Whether the newest input and its twin hold an entry alike. Mostly the first kilobytes tell. */
static int twins_compare(struct blender *blender, uint32_t entry, bool *ret_is_same, struct reason *reason)
{
	const uint64_t bytes = blender->contents->entries[entry].bytes;
	uint64_t done = 0, piece = 4096;
	int r = 0;

	while (done < bytes && r == 0) {
		if (piece > bytes - done)
			piece = bytes - done;
		r = entry_read(blender, blender->blend->newest, entry, done, blender->raw, piece, reason);
		if (r == 0)
			r = entry_read(blender, blender->blend->twin, entry, done, blender->result, piece, reason);
		if (r == 0 && memcmp(blender->raw, blender->result, piece) != 0) {
			*ret_is_same = false;
			return 0;
		}
		done += piece;
		piece = CHUNK_BYTES;
	}
	if (r == 0)
		*ret_is_same = true;
	return r;
}

static int entries_sort_out(struct blender *blender, struct reason *reason)
{
	int r = 0;

	for (uint32_t i = 0; i < blender->contents->entry_count && r == 0; i++) {
		const struct safetensors_entry *entry = &blender->contents->entries[i];

		blender->is_copied[i] = !dtype_is_float(entry->dtype);
		if (blender->is_copied[i])
			continue;
		if (blender->blend->twin != UINT32_MAX)
			r = twins_compare(blender, i, &blender->is_copied[i], reason);
	}
	return r;
}

/* ---- runs ----------------------------------------------------------------------------------------------------- */

/* Whether tensor `next` of the layout begins where the one before it ends, in every input. */
static bool is_behind(const struct blender *blender, uint32_t next)
{
	const uint32_t a = blender->layout->tensors[next - 1].entry, b = blender->layout->tensors[next].entry;
	const uint64_t bytes = blender->contents->entries[a].bytes;

	for (uint32_t i = 0; i < blender->blend->input_count; i++) {
		if (entry_offset(blender, i, a) + bytes != entry_offset(blender, i, b))
			return false;
	}
	return true;
}

static struct run run_from(const struct blender *blender, uint32_t first)
{
	const struct blend_tensor *tensors = blender->layout->tensors;
	const struct safetensors_entry *entry = entry_of(blender, first);
	struct run run = {
		.first = first, .from = entry->dtype, .to = tensors[first].dtype,
		.is_copied = blender->is_copied[tensors[first].entry],
	};
	uint32_t i = first;

	do {
		run.elements += entry_of(blender, i)->bytes / dtype_bytes(run.from);
		i++;
	} while (i < blender->layout->tensor_count && entry_of(blender, i)->dtype == run.from &&
	         blender->is_copied[tensors[i].entry] == run.is_copied && is_behind(blender, i));
	run.end = i;
	return run;
}

/* The tensor of a run that holds an element, for sentences. */
static const char *run_name(const struct blender *blender, const struct run *run, uint64_t element)
{
	uint32_t i = run->first;

	for (; i + 1 < run->end; i++) {
		const uint64_t elements = entry_of(blender, i)->bytes / dtype_bytes(run->from);

		if (element < elements)
			break;
		element -= elements;
	}
	return entry_of(blender, i)->name;
}

/* ---- adding up ------------------------------------------------------------------------------------------------ */

static int progress_tell(const struct blender *blender, struct reason *reason)
{
	if (blender->blend->progress &&
	    blender->blend->progress(blender->blend->context, blender->done_bytes, blender->total_bytes))
		return reason_set(reason, -ECANCELED, "writing %s was stopped after %" PRIu64 " of %" PRIu64 " bytes",
		                  source_name(blender->path), blender->done_bytes, blender->total_bytes);
	return 0;
}

static int chunk_read(struct blender *blender, uint32_t input, const struct run *run, uint64_t begin, size_t count,
                      struct reason *reason)
{
	const uint64_t element_bytes = dtype_bytes(run->from);
	int r = entry_read(blender, input, blender->layout->tensors[run->first].entry, begin * element_bytes,
	                   blender->raw, count * element_bytes, reason);

	if (r != 0)
		return r;
	blender->done_bytes += count * element_bytes;
	return progress_tell(blender, reason);
}

/* sums += weight * the chunk that was read last. */
static void chunk_add(struct blender *blender, enum dtype dtype, double weight, size_t count)
{
	double wide[WIDE_ELEMENTS];

	for (size_t done = 0; done < count; done += WIDE_ELEMENTS) {
		const size_t piece = count - done < WIDE_ELEMENTS ? count - done : WIDE_ELEMENTS;
		double *sums = blender->sums + done;

		convert_elements(dtype, blender->raw + done * dtype_bytes(dtype), DTYPE_F64, wide, piece);
		for (size_t i = 0; i < piece; i++)
			sums[i] += weight * wide[i];
	}
}

/* The first value that is not finite, or count. */
static size_t nonfinite_find(enum dtype dtype, const uint8_t *bytes, size_t count)
{
	double wide[WIDE_ELEMENTS];

	for (size_t done = 0; done < count; done += WIDE_ELEMENTS) {
		const size_t piece = count - done < WIDE_ELEMENTS ? count - done : WIDE_ELEMENTS;

		convert_elements(dtype, bytes + done * dtype_bytes(dtype), DTYPE_F64, wide, piece);
		for (size_t i = 0; i < piece; i++) {
			if (!isfinite(wide[i]))
				return done + i;
		}
	}
	return count;
}

/* Says whose fault it is that a sum is not finite. */
static int chunk_blame(struct blender *blender, const struct run *run, uint64_t begin, size_t count,
                       struct reason *reason)
{
	const struct blend *blend = blender->blend;
	const char *name;
	size_t at;

	for (uint32_t i = 0; i < blend->input_count; i++) {
		int r;

		if (blend->inputs[i].weight == 0)
			continue;
		r = entry_read(blender, i, blender->layout->tensors[run->first].entry, begin * dtype_bytes(run->from),
		               blender->raw, count * dtype_bytes(run->from), reason);
		if (r != 0)
			return r;
		at = nonfinite_find(run->from, blender->raw, count);
		if (at == count)
			continue;
		name = run_name(blender, run, begin + at);
		return reason_set(reason, STATUS_ECORRUPT,
		                  "%s: tensor '%.*s' holds NaN or infinity, so no sum of it is a number: leave the "
		                  "file out",
		                  source_name(blend->inputs[i].path), sentence_name_bytes(name), name);
	}
	at = nonfinite_find(run->to, blender->result, count);
	name = run_name(blender, run, begin + (at < count ? at : 0));
	return reason_set(reason, STATUS_ELIMIT, "a sum in tensor '%.*s' is too large for %s: choose a wider dtype",
	                  sentence_name_bytes(name), name, dtype_name(run->to));
}

static int chunk_sum(struct blender *blender, const struct run *run, uint64_t begin, size_t count,
                     struct reason *reason)
{
	const struct blend *blend = blender->blend;
	int r;

	memset(blender->sums, 0, count * sizeof(*blender->sums));
	for (uint32_t i = 0; i < blend->input_count; i++) {
		if (blend->inputs[i].weight == 0)
			continue;
		r = chunk_read(blender, i, run, begin, count, reason);
		if (r != 0)
			return r;
		chunk_add(blender, run->from, blend->inputs[i].weight, count);
	}
	/* F8_E4M3 clips what is too large instead of making it infinite: that counts as well. */
	if (convert_elements(DTYPE_F64, blender->sums, run->to, blender->result, count) > 0 ||
	    nonfinite_find(run->to, blender->result, count) < count)
		return chunk_blame(blender, run, begin, count, reason);
	return 0;
}

static int chunk_copy(struct blender *blender, const struct run *run, uint64_t begin, size_t count,
                      struct reason *reason)
{
	int r = chunk_read(blender, blender->blend->newest, run, begin, count, reason);

	if (r != 0)
		return r;
	convert_elements(run->from, blender->raw, run->to, blender->result, count);
	return 0;
}

static int run_write(struct blender *blender, const struct target *target, const struct run *run,
                     struct reason *reason)
{
	for (uint64_t begin = 0; begin < run->elements; begin += CHUNK_ELEMENTS) {
		const uint64_t left = run->elements - begin;
		const size_t count = left < CHUNK_ELEMENTS ? (size_t)left : CHUNK_ELEMENTS;
		int r;

		r = run->is_copied ? chunk_copy(blender, run, begin, count, reason)
		                   : chunk_sum(blender, run, begin, count, reason);
		if (r == 0)
			r = target_write(target, blender->result, count * dtype_bytes(run->to), reason);
		if (r != 0)
			return r;
	}
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static void total_count(struct blender *blender)
{
	uint32_t read_count = 0;

	for (uint32_t i = 0; i < blender->blend->input_count; i++)
		read_count += blender->blend->inputs[i].weight != 0;
	for (uint32_t i = 0; i < blender->contents->entry_count; i++)
		blender->total_bytes += blender->contents->entries[i].bytes * (blender->is_copied[i] ? 1 : read_count);
}

static int blender_prepare(struct blender *blender, struct reason *reason)
{
	const struct blend *blend = blender->blend;
	int r;

	blender->inputs = calloc(blend->input_count, sizeof(*blender->inputs));
	blender->sums = malloc(CHUNK_ELEMENTS * sizeof(*blender->sums));
	blender->raw = malloc(CHUNK_BYTES);
	blender->result = malloc(CHUNK_BYTES);
	if (!blender->inputs || !blender->sums || !blender->raw || !blender->result)
		return -ENOMEM;
	r = inputs_open(blender, reason);
	if (r != 0)
		return r;
	blender->is_copied = calloc((size_t)blender->contents->entry_count + 1, sizeof(*blender->is_copied));
	if (!blender->is_copied)
		return -ENOMEM;
	r = entries_sort_out(blender, reason);
	if (r == 0)
		r = blend_layout_create(blender->contents, blend->dtype, blend->pairs, blend->pair_count,
		                        &blender->layout, reason);
	if (r == 0)
		total_count(blender);
	return r;
}

static void blender_finish(struct blender *blender)
{
	for (uint32_t i = 0; blender->inputs && i < blender->blend->input_count; i++) {
		if (blender->inputs[i].is_open)
			source_close(&blender->inputs[i].source);
		free(blender->inputs[i].offsets);
	}
	free(blender->inputs);
	safetensors_destroy(blender->contents);
	blend_layout_destroy(blender->layout);
	free(blender->is_copied);
	free(blender->sums);
	free(blender->raw);
	free(blender->result);
}

static int target_fill(struct blender *blender, struct target *target, struct reason *reason)
{
	/* Whoever handles interrupts by way of the progress does so before there is anything to be removed. */
	int r = progress_tell(blender, reason);

	if (r == 0)
		r = target_begin(target, reason);
	if (r != 0)
		return r;
	r = target_write(target, blender->layout->header, blender->layout->header_bytes, reason);
	for (uint32_t i = 0; i < blender->layout->tensor_count && r == 0;) {
		const struct run run = run_from(blender, i);

		r = run_write(blender, target, &run, reason);
		i = run.end;
	}
	if (r == 0)
		r = target_sync(target, reason);
	if (r == 0)
		r = target_commit(target, reason);
	if (r != 0)
		target_abandon(target);
	return r;
}

int blend_write(const struct blend *blend, const char *path, uint64_t *ret_file_bytes, struct reason *reason)
{
	struct blender blender = {.blend = blend, .path = path};
	struct target target;
	int r;

	assert(blend->newest < blend->input_count);
	assert(blend->dtype == DTYPE_COUNT || dtype_is_float(blend->dtype));
	r = target_open(path, &target, reason);
	if (r != 0)
		return r;
	r = blender_prepare(&blender, reason);
	if (r == 0)
		r = target_fill(&blender, &target, reason);
	if (r == 0 && ret_file_bytes)
		*ret_file_bytes = blender.layout->file_bytes;
	blender_finish(&blender);
	target_close(&target);
	return r;
}
