/*
 * Writing and reading notes. See notes.h.
 */
#include "daemon/core/notes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct slot_notes *notes_at(const struct slot_header *slot, uint64_t offset)
{
	return (void *)((uint8_t *)(uintptr_t)slot + offset);
}

/* Behind the checksum, up to the last norm. */
static uint64_t checksum_of(const struct slot_notes *notes, uint32_t tensor_count)
{
	const size_t begin = offsetof(struct slot_notes, metadata_bytes);

	return layout_checksum((const uint8_t *)notes + begin, sizeof *notes - begin + tensor_count * sizeof(double));
}

void notes_write(const struct model *model, const struct slot_header *slot, const char *metadata,
                 const struct tensor_result *results)
{
	struct slot_notes *notes = notes_at(slot, model->geometry->notes_offset);
	double *squares = (void *)(notes + 1);

	notes->metadata_bytes = metadata ? strlen(metadata) : 0;
	if (metadata)
		memcpy(notes->metadata, metadata, notes->metadata_bytes);
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		squares[t] = results ? results[t].value_squares : 0;
	notes->checksum = checksum_of(notes, model->manifest->tensor_count);
}

int notes_read(struct model *model, struct reason *reason)
{
	const struct slot_header *slot = versions_newest(&model->versions);
	const struct geometry *geometry = model_newest_geometry(model);
	const struct slot_notes *notes = notes_at(slot, geometry->notes_offset);
	const double *squares = (const void *)(notes + 1);
	char *metadata = NULL;

	free(model->metadata);
	model->metadata = NULL;
	if (notes->checksum != checksum_of(notes, geometry->manifest->tensor_count) ||
	    notes->metadata_bytes > METADATA_BYTES_MAX)
		return reason_set(reason, STATUS_ECORRUPT, "the metadata and norms of version %" PRIu64 " are damaged",
		                  slot->version);
	if (notes->metadata_bytes > 0) {
		metadata = strndup(notes->metadata, notes->metadata_bytes);
		if (!metadata)
			return -ENOMEM;
	}
	model->metadata = metadata;
	if (manifest_compare(geometry->manifest, model->manifest, NULL) != 0)
		return 0;
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		model->results[t].value_squares = squares[t];
	return 0;
}
