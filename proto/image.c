/*
 * The image: order and offsets of the tensors, and the safetensors header in front of them.
 *
 * The header is counted before it is written, so that nothing is touched before it is known to fit.
 */
#include "proto/image.h"

#include "proto/name.h"
#include "proto/safetensors.h"
#include "proto/safetensors_write.h"
#include "proto/sentence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	HEADER_SIZE_BYTES = SAFETENSORS_SIZE_BYTES,
	HEADER_BYTES_MAX = SAFETENSORS_HEADER_BYTES_MAX,
};

/* The part of the header that never changes: "{" and all tensors. */
static void write_tensors(struct safetensors_writer *writer, const struct image *image,
                          const struct manifest *manifest)
{
	for (uint32_t i = 0; i < image->tensor_count; i++) {
		const struct image_tensor *entry = &image->tensors[i];
		const struct tensor *tensor = &manifest->tensors[entry->tensor];

		safetensors_write_tensor(writer, tensor->name, entry->dtype, tensor->extents, tensor->dimension_count,
		                         entry->offset, entry->offset + entry->bytes);
	}
}

/* The part behind it. */
static void write_metadata(struct safetensors_writer *writer, const struct image_metadata *metadata,
                           size_t metadata_count)
{
	safetensors_write_metadata_begin(writer);
	for (size_t i = 0; i < metadata_count; i++)
		safetensors_write_metadata_pair(writer, i == 0, metadata[i].key, metadata[i].value,
		                                metadata[i].value_bytes);
	safetensors_write_metadata_end(writer);
}

/* The order of image.h as one number; the manifest's index is its lowest part. */
static uint64_t order_key(enum dtype shadow, enum dtype pushed, enum schedule_entry entry, uint32_t index)
{
	uint64_t key = 8 - dtype_bytes(shadow);

	_Static_assert(DTYPE_COUNT <= 256 && ENTRY_FIRST < 256, "an item of the key is a byte");
	_Static_assert(ENTRY_AVERAGE < ENTRY_COPY && ENTRY_COPY < ENTRY_FREEZE, "averaged, copied, frozen");
	key = key << 8 | shadow;
	key = key << 8 | pushed;
	key = key << 8 | entry;
	return key << 32 | index;
}

static int key_compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* Gives the tensors their order; keys has room for all. Fills in everything but offsets. */
static void tensors_order(struct image *image, const struct manifest *manifest, const struct profile *profile,
                          uint64_t *keys)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < manifest->tensor_count; i++) {
		const struct tensor *tensor = &manifest->tensors[i];
		struct profile_choice choice = profile_choose(profile, tensor);

		image->index_of[i] = UINT32_MAX;
		if (choice.entry != ENTRY_DROP)
			keys[count++] = order_key(choice.dtype, tensor->dtype, choice.entry, i);
	}
	qsort(keys, count, sizeof(*keys), key_compare);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = (uint32_t)keys[i];
		struct profile_choice choice = profile_choose(profile, &manifest->tensors[index]);

		image->tensors[i].tensor = index;
		image->tensors[i].entry = choice.entry;
		image->tensors[i].dtype = choice.dtype;
		image->tensors[i].rule = choice.rule;
		image->index_of[index] = i;
	}
	image->tensor_count = count;
}

/* Places the tensors one behind the other: widest first, so each is aligned. */
static int tensors_place(struct image *image, const struct manifest *manifest, struct reason *reason)
{
	uint64_t offset = 0;

	for (uint32_t i = 0; i < image->tensor_count; i++) {
		struct image_tensor *entry = &image->tensors[i];
		const struct tensor *tensor = &manifest->tensors[entry->tensor];

		entry->offset = offset;
		if (__builtin_mul_overflow(tensor->element_count, dtype_bytes(entry->dtype), &entry->bytes) ||
		    __builtin_add_overflow(offset, entry->bytes, &offset) || offset > INT64_MAX / 2)
			return reason_set(reason, STATUS_ELIMIT,
			                  "with tensor '%.*s' the average has more than the %" PRId64
			                  " bytes that can be addressed",
			                  sentence_name_bytes(tensor->name), tensor->name, INT64_MAX / 2);
		image->runs.bytes[entry->dtype] += entry->bytes;
	}
	image->data_bytes = offset;
	return 0;
}

static int header_prepare(struct image *image, const struct manifest *manifest, size_t metadata_capacity,
                          struct reason *reason)
{
	struct safetensors_writer writer = {0}, whole;
	uint64_t bytes;

	write_tensors(&writer, image, manifest);
	whole = writer;
	write_metadata(&whole, NULL, 0);
	bytes = HEADER_SIZE_BYTES + whole.used;
	if (metadata_capacity > HEADER_BYTES_MAX || bytes + metadata_capacity > HEADER_BYTES_MAX - IMAGE_PAGE_BYTES)
		return reason_set(reason, STATUS_ELIMIT,
		                  "the header of %u tensors has %" PRIu64
		                  " bytes and room for %zu of metadata, at most %d are allowed",
		                  image->tensor_count, bytes, metadata_capacity, HEADER_BYTES_MAX - IMAGE_PAGE_BYTES);
	image->header = malloc(writer.used);
	if (!image->header)
		return -ENOMEM;
	image->header_fixed_bytes = writer.used;
	writer = (struct safetensors_writer){.text = image->header};
	write_tensors(&writer, image, manifest);
	assert(writer.used == image->header_fixed_bytes);
	bytes += metadata_capacity;
	image->data_offset = (bytes + IMAGE_PAGE_BYTES - 1) / IMAGE_PAGE_BYTES * IMAGE_PAGE_BYTES;
	image->image_bytes = image->data_offset + image->data_bytes;
	return 0;
}

int image_create(const struct manifest *manifest, const struct profile *profile, size_t metadata_capacity,
                 struct image **ret_image, struct reason *reason)
{
	struct image *image = calloc(1, sizeof(*image));
	uint64_t *keys = calloc(manifest->tensor_count, sizeof(*keys));
	int r = -ENOMEM;

	if (!image || !keys)
		goto fail;
	image->tensors = calloc(manifest->tensor_count, sizeof(*image->tensors));
	image->index_of = calloc(manifest->tensor_count, sizeof(*image->index_of));
	if (!image->tensors || !image->index_of)
		goto fail;
	tensors_order(image, manifest, profile, keys);
	if (image->tensor_count == 0) {
		r = reason_set(reason, STATUS_EPROFILE, "profile '%s' holds none of the %u tensors: its %s%s %s", profile->name,
		               manifest->tensor_count, profile->rule_count > 0 ? "rules and its schedule " : "schedule ",
		               profile->schedule.kind->name,
		               profile->rule_count > 0 ? "drop them all" : "keeps parameters only");
		goto fail;
	}
	r = tensors_place(image, manifest, reason);
	if (r == 0)
		r = header_prepare(image, manifest, metadata_capacity, reason);
	if (r != 0)
		goto fail;
	free(keys);
	*ret_image = image;
	return 0;
fail:
	free(keys);
	image_destroy(image);
	return r;
}

void image_destroy(struct image *image)
{
	if (!image)
		return;
	free(image->tensors);
	free(image->index_of);
	free(image->header);
	free(image);
}

/* A value that readers would refuse must not get into a file. */
static int metadata_check(const struct image_metadata *metadata, size_t metadata_count, struct reason *reason)
{
	for (size_t i = 0; i < metadata_count; i++) {
		const struct image_metadata *pair = &metadata[i];

		if (!utf8_check(pair->key, strlen(pair->key)) || !utf8_check(pair->value, pair->value_bytes) ||
		    (pair->value_bytes > 0 && memchr(pair->value, '\0', pair->value_bytes)))
			return reason_set(reason, STATUS_EARGUMENT, "metadata %zu is not UTF-8 without NUL", i);
	}
	return 0;
}

int image_header_write(const struct image *image, uint8_t *region, const struct image_metadata *metadata,
                       size_t metadata_count, struct reason *reason)
{
	size_t room = image->data_offset - HEADER_SIZE_BYTES - image->header_fixed_bytes;
	uint64_t json_bytes = image->data_offset - HEADER_SIZE_BYTES;
	struct safetensors_writer writer = {.used = image->header_fixed_bytes};
	int r = metadata_check(metadata, metadata_count, reason);

	if (r != 0)
		return r;
	write_metadata(&writer, metadata, metadata_count);
	if (writer.used > json_bytes)
		return reason_set(reason, STATUS_ELIMIT, "the metadata have %zu bytes as JSON, there is room for %zu",
		                  writer.used - image->header_fixed_bytes, room);
	safetensors_write_size(region, json_bytes);
	memcpy(region + HEADER_SIZE_BYTES, image->header, image->header_fixed_bytes);
	writer = (struct safetensors_writer){(char *)region + HEADER_SIZE_BYTES, image->header_fixed_bytes};
	write_metadata(&writer, metadata, metadata_count);
	memset(writer.text + writer.used, ' ', json_bytes - writer.used);
	return 0;
}
