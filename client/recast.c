/*
 * The layout of a converted image: order, places, header. See recast.h.
 */
#include "client/recast.h"

#include "proto/image.h"
#include "proto/safetensors_write.h"
#include "proto/sentence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char DTYPE_KEY[] = "emad.dtype";

static int tensor_compare(const void *left, const void *right)
{
	const struct recast_tensor *a = left, *b = right;
	uint64_t a_bytes = dtype_bytes(a->dtype), b_bytes = dtype_bytes(b->dtype);

	if (a_bytes != b_bytes)
		return a_bytes > b_bytes ? -1 : 1;
	if (a->dtype != b->dtype)
		return a->dtype < b->dtype ? -1 : 1;
	return (a->index > b->index) - (a->index < b->index);
}

static int tensors_order(struct recast *recast, const struct safetensors *image, enum dtype dtype, const bool *chosen,
                         struct reason *reason)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < image->entry_count; i++) {
		const struct safetensors_entry *entry = &image->entries[i];
		struct recast_tensor *tensor = &recast->tensors[recast->tensor_count];

		if (chosen && !chosen[i])
			continue;
		recast->tensor_count++;
		tensor->index = i;
		tensor->dtype = dtype != RUNS_AS_KEPT && dtype_is_float(entry->dtype) ? dtype : entry->dtype;
		tensor->element_count = entry->bytes / dtype_bytes(entry->dtype);
		if (__builtin_mul_overflow(tensor->element_count, dtype_bytes(tensor->dtype), &tensor->bytes) ||
		    __builtin_add_overflow(total, tensor->bytes, &total) || total > INT64_MAX / 2)
			return reason_set(reason, STATUS_ELIMIT,
			                  "with tensor '%.*s' as %s the file has more than the %" PRId64
			                  " bytes that can be addressed",
			                  sentence_name_bytes(entry->name), entry->name, dtype_name(tensor->dtype),
			                  INT64_MAX / 2);
	}
	recast->file_bytes = total;
	qsort(recast->tensors, recast->tensor_count, sizeof(*recast->tensors), tensor_compare);
	return 0;
}

static void header_write(struct safetensors_writer *writer, const struct recast *recast,
                         const struct safetensors *image, enum dtype dtype)
{
	const char *name = dtype == RUNS_AS_KEPT ? NULL : dtype_name(dtype);
	bool is_first = !name;
	uint64_t at = 0;

	for (uint32_t i = 0; i < recast->tensor_count; i++) {
		const struct recast_tensor *tensor = &recast->tensors[i];
		const struct safetensors_entry *entry = &image->entries[tensor->index];

		safetensors_write_tensor(writer, entry->name, tensor->dtype, entry->extents, entry->dimension_count, at,
		                         at + tensor->bytes);
		at += tensor->bytes;
	}
	safetensors_write_metadata_begin(writer);
	if (name)
		safetensors_write_metadata_pair(writer, true, DTYPE_KEY, name, strlen(name));
	for (uint32_t i = 0; i < image->metadata_count; i++) {
		const struct safetensors_metadata *pair = &image->metadata[i];

		if (name && strcmp(pair->key, DTYPE_KEY) == 0)
			continue;
		safetensors_write_metadata_pair(writer, is_first, pair->key, pair->value, strlen(pair->value));
		is_first = false;
	}
	safetensors_write_metadata_end(writer);
}

static int header_prepare(struct recast *recast, const struct safetensors *image, enum dtype dtype,
                          struct reason *reason)
{
	struct safetensors_writer writer = {0};
	uint64_t bytes;

	header_write(&writer, recast, image, dtype);
	bytes = SAFETENSORS_SIZE_BYTES + writer.used;
	bytes = (bytes + IMAGE_PAGE_BYTES - 1) / IMAGE_PAGE_BYTES * IMAGE_PAGE_BYTES;
	if (bytes - SAFETENSORS_SIZE_BYTES > SAFETENSORS_HEADER_BYTES_MAX)
		return reason_set(reason, STATUS_ELIMIT,
		                  "the header has %" PRIu64 " bytes%s%s, at most %d are allowed", bytes,
		                  dtype == RUNS_AS_KEPT ? "" : " as ", dtype == RUNS_AS_KEPT ? "" : dtype_name(dtype),
		                  SAFETENSORS_HEADER_BYTES_MAX);
	recast->header = malloc(bytes);
	if (!recast->header)
		return -ENOMEM;
	safetensors_write_size(recast->header, bytes - SAFETENSORS_SIZE_BYTES);
	writer = (struct safetensors_writer){.text = (char *)recast->header + SAFETENSORS_SIZE_BYTES};
	header_write(&writer, recast, image, dtype);
	memset(writer.text + writer.used, ' ', bytes - SAFETENSORS_SIZE_BYTES - writer.used);
	recast->header_bytes = bytes;
	recast->file_bytes += bytes;
	return 0;
}

int recast_create(const struct safetensors *image, enum dtype dtype, const bool *chosen, struct recast **ret_recast,
                  struct reason *reason)
{
	struct recast *recast = calloc(1, sizeof(*recast));
	int code = -ENOMEM;

	if (!recast)
		return -ENOMEM;
	recast->tensors = calloc((size_t)image->entry_count + 1, sizeof(*recast->tensors));
	if (recast->tensors)
		code = tensors_order(recast, image, dtype, chosen, reason);
	if (code == 0)
		code = header_prepare(recast, image, dtype, reason);
	if (code) {
		recast_destroy(recast);
		return code;
	}
	*ret_recast = recast;
	return 0;
}

void recast_destroy(struct recast *recast)
{
	if (!recast)
		return;
	free(recast->tensors);
	free(recast->header);
	free(recast);
}
