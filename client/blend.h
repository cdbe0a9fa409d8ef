/*
 * The weighted sum of safetensors files as a new one, in bounded memory whatever the files' sizes.
 *
 * Floating-point tensors are added up in float64; integer and bool tensors are those of one of the files, and so are
 * floating-point tensors that this file and a second one of the same moment hold alike bit for bit: those were copied
 * by both, not averaged, and a sum of running means with negative weights would be none.
 */
#pragma once

#include <stdint.h>

#include "client/blend_layout.h"
#include "client/emad.h"
#include "proto/dtype.h"
#include "proto/status.h"

enum { BLEND_OPEN_COUNT = 64 }; /* how many files are open at a time, unless told otherwise */

struct blend_input {
	const char *path;
	double weight; /* 0: only its header is read */
};

struct blend {
	const struct blend_input *inputs;
	uint32_t input_count;
	uint32_t newest;       /* index: the input whose tensors are taken where nothing is added up */
	uint32_t twin;         /* index: the other input of that moment; UINT32_MAX when there is none */
	enum dtype dtype;      /* of the floating-point tensors; DTYPE_COUNT: as in the inputs */
	uint32_t open_count;   /* how many inputs stay open; the others are opened for each read. 0: BLEND_OPEN_COUNT */
	const struct blend_pair *pairs; /* metadata, see blend_layout_create */
	uint32_t pair_count;
	emad_progress *progress; /* told about the bytes read; may be NULL */
	void *context;
};

/*
 * Writes the sum to path: whole, or path is as it was. All inputs must have the same tensors.
 * STATUS_EMANIFEST (the first difference), STATUS_ECORRUPT (a damaged input; a value that is not finite: tensor and
 * file), STATUS_ELIMIT (a sum that the chosen dtype cannot hold), STATUS_EARGUMENT (a dtype that cannot be added up),
 * -ECANCELED (progress said so), -ENOMEM, -errno. ret_file_bytes may be NULL.
 */
int blend_write(const struct blend *blend, const char *path, uint64_t *ret_file_bytes, struct reason *reason);
