/*
 * checkpoint: one model, or all, to disk now; and which of what is there stays.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/checkpoint_watch.h"
#include "client/emactl/table.h"

#include <inttypes.h>
#include <stdio.h>

enum { CHECKPOINT_KEEP, CHECKPOINT_UNKEEP, CHECKPOINT_STEP };

static const struct command_option CHECKPOINT_OPTIONS[] = {
	[CHECKPOINT_KEEP] = {"keep", 'k', NULL, "mark the checkpoint as one that stays"},
	[CHECKPOINT_UNKEEP] = {"unkeep", 'u', NULL, "take the mark from the checkpoint of --step"},
	[CHECKPOINT_STEP] = {"step", 'S', "N", "with --keep, --unkeep: of that step; nothing is written"},
	{0},
};

static void checkpoint_print(const struct emactl *emactl, const char *model, uint64_t step)
{
	const bool keeps = emactl->values[CHECKPOINT_KEEP], unkeeps = emactl->values[CHECKPOINT_UNKEEP];

	if (emactl->is_json && model) {
		printf("{\"model\":");
		output_json_string(model);
		printf(",\"step\":%" PRIu64, step);
		if (keeps || unkeeps)
			printf(",\"keep\":%s", keeps ? "true" : "false");
		printf("}\n");
	} else if (emactl->is_json) {
		printf("{}\n");
	} else if (!emactl->is_quiet && model) {
		table_write_safe(stdout, model);
		printf(unkeeps ? "'s checkpoint of step %" PRIu64 " may go" : " is on disk as of step %" PRIu64, step);
		printf("%s\n", keeps ? ", and that stays" : "");
	} else if (!emactl->is_quiet) {
		printf("all models are on disk\n");
	}
}

/* Options that go together: 0, or an exit status. */
static int options_check(const struct emactl *emactl)
{
	const bool marks = emactl->values[CHECKPOINT_KEEP] || emactl->values[CHECKPOINT_UNKEEP];

	if (emactl->values[CHECKPOINT_KEEP] && emactl->values[CHECKPOINT_UNKEEP])
		return output_error(emactl, EMAD_EARGUMENT, "--keep and --unkeep are opposites");
	if (marks && emactl->argument_count == 0)
		return output_error(emactl, EMAD_EARGUMENT, "--keep and --unkeep are about one model: name it");
	if (emactl->values[CHECKPOINT_UNKEEP] && !emactl->values[CHECKPOINT_STEP])
		return output_error(emactl, EMAD_EARGUMENT, "--unkeep needs --step N; 'emactl history %s' shows the marks",
		                    emactl->arguments[0]);
	if (emactl->values[CHECKPOINT_STEP] && !marks)
		return output_error(emactl, EMAD_EARGUMENT, "--step goes with --keep or --unkeep: what is written is always the "
		                    "newest version");
	return 0;
}

/* Writes where that is wanted, then marks. */
static int checkpoint_ask(const struct emactl *emactl, struct emad_client *client, const char *model, uint64_t *step)
{
	struct checkpoint_watch watch;
	int code = 0;

	if (!emactl->values[CHECKPOINT_STEP]) {
		checkpoint_watch_begin(&watch, emactl, model);
		code = emad_checkpoint(client, model, emactl->timeout_ms, step);
		checkpoint_watch_end(&watch);
	}
	if (!code && (emactl->values[CHECKPOINT_KEEP] || emactl->values[CHECKPOINT_UNKEEP]))
		code = emad_checkpoint_keep(client, model, *step, emactl->values[CHECKPOINT_KEEP] != NULL,
		                            emactl->timeout_ms);
	return code;
}

static int checkpoint_run(struct emactl *emactl)
{
	const char *model = emactl->argument_count > 0 ? emactl->arguments[0] : NULL;
	const uint64_t range[2] = {0, UINT64_MAX};
	struct emad_client *client;
	uint64_t step = 0;
	int code, status;

	status = options_check(emactl);
	if (!status && emactl->values[CHECKPOINT_STEP])
		status = arguments_number(emactl, "--step", emactl->values[CHECKPOINT_STEP], range, &step);
	if (!status)
		status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = checkpoint_ask(emactl, client, model, &step);
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
		"\nWith large models give it more time with --timeout; asking again does no harm. A terminal shows\n"
		"the progress.\n"
		"\nThe daemon removes all but the newest checkpoints (checkpoint-keep). --keep marks the one that is\n"
		"written, or with --step one that is there, as one that stays until --unkeep --step N. It needs the\n"
		"daemon's admin permission; 'emactl history' shows the marks.\n"
		"\nJSON: one object: model, step, and with --keep or --unkeep keep; without MODEL an empty one.\n",
	.options = CHECKPOINT_OPTIONS,
	.examples = "  emactl checkpoint\n"
		    "  emactl checkpoint run42/net --timeout 300\n"
		    "  emactl checkpoint run42/net --keep\n"
		    "  emactl checkpoint run42/net --unkeep --step 120000\n",
	.exits = "  0   on disk\n"
		 "  64  the command line is wrong, or the daemon has no state directory\n"
		 "  66  no such model, or it has no average yet, or no checkpoint of that step\n"
		 "  69  the daemon cannot be reached\n"
		 "  73  it cannot be written\n"
		 "  75  it is not there in time\n"
		 "  77  the daemon's socket may not be used by this user\n",
	.run = checkpoint_run,
};
