/*
 * Writing a safetensors header. The counterpart of safetensors.c, which says where the format comes from.
 */
#include "proto/safetensors_write.h"

#include <string.h>

static void write_bytes(struct safetensors_writer *writer, const char *bytes, size_t count)
{
	if (writer->text)
		memcpy(writer->text + writer->used, bytes, count);
	writer->used += count;
}

static void write_literal(struct safetensors_writer *writer, const char *literal)
{
	write_bytes(writer, literal, strlen(literal));
}

static void write_number(struct safetensors_writer *writer, uint64_t number)
{
	char digits[24];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	write_bytes(writer, digits + at, sizeof(digits) - at);
}

/* A JSON string of UTF-8: only what JSON demands is escaped. */
static void write_string(struct safetensors_writer *writer, const char *text, size_t bytes)
{
	static const char hex[] = "0123456789abcdef";
	size_t plain = 0;

	write_bytes(writer, "\"", 1);
	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= ' ' && c != '"' && c != '\\')
			continue;
		write_bytes(writer, text + plain, i - plain);
		plain = i + 1;
		if (c < ' ')
			write_bytes(writer, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
		else
			write_bytes(writer, (const char[]){'\\', (char)c}, 2);
	}
	write_bytes(writer, text + plain, bytes - plain);
	write_bytes(writer, "\"", 1);
}

/* The header's first member opens it. */
static void write_separator(struct safetensors_writer *writer)
{
	write_literal(writer, writer->used == 0 ? "{" : ",");
}

void safetensors_write_tensor(struct safetensors_writer *writer, const char *name, enum dtype dtype,
                              const uint64_t *extents, uint32_t dimension_count, uint64_t begin, uint64_t end)
{
	write_separator(writer);
	write_string(writer, name, strlen(name));
	write_literal(writer, ":{\"dtype\":\"");
	write_literal(writer, dtype_name(dtype));
	write_literal(writer, "\",\"shape\":[");
	for (uint32_t d = 0; d < dimension_count; d++) {
		if (d > 0)
			write_literal(writer, ",");
		write_number(writer, extents[d]);
	}
	write_literal(writer, "],\"data_offsets\":[");
	write_number(writer, begin);
	write_literal(writer, ",");
	write_number(writer, end);
	write_literal(writer, "]}");
}

void safetensors_write_metadata_begin(struct safetensors_writer *writer)
{
	write_separator(writer);
	write_literal(writer, "\"__metadata__\":{");
}

void safetensors_write_metadata_pair(struct safetensors_writer *writer, bool is_first, const char *key,
                                     const char *value, size_t value_bytes)
{
	if (!is_first)
		write_literal(writer, ",");
	write_string(writer, key, strlen(key));
	write_literal(writer, ":");
	write_string(writer, value, value_bytes);
}

void safetensors_write_metadata_end(struct safetensors_writer *writer)
{
	write_literal(writer, "}}");
}

void safetensors_write_size(uint8_t first[8], uint64_t json_bytes)
{
	for (unsigned i = 0; i < 8; i++)
		first[i] = (uint8_t)(json_bytes >> 8 * i);
}
