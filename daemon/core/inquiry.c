/*
 * Orders and their requests. See inquiry.h.
 */
#include "daemon/core/inquiry.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/core/report.h"

static void order_free(struct file_order *order)
{
	free(order->listing);
	free(order);
}

void inquiry_done(struct service *service, struct file_order *order)
{
	order->next = service->inquiries;
	service->inquiries = order;
}

void inquiry_sweep(struct service *service)
{
	inquiry_finish(service);
}

void inquiry_finish(struct service *service)
{
	while (service->inquiries) {
		struct file_order *next = service->inquiries->next;

		order_free(service->inquiries);
		service->inquiries = next;
	}
}

/* The order of a request that is back, or NULL. */
static const struct file_order *answer_find(const struct call *call)
{
	for (const struct file_order *order = call->service->inquiries; order; order = order->next)
		if (order->ask == call->awaited)
			return order;
	return NULL;
}

/* Whether the request has been here before: then its order is on its way. */
static bool has_asked(const struct call *call)
{
	return call->awaited != 0;
}

static int ask(struct call *call, struct model *model, struct file_order *order)
{
	order->model = model->id;
	order->wall_us = call->now->wall_us;
	order->ask = call->awaited = ++call->service->asks;
	generation_directory_write(model->name, order->directory);
	call->service->stray_count++;
	call->service->host.file_write(call->service->host.context, order);
	call->waits = model;
	return CALL_PARK;
}

static int no_place(struct call *call)
{
	return reason_set(&call->reason, STATUS_EARGUMENT,
	                  "this daemon has no directory for checkpoints: start emad with --state-dir DIR (or "
	                  "state-dir=DIR in emad.conf)");
}

static int disk_failed(struct call *call, const struct file_order *order)
{
	return reason_set(&call->reason, order->status, "%s",
	                  order->reason.text[0] ? order->reason.text : status_text(order->status));
}

/* ---- history ----------------------------------------------------------------------------------------------------- */

static int history_reply(struct call *call, const struct model *model, const struct file_order *order)
{
	char *json = report_history(call->service, model, order);
	struct attachment attachment = { .body = json, .body_bytes = json ? strlen(json) : 0, .fd = -1 };
	struct reply reply = { 0 };

	if (!json)
		return -ENOMEM;
	call_reply(call, &reply, &attachment);
	free(json);
	return 0;
}

static int history_ask(struct call *call, struct model *model)
{
	struct file_order *order = calloc(1, sizeof *order);
	char directory[KEEP_DIRECTORY_BYTES_MAX];

	if (!order)
		return -ENOMEM;
	order->work = FILE_LIST;
	keep_directory(model, directory);
	order->count = model->geometry->profile_count;
	for (uint32_t p = 0; p < order->count; p++) {
		const char *name = model->geometry->profiles[p].name;

		strcpy(order->items[p].profile, name);
		snprintf(order->items[p].directory, sizeof order->items[p].directory, "%s/%s", directory, name);
	}
	return ask(call, model, order);
}

int history_handle(struct call *call)
{
	const struct file_order *order;
	struct model *model;
	int error = call_model(call, &model);

	if (error)
		return error;
	if (!checkpoint_possible(call->service))
		return history_reply(call, model, NULL);
	if (!has_asked(call))
		return history_ask(call, model);
	order = answer_find(call);
	if (!order) {
		call->waits = model;
		return CALL_PARK;
	}
	return order->status ? disk_failed(call, order) : history_reply(call, model, order);
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

static int mark_ask(struct call *call, struct model *model)
{
	struct file_order *order = calloc(1, sizeof *order);

	if (!order)
		return -ENOMEM;
	order->work = FILE_MARK;
	order->step = call->request->step;
	order->marks = call->request->keep;
	return ask(call, model, order);
}

int checkpoint_keep_handle(struct call *call)
{
	const struct file_order *order;
	struct reply reply = { 0 };
	struct model *model;
	int error = call_model(call, &model);

	if (!error && !checkpoint_possible(call->service))
		error = no_place(call);
	if (error)
		return error;
	if (!has_asked(call))
		return mark_ask(call, model);
	order = answer_find(call);
	if (!order) {
		call->waits = model;
		return CALL_PARK;
	}
	if (order->status == STATUS_ENOVERSION)
		return reason_set(&call->reason, order->status,
		                  "'%s' has no checkpoint of step %" PRIu64 ": on disk is %s", model->name,
		                  call->request->step, order->reason.text);
	if (order->status)
		return disk_failed(call, order);
	reply_set(&reply, step, order->generation.step);
	reply_set(&reply, version, order->generation.version);
	call_reply(call, &reply, NULL);
	return 0;
}
