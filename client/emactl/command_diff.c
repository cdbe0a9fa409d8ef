/*
 * diff: how far two averages are from each other.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/comparison.h"

#include <stdio.h>
#include <string.h>

enum { DIFF_TOP };

enum { ATTEMPT_COUNT = 2, PAIRING_COUNT = 3 };

static const struct command_option DIFF_OPTIONS[] = {
	[DIFF_TOP] = {"top", 'n', "N", "show the N most distant tensors alone (default: all that differ)"},
	{0},
};

static int operands_open(const struct emactl *emactl, struct comparison *comparison, struct emad_client *client)
{
	char **texts = emactl->arguments;
	int status;

	status = operand_open(emactl, &comparison->a, texts[0], NULL, client);
	if (!status)
		status = operand_open(emactl, &comparison->b, texts[1], NULL, client);
	return status;
}

/* Two profiles of one model are those of one version, if it does not move too fast. */
static int operands_pair(const struct emactl *emactl, struct comparison *comparison, struct emad_client *client)
{
	int status = operands_open(emactl, comparison, client);

	for (int i = 1; !status && i < PAIRING_COUNT && comparison->a.view && comparison->b.view &&
	                strcmp(comparison->a.model, comparison->b.model) == 0 &&
	                comparison->a.info.version != comparison->b.info.version;
	     i++) {
		comparison_finish(comparison);
		status = operands_open(emactl, comparison, client);
	}
	return status;
}

/* One attempt: *ret_code is STATUS_EREVOKED, with nothing printed, when another one may do better. */
static int comparison_make(const struct emactl *emactl, struct comparison *comparison, struct emad_client *client,
                           bool is_last, int *ret_code)
{
	struct reason reason = {""};
	struct progress progress;
	int code, status;

	*ret_code = 0;
	*comparison = (struct comparison){.a.source.fd = -1, .b.source.fd = -1};
	status = operands_pair(emactl, comparison, client);
	if (status)
		return status;
	progress_begin(&progress, !emactl->is_json && !emactl->is_quiet);
	code = comparison_pair(comparison);
	if (!code)
		code = comparison_run(comparison, &progress, &reason);
	progress_end(&progress);
	*ret_code = code;
	if (code == 0 || (code == STATUS_EREVOKED && !is_last))
		return 0;
	return output_error(emactl, code, "%s", reason.text[0] ? reason.text : status_text(code));
}

static int comparison_tell(const struct emactl *emactl, const struct comparison *comparison, uint64_t top)
{
	if (emactl->is_json)
		comparison_json(comparison, top);
	else if (!emactl->is_quiet && comparison_print(comparison, top, emactl->is_colour) < 0)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory to print the differences");
	return comparison_differs(comparison) ? 1 : 0;
}

static int diff_run(struct emactl *emactl)
{
	struct emad_client *client = NULL;
	struct comparison comparison;
	uint64_t top = UINT64_MAX;
	int status = 0, code = STATUS_EREVOKED;

	if (emactl->values[DIFF_TOP])
		status = arguments_number(emactl, "--top", emactl->values[DIFF_TOP], (const uint64_t[2]){0, UINT32_MAX},
		                          &top);
	if (!status)
		status = operand_connect(emactl, emactl->arguments, 2, &client);
	for (int i = 0; !status && code == STATUS_EREVOKED && i < ATTEMPT_COUNT; i++) {
		status = comparison_make(emactl, &comparison, client, i + 1 == ATTEMPT_COUNT, &code);
		if (!status && !code)
			status = comparison_tell(emactl, &comparison, top);
		comparison_finish(&comparison);
		if (code == 0)
			break;
	}
	emad_client_close(client);
	return status;
}

const struct command COMMAND_DIFF = {
	.name = "diff",
	.arguments = "MODEL[:PROFILE]|FILE MODEL[:PROFILE]|FILE",
	.argument_count_min = 2,
	.argument_count_max = 2,
	.summary = "how far two averages or files are from each other",
	.text = "Compares two averages, two safetensors files, or one with the other, tensor by tensor. What ends in\n"
		".safetensors, begins with /, ./ or ../, or names a file that is there, is a file. A model without a\n"
		"profile is its first one; two profiles of one model are taken from the same version.\n"
		"\nPrints each tensor that differs, the most distant first:\n"
		"  RELATIVE    the L2 norm of the difference, as a part of that of the first tensor\n"
		"  DISTANCE    that norm itself\n"
		"  LARGEST     the largest difference of one element\n"
		"  COSINE      of the angle between the two\n"
		"  ELEMENTS    how many of them differ\n"
		"  NOT FINITE  those of them where one is NaN or infinite; they are in no sum, and make it infinite\n"
		"Tensors of one alone and of other shapes are named. Dtypes may differ: values are compared. NaN is\n"
		"equal to NaN. What is read takes no memory, whatever its size. A terminal shows the progress.\n"
		"With --quiet the exit code is the answer.\n"
		"\nJSON: one object: a and b (model, profile, version, step, or file), is_equal, tensors (in both),\n"
		"differing_tensors, elements, differing, nonfinite, distance, relative, largest and cosine of all of\n"
		"them, differences (an array of the same for each tensor that differs, with name, shape, a_dtype and\n"
		"b_dtype), only_in_a, only_in_b (names), other_shapes (name, a_shape, b_shape). What is not a finite\n"
		"number is null.\n",
	.options = DIFF_OPTIONS,
	.examples = "  emactl diff run42/net:ema run42/net:slow --top 10\n"
		    "  emactl diff run42/net net-ema.safetensors\n"
		    "  emactl diff --quiet a.safetensors b.safetensors && echo equal\n",
	.exits = "  0   equal\n"
		 "  1   there are differences, also when tensors are missing or of another shape\n"
		 "  64  the command line is wrong; like all that follow: they could not be compared\n"
		 "  65  a file is damaged, or no safetensors file\n"
		 "  66  no such model, profile or file, or it has no version yet\n"
		 "  69  the daemon cannot be reached\n"
		 "  74  reading failed\n"
		 "  75  the daemon took a version back twice, or did not answer in time\n"
		 "  77  the file may not be read, or the daemon's socket not be used, by this user\n",
	.run = diff_run,
};
