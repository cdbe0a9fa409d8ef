/*
 * A generation: one checkpoint of a model on disk, a directory of its own.
 *
 *     checkpoints/run42%net/00000000000000001200-00000000000000001187/
 *                           step                 version
 *         ema.safetensors     one file a profile
 *         manifest.json       everything else; written last
 *         keep                made by a person: this generation is not removed
 *
 * In the model's directory '/' of its name is '%', which no name holds, so that the directories of all models lie side
 * by side. What was set aside has a name that is none of these: ".bad-TIME" behind a generation's (with a file
 * "reason.txt" that says why; ".old-TIME": it is of a later version than the training that is continued), "%%old-TIME"
 * behind a model's.
 *
 * The manifest is JSON whose end is made here: the files with their checksums, and a checksum over all text before it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/status.h"

enum {
	GENERATION_NAME_BYTES = 20 + 1 + 20 + 1,
	GENERATION_DIRECTORY_BYTES = MODEL_NAME_BYTES_MAX + 1,
	GENERATION_FILE_NAME_BYTES = PROFILE_NAME_BYTES_MAX + 12 + 1,
	GENERATION_COUNT_MIN = 2, /* that are kept at least: one may turn out to be damaged */
	GENERATION_END_BYTES_MAX = PROFILE_COUNT_MAX * (PROFILE_NAME_BYTES_MAX + 96) + 64,
};

/* The most bytes of a manifest that is read: TENSOR_COUNT_MAX tensors with the longest names, escaped. */
#define GENERATION_TEXT_BYTES_MAX (UINT64_C(512) << 20)

struct generation_name {
	uint64_t step;
	uint64_t version;
};

struct generation_file {
	const char *profile;
	uint64_t bytes;
	uint64_t checksum;
};

void generation_name_write(const struct generation_name *name, char ret_text[GENERATION_NAME_BYTES]);
bool generation_name_parse(const char *text, struct generation_name *ret_name);

/* One that was set aside as damaged: "...-....bad-1790000000". false: it is none. */
bool generation_aside_parse(const char *text, struct generation_name *ret_name, uint64_t *ret_wall_s);

/* Older before newer: by version, because a trainer may go back to an earlier step. */
int generation_compare(const struct generation_name *a, const struct generation_name *b);

/* The name of a model's directory; and back: false where no model has it. */
void generation_directory_write(const char *model, char ret_directory[GENERATION_DIRECTORY_BYTES]);
bool generation_directory_parse(const char *directory, char ret_model[MODEL_NAME_BYTES_MAX + 1]);

/* "ema.safetensors" */
void generation_file_name(const char *profile, char ret_name[GENERATION_FILE_NAME_BYTES]);

/*
 * Appends the end to a text that is a JSON object without its last brace, in which something stands; there must be
 * room for GENERATION_END_BYTES_MAX more. Returns the bytes of the whole.
 */
size_t generation_text_end(char *text, size_t text_bytes, const struct generation_file *files, size_t file_count);

/* What a manifest says of the generation as a whole; the tensors and the rest of it are generation_text.h's. */
struct generation_summary {
	char model[MODEL_NAME_BYTES_MAX + 1];
	struct generation_name name;
	uint64_t updates;
	uint64_t published_us; /* wall clock, microseconds since 1970 */
	uint32_t file_count;
	struct {
		char profile[PROFILE_NAME_BYTES_MAX + 1];
		uint64_t bytes;
		uint64_t checksum;
	} files[PROFILE_COUNT_MAX];
};

/* From a whole manifest. STATUS_ECORRUPT with a sentence, also where the checksum at its end is wrong. */
int generation_summary_read(const char *text, size_t text_bytes, struct generation_summary *ret_summary,
                            struct reason *reason);

/* Whether a text is as generation_text_end left it. */
bool generation_text_check(const char *text, size_t text_bytes);
