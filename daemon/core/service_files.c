/*
 * Files that the host has written: whose order it was, and who goes on now.
 */
#include "daemon/core/service_state.h"

#include <stdlib.h>

#include "daemon/core/checkpoint.h"
#include "daemon/core/inquiry.h"
#include "daemon/core/keep.h"
#include "daemon/core/restore.h"

/* Orders that belong to a model: it is there for as long as they are with the host. */
static void model_file_written(struct service *service, const struct instant *now, struct file_order *order)
{
	struct model *model = service_model(service, order->model);

	if (order->work == FILE_KEEP) {
		keep_written(service, now, model);
	} else if (order->work == FILE_CHECKPOINT || order->work == FILE_FACTS) {
		checkpoint_written(service, now, model);
		keep_resume(service, now, model);
	} else {
		restore_written(service, now, model);
		keep_resume(service, now, model);
	}
	service_touch(service, model);
}

/* Orders that belong to none: a model that they are about may be gone. */
static void stray_file_written(struct service *service, struct file_order *order)
{
	struct model *model = service_model(service, order->model);

	service->stray_count--;
	if (model)
		service_touch(service, model);
	if (order->work == FILE_LIST || order->work == FILE_MARK) {
		inquiry_done(service, order);
		return;
	}
	if (order->work == FILE_BACK)
		keep_went_back(service, model, order);
	else
		checkpoint_discarded(service, model, order);
	free(order);
}

void service_file_written(struct service *service, const struct instant *now, struct file_order *order)
{
	switch (order->work) {
	case FILE_FIND:
	case FILE_BAD:
		recover_done(service, now);
		break;
	case FILE_FILL:
		if (order == service->recovery.order)
			recover_done(service, now);
		else
			model_file_written(service, now, order);
		break;
	case FILE_KEEP:
	case FILE_CHECKPOINT:
	case FILE_FACTS:
	case FILE_SEEK:
		model_file_written(service, now, order);
		break;
	case FILE_DISCARD:
	case FILE_BACK:
	case FILE_LIST:
	case FILE_MARK:
		stray_file_written(service, order);
		break;
	}
	service_settle(service, now);
	inquiry_sweep(service);
}
