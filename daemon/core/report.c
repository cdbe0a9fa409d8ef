/*
 * Building the JSON with jansson. See report.h.
 */
#include "daemon/core/report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/json_text.h"
#include "daemon/core/owner.h"

enum { MOVER_COUNT_MAX = 10 };

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* JSON has no infinity: what is not finite is null. */
static json_t *real(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

/* Without memory a value or its place is missing: *whole becomes false, and there is no report rather than half. */
static void put(bool *whole, json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value) != 0)
		*whole = false;
}

static void append(bool *whole, json_t *array, json_t *value)
{
	if (json_array_append_new(array, value) != 0)
		*whole = false;
}

static char *dump(json_t *root, bool whole)
{
	char *text = whole ? json_text_ascii(root) : NULL;

	json_decref(root);
	return text;
}

static json_t *limits_json(bool *whole, const struct settings *settings)
{
	json_t *limits = json_object();

	put(whole, limits, "memory_bytes_max", number(settings->memory_bytes_max));
	put(whole, limits, "models_max", number(settings->model_count_max));
	put(whole, limits, "memory_bytes_max_per_user", number(settings->owner_memory_bytes_max));
	put(whole, limits, "models_max_per_user", number(settings->owner_model_count_max));
	put(whole, limits, "segments_max", number(settings->segment_count_max));
	put(whole, limits, "waiting_max", number(settings->parked_count_max));
	put(whole, limits, "waiting_bytes_max", number(settings->parked_bytes_max));
	put(whole, limits, "body_bytes_max", number(settings->body_bytes_max));
	put(whole, limits, "slots", number(settings->slot_count));
	put(whole, limits, "stages", number(settings->stage_count));
	put(whole, limits, "lease_min_ms", number(settings->lease_min_ms));
	put(whole, limits, "wait_max_ms", number(settings->wait_max_ms));
	return limits;
}

/* The averages that are on their way to disk. */
static json_t *checkpoint_writings(bool *whole, const struct service *service)
{
	json_t *rows = json_array();

	for (const struct model *model = service->models; model; model = model->next) {
		const struct file_order *order = model->checkpoint.order;
		uint64_t bytes = 0;
		json_t *row;

		if (!model->checkpoint.writing || order->work != FILE_CHECKPOINT)
			continue;
		for (uint32_t i = 0; i < order->count; i++)
			bytes += order->items[i].byte_count;
		row = json_object();
		put(whole, row, "model", json_string(model->name));
		put(whole, row, "bytes", number(bytes));
		put(whole, row, "written_bytes",
		    number(atomic_load_explicit(&order->written_bytes, memory_order_relaxed)));
		append(whole, rows, row);
	}
	return rows;
}

/* The latest checkpoint of all models, and what is wrong; null where the daemon has no place for them. */
static json_t *checkpoint_summary(bool *whole, const struct service *service)
{
	const struct checkpoint_news news = checkpoint_news(service);
	const struct checkpoint *latest = news.latest ? &news.latest->checkpoint : NULL;
	const struct checkpoint *failing = news.failing ? &news.failing->checkpoint : NULL;
	json_t *row;

	if (!checkpoint_possible(service))
		return json_null();
	row = json_object();
	put(whole, row, "model", latest ? json_string(news.latest->name) : json_null());
	put(whole, row, "step", latest ? number(latest->step) : json_null());
	put(whole, row, "written_us", latest ? number(latest->wall_us) : json_null());
	put(whole, row, "writing", checkpoint_writings(whole, service));
	put(whole, row, "failing", failing ? json_string(news.failing->name) : json_null());
	put(whole, row, "failures", number(failing ? failing->failure_count : 0));
	put(whole, row, "error", failing ? json_string(failing->error.text) : json_null());
	return row;
}

static json_t *owner_json(int64_t owner)
{
	return owner >= 0 ? json_integer(owner) : json_null();
}

static json_t *owner_rows(bool *whole, const struct service *service)
{
	json_t *rows = json_array();
	uint32_t count;
	struct owner_sum *sums = owner_sums(service, &count);

	if (!sums && service->models)
		*whole = false;
	for (uint32_t i = 0; i < count; i++) {
		json_t *row = json_object();

		put(whole, row, "uid", owner_json(sums[i].owner));
		put(whole, row, "models", number(sums[i].model_count));
		put(whole, row, "memory_bytes", number(sums[i].memory_bytes));
		append(whole, rows, row);
	}
	free(sums);
	return rows;
}

char *report_status(const struct service *service, const struct instant *now)
{
	bool is_whole = true, *whole = &is_whole;
	json_t *root = json_object(), *counters = json_object();
	uint64_t models = 0;

	for (const struct model *model = service->models; model; model = model->next)
		models += !model->doomed && !model->ancestor;
#define X(name, text) put(whole, counters, #name, number(service->counters.name));
	COUNTERS(X)
#undef X
	put(whole, root, "agent", json_string(service->facts.agent));
	put(whole, root, "pid", number(service->facts.pid));
	put(whole, root, "instance", number(service->instance));
	put(whole, root, "uptime_ms", number(now->monotonic_ms - service->facts.started_ms));
	put(whole, root, "runtime_dir", json_string(service->facts.runtime_dir));
	put(whole, root, "state_dir", json_string(service->facts.state_dir ? service->facts.state_dir : ""));
	put(whole, root, "segments_dir", json_string(service->facts.segments_dir ? service->facts.segments_dir : ""));
	put(whole, root, "workers", number(service->facts.worker_count));
	put(whole, root, "kernel", json_string(kernel_best()->name));
	put(whole, root, "models", number(models));
	put(whole, root, "memory_bytes", number(service_memory_bytes(service)));
	put(whole, root, "memory_bytes_max", number(service->settings.memory_bytes_max));
	put(whole, root, "users", owner_rows(whole, service));
	put(whole, root, "waiting", number(service->parked_count));
	put(whole, root, "waiting_bytes", number(service->parked_bytes));
	put(whole, root, "checkpoint", checkpoint_summary(whole, service));
	put(whole, root, "limits", limits_json(whole, &service->settings));
	put(whole, root, "counters", counters);
	return dump(root, is_whole);
}

static void model_members(bool *whole, const struct model *model, json_t *row)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	uint64_t attached = 0, refused = 0, parameters = 0;

	for (uint32_t r = 0; model->serving && r < model->world; r++) {
		attached += model->ranks[r].attached_peer != 0 && model->ranks[r].attached_peer != PEER_AWAITED;
		refused += seal_counted(&model->records[r].refused);
	}
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		if (!model->manifest->tensors[t].is_buffer)
			parameters += model->manifest->tensors[t].element_count;
	put(whole, row, "model", json_string(model->name));
	put(whole, row, "tensors", number(model->manifest->tensor_count));
	put(whole, row, "parameters", number(parameters));
	put(whole, row, "payload_bytes", number(model->payload_bytes));
	put(whole, row, "memory_bytes", number(model->memory_bytes));
	put(whole, row, "owner", owner_json(model->owner));
	put(whole, row, "world", number(model->world));
	put(whole, row, "ranks_attached", number(attached));
	put(whole, row, "step", newest ? number(newest->step) : json_null());
	put(whole, row, "updates", number(newest ? newest->updates : 0));
	put(whole, row, "version", number(newest ? newest->version : 0));
	put(whole, row, "lag", number(model_lag(model)));
	put(whole, row, "last_update_us", newest ? number(newest->published_us) : json_null());
	put(whole, row, "leases", number(model->versions.lease_count));
	put(whole, row, "refused", number(refused));
}

char *report_list(const struct service *service)
{
	bool is_whole = true, *whole = &is_whole;
	json_t *root = json_object(), *rows = json_array();

	for (const struct model *model = service->models; model; model = model->next) {
		json_t *row = json_object(), *profiles = json_array();

		for (uint32_t p = 0; p < model->geometry->profile_count; p++)
			append(whole, profiles, json_string(model->geometry->profiles[p].name));
		model_members(whole, model, row);
		put(whole, row, "profiles", profiles);
		if (model->doomed || model->ancestor)
			json_decref(row);
		else
			append(whole, rows, row);
	}
	put(whole, root, "models", rows);
	return dump(root, is_whole);
}

/* What of a profile is on disk; null where nothing is, and where nothing went wrong. */
static void kept_members(bool *whole, const struct model *model, const char *profile, json_t *row)
{
	const struct kept_profile *kept = keep_find(model, profile);

	put(whole, row, "snapshot_step", kept && kept->has_step ? number(kept->step) : json_null());
	put(whole, row, "snapshot_error", kept && kept->error.text[0] ? json_string(kept->error.text) : json_null());
}

/* The averaged tensors that the latest snapshot was furthest away from, in units of the snapshot's own norm. */
static json_t *mover_rows(bool *whole, const struct model *model, uint32_t p)
{
	const struct tensor_result *results = model->results;
	uint32_t movers[MOVER_COUNT_MAX], count = 0;
	json_t *rows = json_array();

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		uint32_t at = count;

		if (!(results[t].drift_squares[p] > 0) || !isfinite(results[t].drift_squares[p]))
			continue;
		while (at > 0 && results[t].drift_squares[p] > results[movers[at - 1]].drift_squares[p])
			at--;
		if (at == MOVER_COUNT_MAX)
			continue;
		count += count < MOVER_COUNT_MAX;
		memmove(&movers[at + 1], &movers[at], (count - at - 1) * sizeof movers[0]);
		movers[at] = t;
	}
	for (uint32_t i = 0; i < count; i++) {
		const struct tensor_result *result = &results[movers[i]];

		append(whole, rows, json_pack("{s:s, s:o, s:o}",
		                              "tensor", model->manifest->tensors[movers[i]].name,
		                              "drift", real(sqrt(result->drift_squares[p])),
		                              "value_norm", real(sqrt(result->value_squares))));
	}
	return rows;
}

static json_t *profile_row(bool *whole, const struct model *model, uint32_t p)
{
	const struct profile *profile = &model->geometry->profiles[p];
	const struct slot_profile *facts = model_newest_facts(model, p);
	char schedule[SCHEDULE_BYTES_MAX + 1] = "", specification[PROFILE_BYTES_MAX + 1] = "";
	json_t *row = json_object();

	(void)schedule_format(&profile->schedule, schedule, sizeof schedule);
	(void)profile_format(profile, specification, sizeof specification);
	put(whole, row, "name", json_string(profile->name));
	put(whole, row, "schedule", json_string(schedule));
	put(whole, row, "specification", json_string(specification));
	put(whole, row, "image_bytes", number(model->geometry->images[p]->image_bytes));
	put(whole, row, "updates", number(facts ? facts->updates : 0));
	if (facts) {
		put(whole, row, "calls", number(facts->calls));
		put(whole, row, "decay", real(facts->decay));
		put(whole, row, "action", json_string(schedule_action_name((enum schedule_action)facts->action)));
		put(whole, row, "drift", real(facts->drift));
		put(whole, row, "value_norm", real(facts->value_norm));
		put(whole, row, "nonfinite", number(facts->nonfinite));
	}
	/* The sums of an earlier geometry are by its profiles. */
	if (facts && !model->heirloom.geometry)
		put(whole, row, "movers", mover_rows(whole, model, p));
	kept_members(whole, model, profile->name, row);
	if (model->histories[p])
		put(whole, row, "history", json_loads(model->histories[p], 0, NULL));
	return row;
}

static json_t *profile_rows(bool *whole, const struct model *model)
{
	json_t *rows = json_array();

	for (uint32_t p = 0; p < model->geometry->profile_count; p++)
		append(whole, rows, profile_row(whole, model, p));
	return rows;
}

static json_t *rank_rows(bool *whole, const struct model *model)
{
	static const char *const states[] = { "free", "ready", "applying" };
	json_t *rows = json_array();

	for (uint32_t r = 0; r < model->world; r++) {
		const struct rank_record *record = &model->records[r];
		json_t *row = json_object(), *stages = json_array();

		for (uint32_t i = 0; i < model->stage_count; i++) {
			bool is_free = stage_state(&record->stages[i]) == STAGE_FREE;

			append(whole, stages, json_pack("{s:s, s:o}", "state", states[stage_state(&record->stages[i])],
			                                        "step", is_free ? json_null()
			                                                        : number(record->stages[i].step)));
		}
		put(whole, row, "rank", number(r));
		put(whole, row, "epoch", number(record->epoch));
		put(whole, row, "attached", json_boolean(model->ranks[r].attached_peer != 0));
		put(whole, row, "pid", json_integer(model->ranks[r].pid));
		put(whole, row, "refused", number(seal_counted(&record->refused)));
		put(whole, row, "coalesced", number(seal_counted(&record->coalesced)));
		put(whole, row, "refusal", model->ranks[r].refusal.text[0]
		                                            ? json_string(model->ranks[r].refusal.text)
		                                            : json_null());
		put(whole, row, "stages", stages);
		append(whole, rows, row);
	}
	return rows;
}

/* Who holds a slot: readers on the attach socket, downloads, and the daemon while it writes the slot to disk. */
static json_t *holders(const struct versions *versions, uint32_t slot)
{
	uint64_t views = 0, downloads = 0, own = 0;

	for (uint32_t i = 0; i < versions->lease_count; i++) {
		const struct lease *lease = &versions->leases[i];

		if (lease->slot != slot)
			continue;
		own += lease->peer == VERSIONS_KEEPER;
		downloads += lease->peer != VERSIONS_KEEPER && lease->peer >= PEER_DOWNLOAD_FIRST;
		views += lease->peer < PEER_DOWNLOAD_FIRST;
	}
	return json_pack("{s:I, s:I, s:I}", "views", (json_int_t)views, "downloads", (json_int_t)downloads, "daemon",
	                 (json_int_t)own);
}

static const char *slot_state(const struct model *model, uint32_t slot)
{
	if ((int32_t)slot == model->versions.current)
		return "current";
	if ((int32_t)slot == model->versions.writing)
		return "writing";
	return versions_lease_count(&model->versions, slot) > 0 ? "kept" : "free";
}

static json_t *slot_rows(bool *whole, const struct model *model)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < model->versions.slot_count; i++) {
		const struct slot_header *slot = model->versions.slots[i];
		json_t *row = json_object();

		put(whole, row, "slot", number(i));
		put(whole, row, "state", json_string(slot_state(model, i)));
		put(whole, row, "version", number(slot->version));
		put(whole, row, "step", number(slot->step));
		put(whole, row, "updates", number(slot->updates));
		put(whole, row, "calls", number(slot->calls));
		put(whole, row, "leases", number(versions_lease_count(&model->versions, i)));
		put(whole, row, "holders", holders(&model->versions, i));
		append(whole, rows, row);
	}
	return rows;
}

static json_t *tensor_row(bool *whole, const struct model *model, uint32_t t)
{
	const struct tensor *tensor = &model->manifest->tensors[t];
	json_t *row = json_object(), *shape = json_array(), *kinds = json_object(), *drifts = json_object();

	for (uint32_t d = 0; d < tensor->dimension_count; d++)
		append(whole, shape, number(tensor->extents[d]));
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		enum schedule_entry entry = profile_choose(&model->geometry->profiles[p], tensor).entry;
		const char *name = model->geometry->profiles[p].name;

		put(whole, kinds, name, json_string(schedule_entry_name(entry)));
		/* The sums of an earlier geometry are by its profiles. */
		if (entry == ENTRY_AVERAGE && !model->heirloom.geometry)
			put(whole, drifts, name, real(sqrt(model->results[t].drift_squares[p])));
	}
	put(whole, row, "name", json_string(tensor->name));
	put(whole, row, "dtype", json_string(dtype_name(tensor->dtype)));
	put(whole, row, "shape", shape);
	put(whole, row, "buffer", json_boolean(tensor->is_buffer));
	put(whole, row, "entries", kinds);
	put(whole, row, "drift", drifts);
	return row;
}

/* Each row becomes text by itself: trees of ten thousand of them would take as much memory as all else. */
static void tensor_rows_write(bool *whole, const struct model *model, FILE *file)
{
	fputs("[", file);
	for (uint32_t t = 0; t < model->manifest->tensor_count && *whole; t++) {
		char *text = dump(tensor_row(whole, model, t), *whole);

		fprintf(file, "%s%s", t > 0 ? "," : "", text ? text : "");
		*whole = *whole && text != NULL;
		free(text);
	}
	fputs("]", file);
}

/* Where the averages of a model are kept on disk; null where none are. */
static json_t *snapshot_dir(const struct service *service, const struct model *model)
{
	char directory[KEEP_DIRECTORY_BYTES_MAX];
	bool keeps = false;

	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct profile *profile = &model->geometry->profiles[p];
		const struct kept_profile *kept = keep_find(model, profile->name);

		keeps = keeps || profile->schedule.snapshot > 0 || (kept && kept->has_step);
	}
	keep_directory(model, directory);
	return keeps ? json_sprintf("%s/%s", service->facts.state_dir, directory) : json_null();
}

/* What of the model is on disk to be recovered from; null where the daemon has no place for it. */
static json_t *checkpoint_members(bool *whole, const struct service *service, const struct model *model)
{
	const struct checkpoint *checkpoint = &model->checkpoint;
	char directory[GENERATION_DIRECTORY_BYTES];
	bool exists = checkpoint->version > 0;
	json_t *row;

	if (!checkpoint_possible(service))
		return json_null();
	row = json_object();
	generation_directory_write(model->name, directory);
	put(whole, row, "directory", json_sprintf("%s/checkpoints/%s", service->facts.state_dir, directory));
	put(whole, row, "version", exists ? number(checkpoint->version) : json_null());
	put(whole, row, "step", exists ? number(checkpoint->step) : json_null());
	put(whole, row, "written_us", checkpoint->wall_us ? number(checkpoint->wall_us) : json_null());
	put(whole, row, "writing", json_boolean(checkpoint->writing));
	put(whole, row, "failures", number(checkpoint->failure_count));
	put(whole, row, "error", checkpoint->error.text[0] ? json_string(checkpoint->error.text) : json_null());
	return row;
}

char *report_show(const struct service *service, const struct model *model, bool tensors)
{
	bool is_whole = true, *whole = &is_whole;
	json_t *root = json_object();
	char guards[GUARDS_BYTES_MAX];
	char *facts, *text = NULL;
	size_t text_bytes;
	FILE *file;

	model_members(whole, model, root);
	put(whole, root, "profiles", profile_rows(whole, model));
	put(whole, root, "ranks", rank_rows(whole, model));
	put(whole, root, "slots", slot_rows(whole, model));
	put(whole, root, "snapshot_dir", snapshot_dir(service, model));
	put(whole, root, "checkpoint", checkpoint_members(whole, service, model));
	put(whole, root, "attributes", json_loads(model->attributes, 0, NULL));
	put(whole, root, "metadata", model->metadata ? json_loads(model->metadata, 0, NULL) : json_null());
	guards_format(&model->guards, guards, sizeof guards);
	put(whole, root, "guards", json_string(guards));
	put(whole, root, "stride", number(model->stride));
	put(whole, root, "policy", json_string(model->coalesces ? "coalesce" : "block"));
	if (!tensors)
		return dump(root, is_whole);
	(void)json_object_del(root, "tensors"); /* the number gives way to the rows */
	facts = dump(root, is_whole);
	file = facts ? open_memstream(&text, &text_bytes) : NULL;
	if (!file) {
		free(facts);
		return NULL;
	}
	/* The object goes on where its closing brace stood. */
	fprintf(file, "%.*s,\"tensors\":", (int)strlen(facts) - 1, facts);
	tensor_rows_write(whole, model, file);
	fputs("}", file);
	free(facts);
	if (fclose(file) == 0 && is_whole)
		return text;
	free(text);
	return NULL;
}

char *report_error(int status, const char *sentence)
{
	json_t *root = json_pack("{s:s, s:s}", "error", status_name(status), "message", sentence);

	return dump(root, root != NULL);
}
