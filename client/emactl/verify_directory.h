/*
 * Verifying what lies in a directory of emad's: one checkpoint, those of a model, or all of a state directory.
 */
#pragma once

#include <stdbool.h>

#include "client/emactl/emactl.h"

bool verify_is_directory(const char *path);

/* Prints a table, or one JSON object a line. 0, or the exit status of the first failure. */
int verify_directory(const struct emactl *emactl, const char *path, bool is_last);
