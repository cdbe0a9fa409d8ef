/*
 * Adopting what an earlier daemon has left behind. See service.h.
 */
#include "daemon/core/call.h"

void service_adopt(struct service *service, const struct instant *now, const struct memory *segments, uint32_t count)
{
	(void)now;
	for (uint32_t i = 0; i < count; i++) {
		struct memory segment = segments[i];

		service->host.memory_drop(service->host.context, &segment);
	}
}
