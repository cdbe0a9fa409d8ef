/*
 * Export: a view written to a file. The image in the slot is the file, so this is reading memory and writing it, into
 * a temporary file beside the target that takes its name only when everything is on the disk and was still valid.
 */
#include "client/view.h"

#include "client/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PIECE_BYTES = 4 * 1024 * 1024,
	ATTEMPT_COUNT_MAX = 3, /* how often a revoked view is tried again */
	TEMPORARY_NAME_BYTES = 64,
};

/* Where the file goes. */
struct target {
	const char *path; /* borrowed */
	const char *name; /* inside path */
	int directory;    /* owned; open for fsync and the *at calls */
	char temporary[TEMPORARY_NAME_BYTES];
};

/* Who is told about the progress. */
struct watcher {
	emad_progress *progress; /* NULL for nobody */
	void *context;
};

static int target_errno(const struct target *target, const char *what, struct reason *reason)
{
	int error = errno;

	return reason_set(reason, -error, "cannot %s for %s: %s", what, target->path, strerrordesc_np(error));
}

static int target_open(const char *path, struct target *ret_target, struct reason *reason)
{
	struct target target = {.path = path};
	const char *slash = strrchr(path, '/');
	struct stat facts;
	uint64_t random;
	char *directory;

	target.name = slash ? slash + 1 : path;
	if (!*target.name)
		return reason_set(reason, -EISDIR, "%s is a directory: name a file in it", path);
	if (stat(path, &facts) == 0 && S_ISDIR(facts.st_mode))
		return reason_set(reason, -EISDIR, "%s is a directory: name a file in it", path);
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return target_errno(&target, "get random numbers", reason);
	snprintf(target.temporary, sizeof(target.temporary), ".emad-export-%016" PRIx64 ".tmp", random);
	directory = slash ? strndup(path, (size_t)(slash + 1 - path)) : strdup(".");
	if (!directory)
		return -ENOMEM;
	target.directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(directory);
	if (target.directory < 0)
		return target_errno(&target, "open the directory", reason);
	*ret_target = target;
	return 0;
}

static int export_write(int fd, const struct target *target, struct emad_view *view,
                        const struct emad_view_info *info, const struct watcher *watcher, struct reason *reason)
{
	uint64_t done = 0;
	int code;

	while (done < info->image_bytes) {
		uint64_t left = info->image_bytes - done;
		ssize_t count = write(fd, info->image + done, left < PIECE_BYTES ? left : PIECE_BYTES);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return target_errno(target, "write", reason);
		done += (uint64_t)count;
		code = view_check(view, reason);
		if (code)
			return code;
		if (watcher->progress && watcher->progress(watcher->context, done, info->image_bytes))
			return reason_set(reason, -ECANCELED, "the export to %s was stopped after %" PRIu64 " of %" PRIu64 " bytes",
			                  target->path, done, info->image_bytes);
	}
	if (fsync(fd) < 0)
		return target_errno(target, "bring the data to the disk", reason);
	return view_check(view, reason);
}

/* Writes the view to the target. On failure nothing of it is left. */
static int export_view(const struct target *target, struct emad_view *view, const struct emad_view_info *info,
                       const struct watcher *watcher, struct reason *reason)
{
	int fd, code;

	fd = openat(target->directory, target->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return target_errno(target, "create a temporary file", reason);
	code = export_write(fd, target, view, info, watcher, reason);
	if (close(fd) < 0 && code == 0)
		code = target_errno(target, "close the temporary file", reason);
	if (code == 0 && renameat(target->directory, target->temporary, target->directory, target->name) < 0)
		code = target_errno(target, "rename the temporary file", reason);
	if (code) {
		unlinkat(target->directory, target->temporary, 0);
		return code;
	}
	if (fsync(target->directory) < 0)
		return target_errno(target, "bring the directory to the disk", reason);
	return 0;
}

static int export_once(struct emad_client *client, const char *model, const char *profile, uint64_t min_step,
                       int timeout_ms, const struct target *target, const struct watcher *watcher,
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
	close(target.directory);
	return error_report(code, &reason);
}
