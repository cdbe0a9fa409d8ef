/*
 * Claims and snapshots over the network: see remote.h.
 */
#include "client/remote.h"

#include "client/chunks.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LEAVE_TIMEOUT_MS = 1000 };

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

static int chunk_send(const struct chunks *chunks, uint64_t index, int64_t deadline_ms, struct reason *reason)
{
	const struct remote_send *send = chunks->context;
	const uint64_t offset = index * CHUNK_BYTES_MAX, left = send->registration->manifest->stage_bytes - offset;
	const uint64_t bytes = left < CHUNK_BYTES_MAX ? left : CHUNK_BYTES_MAX;
	const struct runs *runs = &send->registration->manifest->runs;
	const uint8_t *body = stage_map_stage(&send->registration->stages.map, send->stage) + offset;
	const uint64_t body_bytes = runs_wire_bytes(runs, send->wire, offset, bytes);
	struct request request = registration_request(send->registration, OP_CHUNK);
	uint8_t *narrow = NULL;
	struct client_answer answer;
	int code;

	request_set(&request, sequence, send->sequence);
	request_set(&request, stage, send->stage);
	request_set(&request, offset, offset);
	if (send->wire != RUNS_AS_KEPT)
		request_set(&request, dtype, text_of(dtype_name(send->wire)));
	if (body_bytes != bytes) {
		narrow = malloc(body_bytes);
		if (!narrow)
			return -ENOMEM;
		runs_narrow(runs, send->wire, offset, bytes, body, narrow);
		body = narrow;
	}
	code = client_call(chunks->client, &request, body, body_bytes, deadline_ms, &answer, reason);
	free(narrow);
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
		.begin = send->begin / CHUNK_BYTES_MAX,
		.end = chunks_count(send->registration->manifest->stage_bytes),
		.bytes = send->registration->manifest->stage_bytes,
		.deadline_ms = send->deadline_ms,
		.patient = send->patient,
		.move = chunk_send,
	};

	return chunks_move(&chunks, reason);
}
