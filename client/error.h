/*
 * The sentence of the calling thread's latest failure (emad_error).
 *
 * Inside the library a sentence travels in a `struct reason` beside its code; the entry points put it here as the last
 * thing they do. This is the library's only thread-local state.
 */
#pragma once

#include "proto/status.h"

/* Keeps the sentence when code is a failure (status_text(code) when reason is empty) and returns code. */
int error_report(int code, const struct reason *reason);
