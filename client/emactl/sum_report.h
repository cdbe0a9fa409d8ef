/*
 * What `emactl posthoc` and `emactl merge` print about a sum of files.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emactl/emactl.h"

struct sum_report {
	const struct emad_sum *sum;
	const char *file;    /* NULL: none was written */
	uint64_t elapsed_us; /* of the writing */
};

/* The table of parts; is_posthoc: with their widths. 0, or an exit status with the error printed. */
int sum_report_table(const struct emactl *emactl, const struct sum_report *report, bool is_posthoc);

/* The members step, file, file_bytes, elapsed_us and the array of parts under its name, without the braces around. */
void sum_report_json(const struct sum_report *report, bool is_posthoc);
