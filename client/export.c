/*
 * Export: a view written to a file. The image in the slot is the file, so this is reading memory and writing it, into
 * a temporary file beside the target that takes its name only when everything is on the disk and was still valid.
 *
 * In another dtype the file has another layout (recast.h); its elements are converted a buffer at a time.
 */
#include "client/view.h"

#include "client/error.h"
#include "client/recast.h"
#include "client/served.h"
#include "client/target.h"
#include "proto/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PIECE_BYTES = 4 * 1024 * 1024,
	BUFFER_BYTES = 1024 * 1024, /* of converted elements: stays in the cache between conversion and write */
	ATTEMPT_COUNT_MAX = 3, /* how often a revoked view is tried again */
};

/* One attempt. */
struct job {
	struct target *target;                     /* borrowed */
	const struct emad_export_options *options; /* borrowed */
	struct emad_view *view;                    /* borrowed */
	struct emad_view_info facts;               /* of view */
	const struct safetensors *tensors;         /* borrowed from view */
	struct recast *recast;                     /* owned; NULL when the image is written as it is */
	uint64_t total_bytes;
	uint64_t overflow_count;
	const char *overflow_tensor; /* borrowed from tensors; NULL for none */
	uint64_t done_bytes;
};

/* Converted elements on their way into the file. */
struct buffer {
	uint8_t *bytes; /* owned; BUFFER_BYTES */
	size_t used;
};

static int progress_tell(const struct job *job, struct reason *reason)
{
	const struct emad_export_options *options = job->options;

	if (options->progress && options->progress(options->context, job->done_bytes, job->total_bytes))
		return reason_set(reason, -ECANCELED, "the export to %s was stopped after %" PRIu64 " of %" PRIu64 " bytes",
		                  job->target->path, job->done_bytes, job->total_bytes);
	return 0;
}

static int job_write(struct job *job, const uint8_t *bytes, uint64_t count, struct reason *reason)
{
	int code;

	while (count > 0) {
		const uint64_t piece = count < PIECE_BYTES ? count : PIECE_BYTES;

		code = target_write(job->target, bytes, piece, reason);
		bytes += piece;
		count -= piece;
		job->done_bytes += piece;
		if (code == 0)
			code = view_check(job->view, reason);
		if (code == 0)
			code = progress_tell(job, reason);
		if (code)
			return code;
	}
	return 0;
}

static int buffer_flush(struct job *job, struct buffer *buffer, struct reason *reason)
{
	int code = job_write(job, buffer->bytes, buffer->used, reason);

	buffer->used = 0;
	return code;
}

static int tensor_write(struct job *job, const struct recast_tensor *tensor, struct buffer *buffer,
                        struct reason *reason)
{
	const struct safetensors_entry *entry = &job->tensors->entries[tensor->index];
	const uint64_t from_bytes = dtype_bytes(entry->dtype), to_bytes = dtype_bytes(tensor->dtype);
	const uint8_t *source = job->facts.image + entry->offset;
	uint64_t left = tensor->element_count, room, count, overflows;
	int code;

	while (left > 0) {
		room = (BUFFER_BYTES - buffer->used) / to_bytes;
		if (room == 0) {
			code = buffer_flush(job, buffer, reason);
			if (code)
				return code;
			continue;
		}
		count = left < room ? left : room;
		overflows = convert_elements(entry->dtype, source, tensor->dtype, buffer->bytes + buffer->used, count);
		if (overflows > 0 && !job->overflow_tensor)
			job->overflow_tensor = entry->name;
		job->overflow_count += overflows;
		buffer->used += count * to_bytes;
		source += count * from_bytes;
		left -= count;
	}
	return 0;
}

static int recast_write(struct job *job, struct reason *reason)
{
	const struct recast *recast = job->recast;
	struct buffer buffer = {.bytes = malloc(BUFFER_BYTES)};
	int code;

	if (!buffer.bytes)
		return -ENOMEM;
	code = job_write(job, recast->header, recast->header_bytes, reason);
	for (uint32_t i = 0; i < recast->tensor_count && code == 0; i++)
		code = tensor_write(job, &recast->tensors[i], &buffer, reason);
	if (code == 0)
		code = buffer_flush(job, &buffer, reason);
	free(buffer.bytes);
	return code;
}

static int file_write(struct job *job, struct reason *reason)
{
	int code = job->recast ? recast_write(job, reason) : job_write(job, job->facts.image, job->total_bytes, reason);

	if (code == 0)
		code = target_sync(job->target, reason);
	return code ? code : view_check(job->view, reason);
}

/* Writes the view to the target. On failure nothing of it is left. */
static int job_run(struct job *job, struct reason *reason)
{
	/* Told before there is a file: from now on whoever interrupts must let it be removed. */
	int code = progress_tell(job, reason);

	if (code == 0)
		code = target_begin(job->target, reason);
	if (code)
		return code;
	code = file_write(job, reason);
	if (code == 0)
		code = target_commit(job->target, reason);
	if (code)
		target_abandon(job->target);
	return code;
}

/* Looks at the view, and lays the file out. */
static int job_prepare(struct job *job, struct reason *reason)
{
	const enum emad_served_dtype dtype = job->options->dtype;
	int code;

	code = view_info(job->view, &job->facts, reason);
	if (code == 0)
		code = view_tensors(job->view, &job->tensors, reason);
	if (code == 0 && dtype != EMAD_DTYPE_KEPT)
		code = recast_create(job->tensors, served_dtype(dtype, DTYPE_F32), NULL, &job->recast, reason);
	if (code == 0)
		job->total_bytes = job->recast ? job->recast->file_bytes : job->facts.image_bytes;
	return code;
}

static struct emad_export_info job_info(const struct job *job)
{
	struct emad_export_info info = {
		.version = job->facts.version,
		.step = job->facts.step,
		.updates = job->facts.updates,
		.decay = job->facts.decay,
		.published_us = job->facts.published_us,
		.tensor_count = job->facts.tensor_count,
		.file_bytes = job->total_bytes,
		.overflow_count = job->overflow_count,
	};

	_Static_assert(sizeof(info.overflow_tensor) > TENSOR_NAME_BYTES_MAX, "every name has room");
	if (job->overflow_tensor)
		snprintf(info.overflow_tensor, sizeof(info.overflow_tensor), "%s", job->overflow_tensor);
	return info;
}

static int export_once(struct emad_client *client, const char *model, const char *profile,
                       const struct emad_export_options *options, struct target *target,
                       struct emad_export_info *ret_info, struct reason *reason)
{
	/* Not in the wanted dtype: what is too large for it is counted here. */
	const struct emad_view_options whole = {.min_step = options->min_step, .timeout_ms = options->timeout_ms};
	struct job job = {.target = target, .options = options};
	int code;

	code = view_open(client, model, profile, &whole, &job.view, reason);
	if (code)
		return code;
	code = job_prepare(&job, reason);
	if (code == 0)
		code = job_run(&job, reason);
	if (code == 0 && ret_info)
		*ret_info = job_info(&job);
	recast_destroy(job.recast);
	emad_view_close(job.view);
	return code;
}

int emad_export(struct emad_client *client, const char *model, const char *profile, const char *path,
                const struct emad_export_options *options, struct emad_export_info *ret_info)
{
	static const struct emad_export_options fallback = {.timeout_ms = -1};
	struct reason reason = {.text = ""};
	struct target target;
	int code = client_check(client, &reason);

	options = options ? options : &fallback;
	if (code == 0 && !path)
		code = reason_set(&reason, STATUS_EARGUMENT, "path is NULL");
	if (code == 0)
		code = served_check(options->dtype, &reason);
	if (code == 0)
		code = target_open(path, &target, &reason);
	if (code)
		return error_report(code, &reason);
	for (int i = 0; i < ATTEMPT_COUNT_MAX; i++) {
		code = export_once(client, model, profile, options, &target, ret_info, &reason);
		if (code != STATUS_EREVOKED)
			break;
	}
	target_close(&target);
	return error_report(code, &reason);
}
