/*
 * Guards: what a snapshot must satisfy to get into the averages. Written `key=value,key=value`:
 *
 *     nonfinite=refuse|skip-tensor|apply   NaN or infinite values: the whole snapshot is refused (the default); those
 *                                          tensors alone keep their old average; or the values are taken
 *     loss_max=NUMBER                      a push that carries a higher loss, or NaN, is refused
 *     norm_jump=NUMBER                     refused when a tensor's L2 norm differs from that of the snapshot before by
 *                                          more than this part of it
 */
#pragma once

#include <stddef.h>

#include "proto/message.h"
#include "proto/status.h"

enum guard_nonfinite {
	NONFINITE_REFUSE,
	NONFINITE_SKIP_TENSOR,
	NONFINITE_APPLY,
};

struct guards {
	enum guard_nonfinite nonfinite;
	double loss_max;  /* infinity: none */
	double norm_jump; /* infinity: none */
};

/* Refuse non-finite values, nothing else. */
struct guards guards_default(void);

/* Parses a text over the defaults. STATUS_EARGUMENT with a sentence: the keys, the nearest, the range. */
int guards_parse(struct text text, struct guards *ret_guards, struct reason *reason);

/* "nonfinite=refuse,loss_max=10"; capacity of GUARDS_BYTES_MAX is enough. */
enum { GUARDS_BYTES_MAX = 128 };
void guards_format(const struct guards *guards, char *text, size_t text_capacity);
