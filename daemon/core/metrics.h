/*
 * Metrics: the counters of proto/counters.h, and what is known of each model and profile, as text for Prometheus.
 *
 * Two formats: OpenMetrics 1.0, and the older text format 0.0.4 that everything reads. Names and units are by the
 * conventions of Prometheus: base units last, `_total` for what only grows, times as seconds since 1970 rather than
 * ages (an age is `time() - x`), and no sample where there is no value.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/host.h"

struct service;

enum { METRICS_BUCKET_COUNT = 12 };

/* How long updates took: counted by upper bounds, the last without one. */
struct metrics_times {
	uint64_t counts[METRICS_BUCKET_COUNT + 1];
	uint64_t sum_us;
};

void metrics_time_add(struct metrics_times *times, uint64_t time_us);

#define METRICS_TYPE_OPEN "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define METRICS_TYPE_TEXT "text/plain; version=0.0.4; charset=utf-8"

/* Freed with free(); NULL: there is no memory. */
char *metrics_text(const struct service *service, const struct instant *now, bool open);
