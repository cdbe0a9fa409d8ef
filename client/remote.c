/*
 * Snapshots and images over the network: see remote.h.
 */
#include "client/remote.h"

#include "client/chunks.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
	LEAVE_TIMEOUT_MS = 1000,
	BUSY_PAUSE_MS = 20, /* before asking a daemon again that has no room for the answer */
	READ_ATTEMPTS = 3,  /* at versions that are taken back */
};

bool remote_is(const struct emad_client *client)
{
	return !client->attach_path;
}

/* A call of which nothing but its code and one number is wanted. */
static int call_number(struct emad_client *client, const struct request *request, int64_t deadline_ms,
                       uint64_t *ret_stage_count, struct reason *reason)
{
	struct client_answer answer;
	int code = client_call(client, request, NULL, 0, deadline_ms, &answer, reason);

	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && ret_stage_count)
		*ret_stage_count = answer.reply.stage_count;
	client_answer_finish(&answer);
	return code;
}

/* ---- trainers --------------------------------------------------------------------------------------------------- */

static struct request registration_request(const struct registration *registration, enum operation operation)
{
	struct request request = {.operation = operation};

	request_set(&request, model, text_of(registration->model));
	request_set(&request, rank, registration->rank);
	request_set(&request, epoch, registration->epoch);
	request_set(&request, client, registration->client->id);
	return request;
}

/* Memory for snapshots. Pages of it that are never written take no room. */
static int map_make(const struct registration *registration, uint64_t stage_count, struct stage_map *map,
                    struct reason *reason)
{
	uint64_t stage_bytes = layout_page_round(registration->manifest->stage_bytes);
	uint64_t places = registration->world > 1 ? stage_count : 1, bytes;
	void *memory;

	if (__builtin_mul_overflow(stage_bytes, places, &bytes) ||
	    __builtin_add_overflow(bytes, (uint64_t)LAYOUT_PAGE_BYTES, &bytes))
		return -EOVERFLOW;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return reason_set(reason, -errno, "no %" PRIu64 " bytes of memory for snapshots: %s", bytes,
		                  strerrordesc_np(errno));
	*map = (struct stage_map){
		.bytes = memory,
		.segment_bytes = bytes,
		.stage_count = (uint32_t)stage_count,
		.stage_stride = places > 1 ? stage_bytes : 0,
	};
	return 0;
}

int remote_claim(const struct registration *registration, int64_t deadline_ms, struct stage_map *map,
                 struct reason *reason)
{
	struct request request = registration_request(registration, OP_CLAIM);
	uint64_t stage_count;
	int code = call_number(registration->client, &request, deadline_ms, &stage_count, reason);

	if (code)
		return code;
	if (stage_count < 1 || stage_count > STAGE_COUNT_MAX)
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon has %" PRIu64 " stages for a rank, and 1 to %d are possible",
		                  stage_count, STAGE_COUNT_MAX);
	if (!map->bytes)
		return map_make(registration, stage_count, map, reason);
	if (stage_count != map->stage_count)
		return reason_set(reason, STATUS_EPROTOCOL, "the daemon has %" PRIu64 " stages for a rank that had %" PRIu32,
		                  stage_count, map->stage_count);
	return 0;
}

void remote_leave(const struct registration *registration)
{
	struct request request = registration_request(registration, OP_RELEASE);

	(void)call_number(registration->client, &request, wait_deadline(LEAVE_TIMEOUT_MS), NULL, NULL);
}

static int chunk_send(const struct chunks *chunks, uint64_t offset, uint64_t bytes, int64_t deadline_ms,
                      struct reason *reason)
{
	const struct remote_send *send = chunks->context;
	struct request request = registration_request(send->registration, OP_CHUNK);
	struct client_answer answer;
	int code;

	request_set(&request, sequence, send->sequence);
	request_set(&request, stage, send->stage);
	request_set(&request, offset, offset);
	code = client_call(chunks->client, &request, stage_map_stage(&send->registration->stages.map, send->stage) + offset, bytes,
	                   deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	client_answer_finish(&answer);
	return code;
}

int remote_send(const struct remote_send *send, struct reason *reason)
{
	const struct chunks chunks = {
		.client = send->registration->client,
		.context = (void *)(uintptr_t)send,
		.begin = send->begin - send->begin % CHUNK_BYTES_MAX,
		.end = send->registration->manifest->stage_bytes,
		.deadline_ms = send->deadline_ms,
		.patient = send->patient,
		.move = chunk_send,
	};

	return chunks_move(&chunks, reason);
}

/* ---- views ------------------------------------------------------------------------------------------------------ */

struct reading {
	uint64_t lease;
	uint8_t *image;
};

/* STATUS_EBUSY: other readers have not taken their answers yet. */
static int chunk_ask(const struct chunks *chunks, uint64_t offset, uint64_t bytes, int64_t deadline_ms,
                     struct reason *reason)
{
	const struct reading *reading = chunks->context;
	struct request request = {.operation = OP_FETCH};
	struct client_answer answer;
	int code;

	request_set(&request, lease, reading->lease);
	request_set(&request, offset, offset);
	request_set(&request, count, bytes);
	code = client_call(chunks->client, &request, NULL, 0, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && answer.body_bytes != bytes)
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon sends %zu bytes of an image, asked for were %" PRIu64,
		                  answer.body_bytes, bytes);
	if (code == 0)
		memcpy(reading->image + offset, answer.body, bytes);
	client_answer_finish(&answer);
	return code;
}

static int chunk_fetch(const struct chunks *chunks, uint64_t offset, uint64_t bytes, int64_t deadline_ms,
                       struct reason *reason)
{
	const struct timespec pause = {.tv_nsec = BUSY_PAUSE_MS * 1000000L};
	int code;

	for (;;) {
		code = chunk_ask(chunks, offset, bytes, deadline_ms, reason);
		if (code != STATUS_EBUSY || wait_left_ms(deadline_ms) == 0)
			return code;
		(void)nanosleep(&pause, NULL);
	}
}

static int image_map(struct remote_image *image, struct reason *reason)
{
	void *map;

	image->fd = memfd_create("emad:view", MFD_CLOEXEC);
	if (image->fd < 0 || ftruncate(image->fd, (off_t)image->facts.image_bytes) < 0)
		return reason_set(reason, -errno, "no memory for an image of %" PRIu64 " bytes: %s", image->facts.image_bytes,
		                  strerrordesc_np(errno));
	map = mmap(NULL, image->facts.image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0);
	if (map == MAP_FAILED)
		return reason_set(reason, -errno, "cannot map %" PRIu64 " bytes: %s", image->facts.image_bytes,
		                  strerrordesc_np(errno));
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

static int image_lease(struct emad_client *client, const struct request *request, int64_t deadline_ms,
                       struct remote_image *image, struct reason *reason)
{
	const uint64_t needed = REPLY_HAS(version) | REPLY_HAS(step) | REPLY_HAS(updates) | REPLY_HAS(region_bytes);
	struct client_answer answer;
	int code = client_call(client, request, NULL, 0, deadline_ms, &answer, reason);

	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && ((answer.reply.present & needed) != needed || answer.reply.region_bytes < 8 ||
	                  answer.reply.region_bytes > INT64_MAX))
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer to lease lacks version, step, updates or bytes");
	if (code == 0)
		image->facts = (struct emad_view_info){
			.version = answer.reply.version,
			.step = answer.reply.step,
			.updates = answer.reply.updates,
			.decay = answer.reply.decay,
			.published_us = answer.reply.published_us,
			.image_bytes = answer.reply.region_bytes,
		};
	client_answer_finish(&answer);
	return code;
}

static int image_read(struct emad_client *client, const struct request *view, int64_t deadline_ms,
                      struct remote_image *image, struct reason *reason)
{
	struct request request = *view, release = {.operation = OP_RELEASE};
	struct reading reading = {.lease = 0};
	struct chunks chunks = {.client = client, .context = &reading, .patient = true, .move = chunk_fetch};
	int code;

	while (reading.lease == 0)
		if (getrandom(&reading.lease, sizeof(reading.lease), 0) != sizeof(reading.lease) && errno != EINTR)
			return reason_set(reason, -errno, "no random numbers: %s", strerrordesc_np(errno));
	request.operation = OP_LEASE;
	request_set(&request, lease, reading.lease);
	code = image_lease(client, &request, deadline_ms, image, reason);
	if (code)
		return code;
	code = image_map(image, reason);
	if (code == 0) {
		reading.image = image->map;
		chunks.end = image->facts.image_bytes;
		code = chunks_move(&chunks, reason);
	}
	/* A lease that nobody ends ends by itself. */
	request_set(&release, lease, reading.lease);
	(void)call_number(client, &release, wait_deadline(LEAVE_TIMEOUT_MS), NULL, NULL);
	if (code == 0 && mprotect(image->map, image->facts.image_bytes, PROT_READ) < 0)
		code = -errno;
	return code;
}

int remote_read(struct emad_client *client, const struct request *view, int64_t deadline_ms,
                struct remote_image *ret_image, struct reason *reason)
{
	struct remote_image image;
	int attempt = 0, code;

	do {
		image = (struct remote_image){.fd = -1};
		code = image_read(client, view, deadline_ms, &image, reason);
		if (code)
			image_finish(&image);
	} while (code == STATUS_EREVOKED && ++attempt < READ_ATTEMPTS && wait_left_ms(deadline_ms) > 0);
	if (code)
		return code;
	*ret_image = image;
	return 0;
}
