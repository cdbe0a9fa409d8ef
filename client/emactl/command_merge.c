/*
 * merge: checkpoints of a constant learning rate into one.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/sum_report.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MERGE_SHAPE, MERGE_OUTPUT, MERGE_DTYPE, MERGE_DRY_RUN };

enum { FILE_COUNT_MAX = 10000 };

static const struct command_option MERGE_OPTIONS[] = {
	[MERGE_SHAPE] = {"shape", 0, "SHAPE", "of the decay: linear, minus-sqrt or uniform (default: linear)"},
	[MERGE_OUTPUT] = {"output", 'o', "FILE", "the file to write; replaced when it exists (required)"},
	[MERGE_DTYPE] = {"dtype", 'd', "DTYPE", "f64, f32, f16, bf16, f8_e4m3 or f8_e5m2 (default: as in the files)"},
	[MERGE_DRY_RUN] = {"dry-run", 'n', NULL, "only show the weights, write nothing"},
	{0},
};

static int merge_report(const struct emactl *emactl, const char *shape, const struct sum_report *report)
{
	const struct emad_sum *sum = report->sum;
	int status;

	if (emactl->is_json) {
		printf("{\"shape\":");
		output_json_string(shape);
		printf(",\"is_by_step\":%s,", sum->is_by_step ? "true" : "false");
		sum_report_json(report, false);
		printf("}\n");
		return 0;
	}
	if (emactl->is_quiet && report->file)
		return 0;
	status = sum_report_table(emactl, report, false);
	if (status || emactl->is_quiet || !report->file)
		return status;
	putchar('\n');
	table_write_safe(stdout, report->file);
	printf(": %s, %zu files, in %s\n", figure_bytes(sum->file_bytes).text, sum->part_count,
	       figure_duration_us(report->elapsed_us).text);
	return 0;
}

static int merge_make(const struct emactl *emactl, const struct emad_merge_options *wanted)
{
	struct emad_merge_options options = *wanted;
	struct sum_report report = {.file = emactl->values[MERGE_DRY_RUN] ? NULL : emactl->values[MERGE_OUTPUT]};
	const char *const *paths = (const char *const *)emactl->arguments;
	struct emad_sum *sum = NULL;
	struct copying copying;
	int code, status;

	/* First without the file: what is wrong with the inputs is told from what is wrong with it. */
	code = emad_merge(paths, emactl->argument_count, NULL, &options, &sum);
	if (code)
		return output_library_error(emactl, code);
	if (sum->is_by_step)
		output_note(emactl, "the files are taken in the order of their steps");
	if (report.file) {
		emad_sum_free(sum);
		sum = NULL;
		copying_begin(&copying, emactl);
		options.progress = copying_progress;
		options.context = &copying;
		code = emad_merge(paths, emactl->argument_count, report.file, &options, &sum);
		copying_end(&copying, code);
		if (code)
			return copying_error(emactl, code);
		report.elapsed_us = progress_elapsed_us(&copying.progress);
	}
	report.sum = sum;
	status = merge_report(emactl, options.shape, &report);
	emad_sum_free(sum);
	return status;
}

static int merge_run(struct emactl *emactl)
{
	const char *output = emactl->values[MERGE_OUTPUT], *shape = emactl->values[MERGE_SHAPE];
	struct emad_merge_options options = {.shape = shape ? shape : "linear", .dtype = emactl->values[MERGE_DTYPE]};

	if (!emactl->values[MERGE_DRY_RUN] && (!output || !*output))
		return output_error(emactl, EMAD_EARGUMENT, "merge needs the file to write: -o FILE (or --dry-run)");
	if (output && strcmp(output, "-") == 0)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "merge writes a file whole or not at all, so it cannot write to standard output");
	return merge_make(emactl, &options);
}

const struct command COMMAND_MERGE = {
	.name = "merge",
	.arguments = "FILE...",
	.argument_count_min = 1,
	.argument_count_max = FILE_COUNT_MAX,
	.summary = "merge checkpoints as if the learning rate had decayed",
	.text = "Merges the checkpoints of a training with a constant learning rate into what a learning rate that\n"
		"had decayed over them would have left: FILEs are safetensors files with the same tensors, oldest\n"
		"first. Where all of them say of which step they are they are put in that order, and it is said so.\n"
		"  linear      the learning rate falls as 1-x, which comes out as the plain mean\n"
		"  minus-sqrt  it falls as 1-sqrt(x): older checkpoints weigh more\n"
		"  uniform     the plain mean\n"
		"Integers are those of the newest file. The memory it takes does not depend on the files' sizes.\n"
		"\nJSON: one object: shape, is_by_step, step, file (null when none was written), file_bytes,\n"
		"elapsed_us, parts (file, profile, step, weight; oldest first).\n",
	.options = MERGE_OPTIONS,
	.examples = "  emactl merge --shape minus-sqrt step-*.safetensors -o merged.safetensors\n"
		    "  emactl merge a.safetensors b.safetensors --dry-run\n",
	.exits = "  0   written\n"
		 "  64  the command line is wrong\n"
		 "  65  a file does not fit: damaged, NaN in it, other tensors\n"
		 "  66  no such file\n"
		 "  73  the file cannot be created\n"
		 "  74  reading or writing failed\n",
	.run = merge_run,
};
