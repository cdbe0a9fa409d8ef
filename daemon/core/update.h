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

/*
 * The workers are done: publishes the version, or throws it away when a value was not finite. Returns the outcome;
 * NONFINITE with a sentence.
 */
enum outcome update_end(struct model *model, const struct instant *now, struct counters *counters,
                        struct reason *reason);
