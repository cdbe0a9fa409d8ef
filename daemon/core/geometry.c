/*
 * Laying out slots. See geometry.h.
 */
#include "daemon/core/geometry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/description.h"
#include "proto/layout.h"

static int checksum_make(struct geometry *geometry)
{
	uint64_t sums[2 * PROFILE_COUNT_MAX];
	char text[PROFILE_BYTES_MAX + 1];

	for (uint32_t p = 0; p < geometry->profile_count; p++) {
		const struct image *image = geometry->images[p];
		int error = profile_format(&geometry->profiles[p], text, sizeof text);

		if (error)
			return error;
		sums[2 * p] = layout_checksum(text, strlen(text));
		sums[2 * p + 1] = layout_checksum(image->header, image->header_fixed_bytes);
	}
	geometry->checksum = layout_checksum(sums, 2 * geometry->profile_count * sizeof sums[0]);
	return 0;
}

static int images_make(struct geometry *geometry, size_t metadata_capacity, struct reason *reason)
{
	uint64_t image_bytes[PROFILE_COUNT_MAX];
	struct slot_places places;
	int error;

	for (uint32_t p = 0; p < geometry->profile_count; p++) {
		error = image_create(geometry->manifest, &geometry->profiles[p], metadata_capacity,
		                     &geometry->images[p], reason);
		if (error)
			return error;
		image_bytes[p] = geometry->images[p]->image_bytes;
	}
	error = description_encode(geometry->manifest, geometry->profiles, geometry->profile_count,
	                           &geometry->description, &geometry->description_bytes, reason);
	if (error)
		return error;
	error = layout_slot(image_bytes, geometry->profile_count, geometry->manifest->tensor_count,
	                    geometry->description_bytes, &places);
	if (error)
		return reason_set(reason, STATUS_ELIMIT, "the averages of %u profiles have more than 2^63 bytes",
		                  geometry->profile_count);
	memcpy(geometry->region_offsets, places.regions, sizeof places.regions);
	geometry->notes_offset = places.notes;
	geometry->description_offset = places.description;
	geometry->slot_bytes = places.end;
	return checksum_make(geometry);
}

static int placements_make(struct geometry *geometry)
{
	size_t tensor_count = geometry->manifest->tensor_count;

	geometry->placements = calloc(tensor_count * geometry->profile_count, sizeof *geometry->placements);
	geometry->origins = calloc(tensor_count, sizeof *geometry->origins);
	if (!geometry->placements || !geometry->origins)
		return -ENOMEM;
	for (size_t t = 0; t < tensor_count; t++) {
		for (uint32_t p = geometry->profile_count; p-- > 0;) {
			struct placement *placement = &geometry->placements[t * geometry->profile_count + p];
			const struct image *image = geometry->images[p];
			const struct image_tensor *entry;

			placement->entry = ENTRY_DROP;
			if (image->index_of[t] == UINT32_MAX)
				continue;
			entry = &image->tensors[image->index_of[t]];
			placement->entry = entry->entry;
			placement->dtype = entry->dtype;
			placement->group = (uint8_t)(entry->rule + 1);
			placement->offset = geometry->region_offsets[p] + image->data_offset + entry->offset;
			geometry->origins[t] = placement->offset / dtype_bytes(placement->dtype);
		}
	}
	return 0;
}

int geometry_create(struct manifest *manifest, const struct profile *profiles, uint32_t profile_count,
                    size_t metadata_capacity, struct geometry **ret_geometry, struct reason *reason)
{
	struct geometry *geometry = calloc(1, sizeof *geometry);
	int error = -ENOMEM;

	if (!geometry)
		return -ENOMEM;
	geometry->manifest = manifest_share(manifest);
	geometry->profiles = calloc(profile_count, sizeof *profiles);
	if (geometry->profiles) {
		memcpy(geometry->profiles, profiles, profile_count * sizeof *profiles);
		geometry->profile_count = profile_count;
		error = images_make(geometry, metadata_capacity, reason);
	}
	if (!error)
		error = placements_make(geometry);
	if (error) {
		geometry_destroy(geometry);
		return error;
	}
	*ret_geometry = geometry;
	return 0;
}

struct geometry *geometry_share(struct geometry *geometry)
{
	geometry->share_count++;
	return geometry;
}

void geometry_destroy(struct geometry *geometry)
{
	if (!geometry)
		return;
	if (geometry->share_count > 0) {
		geometry->share_count--;
		return;
	}
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		image_destroy(geometry->images[p]);
	manifest_destroy(geometry->manifest);
	free(geometry->profiles);
	free(geometry->description);
	free(geometry->placements);
	free(geometry->origins);
	free(geometry);
}

void geometry_forget_description(struct geometry *geometry)
{
	free(geometry->description);
	geometry->description = NULL;
}

void geometry_settle(struct geometry *geometry, const struct geometry *made)
{
	geometry_forget_description(geometry);
	geometry->description_offset = made->description_offset;
	geometry->description_bytes = made->description_bytes;
	geometry->slot_bytes = made->slot_bytes;
}

int32_t geometry_profile(const struct geometry *geometry, const char *name)
{
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		if (strcmp(geometry->profiles[p].name, name) == 0)
			return (int32_t)p;
	return -1;
}

bool geometry_fits(const struct geometry *geometry, const struct geometry *other)
{
	if (geometry->manifest != other->manifest || geometry->profile_count != other->profile_count ||
	    geometry->notes_offset != other->notes_offset)
		return false;
	for (uint32_t p = 0; p < geometry->profile_count; p++)
		if (strcmp(geometry->profiles[p].name, other->profiles[p].name) != 0)
			return false;
	for (size_t i = 0; i < (size_t)geometry->manifest->tensor_count * geometry->profile_count; i++) {
		const struct placement *here = &geometry->placements[i], *there = &other->placements[i];

		if (here->entry != there->entry)
			return false;
		if (here->entry != ENTRY_DROP && (here->dtype != there->dtype || here->offset != there->offset))
			return false;
	}
	return true;
}

static bool shapes_equal(const struct tensor *a, const struct tensor *b)
{
	return a->dimension_count == b->dimension_count &&
	       memcmp(a->extents, b->extents, a->dimension_count * sizeof a->extents[0]) == 0;
}

/* Averages go on from floats of any type, all else from the same bytes. */
static bool goes_on(const struct placement *to, const struct placement *from)
{
	return to->entry == ENTRY_AVERAGE ? dtype_is_float(from->dtype) : from->dtype == to->dtype;
}

void geometry_sources(const struct geometry *to, const struct geometry *from, struct placement *ret_sources)
{
	int32_t profiles[PROFILE_COUNT_MAX] = { 0 };

	for (uint32_t p = 0; p < to->profile_count; p++)
		profiles[p] = geometry_profile(from, to->profiles[p].name);
	for (uint32_t t = 0; t < to->manifest->tensor_count; t++) {
		const struct tensor *tensor = &to->manifest->tensors[t];
		int64_t index = manifest_find(from->manifest, tensor->name);
		bool found = index >= 0 && shapes_equal(tensor, &from->manifest->tensors[index]);

		for (uint32_t p = 0; p < to->profile_count; p++) {
			size_t at = (size_t)t * to->profile_count + p;
			const struct placement *source;

			ret_sources[at] = (struct placement){ .entry = ENTRY_DROP };
			if (!found || profiles[p] < 0)
				continue;
			source = &from->placements[(size_t)index * from->profile_count + (uint32_t)profiles[p]];
			if (goes_on(&to->placements[at], source))
				ret_sources[at] = *source;
		}
	}
}
