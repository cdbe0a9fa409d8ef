/*
 * An update of a model: from the snapshots that are ready to a published version, or to nothing at all.
 *
 * Between update_begin and update_end the workers run model->apply. Until update_end publishes, the old version has not
 * been touched; that is why refusing a snapshot costs nothing.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>

#include "daemon/core/generation_text.h"
#include "daemon/core/host.h"
#include "daemon/core/model.h"
#include "daemon/core/settings.h"
#include "proto/counters.h"

/*
 * Begins the next update if there is one: *ret_begun says so, and model->apply is ready for the workers. Snapshots that
 * can never be completed are dropped on the way and counted. A slot may be taken back from readers.
 */
void update_begin(struct model *model, const struct settings *settings, const struct instant *now,
                  struct counters *counters, bool *ret_begun);

/* The rank's oldest snapshot that waits gives way to one that is to come. Its stage, or -1 where none waits. */
int32_t update_make_room(struct model *model, uint32_t rank, struct counters *counters);

enum update_result {
	UPDATE_PUBLISHED,
	UPDATE_REFUSED, /* thrown away, with a sentence */
	UPDATE_AGAIN, /* some tensors must get their old average back: model->apply must go to the workers again */
};

/*
 * The workers are done: publishes the version, or throws it away when the guards refuse it. PUBLISHED with a sentence
 * when some tensors were not as they should be but the guards let them pass, else with an empty one.
 */
enum update_result update_end(struct model *model, const struct host *host, const struct instant *now,
                              struct counters *counters, struct reason *reason);

/* The rank's snapshots that wait will not be averaged any more. */
void update_drop_ready(struct model *model, uint32_t rank, const char *why, struct counters *counters);

/*
 * A slot to be written, by an update or from disk. STATUS_EBUSY where readers hold all: model->room_due_ms says when
 * one may be taken back.
 */
int update_slot_take(struct model *model, const struct settings *settings, const struct instant *now,
                     struct counters *counters, uint32_t *ret_slot);

/* What an average goes back to. */
struct update_back {
	const char *change; /* as the history has it: "rewound", "rolled back" */
	uint32_t slot;      /* that holds the version, or, of one from disk, its averages and nothing else yet */
	struct generation *generation; /* that they were read from; its metadata are taken. NULL: it was in memory */
};

/* Makes that version the newest of all. No update may be under way. */
void update_rewind(struct model *model, const struct host *host, const struct instant *now,
                   const struct update_back *back, struct counters *counters);
