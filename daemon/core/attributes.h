/*
 * Attributes and metadata: JSON objects of plain values. The attributes travel with a model, its metadata with one
 * version.
 */
#pragma once

#include <stddef.h>

#include "proto/status.h"

/*
 * Checks that the text is a JSON object of at most ATTRIBUTES_BYTES_MAX (METADATA_BYTES_MAX) bytes as compact JSON.
 * *ret_json receives that (free with free()). STATUS_EARGUMENT, STATUS_ELIMIT with a sentence; -ENOMEM.
 */
int attributes_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason);
int metadata_parse(const char *text, size_t bytes, char **ret_json, struct reason *reason);
