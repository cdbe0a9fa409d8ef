/*
 * The safetensors reader. The input is the beginning of a file; how much data lies behind the header is taken from the
 * last byte. What is accepted must tile the data and be found by name.
 */
#include "proto/safetensors.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t file_bytes = size > 0 ? size - 1 + data[size - 1] : 0, at;
	size_t available = size > 0 ? size - 1 : 0;
	struct safetensors *safetensors;
	struct reason reason;

	if (safetensors_parse(data, available, file_bytes, &safetensors, &reason) != 0)
		return 0;
	at = safetensors->data_offset;
	for (uint32_t i = 0; i < safetensors->entry_count; i++) {
		const struct safetensors_entry *entry = &safetensors->entries[i];

		assert(entry->offset == at);
		assert(safetensors_find(safetensors, entry->name) == entry);
		at += entry->bytes;
	}
	assert(at == file_bytes);
	for (uint32_t i = 0; i < safetensors->metadata_count; i++)
		assert(safetensors_metadata_get(safetensors, safetensors->metadata[i].key) ==
		       safetensors->metadata[i].value);
	safetensors_destroy(safetensors);
	return 0;
}
