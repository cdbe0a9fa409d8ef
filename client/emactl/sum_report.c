/*
 * The report of a sum: which file with which weight.
 */
#include "client/emactl/sum_report.h"

#include "client/emactl/figure.h"
#include "client/emactl/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

enum { WEIGHT_DIGITS = 6, STD_DIGITS = 4 };

static void part_add(struct table *table, const struct emad_sum_part *part, bool is_posthoc)
{
	if (part->step)
		table_cell(table, TABLE_PLAIN, "%" PRIu64, part->step);
	else
		table_cell(table, TABLE_PLAIN, "-");
	if (is_posthoc)
		table_cell(table, TABLE_PLAIN, "%s", figure_real(part->std, STD_DIGITS).text);
	table_cell(table, TABLE_PLAIN, "%s", figure_real(part->weight, WEIGHT_DIGITS).text);
	table_cell(table, TABLE_PLAIN, "%s", part->path);
}

int sum_report_table(const struct emactl *emactl, const struct sum_report *report, bool is_posthoc)
{
	static const struct table_column POSTHOC[] = {{"STEP", true}, {"STD", true}, {"WEIGHT", true}, {"FILE", false}};
	static const struct table_column MERGE[] = {{"STEP", true}, {"WEIGHT", true}, {"FILE", false}};
	struct table *table = is_posthoc ? table_create(POSTHOC, 4) : table_create(MERGE, 3);
	int code;

	for (size_t i = 0; i < report->sum->part_count; i++)
		part_add(table, &report->sum->parts[i], is_posthoc);
	code = table ? table_print(table, stdout, emactl->is_colour) : -ENOMEM;
	table_destroy(table);
	return code ? output_error(emactl, code, "not enough memory to print the weights") : 0;
}

void sum_report_json(const struct sum_report *report, bool is_posthoc)
{
	const struct emad_sum *sum = report->sum;

	printf("\"step\":%" PRIu64 ",\"file\":", sum->step);
	if (report->file)
		output_json_string(report->file);
	else
		printf("null");
	printf(",\"file_bytes\":%" PRIu64 ",\"elapsed_us\":%" PRIu64 ",\"parts\":[", sum->file_bytes,
	       report->elapsed_us);
	for (size_t i = 0; i < sum->part_count; i++) {
		const struct emad_sum_part *part = &sum->parts[i];

		printf("%s{\"file\":", i ? "," : "");
		output_json_string(part->path);
		printf(",\"profile\":");
		output_json_string(part->profile);
		printf(",\"step\":%" PRIu64, part->step);
		if (is_posthoc)
			printf(",\"std\":%s", figure_json_real(part->std).text);
		printf(",\"weight\":%s}", figure_json_real(part->weight).text);
	}
	printf("]");
}
