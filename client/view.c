/*
 * Views: a leased version of a profile, read in place.
 *
 * The lease is the connection to the attach socket on which it was given. Opening maps and checks a page of facts and
 * nothing else; the image's JSON header is copied and parsed when the first tensor is asked for. Nothing that is read
 * may be believed before the fence has been looked at afterwards: the daemon bumps it before it overwrites the slot.
 */
#include "client/view.h"

#include "client/attach.h"
#include "client/error.h"
#include "client/remote.h"
#include "client/remote_view.h"
#include "client/selection.h"
#include "client/served.h"
#include "proto/convert.h"
#include "proto/layout.h"
#include "proto/name.h"
#include "proto/sentence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct emad_view {
	pid_t pid;      /* the process that opened it; a view needs no client once it is open */
	char *model;    /* owned; for sentences */
	int connection; /* owned; the lease; -1 where the image is a copy, which nobody takes back */
	int fd;         /* owned; the slot, read-only */
	uint8_t *map;   /* owned; from the slot's start to the image's end */
	uint64_t map_bytes;
	uint64_t fence;         /* the slot's fence while the lease holds */
	uint64_t region_offset; /* where the image begins */
	uint64_t region_bytes;
	struct emad_view_info facts; /* but for tensor_count */
	enum emad_served_dtype served; /* in which tensors are read; EMAD_DTYPE_KEPT: in any */
	double drift;
	struct safetensors *tensors; /* owned; those that are wanted; NULL until it is needed */
};

static const struct slot_header *view_slot(const struct emad_view *view)
{
	return (const struct slot_header *)view->map;
}

int view_check(struct emad_view *view, struct reason *reason)
{
	uint64_t fence;

	if (view->connection < 0)
		return 0;
	/* Pairs with the daemon's fence store, which comes before its first store into the slot. */
	atomic_thread_fence(memory_order_acquire);
	fence = atomic_load_explicit(&view_slot(view)->fence, memory_order_relaxed);
	if (fence == view->fence)
		return 0;
	return reason_set(reason, STATUS_EREVOKED,
	                  "the daemon has taken back version %" PRIu64
	                  " of model '%s': throw away what was read and open a newer one",
	                  view->facts.version, view->model);
}

/* Accepts a half-built view. */
static void view_destroy(struct emad_view *view)
{
	safetensors_destroy(view->tensors);
	if (view->map)
		munmap(view->map, view->map_bytes);
	if (view->fd >= 0)
		close(view->fd);
	attach_close(view->connection);
	free(view->model);
	free(view);
}

/* Maps what the answer describes; all of its numbers are checked first. */
static int view_map(struct emad_view *view, const struct reply *reply, struct reason *reason)
{
	const uint64_t needed = REPLY_HAS(fence) | REPLY_HAS(region_offset) | REPLY_HAS(region_bytes);
	struct stat facts;
	uint64_t slot_bytes;
	void *map;

	if ((reply->present & needed) != needed || view->fd < 0)
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer to view lacks %s",
		                  view->fd < 0 ? "a file descriptor" : "fence or region");
	if (fstat(view->fd, &facts) < 0)
		return reason_set(reason, -errno, "the slot: %s", strerrordesc_np(errno));
	slot_bytes = facts.st_size < 0 ? 0 : (uint64_t)facts.st_size;
	if (reply->region_offset < LAYOUT_PAGE_BYTES || reply->region_offset % LAYOUT_PAGE_BYTES ||
	    reply->region_offset > slot_bytes || reply->region_bytes > slot_bytes - reply->region_offset ||
	    reply->region_bytes < 8)
		return reason_set(reason, STATUS_EPROTOCOL,
		                  "the daemon names %" PRIu64 " bytes at %" PRIu64 " of a slot of %" PRIu64,
		                  reply->region_bytes, reply->region_offset, slot_bytes);
	view->region_offset = reply->region_offset;
	view->region_bytes = reply->region_bytes;
	view->fence = reply->fence;
	view->map_bytes = view->region_offset + view->region_bytes;
	map = mmap(NULL, view->map_bytes, PROT_READ, MAP_SHARED, view->fd, 0);
	if (map == MAP_FAILED)
		return reason_set(reason, -errno, "cannot map %" PRIu64 " bytes: %s", view->map_bytes,
		                  strerrordesc_np(errno));
	view->map = map;
	return segment_header_check(&view_slot(view)->segment, SEGMENT_SLOT, slot_bytes, reason);
}

/* Takes the facts out of the slot's page. */
static int facts_take(struct emad_view *view, const struct reply *reply, struct reason *reason)
{
	const struct slot_header *slot = view_slot(view);
	uint64_t index = reply->profile_index;
	uint64_t checksum = slot->checksum, checksum_here = slot_header_checksum(slot);
	uint32_t profile_count = slot->profile_count;
	int code;

	view->facts = (struct emad_view_info){
		.version = atomic_load_explicit(&slot->version, memory_order_acquire),
		.step = slot->step,
		.updates = slot->updates,
		.published_us = slot->published_us,
		.image = view->map + view->region_offset,
		.image_bytes = view->region_bytes,
		.fd = view->fd,
		.fd_offset = view->region_offset,
	};
	if (index < PROFILE_COUNT_MAX) {
		view->facts.updates = slot->profiles[index].updates;
		view->facts.decay = slot->profiles[index].decay;
		view->drift = slot->profiles[index].drift;
	}
	code = view_check(view, reason);
	if (code)
		return code;
	if (checksum != checksum_here || view->facts.version == 0 || profile_count > PROFILE_COUNT_MAX ||
	    index >= profile_count)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the facts of a version of model '%s' are damaged: checksum %016" PRIx64 " stored, %016" PRIx64
		                  " computed, profile %" PRIu64 " of %u",
		                  view->model, checksum, checksum_here, index, profile_count);
	return 0;
}

/* From a daemon that no memory is shared with. */
static int view_copy(struct emad_view *view, struct emad_client *client, const struct request *request,
                     const struct emad_view_options *options, struct reason *reason)
{
	int64_t deadline_ms = client_deadline(client_timeout(client, options->timeout_ms));
	struct remote_image image;
	int code = remote_view_read(client, request, options, deadline_ms, &image, reason);

	if (code)
		return code;
	view->fd = image.fd;
	view->map = image.map;
	view->map_bytes = view->region_bytes = image.facts.image_bytes;
	view->facts = image.facts;
	return 0;
}

static int view_lease(struct emad_view *view, const struct emad_client *client, const struct request *request,
                      int64_t deadline_ms, struct reason *reason)
{
	struct client_answer answer;
	int code;

	code = client_attach_open(client, deadline_ms, &view->connection, reason);
	if (code)
		return code;
	code = client_attach_call(view->connection, request, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0) {
		view->fd = answer.fd;
		answer.fd = -1;
		code = view_map(view, &answer.reply, reason);
	}
	if (code == 0)
		code = facts_take(view, &answer.reply, reason);
	client_answer_finish(&answer);
	return code;
}

/*
 * Parses the image's header, once. It is copied first and the fence looked at between: what is parsed then cannot
 * change any more, and belongs to the version.
 */
static int view_parse(struct emad_view *view, struct reason *reason)
{
	uint8_t first[8], *header;
	uint64_t header_bytes;
	int code;

	if (view->tensors)
		return 0;
	memcpy(first, view->facts.image, sizeof(first));
	code = view_check(view, reason);
	if (code == 0)
		code = safetensors_header_bytes(first, view->region_bytes, &header_bytes, reason);
	if (code)
		return code;
	header = malloc(header_bytes);
	if (!header)
		return -ENOMEM;
	memcpy(header, view->facts.image, header_bytes);
	code = view_check(view, reason);
	if (code == 0)
		code = safetensors_parse(header, header_bytes, view->region_bytes, &view->tensors, reason);
	free(header);
	return code;
}

int view_request(const struct emad_client *client, const char *model, const char *profile,
                 const struct emad_view_options *options, struct request *ret_request, struct reason *reason)
{
	struct request request = {.operation = OP_VIEW};
	int code = client_model_check(model, reason);

	if (code == 0 && profile)
		code = profile_name_check(profile, strlen(profile), reason);
	if (code == 0)
		code = served_check(options->dtype, reason);
	if (code)
		return code;
	request_set(&request, model, text_of(model));
	request_set(&request, client, client->id);
	if (profile)
		request_set(&request, profile, text_of(profile));
	if (options->min_step > 0) {
		request_set(&request, min_step, options->min_step);
		request_set(&request, timeout_ms, (uint64_t)client_timeout(client, options->timeout_ms));
	}
	*ret_request = request;
	return 0;
}

/* Where the memory is shared, what is not wanted is only left out. */
static int view_select(struct emad_view *view, const struct emad_view_options *options, struct reason *reason)
{
	bool *chosen;
	int code = view_parse(view, reason);

	if (code == 0)
		code = selection_create(view->tensors, options->tensors, options->tensor_count, view->model, &chosen, reason);
	if (code)
		return code;
	safetensors_keep(view->tensors, chosen);
	free(chosen);
	return 0;
}

int view_open(struct emad_client *client, const char *model, const char *profile, const struct emad_view_options *options,
              struct emad_view **ret_view, struct reason *reason)
{
	struct request request;
	struct emad_view *view;
	int code = view_request(client, model, profile, options, &request, reason);

	if (code)
		return code;
	view = malloc(sizeof(*view));
	if (!view)
		return -ENOMEM;
	*view = (struct emad_view){.pid = client->pid, .connection = -1, .fd = -1, .served = options->dtype};
	view->model = strdup(model);
	if (!view->model)
		code = -ENOMEM;
	else if (remote_is(client))
		code = view_copy(view, client, &request, options, reason);
	else
		code = view_lease(view, client, &request, client_deadline(client_timeout(client, options->timeout_ms)), reason);
	if (code == 0 && options->tensors && !remote_is(client))
		code = view_select(view, options, reason);
	if (code) {
		view_destroy(view);
		return code;
	}
	*ret_view = view;
	return 0;
}

int emad_view_open_with(struct emad_client *client, const char *model, const char *profile,
                        const struct emad_view_options *options, struct emad_view **ret_view)
{
	static const struct emad_view_options fallback = {.timeout_ms = -1};
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0 && !ret_view)
		code = reason_set(&reason, STATUS_EARGUMENT, "ret_view is NULL");
	if (code == 0)
		code = view_open(client, model, profile, options ? options : &fallback, ret_view, &reason);
	return error_report(code, &reason);
}

int emad_view_open(struct emad_client *client, const char *model, const char *profile, uint64_t min_step,
                   int timeout_ms, struct emad_view **ret_view)
{
	const struct emad_view_options options = {.min_step = min_step, .timeout_ms = timeout_ms};

	return emad_view_open_with(client, model, profile, &options, ret_view);
}

/* Whether the handle can be used here. */
static int view_usable(const struct emad_view *view, struct reason *reason)
{
	if (!view)
		return reason_set(reason, STATUS_EARGUMENT, "the view is NULL");
	return client_process_check(view->pid, reason);
}

void emad_view_close(struct emad_view *view)
{
	struct reason reason;

	if (view && view_usable(view, &reason) == 0)
		view_destroy(view);
}

int emad_view_check(struct emad_view *view)
{
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0)
		code = view_check(view, &reason);
	return error_report(code, &reason);
}

int view_tensors(struct emad_view *view, const struct safetensors **ret_tensors, struct reason *reason)
{
	int code = view_parse(view, reason);

	if (code == 0)
		*ret_tensors = view->tensors;
	return code;
}

void view_facts(const struct emad_view *view, struct emad_view_info *ret_facts)
{
	*ret_facts = view->facts;
}

double view_drift(const struct emad_view *view)
{
	return view->drift;
}

int view_info(struct emad_view *view, struct emad_view_info *ret_info, struct reason *reason)
{
	int code = view_parse(view, reason);

	if (code)
		return code;
	*ret_info = view->facts;
	ret_info->tensor_count = view->tensors->entry_count;
	return 0;
}

int emad_view_info(struct emad_view *view, struct emad_view_info *ret_info)
{
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0 && !ret_info)
		code = reason_set(&reason, STATUS_EARGUMENT, "ret_info is NULL");
	if (code == 0)
		code = view_info(view, ret_info, &reason);
	return error_report(code, &reason);
}

static void view_tensor(const struct emad_view *view, const struct safetensors_entry *entry,
                        struct emad_view_tensor *ret_tensor)
{
	*ret_tensor = (struct emad_view_tensor){
		.name = entry->name,
		.dtype = (enum emad_dtype)entry->dtype,
		.dimension_count = entry->dimension_count,
		.shape = entry->extents,
		.data = view->facts.image + entry->offset,
		.bytes = entry->bytes,
	};
}

/* The entry of an index. */
static int view_entry(struct emad_view *view, uint64_t index, const struct safetensors_entry **ret_entry,
                      struct reason *reason)
{
	int code = view_parse(view, reason);

	if (code)
		return code;
	if (index >= view->tensors->entry_count)
		return reason_set(reason, -ENOENT, "tensor %" PRIu64 " of %u: they count from 0", index,
		                  view->tensors->entry_count);
	*ret_entry = &view->tensors->entries[index];
	return 0;
}

int emad_view_tensor(struct emad_view *view, uint64_t index, struct emad_view_tensor *ret_tensor)
{
	const struct safetensors_entry *entry = NULL;
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0 && !ret_tensor)
		code = reason_set(&reason, STATUS_EARGUMENT, "ret_tensor is NULL");
	if (code == 0)
		code = view_entry(view, index, &entry, &reason);
	if (code == 0)
		view_tensor(view, entry, ret_tensor);
	return error_report(code, &reason);
}

int emad_view_find(struct emad_view *view, const char *name, struct emad_view_tensor *ret_tensor)
{
	const struct safetensors_entry *entry = NULL;
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0 && (!name || !ret_tensor))
		code = reason_set(&reason, STATUS_EARGUMENT, "%s is NULL", name ? "ret_tensor" : "name");
	if (code == 0)
		code = view_parse(view, &reason);
	if (code == 0) {
		entry = safetensors_find(view->tensors, name);
		if (!entry)
			code = reason_set(&reason, -ENOENT, "model '%s' has no tensor '%s' in this profile", view->model, name);
	}
	if (code == 0)
		view_tensor(view, entry, ret_tensor);
	return error_report(code, &reason);
}

static int view_read(struct emad_view *view, const struct safetensors_entry *entry, enum emad_served_dtype served,
                     void *buffer, uint64_t buffer_bytes, struct reason *reason)
{
	const enum dtype dtype = served_dtype(served ? served : view->served, entry->dtype);
	const uint64_t count = entry->bytes / dtype_bytes(entry->dtype);
	uint64_t bytes;

	if (view->served && served && served != view->served)
		return reason_set(reason, STATUS_EARGUMENT, "this view was opened as %s, and is asked for %s: open another one",
		                  dtype_name(served_dtype(view->served, DTYPE_F32)), dtype_name(served_dtype(served, DTYPE_F32)));
	if (__builtin_mul_overflow(count, dtype_bytes(dtype), &bytes) || bytes > buffer_bytes)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "tensor '%.*s' has %" PRIu64 " elements of %" PRIu64
		                  " bytes as %s, the buffer only %" PRIu64 " bytes in all",
		                  sentence_name_bytes(entry->name), entry->name, count, dtype_bytes(dtype),
		                  dtype_name(dtype), buffer_bytes);
	if (count > 0 && !buffer)
		return reason_set(reason, STATUS_EARGUMENT, "buffer is NULL");
	convert_elements(entry->dtype, view->facts.image + entry->offset, dtype, buffer, count);
	return view_check(view, reason);
}

int emad_view_read(struct emad_view *view, uint64_t index, enum emad_served_dtype dtype, void *buffer,
                   uint64_t buffer_bytes)
{
	const struct safetensors_entry *entry = NULL;
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0)
		code = served_check(dtype, &reason);
	if (code == 0)
		code = view_entry(view, index, &entry, &reason);
	if (code == 0)
		code = view_read(view, entry, dtype, buffer, buffer_bytes, &reason);
	return error_report(code, &reason);
}

const char *emad_view_metadata(struct emad_view *view, const char *key)
{
	struct reason reason = {.text = ""};
	int code = view_usable(view, &reason);

	if (code == 0 && !key)
		code = reason_set(&reason, STATUS_EARGUMENT, "key is NULL");
	if (code == 0)
		code = view_parse(view, &reason);
	if (code) {
		error_report(code, &reason);
		return NULL;
	}
	return safetensors_metadata_get(view->tensors, key);
}
