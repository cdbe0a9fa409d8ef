/*
 * export: an average as a safetensors file.
 *
 * The library writes beside the file and renames, so that the file is whole or untouched. An interrupt during the
 * copy asks the library to stop, so that its temporary file is removed, and then ends the program as it would have
 * ended at once.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/operand.h"
#include "client/emactl/table.h"
#include "client/emactl/transfer.h"
#include "proto/dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { EXPORT_OUTPUT, EXPORT_MIN_STEP, EXPORT_DTYPE };

static const struct command_option EXPORT_OPTIONS[] = {
	[EXPORT_OUTPUT] = {"output", 'o', "FILE", "the file to write; replaced when it exists (required)"},
	[EXPORT_MIN_STEP] = {"min-step", 'm', "STEP", "wait (within --timeout) for this step or a later one"},
	[EXPORT_DTYPE] = {"dtype", 'd', "DTYPE", "f64, f32, f16, bf16, f8_e4m3 or f8_e5m2 instead of what is kept"},
	{0},
};

/* The name of safetensors, or NULL for what is kept. */
static const char *export_dtype_name(enum emad_served_dtype dtype)
{
	return dtype == EMAD_DTYPE_KEPT ? NULL : dtype_name((enum dtype)(dtype - 1));
}

static void json_text(const char *key, const char *text)
{
	printf(",\"%s\":", key);
	if (text)
		output_json_string(text);
	else
		printf("null");
}

/* What is to be exported. */
struct wanted {
	char model[MODEL_NAME_BYTES_MAX + 1];
	const char *profile; /* NULL: the first */
	struct emad_export_options options;
};

static void export_report(const struct emactl *emactl, const struct wanted *wanted, const struct emad_export_info *info,
                          uint64_t elapsed_us)
{
	const enum emad_served_dtype dtype = wanted->options.dtype;
	const char *path = emactl->values[EXPORT_OUTPUT], *name = export_dtype_name(dtype);

	if (emactl->is_json) {
		printf("{\"model\":");
		output_json_string(wanted->model);
		json_text("profile", wanted->profile);
		json_text("file", path);
		json_text("dtype", name);
		printf(",\"version\":%" PRIu64 ",\"step\":%" PRIu64 ",\"updates\":%" PRIu64
		       ",\"decay\":%s,\"published_us\":%" PRIu64 ",\"tensors\":%" PRIu64 ",\"file_bytes\":%" PRIu64
		       ",\"elapsed_us\":%" PRIu64 ",\"overflows\":%" PRIu64,
		       info->version, info->step, info->updates, figure_json_real(info->decay).text, info->published_us,
		       info->tensor_count, info->file_bytes, elapsed_us, info->overflow_count);
		json_text("overflow_tensor", info->overflow_count ? info->overflow_tensor : NULL);
		printf("}\n");
	} else if (!emactl->is_quiet) {
		table_write_safe(stdout, path);
		printf(": %s%s%s, version %" PRIu64 ", step %" PRIu64 ", %" PRIu64 " updates, in %s\n",
		       name ? name : "", name ? ", " : "", figure_bytes(info->file_bytes).text, info->version,
		       info->step, info->updates, figure_duration_us(elapsed_us).text);
	}
	if (info->overflow_count)
		output_note(emactl,
		            "warning: %" PRIu64 " values are too large for %s and became %s, the first of them in "
		            "tensor '%s'",
		            info->overflow_count, name, dtype == EMAD_AS_F8_E4M3 ? "448" : "infinite",
		            info->overflow_tensor);
}

static int export_copy(const struct emactl *emactl, struct emad_client *client, const struct wanted *wanted)
{
	struct emad_export_options options = wanted->options;
	struct emad_export_info info = {0};
	struct transfer transfer;
	struct copying copying;
	int code;

	options.timeout_ms = emactl->timeout_ms;
	options.progress = copying_progress;
	options.context = &copying;
	transfer_begin(&transfer, emactl, client);
	copying_begin(&copying, emactl);
	code = emad_export(client, wanted->model, wanted->profile, emactl->values[EXPORT_OUTPUT], &options, &info);
	transfer_end(&transfer);
	copying_end(&copying, code);
	if (code)
		return copying_error(emactl, code);
	export_report(emactl, wanted, &info, progress_elapsed_us(&copying.progress));
	return 0;
}

static int export_run(struct emactl *emactl)
{
	const char *path = emactl->values[EXPORT_OUTPUT], *min_step_text = emactl->values[EXPORT_MIN_STEP];
	const char *dtype_text = emactl->values[EXPORT_DTYPE];
	struct wanted wanted = {.profile = NULL};
	struct emad_client *client;
	int status, code = 0;

	if (!path || !*path)
		return output_error(emactl, EMAD_EARGUMENT, "export needs the file to write: -o FILE");
	if (strcmp(path, "-") == 0)
		return output_error(emactl, EMAD_EARGUMENT,
		                    "export writes a file whole or not at all, so it cannot write to standard output");
	status = operand_split(emactl, emactl->arguments[0], wanted.model, &wanted.profile);
	if (!status && wanted.profile && emactl->argument_count > 1)
		status = output_error(emactl, EMAD_EARGUMENT, "two profiles, '%s' and '%s': export takes one", wanted.profile,
		                      emactl->arguments[1]);
	if (emactl->argument_count > 1)
		wanted.profile = emactl->arguments[1];
	if (!status && min_step_text)
		status = arguments_number(emactl, "--min-step", min_step_text, (const uint64_t[2]){0, UINT64_MAX},
		                          &wanted.options.min_step);
	if (!status && dtype_text)
		code = emad_dtype_parse(dtype_text, &wanted.options.dtype);
	if (code)
		status = output_library_error(emactl, code);
	if (!status)
		status = ask_connect(emactl, &client);
	if (status)
		return status;
	status = export_copy(emactl, client, &wanted);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_EXPORT = {
	.name = "export",
	.arguments = "MODEL [PROFILE]",
	.argument_count_min = 1,
	.argument_count_max = 2,
	.summary = "write an average to a safetensors file",
	.text = "Writes the newest version of an average (PROFILE, also as MODEL:PROFILE, else the first) to a file that any\n"
		"safetensors reader loads. The version is whole although training goes on, and so is the file: it\n"
		"is written beside its place, made durable and renamed; on failure FILE is as it was. A terminal\n"
		"shows the progress, also of what comes over a network.\n"
		"\nWith --dtype all floating-point tensors are converted, each value rounded once to the nearest;\n"
		"integers stay as they are. Names are those of safetensors or of PyTorch (bfloat16), in any case. A\n"
		"value that is too large for the dtype becomes infinite (in f8_e4m3, which has no infinity, 448): a\n"
		"warning says how many did, and in which tensor first.\n"
		"\nJSON: one object: model, profile (null when none was named), file, dtype (null as kept), version,\n"
		"step, updates, decay, published_us (since 1970), tensors, file_bytes, elapsed_us, overflows (values\n"
		"that were too large), overflow_tensor (the first with one, or null).\n",
	.options = EXPORT_OPTIONS,
	.examples = "  emactl export run42/net -o net-ema.safetensors\n"
		    "  emactl export run42/net slow -o slow.safetensors --min-step 100000 --timeout 3600\n"
		    "  emactl export run42/net -o half.safetensors --dtype bf16\n",
	.exits = "  0   written\n"
		 "  66  no such model or profile, or it has no version yet\n"
		 "  69  the daemon cannot be reached\n"
		 "  73  the file cannot be created\n"
		 "  74  writing failed\n"
		 "  75  the step did not come in time, or the daemon took the version back; try again\n"
		 "  77  the daemon's socket may not be used by this user\n",
	.run = export_run,
};
