/*
 * Structure, values, checksum. See verify_file.h.
 *
 * When its structure is good every floating-point tensor is scanned. A NaN is damage; an infinity is told but no damage,
 * because masks and limits are often kept as infinities.
 */
#include "client/emactl/verify_file.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/layout.h"

enum { CHUNK_BYTES = 1 << 20 };

static int tensor_scan(struct verification *file, uint32_t index, uint8_t *chunk, struct progress *progress,
                       struct reason *reason)
{
	const struct safetensors_entry *entry = &file->contents->entries[index];
	uint64_t done_bytes = 0;
	size_t chunk_bytes;
	int code;

	while (done_bytes < entry->bytes) {
		chunk_bytes = CHUNK_BYTES;
		if (entry->bytes - done_bytes < CHUNK_BYTES)
			chunk_bytes = (size_t)(entry->bytes - done_bytes);
		code = source_read(&file->source, entry->offset + done_bytes, chunk, chunk_bytes, reason);
		if (code)
			return code;
		scan_add(&file->scans[index], entry->dtype, chunk, chunk_bytes);
		done_bytes += chunk_bytes;
		progress_update(progress, entry->offset + done_bytes, file->source.file_bytes);
	}
	file->total.nan_count += file->scans[index].nan_count;
	file->total.infinite_count += file->scans[index].infinite_count;
	file->damaged_count += file->scans[index].nan_count != 0;
	return 0;
}

static int file_scan(struct verification *file, struct progress *progress, struct reason *reason)
{
	const uint32_t tensor_count = file->contents->entry_count;
	uint8_t *chunk = malloc(CHUNK_BYTES);
	int code = 0;

	file->scans = calloc(tensor_count ? tensor_count : 1, sizeof(*file->scans));
	if (!chunk || !file->scans)
		code = reason_set(reason, -ENOMEM, "%s: not enough memory", source_name(file->source.path));
	for (uint32_t i = 0; i < tensor_count && !code; i++)
		code = tensor_scan(file, i, chunk, progress, reason);
	free(chunk);
	if (code) {
		/* Counts of a part would be read as those of the whole. */
		free(file->scans);
		file->scans = NULL;
		return code;
	}
	if (file->total.nan_count)
		code = reason_set(reason, STATUS_ECORRUPT, "%s: %llu values in %u of its %u tensors are NaN",
		                  source_name(file->source.path), (unsigned long long)file->total.nan_count, file->damaged_count, tensor_count);
	return code;
}

int verification_run(struct verification *file, const char *path, struct progress *progress, struct reason *reason)
{
	int code = source_begin_reading(path, &file->source, &file->contents, reason);

	return code ? code : file_scan(file, progress, reason);
}

int verification_checksum(struct verification *file, uint64_t *ret_checksum, struct reason *reason)
{
	struct layout_sum *sum = layout_sum_begin();
	uint8_t *chunk = malloc(CHUNK_BYTES);
	uint64_t offset = 0;
	int code = sum && chunk ? 0 : reason_set(reason, -ENOMEM, "%s: not enough memory", source_name(file->source.path));

	while (!code && offset < file->source.file_bytes) {
		const uint64_t left = file->source.file_bytes - offset;
		const size_t bytes = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

		code = source_read(&file->source, offset, chunk, bytes, reason);
		if (!code)
			layout_sum_add(sum, chunk, bytes);
		offset += bytes;
	}
	free(chunk);
	if (code)
		(void)layout_sum_end(sum);
	else
		*ret_checksum = layout_sum_end(sum);
	return code;
}

void verification_finish(struct verification *file)
{
	source_close(&file->source);
	safetensors_destroy(file->contents);
	free(file->scans);
}
