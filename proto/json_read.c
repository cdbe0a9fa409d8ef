/*
 * Reading JSON in place (see json_read.h). source: RFC 8259
 *
 * The bytes are hostile. Every step looks at `end` before it looks at a byte, and nothing is converted before its whole
 * extent is known: a string is measured first, then decoded; decoding never makes it longer.
 */
#include "proto/json_read.h"

#include "proto/name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

size_t json_read_offset(const struct json_read *reader)
{
	return (size_t)(reader->at - reader->begin);
}

static void white_space_skip(struct json_read *reader)
{
	while (reader->at < reader->end &&
	       (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
		reader->at++;
}

bool json_read_take(struct json_read *reader, char c)
{
	white_space_skip(reader);
	if (reader->at == reader->end || *reader->at != c)
		return false;
	reader->at++;
	return true;
}

/* What stands at the reader's place, for a sentence. */
static int expected(const struct json_read *reader, const char *what, struct reason *reason)
{
	if (reader->at == reader->end)
		return reason_set(reason, STATUS_ECORRUPT, "%s expected at byte %zu of the header, where it ends", what,
		                  json_read_offset(reader));
	if ((unsigned char)*reader->at < ' ' || (unsigned char)*reader->at >= 0x7f)
		return reason_set(reason, STATUS_ECORRUPT, "%s expected at byte %zu of the header, found 0x%02x", what,
		                  json_read_offset(reader), (unsigned char)*reader->at);
	return reason_set(reason, STATUS_ECORRUPT, "%s expected at byte %zu of the header, found '%c'", what,
	                  json_read_offset(reader), *reader->at);
}

int json_read_expect(struct json_read *reader, char c, struct reason *reason)
{
	const char what[] = {'\'', c, '\'', '\0'};

	return json_read_take(reader, c) ? 0 : expected(reader, what, reason);
}

int json_read_number(struct json_read *reader, uint64_t *ret_number, struct reason *reason)
{
	uint64_t number = 0;
	const char *start;

	white_space_skip(reader);
	start = reader->at;
	for (; reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9'; reader->at++) {
		uint64_t digit = (uint64_t)(*reader->at - '0');

		if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, digit, &number))
			return reason_set(reason, STATUS_ECORRUPT,
			                  "the number at byte %zu of the header is larger than %" PRIu64,
			                  (size_t)(start - reader->begin), UINT64_MAX);
	}
	if (reader->at == start)
		return expected(reader, "a whole number", reason);
	if (*start == '0' && reader->at - start > 1)
		return reason_set(reason, STATUS_ECORRUPT, "the number at byte %zu of the header begins with a zero",
		                  (size_t)(start - reader->begin));
	if (reader->at < reader->end && (*reader->at == '.' || *reader->at == 'e' || *reader->at == 'E'))
		return reason_set(reason, STATUS_ECORRUPT, "the number at byte %zu of the header is not a whole number",
		                  (size_t)(start - reader->begin));
	*ret_number = number;
	return 0;
}

/* Where a string ends: steps over its quotes and finds the raw bytes between them. */
static int string_measure(struct json_read *reader, const char **ret_raw, size_t *ret_raw_bytes,
                          struct reason *reason)
{
	const char *raw, *at;

	if (!json_read_take(reader, '"'))
		return expected(reader, "a string", reason);
	raw = reader->at;
	for (at = raw; at < reader->end && *at != '"'; at++) {
		if (*at == '\\' && ++at == reader->end)
			break;
	}
	if (at == reader->end)
		return reason_set(reason, STATUS_ECORRUPT, "the string at byte %zu of the header does not end",
		                  json_read_offset(reader));
	reader->at = at + 1;
	*ret_raw = raw;
	*ret_raw_bytes = (size_t)(at - raw);
	return 0;
}

/* The four hexadecimal digits of an escape; -1 where they are not. */
static int32_t hex_decode(const char *digits, size_t left)
{
	int32_t unit = 0;

	if (left < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = digits[i];

		if (c >= '0' && c <= '9')
			unit = unit * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			unit = unit * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			unit = unit * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return unit;
}

static size_t utf8_encode(uint32_t code, char *text)
{
	if (code < 0x80) {
		text[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		text[0] = (char)(0xc0 | code >> 6);
		text[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		text[0] = (char)(0xe0 | code >> 12);
		text[1] = (char)(0x80 | (code >> 6 & 0x3f));
		text[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	text[0] = (char)(0xf0 | code >> 18);
	text[1] = (char)(0x80 | (code >> 12 & 0x3f));
	text[2] = (char)(0x80 | (code >> 6 & 0x3f));
	text[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/*
 * Decodes \uXXXX, or a pair of them for a character beyond U+FFFF; raw is behind the 'u'. Returns how many raw bytes
 * it took; 0 for digits that are none, NUL, and halves of pairs.
 */
static size_t unicode_decode(const char *raw, size_t left, uint32_t *ret_code)
{
	int32_t high = hex_decode(raw, left), low;

	if (high <= 0 || (high >= 0xdc00 && high <= 0xdfff))
		return 0;
	*ret_code = (uint32_t)high;
	if (high < 0xd800 || high > 0xdbff)
		return 4;
	if (left < 10 || raw[4] != '\\' || raw[5] != 'u')
		return 0;
	low = hex_decode(raw + 6, left - 6);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*ret_code = 0x10000 + (((uint32_t)high - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
	return 10;
}

/*
 * Decodes raw bytes into text, which has room for as many and a NUL. Returns false for control characters, escapes
 * that JSON does not have, NUL, and what is not UTF-8.
 */
static bool string_decode(const char *raw, size_t raw_bytes, char *text)
{
	static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
	size_t used = 0;

	for (size_t i = 0; i < raw_bytes; i++) {
		const char *escape = escapes;
		uint32_t code;
		size_t taken;

		if ((unsigned char)raw[i] < ' ')
			return false;
		if (raw[i] != '\\') {
			text[used++] = raw[i];
			continue;
		}
		i++;
		if (raw[i] == 'u') {
			taken = unicode_decode(raw + i + 1, raw_bytes - i - 1, &code);
			if (taken == 0)
				return false;
			used += utf8_encode(code, text + used);
			i += taken;
			continue;
		}
		while (*escape && *escape != raw[i])
			escape += 2;
		if (!*escape)
			return false;
		text[used++] = escape[1];
	}
	text[used] = '\0';
	return utf8_check(text, used);
}

static int string_corrupt(const struct json_read *reader, const char *raw, struct reason *reason)
{
	return reason_set(
		reason, STATUS_ECORRUPT,
		"the string at byte %zu of the header has a control character, a wrong escape, or is not UTF-8",
		(size_t)(raw - reader->begin));
}

static int string_too_long(const struct json_read *reader, const char *raw, size_t raw_bytes, size_t bytes_max,
                           struct reason *reason)
{
	return reason_set(reason, STATUS_ECORRUPT,
	                  "the string at byte %zu of the header has %zu bytes, at most %zu are allowed here",
	                  (size_t)(raw - reader->begin), raw_bytes, bytes_max);
}

int json_read_string(struct json_read *reader, char *text, size_t capacity, struct reason *reason)
{
	size_t raw_bytes;
	const char *raw;
	int r = string_measure(reader, &raw, &raw_bytes, reason);

	if (r != 0)
		return r;
	if (raw_bytes >= capacity)
		return string_too_long(reader, raw, raw_bytes, capacity - 1, reason);
	return string_decode(raw, raw_bytes, text) ? 0 : string_corrupt(reader, raw, reason);
}

int json_read_string_copy(struct json_read *reader, size_t bytes_max, char **ret_text, struct reason *reason)
{
	size_t raw_bytes;
	const char *raw;
	char *text;
	int r = string_measure(reader, &raw, &raw_bytes, reason);

	if (r != 0)
		return r;
	if (raw_bytes > bytes_max)
		return string_too_long(reader, raw, raw_bytes, bytes_max, reason);
	text = malloc(raw_bytes + 1);
	if (!text)
		return -ENOMEM;
	if (!string_decode(raw, raw_bytes, text)) {
		free(text);
		return string_corrupt(reader, raw, reason);
	}
	*ret_text = text;
	return 0;
}

int json_read_skip(struct json_read *reader, struct reason *reason)
{
	uint64_t depth = 0;
	const char *raw;
	size_t raw_bytes;

	/* Only where the value ends is looked for: commas and colons may stand anywhere in it. */
	do {
		white_space_skip(reader);
		if (reader->at == reader->end)
			return expected(reader, "a value", reason);
		if (*reader->at == '"') {
			int r = string_measure(reader, &raw, &raw_bytes, reason);

			if (r != 0)
				return r;
			continue;
		}
		if (*reader->at == '[' || *reader->at == '{')
			depth++;
		else if ((*reader->at == ']' || *reader->at == '}' || *reader->at == ',' || *reader->at == ':') && depth == 0)
			return expected(reader, "a value", reason);
		else if (*reader->at == ']' || *reader->at == '}')
			depth--;
		else if (*reader->at != ',' && *reader->at != ':')
			while (reader->at + 1 < reader->end && !strchr(",:]}[{\" \n\r\t", reader->at[1]))
				reader->at++;
		reader->at++;
	} while (depth > 0);
	return 0;
}
