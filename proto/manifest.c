/*
 * The manifest: collecting tensors and pieces, laying out the stage, comparing, finding by name.
 *
 * Names come from outside and there may be 100,000 of them, so nothing here compares each with each: the keys are
 * sorted by (hash, name). The hash makes the sort and the lookup quick; names decide among equal hashes, so that names
 * made to collide cost a sort of strings and no more.
 */
#include "proto/manifest.h"

#include "proto/name.h"
#include "proto/sentence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct manifest_key {
	uint64_t hash;
	const char *name; /* borrowed from the tensor */
	uint32_t tensor;
};

/* FNV-1a. */
static uint64_t name_hash(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (const unsigned char *c = (const unsigned char *)name; *c; c++)
		hash = (hash ^ *c) * UINT64_C(0x100000001b3);
	return hash;
}

int manifest_create(struct manifest **ret_manifest)
{
	struct manifest *manifest = calloc(1, sizeof(*manifest));

	if (!manifest)
		return -ENOMEM;
	*ret_manifest = manifest;
	return 0;
}

struct manifest *manifest_share(struct manifest *manifest)
{
	manifest->share_count++;
	return manifest;
}

void manifest_destroy(struct manifest *manifest)
{
	if (!manifest)
		return;
	if (manifest->share_count > 0) {
		manifest->share_count--;
		return;
	}
	for (uint32_t i = 0; i < manifest->tensor_count; i++)
		free(manifest->tensors[i].name);
	free(manifest->tensors);
	free(manifest->pieces);
	free(manifest->keys);
	free(manifest);
}

/* Room for one more item of an array; *ret_capacity and the array stay as they are on failure. */
static void *array_grow(void *items, uint32_t count, uint32_t *capacity, size_t item_bytes)
{
	uint32_t capacity_new = *capacity ? 2 * *capacity : 16;
	void *items_new;

	if (count < *capacity)
		return items;
	items_new = realloc(items, capacity_new * item_bytes);
	if (items_new)
		*capacity = capacity_new;
	return items_new;
}

/* Checks name and shape; fills everything but tensor->name, whose canonical form goes to ret_name. */
static int tensor_check(struct tensor *tensor, const char *name, size_t name_bytes,
                        char ret_name[TENSOR_NAME_BYTES_MAX + 1], size_t *ret_name_bytes, struct reason *reason)
{
	int r = tensor_name_check(name, name_bytes, reason);

	if (r != 0)
		return r;
	*ret_name_bytes = tensor_name_canonical(name, name_bytes, ret_name, TENSOR_NAME_BYTES_MAX + 1);
	/* What a wrapper's prefix hides may be "__metadata__". */
	if (*ret_name_bytes != name_bytes)
		r = tensor_name_check(ret_name, *ret_name_bytes, reason);
	if (r != 0)
		return r;
	if ((unsigned)tensor->dtype >= DTYPE_COUNT)
		return reason_set(reason, STATUS_EMANIFEST, "tensor '%.*s': dtype number %u is unknown, %d is the last",
		                  sentence_name_bytes(ret_name), ret_name, (unsigned)tensor->dtype, DTYPE_COUNT - 1);
	r = shape_elements(tensor->extents, tensor->dimension_count, tensor->dtype, &tensor->element_count);
	if (r != 0)
		return reason_set(reason, STATUS_EMANIFEST,
		                  "tensor '%.*s': shape %s of %s has more bytes than the %" PRId64
		                  " that can be addressed",
		                  sentence_name_bytes(ret_name), ret_name,
		                  sentence_shape(tensor->extents, tensor->dimension_count).text,
		                  dtype_name(tensor->dtype), INT64_MAX);
	return 0;
}

int manifest_add_tensor(struct manifest *manifest, const char *name, size_t name_bytes, enum dtype dtype,
                        bool is_buffer, const uint64_t *extents, uint32_t dimension_count, struct reason *reason)
{
	struct tensor tensor = {.dtype = dtype, .is_buffer = is_buffer, .dimension_count = dimension_count};
	char canonical[TENSOR_NAME_BYTES_MAX + 1];
	size_t canonical_bytes;
	struct tensor *tensors;
	int r;

	if (manifest->tensor_count >= TENSOR_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "more than %d tensors", TENSOR_COUNT_MAX);
	if (dimension_count > DIMENSION_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "tensor %u has %u dimensions, at most %d are allowed",
		                  manifest->tensor_count, dimension_count, DIMENSION_COUNT_MAX);
	if (dimension_count > 0)
		memcpy(tensor.extents, extents, dimension_count * sizeof(*extents));
	r = tensor_check(&tensor, name, name_bytes, canonical, &canonical_bytes, reason);
	if (r != 0)
		return r;
	tensors = array_grow(manifest->tensors, manifest->tensor_count, &manifest->tensor_capacity, sizeof(*tensors));
	if (!tensors)
		return -ENOMEM;
	manifest->tensors = tensors;
	tensor.name = malloc(canonical_bytes + 1);
	if (!tensor.name)
		return -ENOMEM;
	memcpy(tensor.name, canonical, canonical_bytes + 1);
	tensors[manifest->tensor_count++] = tensor;
	return 0;
}

bool piece_is_whole(const struct piece *piece, const struct tensor *tensor)
{
	for (uint32_t i = 0; i < tensor->dimension_count; i++) {
		if (piece->offsets[i] != 0 || piece->extents[i] != tensor->extents[i])
			return false;
	}
	return true;
}

/* How many pieces the tensor added last has. */
static uint32_t last_piece_count(const struct manifest *manifest)
{
	uint32_t count = 0;

	while (count < manifest->piece_count &&
	       manifest->pieces[manifest->piece_count - 1 - count].tensor == manifest->tensor_count - 1)
		count++;
	return count;
}

/* Fills in the box; everything is inside the tensor, whose own element count is known to fit. */
static int piece_box(struct piece *piece, const struct tensor *tensor, const uint64_t *offsets,
                     const uint64_t *extents, struct reason *reason)
{
	for (uint32_t i = 0; i < tensor->dimension_count; i++) {
		if (offsets[i] > tensor->extents[i] || extents[i] > tensor->extents[i] - offsets[i])
			return reason_set(reason, STATUS_EMANIFEST,
			                  "tensor '%.*s': a piece has offset %" PRIu64 " and extent %" PRIu64
			                  " in dimension %u, where the tensor has %" PRIu64,
			                  sentence_name_bytes(tensor->name), tensor->name, offsets[i], extents[i], i,
			                  tensor->extents[i]);
		piece->offsets[i] = offsets[i];
		piece->extents[i] = extents[i];
	}
	if (shape_elements(piece->extents, tensor->dimension_count, tensor->dtype, &piece->element_count) != 0)
		return reason_set(reason, STATUS_EMANIFEST, "tensor '%.*s': a piece has too many elements",
		                  sentence_name_bytes(tensor->name), tensor->name);
	return 0;
}

int manifest_add_piece(struct manifest *manifest, const uint64_t *offsets, const uint64_t *extents,
                       struct reason *reason)
{
	static const uint64_t zeros[DIMENSION_COUNT_MAX];
	const struct tensor *tensor = &manifest->tensors[manifest->tensor_count - 1];
	struct piece *pieces, *piece;
	int r;

	assert(manifest->tensor_count > 0);
	assert(!offsets == !extents || tensor->dimension_count == 0);
	if (manifest->piece_count >= PIECE_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "more than %d pieces", PIECE_COUNT_MAX);
	if (last_piece_count(manifest) >= TENSOR_PIECE_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "tensor '%.*s' has more than %d pieces in one rank",
		                  sentence_name_bytes(tensor->name), tensor->name, TENSOR_PIECE_COUNT_MAX);
	pieces = array_grow(manifest->pieces, manifest->piece_count, &manifest->piece_capacity, sizeof(*pieces));
	if (!pieces)
		return -ENOMEM;
	manifest->pieces = pieces;
	piece = &pieces[manifest->piece_count];
	*piece = (struct piece){.tensor = manifest->tensor_count - 1};
	r = piece_box(piece, tensor, offsets ? offsets : zeros, extents ? extents : tensor->extents, reason);
	if (r == 0)
		manifest->piece_count++;
	return r;
}

static int key_compare(const void *left, const void *right)
{
	const struct manifest_key *a = left, *b = right;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	return strcmp(a->name, b->name);
}

static int keys_build(struct manifest *manifest, struct reason *reason)
{
	struct manifest_key *keys = calloc(manifest->tensor_count, sizeof(*keys));

	if (!keys)
		return -ENOMEM;
	for (uint32_t i = 0; i < manifest->tensor_count; i++) {
		keys[i].hash = name_hash(manifest->tensors[i].name);
		keys[i].name = manifest->tensors[i].name;
		keys[i].tensor = i;
	}
	qsort(keys, manifest->tensor_count, sizeof(*keys), key_compare);
	manifest->keys = keys;
	for (uint32_t i = 1; i < manifest->tensor_count; i++) {
		if (key_compare(&keys[i - 1], &keys[i]) == 0)
			return reason_set(reason, STATUS_EMANIFEST,
			                  "tensors %u and %u have the same name '%.*s', from which the parts that wrappers add "
			                  "(module, _orig_mod) are left out: rename one of them",
			                  keys[i - 1].tensor < keys[i].tensor ? keys[i - 1].tensor : keys[i].tensor,
			                  keys[i - 1].tensor < keys[i].tensor ? keys[i].tensor : keys[i - 1].tensor,
			                  sentence_name_bytes(keys[i].name), keys[i].name);
	}
	return 0;
}

/*
 * Places the pieces: one run per dtype, widest dtype first. Each run's bytes are a multiple of its own width and of all
 * that follow, hence every piece is aligned without padding.
 */
static int stage_lay_out(struct manifest *manifest, struct reason *reason)
{
	uint64_t at[DTYPE_COUNT] = {0}, total = 0;
	struct runs runs = {{0}};

	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];
		enum dtype dtype = manifest->tensors[piece->tensor].dtype;

		runs.bytes[dtype] += piece->element_count * dtype_bytes(dtype);
		total += piece->element_count * dtype_bytes(dtype);
		if (total > INT64_MAX)
			return reason_set(reason, STATUS_EMANIFEST,
			                  "the pieces up to tensor '%.*s' have %" PRIu64
			                  " bytes, more than the %" PRId64 " that can be addressed",
			                  sentence_name_bytes(manifest->tensors[piece->tensor].name),
			                  manifest->tensors[piece->tensor].name, total, INT64_MAX);
	}
	total = 0;
	for (uint64_t width = sizeof(uint64_t); width > 0; width /= 2) {
		for (unsigned i = 0; i < DTYPE_COUNT; i++) {
			if (dtype_bytes((enum dtype)i) != width)
				continue;
			at[i] = total;
			total += runs.bytes[i];
		}
	}
	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		struct piece *piece = &manifest->pieces[i];
		enum dtype dtype = manifest->tensors[piece->tensor].dtype;

		piece->stage_offset = at[dtype];
		at[dtype] += piece->element_count * dtype_bytes(dtype);
	}
	manifest->stage_bytes = total;
	manifest->runs = runs;
	return 0;
}

int manifest_finish(struct manifest *manifest, struct reason *reason)
{
	int r;

	assert(!manifest->keys);
	if (manifest->tensor_count == 0)
		return reason_set(reason, STATUS_EMANIFEST, "the model has no tensors");
	r = stage_lay_out(manifest, reason);
	return r != 0 ? r : keys_build(manifest, reason);
}

static int tensor_compare(const struct tensor *here, const struct tensor *model, uint32_t index,
                          struct reason *reason)
{
	const char *name = here->name;
	int name_bytes = sentence_name_bytes(name);

	if (strcmp(here->name, model->name) != 0)
		return reason_set(reason, STATUS_EMANIFEST, "tensor %u: name '%.*s' here, '%.*s' in the model", index,
		                  name_bytes, name, sentence_name_bytes(model->name), model->name);
	if (here->dtype != model->dtype)
		return reason_set(reason, STATUS_EMANIFEST, "tensor %u '%.*s': dtype %s here, %s in the model", index,
		                  name_bytes, name, dtype_name(here->dtype), dtype_name(model->dtype));
	if (here->dimension_count != model->dimension_count ||
	    memcmp(here->extents, model->extents, sizeof(here->extents)) != 0)
		return reason_set(reason, STATUS_EMANIFEST, "tensor %u '%.*s': shape %s here, %s in the model", index,
		                  name_bytes, name, sentence_shape(here->extents, here->dimension_count).text,
		                  sentence_shape(model->extents, model->dimension_count).text);
	if (here->is_buffer != model->is_buffer)
		return reason_set(reason, STATUS_EMANIFEST, "tensor %u '%.*s': a %s here, a %s in the model", index,
		                  name_bytes, name, here->is_buffer ? "buffer" : "parameter",
		                  model->is_buffer ? "buffer" : "parameter");
	return 0;
}

int manifest_compare(const struct manifest *here, const struct manifest *model, struct reason *reason)
{
	const struct manifest *longer = here->tensor_count > model->tensor_count ? here : model;
	uint32_t common = here->tensor_count < model->tensor_count ? here->tensor_count : model->tensor_count;

	for (uint32_t i = 0; i < common; i++) {
		int r = tensor_compare(&here->tensors[i], &model->tensors[i], i, reason);

		if (r != 0)
			return r;
	}
	if (longer->tensor_count == common)
		return 0;
	return reason_set(reason, STATUS_EMANIFEST, "tensor %u '%.*s' is only %s: %u tensors here, %u in the model",
	                  common, sentence_name_bytes(longer->tensors[common].name), longer->tensors[common].name,
	                  longer == here ? "here" : "in the model", here->tensor_count, model->tensor_count);
}

int64_t manifest_find(const struct manifest *manifest, const char *name)
{
	struct manifest_key wanted = {.hash = name_hash(name), .name = name};
	const struct manifest_key *key;

	assert(manifest->keys);
	key = bsearch(&wanted, manifest->keys, manifest->tensor_count, sizeof(wanted), key_compare);
	return key ? (int64_t)key->tensor : -1;
}
