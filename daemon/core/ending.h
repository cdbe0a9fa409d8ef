/*
 * The end: what a service that stops still takes, and what it says of what it leaves behind.
 *
 * New work is refused. But where some ranks of a model have pushed a step, the others' snapshots of it are no new work:
 * without them what was accepted is in no average, and gone with the memory where nobody keeps that. They are taken for
 * a moment longer, if those who must push them are there. In a training that goes in step nothing is left over then.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct instant;
struct model;
struct service;

/* From now on, for a moment. */
void ending_begin(struct service *service, const struct instant *now);

/* Whether a snapshot of that rank is still taken. */
bool ending_takes(const struct service *service, const struct model *model, uint32_t rank, uint64_t step);

/* Whether the model may still get a step: its last checkpoint is not written before. */
bool ending_awaits(const struct service *service, const struct model *model);

/* True when the moment is just over: all models have been touched. */
bool ending_settle(struct service *service, const struct instant *now);

/* Tells of every snapshot that was accepted and is in no average. */
void ending_tell(const struct service *service);
