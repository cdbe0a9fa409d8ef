/*
 * Reading the header of a safetensors file.
 *
 * source: https://github.com/huggingface/safetensors, README "Format" and safetensors/src/tensor.rs
 *
 *     | size: u64 little-endian | JSON object, spaces | data |
 *     {"name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "value"}}
 *
 * First the JSON is read into entries as they come, each checked by itself; then the entries are sorted by their place
 * and must lie one behind the other from the first byte of the data to the last byte of the file. Duplicate names show
 * up when the index by name is sorted. So hostile headers cost what honest ones of their size cost.
 */
#include "proto/safetensors.h"

#include "proto/json_read.h"
#include "proto/name.h"
#include "proto/sentence.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	SIZE_BYTES = SAFETENSORS_SIZE_BYTES,
	HEADER_BYTES_MAX = SAFETENSORS_HEADER_BYTES_MAX,
	NAME_RAW_BYTES_MAX = 6 * TENSOR_NAME_BYTES_MAX, /* each byte may be written as \u00xx */
	WORD_BYTES_MAX = 32, /* keys of an entry, dtypes */
};

/* Growing arrays while the header is read. */
struct parser {
	struct json_read reader;
	struct safetensors *safetensors;
	uint32_t entry_capacity;
	uint32_t metadata_capacity;
	bool has_metadata;
};

int safetensors_header_bytes(const uint8_t first[8], uint64_t file_bytes, uint64_t *ret_bytes, struct reason *reason)
{
	uint64_t bytes = 0;

	for (int i = SIZE_BYTES - 1; i >= 0; i--)
		bytes = bytes << 8 | first[i];
	if (bytes > HEADER_BYTES_MAX)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the header claims %" PRIu64 " bytes, at most %d are allowed", bytes,
		                  HEADER_BYTES_MAX);
	if (file_bytes < SIZE_BYTES || bytes > file_bytes - SIZE_BYTES)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the header claims %" PRIu64 " bytes, but the file has %" PRIu64, bytes, file_bytes);
	*ret_bytes = SIZE_BYTES + bytes;
	return 0;
}

void safetensors_destroy(struct safetensors *safetensors)
{
	if (!safetensors)
		return;
	for (uint32_t i = 0; i < safetensors->entry_count; i++)
		free(safetensors->entries[i].name);
	for (uint32_t i = 0; i < safetensors->metadata_count; i++) {
		free(safetensors->metadata[i].key);
		free(safetensors->metadata[i].value);
	}
	free(safetensors->entries);
	free(safetensors->metadata);
	free(safetensors->by_name);
	free(safetensors);
}

/* Room for one more item; NULL, and everything as before, where there is no memory. */
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

static int metadata_pair_parse(struct parser *parser, struct reason *reason)
{
	struct safetensors *safetensors = parser->safetensors;
	struct safetensors_metadata *metadata;
	int r;

	if (safetensors->metadata_count >= SAFETENSORS_METADATA_COUNT_MAX)
		return reason_set(reason, STATUS_ECORRUPT, "more than %d keys in __metadata__",
		                  SAFETENSORS_METADATA_COUNT_MAX);
	metadata = array_grow(safetensors->metadata, safetensors->metadata_count, &parser->metadata_capacity,
	                      sizeof(*metadata));
	if (!metadata)
		return -ENOMEM;
	safetensors->metadata = metadata;
	metadata += safetensors->metadata_count;
	r = json_read_string_copy(&parser->reader, HEADER_BYTES_MAX, &metadata->key, reason);
	if (r != 0)
		return r;
	metadata->value = NULL;
	safetensors->metadata_count++;
	r = json_read_expect(&parser->reader, ':', reason);
	return r != 0 ? r : json_read_string_copy(&parser->reader, HEADER_BYTES_MAX, &metadata->value, reason);
}

static int metadata_parse(struct parser *parser, struct reason *reason)
{
	int r;

	if (parser->has_metadata)
		return reason_set(reason, STATUS_ECORRUPT, "__metadata__ occurs twice");
	parser->has_metadata = true;
	r = json_read_expect(&parser->reader, '{', reason);
	if (r != 0 || json_read_take(&parser->reader, '}'))
		return r;
	do {
		r = metadata_pair_parse(parser, reason);
		if (r != 0)
			return r;
	} while (json_read_take(&parser->reader, ','));
	return json_read_expect(&parser->reader, '}', reason);
}

/* An array of at most number_max numbers. */
static int numbers_parse(struct json_read *reader, uint64_t *ret_numbers, uint32_t number_max, uint32_t *ret_count,
                         struct reason *reason)
{
	uint32_t count = 0;
	int r = json_read_expect(reader, '[', reason);

	if (r == 0 && !json_read_take(reader, ']')) {
		do {
			if (count == number_max)
				return reason_set(reason, STATUS_ECORRUPT,
				                  "more than %u numbers in the array that reaches byte %zu", number_max,
				                  json_read_offset(reader));
			r = json_read_number(reader, &ret_numbers[count++], reason);
			if (r != 0)
				return r;
		} while (json_read_take(reader, ','));
		r = json_read_expect(reader, ']', reason);
	}
	if (r == 0)
		*ret_count = count;
	return r;
}

static int dtype_parse_entry(struct json_read *reader, struct safetensors_entry *entry, struct reason *reason)
{
	char word[WORD_BYTES_MAX];
	int r = json_read_string(reader, word, sizeof(word), reason);

	if (r != 0 || dtype_parse(word, &entry->dtype))
		return r;
	return reason_set(reason, STATUS_ECORRUPT, "tensor '%.*s' has dtype '%s', which is not supported",
	                  sentence_name_bytes(entry->name), entry->name, word);
}

/* offset is kept relative to the data until all is known. */
static int offsets_parse(struct json_read *reader, struct safetensors_entry *entry, struct reason *reason)
{
	uint64_t offsets[2];
	uint32_t count = 0;
	int r = numbers_parse(reader, offsets, 2, &count, reason);

	if (r != 0)
		return r;
	if (count != 2 || offsets[1] < offsets[0])
		return reason_set(reason, STATUS_ECORRUPT, "tensor '%.*s': data_offsets are not a begin and an end",
		                  sentence_name_bytes(entry->name), entry->name);
	entry->offset = offsets[0];
	entry->bytes = offsets[1] - offsets[0];
	return 0;
}

/* The object behind a tensor's name: three members, each once, in any order. */
static int entry_members_parse(struct json_read *reader, struct safetensors_entry *entry, struct reason *reason)
{
	static const char *const members[] = {"dtype", "shape", "data_offsets"};
	unsigned seen = 0, i;
	int r = json_read_expect(reader, '{', reason);

	if (r != 0)
		return r;
	do {
		char word[WORD_BYTES_MAX];

		r = json_read_string(reader, word, sizeof(word), reason);
		if (r == 0)
			r = json_read_expect(reader, ':', reason);
		if (r != 0)
			return r;
		for (i = 0; i < 3 && strcmp(word, members[i]) != 0; i++)
			continue;
		if (i == 3 || seen & 1u << i)
			return reason_set(reason, STATUS_ECORRUPT, "tensor '%.*s': '%s' %s",
			                  sentence_name_bytes(entry->name), entry->name, word,
			                  i == 3 ? "is not part of the format" : "occurs twice");
		seen |= 1u << i;
		if (i == 0)
			r = dtype_parse_entry(reader, entry, reason);
		else if (i == 1)
			r = numbers_parse(reader, entry->extents, DIMENSION_COUNT_MAX, &entry->dimension_count, reason);
		else
			r = offsets_parse(reader, entry, reason);
		if (r != 0)
			return r;
	} while (json_read_take(reader, ','));
	r = json_read_expect(reader, '}', reason);
	if (r != 0)
		return r;
	for (i = 0; i < 3 && seen & 1u << i; i++)
		continue;
	if (i < 3)
		return reason_set(reason, STATUS_ECORRUPT, "tensor '%.*s' has no '%s'",
		                  sentence_name_bytes(entry->name), entry->name, members[i]);
	return 0;
}

static int entry_size_check(const struct safetensors_entry *entry, struct reason *reason)
{
	int name_bytes = sentence_name_bytes(entry->name);
	uint64_t elements, bytes;

	if (shape_elements(entry->extents, entry->dimension_count, entry->dtype, &elements) != 0)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "tensor '%.*s': shape %s of %s has more bytes than can be addressed", name_bytes,
		                  entry->name, sentence_shape(entry->extents, entry->dimension_count).text,
		                  dtype_name(entry->dtype));
	bytes = elements * dtype_bytes(entry->dtype);
	if (bytes != entry->bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "tensor '%.*s': shape %s of %s has %" PRIu64 " bytes, its data_offsets span %" PRIu64,
		                  name_bytes, entry->name, sentence_shape(entry->extents, entry->dimension_count).text,
		                  dtype_name(entry->dtype), bytes, entry->bytes);
	return 0;
}

/* Takes over the name, also on failure. */
static int entry_parse(struct parser *parser, char *name, struct reason *reason)
{
	struct safetensors *safetensors = parser->safetensors;
	struct safetensors_entry *entries;
	int r;

	if (tensor_name_check(name, strlen(name), reason) != 0)
		r = STATUS_ECORRUPT;
	else if (safetensors->entry_count >= TENSOR_COUNT_MAX)
		r = reason_set(reason, STATUS_ECORRUPT, "more than %d tensors", TENSOR_COUNT_MAX);
	else
		r = 0;
	entries = r != 0 ? NULL : array_grow(safetensors->entries, safetensors->entry_count, &parser->entry_capacity,
	                                     sizeof(*entries));
	if (!entries) {
		free(name);
		return r != 0 ? r : -ENOMEM;
	}
	safetensors->entries = entries;
	entries += safetensors->entry_count++;
	*entries = (struct safetensors_entry){.name = name};
	r = entry_members_parse(&parser->reader, entries, reason);
	return r != 0 ? r : entry_size_check(entries, reason);
}

static int header_parse(struct parser *parser, struct reason *reason)
{
	struct json_read *reader = &parser->reader;
	int r;

	if (reader->at == reader->end || *reader->at != '{')
		return reason_set(reason, STATUS_ECORRUPT, "the header does not begin with '{'");
	reader->at++;
	if (!json_read_take(reader, '}')) {
		do {
			char *name;

			r = json_read_string_copy(reader, NAME_RAW_BYTES_MAX, &name, reason);
			if (r != 0)
				return r;
			r = json_read_expect(reader, ':', reason);
			if (r != 0 || strcmp(name, "__metadata__") == 0) {
				free(name);
				r = r != 0 ? r : metadata_parse(parser, reason);
			} else {
				r = entry_parse(parser, name, reason);
			}
			if (r != 0)
				return r;
		} while (json_read_take(reader, ','));
		r = json_read_expect(reader, '}', reason);
		if (r != 0)
			return r;
	}
	while (reader->at < reader->end && *reader->at == ' ')
		reader->at++;
	if (reader->at < reader->end)
		return reason_set(reason, STATUS_ECORRUPT, "byte %zu of the header, behind the JSON, is not a space",
		                  json_read_offset(reader));
	return 0;
}

static int entry_place_compare(const void *left, const void *right)
{
	const struct safetensors_entry *a = left, *b = right;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	/* Tensors without elements come before the one that begins at their place. */
	return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Sorts the entries and makes their offsets those of the file. */
static int entries_place(struct safetensors *safetensors, struct reason *reason)
{
	uint64_t data_bytes = safetensors->file_bytes - safetensors->data_offset, at = 0;
	bool is_sorted = true;

	for (uint32_t i = 1; i < safetensors->entry_count && is_sorted; i++)
		is_sorted = entry_place_compare(&safetensors->entries[i - 1], &safetensors->entries[i]) <= 0;
	if (!is_sorted)
		qsort(safetensors->entries, safetensors->entry_count, sizeof(*safetensors->entries),
		      entry_place_compare);
	for (uint32_t i = 0; i < safetensors->entry_count; i++) {
		struct safetensors_entry *entry = &safetensors->entries[i];

		if (entry->offset != at)
			return reason_set(reason, STATUS_ECORRUPT,
			                  "tensor '%.*s' begins at byte %" PRIu64 " of the data, where %" PRIu64
			                  " is expected: %s",
			                  sentence_name_bytes(entry->name), entry->name, entry->offset, at,
			                  entry->offset > at ? "there is a hole" : "tensors overlap");
		if (entry->bytes > data_bytes - at)
			return reason_set(reason, STATUS_ECORRUPT,
			                  "tensor '%.*s' ends at byte %" PRIu64
			                  " of the data, of which there are %" PRIu64,
			                  sentence_name_bytes(entry->name), entry->name, at + entry->bytes, data_bytes);
		at += entry->bytes;
		entry->offset += safetensors->data_offset;
	}
	if (at != data_bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the tensors end at byte %" PRIu64 " of the data, of which there are %" PRIu64, at,
		                  data_bytes);
	return 0;
}

static int index_compare(const void *left, const void *right, void *context)
{
	const struct safetensors *safetensors = context;
	const uint32_t *a = left, *b = right;

	return strcmp(safetensors->entries[*a].name, safetensors->entries[*b].name);
}

static int metadata_compare(const void *left, const void *right)
{
	const struct safetensors_metadata *a = left, *b = right;

	return strcmp(a->key, b->key);
}

/* Sorts by name and by key, which brings duplicates together. */
static int names_sort(struct safetensors *safetensors, struct reason *reason)
{
	uint32_t *by_name = NULL;

	if (safetensors->entry_count > 0) {
		by_name = calloc(safetensors->entry_count, sizeof(*by_name));
		if (!by_name)
			return -ENOMEM;
		safetensors->by_name = by_name;
		for (uint32_t i = 0; i < safetensors->entry_count; i++)
			by_name[i] = i;
		qsort_r(by_name, safetensors->entry_count, sizeof(*by_name), index_compare, safetensors);
	}
	for (uint32_t i = 1; i < safetensors->entry_count; i++) {
		const char *name = safetensors->entries[by_name[i]].name;

		if (index_compare(&by_name[i - 1], &by_name[i], safetensors) == 0)
			return reason_set(reason, STATUS_ECORRUPT, "tensor '%.*s' occurs twice",
			                  sentence_name_bytes(name), name);
	}
	if (safetensors->metadata_count > 1)
		qsort(safetensors->metadata, safetensors->metadata_count, sizeof(*safetensors->metadata),
		      metadata_compare);
	for (uint32_t i = 1; i < safetensors->metadata_count; i++) {
		const char *key = safetensors->metadata[i].key;

		if (strcmp(safetensors->metadata[i - 1].key, key) == 0)
			return reason_set(reason, STATUS_ECORRUPT, "the key '%.*s' of __metadata__ occurs twice",
			                  sentence_name_bytes(key), key);
	}
	return 0;
}

int safetensors_parse(const uint8_t *bytes, uint64_t header_available, uint64_t file_bytes,
                      struct safetensors **ret_safetensors, struct reason *reason)
{
	struct parser parser = {0};
	uint64_t header_bytes;
	int r;

	if (header_available < SIZE_BYTES)
		return reason_set(reason, STATUS_ECORRUPT, "%" PRIu64 " bytes are too few for a safetensors file",
		                  header_available);
	r = safetensors_header_bytes(bytes, file_bytes, &header_bytes, reason);
	if (r != 0)
		return r;
	if (header_available < header_bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "only %" PRIu64 " of the header's %" PRIu64 " bytes are there", header_available,
		                  header_bytes);
	parser.safetensors = calloc(1, sizeof(*parser.safetensors));
	if (!parser.safetensors)
		return -ENOMEM;
	parser.safetensors->data_offset = header_bytes;
	parser.safetensors->file_bytes = file_bytes;
	parser.reader.begin = parser.reader.at = (const char *)bytes + SIZE_BYTES;
	parser.reader.end = (const char *)bytes + header_bytes;
	r = header_parse(&parser, reason);
	if (r == 0)
		r = entries_place(parser.safetensors, reason);
	if (r == 0)
		r = names_sort(parser.safetensors, reason);
	if (r != 0) {
		safetensors_destroy(parser.safetensors);
		return r;
	}
	*ret_safetensors = parser.safetensors;
	return 0;
}

void safetensors_keep(struct safetensors *safetensors, const bool *chosen)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < safetensors->entry_count; i++) {
		if (chosen[i])
			safetensors->entries[count++] = safetensors->entries[i];
		else
			free(safetensors->entries[i].name);
	}
	safetensors->entry_count = count;
	for (uint32_t i = 0; i < count; i++)
		safetensors->by_name[i] = i;
	if (count > 1)
		qsort_r(safetensors->by_name, count, sizeof(*safetensors->by_name), index_compare, safetensors);
}

const struct safetensors_entry *safetensors_find(const struct safetensors *safetensors, const char *name)
{
	uint32_t low = 0, high = safetensors->entry_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct safetensors_entry *entry = &safetensors->entries[safetensors->by_name[middle]];
		int order = strcmp(name, entry->name);

		if (order == 0)
			return entry;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const char *safetensors_metadata_get(const struct safetensors *safetensors, const char *key)
{
	struct safetensors_metadata wanted = {.key = (char *)(uintptr_t)key};
	const struct safetensors_metadata *found;

	if (safetensors->metadata_count == 0)
		return NULL;
	found = bsearch(&wanted, safetensors->metadata, safetensors->metadata_count, sizeof(wanted), metadata_compare);
	return found ? found->value : NULL;
}
