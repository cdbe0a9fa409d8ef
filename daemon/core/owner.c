/*
 * Adding up what each user has. See owner.h.
 */
#include "daemon/core/owner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/core/call.h"

void owner_text(int64_t owner, char text[OWNER_TEXT_BYTES])
{
	if (owner >= 0)
		snprintf(text, OWNER_TEXT_BYTES, "uid %" PRId64, owner);
	else
		snprintf(text, OWNER_TEXT_BYTES, "those whose user is not known");
}

/* Not one that is to go, nor one whose place an heir is about to take. */
static bool is_counted(const struct model *model)
{
	return !model->doomed && !model->ancestor;
}

static int sum_compare(const void *a, const void *b)
{
	const struct owner_sum *first = a, *second = b;

	return (first->owner > second->owner) - (first->owner < second->owner);
}

struct owner_sum *owner_sums(const struct service *service, uint32_t *ret_count)
{
	struct owner_sum *sums;
	uint32_t count = 0, used = 0;

	*ret_count = 0;
	for (const struct model *model = service->models; model; model = model->next)
		count++;
	sums = count > 0 ? calloc(count, sizeof *sums) : NULL;
	if (!sums)
		return NULL;
	count = 0;
	for (const struct model *model = service->models; model; model = model->next)
		sums[count++] = (struct owner_sum){ model->owner, is_counted(model), service_model_bytes(model) };
	qsort(sums, count, sizeof *sums, sum_compare);
	for (uint32_t i = 0; i < count; i++) {
		if (used == 0 || sums[used - 1].owner != sums[i].owner) {
			sums[used++] = sums[i];
			continue;
		}
		sums[used - 1].model_count += sums[i].model_count;
		sums[used - 1].memory_bytes += sums[i].memory_bytes;
	}
	*ret_count = used;
	return sums;
}

int owner_memory_check(const struct service *service, const struct model *model, const struct model *replaced,
                       struct reason *reason)
{
	uint64_t most = service->settings.owner_memory_bytes_max, needed = service_model_bytes(model), used = 0;
	char owner[OWNER_TEXT_BYTES];

	/* What was there before a restart stays, as it does when the limit is lowered. */
	if (most == 0 || model->recovers)
		return 0;
	for (const struct model *other = service->models; other; other = other->next)
		if (other != model && other->owner == model->owner && (other != replaced || other->doomed))
			used += service_model_bytes(other);
	if (needed <= most && used <= most - needed)
		return 0;
	owner_text(model->owner, owner);
	return reason_set(reason, STATUS_EMEMORY,
	                  "model '%s' needs %" PRIu64 " bytes, but %" PRIu64 " of %" PRIu64
	                  " (memory-max-per-user) are left to %s: remove one of that user's models with 'emactl remove "
	                  "MODEL', lower slots or stages, or have memory-max-per-user raised",
	                  model->name, needed, most > used ? most - used : 0, most, owner);
}

int owner_count_check(const struct service *service, const struct model *model, const struct model *replaced,
                      struct reason *reason)
{
	uint64_t most = service->settings.owner_model_count_max, count = 0;
	char owner[OWNER_TEXT_BYTES];

	if (most == 0 || model->recovers)
		return 0;
	for (const struct model *other = service->models; other; other = other->next)
		count += other != replaced && other->owner == model->owner && is_counted(other);
	if (count < most)
		return 0;
	owner_text(model->owner, owner);
	return reason_set(reason, STATUS_ELIMIT,
	                  "%" PRIu64 " models of %s are the limit of %" PRIu64 " (models-max-per-user): remove one of them with "
	                  "'emactl remove MODEL', or have models-max-per-user raised",
	                  count, owner, most);
}

void owner_warn(const struct service *service)
{
	uint64_t bytes_max = service->settings.owner_memory_bytes_max;
	uint64_t count_max = service->settings.owner_model_count_max;
	char owner[OWNER_TEXT_BYTES];
	struct owner_sum *sums;
	uint32_t count;

	if (bytes_max == 0 && count_max == 0)
		return;
	sums = owner_sums(service, &count);
	for (uint32_t i = 0; i < count; i++) {
		const struct owner_sum *sum = &sums[i];

		owner_text(sum->owner, owner);
		if (bytes_max > 0 && sum->memory_bytes > bytes_max)
			service_event(service, EVENT_WARNING, NULL, 0, "memory-max-per-user is %" PRIu64 " bytes now, and the "
			              "models of %s use %" PRIu64 ": they stay, and new ones are refused until 'emactl remove' "
			              "has made room", bytes_max, owner, sum->memory_bytes);
		if (count_max > 0 && sum->model_count > count_max)
			service_event(service, EVENT_WARNING, NULL, 0, "models-max-per-user is %" PRIu64 " now, and there are %"
			              PRIu64 " of %s: they stay, and new ones are refused until 'emactl remove' has made room",
			              count_max, sum->model_count, owner);
	}
	free(sums);
}
