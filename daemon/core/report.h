/*
 * Facts as JSON: what `emactl status`, `list` and `show` print. Member names have their units last.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/core/call.h"

/* Each returns a string to be freed with free(), or NULL when there is no memory. */
char *report_status(const struct service *service, const struct instant *now);
char *report_list(const struct service *service);
/* report_history.c; order: what the disk holds, NULL where the daemon has none. */
char *report_history(const struct service *service, const struct model *model, const struct file_order *order);
char *report_show(const struct service *service, const struct model *model, bool tensors); /* with a row for each */

/* {"error": "no-model", "message": "..."} */
char *report_error(int status, const char *sentence);
