/*
 * get: one tensor of an average, as what a person can take in, as numbers, or as a NumPy file.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/npy.h"
#include "client/emactl/numbers.h"
#include "client/emactl/operand.h"
#include "client/emactl/table.h"
#include "client/target.h"
#include "proto/convert.h"
#include "proto/sentence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GET_STATS, GET_NPY, GET_OUTPUT };

enum { ATTEMPT_COUNT = 2, EDGE_COUNT = 3, DIGITS = 6 };

static const struct command_option GET_OPTIONS[] = {
	[GET_STATS] = {"stats", 0, NULL, "print the numbers alone, without values"},
	[GET_NPY] = {"npy", 0, NULL, "write it as a NumPy file, to standard output without --output"},
	[GET_OUTPUT] = {"output", 'o', "FILE", "with --npy: the file to write; replaced when it exists"},
	{0},
};

/* One attempt at a tensor. */
struct getting {
	const struct emactl *emactl;
	struct operand operand;
	const struct safetensors_entry *entry; /* borrowed from operand */
	uint64_t element_count;
	struct summary summary;
	uint8_t edges[2 * EDGE_COUNT * sizeof(double)]; /* the first elements, then the last, as they are kept */
	uint32_t edge_count; /* of them; all elements where there are so few */
	bool is_file_written;         /* of --npy; false: it goes to standard output */
	struct target target;
	struct copying copying;
	uint8_t chunk[NUMBERS_CHUNK_COUNT * sizeof(double)];
	uint8_t converted[NUMBERS_CHUNK_COUNT * sizeof(double)];
};

static int elements_read(struct getting *getting, uint64_t first, size_t count, struct reason *reason)
{
	const uint64_t bytes = dtype_bytes(getting->entry->dtype);

	return operand_read(&getting->operand, getting->entry->offset + first * bytes, getting->chunk, count * bytes,
	                    reason);
}

/* Hands each chunk of the tensor to take. */
static int elements_walk(struct getting *getting, int (*take)(struct getting *getting, size_t count, struct reason *reason),
                         struct reason *reason)
{
	const uint64_t bytes = dtype_bytes(getting->entry->dtype);
	int code = 0;

	for (uint64_t done = 0; done < getting->element_count && !code;) {
		const uint64_t left = getting->element_count - done;
		const size_t count = left < NUMBERS_CHUNK_COUNT ? (size_t)left : NUMBERS_CHUNK_COUNT;

		code = elements_read(getting, done, count, reason);
		/* Before it is believed, or goes where it cannot be called back from. */
		if (!code)
			code = operand_check(&getting->operand, reason);
		if (!code)
			code = take(getting, count, reason);
		done += count;
		if (!code && copying_progress(&getting->copying, done * bytes, getting->entry->bytes))
			code = reason_set(reason, -ECANCELED, "stopped");
	}
	return code;
}

/* ---- what a person reads -------------------------------------------------------------------------------------- */

static int summary_take(struct getting *getting, size_t count, struct reason *reason)
{
	(void)reason;
	summary_add(&getting->summary, getting->entry->dtype, getting->chunk, count);
	return 0;
}

static int edges_read(struct getting *getting, struct reason *reason)
{
	const uint64_t count = getting->element_count, bytes = dtype_bytes(getting->entry->dtype);
	const bool is_short = count <= 2 * EDGE_COUNT;
	const size_t first = is_short ? (size_t)count : EDGE_COUNT;
	int code = elements_read(getting, 0, first, reason);

	if (code)
		return code;
	memcpy(getting->edges, getting->chunk, first * bytes);
	getting->edge_count = (uint32_t)first;
	if (is_short)
		return operand_check(&getting->operand, reason);
	code = elements_read(getting, count - EDGE_COUNT, EDGE_COUNT, reason);
	if (code)
		return code;
	memcpy(getting->edges + EDGE_COUNT * bytes, getting->chunk, EDGE_COUNT * bytes);
	getting->edge_count = 2 * EDGE_COUNT;
	return operand_check(&getting->operand, reason);
}

/* One of the edges. Integers in full: a double would not do for the largest. */
static struct figure value_figure(const struct getting *getting, uint32_t index)
{
	const enum dtype dtype = getting->entry->dtype;
	const uint8_t *element = getting->edges + index * dtype_bytes(dtype);
	const bool is_json = getting->emactl->is_json;
	struct figure figure;
	int64_t integer;
	double value;

	numbers_widen(dtype, element, 1, &value);
	if (dtype_is_float(dtype))
		return is_json ? figure_json_real(value) : figure_real(value, DIGITS);
	if (dtype == DTYPE_BOOL) {
		snprintf(figure.text, sizeof(figure.text), "%s",
		         is_json ? value > 0 ? "true" : "false" : value > 0 ? "True" : "False");
		return figure;
	}
	integer = dtype == DTYPE_I64 ? 0 : (int64_t)value;
	if (dtype == DTYPE_I64)
		memcpy(&integer, element, sizeof(integer));
	snprintf(figure.text, sizeof(figure.text), "%" PRId64, integer);
	return figure;
}

static void values_print(const struct getting *getting)
{
	printf("[");
	for (uint32_t i = 0; i < getting->edge_count; i++)
		printf("%s%s%s", i ? ", " : "",
		       i == EDGE_COUNT && getting->element_count > 2 * EDGE_COUNT ? "..., " : "",
		       value_figure(getting, i).text);
	printf("]\n");
}

static void number_row(struct table *table, const char *name, const char *value)
{
	table_cell(table, TABLE_HEAD, "%s", name);
	table_cell(table, TABLE_PLAIN, "%s", value);
}

static int numbers_print(const struct getting *getting)
{
	static const struct table_column COLUMNS[2] = {{0}};
	const struct summary *summary = &getting->summary;
	const bool is_any = summary->finite_count > 0;
	const int digits = DIGITS + 3;
	struct table *table = table_create(COLUMNS, 2);
	int code;

	table_cell(table, TABLE_HEAD, "elements");
	table_cell(table, TABLE_PLAIN, "%" PRIu64, summary->element_count);
	number_row(table, "min", is_any ? figure_real(summary->minimum, digits).text : "-");
	number_row(table, "max", is_any ? figure_real(summary->maximum, digits).text : "-");
	number_row(table, "mean", is_any ? figure_real(summary->mean, digits).text : "-");
	number_row(table, "std", is_any ? figure_real(summary_deviation(summary), digits).text : "-");
	table_cell(table, TABLE_HEAD, "zeros");
	table_cell(table, TABLE_PLAIN, "%" PRIu64, summary->zero_count);
	table_cell(table, TABLE_HEAD, "nan");
	table_cell(table, summary->nan_count ? TABLE_BAD : TABLE_PLAIN, "%" PRIu64, summary->nan_count);
	table_cell(table, TABLE_HEAD, "infinite");
	table_cell(table, summary->infinite_count ? TABLE_WARN : TABLE_PLAIN, "%" PRIu64, summary->infinite_count);
	code = table_print(table, stdout, getting->emactl->is_colour);
	table_destroy(table);
	return code ? output_error(getting->emactl, code, "not enough memory to print the numbers") : 0;
}

static int summary_print(const struct getting *getting)
{
	const struct safetensors_entry *entry = getting->entry;

	if (!getting->emactl->values[GET_STATS] && !getting->emactl->is_quiet) {
		table_write_safe(stdout, entry->name);
		printf(": %s %s of ", dtype_name(entry->dtype), sentence_shape(entry->extents, entry->dimension_count).text);
		operand_print(&getting->operand);
		putchar('\n');
	}
	if (!getting->emactl->values[GET_STATS])
		values_print(getting);
	return getting->emactl->is_quiet && !getting->emactl->values[GET_STATS] ? 0 : numbers_print(getting);
}

/* ---- what a program reads ------------------------------------------------------------------------------------- */

static void tensor_json(const struct getting *getting)
{
	const struct safetensors_entry *entry = getting->entry;

	printf("{\"of\":");
	operand_json(&getting->operand);
	printf(",\"name\":");
	output_json_string(entry->name);
	printf(",\"dtype\":\"%s\",\"shape\":[", dtype_name(entry->dtype));
	for (uint32_t i = 0; i < entry->dimension_count; i++)
		printf("%s%" PRIu64, i ? "," : "", entry->extents[i]);
	printf("],\"elements\":%" PRIu64, getting->element_count);
}

static void edges_json(const struct getting *getting)
{
	const uint32_t half = getting->element_count > 2 * EDGE_COUNT ? EDGE_COUNT : getting->edge_count;

	printf(",\"first\":[");
	for (uint32_t i = 0; i < getting->edge_count; i++) {
		if (i == half)
			printf("],\"last\":[");
		printf("%s%s", i && i != half ? "," : "", value_figure(getting, i).text);
	}
	printf(half == getting->edge_count ? "],\"last\":[]" : "]");
}

static void summary_json(const struct getting *getting)
{
	const struct summary *summary = &getting->summary;
	const bool is_any = summary->finite_count > 0;

	tensor_json(getting);
	printf(",\"min\":%s,\"max\":%s", is_any ? figure_json_real(summary->minimum).text : "null",
	       is_any ? figure_json_real(summary->maximum).text : "null");
	printf(",\"mean\":%s,\"std\":%s", is_any ? figure_json_real(summary->mean).text : "null",
	       is_any ? figure_json_real(summary_deviation(summary)).text : "null");
	printf(",\"zeros\":%" PRIu64 ",\"nan\":%" PRIu64 ",\"infinite\":%" PRIu64, summary->zero_count, summary->nan_count,
	       summary->infinite_count);
	if (!getting->emactl->values[GET_STATS])
		edges_json(getting);
	printf("}\n");
}

static int summary_get(struct getting *getting, struct reason *reason)
{
	int code = elements_walk(getting, summary_take, reason);

	if (!code)
		code = edges_read(getting, reason);
	return code;
}

/* ---- NumPy ---------------------------------------------------------------------------------------------------- */

static int bytes_put(const struct getting *getting, const void *bytes, size_t count, struct reason *reason)
{
	if (getting->is_file_written)
		return target_write(&getting->target, bytes, count, reason);
	/* What cannot be written is told at the end, see output_finish. */
	fwrite(bytes, 1, count, stdout);
	return output_is_broken() ? reason_set(reason, -EPIPE, "standard output is closed") : 0;
}

static int npy_take(struct getting *getting, size_t count, struct reason *reason)
{
	const enum dtype from = getting->entry->dtype, to = npy_dtype(from);

	convert_elements(from, getting->chunk, to, getting->converted, count);
	return bytes_put(getting, getting->converted, count * dtype_bytes(to), reason);
}

static int npy_write(struct getting *getting, struct reason *reason)
{
	char header[NPY_HEADER_BYTES_MAX];
	const size_t bytes = npy_header(getting->entry->dtype, getting->entry->extents, getting->entry->dimension_count,
	                                header);
	int code = bytes_put(getting, header, bytes, reason);

	return code ? code : elements_walk(getting, npy_take, reason);
}

static int npy_file(struct getting *getting, const char *path, struct reason *reason)
{
	struct target *target = &getting->target;
	int code = target_open(path, target, reason);

	if (code)
		return code;
	/* From now on an interrupt must let the temporary file be removed. */
	copying_progress(&getting->copying, 0, getting->entry->bytes);
	getting->is_file_written = true;
	code = target_begin(target, reason);
	if (!code) {
		code = npy_write(getting, reason);
		if (!code)
			code = target_sync(target, reason);
		if (!code)
			code = target_commit(target, reason);
		if (code)
			target_abandon(target);
	}
	target_close(target);
	return code;
}

static void npy_report(const struct getting *getting)
{
	const struct emactl *emactl = getting->emactl;
	const struct safetensors_entry *entry = getting->entry;
	const char *path = emactl->values[GET_OUTPUT], *dtype = dtype_name(npy_dtype(entry->dtype));

	if (npy_dtype(entry->dtype) != entry->dtype)
		output_note(emactl, "NumPy has no %s: it was written as %s", dtype_name(entry->dtype), dtype);
	if (emactl->is_json && path) {
		tensor_json(getting);
		printf(",\"file\":");
		output_json_string(path);
		printf(",\"file_dtype\":\"%s\"}\n", dtype);
	} else if (path && !emactl->is_quiet) {
		table_write_safe(stdout, path);
		printf(": %s %s\n", dtype, sentence_shape(entry->extents, entry->dimension_count).text);
	}
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

/* What has been opened; *ret_code as in tensor_get. */
static int entry_get(struct getting *getting, bool may_repeat, int *ret_code)
{
	const struct emactl *emactl = getting->emactl;
	const char *path = emactl->values[GET_OUTPUT];
	struct reason reason = {""};
	int code;

	copying_begin(&getting->copying, emactl);
	if (!emactl->values[GET_NPY])
		code = summary_get(getting, &reason);
	else
		code = path ? npy_file(getting, path, &reason) : npy_write(getting, &reason);
	copying_end(&getting->copying, code);
	*ret_code = code;
	if (code == -EPIPE && !path)
		return 0;
	if (code == STATUS_EREVOKED && may_repeat && (path || !emactl->values[GET_NPY]))
		return 0;
	if (code) {
		const int status = output_error(emactl, code, "%s", reason.text[0] ? reason.text : status_text(code));

		return path ? copying_exit_status(code) : status;
	}
	if (emactl->values[GET_NPY]) {
		npy_report(getting);
		return 0;
	}
	if (!emactl->is_json)
		return summary_print(getting);
	summary_json(getting);
	return 0;
}

/* One attempt: *ret_code is STATUS_EREVOKED, with nothing printed, when another one may do better. */
static int tensor_get(const struct emactl *emactl, struct emad_client *client, bool may_repeat, int *ret_code)
{
	struct getting *getting = calloc(1, sizeof(*getting));
	int status;

	*ret_code = 0;
	if (!getting)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory");
	getting->emactl = emactl;
	status = operand_open(emactl, &getting->operand, emactl->arguments[0], emactl->arguments[1], client);
	if (!status)
		getting->entry = operand_find(emactl, &getting->operand, emactl->arguments[1], &status);
	if (!status) {
		getting->element_count = getting->entry->bytes / dtype_bytes(getting->entry->dtype);
		status = entry_get(getting, may_repeat, ret_code);
	}
	operand_close(&getting->operand);
	free(getting);
	return status;
}

static int options_check(const struct emactl *emactl)
{
	const char *path = emactl->values[GET_OUTPUT];

	if (path && !emactl->values[GET_NPY])
		return output_error(emactl, EMAD_EARGUMENT, "get writes a file as --npy alone");
	if (emactl->values[GET_STATS] && emactl->values[GET_NPY])
		return output_error(emactl, EMAD_EARGUMENT, "get does one of --stats and --npy");
	if (emactl->values[GET_NPY] && !path && emactl->is_json)
		return output_error(emactl, EMAD_EARGUMENT, "with --json a NumPy file needs a place of its own: -o FILE");
	if (emactl->values[GET_NPY] && !path && isatty(STDOUT_FILENO))
		return output_error(emactl, EMAD_EARGUMENT, "a NumPy file is nothing for a terminal: -o FILE, or a pipe");
	return 0;
}

static int get_run(struct emactl *emactl)
{
	struct emad_client *client = NULL;
	int status = options_check(emactl), code = STATUS_EREVOKED;

	if (!status)
		status = operand_connect(emactl, emactl->arguments, 1, &client);
	for (int i = 1; !status && code == STATUS_EREVOKED && i <= ATTEMPT_COUNT; i++)
		status = tensor_get(emactl, client, i < ATTEMPT_COUNT, &code);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_GET = {
	.name = "get",
	.arguments = "MODEL[:PROFILE]|FILE TENSOR",
	.argument_count_min = 2,
	.argument_count_max = 2,
	.summary = "print or save one tensor of an average",
	.text = "Shows one tensor of the newest version of an average, or of a safetensors file (what ends in\n"
		".safetensors, begins with /, ./ or ../, or is there): its dtype and shape, its first and last values,\n"
		"and min, max, mean and std of the values that are finite, how many are zero, NaN and infinite. With\n"
		"--stats these numbers alone, with --quiet the values alone.\n"
		"\nWith --npy it becomes a NumPy file (format 1.0): numpy.load reads it. NumPy has neither bfloat16 nor\n"
		"float8; they are written as float32, which holds each of their values, and it is said so.\n"
		"\nJSON: one object: of (model, profile, version, step, or file), name, dtype, shape, elements, min,\n"
		"max, mean, std (null when no value is finite), zeros, nan, infinite, first, last (up to three values\n"
		"of either end, all in first when there are at most six; not with --stats). With --npy: file,\n"
		"file_dtype instead of the numbers.\n",
	.options = GET_OPTIONS,
	.examples = "  emactl get run42/net model.0.conv.weight\n"
		    "  emactl get run42/net:slow head.bias --stats\n"
		    "  emactl get net-ema.safetensors head.bias --npy -o bias.npy\n"
		    "  emactl get run42/net head.bias --npy | python3 -c 'import numpy, sys, io;\n"
		    "      print(numpy.load(io.BytesIO(sys.stdin.buffer.read())))'\n",
	.exits = "  0   done\n"
		 "  64  the command line is wrong\n"
		 "  65  the file is damaged, or no safetensors file\n"
		 "  66  no such model, profile, file or tensor (the nearest is named), or no version yet\n"
		 "  69  the daemon cannot be reached\n"
		 "  73  the output file cannot be created\n"
		 "  74  reading or writing failed\n"
		 "  75  the daemon took the version back twice, or did not answer in time\n"
		 "  77  the file may not be read, or the daemon's socket not be used, by this user\n",
	.run = get_run,
};
