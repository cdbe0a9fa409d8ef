/*
 * What comes in from outside: requests, departures, time, other settings and the end. See service.h.
 *
 * Every entry point passes on to those whose noun it is, and settles. What the host has fulfilled comes in at
 * service_memory.c, service_updates.c and service_files.c; requests are in call.c and parking.c, the operations in
 * register.c, push.c, query.c and others.
 */
#include "daemon/core/service.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/core/call.h"
#include "daemon/core/ending.h"
#include "daemon/core/inquiry.h"
#include "daemon/core/loan.h"
#include "daemon/core/parking.h"
#include "daemon/core/remote.h"

int service_create(const struct host *host, const struct settings *settings, const struct service_facts *facts,
                   struct service **ret_service)
{
	struct service *service = calloc(1, sizeof *service);

	if (!service)
		return -ENOMEM;
	if (unpacked_create(&service->unpacked) != 0) {
		free(service);
		return -ENOMEM;
	}
	service->host = *host;
	service->settings = *settings;
	service->facts = *facts;
	parking_init(service);
	service->touched_end = &service->touched;
	service->instance = host->random(host->context) >> 1; /* JSON's integers are signed */
	service->model_id_next = 1;
	service->epoch_next = 1;
	*ret_service = service;
	return 0;
}

void service_destroy(struct service *service)
{
	if (!service)
		return;
	parking_finish(service);
	while (service->models) {
		struct model *next = service->models->next;

		model_destroy(service->models, &service->host);
		service->models = next;
	}
	loan_finish(service);
	recover_finish(service);
	inquiry_finish(service);
	unpacked_destroy(service->unpacked);
	free(service);
}

struct counters *service_counters(struct service *service)
{
	return &service->counters;
}

void service_request(struct service *service, const struct instant *now, const struct exchange *exchange,
                     const uint8_t *header, size_t header_bytes, const uint8_t *body, size_t body_bytes)
{
	struct call call = {
		.service = service,
		.now = now,
		.body = body,
		.body_bytes = body_bytes,
		.exchange = exchange,
	};

	service->counters.requests++;
	if (call_handle(&call, header, header_bytes) == CALL_PARK) {
		int error = parking_park(&call, header, header_bytes);

		if (error) {
			call_fail(service, exchange, error, &call.reason);
			parking_forget(service, call.waits);
		}
	}
	service_settle(service, now);
}

void service_peer_gone(struct service *service, const struct instant *now, uint64_t peer)
{
	parking_gone(service, peer);
	for (struct model *model = service->models; model; model = model->next) {
		if (versions_release(&model->versions, peer) > 0)
			service_touch(service, model);
		for (uint32_t r = 0; r < model->world; r++) {
			if (model->ranks[r].attached_peer != peer)
				continue;
			if (model->ranks[r].is_remote) {
				remote_gone(service, now, &model->ranks[r]);
				continue;
			}
			model->ranks[r].attached_peer = 0;
			service_touch(service, model);
		}
		parking_forget(service, model);
	}
	service_settle(service, now);
}

void service_tick(struct service *service, const struct instant *now)
{
	parking_tick(service, now);
	remote_tick(service, now);
	for (struct model *model = service->models; model; model = model->next)
		if ((model->room_due_ms != 0 && model->room_due_ms <= now->monotonic_ms) ||
		    checkpoint_due_ms(service, model) <= now->monotonic_ms)
			service_touch(service, model);
	if (service->awaited_due_ms != 0 && service->awaited_due_ms <= now->monotonic_ms) {
		service->awaited_due_ms = 0;
		service_peer_gone(service, now, PEER_AWAITED);
	}
	service_settle(service, now);
}

uint64_t service_due_ms(const struct service *service)
{
	uint64_t due_ms = remote_due_ms(service), parked_ms = parking_due_ms(service);

	if (service->awaited_due_ms != 0 && service->awaited_due_ms < due_ms)
		due_ms = service->awaited_due_ms;
	if (parked_ms < due_ms)
		due_ms = parked_ms;
	if (service->lingers && service->linger_due_ms < due_ms)
		due_ms = service->linger_due_ms;
	for (const struct model *model = service->models; model; model = model->next) {
		uint64_t checkpoint_ms = checkpoint_due_ms(service, model);

		if (model->room_due_ms != 0 && model->room_due_ms < due_ms)
			due_ms = model->room_due_ms;
		if (checkpoint_ms < due_ms)
			due_ms = checkpoint_ms;
	}
	return due_ms;
}

void service_reconfigure(struct service *service, const struct instant *now, const struct settings *settings)
{
	service->settings = *settings;
	if (service->stopping)
		service->settings.lease_min_ms = 0;
	/* An update that waits for a reader may have to wait less long now. */
	for (struct model *model = service->models; model; model = model->next)
		service_touch(service, model);
	service_limits_warn(service);
	service_settle(service, now);
}

void service_stop(struct service *service, const struct instant *now)
{
	service->stopping = true;
	ending_begin(service, now);
	service->settings.lease_min_ms = 0; /* what was accepted must not wait for readers any more */
	for (struct model *model = service->models; model; model = model->next)
		service_touch(service, model);
	service_settle(service, now);
}

bool service_idle(const struct service *service)
{
	for (const struct model *model = service->models; model; model = model->next)
		if (model->applying || keep_busy(model) || model->room_due_ms != 0 ||
		    checkpoint_owed(service, model))
			return false;
	return service->stray_count == 0 && !service->lingers;
}

void service_leave(const struct service *service)
{
	ending_tell(service);
}

bool service_checkpointing(const struct service *service)
{
	for (const struct model *model = service->models; model; model = model->next)
		if (checkpoint_owed(service, model))
			return true;
	return false;
}

int service_recover(struct service *service, const struct instant *now)
{
	return recover_begin(service, now);
}

bool service_recovering(const struct service *service)
{
	return service->recovery.running;
}

int service_recovery_error(const struct service *service)
{
	return service->recovery.error;
}
