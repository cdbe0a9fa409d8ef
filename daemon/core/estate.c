/*
 * What is left behind. See estate.h.
 */
#include "daemon/core/estate.h"

#include <inttypes.h>

int estate_check(const struct memory *segment, enum segment_kind kind, struct reason *reason)
{
	if (segment_identity_kind(segment->segment) != kind)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " is of another kind than its name says",
		                  segment->segment);
	if (segment->bytes < LAYOUT_PAGE_BYTES || segment->bytes % LAYOUT_PAGE_BYTES != 0)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " has %" PRIu64
		                  " bytes, and whole pages of %d are needed", segment->segment, segment->bytes,
		                  LAYOUT_PAGE_BYTES);
	if (estate_header(segment)->layout_version != 0 && estate_header(segment)->segment != segment->segment)
		return reason_set(reason, STATUS_ECORRUPT, "segment %016" PRIx64 " holds what was segment %016" PRIx64,
		                  segment->segment, estate_header(segment)->segment);
	return segment_header_check(estate_header(segment), kind, segment->bytes, reason);
}

const struct memory *estate_find(const struct estate *estate, uint64_t segment, enum segment_kind kind,
                                 struct reason *reason)
{
	for (uint32_t i = 0; i < estate->count; i++) {
		const struct memory *at = &estate->segments[i];

		if (!at->base || at->segment != segment)
			continue;
		return estate_check(at, kind, reason) == 0 ? at : NULL;
	}
	reason_set(reason, STATUS_ECORRUPT, "its segment %016" PRIx64 " is not there", segment);
	return NULL;
}

struct memory estate_take(const struct memory *segment)
{
	struct memory *at = (struct memory *)(uintptr_t)segment, taken = *at;

	*at = (struct memory){ .fd = -1, .fd_read_only = -1 };
	return taken;
}
