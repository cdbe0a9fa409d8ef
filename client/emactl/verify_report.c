/*
 * The report of `emactl verify`: totals, element types, metadata, and the tensors with values that are not finite.
 */
#include "client/emactl/verify_report.h"

#include "client/emactl/emactl.h"
#include "client/emactl/figure.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SHAPE_TEXT_BYTES = DIMENSION_COUNT_MAX * 21 + 3, VALUE_CHARS_MAX = 100 };

struct dtype_total {
	uint32_t tensor_count;
	uint64_t parameter_count;
	uint64_t bytes;
};

static void totals_add(const struct safetensors *contents, struct dtype_total totals[DTYPE_COUNT],
                       struct dtype_total *all)
{
	const struct safetensors_entry *entry;

	for (uint32_t i = 0; i < contents->entry_count; i++) {
		entry = &contents->entries[i];
		totals[entry->dtype].tensor_count++;
		totals[entry->dtype].parameter_count += entry->bytes / dtype_bytes(entry->dtype);
		totals[entry->dtype].bytes += entry->bytes;
		all->parameter_count += entry->bytes / dtype_bytes(entry->dtype);
		all->bytes += entry->bytes;
	}
	all->tensor_count = contents->entry_count;
}

static void shape_format(const struct safetensors_entry *entry, char text[SHAPE_TEXT_BYTES])
{
	size_t used = 0;

	text[used++] = '[';
	for (uint32_t i = 0; i < entry->dimension_count; i++)
		used += (size_t)snprintf(text + used, SHAPE_TEXT_BYTES - used, "%s%" PRIu64, i ? "," : "",
		                         entry->extents[i]);
	snprintf(text + used, SHAPE_TEXT_BYTES - used, "]");
}

/* ---- for people ----------------------------------------------------------------------------------------------- */

static int facts_print(const struct verification *file, const struct dtype_total *all, bool is_colour)
{
	static const struct table_column COLUMNS[2] = {{0}};
	struct table *table = table_create(COLUMNS, 2);
	const struct safetensors_metadata *metadata;
	int code;

	table_cell(table, TABLE_HEAD, "file");
	table_cell(table, TABLE_PLAIN, "%s", file->source.path);
	table_cell(table, TABLE_HEAD, "size");
	table_cell(table, TABLE_PLAIN, "%s", figure_bytes(file->source.file_bytes).text);
	table_cell(table, TABLE_HEAD, "tensors");
	table_cell(table, TABLE_PLAIN, "%" PRIu32, all->tensor_count);
	table_cell(table, TABLE_HEAD, "parameters");
	table_cell(table, TABLE_PLAIN, "%s", figure_count(all->parameter_count).text);
	for (uint32_t i = 0; i < file->contents->metadata_count; i++) {
		metadata = &file->contents->metadata[i];
		table_cell(table, TABLE_HEAD, "%s", metadata->key);
		table_cell(table, TABLE_PLAIN, "%.*s%s", VALUE_CHARS_MAX, metadata->value,
		           strlen(metadata->value) > VALUE_CHARS_MAX ? "..." : "");
	}
	code = table_print(table, stdout, is_colour);
	table_destroy(table);
	return code;
}

static int dtypes_print(const struct dtype_total totals[DTYPE_COUNT], bool is_colour)
{
	static const struct table_column COLUMNS[] = {
		{"DTYPE", false}, {"TENSORS", true}, {"PARAMETERS", true}, {"BYTES", true}};
	struct table *table = table_create(COLUMNS, 4);
	int code;

	for (unsigned i = 0; i < DTYPE_COUNT; i++) {
		if (totals[i].tensor_count == 0)
			continue;
		table_cell(table, TABLE_PLAIN, "%s", dtype_name((enum dtype)i));
		table_cell(table, TABLE_PLAIN, "%" PRIu32, totals[i].tensor_count);
		table_cell(table, TABLE_PLAIN, "%s", figure_count(totals[i].parameter_count).text);
		table_cell(table, TABLE_PLAIN, "%s", figure_bytes(totals[i].bytes).text);
	}
	putchar('\n');
	code = table_print(table, stdout, is_colour);
	table_destroy(table);
	return code;
}

static bool scan_is_clean(const struct scan *scan)
{
	return scan->nan_count == 0 && scan->infinite_count == 0;
}

static int nonfinite_print(const struct verification *file, bool is_colour)
{
	static const struct table_column COLUMNS[] = {
		{"NOT FINITE", false}, {"DTYPE", false}, {"SHAPE", false}, {"NAN", true}, {"INFINITE", true}};
	const struct safetensors_entry *entry;
	const struct scan *scan;
	char shape[SHAPE_TEXT_BYTES];
	struct table *table;
	int code;

	if (scan_is_clean(&file->total))
		return 0;
	table = table_create(COLUMNS, 5);
	for (uint32_t i = 0; i < file->contents->entry_count; i++) {
		entry = &file->contents->entries[i];
		scan = &file->scans[i];
		if (scan_is_clean(scan))
			continue;
		shape_format(entry, shape);
		table_cell(table, TABLE_PLAIN, "%s", entry->name);
		table_cell(table, TABLE_PLAIN, "%s", dtype_name(entry->dtype));
		table_cell(table, TABLE_PLAIN, "%s", shape);
		table_cell(table, scan->nan_count ? TABLE_BAD : TABLE_PLAIN, "%" PRIu64, scan->nan_count);
		table_cell(table, scan->infinite_count ? TABLE_WARN : TABLE_PLAIN, "%" PRIu64, scan->infinite_count);
	}
	putchar('\n');
	code = table_print(table, stdout, is_colour);
	table_destroy(table);
	return code;
}

int verify_report_print(const struct verification *file, bool is_colour)
{
	struct dtype_total totals[DTYPE_COUNT] = {0}, all = {0};
	int code;

	totals_add(file->contents, totals, &all);
	code = facts_print(file, &all, is_colour);
	if (!code)
		code = dtypes_print(totals, is_colour);
	if (!code)
		code = nonfinite_print(file, is_colour);
	return code;
}

/* ---- for programs --------------------------------------------------------------------------------------------- */

static void dtypes_json(const struct dtype_total totals[DTYPE_COUNT])
{
	const char *separator = "";

	printf(",\"dtypes\":{");
	for (unsigned i = 0; i < DTYPE_COUNT; i++) {
		if (totals[i].tensor_count == 0)
			continue;
		printf("%s\"%s\":{\"tensors\":%" PRIu32 ",\"parameters\":%" PRIu64 ",\"payload_bytes\":%" PRIu64 "}",
		       separator, dtype_name((enum dtype)i), totals[i].tensor_count, totals[i].parameter_count,
		       totals[i].bytes);
		separator = ",";
	}
	putchar('}');
}

static void nonfinite_json(const struct verification *file)
{
	const struct safetensors_entry *entry;
	const struct scan *scan;
	const char *separator = "";
	char shape[SHAPE_TEXT_BYTES];

	printf(",\"nonfinite_tensors\":[");
	for (uint32_t i = 0; i < file->contents->entry_count; i++) {
		entry = &file->contents->entries[i];
		scan = &file->scans[i];
		if (scan_is_clean(scan))
			continue;
		shape_format(entry, shape);
		printf("%s{\"name\":", separator);
		output_json_string(entry->name);
		printf(",\"dtype\":\"%s\",\"shape\":%s,\"nan\":%" PRIu64 ",\"infinite\":%" PRIu64 "}",
		       dtype_name(entry->dtype), shape, scan->nan_count, scan->infinite_count);
		separator = ",";
	}
	putchar(']');
}

static void contents_json(const struct verification *file)
{
	struct dtype_total totals[DTYPE_COUNT] = {0}, all = {0};

	totals_add(file->contents, totals, &all);
	printf(",\"header_bytes\":%" PRIu64 ",\"payload_bytes\":%" PRIu64 ",\"tensors\":%" PRIu32
	       ",\"parameters\":%" PRIu64,
	       file->contents->data_offset, all.bytes, all.tensor_count, all.parameter_count);
	dtypes_json(totals);
	if (file->scans) {
		printf(",\"nan\":%" PRIu64 ",\"infinite\":%" PRIu64, file->total.nan_count, file->total.infinite_count);
		nonfinite_json(file);
	}
	printf(",\"metadata\":{");
	for (uint32_t i = 0; i < file->contents->metadata_count; i++) {
		fputs(i ? "," : "", stdout);
		output_json_string(file->contents->metadata[i].key);
		putchar(':');
		output_json_string(file->contents->metadata[i].value);
	}
	putchar('}');
}

void verify_report_json(const struct verification *file, int code, const char *sentence)
{
	printf("{\"file\":");
	output_json_string(file->source.path);
	printf(",\"is_good\":%s,\"reason\":", code ? "false" : "true");
	if (code)
		output_json_string(sentence);
	else
		printf("null");
	printf(",\"file_bytes\":%" PRIu64, file->source.file_bytes);
	if (file->contents)
		contents_json(file);
	printf("}\n");
}
