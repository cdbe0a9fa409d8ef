/*
 * A model's attributes: a JSON object of plain values that travels with its averages.
 */
#pragma once

#include <stddef.h>

#include "proto/status.h"

/*
 * Checks that the text is one JSON object and writes it compactly to *ret_json (free with free()).
 * STATUS_EARGUMENT saying where it is wrong; STATUS_ELIMIT with both numbers; -ENOMEM.
 */
int attributes_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason);
