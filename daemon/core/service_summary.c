/*
 * The line in which the service says how it is. See service.h.
 */
#include "daemon/core/service_state.h"

#include <inttypes.h>
#include <stdio.h>

#include "daemon/core/checkpoint.h"

/* "1.5 GiB" */
static void memory_text(uint64_t bytes, char *text, size_t text_capacity)
{
	const double mebi = 1048576.0;

	if ((double)bytes < 1024 * mebi)
		snprintf(text, text_capacity, "%.1f MiB", (double)bytes / mebi);
	else
		snprintf(text, text_capacity, "%.1f GiB", (double)bytes / mebi / 1024);
}

/* "12 s", "5 min", "3 h", "9 d": whole ones of the largest unit that makes two at least. */
static void age_text(uint64_t age_ms, char *text, size_t text_capacity)
{
	static const struct {
		uint64_t ms;
		const char *name;
	} units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "min" }, { 1000, "s" } };
	size_t u = 0;

	while (u < sizeof units / sizeof units[0] - 1 && age_ms < 2 * units[u].ms)
		u++;
	snprintf(text, text_capacity, "%" PRIu64 " %s", age_ms / units[u].ms, units[u].name);
}

void service_summary(const struct service *service, const struct instant *now, char *text, size_t text_capacity)
{
	const struct checkpoint_news news = checkpoint_news(service);
	uint64_t count = 0, step = 0;
	uint32_t lag = 0;
	char memory[32], age[32];
	int bytes;

	for (const struct model *model = service->models; model; model = model->next) {
		const uint64_t *newest = model->doomed ? NULL : model_newest_step(model);

		count += !model->doomed && !model->ancestor;
		if (newest && *newest > step)
			step = *newest;
		if (model_lag(model) > lag)
			lag = model_lag(model);
	}
	memory_text(service_memory_bytes(service), memory, sizeof memory);
	bytes = snprintf(text, text_capacity, "%" PRIu64 " model%s, step %" PRIu64 ", lag %" PRIu32 ", %s", count,
	                 count == 1 ? "" : "s", step, lag, memory);
	if (bytes < 0 || (size_t)bytes >= text_capacity)
		return;
	if (news.failing) {
		snprintf(text + bytes, text_capacity - (size_t)bytes, ", checkpoint of %s failing: %s", news.failing->name,
		         news.failing->checkpoint.error.text);
	} else if (news.latest) {
		age_text(now->monotonic_ms - news.latest->checkpoint.since_ms, age, sizeof age);
		snprintf(text + bytes, text_capacity - (size_t)bytes, ", checkpoint %s ago", age);
	}
}
