/*
 * What there is of a model, in memory and on disk, newest first: for `emactl history`.
 */
#include "daemon/core/report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/core/json_text.h"

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

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

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static uint32_t reader_count(const struct versions *versions, uint32_t slot)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < versions->lease_count; i++)
		count += versions->leases[i].slot == slot && versions->leases[i].peer != VERSIONS_KEEPER;
	return count;
}

static json_t *version_row(bool *whole, const struct model *model, uint32_t slot)
{
	const struct slot_header *header = model->versions.slots[slot];
	json_t *row = json_object();

	put(whole, row, "step", number(header->step));
	put(whole, row, "version", number(header->version));
	put(whole, row, "updates", number(header->updates));
	put(whole, row, "published_us", number(header->published_us));
	put(whole, row, "state", json_string((int32_t)slot == model->versions.current ? "current" : "earlier"));
	put(whole, row, "readers", number(reader_count(&model->versions, slot)));
	return row;
}

/* The slots that hold a version, the heirloom among them, newest first. */
static json_t *version_rows(bool *whole, const struct model *model)
{
	const struct versions *versions = &model->versions;
	uint32_t count = versions->slot_count + (model->heirloom.geometry && versions->slots[versions->slot_count] ? 1 : 0);
	uint64_t below = UINT64_MAX;
	json_t *rows = json_array();

	for (;;) {
		int32_t next = -1;

		for (uint32_t i = 0; i < count; i++) {
			uint64_t version = versions->slots[i]->version;

			if (version != 0 && version < below &&
			    (next < 0 || version > versions->slots[next]->version))
				next = (int32_t)i;
		}
		if (next < 0)
			break;
		below = versions->slots[next]->version;
		append(whole, rows, version_row(whole, model, (uint32_t)next));
	}
	return rows;
}

/* ---- disk -------------------------------------------------------------------------------------------------------- */

static json_t *generation_row(bool *whole, const struct listed_generation *at)
{
	const char *state = at->aside_s > 0 ? "aside" : at->whole ? "whole" : "damaged";
	json_t *row = json_object();

	put(whole, row, "step", number(at->name.step));
	put(whole, row, "version", number(at->name.version));
	put(whole, row, "updates", number(at->updates));
	put(whole, row, "written_us", at->wall_us ? number(at->wall_us) : json_null());
	put(whole, row, "bytes", number(at->bytes));
	put(whole, row, "keep", json_boolean(at->keeps));
	put(whole, row, "state", json_string(state));
	put(whole, row, "reason", at->reason[0] ? json_string(at->reason) : json_null());
	put(whole, row, "aside_us", at->aside_s ? number(at->aside_s * 1000000) : json_null());
	return row;
}

static void disk_members(bool *whole, const struct file_order *order, json_t *root)
{
	json_t *generations = json_array(), *snapshots = json_array();
	const struct listing *listing = order ? order->listing : NULL;

	for (uint32_t i = 0; listing && i < listing->generation_count; i++)
		append(whole, generations, generation_row(whole, &listing->generations[i]));
	for (uint32_t i = 0; listing && i < listing->snapshot_count; i++) {
		const struct listed_snapshot *at = &listing->snapshots[i];
		json_t *row = json_object();

		put(whole, row, "profile", json_string(order->items[at->item].profile));
		put(whole, row, "step", number(at->step));
		put(whole, row, "written_us", number(at->wall_us));
		put(whole, row, "bytes", number(at->bytes));
		append(whole, snapshots, row);
	}
	put(whole, root, "generations", generations);
	put(whole, root, "generations_left_out", number(listing ? listing->generations_left_out : 0));
	put(whole, root, "snapshots", snapshots);
	put(whole, root, "snapshots_left_out", number(listing ? listing->snapshots_left_out : 0));
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

/* Of all profiles, each newest first. */
static json_t *change_rows(bool *whole, const struct model *model)
{
	json_t *rows = json_array();

	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		json_t *entries = model->histories[p] ? json_loads(model->histories[p], 0, NULL) : NULL;

		if (model->histories[p] && !entries)
			*whole = false;
		for (size_t i = json_array_size(entries); i-- > 0;) {
			json_t *row = json_object();

			put(whole, row, "profile", json_string(model->geometry->profiles[p].name));
			if (json_object_update(row, json_array_get(entries, i)) != 0)
				*whole = false;
			append(whole, rows, row);
		}
		json_decref(entries);
	}
	return rows;
}

char *report_history(const struct service *service, const struct model *model, const struct file_order *order)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	char directory[GENERATION_DIRECTORY_BYTES];
	bool is_whole = true, *whole = &is_whole;
	json_t *root = json_object();
	char *text;

	generation_directory_write(model->name, directory);
	put(whole, root, "model", json_string(model->name));
	put(whole, root, "step", newest ? number(newest->step) : json_null());
	put(whole, root, "version", number(newest ? newest->version : 0));
	put(whole, root, "directory", order ? json_sprintf("%s/checkpoints/%s", service->facts.state_dir, directory)
	                                    : json_null());
	/* Until the first checkpoint of this average is written, what lies there is of one before. */
	put(whole, root, "owned", json_boolean(model->checkpoint.owns));
	put(whole, root, "versions", version_rows(whole, model));
	disk_members(whole, order, root);
	put(whole, root, "changes", change_rows(whole, model));
	text = is_whole ? json_text_ascii(root) : NULL;
	json_decref(root);
	return text;
}
