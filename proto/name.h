/*
 * Names: what a model, a profile and a tensor may be called, and canonical tensor names.
 *
 * Names reach file names, logs, JSON and terminals, so they are checked once, here, where they enter.
 */
#pragma once

#include <stddef.h>

#include "proto/status.h"

/*
 * A model: 1..MODEL_NAME_BYTES_MAX bytes of [A-Za-z0-9._@+=-], in parts divided by '/', no part empty, "." or "..".
 * STATUS_ENAME with a sentence that shows the name (made printable) and what is wrong.
 */
int model_name_check(const char *name, size_t bytes, struct reason *reason);

/* A profile: as one part of a model's name but without '=', at most PROFILE_NAME_BYTES_MAX bytes. */
int profile_name_check(const char *name, size_t bytes, struct reason *reason);

/* A tensor: 1..TENSOR_NAME_BYTES_MAX bytes of UTF-8 without control characters; not "__metadata__". */
int tensor_name_check(const char *name, size_t bytes, struct reason *reason);

/*
 * Writes the canonical form of a tensor's name: the dotted parts that wrappers add ("module", "_orig_mod",
 * "_fsdp_wrapped_module", "_checkpoint_wrapped_module") are left out wherever they occur. A name made of such parts
 * alone stays as it is. Returns the bytes written without the terminating NUL, which is always written;
 * capacity must be at least bytes + 1.
 */
size_t tensor_name_canonical(const char *name, size_t bytes, char *ret_name, size_t capacity);

/* 1 when the bytes are well-formed UTF-8 (no surrogates, no overlong forms), else 0. */
int utf8_check(const char *text, size_t bytes);
