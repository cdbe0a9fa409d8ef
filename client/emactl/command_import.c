/*
 * import: an average that was made elsewhere becomes a model of the daemon.
 *
 * The file's tensors are registered as a model's and pushed once, as the average itself. The training job that comes
 * later registers with resume=adapt and goes on from it, whatever its own dtypes and number of ranks are.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/figure.h"
#include "client/emactl/progress.h"
#include "client/emactl/scan.h"
#include "client/emactl/table.h"
#include "client/emactl/transfer.h"
#include "client/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20, REGISTER_TIMEOUT_MS_MIN = 60000 };

enum { IMPORT_PROFILE, IMPORT_UPDATES, IMPORT_STEP, IMPORT_STRIP, IMPORT_REPLACE };

static const struct command_option IMPORT_OPTIONS[] = {
	[IMPORT_PROFILE] = {"profile", 'p', "SPEC", "NAME=SCHEDULE[;RULE]... (default: the file's, else ema=yolo)"},
	[IMPORT_UPDATES] = {"updates", 'u', "N", "how many updates it is of (default: the file's, else 0)"},
	[IMPORT_STEP] = {"step", 'S', "STEP", "the trainer's step it belongs to (default: the file's, else N)"},
	[IMPORT_STRIP] = {"strip", 'x', "PREFIX", "take the tensors whose names begin with PREFIX, without it"},
	[IMPORT_REPLACE] = {"replace", 'r', NULL, "replace a model of that name"},
	{0},
};

/* What is to be imported. */
struct import {
	struct source source;
	struct safetensors *contents; /* owned */
	char profile[PROFILE_BYTES_MAX + 2]; /* its specification; one byte more, so that the daemon refuses what was cut */
	char profile_name[PROFILE_NAME_BYTES_MAX + 1];
	uint64_t updates;
	uint64_t step;
	uint32_t tensor_count;
	struct emad_tensor *tensors; /* owned; names and shapes are the source's */
	const void **data;           /* owned; into values */
	uint8_t *values;             /* owned */
	uint64_t value_bytes;
};

static void import_finish(struct import *import)
{
	source_close(&import->source);
	safetensors_destroy(import->contents);
	free(import->tensors);
	free(import->data);
	free(import->values);
}

/* PyTorch's own files begin as zip archives do, or as pickles of protocol 2 and later. */
static bool is_pickled(const char *path)
{
	uint8_t first[4] = {0};
	FILE *file = fopen(path, "re");
	size_t count = file ? fread(first, 1, sizeof(first), file) : 0;

	if (file)
		fclose(file);
	return count == sizeof(first) &&
	       (memcmp(first, "PK\3\4", 4) == 0 || (first[0] == 0x80 && first[1] >= 2 && first[1] <= 5));
}

static int import_open(const struct emactl *emactl, struct import *import)
{
	const char *model = emactl->arguments[0], *path = emactl->arguments[1];
	struct reason reason = {{0}};
	int code;

	if (is_pickled(path))
		return output_error(emactl, EMAD_ECORRUPT,
		                    "%s: it is a pickle, as torch.save writes them, and loading one runs what is in it; "
		                    "'python3 -m emad.migrate %s --model %s' takes its tensors out safely",
		                    path, path, model);
	code = source_begin_reading(path, &import->source, &import->contents, &reason);
	return code ? output_error(emactl, code, "%s", reason.text) : 0;
}

/* The specification: what is asked for, else what the file says that it is, else the default. */
static void profile_choose_text(const struct emactl *emactl, struct import *import)
{
	const struct safetensors *contents = import->contents;
	const char *wanted = emactl->values[IMPORT_PROFILE];
	const char *name = safetensors_metadata_get(contents, "emad.profile");
	const char *schedule = safetensors_metadata_get(contents, "emad.schedule");
	const char *rules = safetensors_metadata_get(contents, "emad.rules");
	size_t name_bytes;

	if (wanted)
		snprintf(import->profile, sizeof(import->profile), "%s", wanted);
	else if (name && schedule)
		snprintf(import->profile, sizeof(import->profile), "%s=%s%s%s", name, schedule, rules ? ";" : "",
		         rules ? rules : "");
	else
		snprintf(import->profile, sizeof(import->profile), "ema=yolo");
	name_bytes = strcspn(import->profile, "=");
	snprintf(import->profile_name, sizeof(import->profile_name), "%.*s", (int)name_bytes, import->profile);
}

/* A count from the command line, else from the file's metadata, else the fallback. */
static int count_choose(const struct emactl *emactl, const struct import *import, int option, const char *key,
                        uint64_t fallback, uint64_t *ret_count)
{
	const char *text = emactl->values[option], *what = option == IMPORT_UPDATES ? "--updates" : "--step";

	if (!text) {
		text = safetensors_metadata_get(import->contents, key);
		what = key;
	}
	*ret_count = fallback;
	return text ? arguments_number(emactl, what, text, (const uint64_t[2]){0, UINT64_MAX - 1}, ret_count) : 0;
}

static int tensors_choose(const struct emactl *emactl, struct import *import)
{
	const struct safetensors *contents = import->contents;
	const char *prefix = emactl->values[IMPORT_STRIP] ? emactl->values[IMPORT_STRIP] : "";
	const size_t prefix_bytes = strlen(prefix);

	import->tensors = calloc((size_t)contents->entry_count + 1, sizeof(*import->tensors));
	import->data = calloc((size_t)contents->entry_count + 1, sizeof(*import->data));
	if (!import->tensors || !import->data)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory");
	for (uint32_t i = 0; i < contents->entry_count; i++) {
		const struct safetensors_entry *entry = &contents->entries[i];

		if (strncmp(entry->name, prefix, prefix_bytes) != 0)
			continue;
		import->tensors[import->tensor_count++] = (struct emad_tensor){
			.name = entry->name + prefix_bytes,
			.dtype = (enum emad_dtype)entry->dtype,
			.dimension_count = entry->dimension_count,
			.shape = entry->extents,
		};
		import->value_bytes += entry->bytes;
	}
	if (import->tensor_count > 0)
		return 0;
	if (contents->entry_count == 0)
		return output_error(emactl, EMAD_EMANIFEST, "%s: it holds no tensors", import->source.path);
	return output_error(emactl, EMAD_EMANIFEST, "%s: none of its %u tensors begins with '%s'; the first is '%s'",
	                    import->source.path, contents->entry_count, prefix, contents->entries[0].name);
}

/* The daemon would refuse NaN and infinity too, but only when a model of that name has already been replaced. */
static int entry_read(struct import *import, const struct safetensors_entry *entry, uint8_t *values,
                      uint64_t before_bytes, struct progress *progress, struct reason *reason)
{
	uint64_t done_bytes = 0;
	struct scan scan = {0};

	while (done_bytes < entry->bytes) {
		const uint64_t left = entry->bytes - done_bytes;
		const size_t bytes = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
		int code = source_read(&import->source, entry->offset + done_bytes, values + done_bytes, bytes, reason);

		if (code)
			return code;
		scan_add(&scan, entry->dtype, values + done_bytes, bytes);
		done_bytes += bytes;
		progress_update(progress, before_bytes + done_bytes, import->value_bytes);
	}
	if (scan.nan_count + scan.infinite_count > 0)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "%s: tensor '%.200s' holds %" PRIu64 " NaN and %" PRIu64 " infinite values, which would spoil "
		                  "every average that goes on from them",
		                  source_name(import->source.path), entry->name, scan.nan_count, scan.infinite_count);
	return 0;
}

static int values_read(const struct emactl *emactl, struct import *import, struct progress *progress)
{
	const struct safetensors *contents = import->contents;
	struct reason reason = {{0}};
	uint64_t done_bytes = 0;
	uint32_t taken = 0;
	int code = 0;

	import->values = malloc(import->value_bytes + 1);
	if (!import->values)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory for the %s of tensors in it",
		                    figure_bytes(import->value_bytes).text);
	for (uint32_t i = 0; i < contents->entry_count && !code; i++) {
		const struct safetensors_entry *entry = &contents->entries[i];

		if (taken == import->tensor_count || import->tensors[taken].shape != entry->extents)
			continue;
		import->data[taken++] = import->values + done_bytes;
		code = entry_read(import, entry, import->values + done_bytes, done_bytes, progress, &reason);
		done_bytes += entry->bytes;
	}
	progress_end(progress);
	return code ? output_error(emactl, code, "%s", reason.text) : 0;
}

/* A model of that name is replaced only by a clear word. */
static int absence_check(const struct emactl *emactl, struct emad_client *client)
{
	char *json = NULL;
	const int code = emad_show_json(client, emactl->arguments[0], emactl->timeout_ms, &json);

	emad_free(json);
	if (code == EMAD_ENOMODEL)
		return 0;
	if (code)
		return output_library_error(emactl, code);
	return output_error(emactl, EMAD_EEXISTS,
	                    "model '%s' exists already; --replace replaces it with all its averages, and its trainer with it",
	                    emactl->arguments[0]);
}

static int seed_push(const struct emactl *emactl, struct emad_client *client, const struct import *import,
                     struct emad_trainer *trainer, struct emad_push_result *ret_result)
{
	const struct emad_enclosure enclosure = {.seeds = import->profile_name, .updates = import->updates};
	const int timeout_ms =
		emactl->timeout_ms > REGISTER_TIMEOUT_MS_MIN ? emactl->timeout_ms : REGISTER_TIMEOUT_MS_MIN;
	int code = emad_enclose(trainer, &enclosure), status;
	struct transfer transfer;

	transfer_begin(&transfer, emactl, client);
	if (!code)
		code = emad_push(trainer, import->step, import->data, EMAD_PUSH_WAIT, timeout_ms, ret_result);
	transfer_end(&transfer);
	status = code ? output_library_error(emactl, code) : 0;
	if (!code && ret_result->version == 0)
		status = output_error(emactl, EMAD_EREFUSED, "%s: the daemon refused it: %s", import->source.path,
		                      ret_result->refusal);
	/* Nothing is left behind that a trainer would take for an average. */
	if (status)
		emad_remove(client, emactl->arguments[0], emactl->timeout_ms, NULL);
	return status;
}

static void import_report(const struct emactl *emactl, const struct import *import,
                          const struct emad_trainer_info *info, const struct emad_push_result *result)
{
	const char *model = emactl->arguments[0];

	if (emactl->is_json) {
		printf("{\"model\":");
		output_json_string(model);
		printf(",\"file\":");
		output_json_string(import->source.path);
		printf(",\"profile\":");
		output_json_string(import->profile);
		printf(",\"step\":%" PRIu64 ",\"updates\":%" PRIu64 ",\"version\":%" PRIu64
		       ",\"tensors\":%u,\"payload_bytes\":%" PRIu64 ",\"report\":",
		       import->step, import->updates, result->version, import->tensor_count, info->payload_bytes);
		output_json_string(info->report);
		printf("}\n");
		return;
	}
	if (emactl->is_quiet)
		return;
	table_write_safe(stdout, model);
	printf(": %u tensors, %s, step %" PRIu64 ", %" PRIu64 " updates\n", import->tensor_count,
	       figure_bytes(info->payload_bytes).text, import->step, import->updates);
	table_write_safe(stdout, info->report);
	putchar('\n');
	output_note(emactl, "The training job goes on from it when it registers '%s' with resume=adapt.", model);
}

static int import_register(const struct emactl *emactl, struct emad_client *client, const struct import *import)
{
	const char *const profiles[] = {import->profile};
	const struct emad_trainer_options options = {
		.profiles = profiles,
		.profile_count = 1,
		.attributes = safetensors_metadata_get(import->contents, "emad.attributes"),
		.start_step = import->step,
		.resume = emactl->values[IMPORT_REPLACE] ? EMAD_RESUME_NEVER : EMAD_RESUME_AUTO,
		.timeout_ms = emactl->timeout_ms > REGISTER_TIMEOUT_MS_MIN ? emactl->timeout_ms : REGISTER_TIMEOUT_MS_MIN,
	};
	struct emad_push_result result = {0};
	struct emad_trainer_info info;
	struct emad_trainer *trainer;
	int status = emactl->values[IMPORT_REPLACE] ? 0 : absence_check(emactl, client), code;

	if (status)
		return status;
	code = emad_trainer_open(client, emactl->arguments[0], import->tensors, import->tensor_count, &options, &trainer);
	if (code)
		return output_library_error(emactl, code);
	status = seed_push(emactl, client, import, trainer, &result);
	code = status ? 0 : emad_trainer_info(trainer, &info);
	if (code)
		status = output_library_error(emactl, code);
	else if (!status)
		import_report(emactl, import, &info, &result);
	emad_trainer_close(trainer);
	return status;
}

static int import_prepare(const struct emactl *emactl, struct import *import)
{
	struct progress progress;
	int status = import_open(emactl, import);

	if (!status)
		status = count_choose(emactl, import, IMPORT_UPDATES, "emad.updates", 0, &import->updates);
	if (!status)
		status = count_choose(emactl, import, IMPORT_STEP, "emad.step", import->updates, &import->step);
	if (!status)
		status = tensors_choose(emactl, import);
	if (status)
		return status;
	profile_choose_text(emactl, import);
	progress_begin(&progress, !emactl->is_json && !emactl->is_quiet);
	return values_read(emactl, import, &progress);
}

static int import_run(struct emactl *emactl)
{
	struct import import = {.source.fd = -1};
	struct emad_client *client;
	int status = import_prepare(emactl, &import);

	if (!status)
		status = ask_connect(emactl, &client);
	if (!status) {
		status = import_register(emactl, client, &import);
		emad_client_close(client);
	}
	import_finish(&import);
	return status;
}

const struct command COMMAND_IMPORT = {
	.name = "import",
	.arguments = "MODEL FILE",
	.argument_count_min = 2,
	.argument_count_max = 2,
	.summary = "start a model from a safetensors file",
	.text = "Makes the tensors of a safetensors file the average of a new model: readers see it at once, and the\n"
		"training job goes on from it when it registers MODEL with resume=adapt. Its dtypes may be others\n"
		"than the file's (a bfloat16 model, a float32 average), and so may its number of ranks; tensors that\n"
		"only one of both has start, or end, with the first snapshot.\n"
		"\nWhat emad wrote (emactl export) says by itself which profile it is and of how many updates and which\n"
		"step. For files of other programs give --updates, because warm-ups depend on it, and --profile.\n"
		"A .pt, .pth or .ckpt file is a pickle: 'python3 -m emad.migrate FILE --model MODEL' takes those.\n"
		"A terminal shows the progress of reading, and of sending it to a daemon on another host.\n"
		"\nJSON: one object: model, file, profile (its specification), step, updates, version, tensors,\n"
		"payload_bytes, report.\n",
	.options = IMPORT_OPTIONS,
	.examples = "  emactl import run43/net net-ema.safetensors\n"
		    "  emactl import run43/net ema.safetensors --profile 'ema=yolo:decay=0.999' --updates 120000\n"
		    "  emactl import run43/net unet.safetensors --strip model_ema. --updates 5e5 --replace\n",
	.exits = "  0   imported\n"
		 "  64  the command line is wrong, or that cannot be a model's name\n"
		 "  65  the file is damaged, no safetensors file, or holds NaN or infinity; or the model exists\n"
		 "  66  no such file\n"
		 "  69  the daemon cannot be reached\n"
		 "  71  not enough memory, here or at the daemon\n"
		 "  74  reading failed\n"
		 "  75  the daemon did not answer in time\n"
		 "  77  the file may not be read, or the daemon's socket not be used, by this user\n",
	.run = import_run,
};
