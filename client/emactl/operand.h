/*
 * What a command compares or looks into: an average that the daemon holds, or a safetensors file. Both are a list of
 * tensors and their bytes, read a chunk at a time.
 *
 * MODEL, MODEL:PROFILE, or a file: what ends in ".safetensors" or begins with "/", "./" or "../", or names a regular
 * file that is there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/emactl/emactl.h"
#include "client/source.h"
#include "proto/limits.h"

struct operand {
	const char *text; /* borrowed: as it was typed */
	bool is_file;
	char model[MODEL_NAME_BYTES_MAX + 1]; /* "" for a file */
	const char *profile;                  /* borrowed from text; NULL: the model's first */
	struct source source;                 /* of a file */
	struct safetensors *owned;            /* a file's header, or NULL */
	struct emad_view *view;               /* owned; NULL for a file */
	struct emad_view_info info;           /* of the view */
	const struct safetensors *contents;   /* the tensors, borrowed from owned or view */
};

/* Whether a text means a file. */
bool operand_is_file(const char *text);

/*
 * Parts MODEL[:PROFILE]; *ret_profile is NULL, or lies in text. EX_USAGE with the error printed. A name that is too long
 * for a model is cut to one that no daemon takes.
 */
int operand_split(const struct emactl *emactl, const char *text, char model[MODEL_NAME_BYTES_MAX + 1],
                  const char **ret_profile);

/*
 * Checks how some operands are written, and connects to the daemon when any of them is a model; else *ret_client is
 * NULL. An exit status with the error printed.
 */
int operand_connect(const struct emactl *emactl, char *const *texts, unsigned count, struct emad_client **ret_client);

/*
 * Opens it; a client is needed for models alone. tensor: the only one that is wanted, so that no others need to come
 * from another host; NULL: all. An exit status with the error printed. Call operand_close on failure too.
 */
int operand_open(const struct emactl *emactl, struct operand *operand, const char *text, const char *tensor,
                 struct emad_client *client);
void operand_close(struct operand *operand);

/* Copies bytes of the image or file. Of a view they may be believed only after operand_check. */
int operand_read(struct operand *operand, uint64_t offset, void *bytes, size_t byte_count, struct reason *reason);

/* 0 when everything read so far belongs to one version. STATUS_EREVOKED. */
int operand_check(struct operand *operand, struct reason *reason);

/* The entry of a name, or NULL with the exit status of an error that names the nearest. */
const struct safetensors_entry *operand_find(const struct emactl *emactl, const struct operand *operand, const char *name,
                                             int *ret_status);

/* The members version, step and profile, or file, in one JSON object on standard output. */
void operand_json(const struct operand *operand);

/* "run42/net:ema, version 7, step 1200" */
void operand_print(const struct operand *operand);
