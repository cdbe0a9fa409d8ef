/*
 * checkpoint: one model, or all, to disk now.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>

static void checkpoint_print(const struct emactl *emactl, const char *model, uint64_t step)
{
	if (emactl->is_json && model) {
		printf("{\"model\":");
		output_json_string(model);
		printf(",\"step\":%" PRIu64 "}\n", step);
	} else if (emactl->is_json) {
		printf("{}\n");
	} else if (!emactl->is_quiet && model) {
		table_write_safe(stdout, model);
		printf(" is on disk as of step %" PRIu64 "\n", step);
	} else if (!emactl->is_quiet) {
		printf("all models are on disk\n");
	}
}

static int checkpoint_run(struct emactl *emactl)
{
	const char *model = emactl->argument_count > 0 ? emactl->arguments[0] : NULL;
	struct emad_client *client;
	uint64_t step = 0;
	int code, status;

	status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = emad_checkpoint(client, model, emactl->timeout_ms, &step);
	if (code)
		status = output_library_error(emactl, code);
	else
		checkpoint_print(emactl, model, step);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_CHECKPOINT = {
	.name = "checkpoint",
	.arguments = "[MODEL]",
	.argument_count_max = 1,
	.summary = "write a model, or all of them, to disk now",
	.text = "Writes the newest version of every profile below the daemon's state directory, from where it is\n"
		"recovered when the daemon starts again, and answers when it is there. Training and reading go on.\n"
		"What is on disk already is not written again. The daemon does this by itself as well: every\n"
		"checkpoint-interval, and when it is stopped.\n"
		"\nWith large models give it more time with --timeout; asking again does no harm.\n"
		"\nJSON: one object: model, step; without MODEL an empty one.\n",
	.examples = "  emactl checkpoint\n"
		    "  emactl checkpoint run42/net --timeout 300\n",
	.exits = "  0   on disk\n"
		 "  64  that cannot be a model's name, or the daemon has no state directory\n"
		 "  66  no such model, or it has no average yet\n"
		 "  69  the daemon cannot be reached\n"
		 "  73  it cannot be written\n"
		 "  75  it is not there in time\n"
		 "  77  the daemon's socket may not be used by this user\n",
	.run = checkpoint_run,
};
