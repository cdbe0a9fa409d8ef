/*
 * What `emactl verify` found, for people and for programs.
 */
#pragma once

#include <stdbool.h>

#include "client/emactl/verify_file.h"

/* On standard output; 0 or -ENOMEM. contents and scans are there. */
int verify_report_print(const struct verification *file, bool is_colour);

/* One line on standard output. code: of the whole verification; sentence: why, when it is not 0. */
void verify_report_json(const struct verification *file, int code, const char *sentence);
