/*
 * Writing and reading notes. See notes.h.
 */
#include "daemon/core/notes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct slot_notes *notes_at(const struct slot_header *slot, uint64_t offset)
{
	return (void *)((uint8_t *)(uintptr_t)slot + offset);
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
}

int notes_read(struct model *model)
{
	const struct slot_header *slot = versions_newest(&model->versions);
	const struct slot_notes *notes = notes_at(slot, model_newest_geometry(model)->notes_offset);
	const double *squares = (const void *)(notes + 1);
	char *metadata = NULL;

	if (notes->metadata_bytes > 0 && notes->metadata_bytes <= METADATA_BYTES_MAX) {
		metadata = strndup(notes->metadata, notes->metadata_bytes);
		if (!metadata)
			return -ENOMEM;
	}
	free(model->metadata);
	model->metadata = metadata;
	for (uint32_t t = 0; !model->heirloom.geometry && t < model->manifest->tensor_count; t++)
		model->results[t].value_squares = squares[t];
	return 0;
}
