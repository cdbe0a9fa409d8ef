/*
 * The linker turns intake_push into __wrap_intake_push and keeps the real one as __real_intake_push, and so on.
 */
#include "tests/unit/kill_faults.h"

#include "daemon/core/intake.h"
#include "daemon/core/model.h"

#include <stdlib.h>
#include <string.h>

int __real_intake_push(struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step,
                       const struct push *push, struct answer *ret_answer, struct reason *reason);
int __wrap_intake_push(struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step,
                       const struct push *push, struct answer *ret_answer, struct reason *reason);
void __real_intake_begin(struct rank_record *record, uint32_t stage, uint64_t version);
void __wrap_intake_begin(struct rank_record *record, uint32_t stage, uint64_t version);
void __real_book_note(struct model *model);
void __wrap_book_note(struct model *model);

static struct {
	bool ready_first, applying_first, stale_book;
} planted;

void kill_fault_plant(const char *name)
{
	if (!name)
		return;
	planted.ready_first = strcmp(name, "ready-first") == 0;
	planted.applying_first = strcmp(name, "applying-first") == 0;
	planted.stale_book = strcmp(name, "stale-book") == 0;
	if (!planted.ready_first && !planted.applying_first && !planted.stale_book)
		abort();
}

/* The stages are READY before the answers are there. */
int __wrap_intake_push(struct rank_record *record, uint32_t stage_count, const uint64_t *newest_step,
                       const struct push *push, struct answer *ret_answer, struct reason *reason)
{
	struct rank_record copy;
	int error;

	if (!planted.ready_first)
		return __real_intake_push(record, stage_count, newest_step, push, ret_answer, reason);
	copy = *record;
	error = __real_intake_push(&copy, stage_count, newest_step, push, ret_answer, reason);
	memcpy(record->stages, copy.stages, sizeof copy.stages);
	layout_barrier();
	memcpy(record->answers, copy.answers, sizeof copy.answers);
	return error;
}

/* A stage is APPLYING before it is known for which version. */
void __wrap_intake_begin(struct rank_record *record, uint32_t stage, uint64_t version)
{
	if (planted.applying_first) {
		seal_set(&record->stages[stage].seal, seal_stage(&record->stages[stage], STAGE_APPLYING));
	}
	__real_intake_begin(record, stage, version);
}

/* The book is written once, and not when something changes. */
void __wrap_book_note(struct model *model)
{
	if (!planted.stale_book || model->head->epoch == 0)
		__real_book_note(model);
}
