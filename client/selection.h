/*
 * Which tensors of an image are wanted: by names, or by patterns as in the rules of a profile (profile.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "proto/safetensors.h"

/*
 * *ret_chosen, to be freed, says for each entry whether any of the names or patterns is meant for it. A text that is a
 * tensor's name means that one alone. -ENOENT for a text that means none, with the nearest name; model: for the
 * sentence. STATUS_EARGUMENT, -ENOMEM.
 */
int selection_create(const struct safetensors *tensors, const char *const *texts, size_t text_count, const char *model,
                     bool **ret_chosen, struct reason *reason);
