/*
 * The list of parked requests, oldest first. See parking.h.
 */
#include "daemon/core/parking.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"

enum { SPARE_BYTES = 512 }; /* of a waiting request whose node is kept for the next one */

void parking_init(struct service *service)
{
	service->parked_end = &service->parked;
	service->parked_due_ms = UINT64_MAX;
}

void parking_finish(struct service *service)
{
	while (service->parked) {
		struct parked *next = service->parked->next;

		free(service->parked);
		service->parked = next;
	}
	free(service->parked_spare);
}

/* A node with that much room, or NULL. */
static struct parked *node_make(struct service *service, size_t bytes)
{
	struct parked *parked = service->parked_spare;
	size_t capacity = bytes > SPARE_BYTES ? bytes : SPARE_BYTES;

	if (parked && bytes <= parked->capacity)
		service->parked_spare = NULL;
	else
		parked = malloc(sizeof *parked + capacity);
	if (parked)
		*parked = (struct parked){ .capacity = capacity };
	return parked;
}

static void node_free(struct service *service, struct parked *parked)
{
	if (!service->parked_spare && parked->capacity == SPARE_BYTES)
		service->parked_spare = parked;
	else
		free(parked);
}

static uint64_t deadline_of(const struct service *service, const struct call *call, const struct request *request)
{
	uint64_t wait_ms = service->settings.wait_max_ms;

	if (request->present & REQUEST_HAS(timeout_ms) && request->timeout_ms < wait_ms)
		wait_ms = request->timeout_ms;
	return call->now->monotonic_ms + wait_ms;
}

/* What is still worth waiting for when the service stops: that accepted snapshots are decided. */
static bool waits_for_work(enum operation operation)
{
	return operation == OP_PUSH || operation == OP_FLUSH;
}

int parking_park(struct call *call, const uint8_t *header, size_t header_bytes)
{
	struct service *service = call->service;
	struct parked *parked;
	struct request request;
	int result;

	if (service->parked_count >= service->settings.parked_count_max)
		return reason_set(&call->reason, STATUS_EBUSY, "%" PRIu64 " requests wait already, and %" PRIu64
		                  " (waiting-max) may: try again later", service->parked_count,
		                  service->settings.parked_count_max);
	if (header_bytes + call->body_bytes + service->parked_bytes > service->settings.parked_bytes_max)
		return reason_set(&call->reason, STATUS_EBUSY, "a request of %zu bytes cannot wait: requests of %" PRIu64
		                  " bytes wait already, and %" PRIu64 " (waiting-memory-max) may: try again later",
		                  header_bytes + call->body_bytes, service->parked_bytes, service->settings.parked_bytes_max);
	result = request_decode(service->unpacked, header, header_bytes, &request, &call->reason);
	if (!result && service->stopping && !waits_for_work(request.operation))
		result = reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	if (result)
		return result;
	parked = node_make(service, header_bytes + call->body_bytes);
	if (!parked)
		return -ENOMEM;
	memcpy(parked->bytes, header, header_bytes);
	if (call->body_bytes > 0)
		memcpy(parked->bytes + header_bytes, call->body, call->body_bytes);
	parked->header_bytes = header_bytes;
	parked->body_bytes = call->body_bytes;
	parked->exchange = *call->exchange;
	parked->model = call->waits->id;
	parked->attach_epoch = request.operation == OP_ATTACH || request.operation == OP_CLAIM ? request.epoch : 0;
	parked->wants_profiles = request.operation == OP_PROFILE_SET || request.operation == OP_PROFILE_REMOVE ||
	                         (request.operation == OP_REGISTER && request.present & REQUEST_HAS(resume) &&
	                          text_equal(request.resume, "adapt"));
	parked->deadline_ms = deadline_of(service, call, &request);
	parked->operation = request.operation;
	parked->awaited = call->awaited;
	*service->parked_end = parked;
	service->parked_end = &parked->next;
	service->parked_count++;
	if (parked->deadline_ms < service->parked_due_ms)
		service->parked_due_ms = parked->deadline_ms;
	service->parked_bytes += header_bytes + call->body_bytes;
	return 0;
}

/* Takes the parked request out of the list and frees it. */
static void unpark(struct service *service, struct parked **link)
{
	struct parked *parked = *link;
	struct model *model = parked->awaited ? service_model(service, parked->model) : NULL;

	/* What was held for it is let go. */
	if (model)
		service_touch(service, model);

	*link = parked->next;
	if (service->parked_end == &parked->next)
		service->parked_end = link;
	service->parked_count--;
	service->parked_bytes -= parked->header_bytes + parked->body_bytes;
	node_free(service, parked);
}

bool service_awaited(const struct service *service, uint64_t awaited)
{
	for (const struct parked *parked = service->parked; parked; parked = parked->next)
		if (parked->awaited == awaited)
			return true;
	return false;
}

void parking_forget(struct service *service, struct model *model)
{
	if (versions_newest(&model->versions))
		return;
	for (uint32_t r = 0; model->serving && r < model->world; r++)
		if (model->records[r].epoch != 0)
			return;
	for (const struct parked *parked = service->parked; parked; parked = parked->next)
		if (parked->model == model->id)
			return;
	service_doom(service, model);
}

/* Handles a parked request again; true when it has been answered and is gone. */
static bool retry(struct service *service, const struct instant *now, struct parked **link)
{
	struct parked *parked = *link;
	struct model *model = service_model(service, parked->model);
	struct call call = {
		.service = service,
		.now = now,
		.body = parked->bytes + parked->header_bytes,
		.body_bytes = parked->body_bytes,
		.exchange = &parked->exchange,
		.expired = parked->deadline_ms <= now->monotonic_ms,
		.retried = true,
		.awaited = parked->awaited,
	};

	if (call_handle(&call, parked->bytes, parked->header_bytes) == CALL_PARK) {
		bool ends = service->stopping && !waits_for_work(parked->operation);
		int error = ends ? STATUS_ESHUTDOWN : STATUS_ETIMEOUT;

		if (!call.expired && !ends) {
			parked->model = call.waits->id;
			parked->awaited = call.awaited;
			return false;
		}
		reason_set(&call.reason, error, ends ? "the daemon is shutting down"
		                                     : "the daemon had no answer within the time given");
		call_fail(service, &parked->exchange, error, &call.reason);
	}
	unpark(service, link);
	if (model)
		parking_forget(service, model);
	return true;
}

void parking_retry(struct service *service, const struct instant *now, uint64_t model)
{
	struct parked **link = &service->parked;

	while (*link)
		if ((*link)->model != model || !retry(service, now, link))
			link = &(*link)->next;
}

void parking_fail(struct service *service, uint64_t model, const struct segment_order *order)
{
	struct parked **link = &service->parked;

	while (*link) {
		if ((*link)->model != model || (order->epoch != 0 && (*link)->attach_epoch != order->epoch) ||
		    (order->relays && !(*link)->wants_profiles)) {
			link = &(*link)->next;
			continue;
		}
		call_fail(service, &(*link)->exchange, order->status, &order->reason);
		unpark(service, link);
	}
}

void parking_gone(struct service *service, uint64_t peer)
{
	struct parked **link = &service->parked;

	while (*link) {
		if ((*link)->exchange.peer.id == peer)
			unpark(service, link);
		else
			link = &(*link)->next;
	}
}

void parking_tick(struct service *service, const struct instant *now)
{
	struct parked **link = &service->parked;

	if (service->parked_due_ms > now->monotonic_ms)
		return;
	while (*link)
		if ((*link)->deadline_ms > now->monotonic_ms || !retry(service, now, link))
			link = &(*link)->next;
	service->parked_due_ms = UINT64_MAX;
	for (const struct parked *parked = service->parked; parked; parked = parked->next)
		if (parked->deadline_ms < service->parked_due_ms)
			service->parked_due_ms = parked->deadline_ms;
}

uint64_t parking_due_ms(const struct service *service)
{
	return service->parked_count > 0 ? service->parked_due_ms : UINT64_MAX;
}
