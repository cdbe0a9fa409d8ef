/*
 * The manifest as bytes: the body of a register request (see manifest.h for the form).
 *
 * The decoder trusts nothing but the walk of unpack(): every type, count and number is looked at, and what it adds goes
 * through the same checks as tensors added by hand.
 */
#include "proto/manifest.h"

#include "proto/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	TENSOR_ITEM_COUNT = 5,
	FLAG_BUFFER = 1,
	ITEM_BYTES_MAX = 9, /* of a number, or of the head of a text or array */
};

/* More bytes than the encoding can take. */
static size_t encoded_bytes_max(const struct manifest *manifest)
{
	size_t bytes = ITEM_BYTES_MAX;

	for (uint32_t i = 0; i < manifest->tensor_count; i++) {
		const struct tensor *tensor = &manifest->tensors[i];

		bytes += strlen(tensor->name) + (TENSOR_ITEM_COUNT + 1 + tensor->dimension_count) * ITEM_BYTES_MAX;
	}
	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct tensor *tensor = &manifest->tensors[manifest->pieces[i].tensor];

		bytes += (3 + 2 * tensor->dimension_count) * ITEM_BYTES_MAX;
	}
	return bytes;
}

static void numbers_pack(struct packer *packer, const uint64_t *numbers, uint32_t count)
{
	pack_array(packer, count);
	for (uint32_t i = 0; i < count; i++)
		pack_u64(packer, numbers[i]);
}

/* Writes one tensor; its pieces are those from first on, before end. */
static void tensor_pack(struct packer *packer, const struct manifest *manifest, uint32_t index, uint32_t first,
                        uint32_t end)
{
	const struct tensor *tensor = &manifest->tensors[index];

	pack_array(packer, TENSOR_ITEM_COUNT);
	pack_text(packer, tensor->name, strlen(tensor->name));
	pack_u64(packer, tensor->dtype);
	pack_u64(packer, tensor->is_buffer ? FLAG_BUFFER : 0);
	numbers_pack(packer, tensor->extents, tensor->dimension_count);
	if (end - first == 1 && piece_is_whole(&manifest->pieces[first], tensor)) {
		pack_nil(packer);
		return;
	}
	pack_array(packer, end - first);
	for (uint32_t i = first; i < end; i++) {
		pack_array(packer, 2);
		numbers_pack(packer, manifest->pieces[i].offsets, tensor->dimension_count);
		numbers_pack(packer, manifest->pieces[i].extents, tensor->dimension_count);
	}
}

int manifest_encode(const struct manifest *manifest, uint8_t **ret_bytes, size_t *ret_count, struct reason *reason)
{
	size_t capacity = encoded_bytes_max(manifest), used;
	uint8_t *bytes = malloc(capacity);
	struct packer packer;
	uint32_t piece = 0;
	int r;

	if (!bytes)
		return -ENOMEM;
	pack_begin(&packer, bytes, capacity);
	pack_array(&packer, manifest->tensor_count);
	for (uint32_t i = 0; i < manifest->tensor_count; i++) {
		uint32_t first = piece;

		while (piece < manifest->piece_count && manifest->pieces[piece].tensor == i)
			piece++;
		tensor_pack(&packer, manifest, i, first, piece);
	}
	r = pack_finish(&packer, &used, reason);
	if (r == 0 && used > MESSAGE_BODY_BYTES_MAX)
		r = reason_set(reason, STATUS_ELIMIT, "the list of tensors has %zu bytes, at most %d are allowed", used,
		               MESSAGE_BODY_BYTES_MAX);
	if (r != 0) {
		free(bytes);
		return r;
	}
	*ret_bytes = bytes;
	*ret_count = used;
	return 0;
}

/* Reads an array of at most DIMENSION_COUNT_MAX numbers; what: for the sentence. */
static int numbers_unpack(const struct value *value, size_t tensor, const char *what,
                          uint64_t ret_numbers[DIMENSION_COUNT_MAX], uint32_t *ret_count, struct reason *reason)
{
	size_t count = value_count(value);

	if (!value_is_array(value))
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: its %s are not an array", tensor, what);
	if (count > DIMENSION_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "tensor %zu has %zu %s, at most %d are allowed", tensor, count,
		                  what, DIMENSION_COUNT_MAX);
	for (size_t i = 0; i < count; i++) {
		if (!value_u64(value_item(value, i), &ret_numbers[i]))
			return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: number %zu of its %s is not a count",
			                  tensor, i, what);
	}
	*ret_count = (uint32_t)count;
	return 0;
}

static int piece_unpack(struct manifest *manifest, const struct value *value, size_t tensor, struct reason *reason)
{
	uint64_t offsets[DIMENSION_COUNT_MAX], extents[DIMENSION_COUNT_MAX];
	uint32_t dimension_count = manifest->tensors[tensor].dimension_count, offset_count, extent_count;
	int r;

	if (!value_is_array(value) || value_count(value) != 2)
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: a piece is not [offsets, extents]", tensor);
	r = numbers_unpack(value_item(value, 0), tensor, "piece's offsets", offsets, &offset_count, reason);
	if (r == 0)
		r = numbers_unpack(value_item(value, 1), tensor, "piece's extents", extents, &extent_count, reason);
	if (r != 0)
		return r;
	if (offset_count != dimension_count || extent_count != dimension_count)
		return reason_set(reason, STATUS_EPROTOCOL,
		                  "tensor %zu has %u dimensions, but a piece with %u offsets and %u extents", tensor,
		                  dimension_count, offset_count, extent_count);
	return manifest_add_piece(manifest, offsets, extents, reason);
}

static int pieces_unpack(struct manifest *manifest, const struct value *value, size_t tensor, struct reason *reason)
{
	if (value_is_nil(value))
		return manifest_add_piece(manifest, NULL, NULL, reason);
	if (!value_is_array(value))
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: its pieces are neither nil nor an array",
		                  tensor);
	for (size_t i = 0; i < value_count(value); i++) {
		int r = piece_unpack(manifest, value_item(value, i), tensor, reason);

		if (r != 0)
			return r;
	}
	return 0;
}

static int tensor_unpack(struct manifest *manifest, const struct value *value, size_t tensor, struct reason *reason)
{
	uint64_t extents[DIMENSION_COUNT_MAX], dtype, flags;
	uint32_t dimension_count;
	struct text name;
	int r;

	if (!value_is_array(value) || value_count(value) != TENSOR_ITEM_COUNT)
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu is not an array of %d items", tensor,
		                  TENSOR_ITEM_COUNT);
	if (!value_text(value_item(value, 0), &name))
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: its name is not a text", tensor);
	if (!value_u64(value_item(value, 1), &dtype) || dtype >= DTYPE_COUNT)
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: its dtype is not one of 0..%d", tensor,
		                  DTYPE_COUNT - 1);
	if (!value_u64(value_item(value, 2), &flags) || flags > FLAG_BUFFER)
		return reason_set(reason, STATUS_EPROTOCOL, "tensor %zu: its flags are not one of 0..%d", tensor,
		                  FLAG_BUFFER);
	r = numbers_unpack(value_item(value, 3), tensor, "extents", extents, &dimension_count, reason);
	if (r != 0)
		return r;
	r = manifest_add_tensor(manifest, name.bytes, name.count, (enum dtype)dtype, flags & FLAG_BUFFER, extents,
	                        dimension_count, reason);
	return r != 0 ? r : pieces_unpack(manifest, value_item(value, 4), tensor, reason);
}

int manifest_decode(const uint8_t *bytes, size_t count, struct manifest **ret_manifest, struct reason *reason)
{
	struct manifest *manifest = NULL;
	struct unpacked *unpacked = NULL;
	const struct value *value;
	int r = unpacked_create(&unpacked);

	if (r == 0)
		r = unpack(unpacked, bytes, count, &value, reason);
	if (r == 0)
		r = manifest_create(&manifest);
	if (r != 0)
		goto done;
	if (!value_is_array(value)) {
		r = reason_set(reason, STATUS_EPROTOCOL, "the list of tensors is not an array");
		goto done;
	}
	for (size_t i = 0; i < value_count(value); i++) {
		r = tensor_unpack(manifest, value_item(value, i), i, reason);
		if (r != 0)
			goto done;
	}
	r = manifest_finish(manifest, reason);
	if (r != 0)
		goto done;
	*ret_manifest = manifest;
	manifest = NULL;
done:
	manifest_destroy(manifest);
	unpacked_destroy(unpacked);
	return r;
}
