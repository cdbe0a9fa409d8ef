/*
 * Building the JSON with jansson. See report.h.
 */
#include "daemon/core/report.h"

#include <jansson.h>
#include <math.h>

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* JSON has no infinity: what is not finite is null. */
static json_t *real(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

static char *dump(json_t *root)
{
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

char *report_status(const struct service *service, const struct instant *now)
{
	json_t *root = json_object(), *counters = json_object();
	uint64_t models = 0;

	for (const struct model *model = service->models; model; model = model->next)
		models += !model->doomed;
#define X(name, text) json_object_set_new(counters, #name, number(service->counters.name));
	COUNTERS(X)
#undef X
	json_object_set_new(root, "agent", json_string(service->facts.agent));
	json_object_set_new(root, "pid", number(service->facts.pid));
	json_object_set_new(root, "instance", number(service->instance));
	json_object_set_new(root, "uptime_ms", number(now->monotonic_ms - service->facts.started_ms));
	json_object_set_new(root, "runtime_dir", json_string(service->facts.runtime_dir));
	json_object_set_new(root, "workers", number(service->facts.worker_count));
	json_object_set_new(root, "kernel", json_string(kernel_best()->name));
	json_object_set_new(root, "models", number(models));
	json_object_set_new(root, "memory_bytes", number(service->memory_bytes));
	json_object_set_new(root, "memory_bytes_max", number(service->settings.memory_bytes_max));
	json_object_set_new(root, "waiting", number(service->parked_count));
	json_object_set_new(root, "counters", counters);
	return dump(root);
}

static void model_members(const struct model *model, json_t *row)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	uint64_t attached = 0, refused = 0, parameters = 0;

	for (uint32_t r = 0; model->serving && r < model->world; r++) {
		attached += model->ranks[r].attached_peer != 0;
		refused += model->records[r].refused_count;
	}
	for (uint32_t t = 0; t < model->manifest->tensor_count; t++)
		if (!model->manifest->tensors[t].is_buffer)
			parameters += model->manifest->tensors[t].element_count;
	json_object_set_new(row, "model", json_string(model->name));
	json_object_set_new(row, "tensors", number(model->manifest->tensor_count));
	json_object_set_new(row, "parameters", number(parameters));
	json_object_set_new(row, "payload_bytes", number(model->payload_bytes));
	json_object_set_new(row, "memory_bytes", number(model->memory_bytes));
	json_object_set_new(row, "world", number(model->world));
	json_object_set_new(row, "ranks_attached", number(attached));
	json_object_set_new(row, "step", newest ? number(newest->step) : json_null());
	json_object_set_new(row, "updates", number(newest ? newest->updates : 0));
	json_object_set_new(row, "version", number(newest ? newest->version : 0));
	json_object_set_new(row, "lag", number(model_lag(model)));
	json_object_set_new(row, "last_update_us", newest ? number(newest->published_us) : json_null());
	json_object_set_new(row, "leases", number(model->versions.lease_count));
	json_object_set_new(row, "refused", number(refused));
}

char *report_list(const struct service *service)
{
	json_t *root = json_object(), *rows = json_array();

	for (const struct model *model = service->models; model; model = model->next) {
		json_t *row = json_object(), *profiles = json_array();

		for (uint32_t p = 0; p < model->profile_count; p++)
			json_array_append_new(profiles, json_string(model->profiles[p].name));
		model_members(model, row);
		json_object_set_new(row, "profiles", profiles);
		if (model->doomed)
			json_decref(row);
		else
			json_array_append_new(rows, row);
	}
	json_object_set_new(root, "models", rows);
	return dump(root);
}

static json_t *profile_rows(const struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	json_t *rows = json_array();

	for (uint32_t p = 0; p < model->profile_count; p++) {
		json_t *row = json_object();
		char schedule[SCHEDULE_BYTES_MAX + 1] = "";

		(void)schedule_format(&model->profiles[p].schedule, schedule, sizeof schedule);
		json_object_set_new(row, "name", json_string(model->profiles[p].name));
		json_object_set_new(row, "schedule", json_string(schedule));
		json_object_set_new(row, "image_bytes", number(model->images[p]->image_bytes));
		json_object_set_new(row, "updates", number(newest ? newest->profiles[p].updates : 0));
		if (newest) {
			enum schedule_action action = (enum schedule_action)newest->profiles[p].action;

			json_object_set_new(row, "decay", real(newest->profiles[p].decay));
			json_object_set_new(row, "action", json_string(schedule_action_name(action)));
			json_object_set_new(row, "drift", real(newest->profiles[p].drift));
			json_object_set_new(row, "value_norm", real(newest->profiles[p].value_norm));
		}
		json_array_append_new(rows, row);
	}
	return rows;
}

static json_t *rank_rows(const struct model *model)
{
	static const char *const states[] = { "free", "ready", "applying" };
	json_t *rows = json_array();

	for (uint32_t r = 0; r < model->world; r++) {
		const struct rank_record *record = &model->records[r];
		json_t *row = json_object(), *stages = json_array();

		for (uint32_t i = 0; i < model->stage_count; i++) {
			bool is_free = record->stages[i].state == STAGE_FREE;

			json_array_append_new(stages, json_pack("{s:s, s:o}", "state", states[record->stages[i].state],
			                                        "step", is_free ? json_null()
			                                                        : number(record->stages[i].step)));
		}
		json_object_set_new(row, "rank", number(r));
		json_object_set_new(row, "epoch", number(record->epoch));
		json_object_set_new(row, "attached", json_boolean(model->ranks[r].attached_peer != 0));
		json_object_set_new(row, "pid", json_integer(model->ranks[r].pid));
		json_object_set_new(row, "refused", number(record->refused_count));
		json_object_set_new(row, "refusal", model->ranks[r].refusal.text[0]
		                                            ? json_string(model->ranks[r].refusal.text)
		                                            : json_null());
		json_object_set_new(row, "stages", stages);
		json_array_append_new(rows, row);
	}
	return rows;
}

static const char *slot_state(const struct model *model, uint32_t slot)
{
	if ((int32_t)slot == model->versions.current)
		return "current";
	if ((int32_t)slot == model->versions.writing)
		return "writing";
	return versions_lease_count(&model->versions, slot) > 0 ? "kept" : "free";
}

static json_t *slot_rows(const struct model *model)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < model->versions.slot_count; i++) {
		const struct slot_header *slot = model->versions.slots[i];
		json_t *row = json_object();

		json_object_set_new(row, "slot", number(i));
		json_object_set_new(row, "state", json_string(slot_state(model, i)));
		json_object_set_new(row, "version", number(slot->version));
		json_object_set_new(row, "step", number(slot->step));
		json_object_set_new(row, "updates", number(slot->updates));
		json_object_set_new(row, "leases", number(versions_lease_count(&model->versions, i)));
		json_array_append_new(rows, row);
	}
	return rows;
}

static json_t *tensor_rows(const struct model *model)
{
	static const char *const entries[] = { "average", "copy", "freeze", "drop" };
	json_t *rows = json_array();

	for (uint32_t t = 0; t < model->manifest->tensor_count; t++) {
		const struct tensor *tensor = &model->manifest->tensors[t];
		json_t *row = json_object(), *shape = json_array(), *kinds = json_object(), *drifts = json_object();

		for (uint32_t d = 0; d < tensor->dimension_count; d++)
			json_array_append_new(shape, number(tensor->extents[d]));
		for (uint32_t p = 0; p < model->profile_count; p++) {
			enum schedule_entry entry = profile_entry(&model->profiles[p], tensor);
			const char *name = model->profiles[p].name;

			json_object_set_new(kinds, name, json_string(entries[entry]));
			if (entry == ENTRY_AVERAGE)
				json_object_set_new(drifts, name, real(sqrt(model->results[t].drift_squares[p])));
		}
		json_object_set_new(row, "name", json_string(tensor->name));
		json_object_set_new(row, "dtype", json_string(dtype_name(tensor->dtype)));
		json_object_set_new(row, "shape", shape);
		json_object_set_new(row, "buffer", json_boolean(tensor->is_buffer));
		json_object_set_new(row, "entries", kinds);
		json_object_set_new(row, "drift", drifts);
		json_array_append_new(rows, row);
	}
	return rows;
}

char *report_show(const struct model *model)
{
	json_t *root = json_object();

	model_members(model, root);
	json_object_set_new(root, "profiles", profile_rows(model));
	json_object_set_new(root, "ranks", rank_rows(model));
	json_object_set_new(root, "slots", slot_rows(model));
	json_object_set_new(root, "tensors", tensor_rows(model));
	json_object_set_new(root, "attributes", json_loads(model->attributes, 0, NULL));
	return dump(root);
}
