/*
 * The description of a slot: what one must know to read its bytes, so that a slot can be taken over by a daemon that
 * knows nothing else of the model.
 *
 *     | "ema=yolo\nslow=constant:decay=0.99999" | NUL | the tensors, as in the body of a register request |
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/manifest.h"
#include "proto/profile.h"
#include "proto/status.h"

/* Allocates *ret_bytes (free with free()). -ENOMEM; STATUS_ELIMIT as manifest_encode. */
int description_encode(const struct manifest *manifest, const struct profile *profiles, uint32_t profile_count,
                       uint8_t **ret_bytes, size_t *ret_count, struct reason *reason);

/*
 * Believes nothing. STATUS_ECORRUPT with a sentence, -ENOMEM. The manifest is the caller's; ret_profiles has room for
 * PROFILE_COUNT_MAX.
 */
int description_decode(const uint8_t *bytes, size_t count, struct manifest **ret_manifest, struct profile *ret_profiles,
                       uint32_t *ret_profile_count, struct reason *reason);
