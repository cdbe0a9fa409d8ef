/*
 * Items, and who copies them: see snapshot.h.
 */
#include "client/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ITEM_BYTES = 1024 * 1024,
	SHARED_BYTES_MIN = 8 * 1024 * 1024, /* less is copied before a helper is awake */
};

static uint64_t piece_bytes(const struct manifest *manifest, uint32_t index)
{
	const struct piece *piece = &manifest->pieces[index];

	return piece->element_count * dtype_bytes(manifest->tensors[piece->tensor].dtype);
}

/* Cuts everything into items; only counts them where items is NULL. */
static uint32_t items_cut(const struct manifest *manifest, struct snapshot_item *items)
{
	uint32_t count = 0, first = 0;
	uint64_t gathered = 0;

	for (uint32_t i = 0; i < manifest->piece_count; i++) {
		uint64_t bytes = piece_bytes(manifest, i);

		if (i > first && gathered + bytes > ITEM_BYTES) {
			if (items)
				items[count] = (struct snapshot_item){.first = first, .end = i};
			count++;
			first = i;
			gathered = 0;
		}
		gathered += bytes;
		for (uint64_t at = 0; bytes > ITEM_BYTES && at < bytes; at += ITEM_BYTES, count++) {
			uint64_t left = bytes - at;

			if (items)
				items[count] = (struct snapshot_item){i, i + 1, at, left < ITEM_BYTES ? left : ITEM_BYTES};
			first = i + 1;
			gathered = 0;
		}
	}
	if (first < manifest->piece_count) {
		if (items)
			items[count] = (struct snapshot_item){.first = first, .end = manifest->piece_count};
		count++;
	}
	return count;
}

int snapshot_init(struct snapshot *snapshot, const struct manifest *manifest)
{
	memset(snapshot, 0, sizeof(*snapshot));
	snapshot->manifest = manifest;
	snapshot->copy_kind = copy_kind_best();
	snapshot->items = calloc((size_t)items_cut(manifest, NULL) + 1, sizeof(snapshot->items[0]));
	if (!snapshot->items)
		return -ENOMEM;
	snapshot->item_count = items_cut(manifest, snapshot->items);
	return 0;
}

void snapshot_finish(struct snapshot *snapshot)
{
	team_destroy(snapshot->team);
	free(snapshot->items);
	memset(snapshot, 0, sizeof(*snapshot));
}

static void item_copy(const struct snapshot *snapshot, const struct snapshot_item *item)
{
	const struct manifest *manifest = snapshot->manifest;

	for (uint32_t i = item->first; i < item->end; i++) {
		const struct piece *piece = &manifest->pieces[i];
		uint64_t bytes = item->bytes ? item->bytes : piece_bytes(manifest, i);

		if (bytes == 0)
			continue;
		copy_bytes(snapshot->copy_kind, snapshot->stage + piece->stage_offset + item->offset,
		           (const uint8_t *)snapshot->data[piece->tensor] + item->offset, bytes);
	}
}

/* What every member of the team does. */
static void items_copy(void *context)
{
	struct snapshot *snapshot = context;
	uint32_t index;

	while ((index = atomic_fetch_add(&snapshot->item_next, 1)) < snapshot->item_count)
		item_copy(snapshot, &snapshot->items[index]);
	copy_fence();
}

static bool team_ready(struct snapshot *snapshot)
{
	if (snapshot->team || snapshot->is_alone)
		return snapshot->team != NULL;
	/* Without helpers a push takes longer, and that is all. */
	snapshot->is_alone = team_helper_count() == 0 || team_create(team_helper_count(), &snapshot->team) != 0;
	return !snapshot->is_alone;
}

void snapshot_copy(struct snapshot *snapshot, const void *const *data, uint8_t *stage, bool shared_out)
{
	snapshot->data = data;
	snapshot->stage = stage;
	atomic_store(&snapshot->item_next, 0);
	if (shared_out && snapshot->manifest->stage_bytes >= SHARED_BYTES_MIN && team_ready(snapshot))
		team_run(snapshot->team, items_copy, snapshot);
	else
		items_copy(snapshot);
}
