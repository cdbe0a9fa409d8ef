/*
 * verify: is a safetensors file whole, and are its values numbers? The same of all that lies in a directory of emad's.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/progress.h"
#include "client/emactl/table.h"
#include "client/emactl/verify_directory.h"
#include "client/emactl/verify_report.h"

#include <errno.h>
#include <stdio.h>

enum { FILE_COUNT_MAX = 10000 };

static int file_verify(const struct emactl *emactl, const char *path, bool is_last)
{
	struct verification file = {0};
	struct progress progress;
	struct reason reason = {{0}};
	int code;

	progress_begin(&progress, !emactl->is_json && !emactl->is_quiet);
	code = verification_run(&file, path, &progress, &reason);
	progress_end(&progress);

	if (emactl->is_json)
		verify_report_json(&file, code, reason.text);
	else if (!emactl->is_quiet && file.scans && verify_report_print(&file, emactl->is_colour) < 0)
		code = reason_set(&reason, -ENOMEM, "not enough memory to print the report");
	if (code) {
		/* In order with the report when both go to one place. */
		fflush(stdout);
		code = output_error(emactl, code, "%s", reason.text);
	} else if (!emactl->is_json && !emactl->is_quiet) {
		table_write_safe(stdout, path);
		printf(": good\n");
	}
	if (file.scans && !is_last && !emactl->is_json && !emactl->is_quiet)
		putchar('\n');
	verification_finish(&file);
	return code;
}

static int verify_run(struct emactl *emactl)
{
	int first_failure = 0, status;

	for (unsigned i = 0; i < emactl->argument_count; i++) {
		const bool is_last = i + 1 == emactl->argument_count;

		if (verify_is_directory(emactl->arguments[i]))
			status = verify_directory(emactl, emactl->arguments[i], is_last);
		else
			status = file_verify(emactl, emactl->arguments[i], is_last);
		first_failure = first_failure ? first_failure : status;
	}
	return first_failure;
}

const struct command COMMAND_VERIFY = {
	.name = "verify",
	.arguments = "PATH...",
	.argument_count_min = 1,
	.argument_count_max = FILE_COUNT_MAX,
	.summary = "check safetensors files and checkpoints",
	.text = "Checks that a safetensors file is whole (header, names, dtypes, shapes, offsets, no holes, nothing\n"
		"missing or left over), reads all of it, and looks for NaN, which is damage, and infinity, which is\n"
		"only told. Shows what the file holds and, when emad wrote it, which average of which step. Any\n"
		"safetensors file will do; no daemon is needed. A terminal shows the progress.\n"
		"\nOf a directory of emad's all that is in it: a checkpoint (STEP-VERSION), the checkpoints of a model, or\n"
		"a whole state directory, with the averages kept by snapshot=. Of a checkpoint the manifest's checksum,\n"
		"the sizes and checksums of all files, and then each as above. One line each says what is whole and what\n"
		"is damaged and why; what the daemon has set aside is only told. Beside a daemon that runs, one that is\n"
		"removed meanwhile is left out.\n"
		"\nJSON: one object a checkpoint or kept average: path, kind (checkpoint, average), is_good, aside, reason,\n"
		"model, step, version (null where it is not known), bytes. One object a file: file, is_good, reason (null\n"
		"when good), and as far as it could be read file_bytes, header_bytes, payload_bytes, tensors,\n"
		"parameters, nan, infinite, dtypes, nonfinite_tensors and metadata (the strings in the file).\n",
	.examples = "  emactl verify net-ema.safetensors\n"
		    "  emactl verify --quiet *.safetensors && echo all good\n"
		    "  emactl verify /var/lib/emad\n"
		    "  emactl verify --json net-ema.safetensors | jq -r '.metadata[\"emad.step\"]'\n",
	.exits = "  0   every file is good\n"
		 "  64  it is no regular file, or a directory in which nothing is emad's\n"
		 "  65  damaged; the sentence says what and where\n"
		 "  66  no such file or directory\n"
		 "  74  reading failed\n"
		 "  77  the file may not be read\n"
		 "  Of several paths the first failure decides; all are checked.\n",
	.run = verify_run,
};
