/*
 * posthoc: an average of another width, made of the snapshots that the daemon kept.
 *
 * The weights are found first and the file is written second, so that what is wrong with the snapshots is told from
 * what is wrong with the file, also by the exit status.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/sum_report.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	POSTHOC_STD,
	POSTHOC_STEP,
	POSTHOC_OUTPUT,
	POSTHOC_FROM,
	POSTHOC_FILES,
	POSTHOC_DTYPE,
	POSTHOC_DRY_RUN,
};

enum { PATH_COUNT_MAX = 10000, ERROR_DIGITS = 3 };

/* A sum further than this from what was wanted is worth a remark. */
static const double ERROR_NOTED = .05;

static const struct command_option POSTHOC_OPTIONS[] = {
	[POSTHOC_STD] = {"std", 0, "WIDTH", "the wanted width, a part of the training so far: 0.15 (required)"},
	[POSTHOC_STEP] = {"step", 'S', "STEP", "at this step, one that a snapshot has (default: the newest)"},
	[POSTHOC_OUTPUT] = {"output", 'o', "FILE", "the file to write; replaced when it exists (required)"},
	[POSTHOC_FROM] = {"from", 0, "DIR", "where the snapshots are (default: the daemon says it)"},
	[POSTHOC_FILES] = {"files", 0, NULL, "the arguments are snapshots or exported files, no daemon is asked"},
	[POSTHOC_DTYPE] = {"dtype", 'd', "DTYPE", "f64, f32, f16, bf16, f8_e4m3 or f8_e5m2 (default: as in the snapshots)"},
	[POSTHOC_DRY_RUN] = {"dry-run", 'n', NULL, "only show the weights, write nothing"},
	{0},
};

/* What is asked of the library. */
struct posthoc {
	const char *model; /* NULL with --files */
	const char *const *paths;
	size_t path_count;
	struct emad_posthoc_options options;
};

/* ---- where the snapshots are ---------------------------------------------------------------------------------- */

static bool is_directory(const char *path)
{
	struct stat facts;

	return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

/* The directory of the model in one that may be that of all models. The caller frees it. */
static int directory_choose(const struct emactl *emactl, const char *directory, const char *model, char **ret_path)
{
	char *inner;

	if (asprintf(&inner, "%s/%s", directory, model) < 0)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory for a path");
	if (!is_directory(inner)) {
		free(inner);
		inner = strdup(directory);
		if (!inner)
			return output_error(emactl, EMAD_EMEMORY, "not enough memory for a path");
	}
	*ret_path = inner;
	return 0;
}

static int directory_ask(const struct emactl *emactl, const char *model, char **ret_path)
{
	const char *directory;
	json_t *answer;
	int status = ask_json(emactl, NULL, model, &answer);

	if (status)
		return status;
	directory = json_string_value(json_object_get(answer, "snapshot_dir"));
	if (directory && *directory)
		status = directory_choose(emactl, directory, model, ret_path);
	else
		status = output_error(emactl, EMAD_ENOVERSION,
		                      "the daemon keeps no snapshots of %s: say where they are with --from DIR, or "
		                      "let a profile keep them: power:std=0.1,snapshot=1000",
		                      model);
	json_decref(answer);
	return status;
}

/* ---- the report ----------------------------------------------------------------------------------------------- */

static void notes_print(const struct emactl *emactl, const struct emad_sum *sum)
{
	if (sum->later_count)
		output_note(emactl, "%zu snapshots behind step %" PRIu64 " are left out", sum->later_count, sum->step);
	if (sum->error > ERROR_NOTED)
		output_note(emactl,
		            "these snapshots do not make this average well (error %s %%): more of them are needed, or "
		            "such of a second width",
		            figure_real(100 * sum->error, ERROR_DIGITS).text);
}

static int posthoc_report(const struct emactl *emactl, const struct posthoc *posthoc, const struct sum_report *report)
{
	const struct emad_sum *sum = report->sum;
	int status;

	if (emactl->is_json) {
		printf("{\"model\":");
		if (posthoc->model)
			output_json_string(posthoc->model);
		else
			printf("null");
		printf(",\"std\":%s,\"error\":%s,\"later\":%zu,", figure_json_real(posthoc->options.std).text,
		       figure_json_real(sum->error).text, sum->later_count);
		sum_report_json(report, true);
		printf("}\n");
		return 0;
	}
	if (emactl->is_quiet && report->file)
		return 0;
	status = sum_report_table(emactl, report, true);
	if (status || emactl->is_quiet)
		return status;
	putchar('\n');
	if (report->file) {
		table_write_safe(stdout, report->file);
		printf(": %s, ", figure_bytes(sum->file_bytes).text);
	}
	printf("std %s at step %" PRIu64 ", %zu snapshots, error %s %%", figure_real(posthoc->options.std, 6).text,
	       sum->step, sum->part_count, figure_real(100 * sum->error, ERROR_DIGITS).text);
	if (report->file)
		printf(", in %s", figure_duration_us(report->elapsed_us).text);
	putchar('\n');
	return 0;
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

static int posthoc_make(const struct emactl *emactl, const struct posthoc *posthoc)
{
	struct emad_posthoc_options options = posthoc->options;
	struct sum_report report = {.file = emactl->values[POSTHOC_DRY_RUN] ? NULL : emactl->values[POSTHOC_OUTPUT]};
	struct emad_sum *sum = NULL;
	struct copying copying;
	int code, status;

	code = emad_posthoc(posthoc->paths, posthoc->path_count, NULL, &options, &sum);
	if (code)
		return output_library_error(emactl, code);
	notes_print(emactl, sum);
	if (report.file) {
		/* Whatever comes in the meantime is for the next one. */
		options.step = sum->step;
		emad_sum_free(sum);
		sum = NULL;
		copying_begin(&copying, emactl);
		options.progress = copying_progress;
		options.context = &copying;
		code = emad_posthoc(posthoc->paths, posthoc->path_count, report.file, &options, &sum);
		copying_end(&copying, code);
		if (code)
			return copying_error(emactl, code);
		report.elapsed_us = progress_elapsed_us(&copying.progress);
	}
	report.sum = sum;
	status = posthoc_report(emactl, posthoc, &report);
	emad_sum_free(sum);
	return status;
}

/* Checks what can be said without the snapshots. */
static int options_read(const struct emactl *emactl, struct emad_posthoc_options *options)
{
	const char *output = emactl->values[POSTHOC_OUTPUT], *std = emactl->values[POSTHOC_STD];
	char *end;

	if (!std)
		return output_error(emactl, EMAD_EARGUMENT, "posthoc needs the wanted width: --std 0.15");
	options->std = strtod(std, &end);
	if (end == std || *end)
		return output_error(emactl, EMAD_EARGUMENT, "--std takes a number such as 0.15, not '%s'", std);
	if (!emactl->values[POSTHOC_DRY_RUN] && (!output || !*output))
		return output_error(emactl, EMAD_EARGUMENT, "posthoc needs the file to write: -o FILE (or --dry-run)");
	if (output && strcmp(output, "-") == 0)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "posthoc writes a file whole or not at all, so it cannot write to standard output");
	options->dtype = emactl->values[POSTHOC_DTYPE];
	if (emactl->values[POSTHOC_STEP])
		return arguments_number(emactl, "--step", emactl->values[POSTHOC_STEP],
		                        (const uint64_t[2]){1, UINT64_MAX}, &options->step);
	return 0;
}

static int posthoc_run(struct emactl *emactl)
{
	const char *from = emactl->values[POSTHOC_FROM];
	struct posthoc posthoc = {0};
	const char *paths[1];
	char *directory = NULL;
	int status = options_read(emactl, &posthoc.options);

	if (status)
		return status;
	if (emactl->values[POSTHOC_FILES]) {
		if (from)
			return output_error(emactl, EMAD_EARGUMENT,
			                    "with --files the arguments say where the snapshots are: leave --from out");
		posthoc.paths = (const char *const *)emactl->arguments;
		posthoc.path_count = emactl->argument_count;
		return posthoc_make(emactl, &posthoc);
	}
	if (emactl->argument_count > 1)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "posthoc takes one MODEL, '%s' is one too many; with --files the arguments are "
		                    "files",
		                    emactl->arguments[1]);
	posthoc.model = posthoc.options.model = emactl->arguments[0];
	status = from ? directory_choose(emactl, from, posthoc.model, &directory)
	              : directory_ask(emactl, posthoc.model, &directory);
	if (status)
		return status;
	paths[0] = directory;
	posthoc.paths = paths;
	posthoc.path_count = 1;
	status = posthoc_make(emactl, &posthoc);
	free(directory);
	return status;
}

const struct command COMMAND_POSTHOC = {
	.name = "posthoc",
	.arguments = "MODEL|FILE...",
	.argument_count_min = 1,
	.argument_count_max = PATH_COUNT_MAX,
	.summary = "make an average of another width from snapshots",
	.text = "How long an average should be is best found out after the training. Two profiles of schedule power\n"
		"whose snapshots the daemon keeps, say\n"
		"  narrow=power:std=0.05,snapshot=1000  wide=power:std=0.1,snapshot=1000\n"
		"are enough to make any other width between about half and three times theirs, at the step of any\n"
		"snapshot. The width (std) is the spread of the weighted steps as a part of all steps so far, from\n"
		"0.001 to 0.2886, the plain mean. Shows which snapshot has which weight, and the error: how far the\n"
		"sum is from the wanted average, as a part of it. Above a few percent more snapshots are needed.\n"
		"The memory it takes does not depend on the size of the model. FILEs may be directories.\n"
		"\nJSON: one object: model (null with --files), std, error, later (snapshots behind the step, left\n"
		"out), step, file (null when none was written), file_bytes, elapsed_us, parts (file, profile, step,\n"
		"std, weight; oldest first).\n",
	.options = POSTHOC_OPTIONS,
	.examples = "  emactl posthoc run42/net --std 0.15 -o net-15.safetensors\n"
		    "  emactl posthoc run42/net --std 0.07 --step 80000 --from /data/snapshots -o net-07.safetensors\n"
		    "  emactl posthoc --files --std 0.15 snapshots/*/*.safetensors --dry-run\n",
	.exits = "  0   written\n"
		 "  64  the command line is wrong, or a snapshot was given twice\n"
		 "  65  a file does not fit: damaged, NaN in it, other tensors, another model or schedule\n"
		 "  66  no such model, file or step, or no snapshots\n"
		 "  69  the daemon cannot be reached; --from DIR and --files do without it\n"
		 "  73  the file cannot be created\n"
		 "  74  reading or writing failed\n",
	.run = posthoc_run,
};
