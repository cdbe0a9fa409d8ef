/*
 * Ranges of bytes of an image, read without a view.
 */
#pragma once

#include "client/emad.h"
#include "proto/status.h"

/* Whether it lies in an image of that size. STATUS_EARGUMENT with the numbers. */
int range_check(const struct emad_range *range, uint64_t image_bytes, struct reason *reason);
