/*
 * Edit distance. See nearest.h.
 */
#include "proto/nearest.h"

#include <limits.h>
#include <string.h>

unsigned edit_distance(const char *a, const char *b)
{
	size_t a_bytes = strnlen(a, NEAREST_BYTES_MAX), b_bytes = strnlen(b, NEAREST_BYTES_MAX);
	unsigned row[NEAREST_BYTES_MAX + 1];

	for (unsigned j = 0; j <= b_bytes; j++)
		row[j] = j;
	for (size_t i = 0; i < a_bytes; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < b_bytes; j++) {
			unsigned change = diagonal + (a[i] != b[j]), add = row[j] + 1, drop = row[j + 1] + 1;

			diagonal = row[j + 1];
			row[j + 1] = change < add ? change : add;
			row[j + 1] = row[j + 1] < drop ? row[j + 1] : drop;
		}
	}
	return row[b_bytes];
}

const char *nearest_name(const char *word, const char *const *names)
{
	unsigned nearest_distance = UINT_MAX;
	const char *nearest = NULL;

	for (; *names; names++) {
		unsigned distance = word[0] && strncmp(word, *names, strlen(word)) == 0 ? 0 : edit_distance(word, *names);

		if (distance < nearest_distance) {
			nearest_distance = distance;
			nearest = *names;
		}
	}
	return nearest;
}
