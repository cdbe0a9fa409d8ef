/*
 * Names and shapes as they stand in a sentence for the person: cut, so that the numbers behind them still fit into a
 * struct reason. What is cut is only shown, never compared.
 */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SENTENCE_NAME_BYTES_MAX = 140 };

/* For "%.*s": how many bytes of a UTF-8 name to show, never half a character. */
static inline int sentence_name_bytes(const char *name)
{
	size_t bytes = strnlen(name, SENTENCE_NAME_BYTES_MAX + 1);

	if (bytes > SENTENCE_NAME_BYTES_MAX) {
		bytes = SENTENCE_NAME_BYTES_MAX;
		while (bytes > 0 && ((unsigned char)name[bytes] & 0xc0) == 0x80)
			bytes--;
	}
	return (int)bytes;
}

struct sentence_shape {
	char text[88];
};

/* "[12,64]"; "[12,64,...]" where that would be long. */
static inline struct sentence_shape sentence_shape(const uint64_t *extents, uint32_t dimension_count)
{
	const size_t room = sizeof(((struct sentence_shape *)0)->text) - sizeof(",18446744073709551615,...]");
	struct sentence_shape shape = {.text = "["};
	size_t used = 1;
	uint32_t i;

	for (i = 0; i < dimension_count && used < room; i++)
		used += (size_t)snprintf(shape.text + used, sizeof(shape.text) - used, "%s%" PRIu64, i > 0 ? "," : "",
		                         extents[i]);
	snprintf(shape.text + used, sizeof(shape.text) - used, "%s]", i < dimension_count ? ",..." : "");
	return shape;
}
