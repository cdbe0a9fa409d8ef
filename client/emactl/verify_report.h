/*
 * What `emactl verify` found, for people and for programs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emactl/scan.h"
#include "client/source.h"

struct verification {
	struct source source;
	struct safetensors *contents; /* owned; NULL when the structure is damaged */
	struct scan *scans; /* owned; by the index of the entries; NULL before the scan */
	struct scan total;
	uint32_t damaged_count; /* tensors that hold NaN */
};

/* On standard output; 0 or -ENOMEM. contents and scans are there. */
int verify_report_print(const struct verification *file, bool is_colour);

/* One line on standard output. code: of the whole verification; sentence: why, when it is not 0. */
void verify_report_json(const struct verification *file, int code, const char *sentence);
