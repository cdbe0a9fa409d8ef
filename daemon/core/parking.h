/*
 * Parking: requests that cannot be answered yet. Their bytes are kept, and each is simply handled again whenever
 * something has changed in the model that it waits for, until it is answered or its deadline passes.
 *
 * Loop thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct call;
struct instant;
struct model;
struct segment_order;
struct service;

void parking_init(struct service *service);
void parking_finish(struct service *service);

/* Keeps a request whose handler has said CALL_PARK. STATUS_EBUSY at a limit, STATUS_ESHUTDOWN, -ENOMEM. */
int parking_park(struct call *call, const uint8_t *header, size_t header_bytes);

/* Handles those again that wait for a model. */
void parking_retry(struct service *service, const struct instant *now, uint64_t model);

/* Those that wait for an order's memory, which cannot be had, are told so. */
void parking_fail(struct service *service, uint64_t model, const struct segment_order *order);

/* A connection has ended. */
void parking_gone(struct service *service, uint64_t peer);

/* Deadlines; and when the next one is: UINT64_MAX for none. */
void parking_tick(struct service *service, const struct instant *now);
uint64_t parking_due_ms(const struct service *service);

/*
 * Forgets a model that no rank has been registered of, when nobody waits for it any more either. Not one that has taken
 * over an average.
 */
void parking_forget(struct service *service, struct model *model);
