/*
 * What explain says about schedules and keys in words, and its list of all of them. See explain.h.
 */
#include "client/emactl/explain.h"

#include "client/emactl/figure.h"
#include "proto/schedule_text.h"

#include <stdio.h>
#include <string.h>

const char *explain_entry(enum schedule_entry entry)
{
	switch (entry) {
	case ENTRY_AVERAGE:
		return "averaged";
	case ENTRY_COPY:
		return "copied";
	case ENTRY_FREEZE:
		return "frozen";
	case ENTRY_DROP:
		return "left out";
	case ENTRY_FIRST:
		return "copied once";
	}
	return "-";
}

const char *explain_form(enum schedule_form form)
{
	switch (form) {
	case FORM_LERP:
		return "s + (1-d)*(x-s)";
	case FORM_MUL_ADD:
		return "s*d + (1-d)*x";
	case FORM_SUB:
		return "s - (1-d)*(s-x)";
	}
	return "-";
}

struct explain_text explain_value(const struct schedule_key *key, double value)
{
	struct explain_text text;

	/* Outside of its range a value stands for "not given". */
	if (!(value >= key->minimum && value <= key->maximum))
		snprintf(text.text, sizeof(text.text), "not given");
	else if (key->words)
		schedule_value_format(key, value, text.text);
	else
		snprintf(text.text, sizeof(text.text), "%s", figure_real(value, 12).text);
	return text;
}

struct explain_text explain_default(const struct schedule_key *key)
{
	return explain_value(key, key->fallback);
}

struct explain_text explain_range(const struct schedule_key *key)
{
	char minimum[NUMBER_BYTES_MAX], maximum[NUMBER_BYTES_MAX];
	struct explain_text text = {""};
	const char *words = key->words;
	size_t used = 0;

	if (!words && key->is_integer && key->minimum == 0 && key->maximum == 1) {
		snprintf(text.text, sizeof(text.text), "0, 1");
		return text;
	}
	if (!words) {
		number_format(key->minimum, minimum);
		number_format(key->maximum, maximum);
		snprintf(text.text, sizeof(text.text), "%s..%s", minimum, maximum);
		return text;
	}
	for (double value = 0; *words && used + 1 < sizeof(text.text); value++) {
		size_t bytes = strcspn(words, " ");

		if (value >= key->minimum)
			used += (size_t)snprintf(text.text + used, sizeof(text.text) - used, "%s%.*s", used ? ", " : "",
			                         (int)bytes, words);
		words += bytes;
		words += strspn(words, " ");
	}
	return text;
}

static void key_print_json(const struct schedule_key *key)
{
	const char *alias = key->aliases ? key->aliases : "", *separator = "";

	printf("{\"name\":\"%s\",\"aliases\":[", key->name);
	for (size_t bytes; *alias; alias += bytes + strspn(alias + bytes, " "), separator = ",") {
		bytes = strcspn(alias, " ");
		printf("%s\"%.*s\"", separator, (int)bytes, alias);
	}
	printf("],\"default\":%s,\"minimum\":%s,\"maximum\":%s,\"is_integer\":%s,\"is_alternative\":%s,\"text\":",
	       figure_json_real(key->fallback).text, figure_json_real(key->minimum).text,
	       figure_json_real(key->maximum).text, key->is_integer ? "true" : "false",
	       key->is_alternative ? "true" : "false");
	output_json_string(key->text);
	if (key->words) {
		printf(",\"words\":");
		output_json_string(key->words);
	}
	putchar('}');
}

static void kind_print_json(const struct schedule_kind *kind)
{
	printf("{\"name\":\"%s\",\"text\":", kind->name);
	output_json_string(kind->text);
	printf(",\"formula\":");
	output_json_string(kind->formula);
	printf(",\"source\":");
	output_json_string(kind->source);
	printf(",\"form\":\"%s\",\"float_buffers\":\"%s\",\"integers\":\"%s\",\"uses_step\":%s,\"keys\":[",
	       schedule_form_name(kind->form), explain_entry(kind->float_buffer), explain_entry(kind->integer),
	       kind->uses_step ? "true" : "false");
	for (uint32_t i = 0; i < kind->key_count; i++) {
		fputs(i ? "," : "", stdout);
		key_print_json(&kind->keys[i]);
	}
	printf("]}\n");
}

int explain_list(const struct emactl *emactl)
{
	static const struct table_column COLUMNS[] = {
		{"SCHEDULE", false}, {"FORM", false}, {"ACTION AT CALL n", false}};
	const struct schedule_kind *kinds;
	struct table *table;
	size_t count;
	int code;

	kinds = schedule_kinds(&count);
	if (emactl->is_json || emactl->is_quiet) {
		for (size_t i = 0; i < count; i++) {
			if (emactl->is_json)
				kind_print_json(&kinds[i]);
			else
				puts(kinds[i].name);
		}
		return 0;
	}
	table = table_create(COLUMNS, 3);
	for (size_t i = 0; i < count; i++) {
		table_cell(table, TABLE_PLAIN, "%s", kinds[i].name);
		table_cell(table, TABLE_PLAIN, "%s", schedule_form_name(kinds[i].form));
		table_cell(table, TABLE_PLAIN, "%s", kinds[i].formula);
	}
	code = table_print(table, stdout, emactl->is_colour);
	table_destroy(table);
	return code ? output_error(emactl, code, "not enough memory to print the list") : 0;
}
