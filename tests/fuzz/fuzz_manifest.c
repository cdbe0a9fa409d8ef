/*
 * The manifest decoder: whatever is accepted must come back the same from its own bytes, fit its stage, and be found.
 */
#include "proto/manifest.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stage_check(const struct manifest *manifest)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		const struct piece *piece = &manifest->pieces[i];
		uint64_t width = dtype_bytes(manifest->tensors[piece->tensor].dtype);

		assert(piece->stage_offset % width == 0);
		assert(piece->stage_offset <= manifest->stage_bytes);
		assert(piece->element_count * width <= manifest->stage_bytes - piece->stage_offset);
		bytes += piece->element_count * width;
	}
	assert(bytes == manifest->stage_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct manifest *manifest, *again;
	struct reason reason;
	uint8_t *bytes;
	size_t count;

	if (manifest_decode(data, size, &manifest, &reason) != 0)
		return 0;
	stage_check(manifest);
	for (uint32_t i = 0; i < manifest->tensor_count; i++)
		assert(manifest_find(manifest, manifest->tensors[i].name) == i);
	if (manifest_encode(manifest, &bytes, &count, &reason) != 0)
		abort();
	if (manifest_decode(bytes, count, &again, &reason) != 0)
		abort();
	assert(manifest_compare(manifest, again, &reason) == 0);
	assert(manifest->piece_count == again->piece_count);
	assert(manifest->piece_count == 0 ||
	       memcmp(manifest->pieces, again->pieces, manifest->piece_count * sizeof(*manifest->pieces)) == 0);
	manifest_tiling_check((const struct manifest *const *)&manifest, 1, &reason);
	manifest_destroy(again);
	manifest_destroy(manifest);
	free(bytes);
	return 0;
}
