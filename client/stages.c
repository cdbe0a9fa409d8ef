/*
 * Maps, notes and keepsakes: see stages.h.
 */
#include "client/stages.h"

#include "client/pages.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- the map ----------------------------------------------------------------------------------------------------- */

void stage_map_finish(struct stage_map *map)
{
	if (map->bytes)
		munmap(map->bytes, map->segment_bytes);
	*map = (struct stage_map){0};
}

uint8_t *stage_map_stage(const struct stage_map *map, uint32_t stage)
{
	return map->bytes + LAYOUT_PAGE_BYTES + stage * map->stage_stride;
}

/* Whether the segment is what the registration needs: everything is checked before the first byte is written. */
static int stage_map_check(struct stage_map *map, const struct manifest *manifest, struct reason *reason)
{
	const struct stage_header *header = (const struct stage_header *)map->bytes;
	uint64_t room = map->segment_bytes - LAYOUT_PAGE_BYTES;
	int code = segment_header_check(&header->segment, SEGMENT_STAGE, map->segment_bytes, reason);

	if (code)
		return code;
	map->stage_count = header->stage_count;
	map->stage_stride = header->stage_stride;
	if (header->stage_bytes != manifest->stage_bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the stage holds %" PRIu64 " bytes, the tensors have %" PRIu64, header->stage_bytes,
		                  manifest->stage_bytes);
	if (map->stage_count < 1 || map->stage_count > STAGE_COUNT_MAX || map->stage_stride < manifest->stage_bytes ||
	    map->stage_stride % LAYOUT_PAGE_BYTES || map->stage_stride > room / map->stage_count)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "%u stages of %" PRIu64 " bytes do not fit into a segment of %" PRIu64, map->stage_count,
		                  map->stage_stride, map->segment_bytes);
	return 0;
}

int stage_map_init(struct stage_map *map, int fd, const struct manifest *manifest, struct reason *reason)
{
	struct stat facts;
	void *bytes;
	int code;

	if (fstat(fd, &facts) < 0)
		return reason_set(reason, -errno, "the stage segment: %s", strerrordesc_np(errno));
	if (facts.st_size < (off_t)LAYOUT_PAGE_BYTES)
		return reason_set(reason, STATUS_ECORRUPT, "the stage segment has %lld bytes, less than a header",
		                  (long long)facts.st_size);
	bytes = mmap(pages_place((size_t)facts.st_size), (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		return reason_set(reason, -errno, "cannot map %lld bytes of stages: %s", (long long)facts.st_size,
		                  strerrordesc_np(errno));
	*map = (struct stage_map){.bytes = bytes, .segment_bytes = (uint64_t)facts.st_size, .is_shared = true};
	code = stage_map_check(map, manifest, reason);
	if (code) {
		stage_map_finish(map);
		return code;
	}
	/* Pages are found now and not in the first training steps; older kernels cannot, which is no failure. */
	madvise(bytes, (size_t)facts.st_size, MADV_POPULATE_WRITE);
	return 0;
}

/* The daemon has read the stage, or never had it. */
static bool is_read(const struct stage_map *map, uint32_t stage)
{
	const struct stage_header *header = (const struct stage_header *)map->bytes;

	/* Pairs with the daemon's release-store when it has read the stage. */
	return map->is_shared && atomic_load_explicit(&header->state[stage], memory_order_acquire) == STAGE_FREE;
}

/* ---- notes ------------------------------------------------------------------------------------------------------- */

static bool is_one_place(const struct stage_map *map)
{
	return !map->is_shared && map->stage_stride == 0;
}

static uint32_t place_count(const struct stage_map *map)
{
	return is_one_place(map) ? map->bytes != NULL : map->stage_count;
}

static void note_clear(struct stage_note *note)
{
	enclosure_destroy(note->enclosure);
	*note = (struct stage_note){0};
}

void stages_applied(struct stages *stages, uint64_t step)
{
	if (!stages->has_settled || step > stages->settled_step)
		stages->settled_step = step;
	stages->has_settled = true;
}

/* What was accepted is out of reach from now on. */
static void note_settle(struct stages *stages, struct stage_note *note)
{
	if (note->accepted)
		stages_applied(stages, note->step);
	note_clear(note);
}

int stages_free(const struct stages *stages)
{
	for (uint32_t i = 0; stages->map.is_shared && i < stages->map.stage_count; i++)
		if (!stages->notes[i].in_doubt && is_read(&stages->map, i))
			return (int)i;
	return -1;
}

struct stage_note *stages_overwrite(struct stages *stages, uint32_t stage)
{
	struct stage_note *note = &stages->notes[is_one_place(&stages->map) ? 0 : stage];

	note_settle(stages, note);
	return note;
}

void stages_accepted(struct stages *stages, uint64_t step)
{
	bool found = false;

	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++) {
		if (!stages->notes[i].pushed || stages->notes[i].step != step)
			continue;
		stages->notes[i].accepted = true;
		found = true;
	}
	/* It came by a push of which nothing is left. */
	if (!found)
		stages_applied(stages, step);
}

void stages_answered(struct stages *stages)
{
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		stages->notes[i].in_doubt = false;
}

void stages_decided(struct stages *stages)
{
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		if (!stages->notes[i].in_doubt)
			note_settle(stages, &stages->notes[i]);
}

bool stages_hold(const struct stages *stages)
{
	bool holds = stages->keepsake_count > 0;

	for (uint32_t i = 0; i < place_count(&stages->map); i++)
		holds = holds || (stages->notes[i].accepted && !is_read(&stages->map, i));
	return holds;
}

/* ---- keepsakes --------------------------------------------------------------------------------------------------- */

static void keepsake_finish(struct keepsake *keepsake)
{
	munmap(keepsake->bytes, keepsake->map_bytes);
	enclosure_destroy(keepsake->enclosure);
}

void stages_drop(struct stages *stages, struct keepsake *keepsake)
{
	struct keepsake *end = stages->keepsakes + stages->keepsake_count;

	keepsake_finish(keepsake);
	memmove(keepsake, keepsake + 1, (size_t)(end - keepsake - 1) * sizeof(*keepsake));
	stages->keepsake_count--;
}

/* Among those that are there, by its step. */
static void keepsake_add(struct stages *stages, const struct keepsake *keepsake)
{
	uint32_t at = stages->keepsake_count++;

	for (; at > 0 && stages->keepsakes[at - 1].step > keepsake->step; at--)
		stages->keepsakes[at] = stages->keepsakes[at - 1];
	stages->keepsakes[at] = *keepsake;
}

struct keepsake *stages_keepsake(struct stages *stages)
{
	for (uint32_t i = 0; i < stages->keepsake_count; i++)
		if (!stages->keepsakes[i].is_own)
			return &stages->keepsakes[i];
	return NULL;
}

struct keepsake *stages_own_keepsake(struct stages *stages)
{
	for (uint32_t i = 0; i < stages->keepsake_count; i++)
		if (stages->keepsakes[i].is_own)
			return &stages->keepsakes[i];
	return NULL;
}

/* Whether the snapshot in a place is wanted again. */
static bool is_wanted(const struct stages *stages, uint32_t place, bool repeats)
{
	const struct stage_note *note = &stages->notes[place];

	return note->is_own || (repeats && note->accepted && !is_read(&stages->map, place));
}

void stages_replace(struct stages *stages, const struct stage_map *map, uint64_t stage_bytes, bool repeats)
{
	struct stage_map old = stages->map;
	bool wanted[STAGE_COUNT_MAX];
	uint8_t *from = old.bytes;

	/* All of them first: the header goes with what lies between the stages that are kept. */
	for (uint32_t i = 0; i < place_count(&old); i++)
		wanted[i] = is_wanted(stages, i, repeats);
	for (uint32_t i = 0; i < place_count(&old) && stages->keepsake_count < STAGE_COUNT_MAX; i++) {
		struct stage_note *note = &stages->notes[i];
		struct keepsake keepsake = {
			.step = note->step,
			.is_own = note->is_own,
			.enclosure = note->enclosure,
			.bytes = stage_map_stage(&old, i),
			.map_bytes = layout_page_round(stage_bytes),
		};

		if (!wanted[i])
			continue;
		if (keepsake.bytes > from)
			munmap(from, (size_t)(keepsake.bytes - from));
		from = keepsake.bytes + keepsake.map_bytes;
		keepsake_add(stages, &keepsake);
		*note = (struct stage_note){0};
	}
	if (from < old.bytes + old.segment_bytes)
		munmap(from, (size_t)(old.bytes + old.segment_bytes - from));
	stages->map = *map;
	stages_answered(stages); /* what was sent for the registration before is fenced */
	stages_decided(stages);
}

void stages_remap(struct stages *stages, const struct stage_map *map)
{
	if (map->bytes != stages->map.bytes)
		stage_map_finish(&stages->map);
	stages->map = *map;
}

void stages_finish(struct stages *stages)
{
	stage_map_finish(&stages->map);
	for (uint32_t i = 0; i < STAGE_COUNT_MAX; i++)
		note_clear(&stages->notes[i]);
	for (uint32_t i = 0; i < stages->keepsake_count; i++)
		keepsake_finish(&stages->keepsakes[i]);
	*stages = (struct stages){.keepsake_count = 0};
}
