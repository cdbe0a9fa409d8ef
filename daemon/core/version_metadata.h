/*
 * The metadata of a version: what each profile's image says about itself in its safetensors header, strings all.
 *
 *     format, emad.model, emad.profile, emad.schedule, emad.rules, emad.version, emad.step, emad.updates, emad.decay,
 *     emad.nonfinite, emad.attributes, emad.metadata, emad.history
 */
#pragma once

#include "daemon/core/model.h"

/*
 * Writes the headers of all images of a slot whose facts are filled in, for the model's next version. user_metadata:
 * what the trainer pushed with it, NULL for nothing.
 */
void version_metadata_write(const struct model *model, const struct slot_header *target, const char *user_metadata);
