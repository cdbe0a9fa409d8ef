/*
 * Export: a view written to a file. The image in the slot is the file, so this is reading memory and writing it, into
 * a temporary file beside the target that takes its name only when everything is on the disk and was still valid.
 */
#include "client/view.h"

#include "client/error.h"
#include "client/target.h"

#include <errno.h>
#include <inttypes.h>

enum {
	PIECE_BYTES = 4 * 1024 * 1024,
	ATTEMPT_COUNT_MAX = 3, /* how often a revoked view is tried again */
};

/* Who is told about the progress. */
struct watcher {
	emad_progress *progress; /* NULL for nobody */
	void *context;
};

static int progress_tell(const struct target *target, const struct watcher *watcher, uint64_t done,
                         uint64_t total, struct reason *reason)
{
	if (watcher->progress && watcher->progress(watcher->context, done, total))
		return reason_set(reason, -ECANCELED, "the export to %s was stopped after %" PRIu64 " of %" PRIu64 " bytes",
		                  target->path, done, total);
	return 0;
}

static int export_write(const struct target *target, struct emad_view *view, const struct emad_view_info *info,
                        const struct watcher *watcher, struct reason *reason)
{
	uint64_t done = 0;
	int code;

	while (done < info->image_bytes) {
		const uint64_t left = info->image_bytes - done, piece = left < PIECE_BYTES ? left : PIECE_BYTES;

		code = target_write(target, info->image + done, piece, reason);
		done += piece;
		if (code == 0)
			code = view_check(view, reason);
		if (code == 0)
			code = progress_tell(target, watcher, done, info->image_bytes, reason);
		if (code)
			return code;
	}
	code = target_sync(target, reason);
	return code ? code : view_check(view, reason);
}

/* Writes the view to the target. On failure nothing of it is left. */
static int export_view(struct target *target, struct emad_view *view, const struct emad_view_info *info,
                       const struct watcher *watcher, struct reason *reason)
{
	/* Whoever handles interrupts by way of the progress does so before there is anything to be removed. */
	int code = progress_tell(target, watcher, 0, info->image_bytes, reason);

	if (code == 0)
		code = target_begin(target, reason);
	if (code)
		return code;
	code = export_write(target, view, info, watcher, reason);
	if (code == 0)
		code = target_commit(target, reason);
	if (code)
		target_abandon(target);
	return code;
}

static int export_once(struct emad_client *client, const char *model, const char *profile, uint64_t min_step,
                       int timeout_ms, struct target *target, const struct watcher *watcher,
                       struct emad_view_info *ret_info, struct reason *reason)
{
	struct emad_view_info info;
	struct emad_view *view;
	int code;

	code = view_open(client, model, profile, min_step, timeout_ms, &view, reason);
	if (code)
		return code;
	code = view_info(view, &info, reason);
	if (code == 0)
		code = export_view(target, view, &info, watcher, reason);
	emad_view_close(view);
	if (code == 0 && ret_info) {
		*ret_info = info;
		ret_info->image = NULL;
		ret_info->fd = -1;
		ret_info->fd_offset = 0;
	}
	return code;
}

int emad_export(struct emad_client *client, const char *model, const char *profile, uint64_t min_step,
                const char *path, int timeout_ms, emad_progress *progress, void *context,
                struct emad_view_info *ret_info)
{
	struct watcher watcher = {.progress = progress, .context = context};
	struct reason reason = {.text = ""};
	struct target target;
	int code = client_check(client, &reason);

	if (code == 0 && !path)
		code = reason_set(&reason, STATUS_EARGUMENT, "path is NULL");
	if (code == 0)
		code = target_open(path, &target, &reason);
	if (code)
		return error_report(code, &reason);
	for (int i = 0; i < ATTEMPT_COUNT_MAX; i++) {
		code = export_once(client, model, profile, min_step, timeout_ms, &target, &watcher, ret_info, &reason);
		if (code != STATUS_EREVOKED)
			break;
	}
	target_close(&target);
	return error_report(code, &reason);
}
