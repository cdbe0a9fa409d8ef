/*
 * Ids of events. See event.h.
 */
#include "daemon/core/event.h"

#include <stddef.h>

const char *event_id(enum event_kind kind)
{
	static const char *const ids[EVENT_KIND_COUNT] = {
#define X(name, id, text) [EVENT_##name] = id,
		EVENT_KINDS(X)
#undef X
	};

	return ids[kind];
}
