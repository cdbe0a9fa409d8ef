/*
 * Leases, parts, and images made of parts: see remote_view.h.
 */
#include "client/remote_view.h"

#include "client/chunks.h"
#include "client/gather.h"
#include "client/pages.h"
#include "client/range.h"
#include "client/selection.h"
#include "client/wait.h"
#include "proto/runs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
	RELEASE_TIMEOUT_MS = 1000,
	BUSY_PAUSE_MS = 20, /* before asking a daemon again that has no room for the answer */
	READ_ATTEMPTS = 3,  /* at versions that are taken back */
};

/* ---- a lease ---------------------------------------------------------------------------------------------------- */

/* A leased version. */
struct reading {
	struct emad_client *client; /* borrowed */
	uint64_t lease;
	struct emad_view_info facts; /* image_bytes: of the daemon's image */
	uint64_t header_bytes;       /* of it, without the spaces at the header's end */
};

static int lease_answer(const struct reply *reply, struct reading *reading, struct reason *reason)
{
	const uint64_t needed = REPLY_HAS(version) | REPLY_HAS(step) | REPLY_HAS(updates) | REPLY_HAS(region_bytes) |
				REPLY_HAS(header_bytes);

	if ((reply->present & needed) != needed || reply->region_bytes < SAFETENSORS_SIZE_BYTES ||
	    reply->region_bytes > INT64_MAX || reply->header_bytes < SAFETENSORS_SIZE_BYTES ||
	    reply->header_bytes > reply->region_bytes)
		return reason_set(reason, STATUS_EPROTOCOL,
		                  "the daemon's answer to lease lacks version, step, updates or bytes");
	reading->facts = (struct emad_view_info){
		.version = reply->version,
		.step = reply->step,
		.updates = reply->updates,
		.decay = reply->decay,
		.published_us = reply->published_us,
		.image_bytes = reply->region_bytes,
		.fd = -1,
	};
	reading->header_bytes = reply->header_bytes;
	return 0;
}

static int lease_begin(struct emad_client *client, const struct request *view, int64_t deadline_ms,
                       struct reading *ret_reading, struct reason *reason)
{
	struct reading reading = {.client = client};
	struct request request = *view;
	struct client_answer answer;
	int code;

	while (reading.lease == 0)
		if (getrandom(&reading.lease, sizeof(reading.lease), 0) != sizeof(reading.lease) && errno != EINTR)
			return reason_set(reason, -errno, "no random numbers: %s", strerrordesc_np(errno));
	request.operation = OP_LEASE;
	request_set(&request, lease, reading.lease);
	code = client_call(client, &request, NULL, 0, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0)
		code = lease_answer(&answer.reply, &reading, reason);
	client_answer_finish(&answer);
	if (code == 0)
		*ret_reading = reading;
	return code;
}

/* A lease that nobody ends ends by itself. */
static void lease_end(const struct reading *reading)
{
	struct request request = {.operation = OP_RELEASE};
	struct client_answer answer;

	request_set(&request, lease, reading->lease);
	if (client_call(reading->client, &request, NULL, 0, wait_deadline(RELEASE_TIMEOUT_MS), &answer, NULL) == 0)
		client_answer_finish(&answer);
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

/* What one request fetches of the daemon's image: a chunk at most. */
struct part {
	uint64_t offset, bytes;
	enum dtype wire;       /* in which it travels */
	uint64_t wire_bytes;   /* of which it has so many */
	uint8_t *place;        /* borrowed; where it goes; NULL: it is in the answer */
	const uint8_t *ranges; /* borrowed; the request's body, where it is of several; NULL */
	size_t range_bytes;
};

static int part_ask(const struct reading *reading, const struct part *part, int64_t deadline_ms,
                    struct client_answer *ret_answer, struct reason *reason)
{
	struct request request = {.operation = OP_FETCH};
	const struct client_message message = {.request = &request, .body = part->ranges, .body_bytes = part->range_bytes,
	                                       .place = part->place, .place_bytes = part->wire_bytes};
	struct client_answer answer;
	int code;

	request_set(&request, lease, reading->lease);
	request_set(&request, offset, part->offset);
	request_set(&request, count, part->bytes);
	if (part->wire_bytes != part->bytes)
		request_set(&request, dtype, text_of(dtype_name(part->wire)));
	code = client_exchange(reading->client, &message, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && answer.body_bytes != part->wire_bytes)
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon sends %zu bytes of an image, asked for were %" PRIu64,
		                  answer.body_bytes, part->wire_bytes);
	if (code) {
		client_answer_finish(&answer);
		return code;
	}
	*ret_answer = answer;
	return 0;
}

/* STATUS_EBUSY: other readers have not taken their answers yet, for all of the time. */
static int part_fetch(const struct reading *reading, const struct part *part, int64_t deadline_ms,
                      struct client_answer *ret_answer, struct reason *reason)
{
	const struct timespec pause = {.tv_nsec = BUSY_PAUSE_MS * 1000000L};
	int code;

	for (;;) {
		code = part_ask(reading, part, deadline_ms, ret_answer, reason);
		if (code != STATUS_EBUSY || wait_left_ms(deadline_ms) == 0)
			return code;
		(void)nanosleep(&pause, NULL);
	}
}

/* ---- ranges of bytes -------------------------------------------------------------------------------------------- */

struct ranging {
	const struct reading *reading;
	uint64_t offset, bytes;
	uint8_t *target;
};

static int range_move(const struct chunks *chunks, uint64_t index, int64_t deadline_ms, struct reason *reason)
{
	const struct ranging *ranging = chunks->context;
	const uint64_t at = index * CHUNK_BYTES_MAX, left = ranging->bytes - at;
	struct part part = {.offset = ranging->offset + at, .wire = RUNS_AS_KEPT, .place = ranging->target + at};
	struct client_answer answer;
	int code;

	part.bytes = part.wire_bytes = left < CHUNK_BYTES_MAX ? left : CHUNK_BYTES_MAX;
	code = part_fetch(ranging->reading, &part, deadline_ms, &answer, reason);
	if (code == 0)
		client_answer_finish(&answer);
	return code;
}

static int range_read(const struct reading *reading, uint64_t offset, uint64_t bytes, uint8_t *target,
                      struct reason *reason)
{
	struct ranging ranging = {.reading = reading, .offset = offset, .bytes = bytes, .target = target};
	const struct chunks chunks = {
		.client = reading->client,
		.context = &ranging,
		.end = chunks_count(bytes),
		.bytes = bytes,
		.patient = true,
		.move = range_move,
	};

	return chunks_move(&chunks, reason);
}

/* ---- images ----------------------------------------------------------------------------------------------------- */

static int image_map(struct remote_image *image, uint64_t bytes, struct reason *reason)
{
	void *map;

	image->facts.image_bytes = bytes;
	image->fd = memfd_create("emad:view", MFD_CLOEXEC);
	if (image->fd < 0 || ftruncate(image->fd, (off_t)bytes) < 0)
		return reason_set(reason, -errno, "no memory for an image of %" PRIu64 " bytes: %s", bytes,
		                  strerrordesc_np(errno));
	map = mmap(pages_place(bytes), bytes, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0);
	if (map == MAP_FAILED)
		return reason_set(reason, -errno, "cannot map %" PRIu64 " bytes: %s", bytes, strerrordesc_np(errno));
	image->map = map;
	image->facts.image = map;
	image->facts.fd = image->fd;
	return 0;
}

static void image_finish(struct remote_image *image)
{
	if (image->map)
		munmap(image->map, image->facts.image_bytes);
	if (image->fd >= 0)
		close(image->fd);
}

/* All of it, as it is. */
static int image_copy(const struct reading *reading, struct remote_image *image, struct reason *reason)
{
	struct pages pages;
	int code = image_map(image, reading->facts.image_bytes, reason);

	if (code)
		return code;
	pages_begin(&pages, image->map, image->facts.image_bytes);
	code = range_read(reading, 0, image->facts.image_bytes, image->map, reason);
	pages_end(&pages);
	return code;
}

/* ---- images made of parts --------------------------------------------------------------------------------------- */

struct gathering {
	const struct reading *reading;
	const struct gather *gather;
	uint8_t *file; /* the image that is made */
};

/* Parses the header; `used` is what there is of it in front of the spaces. */
static int header_parse(const struct reading *reading, const uint8_t *used, struct safetensors **ret_tensors,
                        struct reason *reason)
{
	uint64_t bytes;
	uint8_t *header;
	int code = safetensors_header_bytes(used, reading->facts.image_bytes, &bytes, reason);

	if (code)
		return code;
	if (bytes < reading->header_bytes)
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon says that an image's header has %" PRIu64
		                  " bytes, it has %" PRIu64, reading->header_bytes, bytes);
	header = malloc(bytes);
	if (!header)
		return -ENOMEM;
	memcpy(header, used, reading->header_bytes);
	memset(header + reading->header_bytes, ' ', bytes - reading->header_bytes);
	code = safetensors_parse(header, bytes, reading->facts.image_bytes, ret_tensors, reason);
	free(header);
	return code;
}

static int header_fetch(const struct reading *reading, struct safetensors **ret_tensors, struct reason *reason)
{
	uint8_t *used = malloc(reading->header_bytes);
	int code;

	if (!used)
		return -ENOMEM;
	code = range_read(reading, 0, reading->header_bytes, used, reason);
	if (code == 0)
		code = header_parse(reading, used, ret_tensors, reason);
	free(used);
	return code;
}

static int part_move(const struct chunks *chunks, uint64_t index, int64_t deadline_ms, struct reason *reason)
{
	const struct gathering *gathering = chunks->context;
	const struct gather *gather = gathering->gather;
	const struct gather_part *gathered = &gather->parts[index];
	uint8_t ranges[FETCH_RANGE_COUNT_MAX * FETCH_RANGE_BYTES];
	struct part part = {.bytes = gathered->bytes, .wire = gather->wire, .wire_bytes = gathered->wire_bytes};
	struct client_answer answer;
	int code;

	if (gathered->count == 1) {
		part.offset = gather->spans[gathered->first].offset;
	} else {
		part.ranges = ranges;
		part.range_bytes = gather_ranges(gather, gathered, ranges);
	}
	code = part_fetch(gathering->reading, &part, deadline_ms, &answer, reason);
	if (code)
		return code;
	gather_spread(gather, gathered, answer.body, gathering->file);
	client_answer_finish(&answer);
	return 0;
}

static int parts_fetch(const struct reading *reading, const struct gather *gather, struct remote_image *image,
                       struct reason *reason)
{
	struct gathering gathering = {.reading = reading, .gather = gather};
	struct chunks chunks = {
		.client = reading->client,
		.context = &gathering,
		.end = gather->count,
		.patient = true,
		.move = part_move,
	};
	struct pages pages;
	int code = image_map(image, gather->recast->file_bytes, reason);

	if (code)
		return code;
	pages_begin(&pages, image->map, image->facts.image_bytes);
	memcpy(image->map, gather->recast->header, gather->recast->header_bytes);
	gathering.file = image->map;
	for (uint64_t i = 0; i < gather->count; i++)
		chunks.bytes += gather->parts[i].wire_bytes;
	code = chunks_move(&chunks, reason);
	pages_end(&pages);
	return code;
}

static int image_gather(const struct reading *reading, const char *model, const struct emad_view_options *options,
                        struct remote_image *image, struct reason *reason)
{
	struct gather gather = {.tensors = NULL};
	struct safetensors *tensors = NULL;
	bool *chosen = NULL;
	int code = header_fetch(reading, &tensors, reason);

	if (code == 0 && options->tensors)
		code = selection_create(tensors, options->tensors, options->tensor_count, model, &chosen, reason);
	if (code == 0)
		code = gather_plan(tensors, options->dtype, chosen, &gather, reason);
	if (code == 0)
		code = parts_fetch(reading, &gather, image, reason);
	gather_finish(&gather);
	free(chosen);
	safetensors_destroy(tensors);
	return code;
}

static int image_read(struct emad_client *client, const struct request *view, const struct emad_view_options *options,
                      int64_t deadline_ms, struct remote_image *image, struct reason *reason)
{
	char model[MODEL_NAME_BYTES_MAX + 1];
	struct reading reading;
	int code = lease_begin(client, view, deadline_ms, &reading, reason);

	if (code)
		return code;
	image->facts = reading.facts;
	client_text_copy(view->model, model, sizeof(model));
	code = options->tensors || options->dtype != EMAD_DTYPE_KEPT
		       ? image_gather(&reading, model, options, image, reason)
		       : image_copy(&reading, image, reason);
	lease_end(&reading);
	if (code == 0 && mprotect(image->map, image->facts.image_bytes, PROT_READ) < 0)
		code = -errno;
	return code;
}

int remote_view_read(struct emad_client *client, const struct request *view, const struct emad_view_options *options,
                     int64_t deadline_ms, struct remote_image *ret_image, struct reason *reason)
{
	struct remote_image image;
	int attempt = 0, code;

	do {
		image = (struct remote_image){.fd = -1};
		code = image_read(client, view, options, deadline_ms, &image, reason);
		if (code)
			image_finish(&image);
	} while (code == STATUS_EREVOKED && ++attempt < READ_ATTEMPTS && wait_left_ms(deadline_ms) > 0);
	if (code)
		return code;
	*ret_image = image;
	return 0;
}

int remote_view_range(struct emad_client *client, const struct request *view, const struct emad_range *range,
                      int64_t deadline_ms, struct emad_view_info *ret_facts, struct reason *reason)
{
	struct reading reading;
	int attempt = 0, code;

	do {
		code = lease_begin(client, view, deadline_ms, &reading, reason);
		if (code)
			return code;
		code = range_check(range, reading.facts.image_bytes, reason);
		if (code == 0)
			code = range_read(&reading, range->offset, range->bytes, range->buffer, reason);
		lease_end(&reading);
	} while (code == STATUS_EREVOKED && ++attempt < READ_ATTEMPTS && wait_left_ms(deadline_ms) > 0);
	if (code == 0)
		*ret_facts = reading.facts;
	return code;
}
