/*
 * Mistyped words: the nearest known one, so that an error can say what was probably meant.
 */
#pragma once

#include <stddef.h>

enum { NEAREST_BYTES_MAX = 64 }; /* of a word; what is behind is not compared */

/* Levenshtein's distance: letters to change, add or drop. */
unsigned edit_distance(const char *a, const char *b);

/* The nearest of some names, ended by NULL; a name that begins with the word counts as nearest of all. NULL for none. */
const char *nearest_name(const char *word, const char *const *names);
