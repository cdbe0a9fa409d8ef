/*
 * What a registration is told in words: which tensors are averaged, copied, frozen and dropped by which rules, and how
 * they differ from those that the model had before.
 */
#pragma once

#include <stddef.h>

#include "daemon/core/model.h"
#include "proto/manifest.h"

enum { REPORT_BYTES_MAX = 2048 };

/* What a model does with its tensors by each profile, and what its latest change of tensors was. */
void registration_report(const struct model *model, char *text, size_t capacity);

/*
 * How tensors differ from those of a model: "2 new ('a', 'b'), 1 gone ('c'), 1 of another shape ('d'), 1 of another
 * dtype ('e')"; empty where they do not.
 */
void registration_difference(const struct manifest *here, const struct manifest *model, char *text, size_t capacity);
