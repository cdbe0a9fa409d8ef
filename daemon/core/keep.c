/*
 * Due, ordered, written. See keep.h.
 */
#include "daemon/core/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/retention.h"

/* One is current, one is written by the updates, one is pinned; another one to wait in. */
enum { SLOT_COUNT_MIN = 3, SLOT_COUNT_WAITING = 4 };

static void event(const struct service *service, enum event_severity severity, const struct model *model, uint64_t step,
                  const char *error, const char *format, ...) __attribute__((format(printf, 6, 7)));

static void event(const struct service *service, enum event_severity severity, const struct model *model, uint64_t step,
                  const char *error, const char *format, ...)
{
	char text[1024];
	struct event what = {
		.severity = severity,
		.model = model->name,
		.error = error,
		.text = text,
		.step = step,
		.pid = -1,
	};
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	service->host.event(service->host.context, &what);
}

static bool has_directory(const struct service *service)
{
	return service->facts.state_dir && service->facts.state_dir[0];
}

int keep_check(const struct service *service, const struct model *model, const struct profile *profiles,
               uint32_t profile_count, struct reason *reason)
{
	for (uint32_t p = 0; p < profile_count; p++) {
		if (profiles[p].schedule.snapshot == 0)
			continue;
		if (!has_directory(service))
			return reason_set(reason, STATUS_EPROFILE,
			                  "profile '%s' says snapshot=%" PRIu64 ", but this daemon has no directory to "
			                  "keep averages in: start emad with --state-dir DIR (or state-dir=DIR in "
			                  "emad.conf), or leave out snapshot=",
			                  profiles[p].name, profiles[p].schedule.snapshot);
		if (model->slot_count < SLOT_COUNT_MIN)
			return reason_set(reason, STATUS_EPROFILE,
			                  "profile '%s' says snapshot=%" PRIu64 ", for which a model needs %d slots, and "
			                  "'%s' has %" PRIu32 ": updates take two while another one is being written to "
			                  "disk; raise slots= in emad.conf, or leave out snapshot=",
			                  profiles[p].name, profiles[p].schedule.snapshot, SLOT_COUNT_MIN, model->name,
			                  model->slot_count);
	}
	return 0;
}

bool keep_busy(const struct model *model)
{
	return model->keep.writing || model->checkpoint.writing || restore_busy(model);
}

static struct kept_profile *find(struct keep *keep, const char *profile)
{
	for (uint32_t i = 0; i < PROFILE_COUNT_MAX; i++)
		if (strcmp(keep->profiles[i].profile, profile) == 0)
			return &keep->profiles[i];
	return NULL;
}

const struct kept_profile *keep_find(const struct model *model, const char *profile)
{
	return find((struct keep *)&model->keep, profile);
}

void keep_directory(const struct model *model, char ret_directory[KEEP_DIRECTORY_BYTES_MAX])
{
	snprintf(ret_directory, KEEP_DIRECTORY_BYTES_MAX, "snapshots/%s", model->name);
}

/* Forgets the profiles that the model has no more: one of the same name that comes later starts anew. */
static void profiles_sync(struct model *model)
{
	struct keep *keep = &model->keep;

	for (uint32_t i = 0; i < PROFILE_COUNT_MAX; i++)
		if (keep->profiles[i].profile[0] && geometry_profile(model->geometry, keep->profiles[i].profile) < 0)
			keep->profiles[i] = (struct kept_profile){ 0 };
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct profile *profile = &model->geometry->profiles[p];
		struct kept_profile *kept;

		if (profile->schedule.snapshot == 0 || find(keep, profile->name))
			continue;
		kept = find(keep, "");
		strcpy(kept->profile, profile->name);
	}
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static uint32_t bits_count(uint32_t bits)
{
	return (uint32_t)__builtin_popcount(bits);
}

static void skip(struct service *service, struct model *model, uint32_t profiles)
{
	service->counters.snapshots_skipped += bits_count(profiles);
	model->keep.skipped_count += bits_count(profiles);
}

static void waiting_clear(struct model *model)
{
	struct keep_waiting *waiting = &model->keep.waiting;

	if (waiting->pinned)
		versions_unpin(&model->versions, waiting->slot);
	*waiting = (struct keep_waiting){ 0 };
}

/* The current version takes the place of one that waits already. */
static void waiting_set(struct service *service, struct model *model, uint32_t profiles)
{
	struct keep_waiting *waiting = &model->keep.waiting;

	if (waiting->version != 0)
		skip(service, model, waiting->profiles);
	waiting_clear(model);
	waiting->version = versions_newest(&model->versions)->version;
	waiting->slot = (uint32_t)model->versions.current;
	waiting->profiles = profiles;
	waiting->pinned = model->versions.slot_count >= SLOT_COUNT_WAITING &&
	                  versions_pin(&model->versions, waiting->slot) == 0;
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

static void item_make(const struct model *model, uint32_t p, uint32_t slot, struct file_item *item)
{
	const struct profile *profile = &model->geometry->profiles[p];
	const struct kept_profile *kept = keep_find(model, profile->name);
	char directory[KEEP_DIRECTORY_BYTES_MAX];

	keep_directory(model, directory);
	memset(item, 0, sizeof *item);
	snprintf(item->profile, sizeof item->profile, "%s", profile->name);
	snprintf(item->directory, sizeof item->directory, "%s/%s", directory, profile->name);
	item->bytes = model->slot_memory[slot].base + model->geometry->region_offsets[p];
	item->byte_count = model->geometry->images[p]->image_bytes;
	item->starts = !kept || !kept->has_step;
	item->interval = profile->schedule.snapshot;
	item->keep_count = profile->schedule.keep;
}

/* Pins a slot and hands some of its profiles to the host. */
static int order_begin(struct service *service, const struct instant *now, struct model *model, uint32_t slot,
                       uint32_t profiles)
{
	struct keep *keep = &model->keep;
	int error;

	if (!keep->order)
		keep->order = calloc(1, sizeof *keep->order);
	error = keep->order ? versions_pin(&model->versions, slot) : -ENOMEM;
	if (error)
		return error;
	keep->order->work = FILE_KEEP;
	keep->order->model = model->id;
	keep->order->step = model->versions.slots[slot]->step;
	keep->order->wall_us = now->wall_us;
	keep->order->count = 0;
	for (uint32_t p = 0; p < model->geometry->profile_count; p++)
		if (profiles & 1U << p)
			item_make(model, p, slot, &keep->order->items[keep->order->count++]);
	keep->writing = true;
	keep->slot = slot;
	service->host.file_write(service->host.context, keep->order);
	return 0;
}

/*
 * Nothing new is begun at the end, nor where other slots are about to take the place of these. A model may have come from
 * a daemon that had a directory.
 */
static bool is_closed(const struct service *service, const struct model *model)
{
	return service->stopping || !has_directory(service) || model->doomed || model->relay.made || (model->heir && model->heir->serving);
}

/* The current version is due. */
static void begin(struct service *service, const struct instant *now, struct model *model, uint32_t profiles)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	int error;

	if (profiles == 0)
		return;
	if (is_closed(service, model)) {
		skip(service, model, profiles);
		return;
	}
	if (keep_busy(model)) {
		waiting_set(service, model, profiles);
		return;
	}
	error = order_begin(service, now, model, (uint32_t)model->versions.current, profiles);
	if (!error)
		return;
	service->counters.snapshots_failed += bits_count(profiles);
	event(service, EVENT_ERROR, model, newest->step, status_name(error),
	      "%s: step %" PRIu64 " is not kept on disk: %s", model->name, newest->step, status_text(error));
}

void keep_published(struct service *service, const struct instant *now, struct model *model, uint64_t step_previous)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	uint32_t profiles = 0;

	profiles_sync(model);
	for (uint32_t p = 0; p < model->geometry->profile_count; p++)
		if (retention_due(newest->step, step_previous, model->geometry->profiles[p].schedule.snapshot))
			profiles |= 1U << p;
	begin(service, now, model, profiles);
}

void keep_adopted(struct service *service, const struct instant *now, struct model *model)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	uint32_t profiles = 0;

	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct profile *profile = &model->geometry->profiles[p];
		const struct kept_profile *kept = keep_find(model, profile->name);

		if (profile->schedule.snapshot > 0 && !has_directory(service))
			event(service, EVENT_WARNING, model, UINT64_MAX, NULL, "%s/%s: snapshot=%" PRIu64 " is without effect, because "
			      "this daemon has no directory to keep averages in, as the one before had: start emad with "
			      "--state-dir DIR", model->name, profile->name, profile->schedule.snapshot);
		if (newest && kept && kept->has_step && newest->step > kept->step &&
		    retention_due(newest->step, kept->step, profile->schedule.snapshot))
			profiles |= 1U << p;
	}
	/* What was due is gone where the newest version is of another geometry: the next one will be due. */
	if (has_directory(service) && !model->heirloom.geometry)
		begin(service, now, model, profiles);
}

/* Begins what has waited, if its slot still holds it. */
void keep_resume(struct service *service, const struct instant *now, struct model *model)
{
	const struct keep_waiting *waiting = &model->keep.waiting;

	if (waiting->version == 0 || keep_busy(model))
		return;
	if (is_closed(service, model) ||
	    model->versions.slots[waiting->slot]->version != waiting->version ||
	    order_begin(service, now, model, waiting->slot, waiting->profiles) != 0)
		skip(service, model, waiting->profiles);
	waiting_clear(model);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void item_take(struct service *service, struct model *model, const struct file_item *item)
{
	struct kept_profile *kept = find(&model->keep, item->profile);
	uint64_t step = model->keep.order->step;
	const char *why = item->reason.text[0] ? item->reason.text : status_text(item->status);

	if (item->status == 0) {
		service->counters.snapshots_written++;
		if (item->reason.text[0])
			event(service, EVENT_WARNING, model, step, NULL, "%s/%s: step %" PRIu64 " is on disk, but %s",
			      model->name, item->profile, step, why);
	} else if (item->status == STATUS_ESHUTDOWN) {
		skip(service, model, 1);
	} else {
		service->counters.snapshots_failed++;
		event(service, EVENT_ERROR, model, step, status_name(item->status),
		      "%s/%s: step %" PRIu64 " is not kept on disk: %s", model->name, item->profile, step, why);
	}
	if (!kept || item->status == STATUS_ESHUTDOWN)
		return;
	kept->error.text[0] = '\0';
	if (item->status != 0) {
		reason_set(&kept->error, item->status, "step %" PRIu64 ": %s", step, why);
		return;
	}
	/* From now on the files there are of this very average: a later daemon must not move them aside. */
	if (!kept->has_step)
		model->facts_changed++;
	kept->has_step = true;
	kept->step = step;
}

void keep_written(struct service *service, const struct instant *now, struct model *model)
{
	struct keep *keep = &model->keep;
	uint64_t written_count = service->counters.snapshots_written;

	for (uint32_t i = 0; i < keep->order->count; i++)
		item_take(service, model, &keep->order->items[i]);
	keep->writing = false;
	versions_unpin(&model->versions, keep->slot);
	if (keep->skipped_count > 0 && service->counters.snapshots_written > written_count) {
		event(service, EVENT_WARNING, model, keep->order->step, NULL,
		      "%s: %" PRIu64 " averages were not kept on disk, because writing one takes longer than snapshot= "
		      "steps: make snapshot= larger", model->name, keep->skipped_count);
		keep->skipped_count = 0;
	}
	book_note(model);
	keep_resume(service, now, model);
}

/* ---- going back -------------------------------------------------------------------------------------------------- */

void keep_back(struct service *service, const struct instant *now, struct model *model, uint64_t step)
{
	struct keep *keep = &model->keep;
	char directory[KEEP_DIRECTORY_BYTES_MAX];
	struct file_order *order;

	if (keep->waiting.version != 0 && model->versions.slots[keep->waiting.slot]->step > step) {
		skip(service, model, keep->waiting.profiles);
		waiting_clear(model);
	}
	order = calloc(1, sizeof *order);
	if (!order)
		return; /* the next average that is kept moves them */
	keep_directory(model, directory);
	order->work = FILE_BACK;
	order->model = model->id;
	order->step = step;
	order->wall_us = now->wall_us;
	for (uint32_t i = 0; i < PROFILE_COUNT_MAX; i++) {
		const struct kept_profile *kept = &keep->profiles[i];
		struct file_item *item = &order->items[order->count];

		if (!kept->profile[0] || !((kept->has_step && kept->step > step) || keep->writing))
			continue;
		strcpy(item->profile, kept->profile);
		snprintf(item->directory, sizeof item->directory, "%s/%s", directory, kept->profile);
		order->count++;
	}
	if (order->count == 0) {
		free(order);
		return;
	}
	service->stray_count++;
	service->host.file_write(service->host.context, order);
}

void keep_went_back(struct service *service, struct model *model, const struct file_order *order)
{
	for (uint32_t i = 0; model && i < order->count; i++) {
		const struct file_item *item = &order->items[i];
		struct kept_profile *kept = find(&model->keep, item->profile);

		if (item->status != 0)
			event(service, EVENT_ERROR, model, order->step, status_name(item->status),
			      "%s/%s: averages of steps behind %" PRIu64 " are still among those that are kept: %s",
			      model->name, item->profile, order->step, item->reason.text);
		else if (kept && kept->has_step && item->step_left != UINT64_MAX)
			kept->step = item->step_left;
	}
	if (model)
		book_note(model);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

void keep_inherit(struct model *heir, const struct model *ancestor)
{
	memcpy(heir->keep.profiles, ancestor->keep.profiles, sizeof heir->keep.profiles);
}

void keep_finish(struct model *model)
{
	free(model->keep.order);
	model->keep = (struct keep){ 0 };
}
