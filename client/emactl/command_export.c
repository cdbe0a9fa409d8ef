/*
 * export: an average as a safetensors file.
 *
 * The library writes beside the file and renames, so that the file is whole or untouched.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { EXPORT_OUTPUT, EXPORT_MIN_STEP };

static const struct command_option EXPORT_OPTIONS[] = {
	[EXPORT_OUTPUT] = {"output", 'o', "FILE", "the file to write; replaced when it exists (required)"},
	[EXPORT_MIN_STEP] = {"min-step", 'm', "STEP", "wait (within --timeout) for this step or a later one"},
	{0},
};

static void export_report(const struct emactl *emactl, const struct emad_view_info *info, uint64_t elapsed_us)
{
	const char *path = emactl->values[EXPORT_OUTPUT];

	if (emactl->is_json) {
		printf("{\"model\":");
		output_json_string(emactl->arguments[0]);
		printf(",\"profile\":");
		if (emactl->argument_count > 1)
			output_json_string(emactl->arguments[1]);
		else
			printf("null");
		printf(",\"file\":");
		output_json_string(path);
		printf(",\"version\":%" PRIu64 ",\"step\":%" PRIu64 ",\"updates\":%" PRIu64
		       ",\"decay\":%s,\"published_us\":%" PRIu64 ",\"tensors\":%" PRIu64 ",\"file_bytes\":%" PRIu64
		       ",\"elapsed_us\":%" PRIu64 "}\n",
		       info->version, info->step, info->updates, figure_json_real(info->decay).text, info->published_us,
		       info->tensor_count, info->image_bytes, elapsed_us);
	} else if (!emactl->is_quiet) {
		table_write_safe(stdout, path);
		printf(": %s, version %" PRIu64 ", step %" PRIu64 ", %" PRIu64 " updates, in %s\n",
		       figure_bytes(info->image_bytes).text, info->version, info->step, info->updates,
		       figure_duration_us(elapsed_us).text);
	}
}

static int export_copy(const struct emactl *emactl, struct emad_client *client, uint64_t min_step)
{
	const char *profile = emactl->argument_count > 1 ? emactl->arguments[1] : NULL;
	struct emad_view_info info = {0};
	struct copying copying;
	int code;

	copying_begin(&copying, emactl);
	code = emad_export(client, emactl->arguments[0], profile, min_step, emactl->values[EXPORT_OUTPUT],
	                   emactl->timeout_ms, copying_progress, &copying, &info);
	copying_end(&copying, code);
	if (code)
		return copying_error(emactl, code);
	export_report(emactl, &info, progress_elapsed_us(&copying.progress));
	return 0;
}

static int export_run(struct emactl *emactl)
{
	const char *path = emactl->values[EXPORT_OUTPUT], *min_step_text = emactl->values[EXPORT_MIN_STEP];
	struct emad_client *client;
	uint64_t min_step = 0;
	int status = 0;

	if (!path || !*path)
		return output_error(emactl, EMAD_EARGUMENT, "export needs the file to write: -o FILE");
	if (strcmp(path, "-") == 0)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "export writes a file whole or not at all, so it cannot write to standard output");
	if (min_step_text)
		status = arguments_number(emactl, "--min-step", min_step_text, (const uint64_t[2]){0, UINT64_MAX},
		                          &min_step);
	if (!status)
		status = ask_connect(emactl, &client);
	if (status)
		return status;
	status = export_copy(emactl, client, min_step);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_EXPORT = {
	.name = "export",
	.arguments = "MODEL [PROFILE]",
	.argument_count_min = 1,
	.argument_count_max = 2,
	.summary = "write an average to a safetensors file",
	.text = "Writes the newest version of an average (PROFILE, else the model's first) to a file that any\n"
		"safetensors reader loads. The version is whole although training goes on, and so is the file: it\n"
		"is written beside its place, made durable and renamed; on failure FILE is as it was. A terminal\n"
		"shows the progress.\n"
		"\nJSON: one object: model, profile (null when none was named), file, version, step, updates, decay,\n"
		"published_us (since 1970), tensors, file_bytes, elapsed_us.\n",
	.options = EXPORT_OPTIONS,
	.examples = "  emactl export run42/net -o net-ema.safetensors\n"
		    "  emactl export run42/net slow -o slow.safetensors --min-step 100000 --timeout 3600\n",
	.exits = "  0   written\n"
		 "  66  no such model or profile, or it has no version yet\n"
		 "  69  the daemon cannot be reached\n"
		 "  73  the file cannot be created\n"
		 "  74  writing failed\n"
		 "  75  the step did not come in time, or the daemon took the version back; try again\n"
		 "  77  the daemon's socket may not be used by this user\n",
	.run = export_run,
};
