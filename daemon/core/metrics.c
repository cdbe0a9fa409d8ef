/*
 * Tables of what is shown, and the writing of both formats. See metrics.h.
 */
#include "daemon/core/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/core/kernel.h"
#include "daemon/core/owner.h"

static const struct {
	uint64_t most_us;
	const char *le; /* seconds, as OpenMetrics wants them */
} buckets[METRICS_BUCKET_COUNT] = {
	{ 100, "0.0001" }, { 300, "0.0003" }, { 1000, "0.001" },   { 3000, "0.003" },   { 10000, "0.01" },
	{ 30000, "0.03" }, { 100000, "0.1" }, { 300000, "0.3" },   { 1000000, "1.0" },  { 3000000, "3.0" },
	{ 10000000, "10.0" }, { 30000000, "30.0" },
};

enum kind { GAUGE, COUNTER, HISTOGRAM, INFO };

/* What is written to. */
struct page {
	FILE *file;
	bool open; /* OpenMetrics */
	const char *name;
	enum kind kind;
};

struct model_metric {
	enum kind kind;
	const char *name, *unit, *help; /* the unit is the name's end; "": none */
	/* False: there is none. */
	bool (*value)(const struct service *service, const struct model *model, double *ret_value);
};

struct profile_metric {
	const char *name, *unit, *help;
	bool (*value)(const struct model *model, uint32_t profile, const struct slot_profile *facts, double *ret_value);
};

void metrics_time_add(struct metrics_times *times, uint64_t time_us)
{
	int i = 0;

	while (i < METRICS_BUCKET_COUNT && time_us > buckets[i].most_us)
		i++;
	times->counts[i]++;
	times->sum_us += time_us;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* A family's head. In OpenMetrics a counter's family has the name without _total, in the older format with it. */
static void family(struct page *page, enum kind kind, const char *name, const char *unit, const char *help)
{
	static const char *const types[] = { "gauge", "counter", "histogram", "info" };
	bool is_plain_info = kind == INFO && !page->open;
	const char *suffix = page->open ? "" : kind == COUNTER ? "_total" : kind == INFO ? "_info" : "";

	page->name = name;
	page->kind = kind;
	fprintf(page->file, "# TYPE %s%s %s\n", name, suffix, is_plain_info ? "gauge" : types[kind]);
	if (page->open && unit[0])
		fprintf(page->file, "# UNIT %s %s\n", name, unit);
	fprintf(page->file, "# HELP %s%s %s\n", name, suffix, help);
}

static void label(struct page *page, const char *separator, const char *name, const char *value)
{
	fprintf(page->file, "%s%s=\"", separator, name);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", page->file);
		else if (*value == '"' || *value == '\\')
			fprintf(page->file, "\\%c", *value);
		else
			fputc(*value, page->file);
	}
	fputc('"', page->file);
}

static void number(struct page *page, double value)
{
	if (isnan(value))
		fputs(" NaN\n", page->file);
	else if (isinf(value))
		fputs(value > 0 ? " +Inf\n" : " -Inf\n", page->file);
	else
		fprintf(page->file, " %.17g\n", value);
}

/* One sample; labels that are NULL are left out. */
static void sample(struct page *page, const char *model, const char *name, const char *value_name, double value)
{
	fprintf(page->file, "%s%s", page->name, page->kind == COUNTER ? "_total" : page->kind == INFO ? "_info" : "");
	if (model || name) {
		const char *separator = "{";

		if (model) {
			label(page, separator, "model", model);
			separator = ",";
		}
		if (name)
			label(page, separator, name, value_name);
		fputc('}', page->file);
	}
	number(page, value);
}

static void gauge(struct page *page, const char *name, const char *unit, const char *help, double value)
{
	family(page, GAUGE, name, unit, help);
	sample(page, NULL, NULL, NULL, value);
}

/* ---- the daemon -------------------------------------------------------------------------------------------------- */

/* "apply_us" is shown as emad_apply_seconds. */
static void counter(struct page *page, const char *name, const char *help, uint64_t value)
{
	size_t bytes = strlen(name);
	bool is_time = bytes > 3 && strcmp(name + bytes - 3, "_us") == 0;
	bool is_bytes = bytes > 6 && strcmp(name + bytes - 6, "_bytes") == 0;
	char shown[80];

	snprintf(shown, sizeof shown, "emad_%.*s%s", (int)(is_time ? bytes - 3 : bytes), name,
	         is_time ? "_seconds" : "");
	/* What is counted there is microseconds, and the rest of the sentence holds for seconds as well. */
	if (is_time && strncmp(help, "microseconds", 12) == 0)
		help += 5;
	family(page, COUNTER, shown, is_time ? "seconds" : is_bytes ? "bytes" : "", help);
	sample(page, NULL, NULL, NULL, is_time ? (double)value / 1e6 : (double)value);
}

static void times_write(struct page *page, const struct metrics_times *times)
{
	uint64_t count = 0;

	family(page, HISTOGRAM, "emad_update_duration_seconds", "seconds",
	       "time from the beginning of an update to its end");
	for (int i = 0; i <= METRICS_BUCKET_COUNT; i++) {
		count += times->counts[i];
		fprintf(page->file, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", page->name,
		        i < METRICS_BUCKET_COUNT ? buckets[i].le : "+Inf", count);
	}
	fprintf(page->file, "%s_sum", page->name);
	number(page, (double)times->sum_us / 1e6);
	fprintf(page->file, "%s_count %" PRIu64 "\n", page->name, count);
}

static bool is_shown(const struct model *model)
{
	return !model->doomed && !model->ancestor;
}

static void daemon_write(struct page *page, const struct service *service, const struct instant *now)
{
	uint64_t models = 0, uptime_ms = now->monotonic_ms - service->facts.started_ms;

	for (const struct model *model = service->models; model; model = model->next)
		models += is_shown(model);
	family(page, INFO, "emad_build", "", "the daemon, and the instructions that it averages with");
	fprintf(page->file, "emad_build_info{");
	label(page, "", "version", service->facts.agent);
	label(page, ",", "kernel", kernel_best()->name);
	fputs("} 1\n", page->file);
	gauge(page, "emad_start_time_seconds", "seconds", "when the daemon started, since 1970",
	      ((double)now->wall_us - (double)uptime_ms * 1000) / 1e6);
	gauge(page, "emad_recovering", "", "1 while models are being recovered at the start",
	      service->recovery.running);
	gauge(page, "emad_workers", "", "threads that average", (double)service->facts.worker_count);
	gauge(page, "emad_models", "", "models that are there", (double)models);
	gauge(page, "emad_models_limit", "", "models that may be there (models-max)",
	      (double)service->settings.model_count_max);
	gauge(page, "emad_memory_bytes", "bytes", "shared memory of all models", (double)service_memory_bytes(service));
	gauge(page, "emad_memory_limit_bytes", "bytes", "shared memory that models may take (memory-max)",
	      (double)service->settings.memory_bytes_max);
	gauge(page, "emad_waiting_requests", "", "requests that wait for something", (double)service->parked_count);
	gauge(page, "emad_waiting_requests_limit", "", "requests that may wait (waiting-max)",
	      (double)service->settings.parked_count_max);
#define X(name, text) counter(page, #name, text, service->counters.name);
	COUNTERS(X)
#undef X
	times_write(page, &service->update_times);
}

/* Whose models they are. False without memory for the sums. */
static bool users_write(struct page *page, const struct service *service)
{
	const struct settings *settings = &service->settings;
	struct owner_sum *sums;
	uint32_t count;
	char uid[24];

	if (settings->owner_memory_bytes_max > 0)
		gauge(page, "emad_user_memory_limit_bytes", "bytes", "shared memory that the models of one user may take "
		      "(memory-max-per-user)", (double)settings->owner_memory_bytes_max);
	if (settings->owner_model_count_max > 0)
		gauge(page, "emad_user_models_limit", "", "models that one user may have (models-max-per-user)",
		      (double)settings->owner_model_count_max);
	sums = owner_sums(service, &count);
	if (!sums)
		return !service->models;
	for (int what = 0; what < 2; what++) {
		if (what == 0)
			family(page, GAUGE, "emad_user_memory_bytes", "bytes", "shared memory of one user's models");
		else
			family(page, GAUGE, "emad_user_models", "", "models of one user");
		for (uint32_t i = 0; i < count; i++) {
			snprintf(uid, sizeof uid, "%" PRId64, sums[i].owner);
			sample(page, NULL, "uid", sums[i].owner == OWNER_UNKNOWN ? "unknown" : uid,
			       (double)(what == 0 ? sums[i].memory_bytes : sums[i].model_count));
		}
	}
	free(sums);
	return true;
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

#define MODEL_VALUE(what)                                                                                              \
	static bool what(const struct service *service, const struct model *model, double *ret_value)

MODEL_VALUE(step)
{
	const struct slot_header *newest = versions_newest(&model->versions);

	(void)service;
	*ret_value = newest ? (double)newest->step : 0;
	return newest != NULL;
}

MODEL_VALUE(version)
{
	const struct slot_header *newest = versions_newest(&model->versions);

	(void)service;
	*ret_value = newest ? (double)newest->version : 0;
	return true;
}

MODEL_VALUE(updates)
{
	const struct slot_header *newest = versions_newest(&model->versions);

	(void)service;
	*ret_value = newest ? (double)newest->updates : 0;
	return true;
}

MODEL_VALUE(published)
{
	const struct slot_header *newest = versions_newest(&model->versions);

	(void)service;
	*ret_value = newest ? (double)newest->published_us / 1e6 : 0;
	return newest != NULL;
}

MODEL_VALUE(lag)
{
	(void)service;
	*ret_value = model_lag(model);
	return true;
}

MODEL_VALUE(memory)
{
	(void)service;
	*ret_value = (double)model->memory_bytes;
	return true;
}

MODEL_VALUE(payload)
{
	(void)service;
	*ret_value = (double)model->payload_bytes;
	return true;
}

MODEL_VALUE(tensors)
{
	(void)service;
	*ret_value = model->manifest->tensor_count;
	return true;
}

MODEL_VALUE(ranks)
{
	(void)service;
	*ret_value = model->world;
	return true;
}

MODEL_VALUE(ranks_attached)
{
	uint64_t count = 0;

	(void)service;
	for (uint32_t r = 0; model->serving && r < model->world; r++)
		count += model->ranks[r].attached_peer != 0;
	*ret_value = (double)count;
	return true;
}

MODEL_VALUE(refused)
{
	uint64_t count = 0;

	(void)service;
	for (uint32_t r = 0; model->serving && r < model->world; r++)
		count += seal_counted(&model->records[r].refused);
	*ret_value = (double)count;
	return true;
}

MODEL_VALUE(coalesced)
{
	uint64_t count = 0;

	(void)service;
	for (uint32_t r = 0; model->serving && r < model->world; r++)
		count += seal_counted(&model->records[r].coalesced);
	*ret_value = (double)count;
	return true;
}

MODEL_VALUE(leases)
{
	(void)service;
	*ret_value = model->versions.lease_count;
	return true;
}

MODEL_VALUE(checkpoint_step)
{
	*ret_value = (double)model->checkpoint.step;
	return checkpoint_possible(service) && model->checkpoint.version > 0;
}

MODEL_VALUE(checkpoint_time)
{
	*ret_value = (double)model->checkpoint.wall_us / 1e6;
	return checkpoint_possible(service) && model->checkpoint.wall_us > 0;
}

MODEL_VALUE(checkpoint_failures)
{
	*ret_value = model->checkpoint.failure_count;
	return checkpoint_possible(service);
}

static const struct model_metric model_metrics[] = {
	{ GAUGE, "emad_model_step", "", "step of the newest version", step },
	{ GAUGE, "emad_model_version", "", "number of the newest version", version },
	{ GAUGE, "emad_model_updates", "", "updates of the newest version", updates },
	{ GAUGE, "emad_model_published_timestamp_seconds", "seconds",
	  "when the newest version was published, since 1970", published },
	{ GAUGE, "emad_model_lag_snapshots", "snapshots",
	  "snapshots accepted but not averaged, of the rank that has most", lag },
	{ GAUGE, "emad_model_memory_bytes", "bytes", "shared memory of the model", memory },
	{ GAUGE, "emad_model_snapshot_bytes", "bytes", "weights of one snapshot, all ranks together", payload },
	{ GAUGE, "emad_model_tensors", "", "tensors of the model", tensors },
	{ GAUGE, "emad_model_ranks", "", "ranks that push the model", ranks },
	{ GAUGE, "emad_model_ranks_attached", "", "ranks whose trainer is connected", ranks_attached },
	{ COUNTER, "emad_model_refused", "", "snapshots of the model that were refused", refused },
	{ COUNTER, "emad_model_coalesced", "", "snapshots of the model that gave way to a newer one", coalesced },
	{ GAUGE, "emad_model_leases", "", "versions that readers, downloads and the daemon itself hold, each by itself",
	  leases },
	{ GAUGE, "emad_model_checkpoint_step", "", "step of the newest checkpoint on disk", checkpoint_step },
	{ GAUGE, "emad_model_checkpoint_timestamp_seconds", "seconds",
	  "when the newest checkpoint was written, since 1970; none for one of before the start", checkpoint_time },
	{ GAUGE, "emad_model_checkpoint_failures", "", "failures to write a checkpoint since one was written",
	  checkpoint_failures },
};

static void model_metric_write(struct page *page, const struct service *service, const struct model_metric *metric)
{
	double value;

	family(page, metric->kind, metric->name, metric->unit, metric->help);
	for (const struct model *model = service->models; model; model = model->next)
		if (is_shown(model) && metric->value(service, model, &value))
			sample(page, model->name, NULL, NULL, value);
}

/* How many stages of a model are in each state. */
static void stages_write(struct page *page, const struct service *service)
{
	static const char *const states[] = { "free", "ready", "applying" };

	family(page, GAUGE, "emad_model_stages", "", "stages for snapshots, of all ranks, by state");
	for (const struct model *model = service->models; model; model = model->next) {
		uint64_t counts[3] = { 0 };

		if (!is_shown(model) || !model->serving)
			continue;
		for (uint32_t r = 0; r < model->world; r++)
			for (uint32_t i = 0; i < model->stage_count; i++)
				counts[stage_state(&model->records[r].stages[i])]++;
		for (int state = 0; state < 3; state++)
			sample(page, model->name, "state", states[state], (double)counts[state]);
	}
}

/* How many slots of a model are in each state. */
static void slots_write(struct page *page, const struct service *service)
{
	static const char *const states[] = { "current", "writing", "kept", "free" };

	family(page, GAUGE, "emad_model_slots", "", "slots for versions by state; kept: somebody holds the version");
	for (const struct model *model = service->models; model; model = model->next) {
		uint64_t counts[4] = { 0 };

		if (!is_shown(model) || !model->serving)
			continue;
		for (uint32_t i = 0; i < model->versions.slot_count; i++) {
			bool is_current = (int32_t)i == model->versions.current;
			bool is_writing = (int32_t)i == model->versions.writing;
			bool is_kept = versions_lease_count(&model->versions, i) > 0;

			counts[is_current ? 0 : is_writing ? 1 : is_kept ? 2 : 3]++;
		}
		for (int state = 0; state < 4; state++)
			sample(page, model->name, "state", states[state], (double)counts[state]);
	}
}

/* ---- profiles ---------------------------------------------------------------------------------------------------- */

#define PROFILE_VALUE(what)                                                                                            \
	static bool what(const struct model *model, uint32_t profile, const struct slot_profile *facts,                \
	                 double *ret_value)

PROFILE_VALUE(profile_updates)
{
	(void)model;
	(void)profile;
	*ret_value = facts ? (double)facts->updates : 0;
	return true;
}

PROFILE_VALUE(decay)
{
	(void)model;
	(void)profile;
	*ret_value = facts ? facts->decay : 0;
	return facts != NULL;
}

PROFILE_VALUE(drift)
{
	(void)model;
	(void)profile;
	*ret_value = facts ? facts->drift : 0;
	return facts != NULL;
}

PROFILE_VALUE(value_norm)
{
	(void)model;
	(void)profile;
	*ret_value = facts ? facts->value_norm : 0;
	return facts != NULL;
}

PROFILE_VALUE(nonfinite)
{
	(void)model;
	(void)profile;
	*ret_value = facts ? (double)facts->nonfinite : 0;
	return facts != NULL;
}

PROFILE_VALUE(image)
{
	(void)facts;
	*ret_value = (double)model->geometry->images[profile]->image_bytes;
	return true;
}

PROFILE_VALUE(kept_step)
{
	const struct kept_profile *kept = keep_find(model, model->geometry->profiles[profile].name);

	(void)facts;
	*ret_value = kept ? (double)kept->step : 0;
	return kept && kept->has_step;
}

static const struct profile_metric profile_metrics[] = {
	{ "emad_profile_updates", "", "updates since the start of the average", profile_updates },
	{ "emad_profile_decay", "", "decay of the latest update", decay },
	{ "emad_profile_drift", "",
	  "distance of the latest snapshot from the average before it, over all averaged elements", drift },
	{ "emad_profile_value_norm", "", "norm of the latest snapshot, over all averaged elements", value_norm },
	{ "emad_profile_nonfinite_tensors", "tensors", "tensors whose average holds NaN or infinity", nonfinite },
	{ "emad_profile_image_bytes", "bytes", "size of the average as a file", image },
	{ "emad_profile_snapshot_step", "", "step of the newest average kept on disk", kept_step },
};

static void profile_metric_write(struct page *page, const struct service *service, const struct profile_metric *metric)
{
	double value;

	family(page, GAUGE, metric->name, metric->unit, metric->help);
	for (const struct model *model = service->models; model; model = model->next)
		for (uint32_t p = 0; is_shown(model) && p < model->geometry->profile_count; p++)
			if (metric->value(model, p, model_newest_facts(model, p), &value))
				sample(page, model->name, "profile", model->geometry->profiles[p].name, value);
}

char *metrics_text(const struct service *service, const struct instant *now, bool open)
{
	char *text = NULL;
	size_t text_bytes;
	struct page page = { .file = open_memstream(&text, &text_bytes), .open = open };
	bool is_whole;

	if (!page.file)
		return NULL;
	daemon_write(&page, service, now);
	is_whole = users_write(&page, service);
	for (size_t i = 0; i < sizeof model_metrics / sizeof model_metrics[0]; i++)
		model_metric_write(&page, service, &model_metrics[i]);
	stages_write(&page, service);
	slots_write(&page, service);
	for (size_t i = 0; i < sizeof profile_metrics / sizeof profile_metrics[0]; i++)
		profile_metric_write(&page, service, &profile_metrics[i]);
	if (open)
		fputs("# EOF\n", page.file);
	is_whole = is_whole && !ferror(page.file);
	if (fclose(page.file) == 0 && is_whole)
		return text;
	free(text);
	return NULL;
}
