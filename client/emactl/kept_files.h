/*
 * The files of `emactl watch`: their names, and which of them stay.
 *
 *     run42%net.ema.00000000000000012000.safetensors     MODEL.PROFILE.STEP, '/' is '%'
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/status.h"

enum { KEPT_NAME_BYTES = MODEL_NAME_BYTES_MAX + PROFILE_NAME_BYTES_MAX + 64 };

/* The name of a version's file; step NULL: of one whose step is not known yet. */
void kept_files_name(const char *model, const char *profile, const uint64_t *step, char name[KEPT_NAME_BYTES]);

/*
 * Removes the oldest files (by step) of that model and profile from a directory, until at most `count` are left. The
 * file called `kept` stays in any case. -errno with a sentence.
 */
int kept_files_trim(const char *directory, const char *model, const char *profile, uint64_t count, const char *kept,
                    struct reason *reason);
