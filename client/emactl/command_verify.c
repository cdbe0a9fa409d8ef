/*
 * verify: is a safetensors file whole, and are its values numbers?
 *
 * When its structure is good every floating-point tensor is scanned. A NaN is damage; an infinity is told but no damage,
 * because masks and limits are often kept as infinities.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/progress.h"
#include "client/emactl/table.h"
#include "client/emactl/verify_report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 1 << 20, FILE_COUNT_MAX = 10000 };

static int tensor_scan(struct verification *file, uint32_t index, uint8_t *chunk, struct progress *progress,
                       struct reason *reason)
{
	const struct safetensors_entry *entry = &file->contents->entries[index];
	uint64_t done_bytes = 0;
	size_t chunk_bytes;
	int code;

	while (done_bytes < entry->bytes) {
		chunk_bytes = CHUNK_BYTES;
		if (entry->bytes - done_bytes < CHUNK_BYTES)
			chunk_bytes = (size_t)(entry->bytes - done_bytes);
		code = source_read(&file->source, entry->offset + done_bytes, chunk, chunk_bytes, reason);
		if (code)
			return code;
		scan_add(&file->scans[index], entry->dtype, chunk, chunk_bytes);
		done_bytes += chunk_bytes;
		progress_update(progress, entry->offset + done_bytes, file->source.file_bytes);
	}
	file->total.nan_count += file->scans[index].nan_count;
	file->total.infinite_count += file->scans[index].infinite_count;
	file->damaged_count += file->scans[index].nan_count != 0;
	return 0;
}

static int file_scan(struct verification *file, struct progress *progress, struct reason *reason)
{
	const uint32_t tensor_count = file->contents->entry_count;
	uint8_t *chunk = malloc(CHUNK_BYTES);
	int code = 0;

	file->scans = calloc(tensor_count ? tensor_count : 1, sizeof(*file->scans));
	if (!chunk || !file->scans)
		code = reason_set(reason, -ENOMEM, "%s: not enough memory", source_name(file->source.path));
	for (uint32_t i = 0; i < tensor_count && !code; i++)
		code = tensor_scan(file, i, chunk, progress, reason);
	free(chunk);
	if (code) {
		/* Counts of a part would be read as those of the whole. */
		free(file->scans);
		file->scans = NULL;
		return code;
	}
	if (file->total.nan_count)
		code = reason_set(reason, STATUS_ECORRUPT, "%s: %llu values in %u of its %u tensors are NaN",
		                  source_name(file->source.path), (unsigned long long)file->total.nan_count,
		                  file->damaged_count, tensor_count);
	return code;
}

static void verification_finish(struct verification *file)
{
	source_close(&file->source);
	safetensors_destroy(file->contents);
	free(file->scans);
}

static int file_verify(const struct emactl *emactl, const char *path, bool is_last)
{
	struct verification file = {0};
	struct progress progress;
	struct reason reason = {{0}};
	int code;

	progress_begin(&progress, !emactl->is_json && !emactl->is_quiet);
	code = source_begin_reading(path, &file.source, &file.contents, &reason);
	if (!code)
		code = file_scan(&file, &progress, &reason);
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
		status = file_verify(emactl, emactl->arguments[i], i + 1 == emactl->argument_count);
		first_failure = first_failure ? first_failure : status;
	}
	return first_failure;
}

const struct command COMMAND_VERIFY = {
	.name = "verify",
	.arguments = "FILE...",
	.argument_count_min = 1,
	.argument_count_max = FILE_COUNT_MAX,
	.summary = "check safetensors files",
	.text = "Checks that a safetensors file is whole (header, names, dtypes, shapes, offsets, no holes, nothing\n"
		"missing or left over), reads all of it, and looks for NaN, which is damage, and infinity, which is\n"
		"only told. Shows what the file holds and, when emad wrote it, which average of which step. Any\n"
		"safetensors file will do; no daemon is needed. A terminal shows the progress.\n"
		"\nJSON: one object a file: file, is_good, reason (null when good), and as far as it could be read\n"
		"file_bytes, header_bytes, payload_bytes, tensors, parameters, nan, infinite, dtypes,\n"
		"nonfinite_tensors and metadata (the strings in the file).\n",
	.examples = "  emactl verify net-ema.safetensors\n"
		    "  emactl verify --quiet *.safetensors && echo all good\n"
		    "  emactl verify --json net-ema.safetensors | jq -r '.metadata[\"emad.step\"]'\n",
	.exits = "  0   every file is good\n"
		 "  64  it is no regular file\n"
		 "  65  damaged; the sentence says what and where\n"
		 "  66  no such file\n"
		 "  74  reading failed\n"
		 "  77  the file may not be read\n"
		 "  Of several files the first failure decides; all are checked.\n",
	.run = verify_run,
};
