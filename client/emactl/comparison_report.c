/*
 * What `emactl diff` prints, for people and for programs.
 */
#include "client/emactl/comparison.h"

#include "client/emactl/emactl.h"
#include "client/emactl/figure.h"
#include "client/emactl/table.h"
#include "proto/sentence.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { DIGITS = 4 };

/* ---- for people ----------------------------------------------------------------------------------------------- */

static void difference_cells(struct table *table, const struct difference *difference)
{
	const double relative = difference_relative(difference);

	table_cell(table, relative > 0.1 ? TABLE_BAD : TABLE_PLAIN, "%s", figure_real(relative, DIGITS).text);
	table_cell(table, TABLE_PLAIN, "%s", figure_real(difference_distance(difference), DIGITS).text);
	table_cell(table, TABLE_PLAIN, "%s", figure_real(difference->absolute_max, DIGITS).text);
	table_cell(table, TABLE_PLAIN, "%s", figure_real(difference_cosine(difference), 8).text);
	table_cell(table, TABLE_PLAIN, "%" PRIu64 " of %" PRIu64, difference->differing_count, difference->element_count);
	table_cell(table, difference->nonfinite_count ? TABLE_BAD : TABLE_PLAIN, "%" PRIu64,
	           difference->nonfinite_count);
}

static int differences_print(const struct comparison *comparison, uint64_t top, bool is_colour)
{
	static const struct table_column COLUMNS[] = {
		{"TENSOR", false}, {"SHAPE", false}, {"DTYPE", false}, {"RELATIVE", false}, {"DISTANCE", false},
		{"LARGEST", false}, {"COSINE", false}, {"ELEMENTS", false}, {"NOT FINITE", true},
	};
	struct table *table = table_create(COLUMNS, sizeof(COLUMNS) / sizeof(COLUMNS[0]));
	uint64_t printed = 0;
	int code;

	for (uint32_t i = 0; i < comparison->pair_count && printed < top; i++) {
		const struct pair *pair = &comparison->pairs[i];

		if (!pair->is_comparable || pair->difference.differing_count == 0)
			continue;
		table_cell(table, TABLE_PLAIN, "%s", pair->a->name);
		table_cell(table, TABLE_PLAIN, "%s", sentence_shape(pair->a->extents, pair->a->dimension_count).text);
		table_cell(table, TABLE_PLAIN, "%s%s%s", dtype_name(pair->a->dtype),
		           pair->a->dtype != pair->b->dtype ? "/" : "",
		           pair->a->dtype != pair->b->dtype ? dtype_name(pair->b->dtype) : "");
		difference_cells(table, &pair->difference);
		printed++;
	}
	code = printed ? table_print(table, stdout, is_colour) : 0;
	table_destroy(table);
	if (printed)
		putchar('\n');
	return code;
}

/* Those that could not be compared, a line each. */
static void others_print(const struct comparison *comparison)
{
	for (uint32_t i = 0; i < comparison->pair_count; i++) {
		const struct pair *pair = &comparison->pairs[i];

		if (pair->is_comparable)
			continue;
		printf("%s", !pair->b ? "only in the first:  " : !pair->a ? "only in the second: " : "other shape:        ");
		table_write_safe(stdout, pair->a ? pair->a->name : pair->b->name);
		if (pair->a)
			printf(" %s", sentence_shape(pair->a->extents, pair->a->dimension_count).text);
		if (pair->a && pair->b)
			printf(" and");
		if (pair->b)
			printf(" %s", sentence_shape(pair->b->extents, pair->b->dimension_count).text);
		putchar('\n');
	}
}

static void totals_print(const struct comparison *comparison, uint64_t top)
{
	operand_print(&comparison->a);
	printf("\n");
	operand_print(&comparison->b);
	printf("\n%" PRIu32 " tensors in both, %" PRIu32 " differ", comparison->compared_count,
	       comparison->differing_count);
	if (comparison->differing_count > top)
		printf(" (the %" PRIu64 " most distant are shown)", top);
	if (comparison->only_a_count + comparison->only_b_count + comparison->reshaped_count > 0)
		printf(", %" PRIu32 " only in the first, %" PRIu32 " only in the second, %" PRIu32 " of other shapes",
		       comparison->only_a_count, comparison->only_b_count, comparison->reshaped_count);
	printf("\n");
	if (comparison->differing_count > 0)
		printf("in all: relative distance %s, distance %s, largest difference %s, cosine %s\n",
		       figure_real(difference_relative(&comparison->total), DIGITS).text,
		       figure_real(difference_distance(&comparison->total), DIGITS).text,
		       figure_real(comparison->total.absolute_max, DIGITS).text,
		       figure_real(difference_cosine(&comparison->total), 8).text);
	else if (!comparison_differs(comparison))
		printf("they are equal\n");
}

int comparison_print(const struct comparison *comparison, uint64_t top, bool is_colour)
{
	int code = differences_print(comparison, top, is_colour);

	if (code)
		return code;
	others_print(comparison);
	if (comparison->only_a_count + comparison->only_b_count + comparison->reshaped_count > 0)
		putchar('\n');
	totals_print(comparison, top);
	return 0;
}

/* ---- for programs --------------------------------------------------------------------------------------------- */

static void difference_json(const struct difference *difference)
{
	printf("\"elements\":%" PRIu64 ",\"differing\":%" PRIu64 ",\"nonfinite\":%" PRIu64 ",\"distance\":%s",
	       difference->element_count, difference->differing_count, difference->nonfinite_count,
	       figure_json_real(difference_distance(difference)).text);
	printf(",\"relative\":%s,\"largest\":%s,\"cosine\":%s", figure_json_real(difference_relative(difference)).text,
	       figure_json_real(difference->absolute_max).text, figure_json_real(difference_cosine(difference)).text);
}

static void shape_json(const struct safetensors_entry *entry)
{
	putchar('[');
	for (uint32_t i = 0; i < entry->dimension_count; i++)
		printf("%s%" PRIu64, i ? "," : "", entry->extents[i]);
	putchar(']');
}

static void pairs_json(const struct comparison *comparison, uint64_t top)
{
	const char *separator = "";
	uint64_t printed = 0;

	printf(",\"differences\":[");
	for (uint32_t i = 0; i < comparison->pair_count && printed < top; i++) {
		const struct pair *pair = &comparison->pairs[i];

		if (!pair->is_comparable || pair->difference.differing_count == 0)
			continue;
		printf("%s{\"name\":", separator);
		output_json_string(pair->a->name);
		printf(",\"shape\":");
		shape_json(pair->a);
		printf(",\"a_dtype\":\"%s\",\"b_dtype\":\"%s\",", dtype_name(pair->a->dtype), dtype_name(pair->b->dtype));
		difference_json(&pair->difference);
		putchar('}');
		separator = ",";
		printed++;
	}
	putchar(']');
}

/* The names of those that are in one alone. */
static void lonely_json(const struct comparison *comparison, const char *key, bool is_in_a)
{
	const char *separator = "";

	printf(",\"%s\":[", key);
	for (uint32_t i = 0; i < comparison->pair_count; i++) {
		const struct pair *pair = &comparison->pairs[i];

		if (is_in_a ? pair->b != NULL : pair->a != NULL)
			continue;
		printf("%s", separator);
		output_json_string(is_in_a ? pair->a->name : pair->b->name);
		separator = ",";
	}
	putchar(']');
}

static void reshaped_json(const struct comparison *comparison)
{
	const char *separator = "";

	printf(",\"other_shapes\":[");
	for (uint32_t i = 0; i < comparison->pair_count; i++) {
		const struct pair *pair = &comparison->pairs[i];

		if (pair->is_comparable || !pair->a || !pair->b)
			continue;
		printf("%s{\"name\":", separator);
		output_json_string(pair->a->name);
		printf(",\"a_shape\":");
		shape_json(pair->a);
		printf(",\"b_shape\":");
		shape_json(pair->b);
		putchar('}');
		separator = ",";
	}
	putchar(']');
}

void comparison_json(const struct comparison *comparison, uint64_t top)
{
	printf("{\"a\":");
	operand_json(&comparison->a);
	printf(",\"b\":");
	operand_json(&comparison->b);
	printf(",\"is_equal\":%s,\"tensors\":%" PRIu32 ",\"differing_tensors\":%" PRIu32 ",",
	       comparison_differs(comparison) ? "false" : "true", comparison->compared_count,
	       comparison->differing_count);
	difference_json(&comparison->total);
	pairs_json(comparison, top);
	lonely_json(comparison, "only_in_a", true);
	lonely_json(comparison, "only_in_b", false);
	reshaped_json(comparison);
	printf("}\n");
}
